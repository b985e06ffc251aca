"""Quantities: numbers with the suffixes of apimachinery's `api/resource`."""

from __future__ import annotations

import re
from fractions import Fraction

QUANTITIES = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
"""What is wrong with a text that is none."""
_QUANTITY = re.compile(
    r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))([eE][-+]?[0-9]+|[KMGTPE]i|[numkMGTPE]|)"
).fullmatch
_POWERS = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def quantity(text: object) -> Fraction | None:
    """The number that a Quantity means (``500m``, ``1Gi``, ``1e3``); None if it is none."""
    found = _QUANTITY(str(text)) if isinstance(text, str | int | float) and text is not True else None
    if found is None:
        return None
    number, suffix = found.groups()
    if suffix.endswith("i"):
        return Fraction(number) * (1 << 10 * ("KMGTPE".index(suffix[0]) + 1))
    power = int(suffix[1:]) if len(suffix) > 1 else _POWERS[suffix]
    scale: int = 10 ** abs(power)
    return Fraction(number) * scale if power >= 0 else Fraction(number) / scale
