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


def check(value: object, view: type, findings: Findings) -> None:
    """Find every value below `value` that does not have the type it has in `view`."""
    _check(value, inspect.type_info(view), "", findings)


def _check(value: object, wanted: inspect.Type, path: str, findings: Findings) -> None:
    if isinstance(wanted, inspect.AnyType):
        return
    choices = wanted.types if isinstance(wanted, inspect.UnionType) else (wanted,)
    for choice in choices:
        if isinstance(choice, inspect.NoneType):
            continue
        for kind, python, _ in _KINDS:
            if isinstance(choice, kind) and _is(value, python):
                _descend(value, choice, path, findings)
                return
    words = " or ".join(word for choice in choices for kind, _, word in _KINDS if isinstance(choice, kind))
    found = _JSON.get(type(value), "null")
    what = f"cannot unmarshal {found} {shown(value)} into a field of type {words}"
    findings.add(path, what, _advice(value, words))


def _is(value: object, python: type) -> bool:
    """As JSON has it: true is no integer, 3.0 is one."""
    if python is int:
        return (isinstance(value, int) and not isinstance(value, bool)) or (
            isinstance(value, float) and value.is_integer()
        )
    return isinstance(value, python)


def _descend(value: object, wanted: inspect.Type, path: str, findings: Findings) -> None:
    if isinstance(value, list) and isinstance(wanted, inspect.VarTupleType):
        for position, item in enumerate(value):
            _check(item, wanted.item_type, f"{path}[{position}]", findings)
    elif isinstance(value, dict) and isinstance(wanted, inspect.DictType):
        for key, item in value.items():
            _check(item, wanted.value_type, below(path, key), findings)
    elif isinstance(value, dict) and isinstance(wanted, inspect.StructType):
        for field in wanted.fields:
            if value.get(field.name) is not None:
                name = f"{path}.{field.name}" if path else field.name
                _check(value[field.name], field.type, name, findings)


def _advice(value: object, words: str) -> str:
    if words == "string" and isinstance(value, bool | int | float):
        return "put it in quotes"
    if "integer" in words and isinstance(value, str) and value.strip().isdigit():
        return "write it without quotes"
    if words == "list" and value is not None:
        return 'begin each item with "- "'
    return ""
