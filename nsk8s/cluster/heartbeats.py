"""Signs of life of nodes: their Leases (KEP-589) and the time in their conditions.

A lease is renewed whenever somebody has looked at the nodes and found them well, not by a timer of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from nsk8s.api.types import Obj
from nsk8s.cluster.events import micro, seconds
from nsk8s.cluster.store import Store

LEASES = "leases.coordination.k8s.io"
NAMESPACE = "kube-node-lease"
DURATION = 40
"""leaseDurationSeconds (the kubelet's nodeLeaseDurationSeconds)."""
KUBELET, STOPPED, LOST = "nsk8s.dev/kubelet", "stopped", "lost"
"""Annotation of a Node whose kubelet shall give no sign of life and do nothing, as if it had crashed; the
second value says that it did so long ago."""
STATUS_INTERVAL = 300.0
"""Seconds between two reports of an unchanged status (the kubelet's nodeStatusReportFrequency)."""


def stopped(node: Obj) -> bool:
    """Whether a node's kubelet was stopped."""
    return _kubelet(node) in (STOPPED, LOST)


def lost(node: Obj) -> bool:
    """Whether it was so long ago that nobody waits for it any more."""
    return _kubelet(node) == LOST


def _kubelet(node: Obj) -> str:
    return str((node["metadata"].get("annotations") or {}).get(KUBELET, ""))


def beat(store: Store, nodes: Iterable[str]) -> None:
    """The `nodes` live, but for those whose kubelet was stopped: renew their leases, make those that are
    missing, and now and then their status."""
    for name in nodes:
        node = store.get("nodes", "", name)
        if node is not None and not stopped(node):
            _renew(store, node)
            _report(store, node)


def _renew(store: Store, node: Obj) -> None:
    name, now = node["metadata"]["name"], micro(store.now())
    lease = store.get(LEASES, NAMESPACE, name)
    if lease is not None:
        store.update(LEASES, {**lease, "spec": {**(lease.get("spec") or {}), "renewTime": now}})
        return
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"]}
    store.create(
        LEASES,
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": NAMESPACE, "ownerReferences": [owner]},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": DURATION, "renewTime": now},
        },
    )


def _report(store: Store, node: Obj) -> None:
    now = store.now()
    status = node.get("status") or {}
    conditions = status.get("conditions") or ()
    ours = [c for c in conditions if "lastHeartbeatTime" in c]
    if ours and seconds(now) - seconds(ours[0]["lastHeartbeatTime"]) >= STATUS_INTERVAL:
        beaten = [{**c, "lastHeartbeatTime": now} if c in ours else c for c in conditions]
        store.update("nodes", {**node, "status": {**status, "conditions": beaten}}, generation=False)
