"""Custom resources as rows: the ``additionalPrinterColumns`` of their definitions (apiextensions-apiserver's
tableconvertor); without any, when they were created."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from nsk8s.api import jsonpath
from nsk8s.api.age import age, moment
from nsk8s.api.types import Obj
from nsk8s.apiserver.printers.columns import NAME, Column, Printer, name_of

Cell = Callable[[Obj, datetime], Any]

CREATED = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def printer(columns: Sequence[Obj]) -> Printer:
    """The printer of a version whose definition has these columns."""
    given = columns or [CREATED]
    cells = [_cell(column) for column in given]

    def row(obj: Obj, now: datetime) -> list[Any]:
        return [name_of(obj), *[cell(obj, now) for cell in cells]]

    return Printer((NAME, *map(_column, given)), row)


def _column(given: Obj) -> Column:
    description = given.get("description") or f"Custom resource definition column: {given['jsonPath']}"
    return Column(
        given["name"], given["type"], description, given.get("priority") or 0, given.get("format") or ""
    )


def _cell(column: Obj) -> Cell:
    type_ = column["type"]
    path = jsonpath.parse(column["jsonPath"])

    def cell(obj: Obj, now: datetime) -> Any:  # noqa: ANN401  # any JSON
        found = jsonpath.find(path, obj)
        if not found or found[0] is None:
            return None
        return _shown(found[0], type_, now)

    return cell


def _shown(value: Any, type_: str, now: datetime) -> Any:  # noqa: ANN401  # any JSON
    match type_:
        case "string":
            if isinstance(value, str):
                return value
            return json.dumps(value, separators=(",", ":"))
        case "date":
            if not isinstance(value, str):
                return None
            return age(value, now) if moment(value) is not None else "<invalid>"
        case "integer":
            return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
        case "number":
            return value if isinstance(value, int | float) and not isinstance(value, bool) else None
        case "boolean":
            return value if isinstance(value, bool) else None
    return None
