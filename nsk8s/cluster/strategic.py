"""Strategic merge patches, and ``kubectl apply``'s three-way merge (apimachinery's `strategicpatch`).

A list whose schema says ``x-kubernetes-patch-strategy: merge`` is merged item by item, by its one merge key;
``retainKeys`` clears a union's old members, ``replace`` and everything else is set as a whole. In a patch,
``$patch: delete|replace``, ``$retainKeys``, ``$setElementOrder/x`` and ``$deleteFromPrimitiveList/x`` are
directives. Pure: arguments are not changed, results may share parts with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nsk8s.cluster.fieldset import element
from nsk8s.cluster.structure import Structure
from nsk8s.errors import ApiError

Json = Any
"""Any JSON value."""
Identity = Callable[[Json], Json]

ORDER, DELETION = "$setElementOrder", "$deleteFromPrimitiveList"
DIRECTIVES = ("$retainKeys", ORDER, DELETION)
"""Beginnings of what a patch says that is no field; ``$patch`` is looked at wherever it stands."""

_DROPPED: Json = object()


def strategic(target: Json, patch: Json, structure: Structure) -> Json:
    """`target` (a mapping) after a strategic merge patch. Raises `ApiError` in the API server's words."""
    if "$patch" in patch:
        match patch["$patch"]:
            case "replace":
                return {name: value for name, value in patch.items() if name != "$patch"}
            case "delete":
                return {}
        raise _failure(f"unknown patch type: {patch['$patch']} in map: {patch}")
    found, patch = dict(target), dict(patch)
    retained = patch.pop("$retainKeys", None)
    if retained is not None:
        found = _retaining(found, patch, retained)
    for directive in [name for name in patch if name.startswith(ORDER)]:
        _order(
            found, patch, _field(directive, ORDER, "setElementOrder list"), patch.pop(directive), structure
        )
    for name, value in patch.items():
        if name.startswith(DELETION):
            field = _field(name, DELETION, "primitive list")
            if isinstance(found.get(field), list) and isinstance(value, list):
                found[field] = [item for item in found[field] if item not in value]
        elif value is None:
            found.pop(name, None)
        else:
            merged = _value(found.get(name), value, structure[name])
            if merged is _DROPPED:
                found.pop(name, None)
            else:
                found[name] = merged
    return found


def _value(current: Json, value: Json, structure: Structure) -> Json:
    """What becomes of one field."""
    if type(value) is dict and type(current) is dict:
        return _clean(value) if structure.strategy == "replace" else strategic(current, value, structure)
    if type(value) is list and type(current) is list:
        return _merged(current, value, structure) if structure.strategy == "merge" else _clean(value)
    return _clean(value)


def _clean(value: Json) -> Json:
    """A value that is new, without nulls and directives."""
    if type(value) is dict:
        if "$patch" in value:
            return _DROPPED
        cleaned = (
            (name, _clean(item))
            for name, item in value.items()
            if item is not None and not name.startswith(DIRECTIVES)
        )
        return {name: item for name, item in cleaned if item is not _DROPPED}
    if type(value) is list:
        return [item for item in map(_clean, value) if item is not _DROPPED]
    return value


def _retaining(found: dict[str, Json], patch: dict[str, Json], retained: Json) -> dict[str, Json]:
    """`found` with the retained fields only, which must be all that the patch sets."""
    if not isinstance(retained, list):
        raise _bad("retainKeys")
    for name, value in patch.items():
        if value is not None and not name.startswith((DELETION, ORDER)) and name not in retained:
            raise _bad("retainKeys")
    return {name: value for name, value in found.items() if name in retained}


def _order(
    found: dict[str, Json], patch: dict[str, Json], field: str, order: Json, structure: Structure
) -> None:
    """Merge the list `field`, and put it in the order that ``$setElementOrder`` gives."""
    current, change = found.get(field), patch.pop(field, None)
    if not all(isinstance(one, list | None) for one in (current, change)) or not isinstance(order, list):
        raise _bad("setElementOrder list")
    if current is None and change is None:
        return
    below = structure[field]
    key = below.merge_key
    who = _by(key)
    _check_order(change or [], order, who)
    if current is None:
        merged = _clean(change)
    elif change is None:
        merged = current
    else:
        merged = _merged(current, change, below) if below.strategy == "merge" else change
    found[field] = arranged(merged, order, current or [], who)


def _check_order(change: list[Json], order: list[Json], who: Identity) -> None:
    """What a patch says of items must be in the order it gives."""
    rest = iter([who(item) for item in order])
    if not order:
        return
    for item in change:
        if not _directs(item) and who(item) not in rest:
            raise _failure(f"The order in patch list:\n{change}\n doesn't match {ORDER} list:\n{order}\n")


def _merged(current: list[Json], change: list[Json], structure: Structure) -> list[Json]:
    """Two lists of items with an identity, or of scalars."""
    items = [*current, *change]
    if not items:
        return current
    if any(type(item) is list for item in items):
        raise ApiError(422, "Invalid", "lists of lists are not supported")
    if len({type(item) is dict for item in items}) > 1:
        raise _failure(f"list element types are not identical: {[current, change]}")
    if type(items[0]) is not dict:
        wanted = list(dict.fromkeys(change))
        return arranged(list(dict.fromkeys([*current, *wanted])), wanted, current, _itself)
    key = structure.merge_key
    if not key:
        raise _failure("cannot merge lists without merge key")
    who = _by(key)
    gone = [who(item) for item in change if item.get("$patch") == "delete"]
    wanted = [item for item in change if "$patch" not in item]
    for item in change:
        if item.get("$patch", "delete") not in ("delete", "replace"):
            if item["$patch"] == "merge":
                raise _failure("merging lists cannot yet be specified in the patch")
            raise _failure(f"unknown patch type: {item['$patch']} in map: {item}")
    if any(item.get("$patch") == "replace" for item in change):
        return [_clean(item) for item in wanted]
    found = [item for item in current if item.get(key) not in gone]
    places: dict[Json, int] = {}
    for at, item in enumerate(found):
        places.setdefault(item.get(key), at)
    for item in wanted:
        at = places.setdefault(who(item), len(found))
        if at < len(found):
            found[at] = strategic(found[at], item, structure.item)
        else:
            found.append(_clean(item))
    return arranged(found, wanted, current, who)


