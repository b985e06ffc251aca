"""From an object to the typed view of it."""

from __future__ import annotations

import msgspec

from nsk8s.api.policytypes import ClusterNetworkPolicy, NetworkPolicy
from nsk8s.api.types import (
    Deployment,
    EndpointSlice,
    Namespace,
    Node,
    Obj,
    Pod,
    ReplicaSet,
    Service,
)

View = (
    Pod
    | Node
    | Service
    | EndpointSlice
    | Deployment
    | ReplicaSet
    | Namespace
    | NetworkPolicy
    | ClusterNetworkPolicy
)

VIEWS: dict[str, type[View]] = {
    "Pod": Pod,
    "Node": Node,
    "Service": Service,
    "EndpointSlice": EndpointSlice,
    "Deployment": Deployment,
    "ReplicaSet": ReplicaSet,
    "Namespace": Namespace,
    "NetworkPolicy": NetworkPolicy,
    "ClusterNetworkPolicy": ClusterNetworkPolicy,
}


def view(obj: Obj) -> View:
    """The typed view of `obj`; its kind must be a key of `VIEWS`.

    Raises `msgspec.ValidationError` (with a ``$.path``) where a field has the wrong type; objects in
    the store have passed `validation` and never do.
    """
    return msgspec.convert(obj, VIEWS[obj["kind"]])
