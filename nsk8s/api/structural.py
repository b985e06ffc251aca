"""Custom resources against the schema of their CustomResourceDefinition: defaults and validation.

`schema` is always what `nsk8s.api.openapi.structural` made of an ``openAPIV3Schema``; unknown fields are
dropped by `nsk8s.api.strict`. Defaults are those of apiextensions-apiserver's ``schema/defaulting``, and the
sentences are those of kube-openapi's validators. Of rules in CEL (``x-kubernetes-validations``) those in
`_RULES` are known; others are not evaluated. Patterns are Python's, which know what Go's know but for POSIX
classes; one that Python cannot read matches everything.
"""

from __future__ import annotations

import binascii
import datetime
import ipaddress
import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import msgspec

from nsk8s.api.openapi import Schema
from nsk8s.api.types import Obj
from nsk8s.errors import Problem

NOWHERE = "<nil>"
"""The path of what is wrong with alternatives, as the API server writes it."""


def defaulted(obj: Obj, schema: Schema) -> Obj:
    """`obj` with the schema's defaults; a null that a field cannot have is its default, or gone."""
    found = _defaulted(obj, schema.raw)
    assert isinstance(found, dict)
    return found


def validate(obj: Obj, schema: Schema) -> list[Problem]:
    """What is wrong with `obj`."""
    found: list[Problem] = []
    _check(obj, schema.raw, "", found)
    if not found:
        _unique(obj, schema.raw, "", found)
    return found


# --- defaults ---------------------------------------------------------------------------------------


def _defaulted(value: object, raw: Obj) -> object:
    if isinstance(value, dict):
        properties = raw.get("properties") or {}
        made: dict[str, object] = {}
        for key, below in value.items():
            known = _field(raw, properties, key)
            if known is None:
                made[key] = below
            elif below is not None or known.get("nullable"):
                made[key] = _defaulted(below, known)
            elif known.get("default") is not None:
                made[key] = _copied(known["default"], known)
        for key, known in properties.items():
            if key not in made and known.get("default") is not None:
                made[key] = _copied(known["default"], known)
        return made
    if isinstance(value, list) and isinstance(raw.get("items"), dict):
        items = raw["items"]
        default = None if items.get("nullable") else items.get("default")
        return [
            _copied(default, items) if one is None and default is not None else _defaulted(one, items)
            for one in value
        ]
    return value


def _copied(default: object, raw: Obj) -> object:
    return _defaulted(msgspec.json.decode(msgspec.json.encode(default)), raw)


def _field(raw: Obj, properties: Obj, key: str) -> Obj | None:
    """The schema of a field, or of a map's value."""
    known = properties.get(key)
    if known is None:
        known = raw.get("additionalProperties")
    return known if isinstance(known, dict) else None


# --- validation -------------------------------------------------------------------------------------

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "integer": (int,),
    "number": (int, float),
}  # fmt: skip


def _check(value: Any, raw: Obj, path: str, found: list[Problem]) -> None:  # noqa: ANN401  # JSON
    """A value and all below it."""
    if "$ref" in raw:
        return  # metadata, which is decoded and validated as everybody's is
    wanted = str(raw.get("type") or "")
    if raw.get("x-kubernetes-int-or-string") and not wanted:
        wanted = "integer,string"
    if value is None:
        if wanted and not raw.get("nullable"):
            _mistyped(path, wanted, "null", found)
        return
    kind = _kind(value)
    if wanted and kind not in wanted.split(",") and not _is_also(value, wanted):
        form = raw.get("format")
        if not form or (kind in ("string", "array") and wanted in ("integer", "number")):
            _mistyped(path, wanted, kind, found)
        elif kind not in ("string", "array"):
            _mistyped(path, form, {"integer": "int64", "number": "float64"}.get(kind, ""), found)
    _alternatives(value, raw, path, found)
    if kind == "string":
        _string(value, raw, path, found)
    elif kind in ("integer", "number"):
        _number(value, raw, path, found)
    elif kind == "array":
        _array(value, raw, path, found)
    enum = raw.get("enum")
    if enum and value not in enum:
        words = ", ".join(json.dumps(one if isinstance(one, str) else json.dumps(one)) for one in enum)
        found.append(Problem(_name(path), f"Unsupported value: {shown(value)}: supported values: {words}"))
    if kind == "object":
        _object(value, raw, path, found)
    for rule in raw.get("x-kubernetes-validations") or ():
        known = _RULES.get(rule["rule"])
        if known is not None and kind == wanted and not _fits(known, value):
            found.append(Problem(_name(path), f"Invalid value: {shown(kind)}: {rule.get('message', '')}"))


def _is_also(value: object, wanted: str) -> bool:
    """Whether a number is of the other numeric type as well."""
    if type(value) is float and wanted == "integer":
        return value.is_integer()
    return type(value) is int and wanted == "number"


