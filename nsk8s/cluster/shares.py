"""Amounts that are a number, or a percentage of something (apimachinery's intstr)."""

from __future__ import annotations

from nsk8s.api.types import IntOrString


def share(value: IntOrString, of: int, *, up: bool) -> int:
    """`value` itself, or its percentage of `of`, rounded up or down
    (GetScaledValueFromIntOrPercent)."""
    if isinstance(value, int):
        return value
    return (int(value.rstrip("%")) * of + (99 if up else 0)) // 100
