"""PodDisruptionBudgets: how many pods may be evicted now (kube-controller-manager's disruption
controller)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nsk8s.api.selectors import matches
from nsk8s.api.types import LabelSelector, Obj, Pod
from nsk8s.cluster.events import Recorder, seconds
from nsk8s.cluster.ownership import controller_of, label_selector
from nsk8s.cluster.shares import share
from nsk8s.cluster.store import Change, Key, Store

RESOURCE = "poddisruptionbudgets.policy"
DELETION_TIMEOUT = 120.0
"""Seconds after which an eviction that was granted, and has deleted nothing, no longer counts."""

CONTROLLERS = {
    "Deployment": "deployments.apps",
    "ReplicaSet": "replicasets.apps",
    "ReplicationController": "replicationcontrollers",
    "StatefulSet": "statefulsets.apps",
}
"""Kinds whose spec.replicas say how many pods there should be."""


class Disruption:
    """Keeps the status of PodDisruptionBudgets."""

    informers = frozenset({RESOURCE, "pods", *CONTROLLERS.values()})

    def __init__(self, store: Store) -> None:
        self._store = store
        self._events = Recorder(store, "controllermanager")

    def touched(self, change: Change) -> Iterable[Key]:
        """A budget itself; those of a namespace in which pods or their number change."""
        key = change.key
        if key.resource == RESOURCE:
            if change.type != "DELETED":
                yield key
        elif key.resource == "pods" or key.resource in CONTROLLERS.values():
            for pdb in self._store.list(RESOURCE, key.namespace):
                yield Key(RESOURCE, key.namespace, pdb["metadata"]["name"])

    def sync(self, key: Key, now: float) -> float | None:
        """Count, and write the status."""
        pdb = self._store.get(*key)
        if pdb is None:
            return None
        pods = selected(self._store, pdb)
        if not pods and "status" not in pdb:
            self._events.event(pdb, "Normal", "NoPods", "No matching pods found")
        disrupted, again = self._disrupted(pdb, pods, now)
        healthy = sum(
            pod.ready and not pod.metadata.deletionTimestamp and pod.metadata.name not in disrupted
            for pod in pods
        )
        expected, desired = self._wanted(pdb["spec"], pods)
        allowed = max(0, healthy - desired) if expected > 0 else 0
        old: Obj = pdb.get("status") or {}
        status: Obj = {
            "conditions": conditions(old, allowed, pdb["metadata"]["generation"], self._store.now()),
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "disruptionsAllowed": allowed,
            "expectedPods": expected,
            "observedGeneration": pdb["metadata"]["generation"],
        }
        if disrupted:
            status["disruptedPods"] = disrupted
        self._store.update(RESOURCE, {**pdb, "status": status}, generation=False)
        return again

    def _disrupted(self, pdb: Obj, pods: Iterable[Pod], now: float) -> tuple[dict[str, str], float | None]:
        """The evictions that were granted and are not yet deletions, and when the first of them is stale."""
        granted: dict[str, str] = (pdb.get("status") or {}).get("disruptedPods") or {}
        present = {pod.metadata.name for pod in pods if not pod.metadata.deletionTimestamp}
        left = {}
        due = []
        for name, stamp in granted.items():
            remaining = DELETION_TIMEOUT - (seconds(self._store.now()) - seconds(stamp))
            if name in present and remaining > 0:
                left[name] = stamp
                due.append(now + remaining)
        return left, min(due, default=None)

    def _wanted(self, spec: Obj, pods: list[Pod]) -> tuple[int, int]:
        """How many pods there should be, and how many of them must be healthy (getExpectedPodCount)."""
        least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
        if most is not None:
            expected = self._expected(pods)
            return expected, max(0, expected - share(most, expected, up=True))
        if isinstance(least, str):
            expected = self._expected(pods)
            return expected, share(least, expected, up=True)
        return len(pods), least or 0

    def _expected(self, pods: list[Pod]) -> int:
        """What the controllers of `pods` want; who has none counts for nothing."""
        replicas: dict[str, int] = {}
        for pod in pods:
            obj = self._store.get("pods", pod.metadata.namespace, pod.metadata.name)
            owner = obj and self._controller(obj)
            grand = owner and self._controller(owner)
            found = grand or owner
            if found:
                replicas[found["metadata"]["uid"]] = (found.get("spec") or {}).get("replicas", 1)
        return sum(replicas.values())

    def _controller(self, obj: Obj) -> Obj | None:
        ref = controller_of(obj)
        if ref is None or ref.get("kind") not in CONTROLLERS:
            return None
        found = self._store.get(CONTROLLERS[ref["kind"]], obj["metadata"]["namespace"], ref["name"])
        return found if found is not None and found["metadata"]["uid"] == ref["uid"] else None


def selected(store: Store, pdb: Obj) -> list[Pod]:
    """The pods that a budget is about; an empty selector means all of its namespace."""
    selector = _selector(pdb)
    if selector is None:
        return []
    views = store.views("pods", pdb["metadata"]["namespace"])
    return [pod for pod in views if isinstance(pod, Pod) and matches(selector, pod.metadata.labels)]


def covers(pdb: Obj, labels: dict[str, str]) -> bool:
    """Whether a budget is about pods with `labels`."""
    selector = _selector(pdb)
    return selector is not None and matches(selector, labels)


def conditions(status: Obj, allowed: int, generation: int, now: str) -> list[Obj]:
    """The condition DisruptionAllowed, among others of the status
    (component-helpers' UpdateDisruptionAllowedCondition)."""
    value = "True" if allowed > 0 else "False"
    old: list[Obj] = status.get("conditions") or []
    was = next((c for c in old if c["type"] == "DisruptionAllowed"), {})
    kept = was.get("status") == value
    condition = {
        "type": "DisruptionAllowed",
        "status": value,
        "observedGeneration": generation,
        "reason": "SufficientPods" if allowed > 0 else "InsufficientPods",
        "message": "",
        "lastTransitionTime": was["lastTransitionTime"] if kept else now,
    }
    return [*[c for c in old if c["type"] != "DisruptionAllowed"], condition]


def _selector(pdb: Obj) -> LabelSelector | None:
    given: dict[str, Any] | None = (pdb.get("spec") or {}).get("selector")
    if given is None:
        return None
    return label_selector(given)
