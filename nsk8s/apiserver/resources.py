"""Requests to objects: what each verb does, between the HTTP of `server` and the `Registry`.

Everything here is synchronous and happens in the thread that owns the store; the server commits before
it answers.
"""

from __future__ import annotations

import base64
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from nsk8s.api.conversions import convert
from nsk8s.api.findings import Findings
from nsk8s.api.types import Obj
from nsk8s.apiserver.addressing import Address, Filter, number
from nsk8s.apiserver.fields import Fields
from nsk8s.apiserver.request import mapping
from nsk8s.apiserver.status import success
from nsk8s.cluster import scaling
from nsk8s.cluster.deletion import Propagation
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.store import Store
from nsk8s.errors import ApiError, Problem

PATCHES = {
    "application/merge-patch+json": "merge",
    "application/json-patch+json": "json",
    "application/strategic-merge-patch+json": "strategic",
}
APPLY_PATCHES = {"application/apply-patch+yaml", "application/apply-patch+json"}

LONGEST_MANAGER = 128
"""Bytes of a field manager's name."""


def allowed(address: Address, verb: str) -> None:
    """Raises `ApiError` 405 for what cannot be done with a resource or subresource at all."""
    part = address.resource.subresource(address.subresource)
    if verb not in (part or address.resource).verbs:
        raise _no_method(address)


def read(registry: Registry, address: Address) -> Obj:
    """GET of one object, its status or its scale. Raises `ApiError` 404."""
    if address.subresource == "scale":
        return registry.scale(address.resource.stored_as, address.namespace or "", address.name)
    if address.subresource not in ("", "status"):
        raise _no_method(address)
    return registry.store.find(address.resource.stored_as, address.namespace or "", address.name)


def selected(store: Store, about: Filter) -> list[Obj]:
    """The objects that a filter is about, in namespace/name order."""
    where = about.address
    if where.name:
        found = store.get(about.stored_as, where.namespace or "", where.name)
        return [found] if found is not None and about.passes(found) else []
    objects = store.list(about.stored_as, where.namespace)
    return list(objects) if about.everything else [obj for obj in objects if about.passes(obj)]


def listed(store: Store, about: Filter, query: Mapping[str, str]) -> tuple[list[Obj], Obj]:
    """The objects of a list, and its ListMeta. With ``limit`` a part of them, and how to go on: the
    ``continue`` token carries the revision of the first part; later parts show the present, and the
    token expires with the watch log (410), as etcd's compaction has it.

    Raises `ApiError` 400 for a token that is none, 504 for a revision that has not been reached."""
    asked, token = query.get("resourceVersion", ""), query.get("continue", "")
    if asked.isdecimal() and int(asked) > store.revision:
        raise too_large(int(asked), store)
    found = selected(store, about)
    revision = str(store.revision)
    if token:
        revision, after = _resumed(token)
        store.since(int(revision))
        found = found[bisect_right(found, after, key=_place) :]
    limit = number(query, "limit")
    meta: Obj = {"resourceVersion": revision}
    if 0 < limit < len(found):
        rest = len(found) - limit
        found = found[:limit]
        meta["continue"] = _token(revision, found[-1])
        if not (about.labels.requirements or about.fields.terms):
            meta["remainingItemCount"] = rest
    return found, meta


def too_large(revision: int, store: Store) -> ApiError:
    """Somebody knows a revision that is still to come."""
    error = ApiError(504, "Timeout", f"Too large resource version: {revision}, current: {store.revision}")
    error.causes = (Problem("", "Too large resource version"),)
    return error


def _place(obj: Obj) -> tuple[str, str]:
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


def _token(revision: str, last: Obj) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([revision, *_place(last)])).decode()


def _resumed(token: str) -> tuple[str, tuple[str, str]]:
    try:
        revision, namespace, name = msgspec.json.decode(
            base64.urlsafe_b64decode(token), type=tuple[str, str, str]
        )
        int(revision)
    except (ValueError, msgspec.DecodeError) as error:
        raise ApiError(400, "BadRequest", f"continue key is not valid: {error}") from error
    return revision, (namespace, name)


def listing(address: Address, objects: list[Obj], revision: str) -> Obj:
    """A list as JSON."""
    return {
        "kind": address.resource.list_kind,
        "apiVersion": address.resource.api_version,
        "metadata": {"resourceVersion": revision},
        "items": [convert(obj, address.resource) for obj in objects],
    }