def arranged(items: list[Json], order: list[Json], before: list[Json], who: Identity) -> list[Json]:
    """`items`: those in `order` as it has them, the others as they stood `before`; these come as early as
    their old neighbours allow (normalizeElementOrder)."""
    wanted, stood = _ranks(order, who), _ranks(before, who)
    ours = sorted((item for item in items if who(item) in wanted), key=lambda item: wanted[who(item)])
    theirs = sorted(
        (item for item in items if who(item) not in wanted),
        key=lambda item: stood.get(who(item), len(stood)),
    )
    found, left = [], iter(theirs)
    other = next(left, _DROPPED)
    for item in ours:
        place = stood.get(who(item))
        while other is not _DROPPED and place is not None and stood.get(who(other), len(stood)) < place:
            found.append(other)
            other = next(left, _DROPPED)
        found.append(item)
    return found if other is _DROPPED else [*found, other, *left]


def _ranks(items: Iterable[Json], who: Identity) -> dict[Json, int]:
    found: dict[Json, int] = {}
    for rank, item in enumerate(items):
        found.setdefault(who(item), rank)
    return found


def _by(key: str) -> Identity:
    """How the items of a list are told apart: by a key of theirs, or by themselves."""
    if not key:
        return _itself

    def who(item: Json) -> Json:
        if type(item) is not dict:
            raise _failure(f"expected a map[string]interface {{}}, but received a {type(item).__name__}")
        if key not in item:
            raise _failure(f"map: {item} does not contain declared merge key: {key}")
        found = item[key]
        if isinstance(found, dict | list):
            raise _failure(f"map: {item}: the merge key {key} is no scalar")
        return found

    return who


def _itself(item: Json) -> Json:
    if isinstance(item, dict | list):
        raise _failure(f"expected a scalar, but received {item}")
    return item


def _directs(item: Json) -> bool:
    return type(item) is dict and "$patch" in item


def _field(directive: str, prefix: str, what: str) -> str:
    """The list that a directive is about."""
    head, _, field = directive.partition("/")
    if head != prefix or not field:
        raise _bad(what)
    return field


def _bad(what: str) -> ApiError:
    return ApiError(400, "BadRequest", f"invalid patch format of {what}")


def _failure(what: str) -> ApiError:
    """What upstream reports as it is, without a reason."""
    return ApiError(500, "", what)


# --- kubectl apply --------------------------------------------------------------------------------------


def three_way(
    original: Json, modified: Json, current: Json, structure: Structure, *, union: bool = False
) -> Json:
    """`current` (a mapping) after an apply of `modified`, when the last apply said `original`: what that said
    and this does not goes, what others have added stays; of a `union` that goes too. The result of
    CreateThreeWayMergePatch and its application, in one go."""
    found = dict(current)
    if union and any(value is not None for value in modified.values()):
        found = {name: value for name, value in found.items() if modified.get(name) is not None}
    for name in original:
        if name not in modified:
            found.pop(name, None)
    for name, value in modified.items():
        if value is None:
            found.pop(name, None)
        elif found.get(name) != value:
            found[name] = _applied(original.get(name), value, found.get(name), structure[name])
    return found


def _applied(original: Json, modified: Json, current: Json, structure: Structure) -> Json:
    if type(modified) is dict and type(current) is dict and structure.strategy != "replace":
        before = original if type(original) is dict else {}
        return three_way(before, modified, current, structure, union=structure.retains)
    if type(modified) is list and type(current) is list and structure.strategy == "merge":
        return _applied_items(original if type(original) is list else [], modified, current, structure)
    return _clean(modified)


def _applied_items(
    original: list[Json], modified: list[Json], current: list[Json], structure: Structure
) -> list[Json]:
    who = _telling(structure, original, modified, current)
    if who is None:
        return modified
    before, wanted, live = ({who(item): item for item in items} for items in (original, modified, current))
    found = []
    for one, item in wanted.items():
        if type(item) is dict and one in live:
            old = before.get(one, {})
            found.append(three_way(old, item, live[one], structure.item, union=structure.retains))
        else:
            found.append(_clean(item))
    found += [item for one, item in live.items() if one not in wanted and one not in before]
    return arranged(found, modified, current, who)


def _telling(structure: Structure, *lists: list[Json]) -> Identity | None:
    """How to tell the items of these lists apart: by the merge key, as a patch does, unless that is not
    enough (53/TCP beside 53/UDP) and the list type knows better. None: not at all."""
    items = [item for one in lists for item in one]
    key = structure.merge_key
    if not key:
        return None if any(isinstance(item, dict | list) for item in items) else _itself
    if not all(type(item) is dict and isinstance(item.get(key), str | int | float) for item in items):
        return None
    if any(len({item[key] for item in one}) < len(one) for one in lists) and structure.kind == "map":
        return lambda item: element(item, structure)
    return lambda item: item[key]
