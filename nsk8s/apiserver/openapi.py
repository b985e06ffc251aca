"""``/openapi/v3`` and ``/openapi/v2``: what objects are made of and what can be asked.

kubectl asks here before each write whether the server validates fields itself (if not, it does that with
these schemas), for the keys that lists are merged by, and for ``explain``. There is one v3 document for each
group and version, under an address that has a hash of what is in it and may be kept forever; v2 is one for
all, in JSON and in gnostic's protobuf.

Schemas have descriptions only where the Python package kubernetes-validate is installed beside nsk8s.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path

import msgspec

from nsk8s import __version__
from nsk8s.api.kinds import Kinds, Resource
from nsk8s.api.openapi import REFERENCE, VERSION, Schema, definitions, schema_of
from nsk8s.api.types import Obj
from nsk8s.apiserver import gnostic, operations, swagger
from nsk8s.apiserver.discovery import JSON, Document

V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2"
"""As a request has it, it goes on with ``@v1.0+protobuf``; an answer must not have the @."""
KEPT = 64
"""How many documents are kept encoded."""
_DESCRIPTIONS = f"kubernetes-json-schema/v{VERSION}.0-local/_definitions.json"
"""In the package kubernetes-validate."""
_ALWAYS = tuple(f"{operations.META}{kind}" for kind in ("DeleteOptions", "Patch", "Status"))
_SUBSTITUTE: Obj = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
"""The schema of kinds of which nothing is known."""


class OpenApi:
    """The documents of one cluster. `kinds` gives its kinds as they are now, `schema` the schema of a custom
    resource, `version` the Kubernetes version that it says it has."""

    def __init__(
        self, kinds: Callable[[], Kinds], schema: Callable[[Resource], Schema], version: Callable[[], str]
    ) -> None:
        self._kinds = kinds
        self._schema = schema
        self._version = version
        self._documents: dict[tuple[str, str], Document] = {}

    def document(self, path: str, query: Mapping[str, str], accept: str = "") -> Document | None:
        """The document at `path`; None if there is none."""
        words = [word for word in path.split("/") if word]
        if words[:1] != ["openapi"]:
            return None
        match words[1:]:
            case ["v2"]:
                binary = V2_PROTOBUF in accept
                return self._kept("v2.pb" if binary else "v2", self._fingerprint(self._groups()), self._v2)
            case ["v3"]:
                return _encoded(self._index(), JSON)
            case ["v3", *rest]:
                name = "/".join(rest)
                resources = self._groups().get(name)
                if resources is None:
                    return None
                mark = self._fingerprint({name: resources})
                found = self._kept(name, mark, self._v3)
                lasting = query.get("hash") == mark
                return Document(found.body, found.content_type, found.etag, lasting=lasting)
        return None

    def _kept(self, name: str, mark: str, make: Callable[[str], tuple[bytes, str]]) -> Document:
        """The document called `name`, made if what it is about is no longer what it was."""
        found = self._documents.get((name, mark))
        if found is None:
            if len(self._documents) >= KEPT:
                self._documents = {}
            body, media = make(name)
            found = self._documents[name, mark] = Document(
                body, media, f'"{mark}{".pb" if name == "v2.pb" else ""}"'
            )
        return found

    def _groups(self) -> dict[str, list[Resource]]:
        """``api/v1``, ``apis/apps/v1`` -> what is served there."""
        found: dict[str, list[Resource]] = {}
        for resource in self._kinds():
            name = f"apis/{resource.api_version}" if resource.group else f"api/{resource.version}"
            found.setdefault(name, []).append(resource)
        return found

    def _fingerprint(self, groups: Mapping[str, Iterable[Resource]]) -> str:
        """A hash of all that documents about `groups` depend on."""
        told = [__version__, self._version(), str(_described() is not None)]
        for resources in groups.values():
            for resource in resources:
                told.append(f"{resource.name} {resource.version} {resource.verbs} {resource.subresources}")
                if resource.custom:
                    told.append(msgspec.json.encode(self._schema(resource).raw).decode())
        return hashlib.sha256("\n".join(told).encode()).hexdigest()[:32].upper()

    def _index(self) -> Obj:
        return {
            "paths": {
                name: {"serverRelativeURL": f"/openapi/v3/{name}?hash={self._fingerprint({name: resources})}"}
                for name, resources in self._groups().items()
            }
        }

    # --- documents ----------------------------------------------------------------------------------

    def _v3(self, name: str) -> tuple[bytes, str]:
        paths, schemas = self._content(self._groups()[name])
        told = {"openapi": "3.0.0", "info": self._info(), "paths": paths, "components": {"schemas": schemas}}
        return msgspec.json.encode(told), JSON

    def _v2(self, name: str) -> tuple[bytes, str]:
        resources = [resource for group in self._groups().values() for resource in group]
        paths, schemas = self._content(resources)
        told = swagger.document(self._info(), paths, schemas)
        if name == "v2.pb":
            return gnostic.document(told), f"{V2_PROTOBUF}.v1.0+protobuf"
        return msgspec.json.encode(told), JSON

    def _info(self) -> Obj:
        return {"title": "Kubernetes", "version": f"v{self._version().removeprefix('v')}"}

    def _content(self, resources: Iterable[Resource]) -> tuple[Obj, Obj]:
        """Paths, and the schemas that they refer to."""
        made: dict[str, Obj] = {}
        names: dict[tuple[str, str], str] = {}
        paths: Obj = {}

        def named(api_version: str, kind: str) -> str:
            known = schema_of(api_version, kind)
            return known.name if known is not None else names.get((api_version, kind), "")

        for resource in resources:
            for kind, raw in self._own(resource).items():
                name = names[resource.api_version, kind] = _name(resource, kind)
                made[name] = raw
            paths |= operations.paths(resource, named)
            wanted = [named(resource.api_version, kind) for kind in (resource.kind, resource.list_kind)]
            wanted += [
                named(f"{part.group}/{part.version}" if part.group else resource.api_version, part.kind)
                for part in resource.subresources
            ]
            for name in wanted:
                _collect(name, made)
        for name in _ALWAYS:
            _collect(name, made)
        return paths, {name: published(made[name], _told(name)) for name in sorted(made)}

    def _own(self, resource: Resource) -> dict[str, Obj]:
        """Schemas of a resource that are not Kubernetes' built-in ones, by kind."""
        if schema_of(resource.api_version, resource.kind) is not None:
            return {}
        raw = _SUBSTITUTE
        if resource.custom:
            raw = {
                k: v for k, v in self._schema(resource).raw.items() if k != "x-kubernetes-embedded-resource"
            }
        items = {"type": "array", "items": {"$ref": REFERENCE + _name(resource, resource.kind)}}
        listed = {
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "items": items,
                "metadata": {"$ref": f"{REFERENCE}{operations.META}ListMeta"},
            },
        }
        return {
            kind: {**schema, "x-kubernetes-group-version-kind": [_gvk(resource, kind)]}
            for kind, schema in ((resource.kind, raw), (resource.list_kind, listed))
        }


