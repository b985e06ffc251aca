"""Deployments: one ReplicaSet for each version of the template, and the way from one to the next
(kube-controller-manager's deployment controller).

A rolling update never lets the pods of all versions exceed ``replicas + maxSurge``, nor those available
fall below ``replicas - maxUnavailable`` by its own doing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from nsk8s.api.selectors import matches
from nsk8s.api.types import Deployment, Obj, ReplicaSet, RollingUpdate
from nsk8s.cluster.events import Recorder
from nsk8s.cluster.objectmeta import LAST_APPLIED
from nsk8s.cluster.ownership import controlled_by, controller_of, owner_reference
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.shares import share
from nsk8s.cluster.store import Change, Key, Store

RESOURCE = "deployments.apps"
CHILD = "replicasets.apps"
HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAX = "deployment.kubernetes.io/max-replicas"
NOT_COPIED = {LAST_APPLIED, REVISION, HISTORY, DESIRED, MAX, "deprecated.deployment.rollback.to"}
"""Annotations that a ReplicaSet does not take over from its Deployment (deployment_util.go)."""
PROGRESS_DEADLINE = 600
"""progressDeadlineSeconds of a Deployment that says nothing."""

SAFE = "bcdfghjklmnpqrstvwxz2456789"
"""Letters of hashes and generated names: no vowels, so that no words appear (apimachinery's rand)."""


class _Set(Struct, frozen=True):
    """A ReplicaSet of a Deployment, with what is counted of it."""

    key: Key
    obj: Obj
    view: ReplicaSet

    @property
    def replicas(self) -> int:
        return self.view.spec.replicas

    def count(self, field: str) -> int:
        return int((self.obj.get("status") or {}).get(field, 0))

    @property
    def revision(self) -> int:
        text = self.view.metadata.annotations.get(REVISION, "0")
        return int(text) if text.isdecimal() else 0


class Deployments:
    """Makes ReplicaSets, scales them, and says how far it is."""

    informers = frozenset({RESOURCE, CHILD, "pods"})

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._progress: dict[str, tuple[float, Obj]] = {}
        self._events = Recorder(store, "deployment-controller")

    def touched(self, change: Change) -> Iterable[Key]:
        """Deployments themselves, the owners of ReplicaSets, and those that wait for the last old pod."""
        if change.key.resource == RESOURCE:
            if change.type == "DELETED":
                self._progress.pop(change.new["metadata"]["uid"], None)
            else:
                yield change.key
        elif change.key.resource == CHILD:
            owner = controlled_by(change.new, RESOURCE, "Deployment")
            if owner is not None:
                yield owner
        elif change.key.resource == "pods" and change.type == "DELETED":
            owner = controlled_by(change.new, CHILD, "ReplicaSet")
            parent = self._store.get(*owner) if owner is not None else None
            grand = controlled_by(parent, RESOURCE, "Deployment")
            if grand is not None:
                yield grand

    def sync(self, key: Key, now: float) -> float | None:
        """Bring the ReplicaSets one step closer to the template, and write the status."""
        deployment = self._store.view(key)
        if not isinstance(deployment, Deployment):
            return None
        if deployment.metadata.deletionTimestamp:
            return None
        sets = self._sets(key, deployment)
        new = self._current(key, sets)
        if deployment.spec.paused:
            target = new or max(sets, key=lambda s: s.revision, default=None)
            if target is not None and sum(s.replicas > 0 for s in sets) <= 1:
                self._scale(deployment, target, deployment.spec.replicas)
        else:
            new = self._make(key, deployment, sets) if new is None else self._revise(key, new, sets)
            self._annotate(key, new.revision)
            old = [s for s in sets if s.key != new.key]
            if deployment.spec.strategy.type == "Recreate":
                self._recreate(deployment, new, old)
            else:
                self._roll(deployment, new, old)
        sets = self._sets(key, deployment)
        new = self._current(key, sets)
        again = self._report(key, deployment, new, sets, now)
        self._clean_up(deployment, new, sets)
        return again

    # --- which ReplicaSets --------------------------------------------------------------------------

    def _sets(self, key: Key, deployment: Deployment) -> list[_Set]:
        """The Deployment's ReplicaSets, oldest revision first, orphans adopted."""
        store = self._store
        selector = deployment.spec.selector
        orphans = store.select(CHILD, key.namespace, selector.matchLabels) if selector.matchLabels else ()
        for obj in orphans:
            meta = obj["metadata"]
            if controller_of(obj) is None and matches(selector, meta.get("labels") or {}):
                refs = [*(meta.get("ownerReferences") or ()), owner_reference(store.find(*key))]
                store.update(CHILD, {**obj, "metadata": {**meta, "ownerReferences": refs}})
        sets = []
        for child in store.owned(deployment.metadata.uid):
            view = store.view(child) if child.resource == CHILD else None
            if isinstance(view, ReplicaSet) and not view.metadata.deletionTimestamp:
                sets.append(_Set(child, store.find(*child), view))
        return sorted(sets, key=lambda s: (s.revision, s.key.name))

    def _current(self, key: Key, sets: Sequence[_Set]) -> _Set | None:
        """The one whose template is the Deployment's, but for the hash."""
        template = self._store.find(*key)["spec"]["template"]
        return next((s for s in sets if same(_unhashed(s.obj["spec"]["template"]), template)), None)

    def _make(self, key: Key, deployment: Deployment, sets: Sequence[_Set]) -> _Set:
        obj = self._store.find(*key)
        template = obj["spec"]["template"]
        collisions = 0
        while True:
            hashed = template_hash(template, collisions)
            name = f"{key.name}-{hashed}"
            if self._store.get(CHILD, key.namespace, name) is None:
                break
            collisions += 1
        meta = template.get("metadata") or {}
        labels = {**(meta.get("labels") or {}), HASH: hashed}
        selector = obj["spec"]["selector"]
        old = sum(s.replicas for s in sets)
        spec: Obj = {
            "replicas": self._first_size(deployment, old),
            "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), HASH: hashed}},
            "template": {**template, "metadata": {**meta, "labels": labels}},
        }
        if deployment.spec.minReadySeconds:
            spec["minReadySeconds"] = deployment.spec.minReadySeconds
        replicas: int = spec["replicas"]
        annotations = {
            **_copied(obj),
            **_sizes(deployment),
            REVISION: str(max((s.revision for s in sets), default=0) + 1),
        }
        made = self._store.create(
            CHILD,
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {
                    "name": name,
                    "namespace": key.namespace,
                    "labels": labels,
                    "annotations": annotations,
                    "ownerReferences": [owner_reference(obj)],
                },
                "spec": spec,
                "status": {"replicas": 0},
            },
        )
        child = Key(CHILD, key.namespace, name)
        view = self._store.view(child)
        assert isinstance(view, ReplicaSet)
        if replicas:
            self._tell(key, name, 0, replicas)
        return _Set(child, made, view)

    def _tell(self, key: Key, name: str, old: int, new: int) -> None:
        what = f"Scaled {'up' if new > old else 'down'} replica set {name} from {old} to {new}"
        self._events.event(self._store.find(*key), "Normal", "ScalingReplicaSet", what)

    def _first_size(self, deployment: Deployment, old: int) -> int:
        if deployment.spec.strategy.type == "Recreate":
            return 0 if old else deployment.spec.replicas
        surge, _ = bounds(deployment)
        return max(0, min(deployment.spec.replicas, deployment.spec.replicas + surge - old))

    def _revise(self, key: Key, new: _Set, sets: Sequence[_Set]) -> _Set:
        """A template that came back is the newest revision again; the Deployment's annotations, such as the
        cause of the change, are those of its newest revision (SetNewReplicaSetAnnotations)."""
        meta = new.obj["metadata"]
        old = meta.get("annotations") or {}
        annotations = {**old, **_copied(self._store.find(*key))}
        newest = max(s.revision for s in sets)
        if new.revision != newest:
            annotations[REVISION] = str(newest + 1)
            if REVISION in old:
                annotations[HISTORY] = ",".join(filter(None, (old.get(HISTORY), old[REVISION])))
        if annotations == old:
            return new
        self._store.update(CHILD, {**new.obj, "metadata": {**meta, "annotations": annotations}})
        return self._again(new)

    def _annotate(self, key: Key, revision: int) -> None:
        obj = self._store.find(*key)
        meta = obj["metadata"]
        annotations = meta.get("annotations") or {}
        if annotations.get(REVISION) != str(revision):
            meta = {**meta, "annotations": {**annotations, REVISION: str(revision)}}
            self._store.update(RESOURCE, {**obj, "metadata": meta})

    # --- from one to the next -----------------------------------------------------------------------

    def _roll(self, deployment: Deployment, new: _Set, old: Sequence[_Set]) -> None:
        wanted = deployment.spec.replicas
        surge, unavailable = bounds(deployment)
        total = new.replicas + sum(s.replicas for s in old)
        size = new.replicas
        if size > wanted:
            size = wanted
        elif size < wanted and total < wanted + surge:
            size += min(wanted + surge - total, wanted - size)
        if size != new.replicas:
            self._scale(deployment, new, size)
            return  # the old ones next, when the new one's pods have been counted
        # cleanupUnhealthyReplicas, then scaleDownOldReplicaSetsForRollingUpdate
        floor = wanted - unavailable
        spare = total - floor - max(0, new.replicas - new.count("availableReplicas"))
        for each in old:
            unhealthy = each.replicas - each.count("availableReplicas")
            if spare > 0 and unhealthy > 0:
                drop = min(spare, unhealthy)
                spare -= drop
                self._scale(deployment, each, each.replicas - drop)
        old = [self._again(s) for s in old]
        available = new.count("availableReplicas")
        available += sum(min(s.replicas, s.count("availableReplicas")) for s in old)
        spare = min(spare, available - floor)
        for each in old:
            if spare > 0 and each.replicas > 0:
                drop = min(spare, each.replicas)
                spare -= drop
                self._scale(deployment, each, each.replicas - drop)

    def _recreate(self, deployment: Deployment, new: _Set, old: Sequence[_Set]) -> None:
        for each in old:
            self._scale(deployment, each, 0)
        for each in old:
            for child in self._store.owned(each.view.metadata.uid):
                pod = self._store.get(*child)
                phase = (pod.get("status") or {}).get("phase") if pod else ""
                if pod is not None and phase not in ("Succeeded", "Failed"):
                    return
        self._scale(deployment, new, deployment.spec.replicas)

    def _scale(self, deployment: Deployment, each: _Set, replicas: int) -> None:
        obj = self._store.find(*each.key)
        old = obj["spec"].get("replicas", 1)
        if old == replicas:
            return
        meta = obj["metadata"]
        meta = {**meta, "annotations": {**(meta.get("annotations") or {}), **_sizes(deployment)}}
        self._store.update(CHILD, {**obj, "metadata": meta, "spec": {**obj["spec"], "replicas": replicas}})
        owner = Key(RESOURCE, deployment.metadata.namespace, deployment.metadata.name)
        self._tell(owner, each.key.name, old, replicas)

    def _again(self, each: _Set) -> _Set:
        view = self._store.view(each.key)
        assert isinstance(view, ReplicaSet)
        return _Set(each.key, self._store.find(*each.key), view)

    def _clean_up(self, deployment: Deployment, new: _Set | None, sets: Sequence[_Set]) -> None:
        """Forget the oldest versions beyond revisionHistoryLimit, once they have no pods."""
        old = [s for s in sets if new is None or s.key != new.key]
        for each in old[: max(0, len(old) - deployment.spec.revisionHistoryLimit)]:
            if each.replicas == 0 and each.count("replicas") == 0:
                self._registry.delete(*each.key)

    # --- how far ------------------------------------------------------------------------------------

    def _report(
        self, key: Key, deployment: Deployment, new: _Set | None, sets: Sequence[_Set], now: float
    ) -> float | None:
        obj = self._store.find(*key)
        old = obj.get("status") or {}
        wanted = deployment.spec.replicas
        total = sum(s.count("replicas") for s in sets)
        available = sum(s.count("availableReplicas") for s in sets)
        counts = {
            "replicas": total,
            "updatedReplicas": new.count("replicas") if new else 0,
            "readyReplicas": sum(s.count("readyReplicas") for s in sets),
            "availableReplicas": available,
            "unavailableReplicas": max(0, sum(s.replicas for s in sets) - available),
        }
        counts = {field: count for field, count in counts.items() if count}
        complete = counts.get("updatedReplicas", 0) == wanted and total == wanted and available == wanted
        uid = deployment.metadata.uid
        since, before = self._progress.get(uid, (now, {}))
        moved = {**counts, "set": new.key.name if new else "", "wanted": wanted}
        if before != moved:
            since = now
        self._progress[uid] = (since, moved)
        limit = obj["spec"].get("progressDeadlineSeconds", PROGRESS_DEADLINE)
        late = not complete and not deployment.spec.paused and now >= since + limit
        _, unavailable = bounds(deployment)
        conditions = _conditions(
            old.get("conditions") or (),
            [
                _available_condition(enough=available >= wanted - unavailable),
                _progress_condition(new, complete=complete, late=late, paused=deployment.spec.paused),
            ],
            self._store.now(),
        )
        status = {
            "observedGeneration": obj["metadata"]["generation"],
            **counts,
            "conditions": conditions,
        }
        if old != status:
            self._store.update(RESOURCE, {**obj, "status": status}, generation=False)
        return None if complete or late or deployment.spec.paused else since + limit


