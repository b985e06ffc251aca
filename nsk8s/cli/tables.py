"""Printing what the API answers: its tables as kubectl aligns them, objects as YAML or JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from nsk8s.api.types import Obj

AMBIGUOUS = re.compile(r"[yYnN]|[-+]?[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?")
"""What Go's yaml quotes though PyYAML would not: YAML 1.1's shortest booleans, and numbers like 1e3."""

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


def dump(obj: Obj, form: str) -> str:
    """An object as ``json`` (four spaces) or ``yaml``, as kubectl prints it."""
    if form == "json":
        import json

        return json.dumps(obj, indent=4, ensure_ascii=False, sort_keys=True) + "\n"
    import yaml

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # libyaml's, or Python's
        """Strings in the style of Go's yaml: a word that reads as something else in double quotes,
        several lines as a block."""

    def string(dumper: Any, text: str) -> Any:  # noqa: ANN401  # PyYAML's own types are not public
        tag = "tag:yaml.org,2002:str"
        style = None
        if "\n" in text and text.strip():
            style = "|"
        elif AMBIGUOUS.fullmatch(text) or dumper.resolve(yaml.ScalarNode, text, (True, False)) != tag:
            style = '"'
        return dumper.represent_scalar(tag, text, style=style)

    Dumper.add_representer(str, string)
    text: str = yaml.dump(obj, Dumper=Dumper, default_flow_style=False, allow_unicode=True, width=1 << 30)
    return text


def _cell(value: object) -> str:
    return "<none>" if value is None or value == "" else str(value)
