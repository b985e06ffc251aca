"""`meta.k8s.io` Tables: objects as rows, in the columns of their printers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal

from nsk8s.api.types import Obj
from nsk8s.apiserver.printers.columns import Printer

Include = Literal["None", "Metadata", "Object"]
"""What stands beside the cells of a row."""


def columns(printer: Printer) -> list[Obj]:
    """The columnDefinitions."""
    return [
        {
            "name": c.name,
            "type": c.type,
            "format": c.format,
            "description": c.description,
            "priority": c.priority,
        }
        for c in printer.columns
    ]


def rows(
    printer: Printer, objects: Iterable[Obj], now: datetime, include: Include, version: str = "v1"
) -> list[Obj]:
    """The rows, in the order of `objects`; `version` is that of meta.k8s.io.

    With ``Metadata`` a row has all of it but managedFields, which kube-apiserver sends too: no column is made
    of them, and kubectl spent most of its time on them (of 5,000 pods 0.6 s of 1.1 s).
    """
    api_version = f"meta.k8s.io/{version}"
    cells, conditions = printer.row, printer.conditions
    found: list[Obj] = []
    for obj in objects:
        row: Obj = {"cells": cells(obj, now)}
        if conditions is not None and (of_row := conditions(obj)):
            row["conditions"] = of_row
        if include == "Object":
            row["object"] = obj
        elif include == "Metadata":
            row["object"] = {
                "kind": "PartialObjectMetadata",
                "apiVersion": api_version,
                "metadata": {k: v for k, v in obj["metadata"].items() if k != "managedFields"},
            }
        else:
            row["object"] = None
        found.append(row)
    return found


def now() -> datetime:
    """The present, for ages."""
    return datetime.now(UTC)
