"""Namespaces: those that are always there, and the end of those that are deleted
(pkg/controller/namespace/deletion)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from nsk8s.api.types import Obj
from nsk8s.cluster.deletion import SYSTEM_NAMESPACES
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.store import Change, Key, Store

FINALIZER = "kubernetes"
"""The one of spec.finalizers that goes when the namespace is empty."""


class Namespaces:
    """Empties namespaces that are being deleted, then finalizes them, and says how far it is."""

    informers = None

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
        """Delete what is in the namespace; when nothing is left, finalize the namespace."""
        namespace = self._store.get(*key)
        if namespace is None or not namespace["metadata"].get("deletionTimestamp"):
            return None
        for inside in [*self._content(key.name)]:
            obj = self._store.get(*inside)
            if obj is not None and not obj["metadata"].get("deletionTimestamp"):
                self._registry.delete(*inside)
        left: Counter[str] = Counter()
        held: Counter[str] = Counter()
        for inside in self._content(key.name):
            left[inside.resource] += 1
            for finalizer in self._store.find(*inside)["metadata"].get("finalizers") or ():
                held[finalizer] += 1
        self._report(namespace, left, held)
        if not left:
            finalizers = (namespace.get("spec") or {}).get("finalizers") or ()
            self._registry.finalize(key.name, [f for f in finalizers if f != FINALIZER])
        return None

    def _content(self, namespace: str) -> Iterator[Key]:
        for resource in self._store.resources():
            for obj in self._store.list(resource, namespace):
                yield Key(resource, namespace, obj["metadata"]["name"])

    def _report(self, namespace: Obj, left: Counter[str], held: Counter[str]) -> None:
        """Write the conditions, each with the time of its last change (status_condition_utils.go)."""
        status = namespace.get("status") or {}
        before = {c["type"]: c for c in status.get("conditions") or ()}
        conditions = []
        for type_, holds, reason, message in _conditions(left, held):
            value = "True" if holds else "False"
            was = before.get(type_, {})
            at = was["lastTransitionTime"] if was.get("status") == value else self._store.now()
            conditions.append(
                {
                    "type": type_,
                    "status": value,
                    "lastTransitionTime": at,
                    "reason": reason,
                    "message": message,
                }
            )
        new = {**status, "phase": "Terminating", "conditions": conditions}
        self._store.update("namespaces", {**namespace, "status": new}, generation=False)


def _conditions(left: Counter[str], held: Counter[str]) -> Iterator[tuple[str, bool, str, str]]:
    yield (
        "NamespaceDeletionDiscoveryFailure",
        False,
        "ResourcesDiscovered",
        "All resources successfully discovered",
    )
    yield (
        "NamespaceDeletionGroupVersionParsingFailure",
        False,
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    )
    yield (
        "NamespaceDeletionContentFailure",
        False,
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    )
    if left:
        listed = ", ".join(
            f"{_named(name)} has {count} resource instances" for name, count in sorted(left.items())
        )
        remain = f"Some resources are remaining: {listed}"
        yield "NamespaceContentRemaining", True, "SomeResourcesRemain", remain
    else:
        yield "NamespaceContentRemaining", False, "ContentRemoved", "All content successfully removed"
    if held:
        listed = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(held.items()))
        remain = f"Some content in the namespace has finalizers remaining: {listed}"
        yield "NamespaceFinalizersRemaining", True, "SomeFinalizersRemain", remain
    else:
        finished = "All content-preserving finalizers finished"
        yield "NamespaceFinalizersRemaining", False, "ContentHasNoFinalizers", finished


def _named(resource: str) -> str:
    """``<plural>.<group>``, as upstream prints it: with the dot even where the group is empty."""
    return resource if "." in resource else f"{resource}."
