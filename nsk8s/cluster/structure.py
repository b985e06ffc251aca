"""How the parts of an object are merged: its schema, compiled for patches and for field ownership.

A `Structure` says of one value which of its lists have items with an identity, and what is one value that
changes as a whole. Two answers live side by side, for upstream has two: the strategy of strategic merge
patches (``x-kubernetes-patch-strategy``, apimachinery's strategicpatch) and the topology of server-side
apply (``x-kubernetes-list-type`` and ``-map-type``, KEP-555; kube-openapi's schemaconv).
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from nsk8s.api.openapi import Schema, schema_of
from nsk8s.api.protobuf import standing

Json = Any
"""Any JSON value."""

TYPES = {
    "array": "list",
    "int-or-string": "scalar",
    "integer": "numeric",
    "number": "numeric",
    "object": "map",
}
"""OpenAPI's types -> structured-merge-diff's."""
RAW = "io.k8s.apimachinery.pkg.runtime.RawExtension"


class Structure(dict[str, "Structure"]):
    """How a value is merged; as a mapping: field name -> how that field's value is. Fields are compiled when
    they are first asked for, and those that no schema declares are `others`.

    Of a list: `kind`, the keys of its items for server-side apply (`item_keys`, sorted), and `merge_key` with
    `strategy` for strategic merge patches. Of a mapping: whether it is `atomic`. `retains`: it, or each of
    its items, is a union whose old members go."""

    __slots__ = (
        "_item",
        "_others",
        "_standing",
        "atomic",
        "defaults",
        "item_keys",
        "kind",
        "merge_key",
        "retains",
        "schema",
        "strategy",
    )

    def __init__(self, schema: Schema | None) -> None:
        super().__init__()
        self.schema = schema
        self._others: Structure | None = None
        self._item: Structure | None = None
        self._standing: frozenset[str] | None = None
        self.atomic = schema is not None and (schema.map_type == "atomic" or schema.name == RAW)
        self.kind: Literal["atomic", "set", "map"] = "atomic"
        self.item_keys: tuple[str, ...] = ()
        self.defaults: dict[str, Json] = {}
        self.merge_key = ""
        self.strategy = ""
        self.retains = False
        if schema is None:
            return
        strategies = schema.patch_strategies
        self.retains = "retainKeys" in strategies
        self.strategy = next((s for s in strategies if s != "retainKeys"), "")
        self.merge_key = schema.merge_key
        if schema.list_type in ("set", "map"):
            self.kind = "map" if schema.list_type == "map" else "set"
            self.item_keys = schema.list_map_keys
        elif not schema.list_type and self.strategy == "merge":
            self.kind = "map" if schema.merge_key else "set"
            self.item_keys = (schema.merge_key,) if schema.merge_key else ()
        self.item_keys = tuple(sorted(self.item_keys))
        if self.item_keys and schema.items is not None:
            below = schema.items.properties
            self.defaults = {
                key: below[key].default
                for key in self.item_keys
                if key in below and below[key].default is not None
            }

    def __missing__(self, name: str) -> Structure:
        schema = self.schema
        if schema is not None and name in schema.properties:
            found = self[name] = Structure(schema.properties[name])
            return found
        return self.others

    def declares(self, name: str) -> bool:
        """Whether the schema names this field: a struct's field, no key of a map."""
        return self.schema is not None and name in self.schema.properties

    @property
    def closed(self) -> bool:
        """Whether it may have declared fields only."""
        schema = self.schema
        return (
            schema is not None
            and schema.type == "object"
            and bool(schema.properties)
            and schema.additional is None
            and not schema.preserve_unknown
        )

    @property
    def type(self) -> str:
        """What its values are: ``numeric string boolean scalar list map``, or "" for anything."""
        schema = self.schema
        if schema is None:
            return ""
        if schema.type == "string":
            return "string" if schema.format in ("", "byte") else "scalar"
        return TYPES.get(schema.type, schema.type)

    @property
    def others(self) -> Structure:
        """Of the values of a map, and of fields that nobody has declared."""
        if self._others is None:
            below = self.schema.additional if self.schema is not None else None
            self._others = Structure(below) if below is not None else UNTYPED
        return self._others

    @property
    def item(self) -> Structure:
        """Of a list's items."""
        if self._item is None:
            below = self.schema.items if self.schema is not None else None
            self._item = Structure(below) if below is not None else UNTYPED
        return self._item

    @property
    def standing(self) -> frozenset[str]:
        """Fields that the type in Go always has, empty or null: a struct in place, a list without
        ``omitempty``. Nobody brings them, so nobody owns more of them than what is in them."""
        if self._standing is None:
            name = self.schema.name if self.schema is not None else ""
            group, _, rest = (
                name.removeprefix("io.k8s.").removeprefix("apimachinery.pkg.apis.").partition(".")
            )
            self._standing = standing(f"{group}/{rest.replace('.', '/', 1) if group == 'api' else rest}")
        return self._standing


UNTYPED = Structure(None)
"""Of what no schema describes: mappings are merged field by field, lists are one value (the deduced type of
structured-merge-diff)."""


@cache
def structure_of(api_version: str, kind: str) -> Structure | None:
    """Of the objects of a built-in kind; None if there is no such kind."""
    schema = schema_of(api_version, kind)
    return None if schema is None else Structure(schema)
