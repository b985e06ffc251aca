"""ReplicaSets and ReplicationControllers: as many pods as asked for, no more, no less
(kube-controller-manager's replicaset, which keeps both).

All pods that are missing are made at once: upstream's slow start protects an API server that is not ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from nsk8s.api.types import Obj, Pod
from nsk8s.cluster.events import Recorder
from nsk8s.cluster.ownership import NAME_ROOM, Claims, create_pod, from_template, ready_time
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.store import Change, Key, Store
from nsk8s.errors import ApiError

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


class Flavour(NamedTuple):
    """Which of the two: the resource, its kind, and the component that tells of it."""

    resource: str
    kind: str
    component: str


REPLICA_SETS = Flavour("replicasets.apps", "ReplicaSet", "replicaset-controller")
REPLICATION_CONTROLLERS = Flavour("replicationcontrollers", "ReplicationController", "replication-controller")


class ReplicaSets:
    """Makes, adopts, releases and deletes pods, and counts them."""

    def __init__(self, store: Store, registry: Registry, flavour: Flavour = REPLICA_SETS) -> None:
        self._store = store
        self._registry = registry
        self._resource = flavour.resource
        self.informers = frozenset({flavour.resource, "pods", "serviceaccounts"})
        self._claims = Claims(store, flavour.resource, flavour.kind)
        self._events = Recorder(store, flavour.component)

    def touched(self, change: Change) -> Iterable[Key]:
        """Those whose pods may have changed in what is counted here, or may."""
        old = change.old if change.type == "MODIFIED" and change.key.resource == "pods" else None
        if old is not None and _facets(old) == _facets(change.new):
            return ()
        return self._claims.touched(change)

    def sync(self, key: Key, now: float) -> float | None:
        """Make or delete pods until their number is right, and write the status."""
        obj = self._store.get(*key)
        if obj is None:
            return None
        spec = obj["spec"]
        pods = self._claims.pods(obj)
        active = [p for p in pods if not p.metadata.deletionTimestamp and not p.terminal]
        missing = spec.get("replicas", 1) - len(active)
        if obj["metadata"].get("deletionTimestamp") or missing == 0:
            pass
        elif missing > 0:
            self._make(obj, missing)
        else:
            for pod in self._victims(active, -missing):
                self._registry.delete("pods", pod.metadata.namespace, pod.metadata.name)
                what = f"Deleted pod: {pod.metadata.name}"
                self._events.event(obj, "Normal", "SuccessfulDelete", what)
        available, again = self._claims.patience.available(active, spec.get("minReadySeconds", 0), now)
        self._report(key, active, available)
        return again

    def _make(self, obj: Obj, count: int) -> None:
        prefix = obj["metadata"]["name"][: NAME_ROOM - 1] + "-"
        pod = from_template(obj, obj["spec"]["template"], generateName=prefix)
        for _ in range(count):
            try:
                one = create_pod(self._store, pod)
            except ApiError as error:
                self._events.event(obj, "Warning", "FailedCreate", f"Error creating: {error.message}")
                return
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
                _Newest(ready_time(pod)),
                -max((s.restartCount for s in pod.status.containerStatuses), default=0),
                _Newest(pod.metadata.creationTimestamp),
                pod.metadata.name,
            )

        return sorted(active, key=rank)[:count]

    def _report(self, key: Key, active: Sequence[Pod], available: int) -> None:
        obj = self._store.find(*key)
        template = ((obj["spec"]["template"].get("metadata") or {}).get("labels") or {}).items()
        counts = {
            "fullyLabeledReplicas": sum(template <= pod.metadata.labels.items() for pod in active),
            "readyReplicas": sum(pod.ready for pod in active),
            "availableReplicas": available,
        }
        status = {
            "replicas": len(active),
            **{field: count for field, count in counts.items() if count},
            "observedGeneration": obj["metadata"]["generation"],
        }
        if obj.get("status") != status:
            self._store.update(self._resource, {**obj, "status": status}, generation=False)


def _facets(pod: Obj) -> tuple[Any, ...]:
    """What decides whose a pod is, and how it counts; most changes of a new pod are others."""
    meta, status = pod["metadata"], pod.get("status") or {}
    ready = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), None)
    return (
        meta["uid"],
        meta.get("labels"),
        meta.get("ownerReferences"),
        meta.get("deletionTimestamp"),
        status.get("phase") in ("Succeeded", "Failed"),
        ready and (ready.get("status"), ready.get("lastTransitionTime")),
    )


class _Newest(str):
    """A time that sorts the newest first."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)
