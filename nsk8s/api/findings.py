"""Collecting what is wrong with an object, in the API server's words.

The sentences are those of apimachinery's `util/validation/field`: ``Invalid value: 20: ...``,
``Required value``, ``Duplicate value: "a"``, ``Unsupported value: "x": supported values: "A", "B"``,
``Forbidden: ...``. A hint, where there is one, says what to do about it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from nsk8s.api import names
from nsk8s.errors import Problem

LONGEST = 120
"""Characters of a value that an error repeats."""


def shown(value: object) -> str:
    """A value as an error message repeats it: JSON, cut if it is long."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _go_list(value: object) -> str:
    """A list of texts as Go's ``%#v`` writes it, as the API server does; all else as JSON."""
    if value and isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return f"[]string{{{', '.join(map(shown, value))}}}"
    return shown(value)


def _go_map(value: object) -> str:
    """The same for a map of texts."""
    return (
        f"map[string]string{shown(dict(sorted(value.items())))}" if isinstance(value, dict) else shown(value)
    )


def below(path: str, key: str) -> str:
    """The path of `key` in the map at `path`: ``metadata.labels[app.kubernetes.io/name]``."""
    return f"{path}[{key}]"


class Findings:
    """The problems found so far, in the order they were found."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, path: str, what: str, hint: str = "") -> None:
        """A finding in words of its own."""
        self.problems.append(Problem(path, what, hint))

    def required(self, path: str, why: str = "", hint: str = "") -> None:
        """A value is missing."""
        self.add(path, f"Required value: {why}" if why else "Required value", hint)

    def invalid(self, path: str, value: object, why: str, hint: str = "") -> None:
        """A value cannot be."""
        text = _go_map(value) if path.endswith(".labels") else _go_list(value)
        self.add(path, f"Invalid value: {text}: {why}", hint)

    def duplicate(self, path: str, value: object, hint: str = "") -> None:
        """A value that must be unique is there already."""
        self.add(path, f"Duplicate value: {shown(value)}", hint)

    def forbidden(self, path: str, why: str, hint: str = "") -> None:
        """A field must not be set here."""
        self.add(path, f"Forbidden: {why}", hint)

    def one_of(self, path: str, value: str, supported: Iterable[str]) -> None:
        """`value` must be one of the supported words; names the nearest if it is not."""
        words = tuple(supported)
        if value not in words:
            listed = ", ".join(f'"{word}"' for word in words)
            near = names.nearest(value, words)
            hint = f'did you mean "{near}"?' if near and value else ""
            self.add(path, f"Unsupported value: {shown(value)}: supported values: {listed}", hint)

    def port(self, path: str, value: int) -> None:
        """`value` must be a port number."""
        if not 1 <= value <= 65535:
            self.invalid(path, value, "must be between 1 and 65535, inclusive")

    def port_or_name(self, path: str, value: int | str) -> None:
        """`value` must be a port number or the name of a container's port."""
        if isinstance(value, int):
            self.port(path, value)
        elif wrong := names.port_name(value):
            digits = value.isascii() and value.isdigit()
            self.invalid(path, value, wrong, "write the number without quotes" if digits else "")

    def at_least(self, path: str, value: int | None, least: int) -> None:
        """`value`, if given, must not be smaller than `least`."""
        if value is not None and value < least:
            self.invalid(path, value, f"must be greater than or equal to {least}")

    def name(self, path: str, value: str, wrong: str) -> None:
        """`wrong` is what `names` has to say about `value`; offers a name that would do."""
        if wrong:
            better = names.repaired(value)
            self.invalid(path, value, wrong, f'"{better}" would do' if better and better != value else "")

    def labels(self, path: str, labels: Mapping[str, Any] | None) -> None:
        """Keys and values of a map of labels (or of a selector made of labels)."""
        for key, value in (labels or {}).items():
            if wrong := names.label_key(key):
                self.invalid(below(path, key), key, wrong)
            if wrong := names.label_value(value):
                self.invalid(below(path, key), value, wrong)