def _available_condition(*, enough: bool) -> Obj:
    if enough:
        return {
            "type": "Available",
            "status": "True",
            "reason": "MinimumReplicasAvailable",
            "message": "Deployment has minimum availability.",
        }
    return {
        "type": "Available",
        "status": "False",
        "reason": "MinimumReplicasUnavailable",
        "message": "Deployment does not have minimum availability.",
    }


def _progress_condition(new: _Set | None, *, complete: bool, late: bool, paused: bool) -> Obj:
    name = f'ReplicaSet "{new.key.name}"' if new else "Deployment"
    if paused:
        status, reason, message = "Unknown", "DeploymentPaused", "Deployment is paused"
    elif complete:
        status, reason = "True", "NewReplicaSetAvailable"
        message = f"{name} has successfully progressed."
    elif late:
        status, reason = "False", "ProgressDeadlineExceeded"
        message = f"{name} has timed out progressing."
    else:
        status, reason, message = "True", "ReplicaSetUpdated", f"{name} is progressing."
    return {"type": "Progressing", "status": status, "reason": reason, "message": message}


def _conditions(old: Iterable[Obj], new: Iterable[Obj], now: str) -> list[Obj]:
    """`new` with times: of the last change of status, and of any change."""
    before = {condition["type"]: condition for condition in old}
    result = []
    for condition in new:
        was = before.get(condition["type"], {})
        same = all(was.get(field) == value for field, value in condition.items())
        kept = was.get("status") == condition["status"]
        times = {
            "lastTransitionTime": was["lastTransitionTime"] if kept else now,
            "lastUpdateTime": was["lastUpdateTime"] if same else now,
        }
        result.append({**condition, **times})
    return result


