"""The ``scale`` subresource (`autoscaling/v1` Scale) of workloads and of custom resources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from nsk8s.api import jsonpath
from nsk8s.api.types import Obj
from nsk8s.cluster import fieldset
from nsk8s.cluster.fieldset import LEAF, Fields
from nsk8s.cluster.managedfields import Entry, Identity, Managed
from nsk8s.errors import ApiError

VERSION = "autoscaling/v1"

REPLICAS: Fields = {"f:spec": {"f:replicas": LEAF}}
"""What there is to own of a Scale."""


class Paths(Struct, frozen=True):
    """Where an object keeps its numbers. `labels` is the path of the selector of its pods as text; without
    one that of ``spec.selector`` is told."""

    replicas: str = ".spec.replicas"
    current: str = ".status.replicas"
    labels: str = ""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Paths:
        """As a CustomResourceDefinition's ``subresources.scale`` has them."""
        return cls(
            given["specReplicasPath"], given["statusReplicasPath"], given.get("labelSelectorPath") or ""
        )

    @property
    def keys(self) -> list[str]:
        """The fields on the way to the replicas."""
        return self.replicas.strip(".").split(".")

    @property
    def field(self) -> Fields:
        """The replicas, as one who owns them has them in managedFields."""
        found = LEAF
        for key in reversed(self.keys):
            found = {f"f:{key}": found}
        return found


WORKLOAD = Paths()
"""Of Deployments, ReplicaSets, StatefulSets and ReplicationControllers."""


def scale_of(obj: Obj, paths: Paths) -> Obj:
    """The Scale of an object."""
    meta = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    default = 1 if paths is WORKLOAD else 0
    status: Obj = {"replicas": _number(obj, paths.current, 0)}
    if selector := _selector(obj, paths):
        status["selector"] = selector
    return {
        "apiVersion": VERSION,
        "kind": "Scale",
        "metadata": {key: meta[key] for key in kept if key in meta},
        "spec": {"replicas": _number(obj, paths.replicas, default)},
        "status": status,
    }


def wanted(scale: Obj) -> tuple[int, str]:
    """The replicas of a Scale that a client has made, and the revision of the object that it knew. Raises
    `ApiError` 400."""
    spec, meta = scale.get("spec"), scale.get("metadata")
    replicas = spec.get("replicas", 0) if isinstance(spec, dict) else 0
    if type(replicas) is not int:
        raise ApiError(400, "BadRequest", f"spec.replicas: an integer, not {replicas!r}")
    return replicas, str(meta.get("resourceVersion") or "") if isinstance(meta, dict) else ""


def scaled(obj: Obj, paths: Paths, replicas: int) -> Obj:
    """The object with that many replicas."""
    return _set(obj, paths.keys, replicas)


# --- who owns the replicas (apimachinery's managedfields.ScaleHandler) ----------------------------------


def owners_of_scale(parent: Managed, paths: Paths) -> Managed:
    """The owners of a Scale's fields, given those of its object's: of the replicas, that is."""
    return {
        _versioned(who, VERSION): Entry(VERSION, entry.time, REPLICAS)
        for who, entry in parent.items()
        if fieldset.intersection(entry.fields, paths.field)
    }


def owners_of_parent(parent: Managed, scale: Managed, paths: Paths, version: str) -> Managed:
    """The owners of an object's fields when those of its Scale are `scale`: who is not among them has lost
    the replicas, who is new among them has nothing else, and (as upstream) nobody knows since when.
    `version` is the object's."""
    found = {}
    known = set()
    for who, entry in parent.items():
        here = _versioned(who, VERSION)
        fields = entry.fields if here in scale else fieldset.difference(entry.fields, paths.field)
        if fieldset.intersection(fields, paths.field):
            known.add(here)
        if fields:
            found[who] = entry._replace(fields=fields)
    for who, entry in scale.items():
        if who not in known and fieldset.intersection(entry.fields, REPLICAS):
            found[_versioned(who, version)] = Entry(version, "", paths.field)
    return found


def _versioned(who: Identity, version: str) -> Identity:
    """The same manager, writing another version: to an Apply all are one."""
    return who._replace(version=version if who.operation == "Update" else "")


def _set(obj: Obj, keys: list[str], value: int) -> Obj:
    below = obj.get(keys[0])
    rest = _set(below if isinstance(below, dict) else {}, keys[1:], value) if len(keys) > 1 else value
    return {**obj, keys[0]: rest}


def _number(obj: Obj, path: str, default: int) -> int:
    found = jsonpath.find(jsonpath.parse(path), obj)
    return found[0] if found and type(found[0]) is int else default


def _selector(obj: Obj, paths: Paths) -> str:
    if paths.labels:
        found = jsonpath.find(jsonpath.parse(paths.labels), obj)
        return found[0] if found and isinstance(found[0], str) else ""
    selector = obj["spec"].get("selector") if paths is WORKLOAD else None
    labels = (selector or {}).get("matchLabels", {} if selector is None else selector)
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels or {}) if isinstance(labels[key], str))