class Write(Struct, frozen=True):
    """A write by the field manager `manager`; `fields` judges what it may contain."""

    registry: Registry
    address: Address
    manager: str
    fields: Fields

    def create(self, body: Obj) -> Obj:
        """POST."""
        address = self.address
        if address.name or (address.namespace is None and address.resource.namespaced):
            raise _no_method(address)
        return self.registry.create(self._given(body), manager=self.manager)

    def replace(self, body: Obj) -> Obj:
        """PUT, of the object, its status or its scale."""
        match self.address.subresource:
            case "" | "status" as part if self.address.name:
                return self.registry.update(self._given(body), manager=self.manager, subresource=part)
            case "scale":
                replicas, revision = scaling.wanted(self.fields.given(body))
                return self.registry.scale(*self._where, replicas, manager=self.manager, revision=revision)
        raise _no_method(self.address)

    def change(self, body: Any, kind: str, *, force: bool) -> tuple[Obj, int]:  # noqa: ANN401  # JSON
        """PATCH of the media type `kind`; the object, and the HTTP status (201 if an apply has made it)."""
        part = self.address.subresource
        if not self.address.name or part not in ("", "status", "scale"):
            raise _no_method(self.address)
        if kind in APPLY_PATCHES:
            if part == "scale":
                return self._apply_scale(mapping(body), force), 200
            # What it may contain is judged by server-side apply itself, in words of its own.
            config = _fitting(self.registry, self.address, mapping(body))
            found, new = self.registry.apply_patch(
                *self._where,
                config,
                part,  # type: ignore[arg-type]  # what was just compared
                manager=self.manager,
                force=force,
            )
            return found, 201 if new else 200
        if kind not in PATCHES:
            raise ApiError(
                415,
                "UnsupportedMediaType",
                f"the body of the request was in an unknown format - accepted media types include: "
                f"{', '.join([*PATCHES, *sorted(APPLY_PATCHES)])}",
            )
        found = self.registry.patch(
            *self._where,
            body,
            PATCHES[kind],  # type: ignore[arg-type]  # its values are those
            part,  # type: ignore[arg-type]  # what was just compared
            self.address.resource,
            manager=self.manager,
            decode=lambda made: self.fields.made(made, body, PATCHES[kind]),
        )
        return found, 200

    def _apply_scale(self, body: Obj, force: bool) -> Obj:
        given = body.get("apiVersion", "")
        if given != scaling.VERSION:
            what = "Incorrect version specified in apply patch. "
            what += f"Specified patch version: {given}, expected: {scaling.VERSION}"
            raise ApiError(400, "BadRequest", what)
        config = {**body, "metadata": _at(self.address, body)}
        return self.registry.scales.apply(*self._where, config, manager=self.manager, force=force)

    @property
    def _where(self) -> tuple[str, str, str]:
        return self.address.resource.stored_as, self.address.namespace or "", self.address.name

    def _given(self, body: Obj) -> Obj:
        """A body that fits its path, and has the fields that it may have."""
        return self.fields.given(_fitting(self.registry, self.address, body))


def manager_of(query: Mapping[str, str], agent: str, method: str, kind: str) -> str:
    """The field manager of a write: ``fieldManager``, or the first word of the User-Agent `agent`
    (apiserver's managerOrUserAgent). Raises `ApiError` 422: an apply has to say it, and only an apply can be
    forced."""
    given = query.get("fieldManager", "")
    applies = method == "PATCH" and kind in APPLY_PATCHES
    options = {"POST": "CreateOptions", "PUT": "UpdateOptions"}.get(method, "PatchOptions")
    found = Findings()
    if applies and not given:
        found.required("fieldManager", "is required for apply patch")
    elif not applies and method == "PATCH" and "force" in query:
        found.forbidden("force", "may not be specified for non-apply patch")
    if len(given.encode()) > LONGEST_MANAGER:
        found.add("fieldManager", f"Too long: may not be more than {LONGEST_MANAGER} bytes")
    if not given.isprintable():
        found.invalid("fieldManager", given, "should only contain printable characters")
    if found.problems:
        told = [f"{problem.path}: {problem.what}" for problem in found.problems]
        text = told[0] if len(told) == 1 else f"[{', '.join(told)}]"
        message = f'{options}.meta.k8s.io "" is invalid: {text}'
        raise ApiError(422, "Invalid", message, kind=options, causes=found.problems)
    if given:
        return given
    word = "".join(filter(str.isprintable, agent.partition("/")[0]))
    return word.encode()[:LONGEST_MANAGER].decode(errors="ignore") or "unknown"