def bounds(deployment: Deployment) -> tuple[int, int]:
    """maxSurge and maxUnavailable in pods: percentages round up and down. Both 0 would stand still, so
    then one may be unavailable (upstream's ResolveFenceposts)."""
    if deployment.spec.strategy.type == "Recreate":
        return 0, 0
    rolling = deployment.spec.strategy.rollingUpdate or RollingUpdate()
    surge = share(rolling.maxSurge, deployment.spec.replicas, up=True)
    unavailable = share(rolling.maxUnavailable, deployment.spec.replicas, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, deployment.spec.replicas)


def _copied(deployment: Obj) -> dict[str, str]:
    """The annotations that its newest ReplicaSet takes over."""
    annotations = deployment["metadata"].get("annotations") or {}
    return {k: v for k, v in annotations.items() if k not in NOT_COPIED}


def _sizes(deployment: Deployment) -> dict[str, str]:
    """The annotations from which upstream scales in proportion (SetReplicasAnnotations)."""
    replicas = deployment.spec.replicas
    return {DESIRED: str(replicas), MAX: str(replicas + bounds(deployment)[0])}


def _unhashed(template: Obj) -> Obj:
    meta = template.get("metadata") or {}
    labels = {k: v for k, v in (meta.get("labels") or {}).items() if k != HASH}
    return {**template, "metadata": {**meta, "labels": labels}}


def same(one: Obj, other: Obj) -> bool:
    """Whether two templates mean the same: what Go's encoder writes of empty fields, and a client sends back,
    means nothing (EqualIgnoreHash compares the decoded structs)."""
    return one == other or bool(_meaning(one) == _meaning(other))


def _meaning(value: Any) -> Any:  # noqa: ANN401  # any JSON
    if isinstance(value, dict):
        return {k: m for k, v in value.items() if (m := _meaning(v)) not in (None, {}, [])}
    if isinstance(value, list):
        return [_meaning(one) for one in value]
    return value


def template_hash(template: Obj, collisions: int = 0) -> str:
    """The ``pod-template-hash`` of a pod template: 32-bit FNV-1a, its decimal digits written in `SAFE`, so at
    most ten characters. Upstream hashes Go's ``%#v`` text of the struct, which nobody else can print: here
    it is the canonical JSON, so hashes look like a real cluster's but are not equal to them."""
    text = json.dumps(template, sort_keys=True, separators=(",", ":"))
    if collisions:
        text += str(collisions)
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return "".join(SAFE[ord(digit) % len(SAFE)] for digit in str(value))
