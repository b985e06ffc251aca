r"""Bodies in Kubernetes' protobuf encoding, as the objects that the same client would have sent as JSON.

Typed Go clients (client-go, and kubectl's own typed commands) send ``application/vnd.kubernetes.protobuf``:
four bytes ``k8s\0``, then a `runtime.Unknown` with the kind and the encoded object (apimachinery,
`pkg/runtime/serializer/protobuf`). What a field is called in JSON, and whether its zero value is left out,
is not on the wire: it stands in ``data/protobuf-1.33.json.xz``, which is read when the first such body comes.

That file has ``kinds`` (apiVersion -> kind -> message) and ``messages`` (name -> field number -> [JSON name,
type, flags]). A type is a scalar's, a message's, or one of the types with a JSON form of their own
(`_SPECIAL`). Flags: ``p`` pointer, ``o`` omitempty, ``r`` repeated, ``m`` map with string keys, ``w`` a list
wrapped in a message, ``u`` a message of which JSON has only the last field that is there. The JSON name is
empty for a struct that is inlined.
"""

from __future__ import annotations

import base64
import json
import lzma
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from math import isfinite
from typing import Any, NamedTuple

import msgspec

from nsk8s.api.types import Obj
from nsk8s.errors import ApiError

MAGIC = b"k8s\0"
DEPTH_LIMIT = 100
"""Deepest nesting of messages: real objects have 20."""

_VARINT, _FIXED64, _BYTES, _GROUP, _GROUP_END, _FIXED32 = range(6)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Malformed(Exception):
    """The bytes are not what they should be."""


class _Field(NamedTuple):
    """A field as the table has it; `fields` are those of its message, if it is one."""

    name: str
    type: str
    flags: str


def decode(body: bytes) -> Obj:
    """The object in `body`, with apiVersion and kind, without nulls. Fields that are not in the table are
    skipped. Raises `ApiError` 400 BadRequest for bytes that are no such object, or of an unknown kind."""
    return _object(body, DEPTH_LIMIT)


def _object(body: bytes, depth: int) -> Obj:
    api_version = kind = ""
    try:
        api_version, kind, raw = _envelope(body)
        return {"kind": kind, "apiVersion": api_version, **_message(_kind(api_version, kind), raw, depth)}
    except _Malformed as error:
        what = f'{kind} in version "{api_version}" cannot be handled as a {kind}' if kind else "invalid body"
        raise _bad(f"{what}: {error}") from error


def _envelope(body: bytes) -> tuple[str, str, bytes]:
    """apiVersion, kind, and the encoded object."""
    if not body.startswith(MAGIC):
        found = " ".join(str(byte) for byte in MAGIC)
        raise _Malformed(f"provided data does not appear to be a protobuf message, expected prefix [{found}]")
    outer = _parts(body[len(MAGIC) :])
    inner = _parts(_of(_BYTES, outer.get(1, b"")))
    return _text(inner.get(1, b"")), _text(inner.get(2, b"")), _of(_BYTES, outer.get(2, b""))