def published(raw: Obj, told: Obj) -> Obj:
    """A schema as the documents have it: without our own extension, with descriptions if there are any, and
    a reference alone (what stands beside one does not count in OpenAPI 3.0)."""
    found: Obj = {}
    for key, value in raw.items():
        match key:
            case "x-go-type":
                continue
            case "properties":
                below = told.get("properties") or {}
                found[key] = {name: published(one, below.get(name) or {}) for name, one in value.items()}
            case "items" | "additionalProperties" if isinstance(value, dict):
                found[key] = published(value, told.get(key) or {})
            case _:
                found[key] = value
    if "description" in told:
        found["description"] = told["description"]
    if "$ref" in found and len(found) > 1:
        found = {"allOf": [{"$ref": found.pop("$ref")}], **found}
    return found


def _collect(name: str, made: dict[str, Obj]) -> None:
    """Add the definition `name`, and all that it refers to."""
    wanted = [name] if name else []
    while wanted:
        name = wanted.pop()
        raw = made.get(name) or definitions()[name]
        made[name] = raw
        wanted += [one for one in _references(raw) if one not in made]


def _references(raw: object) -> Iterable[str]:
    if isinstance(raw, dict):
        reference = raw.get("$ref")
        if isinstance(reference, str):
            yield reference.removeprefix(REFERENCE)
        for value in raw.values():
            if isinstance(value, dict):
                yield from _references(value)


def _name(resource: Resource, kind: str) -> str:
    """The name of a custom resource's schema: ``com.example.v1.Pet``."""
    return ".".join([*reversed(resource.group.split(".")), resource.version, kind])


def _gvk(resource: Resource, kind: str) -> Obj:
    return {"group": resource.group, "kind": kind, "version": resource.version}


def _encoded(obj: Obj, media: str) -> Document:
    body = msgspec.json.encode(obj)
    return Document(body, media, f'"{hashlib.sha256(body).hexdigest()[:32].upper()}"')


@cache
def _described() -> Mapping[str, Obj] | None:
    """The schemas with descriptions, where kubernetes-validate is installed in this version."""
    package = importlib.util.find_spec("kubernetes_validate")
    if package is None or not package.submodule_search_locations:
        return None
    place = Path(package.submodule_search_locations[0]) / _DESCRIPTIONS
    if not place.is_file():
        return None
    found: Mapping[str, Obj] = msgspec.json.decode(place.read_bytes())["$defs"]
    return found


def _told(name: str) -> Obj:
    return (_described() or {}).get(name) or {}
