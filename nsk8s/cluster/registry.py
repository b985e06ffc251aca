"""What an API server does with a request, without HTTP: default, validate, allocate, store.

Errors are `ApiError`s in the API server's words. Controllers use `update_status` and `delete` as everybody
does; what they create they put into the store themselves, from parts that have come through here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from nsk8s.api.conversions import convert
from nsk8s.api.defaults import default
from nsk8s.api.kinds import Kinds, Resource, kinds_of
from nsk8s.api.topology import Topology
from nsk8s.api.types import Obj
from nsk8s.api.validation import validate, validate_update
from nsk8s.cluster import definitions, scaling
from nsk8s.cluster import patch as patches
from nsk8s.cluster.deletion import SYSTEM_NAMESPACES, Deletion, Propagation
from nsk8s.cluster.patch import Json
from nsk8s.cluster.services import ServiceAllocator, kept
from nsk8s.cluster.store import Store
from nsk8s.errors import ApiError, Problem

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""Annotation with what the last ``kubectl apply`` said."""

Verdict = Literal["created", "configured", "unchanged"]

SERVER_FIELDS = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
)
"""Fields of metadata that are the server's."""


class Registry:
    """Requests to the objects of one cluster."""

    def __init__(self, store: Store, topology: Topology) -> None:
        self.store = store
        self.definitions = definitions.Definitions(store, kinds_of(legacy=topology.legacy_apis))
        self.version = topology.kubernetes_version
        self._services = ServiceAllocator(store, topology)
        self._deletion = Deletion(store)

    @property
    def kinds(self) -> Kinds:
        """The kinds that the cluster has now."""
        return self.definitions.kinds()

    # --- create, update, patch ------------------------------------------------------------------------

    def create(self, obj: Obj) -> Obj:
        """Store a new object and return it as stored. Raises `ApiError`: 404 for an unknown kind or
        namespace, 403 for one that is being deleted, 422 for invalid objects, 409 if it exists."""
        resource, obj = self._taken(obj)
        obj = _placed(obj, resource)
        meta = obj["metadata"]
        for field in SERVER_FIELDS:
            meta.pop(field, None)
        self._check_namespace(resource, meta)
        if resource.subresource("status"):
            obj.pop("status", None)
        obj = self._completed(resource, obj, None)
        match resource.name:
            case "pods":
                obj["status"] = {"phase": "Pending"}
            case "namespaces":
                obj["status"] = {"phase": "Active"}
                obj["spec"] = {"finalizers": ["kubernetes"], **(obj.get("spec") or {})}
            case "services":
                obj["status"] = {"loadBalancer": {}}
            case definitions.CRDS:
                obj = definitions.completed(obj)
        return self.store.create(resource.name, obj)

    def update(self, obj: Obj) -> Obj:
        """Replace an object except its status. A resourceVersion that is not the stored one is a 409
        Conflict; without one the update is unconditional."""
        resource, obj = self._taken(obj)
        obj = _placed(obj, resource)
        meta = obj["metadata"]
        old = self.store.find(resource.name, meta.get("namespace", ""), meta.get("name", ""))
        stored = old["metadata"]
        version = meta.get("resourceVersion")
        if meta.get("uid") not in (None, "", stored["uid"]):
            raise ApiError(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {resource.name} "{meta["name"]}": the UID in the '
                f"precondition ({meta['uid']}) is not the UID of the object ({stored['uid']})",
                kind=resource.name,
                name=meta["name"],
            )
        for field in SERVER_FIELDS:
            meta.pop(field, None)
            if field in stored:
                meta[field] = stored[field]
        meta.pop("resourceVersion")
        if version:
            meta["resourceVersion"] = version
        if resource.subresource("status"):
            obj.pop("status", None)
        obj = self._completed(resource, obj, old)
        if resource.subresource("status") and "status" in old:
            obj = {**obj, "status": old["status"]}
        new = self.store.update(resource.name, obj)
        return self._deletion.finished(resource.name, new)

    def patch(
        self,
        resource: str,
        namespace: str,
        name: str,
        patch: Json,
        kind: Literal["merge", "json", "strategic"],
        subresource: Literal["", "status", "scale"] = "",
        view: Resource | None = None,
    ) -> Obj:
        """Change an object by an RFC 7396, RFC 6902 or strategic merge patch. With the subresource
        ``status`` only the status changes; with ``scale`` the patch is for a Scale, which is returned. The
        patch is written for the version of `view`."""
        if subresource == "scale":
            scale = _patched(self.scale(resource, namespace, name), patch, kind)
            replicas = (scale.get("spec") or {}).get("replicas", 0)
            if type(replicas) is not int:
                raise ApiError(400, "BadRequest", f"spec.replicas: an integer, not {replicas!r}")
            return self.scale(resource, namespace, name, replicas)
        old = self.store.find(resource, namespace, name)
        old = old if view is None else convert(old, view)
        new = _patched(old, patch, kind)
        meta = new.get("metadata") if isinstance(new, dict) else None
        if not isinstance(meta, dict) or meta.get("name") != name or meta.get("namespace", "") != namespace:
            raise ApiError(400, "BadRequest", f'the patch would change the name of {resource} "{name}"')
        if (new.get("apiVersion"), new.get("kind")) != (old["apiVersion"], old["kind"]):
            raise ApiError(400, "BadRequest", f'the patch would change the kind of {resource} "{name}"')
        return self.update_status(new) if subresource == "status" else self.update(new)

    def update_status(self, obj: Obj) -> Obj:
        """Replace only the status."""
        resource, obj = self._taken(obj)
        obj = _placed(obj, resource)
        meta = obj["metadata"]
        old = self.store.find(resource.name, meta.get("namespace", ""), meta["name"])
        kept = dict(old["metadata"])
        kept["resourceVersion"] = meta.get("resourceVersion", "")
        return self.store.update(
            resource.name, {**old, "metadata": kept, "status": obj.get("status") or {}}, generation=False
        )

    def apply(self, obj: Obj) -> tuple[Obj, Verdict]:
        """``kubectl apply``, client-side: a three-way merge with what the last apply said, which an
        annotation remembers. Returns the stored object and kubectl's verdict."""
        resource, obj = self._taken(obj)
        obj = _placed(obj, resource)
        meta = obj["metadata"]
        for field in SERVER_FIELDS:
            meta.pop(field, None)
        if resource.subresource("status"):
            obj.pop("status", None)
        annotations = {k: v for k, v in (meta.get("annotations") or {}).items() if k != LAST_APPLIED}
        meta["annotations"] = annotations
        said = json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
        meta["annotations"] = {**annotations, LAST_APPLIED: said}
        old = self.store.get(resource.name, meta.get("namespace", ""), meta.get("name", ""))
        if old is None:
            return self.create(obj), "created"
        before = (old["metadata"].get("annotations") or {}).get(LAST_APPLIED)
        if before == said:
            merged = patches.three_way(obj, obj, old)
        else:
            merged = patches.three_way(_read(before), obj, old)
        new = self.update(merged)
        return new, "unchanged" if new is old else "configured"

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

    def scale(self, resource: str, namespace: str, name: str, replicas: int | None = None) -> Obj:
        """The ``scale`` subresource (autoscaling/v1 Scale); sets the replicas first when given."""
        paths = self._scale_paths(resource)
        obj = self.store.find(resource, namespace, name)
        if replicas is not None:
            if replicas < 0:
                what = f"Invalid value: {replicas}: must be greater than or equal to 0"
                raise _invalid("Scale", name, [Problem("spec.replicas", what)])
            obj = self.store.update(resource, scaling.scaled(obj, paths, replicas))
        return scaling.scale_of(obj, paths)

    def _scale_paths(self, name: str) -> scaling.Paths:
        resource = self.kinds.by_name.get(name)
        if resource is None or resource.subresource("scale") is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        if not resource.custom:
            return scaling.WORKLOAD
        return scaling.Paths.of(self.definitions.version(resource)["subresources"]["scale"])

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

    def _completed(self, resource: Resource, obj: Obj, old: Obj | None) -> Obj:
        """`obj` valid, with all defaults and allocations."""
        meta = obj["metadata"]
        obj = default(obj)
        if resource.name == "services" and old is not None:
            obj = kept(obj, old)
        problems = list(validate(obj, resource))
        if not problems and resource.name == "services":
            obj = self._services.complete(obj, old, problems)
        if not problems and old is not None:
            problems += validate_update(old, obj, resource)
        if problems:
            raise _invalid(resource.kind, meta.get("name") or meta.get("generateName", ""), problems)
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


def _patched(target: Json, patch: Json, kind: str) -> Json:
    if kind == "json":
        return patches.json_patch(target, patch)
    if not isinstance(patch, dict):
        raise ApiError(400, "BadRequest", f"a {kind} patch is an object")
    return patches.merge(target, patch) if kind == "merge" else patches.strategic(target, patch)


def _read(annotation: str | None) -> Json:
    try:
        return json.loads(annotation or "{}")
    except ValueError:
        return {}  # somebody has edited it; kubectl would give up, we take it for an object never applied


def _invalid(kind: str, name: str, problems: list[Problem]) -> ApiError:
    causes = [f"{p.path}: {p.what}" if p.path else p.what for p in problems]
    text = causes[0] if len(causes) == 1 else f"[{', '.join(causes)}]"
    return ApiError(
        422, "Invalid", f'{kind} "{name}" is invalid: {text}', kind=kind, name=name, causes=problems
    )
