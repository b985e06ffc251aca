"""`describe` of objects that nobody has written a description for: all their fields, as kubectl's
GenericDescriber lays them out (printUnstructuredContent and smartLabelFor of its describe.go)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from nsk8s.api.types import Obj

ACRONYMS = {"api", "url", "uid", "osb", "guid"}
SAID = {"managedFields", "name", "namespace", "labels", "annotations"}
"""Fields of metadata that the head has said already, or that nobody reads."""


def fields(obj: Obj) -> Iterator[str]:
    """The lines about an object's fields, for `layout.aligned`."""
    metadata = {key: value for key, value in obj["metadata"].items() if key not in SAID}
    return _content({**obj, "metadata": metadata}, "")


def _content(content: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key in sorted(content):
        value, label = content[key], _label(key)
        if isinstance(value, dict):
            yield f"{indent}{label}:"
            yield from _content(value, indent + "  ")
        elif isinstance(value, list):
            yield f"{indent}{label}:"
            for one in value:
                if isinstance(one, dict):
                    yield from _content(one, indent + "  ")
                else:
                    yield f"{indent}  {_text(one)}"
        else:
            yield f"{indent}{label}:\t{_text(value)}"


def _label(key: str) -> str:
    """``creationTimestamp`` is Creation Timestamp; a key with other characters than letters stays."""
    if not re.fullmatch(r"[^\W\d_]+(-[^\W\d_]+)*", key):
        return key
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|-", key)
    return " ".join(
        word.upper() if word.lower() in ACRONYMS else word[0].upper() + word[1:] for word in words
    )


def _text(value: object) -> str:
    """As Go prints it."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{' '.join(map(_text, value))}]"
    return str(value)
