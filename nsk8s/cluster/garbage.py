"""Objects whose owners are gone go too (kube-controller-manager's garbage collector)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nsk8s.api.kinds import BY_KIND, Resource
from nsk8s.api.types import Obj
from nsk8s.cluster.registry import FOREGROUND, Registry
from nsk8s.cluster.store import Change, Key, Store


class Garbage:
    """Deletes what only absent owners own, and ends foreground deletions."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry

    def touched(self, change: Change) -> Iterable[Key]:
        """Dependents of what was deleted; what was made, or marked, or lost a dependent."""
        meta = change.new["metadata"]
        if change.type == "DELETED":
            yield from self._store.owned(meta["uid"])
            for ref in meta.get("ownerReferences") or ():
                owner = self._owner(ref, change.key.namespace)
                if owner and owner[1].get("deletionTimestamp"):
                    yield owner[0]
        elif self._orphaned(change.new) or _foreground(meta):
            yield change.key

    def sync(self, key: Key, now: float) -> float | None:
        """Delete `key` if all its owners are gone; its dependents first if that is how it is deleted."""
        obj = self._store.get(*key)
        if obj is None:
            return None
        meta = obj["metadata"]
        if self._orphaned(obj):
            if not meta.get("deletionTimestamp"):
                self._registry.delete(*key)
        elif _foreground(meta):
            dependents = self._store.owned(meta["uid"])
            for dependent in dependents:
                child = self._store.find(*dependent)
                if not child["metadata"].get("deletionTimestamp"):
                    self._registry.delete(*dependent, propagation="Foreground")
            if not self._store.owned(meta["uid"]):
                finalizers = [f for f in meta["finalizers"] if f != FOREGROUND]
                self._registry.update({**obj, "metadata": {**meta, "finalizers": finalizers}})
        return None

    def _orphaned(self, obj: Obj) -> bool:
        """Whether it has owners, and none of them exists any more. Who knows about owners of kinds that
        are not served here."""
        meta = obj["metadata"]
        refs = meta.get("ownerReferences")
        return bool(refs) and not any(
            self._owner(ref, meta.get("namespace", "")) or _resource(ref) is None for ref in refs
        )

    def _owner(self, ref: dict[str, Any], namespace: str) -> tuple[Key, dict[str, Any]] | None:
        """The owner that `ref` names, with its metadata, if it still exists."""
        resource = _resource(ref)
        if resource is None:
            return None
        key = Key(resource.name, namespace if resource.namespaced else "", ref.get("name", ""))
        obj = self._store.get(*key)
        if obj is None or obj["metadata"]["uid"] != ref.get("uid"):
            return None
        return key, obj["metadata"]


def _resource(ref: dict[str, Any]) -> Resource | None:
    return BY_KIND.get((ref.get("apiVersion", ""), ref.get("kind", "")))


def _foreground(meta: dict[str, Any]) -> bool:
    return bool(meta.get("deletionTimestamp")) and FOREGROUND in (meta.get("finalizers") or ())
