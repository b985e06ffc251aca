"""Paths of fields as Kubernetes writes them: ``spec.ports[0].nodePort``, ``metadata.labels[a.b/c]``."""

from __future__ import annotations

import re

_SEGMENT = re.compile(r"\[([^\]]*)\]|([^.\[]+)")


def segments(path: str) -> list[str]:
    """The keys and indexes of a path, outermost first."""
    return [inside or plain for inside, plain in _SEGMENT.findall(path)]


def find(obj: object, path: str) -> object:
    """What stands at `path` in an object, or None."""
    for segment in segments(path):
        if isinstance(obj, dict):
            obj = obj.get(segment)
        elif isinstance(obj, list) and segment.isascii() and segment.isdigit() and int(segment) < len(obj):
            obj = obj[int(segment)]
        else:
            return None
    return obj
