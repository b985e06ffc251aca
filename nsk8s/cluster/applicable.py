"""Whether an object can be applied: what structured-merge-diff says of one that is not as its schema.

Server-side apply judges an object by itself, in words of its own: not as a request's body (`strict`), and not
as an object that is stored (`validation`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from nsk8s.api.gojson import go_text
from nsk8s.api.types import Obj
from nsk8s.cluster import fieldset
from nsk8s.cluster.structure import Structure
from nsk8s.errors import ApiError

Json = Any
"""Any JSON value."""

_GO = {bool: "bool", int: "int64", float: "float64", str: "string"}
"""JSON values' types in Go."""


def check(config: Obj, structure: Structure) -> None:
    """Raises `ApiError` (500 without a reason, as upstream): for values of a wrong type, undeclared fields,
    and lists whose items have no identity or share one."""
    errors = _wrong(config, structure, "")
    if errors:
        meta = config.get("metadata")
        meta = meta if isinstance(meta, dict) else {}
        who = f"{meta.get('namespace', '')}/{meta.get('name', '')}"
        version = str(config.get("apiVersion"))
        kind = f"{version if '/' in version else '/' + version}, Kind={config.get('kind')}"
        what = errors[0] if len(errors) == 1 else "errors:\n  " + "\n  ".join(errors)
        raise ApiError(500, "", f"failed to create typed patch object ({who}; {kind}): {what}")


def _wrong(value: Json, structure: Structure, path: str) -> list[str]:
    said = _unfit(value, structure.type)
    if said:
        return [f"{path}: {said}"]
    found: list[str] = []
    if type(value) is dict:
        for name, item in value.items():
            if structure.closed and not structure.declares(name):
                return [*found, f"{path}.{name}: field not declared in schema"]
            if item is not None:
                found += _wrong(item, structure[name], f"{path}.{name}")
    elif type(value) is list:
        seen = set()
        for at, item in enumerate(value):
            one = f"[{at}]"
            if structure.kind != "atomic":
                if said := _unlisted(item, structure):
                    return [*found, f"{path}: element {at}: {said}"]
                element = fieldset.element(item, structure)
                one = fieldset.shown((element,))
                if element in seen:
                    found.append(f"{path}: duplicate entries for key {one}")
                seen.add(element)
            if item is not None:
                found += _wrong(item, structure.item, path + one)
    return found


def _unfit(value: Json, type_: str) -> str:
    """Why a value is not of its type."""
    match type_:
        case "numeric" if type(value) not in (int, float):
            return f"expected numeric (int or float), got {_type(value)}"
        case "string" if type(value) is not str:
            return f"expected string, got &value.valueUnstructured{{Value:{_literal(value)}}}"
        case "boolean" if type(value) is not bool:
            return f"expected boolean, got &{{{go_text(value)}}}"
        case "scalar" if isinstance(value, dict | list):
            return f"expected any scalar, got &{{{go_text(value)}}}"
        case "list" if type(value) is not list:
            return f"expected list, got &{{{go_text(value)}}}"
        case "map" if type(value) is not dict:
            return f"expected map, got &{{{go_text(value)}}}"
    return ""


def _type(value: Json) -> str:
    if type(value) is dict:
        return "map[string]interface {}"
    return "[]interface {}" if type(value) is list else _GO[type(value)]


def _literal(value: Json) -> str:
    """A value as Go's ``%#v`` prints it."""
    if value is None:
        return "interface {}(nil)"
    if type(value) is dict:
        inside = ", ".join(f"{_literal(k)}:{_literal(v)}" for k, v in sorted(value.items()))
        return f"map[string]interface {{}}{{{inside}}}"
    if type(value) is list:
        return f"[]interface {{}}{{{', '.join(map(_literal, value))}}}"
    return msgspec.json.encode(value).decode()


def _unlisted(item: Json, structure: Structure) -> str:
    """Why an item cannot be told from the others."""
    if structure.kind == "set":
        if type(item) is dict:
            return "associative list without keys has an element that's a map type"
        if type(item) is list:
            return "not supported: associative list with lists as elements"
        return "associative list without keys has an element that's an explicit null" if item is None else ""
    if item is None:
        return "associative list with keys may not have a null element"
    if type(item) is not dict:
        return "associative list with keys may not have non-map elements"
    for key in structure.item_keys:
        if key not in item and key not in structure.defaults:
            return (
                f'associative list with keys has an element that omits key field "{key}" '
                "(and doesn't have default value)"
            )
    return ""
