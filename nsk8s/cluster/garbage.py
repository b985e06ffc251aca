"""Objects whose owners are gone go too (kube-controller-manager's garbage collector, attemptToDeleteItem).

An owner is solid, absent, or waiting: being deleted in the foreground, after those dependents that block it.
Who has a solid owner loses only the references to the others; who has none is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from nsk8s.api.kinds import Resource
from nsk8s.api.types import Obj
from nsk8s.cluster.deletion import FOREGROUND, ORPHAN, Deletion
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.store import Change, Key, Store

Reference = dict[str, Any]


class Garbage:
    """Deletes what only absent owners own, and ends foreground and orphaning deletions."""

    informers = None

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._deletion = Deletion(store)

    def touched(self, change: Change) -> Iterable[Key]:
        """Dependents of what was deleted or waits for them; what has owners, or is to be deleted with regard
        to its dependents; the owners of what was deleted."""
        meta = change.new["metadata"]
        ending = meta.get("deletionTimestamp")
        if change.type == "DELETED":
            yield from self._store.owned(meta["uid"])
            yield from self._owners(meta)
            return
        before = change.old["metadata"] if change.old is not None else {}
        if before.get("ownerReferences", ()) != meta.get("ownerReferences", ()):
            yield from self._owners(before)
        if ending and _has(meta, FOREGROUND):
            yield change.key
            yield from self._store.owned(meta["uid"])
        elif (ending and _has(meta, ORPHAN)) or self._unsound(meta):
            yield change.key

    def sync(self, key: Key, now: float) -> float | None:
        """Delete `key` if all its owners are gone; or its dependents first, if that is how it is deleted."""
        obj = self._store.get(*key)
        if obj is None:
            return None
        if self._unsound(obj["metadata"]):
            self._collect(key, obj)
            obj = self._store.get(*key)
            if obj is None:
                return None
        meta = obj["metadata"]
        if not meta.get("deletionTimestamp"):
            return None
        if _has(meta, ORPHAN):
            for dependent in self._store.owned(meta["uid"]):
                self._disown(self._store.find(*dependent), dependent.resource, {meta["uid"]})
            self._finish(key, ORPHAN)
        elif _has(meta, FOREGROUND) and not self._blocked(meta["uid"]):
            self._finish(key, FOREGROUND)
        return None

    def _collect(self, key: Key, obj: Obj) -> None:
        meta = obj["metadata"]
        states = {ref["uid"]: self._state(ref, meta.get("namespace", "")) for ref in meta["ownerReferences"]}
        if "solid" in states.values():
            self._disown(obj, key.resource, {uid for uid, state in states.items() if state != "solid"})
        elif not meta.get("deletionTimestamp"):
            waiting = "waiting" in states.values() and self._store.owned(meta["uid"])
            self._registry.delete(*key, propagation="Foreground" if waiting else "")

    def _finish(self, key: Key, finalizer: str) -> None:
        obj = self._store.find(*key)
        meta = {**obj["metadata"], "finalizers": [f for f in obj["metadata"]["finalizers"] if f != finalizer]}
        if not meta["finalizers"]:
            del meta["finalizers"]
        self._deletion.finished(key.resource, self._store.update(key.resource, {**obj, "metadata": meta}))

    def _disown(self, obj: Obj, resource: str, owners: set[str]) -> None:
        meta = obj["metadata"]
        refs = [ref for ref in meta["ownerReferences"] if ref["uid"] not in owners]
        new = {k: v for k, v in meta.items() if k != "ownerReferences"}
        if refs:
            new["ownerReferences"] = refs
        self._store.update(resource, {**obj, "metadata": new})

    def _blocked(self, uid: str) -> bool:
        """Whether a dependent stands in the way of a foreground deletion."""
        return any(
            ref["uid"] == uid and ref.get("blockOwnerDeletion")
            for key in self._store.owned(uid)
            for ref in self._store.find(*key)["metadata"]["ownerReferences"]
        )

    def _unsound(self, meta: dict[str, Any]) -> bool:
        """Whether one of its owners is absent or waits for it."""
        refs = meta.get("ownerReferences")
        return any(self._state(ref, meta.get("namespace", "")) != "solid" for ref in refs or ())

    def _owners(self, meta: dict[str, Any]) -> Iterable[Key]:
        """The owners that are being deleted."""
        for ref in meta.get("ownerReferences") or ():
            owner = self._owner(ref, meta.get("namespace", ""))
            if owner and owner[1]["metadata"].get("deletionTimestamp"):
                yield owner[0]

    def _state(self, ref: Reference, namespace: str) -> Literal["solid", "absent", "waiting"]:
        """Who knows about owners of kinds that are not served here, or that no such object can have."""
        resource = self._resource(ref)
        if resource is None or (resource.namespaced and not namespace):
            return "solid"
        owner = self._owner(ref, namespace)
        if owner is None:
            return "absent"
        meta = owner[1]["metadata"]
        return "waiting" if meta.get("deletionTimestamp") and _has(meta, FOREGROUND) else "solid"

    def _owner(self, ref: Reference, namespace: str) -> tuple[Key, Obj] | None:
        """The owner that `ref` names, if it still exists."""
        resource = self._resource(ref)
        if resource is None:
            return None
        key = Key(resource.stored_as, namespace if resource.namespaced else "", ref.get("name", ""))
        obj = self._store.get(*key)
        if obj is None or obj["metadata"]["uid"] != ref.get("uid"):
            return None
        return key, obj

    def _resource(self, ref: Reference) -> Resource | None:
        return self._registry.kinds.by_kind.get((ref.get("apiVersion", ""), ref.get("kind", "")))


def _has(meta: dict[str, Any], finalizer: str) -> bool:
    return finalizer in (meta.get("finalizers") or ())
