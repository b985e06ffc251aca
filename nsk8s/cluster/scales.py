"""The ``scale`` subresource of stored objects: read, written, and applied server-side."""

from __future__ import annotations

from nsk8s.api.types import Obj
from nsk8s.cluster import managedfields, scaling, serverside
from nsk8s.cluster.definitions import Definitions
from nsk8s.cluster.managedfields import Managed, Writer
from nsk8s.cluster.store import Store
from nsk8s.cluster.structure import Structure, structure_of
from nsk8s.errors import ApiError, Problem


class Scales:
    """Those of one cluster. Every method returns the Scale, and raises `ApiError` 404."""

    def __init__(self, store: Store, definitions: Definitions) -> None:
        self._store = store
        self._definitions = definitions

    def read(self, resource: str, namespace: str, name: str) -> Obj:
        """As it is."""
        paths = self._paths(resource)
        return scaling.scale_of(self._store.find(resource, namespace, name), paths)

    def write(
        self,
        resource: str,
        namespace: str,
        name: str,
        replicas: int,
        *,
        manager: str = "",
        revision: str = "",
    ) -> Obj:
        """Set the replicas, which are then the `manager`'s. A `revision` other than the stored one is a 409
        Conflict."""
        obj, scale, managed = self._look(resource, namespace, name)
        new = {**scale, "spec": {"replicas": replicas}}
        if revision:
            new["metadata"] = {**scale["metadata"], "resourceVersion": revision}
        if manager and managed:
            managed = managedfields.recorded(managed, scale, new, structure(), self._writer(manager))
        return self._rescaled(resource, obj, new, managed)

    def apply(
        self, resource: str, namespace: str, name: str, config: Obj, *, manager: str, force: bool = False
    ) -> Obj:
        """Server-side apply; a 409 Conflict where others own the replicas and it is not `force`."""
        managedfields.unmanaged(config["metadata"])
        obj, scale, managed = self._look(resource, namespace, name)
        live = managedfields.owned(scale, managedfields.encode(managed))
        new, managed = serverside.apply(live, config, structure(), self._writer(manager), force=force)
        return self._rescaled(resource, obj, new, managed)

    def _look(self, resource: str, namespace: str, name: str) -> tuple[Obj, Obj, Managed]:
        """The object, its Scale, and who owns the fields of that."""
        paths = self._paths(resource)
        obj = self._store.find(resource, namespace, name)
        return obj, scaling.scale_of(obj, paths), scaling.owners_of_scale(managedfields.owners(obj), paths)

    def _writer(self, manager: str) -> Writer:
        return Writer(manager, scaling.VERSION, "scale", self._store.now())

    def _rescaled(self, resource: str, obj: Obj, scale: Obj, managed: Managed) -> Obj:
        """Store the object with the replicas of `scale`, whose fields are `managed`; its Scale then."""
        paths, version = self._paths(resource), obj["apiVersion"]
        meta = obj["metadata"]
        replicas, revision = scaling.wanted(scale)
        if replicas < 0:
            what = f"Invalid value: {replicas}: must be greater than or equal to 0"
            raise ApiError.invalid("Scale", meta["name"], [Problem("spec.replicas", what)])
        owners = scaling.owners_of_parent(managedfields.owners(obj), managed, paths, version)
        new = {**obj, "metadata": {**meta, "resourceVersion": revision}}
        new = managedfields.owned(scaling.scaled(new, paths, replicas), managedfields.encode(owners))
        return scaling.scale_of(self._store.update(resource, new), paths)

    def _paths(self, name: str) -> scaling.Paths:
        resource = self._definitions.kinds().by_name.get(name)
        if resource is None or resource.subresource("scale") is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        if not resource.custom:
            return scaling.WORKLOAD
        return scaling.Paths.of(self._definitions.version(resource)["subresources"]["scale"])


def structure() -> Structure:
    """How Scales are merged."""
    found = structure_of(scaling.VERSION, "Scale")
    assert found is not None
    return found
