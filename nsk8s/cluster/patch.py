"""Changing a JSON object by a patch: pure functions from dicts to a new dict.

- `merge`: JSON Merge Patch, RFC 7396.
- `json_patch`: JSON Patch, RFC 6902.

Neither changes its arguments; results may share parts with them. Strategic merge patches, which need to know
the object's schema, are in `strategic`, server-side apply in `serverside`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nsk8s.errors import ApiError

Json = Any
"""Any JSON value."""

ABSENT: Json = object()


def merge(target: Json, patch: Json) -> Json:
    """`target` after a JSON Merge Patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def difference(before: Json, after: Json) -> Json:
    """The JSON Merge Patch that turns `before` into `after`."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after
    patch = {name: None for name in before if name not in after}
    for name, value in after.items():
        if name not in before:
            patch[name] = value
        elif before[name] != value:
            patch[name] = difference(before[name], value)
    return patch


# --- JSON Patch -------------------------------------------------------------------------------------


def json_patch(target: Json, operations: Json) -> Json:
    """`target` after a JSON Patch (RFC 6902). Raises `ApiError` 422 for what does not apply, and 400 for
    what is no patch."""
    if not isinstance(operations, list):
        raise ApiError(400, "BadRequest", "a JSON patch is a list of operations")
    for operation in operations:
        match operation:
            case {"op": "add", "path": str(path), "value": value}:
                target = _change(target, path, _added(value))
            case {"op": "remove", "path": str(path)}:
                target = _change(target, path, _removed)
            case {"op": "replace", "path": str(path), "value": value}:
                target = _change(target, path, _replaced(value))
            case {"op": "move", "path": str(path), "from": str(source)}:
                moved = _at(target, source)
                target = _change(_change(target, source, _removed), path, _added(moved))
            case {"op": "copy", "path": str(path), "from": str(source)}:
                target = _change(target, path, _added(_at(target, source)))
            case {"op": "test", "path": str(path), "value": value}:
                if _at(target, path) != value:
                    raise _inapplicable(f"testing value {path} failed")
            case _:
                raise ApiError(400, "BadRequest", f"no JSON patch operation: {operation!r}")
    return target


def _inapplicable(what: str) -> ApiError:
    return ApiError(422, "Invalid", f"the server rejected our request due to an error in our request: {what}")


def _tokens(pointer: str) -> list[str]:
    if pointer and not pointer.startswith("/"):
        raise _inapplicable(f"{pointer!r} is no JSON pointer")
    return [t.replace("~1", "/").replace("~0", "~") for t in pointer.split("/")[1:]]


def _index(container: list[Json], token: str, limit: int) -> int:
    if not token.isdecimal() or int(token) > limit:
        raise _inapplicable(f"no item {token!r} in a list of {len(container)}")
    return int(token)


def _at(target: Json, pointer: str) -> Json:
    for token in _tokens(pointer):
        if isinstance(target, list):
            target = target[_index(target, token, len(target) - 1)]
        elif isinstance(target, dict) and token in target:
            target = target[token]
        else:
            raise _inapplicable(f"the path {pointer} does not exist")
    return target


Edit = Callable[[Json, str], Json]


def _change(target: Json, pointer: str, edit: Edit) -> Json:
    """A copy of `target` whose container at `pointer`'s parent went through `edit(container, token)`."""

    def walk(node: Json, tokens: list[str]) -> Json:
        if len(tokens) == 1:
            if not isinstance(node, dict | list):
                raise _inapplicable(f"the path {pointer} does not exist")
            return edit(node.copy(), tokens[0])
        if isinstance(node, list):
            index = _index(node, tokens[0], len(node) - 1)
            return [*node[:index], walk(node[index], tokens[1:]), *node[index + 1 :]]
        if isinstance(node, dict) and tokens[0] in node:
            return {**node, tokens[0]: walk(node[tokens[0]], tokens[1:])}
        raise _inapplicable(f"the path {pointer} does not exist")

    tokens = _tokens(pointer)
    return walk(target, tokens) if tokens else edit({"": target}, "")[""]


def _added(value: Json) -> Edit:
    def edit(container: Json, token: str) -> Json:
        if isinstance(container, list):
            at = len(container) if token == "-" else _index(container, token, len(container))
            container.insert(at, value)
        else:
            container[token] = value
        return container

    return edit


def _removed(container: Json, token: str) -> Json:
    if isinstance(container, list):
        del container[_index(container, token, len(container) - 1)]
    elif container.pop(token, ABSENT) is ABSENT:
        raise _inapplicable(f"unable to remove nonexistent key: {token}")
    return container


def _replaced(value: Json) -> Edit:
    def edit(container: Json, token: str) -> Json:
        if isinstance(container, list):
            container[_index(container, token, len(container) - 1)] = value
        elif token in container:
            container[token] = value
        else:
            raise _inapplicable(f"unable to replace nonexistent key: {token}")
        return container

    return edit
