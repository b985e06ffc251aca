"""Changing a JSON object by a patch: pure functions from dicts to a new dict.

- `merge`: JSON Merge Patch, RFC 7396.
- `json_patch`: JSON Patch, RFC 6902.
- `strategic`: Kubernetes' strategic merge patch: lists whose items have an identity (containers by name,
  ports by number) are merged item by item; ``$patch``, ``$retainKeys``, ``$setElementOrder`` and
  ``$deleteFromPrimitiveList`` are understood (apimachinery's strategicpatch).
- `three_way`: what ``kubectl apply`` does: what the last apply said and this one does not is removed,
  what others have added stays.

None of them changes its arguments; results may share parts with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nsk8s.errors import ApiError

MERGE_KEYS: dict[str, tuple[str, ...]] = {
    "addresses": ("type",),
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "ephemeralContainers": ("name",),
    "hostAliases": ("ip",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "podIPs": ("ip",),
    "secrets": ("name",),
    "taints": ("key", "effect"),
    "volumeDevices": ("devicePath",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
"""Field name of a list -> what identifies its items (the API's ``x-kubernetes-patch-merge-key``)."""

PORT_KEYS = (("containerPort", "protocol"), ("port", "protocol"))
"""``ports`` of a container and of a Service. Upstream takes the number alone and so confuses 53/TCP
with 53/UDP; the protocol is looked at where both sides give it."""

PRIMITIVE_SETS = {"finalizers", "podCIDRs"}
"""Lists of strings that are merged as sets."""

RETAIN_KEYS = {"strategy", "volumes"}
"""Unions, whose old member must go when an apply names another (``retainKeys``)."""

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


# --- lists whose items have an identity -----------------------------------------------------------------

Identity = Callable[[Json], Json]


def _identity(field: str, *lists: Json) -> Identity | None:
    """How items of the list `field` are told apart; None for a list that is one value."""
    items = [item for each in lists if isinstance(each, list) for item in each]
    items = [item for item in items if not (isinstance(item, dict) and "$patch" in item and len(item) == 1)]
    if not items or not all(isinstance(item, dict) for item in items):
        return None
    keys = MERGE_KEYS.get(field)
    if field == "ports":
        keys = next((k for k in PORT_KEYS if all(k[0] in item for item in items)), None)
    if keys is None or not all(keys[0] in item for item in items):
        return None
    if len(keys) == 1:
        only = keys[0]
        return lambda item: item[only]
    first, second = keys
    default = "TCP" if second == "protocol" else ""
    return lambda item: (item[first], item.get(second, default))


# --- strategic merge patch ------------------------------------------------------------------------------


def strategic(target: Json, patch: Json) -> Json:
    """`target` after a strategic merge patch."""
    if not isinstance(patch, dict):
        return patch
    directive = patch.get("$patch")
    if directive == "replace":
        return {k: v for k, v in patch.items() if k != "$patch"}
    if directive == "delete":
        return {}
    result = dict(target) if isinstance(target, dict) else {}
    retained = patch.get("$retainKeys")
    if retained is not None:
        result = {k: v for k, v in result.items() if k in retained}
    for field, value in patch.items():
        if field.startswith("$"):
            prefix, _, name = field.partition("/")
            if prefix == "$deleteFromPrimitiveList" and isinstance(result.get(name), list):
                result[name] = [item for item in result[name] if item not in value]
        elif value is None:
            result.pop(field, None)
        elif isinstance(value, list):
            result[field] = _strategic_list(field, result.get(field), value)
        else:
            result[field] = strategic(result.get(field), value)
    for field, order in patch.items():
        prefix, _, name = field.partition("/")
        if prefix == "$setElementOrder" and isinstance(result.get(name), list):
            result[name] = _ordered(name, result[name], order)
    return result


def _strategic_list(field: str, current: Json, patch: list[Json]) -> list[Json]:
    if any(isinstance(item, dict) and item == {"$patch": "replace"} for item in patch):
        return [item for item in patch if item != {"$patch": "replace"}]
    existing = current if isinstance(current, list) else []
    if field in PRIMITIVE_SETS:
        return [*existing, *(item for item in patch if item not in existing)]
    identity = _identity(field, existing, patch)
    if identity is None:
        return patch
    result = list(existing)
    for item in patch:
        at = _position(result, item, identity)
        if item.get("$patch") == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append(strategic({}, item))
        else:
            result[at] = strategic(result[at], item)
    return result


def _position(items: list[Json], wanted: Json, identity: Identity) -> int | None:
    """Where the item that `wanted` means is. A port given without a protocol means the first of that
    number if there is none with the default one."""
    mine = identity(wanted)
    for index, item in enumerate(items):
        if identity(item) == mine:
            return index
    if isinstance(mine, tuple) and "protocol" not in wanted and "effect" not in wanted:
        for index, item in enumerate(items):
            if identity(item)[0] == mine[0]:
                return index
    return None


def _ordered(field: str, items: list[Json], order: list[Json]) -> list[Json]:
    """`items` in the order of ``$setElementOrder``; those it does not name go last, as they stood."""
    identity: Identity | None = (lambda item: item) if field in PRIMITIVE_SETS else None
    identity = identity or _identity(field, items, order)
    if identity is None:
        return items
    ranks = {identity(item): rank for rank, item in enumerate(order)}
    return sorted(items, key=lambda item: ranks.get(identity(item), len(ranks)))


# --- kubectl apply --------------------------------------------------------------------------------------


def three_way(original: Json, modified: Json, current: Json, field: str = "") -> Json:
    """`current` after an apply of `modified`, when the last apply said `original`."""
    if isinstance(modified, dict):
        before = original if isinstance(original, dict) else {}
        result = dict(current) if isinstance(current, dict) else {}
        if field in RETAIN_KEYS:
            result = {name: value for name, value in result.items() if name in modified}
        for name in before:
            if name not in modified:
                result.pop(name, None)
        for name, value in modified.items():
            if value is None:
                result.pop(name, None)
            else:
                result[name] = three_way(before.get(name), value, result.get(name), name)
        return result
    if isinstance(modified, list):
        return _three_way_list(original, modified, current, field)
    return modified


def _three_way_list(original: Json, modified: list[Json], current: Json, field: str) -> list[Json]:
    before = original if isinstance(original, list) else []
    now = current if isinstance(current, list) else []
    if field in PRIMITIVE_SETS:
        return [*modified, *(item for item in now if item not in modified and item not in before)]
    identity = _identity(field, before, modified, now)
    if identity is None:
        return modified
    old, live = _by(identity, before), _by(identity, now)
    result = [three_way(old.get(identity(item)), item, live.get(identity(item)), field) for item in modified]
    wanted = _by(identity, modified)
    return result + [i for i in now if identity(i) not in wanted and identity(i) not in old]


def _by(identity: Identity, items: Iterable[Json]) -> dict[Json, Json]:
    return {identity(item): item for item in items}
