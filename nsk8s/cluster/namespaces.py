"""Namespaces: those that are always there, and the end of those that are deleted."""

from __future__ import annotations

from collections.abc import Iterable

from nsk8s.api.kinds import RESOURCES
from nsk8s.cluster.registry import SYSTEM_NAMESPACES, Registry
from nsk8s.cluster.store import Change, Key, Store

NAMESPACED = tuple(r.name for r in RESOURCES if r.namespaced)


class Namespaces:
    """Empties namespaces that are being deleted, then removes them."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._ending: set[str] = set()

    def bootstrap(self) -> None:
        """Make the system's namespaces where they are missing."""
        for name in SYSTEM_NAMESPACES:
            if self._store.get("namespaces", "", name) is None:
                self._registry.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def touched(self, change: Change) -> Iterable[Key]:
        """A namespace that is being deleted, whenever it or something in it changes."""
        key = change.key
        if key.resource == "namespaces":
            if change.type == "DELETED":
                self._ending.discard(key.name)
            elif change.new["metadata"].get("deletionTimestamp"):
                self._ending.add(key.name)
                yield key
        elif key.namespace in self._ending:
            yield Key("namespaces", "", key.namespace)

    def sync(self, key: Key, now: float) -> float | None:
        """Delete what is in the namespace; when nothing is left, the namespace."""
        namespace = self._store.get(*key)
        if namespace is None or not namespace["metadata"].get("deletionTimestamp"):
            return None
        left = False
        for resource in NAMESPACED:
            for obj in self._store.list(resource, key.name):
                meta = obj["metadata"]
                if self._store.get(resource, key.name, meta["name"]) is None:
                    continue
                if not meta.get("deletionTimestamp"):
                    self._registry.delete(resource, key.name, meta["name"])
                left = left or self._store.get(resource, key.name, meta["name"]) is not None
        if not left:
            self._store.delete(*key)
        return None
