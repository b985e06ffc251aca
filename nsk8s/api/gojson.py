"""How Go decodes JSON into typed fields: what fits, and its words for what does not.

There are two decoders: sigs.k8s.io/json for what clients send, and apimachinery's unstructured converter
(``runtime/converter.go``) for what a strategic merge patch has made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from nsk8s.api.openapi import QUANTITY, Schema

Path = tuple[Any, str | int, Schema | None] | None
"""The way to a value, innermost step first: (the way there, key or index, the struct whose field it is)."""

_RANGES = {"int32": 1 << 31, "int64": 1 << 63, "": 1 << 63}
_time = re.compile(r"\d{4}-\d\d-\d\dT\d?\d:\d\d:\d\d([.,]\d+)?(Z|[+-]\d\d:\d\d)").fullmatch
_quantity = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?").fullmatch
_quantity_shape = re.compile(r"([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)").fullmatch
_base64 = re.compile(
    r"[\r\n]*(?:(?:[A-Za-z0-9+/][\r\n]*){4})*(?:(?:[A-Za-z0-9+/][\r\n]*){2}(?:=[\r\n]*){2}|(?:[A-Za-z0-9+/][\r\n]*){3}=[\r\n]*)?"
).fullmatch
_quartets = re.compile(r"(?:[A-Za-z0-9+/]{4})*")
_LAYOUT = (("2006", r"\d{4}"), ("-", "-"), ("01", r"\d\d"), ("-", "-"), ("02", r"\d\d"), ("T", "T"),
           ("15", r"\d\d?"), (":", ":"), ("04", r"\d\d"), (":", ":"), ("05", r"\d\d([.,]\d+)?"),
           ("Z07:00", r"(Z|[+-]\d\d:\d\d)"))  # fmt: skip
"""RFC 3339 in Go's words, piece by piece."""


class Mismatch(Struct, frozen=True):
    """A value that its field cannot hold. `text` is what its own decoder says, if it has one."""

    value: object
    schema: Schema
    path: Path
    text: str = ""

    @property
    def decoding(self) -> str:
        """In the words of a JSON decoder (Go's UnmarshalTypeError)."""
        return self._decoding(self.path)

    def _decoding(self, path: Path) -> str:
        if self.text:
            return self.text
        keys: list[str] = []
        struct = ""
        while path is not None:
            path, key, owner = path
            if owner is not None and owner.name:
                keys.append(str(key))
                struct = struct or owner.name.rpartition(".")[2]
        what = _json_word(self.value, self.schema)
        into = f"struct field {struct}.{'.'.join(reversed(keys))}" if keys else "value"
        return f"json: cannot unmarshal {what} into Go {into} of type {_go(self.schema)}"

    @property
    def converting(self) -> str:
        """In the words of apimachinery's converter, which strategic merge patches go through."""
        if self.text:
            return f"error decoding from json: {self.text}" if self.schema.format == "byte" else self.text
        wanted = _go(self.schema)
        match self.schema.type:
            case "object":
                shape = "map" if self.schema.additional is not None else "struct"
                colon = ":" if shape == "struct" else ""
                return f"cannot restore {shape} from{colon} {_go_kind(self.value)}"
            case "array":
                return f"cannot restore slice from {_go_kind(self.value)}"
        if self.schema.type == "int-or-string" or self.schema.format == "date-time":
            return self._decoding(None)  # these decode themselves, and do not know where they are
        if self.schema.format == "byte":
            return f"cannot restore slice from {_go_kind(self.value)}"
        given = _go_kind(self.value)
        if (given, self.schema.type) in (("int64", "string"), ("float64", "integer")):
            return f"cannot convert {given} to {wanted}"
        kinds = {"string": "string", "boolean": "bool", "number": "float64"}
        return f"unrecognized type: {kinds.get(self.schema.type, wanted)}"


