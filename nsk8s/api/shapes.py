"""Values of a wrong type, found all at once.

msgspec stops at the first; this walks an object beside the type that a view was made from and finds every
one, in the words of the API server's decoder (``cannot unmarshal string into ... of type int32``).
"""

from __future__ import annotations

import msgspec.inspect as inspect

from nsk8s.api.findings import Findings, below, shown

_KINDS: tuple[tuple[type[inspect.Type], type, str], ...] = (
    (inspect.BoolType, bool, "boolean"),
    (inspect.IntType, int, "integer"),
    (inspect.StrType, str, "string"),
    (inspect.VarTupleType, list, "list"),
    (inspect.DictType, dict, "mapping"),
    (inspect.StructType, dict, "mapping"),
)
_JSON = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}


_WRONG = object()


def check(value: object, view: type, findings: Findings) -> object:
    """Find every value below `value` that does not have the type it has in `view`; returns `value`
    without them, so that what else is wrong can be found as well."""
    return _check(value, inspect.type_info(view), "", findings)


def _check(value: object, wanted: inspect.Type, path: str, findings: Findings) -> object:
    if isinstance(wanted, inspect.AnyType):
        return value
    choices = wanted.types if isinstance(wanted, inspect.UnionType) else (wanted,)
    for choice in choices:
        for kind, python, _ in _KINDS:
            if isinstance(choice, kind) and _is(value, python):
                return _descend(value, choice, path, findings)
    words = " or ".join(word for choice in choices for kind, _, word in _KINDS if isinstance(choice, kind))
    found = _JSON.get(type(value), "null")
    what = f"cannot unmarshal {found} {shown(value)} into a field of type {words}"
    findings.add(path, what, _advice(value, words))
    return _WRONG


def _is(value: object, python: type) -> bool:
    """As JSON has it: true is no integer, 3.0 is one."""
    if python is int:
        return (isinstance(value, int) and not isinstance(value, bool)) or (
            isinstance(value, float) and value.is_integer()
        )
    return isinstance(value, python)


def _descend(value: object, wanted: inspect.Type, path: str, findings: Findings) -> object:
    if isinstance(value, list) and isinstance(wanted, inspect.VarTupleType):
        items = [_check(item, wanted.item_type, f"{path}[{i}]", findings) for i, item in enumerate(value)]
        return _WRONG if _WRONG in items else items  # the positions of the others would be wrong
    if isinstance(value, dict) and isinstance(wanted, inspect.DictType):
        members = {k: _check(v, wanted.value_type, below(path, k), findings) for k, v in value.items()}
        return {k: v for k, v in members.items() if v is not _WRONG}
    if isinstance(value, dict) and isinstance(wanted, inspect.StructType):
        kept = dict(value)
        for field in wanted.fields:
            key = field.encode_name
            if key in value:
                kept[key] = _check(value[key], field.type, f"{path}.{key}" if path else key, findings)
        return {k: v for k, v in kept.items() if v is not _WRONG}
    return value


def _advice(value: object, words: str) -> str:
    if words == "string" and isinstance(value, bool | int | float):
        return "put it in quotes"
    if "integer" in words and isinstance(value, str) and value.strip().isdigit():
        return "write it without quotes"
    if words == "list" and value is not None:
        return 'begin each item with "- "'
    return ""
