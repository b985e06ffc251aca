"""The table of who may connect to whom, drawn: as text, and as SVG. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from nsk8s.api.types import Obj

ALLOWED, DENIED = "yes", "no"
CELL, PAD = 22, 6
"""Pixels of a cell, and around what is written."""
GLYPH = 7.2
"""Pixels of a character at 12 pixels."""
COLORS = {"allowed": "#4c9f70", "denied": "#c8553d", "differs": "#f2c14e"}


def _heads(table: Obj) -> tuple[list[str], list[str]]:
    """The names of the rows and of the columns; without the namespace if all are in one."""
    pods = table["pods"]
    alone = len({pod["namespace"] for pod in pods}) == 1
    rows = [pod["name"] if alone else f"{pod['namespace']}/{pod['name']}" for pod in pods]
    return rows, [f"{row}:{pod['port']}" for row, pod in zip(rows, pods, strict=True)]


def _cells(table: Obj) -> Iterator[list[tuple[bool, bool | None]]]:
    """What is predicted and what was seen (None: not tried), by row."""
    seen = table.get("reached")
    for i, row in enumerate(table["allowed"]):
        yield [(allowed, seen[i][j] if seen else None) for j, allowed in enumerate(row)]


def text(table: Obj) -> Iterator[str]:
    """The lines of the table, and one that counts. What differs is ``no!yes``: predicted, then seen."""
    rows, columns = _heads(table)
    lines = [[f"FROM\\TO {table['protocol']}", *columns]]
    counts = {ALLOWED: 0, DENIED: 0}
    different = 0
    for name, row in zip(rows, _cells(table), strict=True):
        words = []
        for allowed, seen in row:
            word = ALLOWED if allowed else DENIED
            counts[word] += 1
            if seen is not None and seen is not allowed:
                different += 1
                word += f"!{ALLOWED if seen else DENIED}"
            words.append(word)
        lines.append([name, *words])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        yield "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
    found = f"{counts[ALLOWED]} allowed, {counts[DENIED]} denied"
    if "reached" in table:
        found += f"; tried: {f'{different} differ' if different else 'all are so'}"
    yield found


def svg(table: Obj) -> str:
    """The table as a picture; each cell says what it is when it is pointed at."""
    rows, columns = _heads(table)
    left = round(max(map(len, [*rows, ""])) * GLYPH) + 2 * PAD
    top = round(max(map(len, [*columns, ""])) * GLYPH) + 2 * PAD
    width, height = left + CELL * len(columns) + PAD, top + CELL * len(rows) + PAD
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="monospace" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for i, name in enumerate(columns):
        x = left + i * CELL + CELL // 2 + 4
        lines.append(f'<text transform="translate({x},{top - PAD}) rotate(-90)">{escape(name)}</text>')
    for i, (name, row) in enumerate(zip(rows, _cells(table), strict=True)):
        y = top + i * CELL
        lines.append(f'<text x="{left - PAD}" y="{y + 15}" text-anchor="end">{escape(name)}</text>')
        for j, (allowed, seen) in enumerate(row):
            word = "allowed" if allowed else "denied"
            said = f"{name} to {columns[j]} {table['protocol']}: {word}"
            if seen is not None:
                said += f", {'reached' if seen else 'not reached'} when tried"
            color = COLORS[word if seen in (None, allowed) else "differs"]
            x = left + j * CELL
            lines.append(
                f'<rect x="{x + 1}" y="{y + 1}" width="{CELL - 2}" height="{CELL - 2}" fill="{color}">'
                f"<title>{escape(said)}</title></rect>"
            )
    return "\n".join([*lines, "</svg>", ""])
