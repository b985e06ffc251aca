"""Printing what the API answers: its tables as kubectl aligns them, objects as YAML or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from nsk8s.api.types import Obj

TABLE_ACCEPT = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def table_lines(
    table: Obj,
    *,
    wide: bool = False,
    namespaced: bool = False,
    headers: bool = True,
    labels: bool = False,
    prefix: str = "",
    widths: list[int] | None = None,
) -> Iterator[str]:
    """The lines of a `meta.k8s.io/v1 Table`: columns three spaces apart, as wide as their widest cell.
    `widths` carries the column widths from one call to the next (a watch prints rows as they come)."""
    shown = [i for i, c in enumerate(table["columnDefinitions"]) if wide or not c.get("priority")]
    rows = []
    if headers:
        rows.append([table["columnDefinitions"][i]["name"].upper() for i in shown])
    for row in table["rows"]:
        cells = [_cell(row["cells"][i]) for i in shown]
        cells[0] = prefix + cells[0]
        rows.append(cells)
    metas = [row["object"]["metadata"] for row in table["rows"]]
    lead = [["NAMESPACE"]] if headers else []
    if namespaced:
        rows = [[*a, *b] for a, b in zip(lead + [[m.get("namespace", "")] for m in metas], rows, strict=True)]
    if labels:
        text = [",".join(f"{k}={v}" for k, v in sorted((m.get("labels") or {}).items())) for m in metas]
        extra = (["LABELS"] if headers else []) + [t or "<none>" for t in text]
        rows = [[*row, cell] for row, cell in zip(rows, extra, strict=True)]
    if widths is None:
        widths = []
    for row in rows:
        widths.extend([0] * (len(row) - len(widths)))
        for i, cell in enumerate(row):
            widths[i] = max(widths[i], len(cell))
    for row in rows:
        yield "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()


def print_table(table: Obj, **options: Any) -> None:  # noqa: ANN401  # passed on to table_lines as they are
    """Print a table to stdout."""
    for line in table_lines(table, **options):
        click.echo(line)


def dump(obj: Obj, form: str) -> str:
    """An object as ``json`` (four spaces, as kubectl prints it) or ``yaml``."""
    if form == "json":
        import json

        return json.dumps(obj, indent=4, ensure_ascii=False, sort_keys=True) + "\n"
    import yaml

    text: str = yaml.dump(
        obj,
        Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper),
        default_flow_style=False,
        allow_unicode=True,
    )
    return text


def _cell(value: object) -> str:
    return "<none>" if value is None or value == "" else str(value)
