"""Who owns what: the reference from an object to the controller that manages it, and what every controller
of pods does alike: adopt, release, make, and know how long a pod has been ready (ControllerRefManager and
PodControl in pkg/controller).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from nsk8s.api.defaults import default
from nsk8s.api.selectors import matches
from nsk8s.api.types import LabelSelector, Obj, Pod, Requirement
from nsk8s.cluster.selection import SelectorIndex
from nsk8s.cluster.serviceaccounts import admitted
from nsk8s.cluster.store import Change, Key, Store, key_of

NAME_ROOM = 58
"""Characters of a generated name before the five random ones (63 in a DNS label)."""


def controller_of(obj: Obj) -> dict[str, Any] | None:
    """The owner reference of the controller that manages `obj`."""
    for ref in obj["metadata"].get("ownerReferences") or ():
        if ref.get("controller"):
            found: dict[str, Any] = ref
            return found
    return None


def controlled_by(obj: Obj | None, resource: str, kind: str) -> Key | None:
    """The key of the controller of `obj` if it is of a `kind`, which is kept as `resource`; None for none."""
    owner = controller_of(obj) if obj is not None else None
    if obj is None or owner is None or owner["kind"] != kind:
        return None
    return Key(resource, obj["metadata"]["namespace"], owner["name"])


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


def label_selector(given: Obj) -> LabelSelector:
    """A selector as objects have it."""
    return LabelSelector(
        given.get("matchLabels") or {},
        tuple(
            Requirement(e["key"], e["operator"], tuple(e.get("values") or ()))
            for e in given.get("matchExpressions") or ()
        ),
    )


def selector_of(obj: Obj) -> LabelSelector:
    """What ``spec.selector`` selects; a ReplicationController's is nothing but labels."""
    given = obj["spec"].get("selector") or {}
    if obj["kind"] == "ReplicationController":
        return LabelSelector(matchLabels=given)
    return label_selector(given)


class Claims:
    """The pods of the objects of one `resource`, whose kind is `kind`: found through their owner references,
    adopted and released by the objects' selectors. `patience` knows how long they have been ready."""

    def __init__(self, store: Store, resource: str, kind: str) -> None:
        self._store = store
        self._resource = resource
        self._kind = kind
        self._selectors = SelectorIndex()
        self.patience = Patience()

    def touched(self, change: Change) -> Iterable[Key]:
        """The objects themselves; the owners, old and new, of pods; for a pod without one, those that may
        adopt it; for a new ServiceAccount those that may have waited for it."""
        key = change.key
        self.patience.forget(change)
        if key.resource == self._resource:
            if change.type == "DELETED":
                self._selectors.drop(key)
            else:
                self._selectors.put(key, selector_of(change.new).matchLabels or {})
                yield key
            return
        if key.resource == "serviceaccounts" and change.type == "ADDED":
            for waiting in self._store.list(self._resource, key.namespace):
                yield key_of(self._resource, waiting)
        if key.resource != "pods":
            return
        owner = controlled_by(change.new, self._resource, self._kind)
        if owner is not None:
            yield owner
        elif change.type != "DELETED" and controller_of(change.new) is None:
            yield from self._selectors.candidates(key.namespace, change.new["metadata"].get("labels") or {})
        before = controlled_by(change.old, self._resource, self._kind)
        if before is not None and before != owner:
            yield before

    def pods(self, obj: Obj, fits: Callable[[str], bool] = lambda _: True) -> list[Pod]:
        """The pods of `obj`, after adopting orphans whose name `fits` (unless it is being deleted) and
        releasing those that no longer match."""
        store = self._store
        selector, uid = selector_of(obj), obj["metadata"]["uid"]
        pods = []
        for owned in store.owned(uid):
            if owned.resource != "pods":
                continue
            pod = store.view(owned)
            assert isinstance(pod, Pod)
            if matches(selector, pod.metadata.labels):
                pods.append(pod)
            elif pod.metadata.deletionTimestamp is None:
                self._release(owned, uid)
        if not obj["metadata"].get("deletionTimestamp"):
            orphans = self._orphans(obj["metadata"]["namespace"], selector)
            pods += [self._adopt(orphan, obj) for orphan in orphans if fits(orphan["metadata"]["name"])]
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

    def _adopt(self, orphan: Obj, owner: Obj) -> Pod:
        adopt(self._store, "pods", orphan, owner)
        pod = self._store.view(key_of("pods", orphan))
        assert isinstance(pod, Pod)
        return pod

    def _release(self, key: Key, uid: str) -> None:
        pod = self._store.find(*key)
        meta = dict(pod["metadata"])
        refs = [ref for ref in meta.pop("ownerReferences") if ref["uid"] != uid]
        if refs:
            meta["ownerReferences"] = refs
        self._store.update("pods", {**pod, "metadata": meta})


def adopt(store: Store, resource: str, orphan: Obj, owner: Obj) -> Obj:
    """`orphan`, from now on managed by `owner`."""
    meta = orphan["metadata"]
    refs = [*(meta.get("ownerReferences") or ()), owner_reference(owner)]
    return store.update(resource, {**orphan, "metadata": {**meta, "ownerReferences": refs}})


def from_template(owner: Obj, template: Obj, **meta: object) -> Obj:
    """A pod of `owner` as its template (which was validated with it) has it, with all defaults; `meta` is
    more of its metadata."""
    given = template.get("metadata") or {}
    made: Obj = {
        "namespace": owner["metadata"]["namespace"],
        "ownerReferences": [owner_reference(owner)],
    }
    for field in ("labels", "annotations"):
        if given.get(field):
            made[field] = given[field]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**made, **meta}, "spec": template["spec"]}
    return default(pod)


def create_pod(store: Store, pod: Obj) -> Obj:
    """Store a new pod. Raises `ApiError` 403 where its ServiceAccount is missing, 409 where its name is not
    free."""
    return store.create("pods", {**admitted(store, pod), "status": {"phase": "Pending"}})


class Patience:
    """Since when pods have been ready: only after ``minReadySeconds`` they are available."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def forget(self, change: Change) -> None:
        """A pod has gone."""
        if change.key.resource == "pods" and change.type == "DELETED":
            self._since.pop(change.new["metadata"]["uid"], None)

    def due(self, pod: Pod, seconds: int, now: float) -> float | None:
        """When a pod is, or was, available; None while it is not ready."""
        if not pod.ready:
            self._since.pop(pod.metadata.uid, None)
            return None
        if not seconds:
            return now
        return self._since.setdefault(pod.metadata.uid, _moment(ready_time(pod), now)) + seconds

    def available(self, pods: Iterable[Pod], seconds: int, now: float) -> tuple[int, float | None]:
        """How many are available, and when the next will be."""
        times = [due for pod in pods if (due := self.due(pod, seconds, now)) is not None]
        return sum(due <= now for due in times), min((due for due in times if due > now), default=None)


def ready_time(pod: Pod) -> str:
    """When the pod became ready, or no longer was (RFC 3339)."""
    return next((c.lastTransitionTime or "" for c in pod.status.conditions if c.type == "Ready"), "")


def _moment(text: str, now: float) -> float:
    """An RFC 3339 time in seconds, but never later than `now`."""
    try:
        return min(now, datetime.fromisoformat(text).timestamp())
    except ValueError:
        return now
