"""What becomes of a node that is not ready (kube-controller-manager's node-lifecycle controller).

A kubelet that no longer gives signs of life has its node's conditions set to Unknown. A node that is not
ready is tainted, so that nothing new comes and what is there leaves when it no longer tolerates it; and none
of its pods is ready, so that no service sends anybody there.
"""

from __future__ import annotations

from collections.abc import Iterable

from nsk8s.api.types import Obj
from nsk8s.cluster.events import Recorder
from nsk8s.cluster.heartbeats import LEASES, NAMESPACE, lost, stopped
from nsk8s.cluster.store import Change, Key, Store, key_of

GRACE = 50.0
"""Seconds without a sign of life until a node counts as lost (--node-monitor-grace-period)."""
NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"


class NodeHealth:
    """Keeps conditions and taints of nodes, and the readiness of what is on them.

    The kubelet of a node that was not stopped lives as long as the control plane does: only of stopped ones
    is it counted how long they have been silent (counted anew by a new control plane)."""

    informers = frozenset({"nodes", LEASES})

    def __init__(self, store: Store) -> None:
        self._store = store
        self._heard: dict[str, tuple[str, float]] = {}
        self._controller = Recorder(store, "node-controller")

    def touched(self, change: Change) -> Iterable[Key]:
        """A node that has changed; all of them if one has become ready or no longer is."""
        key = change.key
        if key.resource == LEASES and key.namespace == NAMESPACE and key.name in self._heard:
            yield Key("nodes", "", key.name)
        if key.resource != "nodes":
            return
        if change.type == "DELETED":
            self._heard.pop(key.name, None)
        if change.type != "MODIFIED" or change.old is None or readiness(change.old) != readiness(change.new):
            yield from (key_of("nodes", node) for node in self._store.list("nodes"))
        elif _facets(change.old) != _facets(change.new):
            yield key

    def sync(self, key: Key, now: float) -> float | None:
        """Say of a node what it no longer says itself, taint it, and take its pods out of service."""
        node = self._store.get(*key)
        if node is None:
            return None
        again = None
        if not stopped(node):
            self._heard.pop(key.name, None)
        elif readiness(node) != "Unknown":
            again = None if lost(node) else self._silence(key.name, now)
            if again is None:
                node = self._lose(node)
        self._taint(node)
        if readiness(node) != "True":
            self._out_of_service(key.name)
        return again

    def _silence(self, name: str, now: float) -> float | None:
        """When a stopped kubelet counts as lost; None: it does."""
        lease = self._store.get(LEASES, NAMESPACE, name) or {}
        renewed = (lease.get("spec") or {}).get("renewTime", "")
        if name not in self._heard or self._heard[name][0] != renewed:
            self._heard[name] = (renewed, now)
        due = self._heard[name][1] + GRACE
        return due if due > now else None

    def _lose(self, node: Obj) -> Obj:
        status, now = node.get("status") or {}, self._store.now()
        conditions = [
            {
                **condition,
                "status": "Unknown",
                "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
                "lastTransitionTime": now,
            }
            if "lastHeartbeatTime" in condition
            else condition
            for condition in status.get("conditions") or ()
        ]
        new = {**node, "status": {**status, "conditions": conditions}}
        return self._store.update("nodes", new, generation=False)

    def _taint(self, node: Obj) -> None:
        """Taints as the node's readiness wants them. While no node at all is ready nobody is driven out: it
        is rather the controller that sees nothing (fullDisruption)."""
        ready, now = readiness(node), self._store.now()
        key = UNREACHABLE if ready == "Unknown" else NOT_READY
        effects = ["NoSchedule"] if ready != "True" else []
        if effects and any(readiness(other) == "True" for other in self._store.list("nodes")):
            effects.append("NoExecute")
        old = _taints(node)
        mine = {(t["key"], t["effect"]): t for t in old if t["key"] in (NOT_READY, UNREACHABLE)}
        wanted = [mine.get((key, e), {"key": key, "effect": e, "timeAdded": now}) for e in effects]
        if list(mine.values()) == wanted:
            return
        spec = {k: v for k, v in node["spec"].items() if k != "taints"}
        taints = [t for t in old if t["key"] not in (NOT_READY, UNREACHABLE)] + wanted
        if taints:
            spec["taints"] = taints
        node = self._store.update("nodes", {**node, "spec": spec})
        if wanted and not mine:
            what = f"Node {node['metadata']['name']} status is now: NodeNotReady"
            self._controller.event(node, "Normal", "NodeNotReady", what)

    def _out_of_service(self, name: str) -> None:
        """No pod there is ready (MarkPodsNotReady)."""
        now = self._store.now()
        for pod in list(self._store.list("pods")):
            if pod["spec"].get("nodeName") != name:
                continue
            status = pod.get("status") or {}
            conditions = [
                {"type": "Ready", "status": "False", "lastTransitionTime": now}
                if (c["type"], c["status"]) == ("Ready", "True")
                else c
                for c in status.get("conditions") or ()
            ]
            if conditions != (status.get("conditions") or []):
                new = {**pod, "status": {**status, "conditions": conditions}}
                self._store.update("pods", new, generation=False)
                self._controller.event(pod, "Warning", "NodeNotReady", "Node is not ready")


def readiness(node: Obj) -> str:
    """The status of a node's condition Ready: True, False or Unknown."""
    conditions = (node.get("status") or {}).get("conditions") or ()
    return next((str(c["status"]) for c in conditions if c["type"] == "Ready"), "Unknown")


def _facets(node: Obj) -> tuple[object, ...]:
    return stopped(node), lost(node), _taints(node)


def _taints(node: Obj) -> list[Obj]:
    found: list[Obj] = (node.get("spec") or {}).get("taints") or []
    return found
