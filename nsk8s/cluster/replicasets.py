"""ReplicaSets: as many pods as asked for, no more, no less (kube-controller-manager's replicaset).

Pods are found through their owner reference, adopted and released by the selector. All pods that are
missing are made at once: upstream's slow start protects an API server that is not ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from nsk8s.api.defaults import default
from nsk8s.api.selectors import matches
from nsk8s.api.types import LabelSelector, Obj, Pod, ReplicaSet
from nsk8s.cluster.events import Recorder
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.selection import SelectorIndex
from nsk8s.cluster.serviceaccounts import admitted
from nsk8s.cluster.store import Change, Key, Store, key_of
from nsk8s.errors import ApiError

RESOURCE = "replicasets.apps"
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
NAME_ROOM = 58
"""Characters of a generated name before the five random ones (63 in a DNS label)."""


class ReplicaSets:
    """Makes, adopts, releases and deletes pods, and counts them."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._ready_since: dict[str, float] = {}
        self._selectors = SelectorIndex()
        self._events = Recorder(store, "replicaset-controller")

    def touched(self, change: Change) -> Iterable[Key]:
        """ReplicaSets themselves, and the owners, old and new, of pods; for a pod without one, those
        that may adopt it; for a new ServiceAccount those that may have waited for it."""
        if change.key.resource == RESOURCE:
            if change.type == "DELETED":
                self._selectors.drop(change.key)
            else:
                selector = change.new["spec"].get("selector") or {}
                self._selectors.put(change.key, selector.get("matchLabels") or {})
                yield change.key
            return
        if change.key.resource == "serviceaccounts" and change.type == "ADDED":
            for waiting in self._store.list(RESOURCE, change.key.namespace):
                yield key_of(RESOURCE, waiting)
        if change.key.resource != "pods":
            return
        namespace = change.key.namespace
        owner = controller_of(change.new)
        if change.type == "DELETED":
            self._ready_since.pop(change.new["metadata"]["uid"], None)
        if owner is not None:
            if owner["kind"] == "ReplicaSet":
                yield Key(RESOURCE, namespace, owner["name"])
        elif change.type != "DELETED":
            yield from self._selectors.candidates(namespace, change.new["metadata"].get("labels") or {})
        if change.old is not None:
            before = controller_of(change.old)
            if before is not None and before["kind"] == "ReplicaSet" and before != owner:
                yield Key(RESOURCE, namespace, before["name"])

    def sync(self, key: Key, now: float) -> float | None:
        """Make or delete pods until their number is right, and write the status."""
        rs = self._store.view(key)
        if not isinstance(rs, ReplicaSet):
            return None
        ending = bool(rs.metadata.deletionTimestamp)
        pods = self._claimed(key, rs, adopt=not ending)
        active = [p for p in pods if not p.metadata.deletionTimestamp and not p.terminal]
        missing = rs.spec.replicas - len(active)
        if ending or missing == 0:
            pass
        elif missing > 0:
            self._make(key, missing)
        else:
            for pod in self._victims(active, -missing):
                self._registry.delete("pods", pod.metadata.namespace, pod.metadata.name)
                what = f"Deleted pod: {pod.metadata.name}"
                self._events.event(self._store.find(*key), "Normal", "SuccessfulDelete", what)
        available, again = self._available(active, rs.spec.minReadySeconds, now)
        self._report(key, rs, active, available)
        return again

    def _claimed(self, key: Key, rs: ReplicaSet, *, adopt: bool) -> list[Pod]:
        """The pods of a ReplicaSet, after adopting orphans and releasing those that no longer match."""
        store = self._store
        pods = []
        for owned in store.owned(rs.metadata.uid):
            if owned.resource != "pods":
                continue
            pod = store.view(owned)
            assert isinstance(pod, Pod)
            if matches(rs.spec.selector, pod.metadata.labels):
                pods.append(pod)
            elif pod.metadata.deletionTimestamp is None:
                self._release(owned, rs.metadata.uid)
        if adopt:
            for orphan in self._orphans(key.namespace, rs.spec.selector):
                meta = orphan["metadata"]
                reference = owner_reference(store.find(*key))
                refs = [*(meta.get("ownerReferences") or ()), reference]
                store.update("pods", {**orphan, "metadata": {**meta, "ownerReferences": refs}})
                pod = store.view(Key("pods", key.namespace, meta["name"]))
                assert isinstance(pod, Pod)
                pods.append(pod)
        return pods

    def _orphans(self, namespace: str, selector: LabelSelector) -> list[Obj]:
        candidates = (
            self._store.select("pods", namespace, selector.matchLabels)
            if selector.matchLabels
            else self._store.list("pods", namespace)
        )
        return [
            pod
            for pod in candidates
            if controller_of(pod) is None
            and not pod["metadata"].get("deletionTimestamp")
            and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
            and matches(selector, pod["metadata"].get("labels") or {})
        ]

    def _release(self, key: Key, uid: str) -> None:
        pod = self._store.find(*key)
        meta = dict(pod["metadata"])
        refs = [ref for ref in meta.pop("ownerReferences") if ref["uid"] != uid]
        if refs:
            meta["ownerReferences"] = refs
        self._store.update("pods", {**pod, "metadata": meta})

    def _make(self, key: Key, count: int) -> None:
        obj = self._store.find(*key)
        template = obj["spec"]["template"]
        meta = template.get("metadata") or {}
        made: Obj = {
            "generateName": key.name[: NAME_ROOM - 1] + "-",
            "namespace": key.namespace,
            "ownerReferences": [owner_reference(obj)],
        }
        for field in ("labels", "annotations"):
            if meta.get(field):
                made[field] = meta[field]
        # The template was validated with the object it came in.
        pod = default({"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": template["spec"]})
        for _ in range(count):
            try:
                new = admitted(self._store, pod)
            except ApiError as error:
                self._events.event(obj, "Warning", "FailedCreate", f"Error creating: {error.message}")
                return
            one = self._store.create("pods", {**new, "status": {"phase": "Pending"}})
            what = f"Created pod: {one['metadata']['name']}"
            self._events.event(obj, "Normal", "SuccessfulCreate", what)

    def _victims(self, active: Sequence[Pod], count: int) -> list[Pod]:
        """Whom to delete first, in the order of upstream's ActivePodsWithRanks: unassigned, pending, not
        ready, lower deletion cost, more on the same node, ready for a shorter time, more restarts, newer."""
        crowd: dict[str, int] = {}
        for pod in active:
            crowd[pod.spec.nodeName] = crowd.get(pod.spec.nodeName, 0) + 1

        def rank(pod: Pod) -> tuple[Any, ...]:
            cost = pod.metadata.annotations.get(DELETION_COST, "0")
            return (
                bool(pod.spec.nodeName),
                {"Pending": 0, "Unknown": 1}.get(pod.status.phase or "Pending", 2),
                pod.ready,
                int(cost) if cost.lstrip("+-").isdecimal() else 0,
                -crowd[pod.spec.nodeName],
                _Newest(_ready_time(pod)),
                -max((s.restartCount for s in pod.status.containerStatuses), default=0),
                _Newest(pod.metadata.creationTimestamp),
                pod.metadata.name,
            )

        return sorted(active, key=rank)[:count]

    def _available(self, active: Sequence[Pod], seconds: int, now: float) -> tuple[int, float | None]:
        """How many have been ready for `seconds`, and when the next will have been."""
        ready = [pod for pod in active if pod.ready]
        if not seconds:
            return len(ready), None
        available, due = 0, []
        for pod in active:
            if not pod.ready:
                self._ready_since.pop(pod.metadata.uid, None)
        for pod in ready:
            since = self._ready_since.setdefault(pod.metadata.uid, _moment(_ready_time(pod), now))
            if since + seconds <= now:
                available += 1
            else:
                due.append(since + seconds)
        return available, min(due, default=None)

    def _report(self, key: Key, rs: ReplicaSet, active: Sequence[Pod], available: int) -> None:
        obj = self._store.find(*key)
        template = rs.spec.template.metadata.labels.items()
        counts = {
            "fullyLabeledReplicas": sum(template <= pod.metadata.labels.items() for pod in active),
            "readyReplicas": sum(pod.ready for pod in active),
            "availableReplicas": available,
        }
        status = {
            "replicas": len(active),
            **{field: count for field, count in counts.items() if count},
            "observedGeneration": rs.metadata.generation,
        }
        if obj.get("status") != status:
            self._store.update(RESOURCE, {**obj, "status": status}, generation=False)


class _Newest(str):
    """A time that sorts the newest first."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)


def controller_of(obj: Obj) -> dict[str, Any] | None:
    """The owner reference of the controller that manages `obj`."""
    for ref in obj["metadata"].get("ownerReferences") or ():
        if ref.get("controller"):
            found: dict[str, Any] = ref
            return found
    return None


def owner_reference(obj: Obj) -> dict[str, Any]:
    """The reference by which a controller's object marks what it makes."""
    meta = obj["metadata"]
    return {
        "apiVersion": obj["apiVersion"],
        "blockOwnerDeletion": True,
        "controller": True,
        "kind": obj["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
    }


def _ready_time(pod: Pod) -> str:
    return next((c.lastTransitionTime or "" for c in pod.status.conditions if c.type == "Ready"), "")


def _moment(text: str, now: float) -> float:
    """An RFC 3339 time in seconds, but never later than `now`."""
    try:
        return min(now, datetime.fromisoformat(text).timestamp())
    except ValueError:
        return now
