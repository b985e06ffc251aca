"""What taints do to nodes and to the pods that are there already (kube-controller-manager's node-lifecycle
and taint-eviction controllers).

A cordoned node carries the taint that says so. A pod that does not tolerate a NoExecute taint of its node
is deleted; one that tolerates it for some seconds, after those (counted anew by a new control plane).
"""

from __future__ import annotations

from collections.abc import Iterable

from nsk8s.api.types import Node, Obj, Pod, Taint
from nsk8s.cluster.events import Recorder
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.scheduler import CORDON, tolerated
from nsk8s.cluster.store import Change, Key, Store


class Taints:
    """Keeps the taint of cordoned nodes, and evicts."""

    informers = frozenset({"nodes", "pods"})

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._events = Recorder(store, "taint-eviction-controller")
        self._kubelet = Recorder(store, "kubelet")
        self._since: dict[str, float] = {}
        self._dangerous: set[str] = set()

    def touched(self, change: Change) -> Iterable[Key]:
        """Nodes, and what runs on those with NoExecute taints."""
        key = change.key
        if key.resource == "nodes":
            if change.type == "DELETED":
                self._dangerous.discard(key.name)
                return
            old, new = (change.old or {}).get("spec") or {}, change.new.get("spec") or {}
            if old.get("taints") == new.get("taints") and old.get("unschedulable") == new.get(
                "unschedulable"
            ):
                return
            yield key
            taints = new.get("taints") or ()
            if any(t.get("effect") == "NoExecute" for t in taints):
                self._dangerous.add(key.name)
            elif key.name in self._dangerous:
                self._dangerous.discard(key.name)
            else:
                return
            for pod in self._store.list("pods"):
                if pod["spec"].get("nodeName") == key.name:
                    yield Key("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])
        elif key.resource == "pods":
            if change.type == "DELETED":
                self._since.pop(change.new["metadata"]["uid"], None)
            elif self._dangerous and change.new["spec"].get("nodeName") in self._dangerous:
                yield key

    def sync(self, key: Key, now: float) -> float | None:
        """Taint a node as it is cordoned; evict a pod, or say when."""
        obj = self._store.get(*key)
        if obj is None:
            return None
        if key.resource == "nodes":
            self._cordon(obj)
            return None
        if obj["metadata"].get("deletionTimestamp"):
            return None
        left = self._tolerates(key, obj)
        uid = obj["metadata"]["uid"]
        if left is None:
            self._since.pop(uid, None)
            return None
        due = self._since.setdefault(uid, now) + left
        if due > now:
            return due
        what = f"Marking for deletion Pod {key.namespace}/{key.name}"
        self._events.event(obj, "Normal", "TaintManagerEviction", what)
        self._registry.delete(*key)
        return None

    def _cordon(self, node: Obj) -> None:
        spec = node.get("spec") or {}
        taints = spec.get("taints") or []
        others = [t for t in taints if (t.get("key"), t.get("effect")) != CORDON]
        cordoned = bool(spec.get("unschedulable"))
        if cordoned is (len(others) < len(taints)):
            return
        new = {k: v for k, v in spec.items() if k != "taints"}
        if cordoned:
            others = [*others, {"key": CORDON[0], "effect": CORDON[1], "timeAdded": self._store.now()}]
        if others:
            new["taints"] = others
        node = self._store.update("nodes", {**node, "spec": new})
        name = node["metadata"]["name"]
        reason = "NodeNotSchedulable" if cordoned else "NodeSchedulable"
        itself = {**node, "metadata": {**node["metadata"], "uid": name}}
        self._kubelet.event(itself, "Normal", reason, f"Node {name} status is now: {reason}", host=name)

    def _tolerates(self, key: Key, obj: Obj) -> float | None:
        """How many seconds the pod tolerates its node; None: for ever."""
        pod = self._store.view(key)
        assert isinstance(pod, Pod)
        node = self._store.view(Key("nodes", "", pod.spec.nodeName))
        if not isinstance(node, Node):
            return None
        given = obj["spec"].get("tolerations") or ()
        seconds: list[float] = []
        for taint in _no_execute(node):
            used = [raw for raw, t in zip(given, pod.spec.tolerations, strict=True) if tolerated(taint, (t,))]
            if not used:
                return 0.0
            limits = [t["tolerationSeconds"] for t in used if t.get("tolerationSeconds") is not None]
            seconds += [max(0.0, float(limit)) for limit in limits]
        return min(seconds, default=None)


def _no_execute(node: Node) -> list[Taint]:
    return [taint for taint in node.spec.taints if taint.effect == "NoExecute"]
