"""Decoding what a client sent: fields that no schema knows, fields given twice, values of the wrong type.

Field validation (KEP-2885): ``Strict`` refuses unknown and repeated fields, ``Warn`` drops them and says so,
``Ignore`` drops them. A wrong type is always refused. The sentences are those of sigs.k8s.io/json, which are
Go's, and of apimachinery's unstructured converter for strategic merge patches.

Objects of built-in kinds are decoded as Go structs are: null is the same as absent. Custom resources are
free in their types here: `nsk8s.api.structural` judges them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct, field

from nsk8s.api.gojson import Mismatch, Path, go_text, quoted, unfit, where, zero
from nsk8s.api.openapi import Schema
from nsk8s.api.types import Obj
from nsk8s.errors import ApiError, Problem

MODES = ("Ignore", "Strict", "Warn")
"""Values of ``fieldValidation``; without one it is Warn."""
MOST = 100
"""How many unknown and repeated fields are told."""

_spaced = re.compile(rb'"[ \t\r\n]+:').search


class Decoded(Struct):
    """What is wrong with an object. `unknown` and `repeated` fields are told by `strict`, in the order of
    the text; `nulls` is whether there is a null where Go has an absent field."""

    strict: list[str] = field(default_factory=list)
    unknown: bool = False
    nulls: bool = False
    errors: list[Mismatch] = field(default_factory=list)

    def add(self, what: str, path: Path, key: str) -> None:
        """An unknown or repeated field."""
        about = where(path)
        said = f"{what} {quoted(f'{about}.{key}' if about else key)}"
        if len(self.strict) < MOST and said not in self.strict:
            self.strict.append(said)


def check(obj: Obj, schema: Schema, *, raw: bytes = b"") -> Decoded:
    """What is wrong with `obj`; `raw` is the JSON text that it was decoded from, which alone knows of
    repeated fields."""
    found = Decoded()
    value = _repeating(raw) if raw and _repeats(raw, obj) else obj
    typed = bool(schema.name)
    if value is not obj and not typed:
        _repetitions(value, None, found)
    before = len(found.strict)
    _object(value, schema, None, found, typed)
    if not typed:
        found.strict[before:] = sorted(found.strict[before:])
    return found


def decode(body: Obj, raw: bytes, schema: Schema, mode: str = "") -> tuple[Obj, list[str]]:
    """The object that a client means by `body`, and the warnings for it.

    `raw` is the body as it came, if that was JSON or YAML. Raises `ApiError` 400, and 422 for an unknown
    `mode`.
    """
    asked = _asked(mode)
    is_json = raw.lstrip()[:1] == b"{"
    found = check(body, schema, raw=raw if asked and is_json else b"")
    if found.errors:
        raise _unfit(body, schema, found.errors[0].decoding)
    repeated = read_yaml(raw)[1] if asked and raw and not is_json else []
    if mode == "Strict" and (found.strict or repeated):
        lines = ["yaml: unmarshal errors:\n  " + "\n  ".join(repeated)] if repeated else []
        raise _unfit(body, schema, _joined(lines + found.strict))
    if found.unknown or found.nulls:
        body = prune(body, schema)
    return body, repeated + found.strict if asked else []


def read_yaml(raw: bytes) -> tuple[object, list[str]]:
    """The value of a YAML text of one document, and which keys it has twice (the last one counts), in
    goyaml's words. Raises `ApiError` 400 for what is not YAML."""
    from nsk8s.api import yamltext  # loads a library that a control plane may never need

    problems: list[Problem] = []
    repeated: list[Problem] = []
    documents = list(yamltext.read(raw.decode(errors="replace"), "", problems, repeated))
    if problems:
        said = f"error converting YAML to JSON: yaml: line {problems[0].line}: {problems[0].what}"
        raise ApiError(400, "BadRequest", said)
    value = documents[0].value if documents else None
    return value, [f"line {problem.line}: {problem.what}" for problem in repeated]


def patched(
    obj: Obj, schema: Schema, mode: str, patch: object, kind: str, raw: bytes = b""
) -> tuple[Obj, list[str]]:
    """The object that a patch has made, and the warnings for it. `kind` is ``json``, ``merge`` or
    ``strategic``; `raw` is the patch as it came. Raises `ApiError` 422."""
    found = check(obj, schema)
    strict = found.strict
    if raw and _asked(mode) and _repeats(raw, patch):
        repeated = Decoded()
        _repetitions(_repeating(raw), None, repeated)
        strict = [f"json patch {text}" if kind == "json" else text for text in repeated.strict] + strict
    problem = ""
    if found.errors:
        problem = found.errors[0].converting if kind == "strategic" else found.errors[0].decoding
    elif strict and mode == "Strict":
        problem = _joined(strict)
    if problem:
        shown = go_text(patch) if kind == "strategic" else msgspec.json.encode(obj).decode()
        what = f"Invalid value: {quoted(shown)}: {problem}"
        raise ApiError(422, "Invalid", f' "" is invalid: patch: {what}', causes=[Problem("patch", what)])
    if found.unknown or found.nulls:
        obj = prune(obj, schema)
    return obj, strict if _asked(mode) else []


def prune(obj: Obj, schema: Schema) -> Obj:
    """`obj` without unknown fields, and for a built-in kind without nulls."""
    found = _pruned(obj, schema, bool(schema.name))
    assert isinstance(found, dict)
    return found


