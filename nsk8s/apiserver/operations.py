"""What can be asked of a resource, as OpenAPI v3 paths and operations.

kubectl reads three things here: which kind an operation is about (``x-kubernetes-group-version-kind``),
whether its patch takes ``fieldValidation`` and ``dryRun``, and which media types a patch may have. The rest
is for people and generators; names are those of kube-apiserver's own document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nsk8s.api.kinds import Resource, Subresource
from nsk8s.api.openapi import REFERENCE
from nsk8s.api.types import Obj

JSON = "application/json"
PATCHES = ("application/json-patch+json", "application/merge-patch+json")
TYPED_PATCHES = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
META = "io.k8s.apimachinery.pkg.apis.meta.v1."

_LIST = {
    "allowWatchBookmarks": "boolean",
    "continue": "string",
    "fieldSelector": "string",
    "labelSelector": "string",
    "limit": "integer",
    "resourceVersion": "string",
    "resourceVersionMatch": "string",
    "sendInitialEvents": "boolean",
    "timeoutSeconds": "integer",
    "watch": "boolean",
}
_WRITE = {"dryRun": "string", "fieldManager": "string", "fieldValidation": "string"}
_DELETE = {
    "dryRun": "string",
    "gracePeriodSeconds": "integer",
    "orphanDependents": "boolean",
    "propagationPolicy": "string",
}

Naming = Callable[[str, str], str]
"""(apiVersion, kind) -> the name of its schema; empty if it has none."""
_Row = tuple[str, str, str, str, dict[str, str]]
"""Method, verb of RBAC, its name in operationId, x-kubernetes-action, parameters."""
_OPERATIONS: tuple[_Row, ...] = (
    ("get", "list", "list", "list", _LIST),
    ("post", "create", "create", "post", _WRITE),
    ("delete", "deletecollection", "deleteCollection", "deletecollection", {**_LIST, **_DELETE}),
)
_OF_ONE: tuple[_Row, ...] = (
    ("get", "get", "read", "get", {}),
    ("put", "update", "replace", "put", _WRITE),
    ("patch", "patch", "patch", "patch", {**_WRITE, "force": "boolean"}),
    ("delete", "delete", "delete", "delete", _DELETE),
)
_PART: tuple[_Row, ...] = (*_OF_ONE, ("post", "create", "create", "post", _WRITE))
_STREAMS = ("attach", "exec", "log", "portforward", "proxy")


def paths(resource: Resource, named: Naming) -> dict[str, Obj]:
    """The paths of a resource and of its subresources."""
    root = f"/apis/{resource.group}" if resource.group else "/api"
    below = f"{root}/{resource.version}"
    inside = f"{below}/namespaces/{{namespace}}" if resource.namespaced else below
    scope = ("namespace",) if resource.namespaced else ()
    about = _About(resource, named)
    found = {f"{inside}/{resource.plural}": about.item(scope, _OPERATIONS)}
    if resource.namespaced and "list" in resource.verbs:
        found[f"{below}/{resource.plural}"] = about.item((), _OPERATIONS[:1], "ForAllNamespaces")
    one = f"{inside}/{resource.plural}/{{name}}"
    found[one] = about.item((*scope, "name"), _OF_ONE)
    for part in resource.subresources:
        found[f"{one}/{part.name}"] = _About(resource, named, part).item((*scope, "name"), _PART)
    return {path: item for path, item in found.items() if item}


class _About:
    """A resource, or one of its subresources."""

    def __init__(self, resource: Resource, named: Naming, part: Subresource | None = None) -> None:
        self.resource = resource
        self.verbs = part.verbs if part is not None else resource.verbs
        self.part = part.name if part is not None else ""
        self.kind = part.kind if part is not None else resource.kind
        self.group = (part.group if part is not None else "") or resource.group
        self.version = (part.version if part is not None else "") or resource.version
        self.api_version = f"{self.group}/{self.version}" if self.group else self.version
        self.named = named

    def item(self, scope: tuple[str, ...], rows: tuple[_Row, ...], suffix: str = "") -> Obj:
        """A path item; empty if nothing can be asked there."""
        found: Obj = {row[0]: self.operation(row, suffix, "namespace" in scope) for row in self.asked(rows)}
        if found and scope:
            found["parameters"] = [_parameter(name, "path", "string") for name in scope]
        return found

    def asked(self, rows: tuple[_Row, ...]) -> Iterator[_Row]:
        """The operations that there are."""
        return (row for row in rows if row[1] in self.verbs)

    def operation(self, row: _Row, suffix: str, namespaced: bool) -> Obj:
        """One operation."""
        method, verb, name, action, parameters = row
        if self.part in _STREAMS and self.part != "log":
            name, action, parameters = f"connect{method.title()}", "connect", {}
        labels = self.resource.group.removesuffix(".k8s.io").split(".")
        where = "".join(word.title() for word in labels) or "Core"
        what = ("Namespaced" if namespaced else "") + self.resource.kind + self.part.title()
        found: Obj = {
            "tags": [f"{''.join(labels) or 'core'}_{self.version}"],
            "operationId": f"{name}{where}{self.resource.version.title()}{what}{suffix}",
            "responses": {"200": self.answer(verb)},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {
                "group": self.group,
                "kind": self.kind,
                "version": self.version,
            },
        }
        if parameters:
            found["parameters"] = [_parameter(key, "query", parameters[key]) for key in parameters]
        body = self.body(verb)
        if body:
            found["requestBody"] = {"content": body, "required": verb != "delete"}
        return found

    def body(self, verb: str) -> Obj:
        """What a request carries, by media type."""
        if self.part in _STREAMS:
            return {}
        match verb:
            case "patch":
                media = [*PATCHES, APPLY] if self.resource.custom else [*PATCHES, TYPED_PATCHES, APPLY]
                return {one: {"schema": _reference(f"{META}Patch")} for one in media}
            case "create" | "update":
                return {"*/*": {"schema": self.schema(self.kind)}}
            case "delete" | "deletecollection":
                return {"*/*": {"schema": _reference(f"{META}DeleteOptions")}}
        return {}

    def answer(self, verb: str) -> Obj:
        """What a good answer holds."""
        match verb:
            case _ if self.part in _STREAMS:
                schema: Obj = {"type": "string"}
            case "list":
                schema = self.schema(self.resource.list_kind)
            case "delete" | "deletecollection":
                schema = _reference(f"{META}Status")
            case _:
                schema = self.schema(self.kind)
        media = "text/plain" if self.part == "log" else JSON
        return {"description": "OK", "content": {media: {"schema": schema}}}

    def schema(self, kind: str) -> Obj:
        """A reference to the schema of a kind."""
        name = self.named(self.api_version, kind)
        return _reference(name) if name else {"type": "object"}


def _reference(name: str) -> Obj:
    return {"$ref": REFERENCE + name}


def _parameter(name: str, place: str, kind: str) -> Obj:
    found: Obj = {"name": name, "in": place, "schema": {"type": kind, "uniqueItems": True}}
    if place == "path":
        found["required"] = True
    return found