class DeleteOptions(Struct, frozen=True):
    """`meta/v1.DeleteOptions`, from the body or the query. `uid` and `revision` are preconditions."""

    grace: int | None = None
    propagation: Propagation = ""
    uid: str = ""
    revision: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str], body: Obj) -> DeleteOptions:
        """Raises `ApiError` 400 and 422."""
        grace = body.get("gracePeriodSeconds")
        if grace is None and "gracePeriodSeconds" in query:
            grace = number(query, "gracePeriodSeconds")
        if grace is not None and (type(grace) is not int or grace < 0):
            raise ApiError(422, "Invalid", f"gracePeriodSeconds: {grace!r} is not a whole number from 0 on")
        propagation: Any = body.get("propagationPolicy") or query.get("propagationPolicy") or ""
        if propagation not in ("", "Background", "Foreground", "Orphan"):
            raise ApiError(
                422,
                "Invalid",
                f"propagationPolicy: Unsupported value: {propagation!r}: supported values: "
                '"Background", "Foreground", "Orphan"',
            )
        wanted = body.get("preconditions")
        wanted = wanted if isinstance(wanted, dict) else {}
        chosen: Propagation = propagation
        return cls(grace, chosen, str(wanted.get("uid") or ""), str(wanted.get("resourceVersion") or ""))

    def check(self, obj: Obj, address: Address) -> None:
        """Raises `ApiError` 409 for an object that does not meet the preconditions."""
        meta = obj["metadata"]
        for field, wanted, found in (
            ("UID", self.uid, meta["uid"]),
            ("ResourceVersion", self.revision, meta["resourceVersion"]),
        ):
            if wanted and wanted != found:
                raise ApiError(
                    409,
                    "Conflict",
                    f'Operation cannot be fulfilled on {address.resource.name} "{meta["name"]}": the {field} '
                    f"in the precondition ({wanted}) does not match the {field} in record ({found})",
                    kind=address.resource.name,
                    name=meta["name"],
                )


def delete(registry: Registry, store: Store, address: Address, options: DeleteOptions) -> Obj:
    """DELETE of one object: a Status when it is gone, the object itself while it is going."""
    if address.subresource:
        raise _no_method(address)
    where = (address.resource.stored_as, address.namespace or "", address.name)
    options.check(store.find(*where), address)
    found = registry.delete(*where, grace=options.grace, propagation=options.propagation)
    if store.get(*where) is not None:
        return found
    return success(address.resource, address.name, found["metadata"]["uid"])


def delete_all(registry: Registry, store: Store, about: Filter, options: DeleteOptions) -> Obj:
    """DELETE of a collection; the list of what was there."""
    found = selected(store, about)
    for obj in found:
        meta = obj["metadata"]
        one = Address(about.address.resource, meta.get("namespace", ""), meta["name"])
        if store.get(one.resource.stored_as, one.namespace or "", one.name) is not None:
            delete(registry, store, one, options)
    return listing(about.address, found, str(store.revision))


def rehearsed(query: Mapping[str, str], body: Any, method: str) -> bool:  # noqa: ANN401  # JSON
    """Whether the request is a dry run (``dryRun=All``): everything is done but kept. Raises `ApiError`."""
    asked = query.get("dryRun", "")
    if not asked and method == "DELETE" and isinstance(body, dict) and body.get("dryRun"):
        asked = ",".join(map(str, body["dryRun"])) if isinstance(body["dryRun"], list) else "?"
    if asked not in ("", "All"):
        raise ApiError(422, "Invalid", f'dryRun: Unsupported value: "{asked}": supported values: "All"')
    return asked == "All"


def _fitting(registry: Registry, address: Address, body: Obj) -> Obj:
    """The body, completed by what the path says already. Raises `ApiError` 400 where they disagree."""
    resource = address.resource
    given = (str(body.get("apiVersion", resource.api_version)), str(body.get("kind", resource.kind)))
    if registry.kinds.by_kind.get(given) is not resource:
        raise ApiError(
            400,
            "BadRequest",
            f"{given[1]} in version {given[0]!r} cannot be handled as a {resource.kind}",
        )
    return {**body, "apiVersion": given[0], "kind": given[1], "metadata": _at(address, body)}


def _at(address: Address, body: Obj) -> Obj:
    """The metadata of a body, completed by what the path says. Raises `ApiError` 400 where they disagree."""
    meta = body.get("metadata") or {}
    if not isinstance(meta, dict):
        raise ApiError(400, "BadRequest", "metadata: an object")
    meta = dict(meta)
    for field, wanted in (("namespace", address.namespace), ("name", address.name)):
        if wanted:
            if meta.get(field) not in (None, "", wanted):
                what = f"the {field} of the provided object does not match the {field} sent on the request"
                if field == "name":
                    what = f"the name of the object ({meta[field]}) does not match the name on the URL "
                    what += f"({wanted})"
                raise ApiError(400, "BadRequest", what)
            meta[field] = wanted
    return meta


def _no_method(address: Address) -> ApiError:
    return ApiError(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
        kind=address.resource.name,
        name=address.name,
    )