def _object(value: Obj, raw: Obj, path: str, found: list[Problem]) -> None:
    least, most = raw.get("minProperties"), raw.get("maxProperties")
    if least is not None and len(value) < least:
        _invalid(path, len(value), f"should have at least {least} properties", found)
    if most is not None and len(value) > most:
        _invalid(path, len(value), f"should have at most {most} properties", found)
    properties = raw.get("properties") or {}
    for key, below in value.items():
        known = _field(raw, properties, key)
        if known is not None:
            _check(below, known, f"{path}.{key}", found)
        elif key not in properties and raw.get("additionalProperties") is False:
            said = f"{path}.{key} in body is a forbidden property"
            found.append(Problem(_name(path), f"Invalid value: {shown(key)}: {said}"))
    missing = [key for key in raw.get("required") or () if key not in value]
    found += [Problem(_name(f"{path}.{key}"), "Required value") for key in missing]


def _array(value: Sequence[object], raw: Obj, path: str, found: list[Problem]) -> None:
    items = raw.get("items")
    if isinstance(items, dict):
        for i, one in enumerate(value):
            _check(one, items, f"{path}[{i}]", found)
    least, most = raw.get("minItems"), raw.get("maxItems")
    if least is not None and len(value) < least:
        _invalid(path, len(value), f"should have at least {least} items", found)
    if most is not None and len(value) > most:
        found.append(Problem(_name(path), f"Too many: {len(value)}: must have at most {most} items"))
    if raw.get("uniqueItems") and len({msgspec.json.encode(one, order="sorted") for one in value}) < len(
        value
    ):
        _invalid(path, "", "shouldn't contain duplicates", found)


def _string(value: str, raw: Obj, path: str, found: list[Problem]) -> None:
    least, most, pattern = raw.get("minLength"), raw.get("maxLength"), raw.get("pattern")
    if most is not None and len(value) > most:
        found.append(Problem(_name(path), f"Too long: may not be more than {most} bytes"))
    elif least is not None and len(value) < least:
        _invalid(path, value, f"should be at least {least} chars long", found)
    elif pattern and not _matches(pattern, value):
        _invalid(path, value, f"should match '{pattern}'", found)
    form = raw.get("format")
    if form in _FORMATS and not _fits(_FORMATS[form], value):
        said = f"{_name(path)} in body must be of type {form}: {shown(value)}"
        found.append(Problem(_name(path), f"Invalid value: {shown(value)}: {said}"))


def _number(value: float, raw: Obj, path: str, found: list[Problem]) -> None:
    step = raw.get("multipleOf")
    if step and value % step != 0:
        _invalid(path, value, f"should be a multiple of {_digits(step)}", found)
    most, least = raw.get("maximum"), raw.get("minimum")
    if most is not None and (value >= most if raw.get("exclusiveMaximum") else value > most):
        equal = "" if raw.get("exclusiveMaximum") else "or equal to "
        _invalid(path, value, f"should be less than {equal}{_digits(most)}", found)
    if least is not None and (value <= least if raw.get("exclusiveMinimum") else value < least):
        equal = "" if raw.get("exclusiveMinimum") else "or equal to "
        _invalid(path, value, f"should be greater than {equal}{_digits(least)}", found)


def _alternatives(value: object, raw: Obj, path: str, found: list[Problem]) -> None:
    """allOf, anyOf, oneOf and not."""
    about = json.dumps(_name(path))
    any_of = list(_tried(value, raw.get("anyOf"), path))
    if any_of and all(any_of):
        _nowhere(f"{about} must validate at least one schema (anyOf)", found)
        found += any_of[0]
    one_of = list(_tried(value, raw.get("oneOf"), path))
    good = one_of.count([])
    if one_of and good != 1:
        counted = f"Found {good} valid alternatives" if good else "Found none valid"
        _nowhere(f"{about} must validate one and only one schema (oneOf). {counted}", found)
        if not good:
            found += one_of[0]
    all_of = list(_tried(value, raw.get("allOf"), path))
    if any(all_of):
        found += [problem for wrong in all_of for problem in wrong]
        none = ". None validated" if all(all_of) else ""
        _nowhere(f"{about} must validate all the schemas (allOf){none}", found)
    if isinstance(raw.get("not"), dict) and not next(iter(_tried(value, [raw["not"]], path))):
        _nowhere(f"{about} must not validate the schema (not)", found)


def _tried(value: object, schemas: Sequence[Obj] | None, path: str) -> Iterator[list[Problem]]:
    """What each of some schemas has to say of a value."""
    for raw in schemas or ():
        wrong: list[Problem] = []
        _check(value, raw, path, wrong)
        yield wrong


