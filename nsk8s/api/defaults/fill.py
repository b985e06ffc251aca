"""Filling in what is not there. A value of a wrong type is left as it is, for validation to find."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Fill = Callable[[dict[str, Any]], dict[str, Any]]


def filled(value: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`value` with those of `defaults` that it lacks behind its own."""
    new = dict(value)
    for key, item in defaults.items():
        if key not in new:
            new[key] = item
    return new


def each(value: object, fill: Fill) -> object:
    """A list with every mapping in it filled."""
    return [fill(v) if type(v) is dict else v for v in value] if type(value) is list else value


def within(value: dict[str, Any], key: str, fill: Fill) -> dict[str, Any]:
    """`value` with the mapping at `key`, or every mapping of the list there, filled; nothing is made
    where there is none."""
    found = value.get(key)
    if type(found) is dict:
        return {**value, key: fill(found)}
    return {**value, key: each(found, fill)} if type(found) is list else value


def beneath(value: dict[str, Any], path: tuple[str, ...], fill: Fill) -> dict[str, Any]:
    """The same, for what stands at the end of a path of keys."""
    if len(path) == 1:
        return within(value, path[0], fill)
    return within(value, path[0], lambda found: beneath(found, path[1:], fill))


def defaults_of(defaults: Mapping[str, Any]) -> Fill:
    """What fills a mapping with `defaults`."""
    return lambda value: filled(value, defaults)