def _asked(mode: str) -> bool:
    """Whether a client wants to hear of unknown and repeated fields."""
    if mode and mode not in MODES:
        what = f'Unsupported value: {quoted(mode)}: supported values: "", "Ignore", "Strict", "Warn"'
        raise ApiError(422, "Invalid", f"fieldValidation: {what}", causes=[Problem("fieldValidation", what)])
    return mode != "Ignore"


def _unfit(body: Obj, schema: Schema, why: str) -> ApiError:
    kind = str(body.get("kind") or schema.name.rpartition(".")[2])
    version = str(body.get("apiVersion", "")).rpartition("/")[2]
    return ApiError(400, "BadRequest", f'{kind} in version "{version}" cannot be handled as a {kind}: {why}')


def _joined(texts: Sequence[str]) -> str:
    return "strict decoding error: " + ", ".join(texts)


# --- the walk ---------------------------------------------------------------------------------------


def _object(value: Any, schema: Schema, path: Path, found: Decoded, typed: bool) -> None:  # noqa: ANN401  # JSON
    """An object; the values that are most of any object are judged in place."""
    if not isinstance(value, dict):
        if typed:
            found.errors.append(Mismatch(value, schema, path))
        return
    repeated = value.repeated if typed and type(value) is _Repeating else ()
    properties, values = schema.properties, schema.additional
    if values is not None and not properties:
        plain = values.type == "string" and not values.format
        for key, below in value.items():
            if repeated and key in repeated:
                found.add("duplicate field", path, key)
            if below is None:
                found.nulls = found.nulls or typed
            elif not plain or type(below) is not str:
                _value(below, values, (path, key, None), found, typed)
        return
    for key, below in value.items():
        known = properties.get(key)
        if known is None:
            if not schema.preserve_unknown:
                found.unknown = True
                found.add("unknown field", path, key)
            continue
        if repeated and key in repeated:
            found.add("duplicate field", path, key)
        if below is None:
            found.nulls = found.nulls or typed
        elif type(below) is not str or known.type != "string" or known.format:
            _value(below, known, (path, key, schema), found, typed)


def _value(value: Any, schema: Schema, path: Path, found: Decoded, typed: bool) -> None:  # noqa: ANN401  # JSON
    """Any value but null."""
    kind = schema.type
    if kind == "object":
        _object(value, schema, path, found, typed or bool(schema.name))
    elif kind == "array":
        if type(value) is list:
            items = schema.items
            if items is not None:
                for i, below in enumerate(value):
                    if below is None:
                        found.nulls = found.nulls or typed
                    else:
                        _value(below, items, (path, i, None), found, typed)
        elif typed:
            found.errors.append(Mismatch(value, schema, path))
    elif typed and kind:
        text = unfit(value, schema, kind)
        if text is not None:
            found.errors.append(Mismatch(value, schema, path, text))


def _pruned(value: object, schema: Schema, typed: bool) -> object:
    typed = typed or bool(schema.name)
    if isinstance(value, dict) and schema.type == "object":
        properties, values = schema.properties, schema.additional
        made: dict[str, object] = {}
        for key, below in value.items():
            known = properties.get(key)
            if known is not None:
                if below is not None or not typed:
                    made[key] = _pruned(below, known, typed)
            elif values is not None:
                made[key] = zero(values) if below is None and typed else _pruned(below, values, typed)
            elif schema.preserve_unknown:
                made[key] = below
        return made
    if isinstance(value, list) and schema.items is not None:
        items = schema.items
        return [zero(items) if one is None and typed else _pruned(one, items, typed) for one in value]
    return value


# --- repeated fields --------------------------------------------------------------------------------


class _Repeating(dict[str, Any]):
    """An object that knows which of its keys came more than once."""

    __slots__ = ("repeated",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated: set[str] = set()
        if len(self) < len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                (self.repeated if key in seen else seen).add(key)


def _repeating(raw: bytes) -> Any:  # noqa: ANN401  # JSON
    """A JSON text whose objects know their repeated keys."""
    return json.loads(raw, object_pairs_hook=_Repeating, parse_int=_integer)


def _integer(digits: str) -> int | float:
    """A number; Python refuses integers of thousands of digits."""
    return int(digits) if len(digits) < 400 else float(digits)


def _repeats(raw: bytes, body: object) -> bool:
    """Whether a JSON text may have an object with a key more than once: whether it has more keys than what
    was decoded of it. Keys are counted by what ends them, a quote and a colon: never in a string, where
    quotes are escaped. A doubtful text is taken for one that has."""
    if b'\\\\"' in raw or b"\\u003" in raw or _spaced(raw):
        return True
    text = msgspec.json.encode(body)
    return raw.count(b'":') - raw.count(b'\\":') != text.count(b'":') - text.count(b'\\":')


def _repetitions(value: object, path: Path, found: Decoded) -> None:
    """All repeated keys, whatever they mean."""
    if isinstance(value, _Repeating):
        for key, below in value.items():
            if key in value.repeated:
                found.add("duplicate field", path, key)
            _repetitions(below, (path, key, None), found)
    elif isinstance(value, list):
        for i, below in enumerate(value):
            _repetitions(below, (path, i, None), found)
