"""An OpenAPI v2 document as protobuf: message `openapi.v2.Document` of gnostic-models.

The field numbers are those of ``openapiv2/OpenAPIv2.proto``. Only what `nsk8s.apiserver.swagger` writes is
known here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import msgspec

from nsk8s.api.types import Obj

_SCHEMA = {
    "$ref": 1, "format": 2, "title": 3, "description": 4, "default": 5, "multipleOf": 6, "maximum": 7,
    "exclusiveMaximum": 8, "minimum": 9, "exclusiveMinimum": 10, "maxLength": 11, "minLength": 12,
    "pattern": 13, "maxItems": 14, "minItems": 15, "uniqueItems": 16, "maxProperties": 17,
    "minProperties": 18, "required": 19, "enum": 20, "additionalProperties": 21, "type": 22, "items": 23,
    "properties": 25, "example": 30,
}  # fmt: skip
_FREE = {"default", "enum", "example"}
"""Fields of Schema that hold any value."""
_DOUBLES = {"multipleOf", "maximum", "minimum"}
_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "patch": 8}
_EXTENSION = 31


def document(told: Obj) -> bytes:
    """The encoded document."""
    info = _text(1, told["info"]["title"]) + _text(2, told["info"]["version"])
    paths = b"".join(_named(2, path, _path(item)) for path, item in told["paths"].items())
    schemas = b"".join(_named(1, name, _schema(one)) for name, one in told["definitions"].items())
    return _text(1, told["swagger"]) + _message(2, info) + _message(8, paths) + _message(9, schemas)


def _path(item: Obj) -> bytes:
    found = b"".join(_message(_METHODS[key], _operation(one)) for key, one in item.items() if key in _METHODS)
    return found + b"".join(_message(9, _parameter(one)) for one in item.get("parameters", ()))


def _operation(told: Obj) -> bytes:
    answers = b"".join(
        _named(
            1,
            code,
            _message(1, _text(1, one["description"]) + _message(2, _message(1, _schema(one["schema"])))),
        )
        for code, one in told["responses"].items()
    )
    return b"".join(
        (
            b"".join(_text(1, tag) for tag in told.get("tags", ())),
            _text(5, told["operationId"]),
            b"".join(_text(6, media) for media in told.get("produces", ())),
            b"".join(_text(7, media) for media in told.get("consumes", ())),
            b"".join(_message(8, _parameter(one)) for one in told.get("parameters", ())),
            _message(9, answers),
            _extensions(13, told),
        )
    )


def _response(told: Obj) -> bytes:
    """A ResponseValue, with a SchemaItem in it."""
    return _message(1, _text(1, told["description"]) + _message(2, _message(1, _schema(told["schema"]))))


def _parameter(told: Obj) -> bytes:
    """A ParametersItem: one more message around each choice of several."""
    needed = told.get("required", False)
    if told["in"] == "body":
        body = (
            _text(2, told["name"])
            + _text(3, "body")
            + _flag(4, needed)
            + _message(5, _schema(told["schema"]))
        )
        return _message(1, _message(1, body))
    path = told["in"] == "path"
    plain = _flag(1, needed) + _text(2, told["in"]) + _text(4, told["name"])
    plain += _text(5 if path else 6, told["type"]) + _flag(19 if path else 20, told.get("uniqueItems", False))
    return _message(1, _message(2, _message(4 if path else 3, plain)))


def _schema(told: Obj) -> bytes:
    found = []
    for key, value in told.items():
        number = _SCHEMA.get(key)
        if number is None:
            continue
        match key:
            case "properties":
                named = b"".join(_named(1, name, _schema(one)) for name, one in value.items())
                found.append(_message(number, named))
            case "items":
                found.append(_message(number, _message(1, _schema(value))))
            case "additionalProperties" if isinstance(value, dict):
                found.append(_message(number, _message(1, _schema(value))))
            case "additionalProperties":
                found.append(_message(number, _varint(2 << 3) + _varint(int(value))))
            case "type":
                found.append(_message(number, _text(1, value)))
            case _ if key in _FREE:
                several: Iterable[Any] = value if key == "enum" else (value,)
                found += [_message(number, _any(one)) for one in several]
            case "required":
                found += [_text(number, one) for one in value]
            case _ if key in _DOUBLES:
                found.append(_varint(number << 3 | 1) + _double(value))
            case _ if isinstance(value, str):
                found.append(_text(number, value))
            case _:
                found.append(_varint(number << 3) + _varint(int(value)))
    return b"".join(found) + _extensions(_EXTENSION, told)


def _extensions(number: int, told: Obj) -> bytes:
    return b"".join(_named(number, key, _any(value)) for key, value in told.items() if key.startswith("x-"))


# --- protobuf ---------------------------------------------------------------------------------------


def _any(value: object) -> bytes:
    """gnostic's Any: YAML text."""
    return _text(2, msgspec.json.encode(value).decode() + "\n")


def _named(number: int, name: str, value: bytes) -> bytes:
    return _message(number, _text(1, name) + _message(2, value))


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode()) if text else b""


def _message(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def _flag(number: int, value: bool) -> bytes:
    return _varint(number << 3) + b"\x01" if value else b""


def _varint(number: int) -> bytes:
    if number < 0x80:
        return number.to_bytes()
    found = bytearray()
    number &= (1 << 64) - 1
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _double(value: float) -> bytes:
    return struct.pack("<d", value)
