"""The layout of `describe`: Go's text/tabwriter, and the pieces that every description has. Pure.

Lines are strings with tabs in them, as kubectl's describe.go writes them; `aligned` makes columns of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from nsk8s.api.types import Obj

PADDING = 2
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
ANNOTATION_LENGTH = 140
"""Longest annotation that stands on one line."""


def aligned(lines: Sequence[str]) -> Iterator[str]:
    """Tabs end cells; cells of a column stand in consecutive lines and are as wide as the widest of them.
    What follows a line's last tab is no cell."""
    cells = [line.split("\t") for line in lines]
    widths: list[list[int]] = [[0] * (len(row) - 1) for row in cells]
    for column in range(max((len(row) - 1 for row in cells), default=0)):
        first = 0
        while first < len(cells):
            last = first
            while last < len(cells) and len(cells[last]) - 1 > column:
                last += 1
            width = max((len(row[column]) for row in cells[first:last]), default=0) + PADDING
            for index in range(first, last):
                widths[index][column] = width
            first = max(last, first + 1)
    for row, wide in zip(cells, widths, strict=True):
        yield "".join(cell.ljust(width) for cell, width in zip(row, wide, strict=False)) + row[-1]


def indented(lines: Iterable[str], by: str = "  ") -> Iterator[str]:
    """Lines one level deeper."""
    return (by + line for line in lines)


def head(obj: Obj, *, namespaced: bool = True) -> Iterator[str]:
    """Name and namespace."""
    yield f"Name:\t{obj['metadata']['name']}"
    if namespaced:
        yield f"Namespace:\t{obj['metadata'].get('namespace', '')}"


def pairs(title: str, mapping: Mapping[str, str] | None, *, indent: str = "") -> Iterator[str]:
    """Labels or a selector, one a line."""
    yield from several(title, [f"{k}={v}" for k, v in sorted((mapping or {}).items())], indent=indent)


def several(title: str, values: Sequence[str], *, indent: str = "") -> Iterator[str]:
    """A title with values below each other."""
    for index, value in enumerate(values or ["<none>"]):
        yield f"{indent}{title}:\t{value}" if index == 0 else f"{indent}\t{value}"


def notes(mapping: Mapping[str, str] | None, *, title: str = "Annotations") -> Iterator[str]:
    """Annotations, long ones below their key; without what `apply` keeps there."""
    shown = [(k, v) for k, v in sorted((mapping or {}).items()) if k != LAST_APPLIED]
    if not shown:
        yield f"{title}:\t<none>"
    lead = f"{title}:\t"
    for key, text in shown:
        value = text.removesuffix("\n")
        if len(value) + len(key) + 2 > ANNOTATION_LENGTH or "\n" in value:
            yield f"{lead}{key}:"
            for line in value.split("\n"):
                cut = f"{line[: ANNOTATION_LENGTH - 2]}..."
                yield f"\t  {line if len(line) < ANNOTATION_LENGTH else cut}"
        else:
            yield f"{lead}{key}: {value}"
        lead = "\t"


def flat(mapping: Mapping[str, str] | None) -> str:
    """``a=b,c=d``."""
    return ",".join(f"{k}={v}" for k, v in sorted((mapping or {}).items())) or "<none>"


def moment(text: str | None) -> str:
    """RFC 1123 with the zone; the zero time of Go if it is not known."""
    if not text:
        return "Mon, 01 Jan 0001 00:00:00 +0000"
    parsed = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)
    return parsed.strftime("%a, %d %b %Y %H:%M:%S +0000")


def controller(obj: Obj) -> Iterator[str]:
    """Who owns it."""
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            yield f"Controlled By:\t{owner['kind']}/{owner['name']}"


def conditions(status: Mapping[str, Any]) -> Iterator[str]:
    """A controller's conditions, with their reasons."""
    found = status.get("conditions") or ()
    if found:
        yield "Conditions:"
        yield "  Type\tStatus\tReason"
        yield "  ----\t------\t------"
        for one in found:
            yield f"  {one['type']} \t{one['status']}\t{one.get('reason', '')}"