def _bad(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


# --- the table --------------------------------------------------------------------------------------


@cache
def _table() -> dict[str, dict[str, Any]]:
    packed = resources.files("nsk8s.api").joinpath("data/protobuf-1.33.json.xz").read_bytes()
    found: dict[str, dict[str, Any]] = json.loads(lzma.decompress(packed))
    return found


@cache
def _layout(message: str) -> dict[int, _Field]:
    """The fields of a message by number."""
    return {int(number): _Field(*row) for number, row in _table()["messages"][message].items()}


@cache
def standing(message: str) -> frozenset[str]:
    """JSON names of the fields that are there in every value of the Go struct, empty or null: structs in
    place, and what is not ``omitempty``. None for a message that the table does not have."""
    found: set[str] = set()
    if message in _table()["messages"]:
        for field in _layout(message).values():
            struct_in_place = "/" in field.type and not set(field.flags) & set("pmr")
            if not field.name:
                found |= standing(field.type)
            elif struct_in_place or "o" not in field.flags:
                found.add(field.name)
    return frozenset(found)


def _kind(api_version: str, kind: str) -> str:
    """The message of a kind. `meta/v1`'s own (DeleteOptions) belong to every group and version."""
    kinds = _table()["kinds"]
    found = kinds.get(api_version, {}).get(kind) or kinds["meta.k8s.io/v1"].get(kind)
    if found is None:
        raise _bad(f'no kind "{kind}" is registered for version "{api_version}" in scheme')
    return str(found)


# --- the wire ---------------------------------------------------------------------------------------


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """(number, wire type, value) of each field: an int for numbers, bytes for everything else. Groups,
    which nobody has used since protobuf 2, are passed over."""
    at, end, group = 0, len(data), 0
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise _Malformed(f"proto: illegal tag {number} (wire type {wire})")
        value: int | bytes = 0
        if wire == _VARINT:
            value, at = _varint(data, at)
        elif wire == _BYTES:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
            value, at = data[at : at + length], at + length
        elif wire == _GROUP:
            group += 1
        elif wire == _GROUP_END and group:
            group -= 1
            continue
        else:
            raise _Malformed(f"proto: illegal wireType {wire}")
        if at > end:
            break
        if not group:
            yield number, wire, value
    if at > end or group:
        raise _Malformed("unexpected EOF")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of up to 64 bits, and where the next byte is."""
    value = shift = 0
    while shift < 70:
        if at >= len(data):
            raise _Malformed("unexpected EOF")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise _Malformed("proto: integer overflow")


def _signed(value: int, bits: int) -> int:
    """A number as Go keeps it: cut to its size, in two's complement."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _text(value: Any) -> str:  # noqa: ANN401  # whatever was on the wire
    return str(_of(_BYTES, value), "utf-8", "replace")


def _of(wire: int, value: Any) -> Any:  # noqa: ANN401  # the same, checked
    """`value`, if it came as `wire`."""
    if isinstance(value, int) is not (wire == _VARINT):
        raise _Malformed(f"proto: wrong wireType, not {wire}")
    return value


# --- messages ---------------------------------------------------------------------------------------


def _message(name: str, data: bytes, depth: int) -> Obj:
    """A message as a JSON object, by Go's rules: what is a pointer is there if it was sent, what is not and
    says omitempty is there if it is not zero. A struct is never empty enough to be left out."""
    if depth == 0:
        raise _Malformed(f"nested deeper than {DEPTH_LIMIT} levels")
    fields = _layout(name)
    found: Obj = {}
    for number, wire, value in _fields(data):
        field = fields.get(number)
        if field is None:
            continue
        if "m" in field.flags:
            key, item = _entry(field, value, depth)
            if item is not None:
                found.setdefault(field.name, {})[key] = item
            continue
        if "r" in field.flags:
            kept = found.setdefault(field.name, [])
            if wire == _BYTES and field.type in ("int32", "int64"):
                kept += _packed(field, value)
            else:
                kept.append(_value(field, value, depth))
            continue
        item = _value(field, value, depth)
        if not field.name:
            found |= item
        elif item is not None and (
            item or "p" in field.flags or "o" not in field.flags or type(item) is dict
        ):
            found[field.name] = item
    return found


def _entry(field: _Field, value: Any, depth: int) -> tuple[str, Any]:  # noqa: ANN401  # JSON
    """One entry of a map: its key is field 1, its value field 2, and both may be left out when zero."""
    key, item = "", b""
    for number, _, part in _fields(_of(_BYTES, value)):
        if number == 1:
            key = _text(part)
        elif number == 2:
            item = part
    return key, _value(field, item, depth)


def _packed(field: _Field, data: bytes) -> Iterator[int]:
    """Numbers that stand one behind the other."""
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield _SCALAR[field.type](value)


def _value(field: _Field, value: Any, depth: int) -> Any:  # noqa: ANN401  # JSON
    """What one value is in JSON."""
    if "w" in field.flags:
        return [_text(item) for number, _, item in _fields(_of(_BYTES, value)) if number == 1]
    if (scalar := _SCALAR.get(field.type)) is not None:
        return scalar(value)
    data = _of(_BYTES, value)
    if (special := _SPECIAL.get(field.type)) is not None:
        return special(data, depth - 1)
    found = _message(field.type, data, depth - 1)
    return list(found.values())[-1] if found and "u" in field.flags else found


_SCALAR: dict[str, Callable[[Any], Any]] = {
    "string": _text,
    "bytes": lambda value: base64.b64encode(_of(_BYTES, value)).decode(),
    "bool": lambda value: _of(_VARINT, value) != 0,
    "int32": lambda value: _signed(_of(_VARINT, value), 32),
    "int64": lambda value: _signed(_of(_VARINT, value), 64),
    "double": lambda value: _double(_of(_FIXED64, value)),
}


def _double(value: bytes) -> float:
    if len(value) != 8:
        raise _Malformed("proto: wrong wireType for a double")
    number: float = struct.unpack("<d", value)[0]
    if not isfinite(number):
        raise _Malformed(f"json: unsupported value: {number}")
    return int(number) if number.is_integer() else number


# --- types with a JSON form of their own ------------------------------------------------------------


def _parts(data: bytes) -> dict[int, Any]:
    """The fields of a small message; the last of each counts."""
    return {number: value for number, _, value in _fields(data)}


def _quantity(data: bytes, _: int) -> str:
    return _text(_parts(data).get(1, b"")) or "0"


def _int_or_string(data: bytes, _: int) -> int | str:
    parts = _parts(data)
    if _of(_VARINT, parts.get(1, 0)):
        return _text(parts.get(3, b""))
    return _signed(_of(_VARINT, parts.get(2, 0)), 32)


def _raw(data: bytes, depth: int) -> Any:  # noqa: ANN401  # any JSON
    """JSON, or another object in protobuf, as bytes in field 1 (RawExtension, FieldsV1)."""
    raw = _of(_BYTES, _parts(data).get(1, b""))
    if not raw:
        return None
    if raw.startswith(MAGIC):
        return _object(raw, depth)
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Malformed(f"not JSON: {error}") from error
    except RecursionError as error:
        raise _Malformed("nested too deep") from error


def _moment(data: bytes) -> datetime | None:
    """Seconds and nanoseconds since 1970; None for Go's zero time, which is an empty message."""
    parts = _parts(data)
    seconds, nanos = (_of(_VARINT, parts.get(number, 0)) for number in (1, 2))
    if not seconds and not nanos:
        return None
    try:
        return _EPOCH + timedelta(seconds=_signed(seconds, 64), microseconds=_signed(nanos, 32) // 1000)
    except OverflowError as error:
        raise _Malformed("year outside of range [0,9999]") from error


def _time(data: bytes, _: int) -> str | None:
    moment = _moment(data)
    return (
        None if moment is None else f"{moment:%Y-%m-%dT%H:%M:%SZ}".zfill(20)
    )  # Linux writes the year 1 as "1"


def _micro_time(data: bytes, _: int) -> str | None:
    moment = _moment(data)
    return None if moment is None else f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}".zfill(27)


_SPECIAL: dict[str, Callable[[bytes, int], Any]] = {
    "Time": _time,
    "MicroTime": _micro_time,
    "Quantity": _quantity,
    "IntOrString": _int_or_string,
    "Raw": _raw,
}
