"""Field validation of one request (KEP-2885): what its objects are decoded by, and what is told of them.

What a client sends whole goes through `given`, what a patch has made of an object through `made`; both
before anything is stored. Kinds without a schema (old versions of groups) are taken as they come.
"""

from __future__ import annotations

from collections.abc import Mapping

from nsk8s.api import protobuf, strict
from nsk8s.api.openapi import Schema, schema_of
from nsk8s.api.types import Obj
from nsk8s.apiserver.addressing import Address
from nsk8s.cluster.registry import Registry


class Fields:
    """The fields that a request's objects may have. `warnings` gets what is dropped. `raw` is the body as
    it came, if it was text: it alone knows of fields given twice."""

    def __init__(self, schema: Schema | None, mode: str, raw: bytes, warnings: list[str]) -> None:
        self._schema = schema
        self._mode = mode
        self._raw = raw
        self._warnings = warnings

    @classmethod
    def of(
        cls, registry: Registry, where: Address, query: Mapping[str, str], raw: bytes, warnings: list[str]
    ) -> Fields:
        """Those of the objects at `where`, judged as ``fieldValidation`` says."""
        text = b"" if raw.startswith(protobuf.MAGIC) else raw
        return cls(_schema(registry, where), query.get("fieldValidation", ""), text, warnings)

    def given(self, body: Obj) -> Obj:
        """An object that a client sent. Raises `ApiError` 400, and 422 for an unknown mode."""
        if self._schema is None:
            return body
        obj, warnings = strict.decode(body, self._raw, self._schema, self._mode)
        self._warnings += warnings
        return obj

    def made(self, obj: Obj, patch: object, kind: str) -> Obj:
        """An object that a patch has made; `kind` is ``json``, ``merge`` or ``strategic``. Raises
        `ApiError` 422."""
        if self._schema is None:
            return obj
        found, warnings = strict.patched(obj, self._schema, self._mode, patch, kind, self._raw)
        self._warnings += warnings
        return found


def _schema(registry: Registry, where: Address) -> Schema | None:
    resource = where.resource
    part = resource.subresource(where.subresource)
    if part is not None and (part.group or part.kind != resource.kind):
        version = part.version or resource.version
        return schema_of(f"{part.group}/{version}" if part.group else resource.api_version, part.kind)
    if resource.custom:
        return registry.definitions.schema(resource)
    return schema_of(resource.api_version, resource.kind)
