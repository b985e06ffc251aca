"""What the columns of all kinds are made of: their definitions, and the cells that many kinds share.

The words are those of a real API server (pkg/printers/internalversion): ``<none>``, ``<unset>``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from nsk8s.api.age import age
from nsk8s.api.types import Obj

NONE = "<none>"
UNSET = "<unset>"

Row = Callable[[Obj, datetime], list[Any]]
"""The cells of an object at a moment, one a column. Pure."""


class Column(Struct, frozen=True):
    """A `meta.k8s.io/v1` TableColumnDefinition. `priority` 0 is always shown, 1 with ``-o wide``."""

    name: str
    type: str = "string"
    description: str = ""
    priority: int = 0
    format: str = ""


class Printer(Struct, frozen=True):
    """How a kind is printed. `conditions` are those of the row: pods that have ended are ``Completed``."""

    columns: tuple[Column, ...]
    row: Row
    conditions: Callable[[Obj], Sequence[Obj]] | None = None


NAME = Column("Name", description="The name, unique among its kind in a namespace.", format="name")
AGE = Column("Age", description="The time since the object was created.")


def wide(*columns: Column) -> tuple[Column, ...]:
    """The same columns, shown with ``-o wide`` only."""
    return tuple(Column(c.name, c.type, c.description, 1, c.format) for c in columns)


CONTAINERS = wide(
    Column("Containers", description="The names of the template's containers."),
    Column("Images", description="The images of the template's containers."),
)
SELECTOR = wide(Column("Selector", description="The labels of the pods that belong to it."))


def name_of(obj: Obj) -> str:
    """The cell of `NAME`."""
    name: str = obj["metadata"].get("name", "")
    return name


def age_of(obj: Obj, now: datetime) -> str:
    """The cell of `AGE`."""
    return age(obj["metadata"].get("creationTimestamp"), now)


def at(obj: Obj, *path: str) -> Any:  # noqa: ANN401  # any JSON
    """What stands at a path of keys; None where it breaks off."""
    value: Any = obj
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def label_text(labels: Mapping[str, str] | None) -> str:
    """Labels as ``a=b,c=d`` (labels.FormatLabels)."""
    return ",".join([f"{k}={labels[k]}" for k in sorted(labels)]) if labels else NONE


def selector_text(selector: Obj | None) -> str:
    """A LabelSelector as ``kubectl -l`` takes it; "" for one that selects everything
    (LabelSelectorAsSelector)."""
    if not selector:
        return ""
    found = [(k, f"{k}={v}") for k, v in (selector.get("matchLabels") or {}).items()]
    for one in selector.get("matchExpressions") or ():
        key, values = one.get("key", ""), ",".join(sorted(one.get("values") or ()))
        match one.get("operator"):
            case "In":
                text = f"{key} in ({values})"
            case "NotIn":
                text = f"{key} notin ({values})"
            case "DoesNotExist":
                text = f"!{key}"
            case _:
                text = key
        found.append((key, text))
    return ",".join(text for _, text in sorted(found, key=lambda pair: pair[0]))


def container_cells(pod_spec: Obj | None) -> tuple[str, str]:
    """The cells of `CONTAINERS`."""
    containers = (pod_spec or {}).get("containers") or ()
    return ",".join([c.get("name", "") for c in containers]), ",".join(
        [c.get("image", "") for c in containers]
    )


def with_more(found: Sequence[str], most: int = 3) -> str:
    """The first few, and how many more there are."""
    text = ",".join(found[:most])
    return f"{text} + {len(found) - most} more..." if len(found) > most else text


def ingress_points(status: Obj | None) -> list[str]:
    """The addresses of a load balancer, each once."""
    points: Iterable[Obj] = at(status or {}, "loadBalancer", "ingress") or ()
    return sorted({found for p in points if (found := p.get("ip") or p.get("hostname"))})
