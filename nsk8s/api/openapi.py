"""What the objects of each kind are made of: Kubernetes' OpenAPI schemas, by apiVersion and kind.

The built-in kinds' come from ``data/kubernetes-1.33.json.xz``, which is read when the first of them is asked
for; those of old versions are made of them by `legacy`, a CustomResourceDefinition's of its
``openAPIV3Schema`` by `structural`. A `Schema` resolves its references when they are looked at, so that the
circular ones (JSONSchemaProps) are no special case.
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec

from nsk8s.api import legacy
from nsk8s.api.types import Obj

VERSION = "1.33"
"""The minor version of Kubernetes that the schemas are of."""
REFERENCE = legacy.REFERENCE
"""What a reference begins with; a definition's name follows."""

META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_SCALARS = {INT_OR_STRING: "int-or-string", QUANTITY: "quantity"}
_OPEN = {
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
}
"""Objects of any fields (Go: raw bytes)."""
_NO_PROPERTIES: Mapping[str, Schema] = {}


class Schema:
    """What one value may be.

    `type` is ``object array string integer number boolean int-or-string``, or "" for anything; a Quantity is
    ``int-or-string`` of the `format` ``quantity``. `name` is the definition's name, if it is one. The other
    attributes are OpenAPI's and Kubernetes' extensions (KEP-555 for lists and maps); `raw` is all that was
    said, with references as they were written.
    """

    __slots__ = (
        "additional",
        "default",
        "enum",
        "format",
        "go_type",
        "items",
        "list_map_keys",
        "list_type",
        "map_type",
        "merge_key",
        "name",
        "patch_strategies",
        "preserve_unknown",
        "properties",
        "raw",
        "required",
        "type",
    )

    name: str
    raw: Obj
    type: str
    format: str
    enum: tuple[Any, ...]
    default: Any
    """None if there is none."""
    required: tuple[str, ...]
    patch_strategies: tuple[str, ...]
    """``merge``, ``retainKeys``, ``replace``."""
    merge_key: str
    list_type: str
    """``atomic``, ``set``, ``map`` or ""."""
    list_map_keys: tuple[str, ...]
    map_type: str
    """``atomic``, ``granular`` or ""."""
    preserve_unknown: bool
    go_type: str
    """How a Go program calls the type, where that is more than `type` and `format` say: ``v1.Protocol``."""
    properties: Mapping[str, Schema]
    items: Schema | None
    additional: Schema | None
    """Of a map's values."""

    def __init__(self, raw: Obj, name: str = "") -> None:
        said = raw.get
        self.raw = raw
        self.name = name
        self.format = said("format") or _SCALARS.get(name, "")
        self.type = (
            "int-or-string"
            if name in _SCALARS or said("x-kubernetes-int-or-string")
            else str(said("type") or ("object" if "properties" in raw else ""))
        )
        self.enum = tuple(said("enum") or ())
        self.default = said("default")
        self.required = tuple(said("required") or ())
        strategies = str(said("x-kubernetes-patch-strategy") or "")
        self.patch_strategies = tuple(strategies.split(",")) if strategies else ()
        self.merge_key = str(said("x-kubernetes-patch-merge-key") or "")
        self.list_type = str(said("x-kubernetes-list-type") or "")
        self.list_map_keys = tuple(said("x-kubernetes-list-map-keys") or ())
        self.map_type = str(said("x-kubernetes-map-type") or "")
        self.preserve_unknown = bool(said("x-kubernetes-preserve-unknown-fields")) or name in _OPEN
        self.go_type = str(said("x-go-type") or "")

    if not TYPE_CHECKING:  # with it, mypy would believe in any attribute

        def __getattr__(self, name: str) -> object:
            """Called once for each of the schemas below this one."""
            match name:
                case "properties":
                    given = self.raw.get("properties")
                    below = {key: resolve(value) for key, value in given.items()} if given else _NO_PROPERTIES
                case "items":
                    below = resolve(self.raw["items"]) if "items" in self.raw else None
                case "additional":
                    given = self.raw.get("additionalProperties")
                    below = resolve(given) if isinstance(given, dict) else Schema({}) if given else None
                case _:
                    raise AttributeError(name)
            setattr(self, name, below)
            return below

    def __repr__(self) -> str:
        return f"Schema({self.name or self.type})"


def schema_of(api_version: str, kind: str) -> Schema | None:
    """The schema of a built-in kind; None if there is none."""
    name = _names().get((api_version, kind))
    return None if name is None else definition(name)


@cache
def definition(name: str) -> Schema:
    """The definition called `name`, such as ``io.k8s.api.core.v1.Pod``. Raises KeyError."""
    return Schema(definitions()[name], name)


@cache
def definitions() -> Mapping[str, Obj]:
    """All definitions by name, as OpenAPI v3 schemas. ``x-go-type`` is an extension of our own."""
    packed = files("nsk8s.api").joinpath(f"data/kubernetes-{VERSION}.json.xz").read_bytes()
    found = msgspec.json.decode(lzma.decompress(packed), type=dict[str, dict[str, Any]])
    return found | legacy.definitions(_named(found), found)


@cache
def _names() -> Mapping[tuple[str, str], str]:
    return _named(definitions())


def _named(known: Mapping[str, Obj]) -> dict[tuple[str, str], str]:
    """(apiVersion, kind) -> definition."""
    found: dict[tuple[str, str], str] = {}
    for name, schema in known.items():
        for one in schema.get("x-kubernetes-group-version-kind", ()):
            group = f"{one['group']}/" if one["group"] else ""
            found[group + one["version"], one["kind"]] = name
    return found


def resolve(raw: Obj) -> Schema:
    """The schema of `raw`, or of what it refers to; what stands beside a reference counts as well."""
    reference = raw.get("$ref")
    if reference is None:
        return Schema(raw)
    name = reference.removeprefix(REFERENCE)
    target = definition(name)
    if len(raw) == 1:
        return target
    return Schema({**target.raw, **{key: value for key, value in raw.items() if key != "$ref"}}, name)


def structural(schema: Obj) -> Schema:
    """The schema of a custom resource, of its CustomResourceDefinition's ``openAPIV3Schema``: with the fields
    that every object has (and every one embedded in it: ``x-kubernetes-embedded-resource``)."""
    return Schema(_embedding({**schema, "x-kubernetes-embedded-resource": True}))


def _embedding(schema: Obj) -> Obj:
    """`schema` with apiVersion, kind and metadata where objects are."""
    found = dict(schema)
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = _embedding(found[key])
    properties = {name: _embedding(below) for name, below in (found.get("properties") or {}).items()}
    if found.get("x-kubernetes-embedded-resource"):
        found["type"] = "object"
        properties = {
            **properties,
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"$ref": REFERENCE + META},
        }
    if properties:
        found["properties"] = properties
    return found
