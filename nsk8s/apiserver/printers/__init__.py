"""Objects as rows: the columns that a real API server prints for kubectl (pkg/printers/internalversion), one
module for each group of kinds. Rows are always wide; kubectl hides what has a priority.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from importlib import import_module
from typing import Any

from nsk8s.api.kinds import Resource
from nsk8s.api.types import Obj
from nsk8s.apiserver.printers.columns import AGE, NAME, Column, Printer, age_of, name_of

_MODULES = ("pods", "workloads", "network", "cluster", "storage", "access")


def printer_for(resource: Resource) -> Printer:
    """How objects of `resource` are printed: those of a kind without columns of its own by name and when
    they were created, our own and custom ones by name and age."""
    if resource.custom or resource.group == "nsk8s.dev":
        return BY_AGE
    found = _builtin()
    return found.get(resource.name) or found.get(resource.stored_as) or PLAIN


@cache
def _builtin() -> dict[str, Printer]:
    found: dict[str, Printer] = {}
    for module in _MODULES:
        found |= import_module(f"{__name__}.{module}").PRINTERS
    return found


def _plain(obj: Obj, now: datetime) -> list[Any]:
    return [name_of(obj), obj["metadata"].get("creationTimestamp", "")]


def _by_age(obj: Obj, now: datetime) -> list[Any]:
    return [name_of(obj), age_of(obj, now)]


def _scale(obj: Obj, now: datetime) -> list[Any]:
    replicas = ((obj.get(part) or {}).get("replicas", 0) for part in ("spec", "status"))
    return [name_of(obj), *replicas, age_of(obj, now)]


def _status(obj: Obj, now: datetime) -> list[Any]:
    return [obj.get("status", ""), obj.get("reason", ""), obj.get("message", "")]


PLAIN = Printer((NAME, Column("Created At", "date", "When the object was created.")), _plain)
"""Kinds without columns of their own (apiserver's default TableConvertor): roles, limit ranges, CRDs."""
BY_AGE = Printer((NAME, AGE), _by_age)
SCALE = Printer(
    (
        Column("Name", description=NAME.description),
        Column("Desired", "integer", "How many replicas there should be."),
        Column("Available", "integer", "How many replicas there are."),
        AGE,
    ),
    _scale,
)
"""``kubectl get --subresource=scale``."""
STATUS = Printer(
    (
        Column("Status", description="Success or Failure."),
        Column("Reason", description="One word for programs."),
        Column("Message", description="A sentence for people."),
    ),
    _status,
)
"""A Status in place of an object."""
IN_PLACE = {"Scale": SCALE, "Status": STATUS}
"""What can stand in an object's place, by kind."""
