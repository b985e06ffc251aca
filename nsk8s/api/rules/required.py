"""Kinds without rules of their own: what their schemas require must be there."""

from __future__ import annotations

from nsk8s.api import openapi
from nsk8s.api.findings import Findings, below
from nsk8s.api.openapi import Schema
from nsk8s.api.types import Obj

_ZERO = ("integer", "number", "boolean", "array")
"""Types whose absence is their zero, which is a value like any other."""


def required(obj: Obj, findings: Findings) -> None:
    """Texts and objects that a built-in kind must have, its metadata and status aside."""
    schema = openapi.schema_of(obj["apiVersion"], obj["kind"])
    if schema is None:
        return
    about = {key: value for key, value in obj.items() if key not in ("metadata", "status")}
    wanted = [key for key in schema.required if key not in ("metadata", "status")]
    _members(about, schema, wanted, "", findings)


def _members(value: Obj, schema: Schema, wanted: list[str], path: str, findings: Findings) -> None:
    prefix = f"{path}." if path else ""
    for key in wanted:
        field = schema.properties.get(key)
        if value.get(key) in (None, "") and (field is None or field.type not in _ZERO):
            findings.required(f"{prefix}{key}")
    for key, item in value.items():
        field = schema.properties.get(key) or schema.additional
        if field is not None and isinstance(item, dict | list):
            _value(item, field, f"{prefix}{key}" if key in schema.properties else below(path, key), findings)


def _value(value: object, schema: Schema, path: str, findings: Findings) -> None:
    if isinstance(value, dict):
        _members(value, schema, list(schema.required), path, findings)
    elif isinstance(value, list) and schema.items is not None:
        for i, item in enumerate(value):
            _value(item, schema.items, f"{path}[{i}]", findings)
