"""Deleting objects: at once, gracefully, after their finalizers, before or after their dependents.

What registry/generic's Store.Delete and rest.BeforeDelete are to a real API server. An object that must wait
is marked with a deletionTimestamp; whoever it waits for (kubelet, garbage collector, namespace
controller, the owner of a finalizer) does its part, and the last of them lets it go.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from nsk8s.api.types import Obj
from nsk8s.cluster.store import Store
from nsk8s.errors import ApiError

SYSTEM_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
"""Namespaces that are always there."""

GRACE = 30
"""terminationGracePeriodSeconds of a pod that says nothing."""

FOREGROUND = "foregroundDeletion"
"""Finalizer of an object whose dependents are deleted before it (metav1.FinalizerDeleteDependents)."""
ORPHAN = "orphan"
"""Finalizer of an object whose dependents are set free before it goes (metav1.FinalizerOrphanDependents)."""

Propagation = Literal["", "Background", "Foreground", "Orphan"]
"""What becomes of the dependents; "" leaves it to the finalizers that the object has."""

FINALIZERS: dict[str, tuple[str, ...]] = {"Background": (), "Foreground": (FOREGROUND,), "Orphan": (ORPHAN,)}


class Deletion:
    """How the objects of one store come to an end."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def delete(
        self, resource: str, namespace: str, name: str, grace: int | None, propagation: Propagation
    ) -> Obj:
        """Delete an object, or begin to: pods on a node get `grace` seconds to end (by default their own; 0
        is at once), namespaces until they are empty, objects with finalizers until those are gone.
        Returns its last or its present state. Raises `ApiError` 404 and 403."""
        old = self._store.find(resource, namespace, name)
        if resource == "namespaces" and name in SYSTEM_NAMESPACES:
            raise ApiError(
                403,
                "Forbidden",
                f'namespaces "{name}" is forbidden: this namespace may not be deleted',
                kind=resource,
                name=name,
            )
        old = _propagating(old, propagation)
        if resource == "pods":
            return self._delete_pod(old, grace)
        if resource == "namespaces":
            status = {**(old.get("status") or {}), "phase": "Terminating"}
            return self.finished(resource, self._marked(resource, {**old, "status": status}, 0))
        if old["metadata"].get("finalizers"):
            return self._marked(resource, old, 0)
        return self._store.delete(resource, namespace, name)

    def finished(self, resource: str, obj: Obj) -> Obj:
        """Remove `obj`, as it is stored, if it is being deleted and waits for nothing any more."""
        meta = obj["metadata"]
        if not meta.get("deletionTimestamp") or meta.get("finalizers"):
            return obj
        if resource == "namespaces" and (obj.get("spec") or {}).get("finalizers"):
            return obj
        if meta.get("deletionGracePeriodSeconds"):
            return obj
        return self._store.delete(resource, meta.get("namespace", ""), meta["name"])

    def _delete_pod(self, old: Obj, grace: int | None) -> Obj:
        """podStrategy.CheckGracefulDelete: what runs nowhere needs no time."""
        meta, spec = old["metadata"], old.get("spec") or {}
        if grace is None:
            if meta.get("deletionTimestamp"):
                return self._store.update("pods", old)
            grace = spec.get("terminationGracePeriodSeconds", GRACE)
        if not spec.get("nodeName") or (old.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            grace = 0
        elif grace < 0:
            grace = 1
        if grace > 0 or meta.get("finalizers"):
            return self._marked("pods", old, grace)
        return self._store.delete("pods", meta["namespace"], meta["name"])

    def _marked(self, resource: str, old: Obj, grace: int) -> Obj:
        """Begin a deletion, or shorten one that has begun."""
        meta = dict(old["metadata"])
        if meta.get("deletionTimestamp") and meta.get("deletionGracePeriodSeconds", 0) <= grace:
            return self._store.update(resource, old)
        moment = datetime.fromisoformat(self._store.now()) + timedelta(seconds=grace)
        meta["deletionTimestamp"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        meta["deletionGracePeriodSeconds"] = grace
        return self._store.update(resource, {**old, "metadata": meta})


def _propagating(obj: Obj, propagation: Propagation) -> Obj:
    """`obj` with the finalizers that `propagation` means (deletionFinalizersForGarbageCollection)."""
    if not propagation:
        return obj
    meta = obj["metadata"]
    old = meta.get("finalizers") or []
    new = [f for f in old if f not in (FOREGROUND, ORPHAN)]
    new += FINALIZERS[propagation]
    if new == old or sorted(new) == sorted(old):
        return obj
    if new:
        return {**obj, "metadata": {**meta, "finalizers": new}}
    return {**obj, "metadata": {k: v for k, v in meta.items() if k != "finalizers"}}
