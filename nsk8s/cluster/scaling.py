"""The ``scale`` subresource (`autoscaling/v1` Scale) of workloads and of custom resources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from nsk8s.api import jsonpath
from nsk8s.api.types import Obj


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
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {key: meta[key] for key in kept if key in meta},
        "spec": {"replicas": _number(obj, paths.replicas, default)},
        "status": status,
    }


def scaled(obj: Obj, paths: Paths, replicas: int) -> Obj:
    """The object with that many replicas."""
    return _set(obj, paths.replicas.strip(".").split("."), replicas)


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
