"""What an API server does with a request, without HTTP: default, validate, allocate, store.

Errors are `ApiError`s in the API server's words. Controllers use `update_status` and `delete` as everybody
does; what they create they put into the store themselves, from parts that have come through here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

from nsk8s.api import structural
from nsk8s.api.conversions import convert
from nsk8s.api.defaults import default
from nsk8s.api.kinds import Kinds, Resource, kinds_of
from nsk8s.api.topology import Topology
from nsk8s.api.types import Obj
from nsk8s.api.validation import validate, validate_status, validate_update
from nsk8s.cluster import (
    definitions,
    managedfields,
    objectmeta,
    scales,
    scaling,
    serverside,
    serviceaccounts,
    strategies,
)
from nsk8s.cluster import patch as patches
from nsk8s.cluster.deletion import SYSTEM_NAMESPACES, Deletion, Propagation
from nsk8s.cluster.objectmeta import LAST_APPLIED
from nsk8s.cluster.patch import Json
from nsk8s.cluster.services import ServiceAllocator, kept
from nsk8s.cluster.store import Store
from nsk8s.cluster.strategic import strategic, three_way
from nsk8s.cluster.structure import UNTYPED, Structure, structure_of
from nsk8s.errors import ApiError, Problem

Verdict = Literal["created", "configured", "unchanged"]

MANAGER = "nsk8s"
"""Field manager of what `apply` writes."""

CREATED_BY_PUT = {
    "clusterrolebindings.rbac.authorization.k8s.io",
    "clusterroles.rbac.authorization.k8s.io",
    "endpoints",
    "events",
    "leases.coordination.k8s.io",
    "limitranges",
    "rolebindings.rbac.authorization.k8s.io",
    "roles.rbac.authorization.k8s.io",
    "runtimeclasses.node.k8s.io",
}
"""Resources whose objects a PUT creates (their strategies' AllowCreateOnUpdate)."""

ALWAYS_REVISED = {
    "apiservices.apiregistration.k8s.io",
    "customresourcedefinitions.apiextensions.k8s.io",
    "leases.coordination.k8s.io",
    "poddisruptionbudgets.policy",
}
"""Resources that are only replaced by who knows their revision (not AllowUnconditionalUpdate); custom ones
are the same."""

MOST_OPERATIONS = 10000
"""Longest JSON patch."""

Track = Callable[[Obj], list[Obj]]
"""Gives the managedFields of an object that has its defaults."""


def _as_it_is(obj: Obj) -> Obj:
    return obj


class Registry:
    """Requests to the objects of one cluster."""

    def __init__(self, store: Store, topology: Topology) -> None:
        self.store = store
        self.definitions = definitions.Definitions(store, kinds_of(legacy=topology.legacy_apis))
        self.version = topology.kubernetes_version
        self.scales = scales.Scales(store, self.definitions)
        self._services = ServiceAllocator(store, topology)
        self._deletion = Deletion(store)
        self._structures: dict[str, Structure] = {}

    @property
    def kinds(self) -> Kinds:
        """The kinds that the cluster has now."""
        return self.definitions.kinds()

    # --- create, update, patch ------------------------------------------------------------------------

    def create(self, obj: Obj, *, manager: str = "") -> Obj:
        """Store a new object and return it as stored; `manager` then owns its fields. Raises `ApiError`: 404
        for an unknown kind or namespace, 403 for one that is being deleted, 422 for invalid objects, 409 if
        it exists."""
        resource, obj = self._taken(obj)
        obj = _placed(obj, resource)
        return self._created(resource, obj, self._track(resource, None, obj, manager))

    def _created(self, resource: Resource, obj: Obj, track: Track | None) -> Obj:
        revision = obj["metadata"].get("resourceVersion")
        if revision and str(revision).isdecimal() and int(revision):
            raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
        obj = {**obj, "metadata": objectmeta.wanted(obj["metadata"])}
        meta = obj["metadata"]
        self._check_namespace(resource, meta)
        obj = self._completed(resource, obj, None, track)
        match resource.name:
            case "pods":
                obj = {**serviceaccounts.admitted(self.store, obj), "status": {"phase": "Pending"}}
            case "namespaces":
                obj["status"] = {"phase": "Active"}
                obj["spec"] = {"finalizers": ["kubernetes"], **(obj.get("spec") or {})}
            case "services":
                obj["status"] = {"loadBalancer": {}}
            case definitions.CRDS:
                obj = definitions.completed(obj)
        obj = strategies.begun(resource.name, obj, self.store.uid)
        there = self.store.get(resource.name, meta.get("namespace", ""), meta.get("name", ""))
        if there is not None and there["metadata"].get("deletionTimestamp"):
            raise ApiError(
                409,
                "AlreadyExists",
                f'object is being deleted: {resource.name} "{meta["name"]}" already exists',
                kind=resource.name,
                name=meta["name"],
            )
        return self.store.create(resource.name, obj)

    def update(self, obj: Obj, *, manager: str = "", subresource: Literal["", "status"] = "") -> Obj:
        """Replace an object except its status, or only that. A resourceVersion that is not the stored one is
        a 409 Conflict; without one the update is unconditional, where its kind allows that."""
        resource, obj = self._taken(obj)
        obj = _placed(obj, resource)
        meta = obj["metadata"]
        name = meta.get("name", "")
        old = self.store.get(resource.name, meta.get("namespace", ""), name)
        if old is None:
            if not subresource and resource.name in CREATED_BY_PUT:
                return self.create(obj, manager=manager)
            old = self.store.find(resource.name, meta.get("namespace", ""), name)
        stored = old["metadata"]
        if meta.get("uid") not in (None, "", stored["uid"]):
            place = "/".join(filter(None, (resource.plural, meta.get("namespace", ""), name)))
            raise ApiError(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {resource.name} "{name}": StorageError: invalid object, '
                f"Code: 4, Key: /registry/{place}, ResourceVersion: 0, AdditionalErrorMsg: Precondition "
                f"failed: UID in precondition: {meta['uid']}, UID in object meta: {stored['uid']}",
                kind=resource.name,
                name=name,
            )
        if not meta.get("resourceVersion") and (resource.custom or resource.name in ALWAYS_REVISED):
            what = "Invalid value: 0x0: must be specified for an update"
            raise ApiError.invalid(resource.name, name, [Problem("metadata.resourceVersion", what)])
        return self._changed(
            resource, old, obj, self._track(resource, old, obj, manager, subresource), subresource
        )

    def _changed(
        self, resource: Resource, old: Obj, obj: Obj, track: Track | None, subresource: str = ""
    ) -> Obj:
        """Store `obj` in place of `old`, or its status."""
        if resource.name == "namespaces":  # its finalizers have a subresource of their own
            obj = {**obj, "spec": old.get("spec") or {}}
        meta, problems = objectmeta.changed(obj["metadata"], old["metadata"])
        if problems:
            raise ApiError.invalid(resource.kind, meta["name"], problems)
        if subresource:
            kept = {**old["metadata"], "resourceVersion": meta["resourceVersion"]}
            new = {**old, "metadata": kept, "status": obj.get("status") or {}}
            if problems := validate_status(new):
                raise ApiError.invalid(resource.kind, meta["name"], problems)
            new = strategies.reported(resource.name, new)
            new = new if track is None else managedfields.owned(new, track(new))
        else:
            new = self._completed(resource, {**obj, "metadata": meta}, old, track)
            new = strategies.revised(resource.name, old, new)
        before = old["metadata"].get("managedFields")
        if managedfields.same(before, new["metadata"].get("managedFields")):
            again = managedfields.owned(new, before)
            new = again if again == old else new
        new = self.store.update(resource.name, new, generation=not subresource)
        return new if subresource else self._deletion.finished(resource.name, new)

    def update_status(self, obj: Obj, *, manager: str = "") -> Obj:
        """Replace only the status, whatever its kind says of revisions."""
        resource, obj = self._taken(obj)
        obj = _placed(obj, resource)
        meta = obj["metadata"]
        old = self.store.find(resource.name, meta.get("namespace", ""), meta["name"])
        return self._changed(resource, old, obj, self._track(resource, old, obj, manager, "status"), "status")

    def patch(
        self,
        resource: str,
        namespace: str,
        name: str,
        patch: Json,
        kind: Literal["merge", "json", "strategic"],
        subresource: Literal["", "status", "scale"] = "",
        view: Resource | None = None,
        *,
        manager: str = "",
        decode: Callable[[Obj], Obj] = _as_it_is,
    ) -> Obj:
        """Change an object by an RFC 7396, RFC 6902 or strategic merge patch. With the subresource
        ``status`` only the status changes; with ``scale`` the patch is for a Scale, which is returned. The
        patch is written for the version of `view`. What it has made goes through `decode`, which may refuse
        it."""
        if subresource == "scale":
            scale = decode(_patched(self.scale(resource, namespace, name), patch, kind, scales.structure()))
            replicas, revision = scaling.wanted(scale)
            return self.scale(resource, namespace, name, replicas, manager=manager, revision=revision)
        stored = self.store.find(resource, namespace, name)
        target = self.kinds.by_name[resource]
        old = stored if view is None else convert(stored, view)
        structure = None if target.custom else structure_of(old["apiVersion"], old["kind"])
        if structure is None and not target.custom:
            structure = structure_of(target.api_version, target.kind)
        new = _patched(old, patch, kind, structure)
        if new is old:
            return stored
        new = decode(new) if isinstance(new, dict) else new
        meta = new.get("metadata") if isinstance(new, dict) else None
        if not isinstance(meta, dict) or meta.get("name") != name:
            given = meta.get("name") if isinstance(meta, dict) else ""
            what = f"the name of the object ({given}) does not match the name on the URL ({name})"
            if not given:
                what = (
                    f"the name of the object ({name} based on URL) was undeterminable: name must be provided"
                )
            raise ApiError(400, "BadRequest", what)
        if meta.get("namespace", "") != namespace:
            raise ApiError(
                400,
                "BadRequest",
                "the namespace of the provided object does not match the namespace sent on the request",
            )
        if (new.get("apiVersion"), new.get("kind")) != (old["apiVersion"], old["kind"]):
            raise ApiError(400, "BadRequest", f'the patch would change the kind of {resource} "{name}"')
        obj = _placed(convert(new, target), target)
        part = "status" if subresource == "status" else ""
        return self._changed(target, stored, obj, self._track(target, stored, obj, manager, part), part)

    def apply_patch(
        self,
        resource: str,
        namespace: str,
        name: str,
        config: Obj,
        subresource: Literal["", "status"] = "",
        *,
        manager: str,
        force: bool = False,
    ) -> tuple[Obj, bool]:
        """Server-side apply (KEP-555): what `manager` wants of an object, or of its status, is merged into
        it. Returns the stored object, and whether it is new. Raises `ApiError`, 409 Conflict among them
        where others own what would change and it is not `force`."""
        target = self.kinds.by_name[resource]
        config = _placed(convert(config, target), target)
        meta = managedfields.unmanaged(config["metadata"])
        old = self.store.get(resource, namespace, name)
        if old is None and subresource:
            old = self.store.find(resource, namespace, name)
        if old is None and meta.get("uid"):
            raise ApiError(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {resource} "{name}": uid mismatch: the provided object '
                f"specified uid {meta['uid']}, and no existing object was found",
                kind=resource,
                name=name,
            )
        live: Obj = old or {"apiVersion": target.api_version, "kind": target.kind}
        if subresource:
            parts = {"apiVersion", "kind", "metadata", subresource}
            identity = {k: v for k, v in meta.items() if k in ("name", "namespace", "uid", "resourceVersion")}
            config = {**{k: v for k, v in config.items() if k in parts}, "metadata": identity}
            live = {k: v for k, v in live.items() if k in parts}
        elif target.subresource("status"):
            config, live = ({k: v for k, v in one.items() if k != "status"} for one in (config, live))
        writer = managedfields.Writer(manager, target.api_version, subresource, self.store.now())
        new, managed = serverside.apply(live, config, self._structure(target), writer, force=force)
        entries = managedfields.encode(managed)
        if old is None:
            return self._created(target, new, lambda _: entries), True
        return self._changed(target, old, new, lambda _: entries, subresource), False

    def apply(self, obj: Obj) -> tuple[Obj, Verdict]:
        """``kubectl apply``, client-side: a three-way merge with what the last apply said, which an
        annotation remembers. Returns the stored object and kubectl's verdict."""
        resource, obj = self._taken(obj)
        obj = _placed(obj, resource)
        meta = obj["metadata"] = objectmeta.wanted(obj["metadata"])
        if resource.subresource("status"):
            obj.pop("status", None)
        annotations = {k: v for k, v in (meta.get("annotations") or {}).items() if k != LAST_APPLIED}
        meta["annotations"] = annotations
        said = json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
        meta["annotations"] = {**annotations, LAST_APPLIED: said}
        old = self.store.get(resource.name, meta.get("namespace", ""), meta.get("name", ""))
        if old is None:
            return self.create(obj, manager=MANAGER), "created"
        before = (old["metadata"].get("annotations") or {}).get(LAST_APPLIED)
        last = obj if before == said else _read(before)
        merged = three_way(last, obj, old, self._structure(resource))
        new = self._changed(resource, old, merged, self._track(resource, old, merged, MANAGER))
        return new, "unchanged" if new is old else "configured"

    # --- who owns what ------------------------------------------------------------------------------

    def _structure(self, resource: Resource) -> Structure:
        if not resource.custom:
            found = structure_of(resource.api_version, resource.kind)
            return UNTYPED if found is None else found
        schema = self.definitions.schema(resource)
        known = self._structures.get(resource.name)
        if known is None or known.schema is not schema:
            known = self._structures[resource.name] = Structure(schema)
        return known

    def _track(
        self, resource: Resource, old: Obj | None, given: Obj, manager: str, subresource: str = ""
    ) -> Track | None:
        """How the fields of an object are tracked that `manager` writes; not at all without one. A client's
        own managedFields (in `given`) count on the main resource."""
        if not manager:
            return None
        writer = managedfields.Writer(manager, resource.api_version, subresource, self.store.now())
        entries = None if subresource else given["metadata"].get("managedFields")

        def track(obj: Obj) -> list[Obj]:
            return managedfields.updated(old, obj, entries, self._structure(resource), writer)

        return track

    # --- delete -------------------------------------------------------------------------------------

    def delete(
        self,
        resource: str,
        namespace: str,
        name: str,
        *,
        grace: int | None = None,
        propagation: Propagation = "",
    ) -> Obj:
        """Delete an object, or begin to; its last or its present state (see `Deletion`)."""
        return self._deletion.delete(resource, namespace, name, grace, propagation)

    def finalize(self, name: str, finalizers: list[str]) -> Obj:
        """The ``finalize`` subresource of a Namespace: set its spec.finalizers. One that is being deleted
        goes with the last of them."""
        old = self.store.find("namespaces", "", name)
        spec = {k: v for k, v in (old.get("spec") or {}).items() if k != "finalizers"}
        if finalizers:
            spec["finalizers"] = finalizers
        return self._deletion.finished("namespaces", self.store.update("namespaces", {**old, "spec": spec}))

    # --- scale --------------------------------------------------------------------------------------

    def scale(
        self,
        resource: str,
        namespace: str,
        name: str,
        replicas: int | None = None,
        *,
        manager: str = "",
        revision: str = "",
    ) -> Obj:
        """The ``scale`` subresource (autoscaling/v1 Scale); sets the replicas first when given, which are
        then the `manager`'s. A `revision` other than the stored one is a 409 Conflict."""
        if replicas is None:
            return self.scales.read(resource, namespace, name)
        return self.scales.write(resource, namespace, name, replicas, manager=manager, revision=revision)

    def _taken(self, obj: Obj) -> tuple[Resource, Obj]:
        """The resource that an object is stored in, and the object in its version."""
        kinds, version, kind = self.kinds, obj.get("apiVersion"), obj.get("kind")
        found = kinds.by_kind.get((version, kind)) if type(version) is str and type(kind) is str else None
        if found is None:
            raise ApiError(404, "NotFound", f'no matches for kind "{kind}" in version "{version}"')
        if found.virtual:
            raise ApiError(
                405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
            )
        resource = kinds.storage_of(found)
        return resource, convert(obj, resource)

    # --- checks -------------------------------------------------------------------------------------

    def _completed(self, resource: Resource, obj: Obj, old: Obj | None, track: Track | None) -> Obj:
        """`obj` valid, with all defaults and allocations, and with the owners of its fields. What is
        allocated is nobody's."""
        meta = obj["metadata"]
        has_status = resource.subresource("status") is not None
        obj = default({name: value for name, value in obj.items() if name != "status" or not has_status})
        schema = self.definitions.schema(resource) if resource.custom else None
        if schema is not None:
            obj = structural.defaulted(obj, schema)
        if has_status and old is not None and "status" in old:
            obj = {**obj, "status": old["status"]}
        if track is not None:
            obj = managedfields.owned(obj, track(obj))
        if resource.name == "services" and old is not None:
            obj = kept(obj, old)
        problems = list(validate(obj, resource))
        if schema is not None:
            problems += structural.validate(obj, schema)
        if not problems and resource.name == "services":
            obj = self._services.complete(obj, old, problems)
        if not problems and old is not None:
            problems += validate_update(old, obj, resource)
        if problems:
            raise ApiError.invalid(resource.kind, meta.get("name") or meta.get("generateName", ""), problems)
        return obj

    def _check_namespace(self, resource: Resource, meta: Mapping[str, Any]) -> None:
        if not resource.namespaced:
            return
        name = meta["namespace"]
        found = self.store.get("namespaces", "", name)
        if found is None:
            if name in SYSTEM_NAMESPACES:
                return
            raise ApiError(404, "NotFound", f'namespaces "{name}" not found', kind="namespaces", name=name)
        if found["metadata"].get("deletionTimestamp"):
            raise ApiError(
                403,
                "Forbidden",
                f'{resource.name} "{meta.get("name", "")}" is forbidden: unable to create new content in '
                f"namespace {name} because it is being terminated",
                kind=resource.name,
                name=meta.get("name", ""),
            )


def _placed(obj: Obj, resource: Resource) -> Obj:
    """A copy with its own metadata, in its namespace."""
    given = obj.get("metadata")
    meta = dict(given) if isinstance(given, dict) else {}
    if resource.namespaced:
        meta["namespace"] = meta.get("namespace") or "default"
    else:
        meta.pop("namespace", None)
    return {**obj, "metadata": meta}


def _patched(target: Json, patch: Json, kind: str, structure: Structure | None) -> Json:
    if kind == "json":
        if isinstance(patch, list) and len(patch) > MOST_OPERATIONS:
            raise ApiError(
                413,
                "RequestEntityTooLarge",
                f"The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {len(patch)}",
            )
        return patches.json_patch(target, patch)
    if not isinstance(patch, dict):
        raise ApiError(400, "BadRequest", f"a {kind} patch is an object")
    if kind == "merge":
        return patches.merge(target, patch)
    if structure is None:
        raise ApiError(
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
        )
    return strategic(target, patch, structure)


def _read(annotation: str | None) -> Json:
    try:
        return json.loads(annotation or "{}")
    except ValueError:
        return {}  # somebody has edited it; kubectl would give up, we take it for an object never applied