def _unique(value: object, raw: Obj, path: str, found: list[Problem]) -> None:
    """Lists that are sets or maps (apiextensions-apiserver's ``schema/listtype``)."""
    if isinstance(value, dict):
        properties = raw.get("properties") or {}
        for key, below in value.items():
            known = _field(raw, properties, key)
            if known is not None:
                inside = f".{key}" if key in properties else f"[{key}]"
                _unique(below, known, path + inside, found)
    elif isinstance(value, list):
        items = raw.get("items")
        keys = tuple(raw.get("x-kubernetes-list-map-keys") or ())
        form = raw.get("x-kubernetes-list-type")
        times: dict[bytes, int] = {}
        for i, one in enumerate(value):
            same: object = one
            if form == "map":
                same = {name: one[name] for name in keys if name in one} if isinstance(one, dict) else {}
            if form in ("map", "set"):
                text = msgspec.json.encode(same, order="sorted")
                times[text] = times.get(text, 0) + 1
                if times[text] == 2:  # a third is no news
                    found.append(Problem(_name(f"{path}[{i}]"), f"Duplicate value: {shown(same)}"))
            if isinstance(items, dict):
                _unique(one, items, f"{path}[{i}]", found)


# --- formats ----------------------------------------------------------------------------------------


def _fits(check: Callable[[Any], object], value: object) -> bool:
    try:
        return bool(check(value))
    except ValueError:
        return False


def _base64(text: str) -> bool:
    try:
        b64decode(text, validate=True)
    except binascii.Error:
        return False
    return bool(text)


_FORMATS: dict[str, Callable[[str], object]] = {
    "byte": _base64,
    "cidr": lambda text: "/" in text and ipaddress.ip_network(text, strict=False),
    "date": lambda text: len(text) == 10 and datetime.date.fromisoformat(text),
    "date-time": re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d([.,]\d+)?([Zz]|[+-]\d\d:?\d\d)").fullmatch,
    "duration": re.compile(r"[+-]?(0|((\d+\.?\d*|\.\d+)\s*(ns|us|µs|ms|s|m|h|d|w)\s*)+)").fullmatch,
    "email": re.compile(r"[^@\s]+@[^@\s]+").fullmatch,
    "hostname": re.compile(
        r"(?=.{1,255}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\.?"
    ).fullmatch,
    "ipv4": lambda text: ipaddress.IPv4Address(text),
    "ipv6": lambda text: ipaddress.IPv6Address(text),
    "mac": re.compile(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}").fullmatch,
    "uri": re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S*|/\S*").fullmatch,
    "uuid": re.compile(r"[0-9A-Fa-f]{8}-?([0-9A-Fa-f]{4}-?){3}[0-9A-Fa-f]{12}").fullmatch,
}
"""The formats of strfmt that apiextensions-apiserver supports and CRDs use; others are not checked."""


def _is_range(value: Obj) -> bool:
    start, end = value.get("start"), value.get("end")
    return type(start) is not int or type(end) is not int or start < end


_RULES: dict[str, Callable[[Any], object]] = {
    "isCIDR(self)": lambda text: "/" in text and ipaddress.ip_network(text, strict=False),
    "self.start < self.end": _is_range,
}
"""CEL as far as the definitions of our own need it; what it takes for granted has been checked by then."""


@cache
def _pattern(text: str) -> re.Pattern[str] | None:
    try:
        return re.compile(text)
    except re.error:
        return None


def _matches(pattern: str, value: str) -> bool:
    known = _pattern(pattern)
    return known is None or known.search(value) is not None


# --- words ------------------------------------------------------------------------------------------


def _mistyped(path: str, wanted: str, kind: str, found: list[Problem]) -> None:
    _invalid(path, kind, f"must be of type {wanted}: {shown(kind)}", found)


def _invalid(path: str, value: object, why: str, found: list[Problem]) -> None:
    found.append(Problem(_name(path), f"Invalid value: {shown(value)}: {_name(path)} in body {why}"))


def _nowhere(why: str, found: list[Problem]) -> None:
    found.append(Problem(NOWHERE, f'Invalid value: "": {why}'))


def _name(path: str) -> str:
    return path.removeprefix(".")


def _kind(value: object) -> str:
    """The JSON type of a value."""
    return next((name for name, types in _TYPES.items() if type(value) in types), "null")


def _digits(number: float) -> str:
    """A number as Go prints a float64 (``%v``)."""
    return str(int(number)) if number == int(number) and abs(number) < 1e21 else f"{number:g}"


def shown(value: object) -> str:
    """A value as a field error repeats it: quoted, or in Go's syntax (``%#v``)."""
    match value:
        case None:
            return '"null"'
        case bool():
            return "true" if value else "false"
        case int() | float():
            return _digits(value)
        case dict():
            inside = ", ".join(f"{json.dumps(key)}:{shown(one)}" for key, one in sorted(value.items()))
            return "map[string]interface {}{" + inside + "}"
        case list():
            return "[]interface {}{" + ", ".join(map(shown, value)) + "}"
    return json.dumps(value, ensure_ascii=False)
