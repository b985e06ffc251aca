"""Requests to objects: what each verb does, between the HTTP of `server` and the `Registry`.

Everything here is synchronous and happens in the thread that owns the store; the server commits before
it answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nsk8s.api.kinds import BY_KIND
from nsk8s.api.types import Obj
from nsk8s.apiserver import tables
from nsk8s.apiserver.addressing import Address, Filter, number
from nsk8s.cluster.registry import Propagation, Registry
from nsk8s.cluster.store import Store
from nsk8s.errors import ApiError

PATCHES = {
    "application/merge-patch+json": "merge",
    "application/json-patch+json": "json",
    "application/strategic-merge-patch+json": "strategic",
}
APPLY_PATCHES = {"application/apply-patch+yaml", "application/apply-patch+json"}


def read(store: Store, address: Address) -> Obj:
    """GET of one object. Raises `ApiError` 404."""
    if address.subresource not in ("", "status"):
        raise _no_method(address, "get")
    return store.find(address.resource.name, address.namespace or "", address.name)


def listed(store: Store, about: Filter, query: Mapping[str, str]) -> tuple[list[Obj], str]:
    """The objects of a list in namespace/name order, and its resourceVersion; `limit` is a wish that a
    server need not grant. Raises `ApiError` 504 for a revision that has not been reached."""
    asked = query.get("resourceVersion", "")
    if asked.isdecimal() and int(asked) > store.revision:
        raise ApiError(504, "Timeout", f"Too large resource version: {asked}, current: {store.revision}")
    objects = store.list(about.address.resource.name, about.address.namespace)
    found = [obj for obj in objects if about.passes(obj)]
    return found, str(store.revision)


def listing(address: Address, objects: list[Obj], revision: str) -> Obj:
    """A list as JSON."""
    return {
        "kind": f"{address.resource.kind}List",
        "apiVersion": address.resource.api_version,
        "metadata": {"resourceVersion": revision},
        "items": objects,
    }


def table_of(address: Address, objects: list[Obj], revision: str, query: Mapping[str, str]) -> Obj:
    """A list as a table."""
    whole = query.get("includeObject") == "Object"
    return tables.table(address.resource, objects, tables.now(), revision, whole=whole)


def create(registry: Registry, address: Address, body: Obj) -> Obj:
    """POST."""
    if address.name:
        raise _no_method(address, "post")
    return registry.create(_fitting(address, body))


def replace(registry: Registry, address: Address, body: Obj) -> Obj:
    """PUT, of the object, its status or its scale."""
    match address.subresource:
        case "":
            return registry.update(_fitting(address, body))
        case "status":
            return registry.update_status(_fitting(address, body))
        case "scale":
            replicas = (body.get("spec") or {}).get("replicas", 0)
            return registry.scale(address.resource.name, address.namespace or "", address.name, replicas)
    raise _no_method(address, "put")


def change(registry: Registry, address: Address, body: Any, kind: str) -> tuple[Obj, int]:  # noqa: ANN401  # JSON
    """PATCH; returns the object and the HTTP status (201 if an apply has made it)."""
    where = (address.resource.name, address.namespace or "", address.name)
    if kind in APPLY_PATCHES:
        if address.subresource or not isinstance(body, dict):
            raise _no_method(address, "patch")
        found, verdict = registry.apply(_fitting(address, body))
        return found, 201 if verdict == "created" else 200
    if kind not in PATCHES:
        raise ApiError(
            415,
            "UnsupportedMediaType",
            f"the body of the request was in an unknown format - accepted media types include: "
            f"{', '.join([*PATCHES, *sorted(APPLY_PATCHES)])}",
        )
    match address.subresource:
        case "":
            return registry.patch(*where, body, PATCHES[kind]), 200  # type: ignore[arg-type]  # values of PATCHES
        case "status":
            return registry.patch(*where, body, PATCHES[kind], "status"), 200  # type: ignore[arg-type]  # the same
        case "scale":
            return registry.patch(*where, body, PATCHES[kind], "scale"), 200  # type: ignore[arg-type]  # the same
    raise _no_method(address, "patch")


def scale(registry: Registry, address: Address) -> Obj:
    """GET of the scale subresource."""
    return registry.scale(address.resource.name, address.namespace or "", address.name)


def delete(registry: Registry, store: Store, address: Address, query: Mapping[str, str], body: Obj) -> Obj:
    """DELETE of one object: a Status when it is gone, the object itself while it is going."""
    where = (address.resource.name, address.namespace or "", address.name)
    grace = body.get("gracePeriodSeconds")
    if grace is None and "gracePeriodSeconds" in query:
        grace = number(query, "gracePeriodSeconds")
    propagation: Propagation = body.get("propagationPolicy") or query.get("propagationPolicy") or "Background"  # type: ignore[assignment]  # the registry refuses other words
    found = registry.delete(*where, grace=grace, propagation=propagation)
    if store.get(*where) is not None:
        return found
    details = {
        "name": address.name,
        "group": address.resource.group,
        "kind": address.resource.plural,
        "uid": found["metadata"]["uid"],
    }
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def delete_all(registry: Registry, store: Store, about: Filter, query: Mapping[str, str], body: Obj) -> Obj:
    """DELETE of a collection; the list of what was there."""
    found, revision = listed(store, about, {})
    for obj in found:
        meta = obj["metadata"]
        one = Address(about.address.resource, meta.get("namespace", ""), meta["name"])
        delete(registry, store, one, query, body)
    return listing(about.address, found, revision)


def _fitting(address: Address, body: Obj) -> Obj:
    """The body, completed by what the path says already. Raises `ApiError` 400 where they disagree."""
    resource = address.resource
    given = (body.get("apiVersion", resource.api_version), body.get("kind", resource.kind))
    if given not in BY_KIND or BY_KIND[given] is not resource:
        raise ApiError(
            400,
            "BadRequest",
            f"{given[1]} in version {given[0]!r} cannot be handled as a {resource.kind}",
        )
    meta = dict(body.get("metadata") or {})
    for field, wanted in (("namespace", address.namespace), ("name", address.name)):
        if wanted:
            if meta.get(field) not in (None, "", wanted):
                raise ApiError(
                    400,
                    "BadRequest",
                    f"the {field} of the provided object does not match the {field} sent on the request",
                )
            meta[field] = wanted
    return {**body, "apiVersion": given[0], "kind": given[1], "metadata": meta}


def _no_method(address: Address, verb: str) -> ApiError:
    what = (
        f"{address.resource.plural}/{address.subresource}" if address.subresource else address.resource.plural
    )
    return ApiError(
        405,
        "MethodNotAllowed",
        f"the server does not allow this method on the requested resource: {verb} {what}",
    )