def unfit(value: Any, schema: Schema, kind: str) -> str | None:  # noqa: ANN401  # JSON
    """None for a value that fits; else what is wrong with it in its own decoder's words, or ""."""
    is_a = type(value)
    match kind:
        case "string":
            if is_a is not str:
                return ""
            if schema.format == "date-time":
                return None if _time(value) else _no_time(value, schema)
            return _no_base64(value) if schema.format == "byte" else None
        case "integer":
            limit = _RANGES[schema.format]
            return None if is_a is int and -limit <= value < limit else ""
        case "number":
            return None if is_a is int or is_a is float else ""
        case "boolean":
            return None if is_a is bool else ""
    if schema.name == QUANTITY:
        return _no_quantity(value)
    if is_a is int and -(1 << 31) <= value < 1 << 31:
        return None
    return None if is_a is str else ""


def _no_quantity(value: object) -> str | None:
    text = value.strip() if isinstance(value, str) else msgspec.json.encode(value).decode()
    if _quantity(text):
        return None
    if not _quantity_shape(text):
        return "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    return "unable to parse quantity's suffix"


def _no_base64(text: str) -> str | None:
    if _base64(text):
        return None
    good = len(text) - len(_quartets.sub("", text, count=1))
    bad = re.search(r"[^A-Za-z0-9+/]", text[good:])
    return f"illegal base64 data at input byte {good + (bad.start() if bad else 0)}"


def _no_time(text: str, schema: Schema) -> str:
    micro = ".000000" if schema.name.endswith("MicroTime") else ""
    about = f'parsing time {quoted(text)} as "2006-01-02T15:04:05{micro}Z07:00"'
    rest = text
    for element, pattern in _LAYOUT:
        piece = re.match(pattern, rest)
        if piece is None:
            return f'{about}: cannot parse {quoted(rest)} as "{element}"'
        rest = rest[piece.end() :]
    return f"parsing time {quoted(text)}: extra text: {quoted(rest)}"


def zero(schema: Schema) -> object:
    """What Go makes of a null that cannot be absent."""
    zeros: dict[str, object] = {"object": {}, "array": [], "string": "", "integer": 0, "number": 0,
                                "boolean": False, "int-or-string": 0}  # fmt: skip
    return zeros.get(schema.type)


def where(path: Path) -> str:
    """``spec.containers[0]``."""
    steps: list[str] = []
    while path is not None:
        path, key, _ = path
        steps.append(f"[{key}]" if isinstance(key, int) else f".{key}")
    return "".join(reversed(steps)).removeprefix(".")


# --- words ------------------------------------------------------------------------------------------


def _json_word(value: object, schema: Schema) -> str:
    """How Go's decoder calls a JSON value."""
    match value:
        case bool():
            return "bool"
        case int() | float():
            exact = schema.type in ("integer", "number") or schema.type == "int-or-string"
            return f"number {value}" if exact else "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def _go(schema: Schema) -> str:
    """How Go calls the type of a field."""
    if schema.go_type:
        return schema.go_type
    match schema.type:
        case "array":
            return "[]" + (_go(schema.items) if schema.items is not None else "interface {}")
        case "object" if schema.additional is not None:
            return f"map[string]{_go(schema.additional)}"
        case "object":
            return ".".join(schema.name.split(".")[-2:])
        case "string":
            return "[]uint8" if schema.format == "byte" else "string"
        case "integer":
            return schema.format or "int64"
        case "number":
            return "float64"
        case "boolean":
            return "bool"
        case "int-or-string":
            return "int32"
    return "interface {}"


def _go_kind(value: object) -> str:
    """How Go calls the type of a decoded JSON value."""
    kinds = {bool: "bool", int: "int64", float: "float64", str: "string", list: "slice"}
    return kinds.get(type(value), "map")


def quoted(text: str) -> str:
    """In double quotes, as Go's ``%q`` writes it."""
    return json.dumps(text, ensure_ascii=False)


def go_text(value: object) -> str:
    """A value as Go's ``%+v`` prints it: ``map[spec:map[replicas:3]]``."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case Mapping():
            return f"map[{' '.join(f'{key}:{go_text(below)}' for key, below in sorted(value.items()))}]"
        case list():
            return f"[{' '.join(map(go_text, value))}]"
    return str(value)
