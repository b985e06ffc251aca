"""What a client with typed models demands of every object: the fields that the schema requires, of its types,
and no others. A real API server cannot get this wrong, for its objects are Go structs."""

from __future__ import annotations

from collections.abc import Iterator

from nsk8s.api.openapi import Schema, schema_of
from nsk8s.api.types import Obj

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "int-or-string": (int, str),
}


def faults(obj: Obj) -> list[str]:
    """What is wrong with an object of a built-in kind, by field path."""
    schema = schema_of(obj["apiVersion"], obj["kind"])
    if schema is None:
        return [f"no schema of {obj['apiVersion']} {obj['kind']}"]
    return list(_faults(obj, schema, obj["kind"]))


def _faults(value: object, schema: Schema, path: str) -> Iterator[str]:
    if not schema.type:
        return
    if not isinstance(value, TYPES[schema.type]) or (isinstance(value, bool) and schema.type != "boolean"):
        yield f"{path}: {schema.type}, not {value!r}"
    elif isinstance(value, dict):
        yield from (f"{path}.{name} is missing" for name in schema.required if name not in value)
        for name, below in value.items():
            known = schema.properties.get(name) or schema.additional
            if below is None and (name not in schema.required or (known and known.format == "date-time")):
                continue  # a pointer without omitempty, a time that is none
            if known is not None:
                yield from _faults(below, known, f"{path}.{name}")
            elif not schema.preserve_unknown and schema.properties:
                yield f"{path}.{name} is unknown"
    elif isinstance(value, list) and schema.items is not None:
        for position, item in enumerate(value):
            yield from _faults(item, schema.items, f"{path}[{position}]")
    elif schema.enum and value not in schema.enum:
        yield f"{path}: {value!r} is none of {schema.enum}"
