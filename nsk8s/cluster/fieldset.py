"""Sets of fields, as ``metadata.managedFields`` has them (FieldsV1): pure functions from sets to new ones.

A set is a tree of mappings. Its keys are path elements: ``f:name`` a field, ``k:{"port":80}`` the item of a
list with these keys, ``v:"x"`` the item of a list of scalars. ``{}`` is a member of the set; a node with
children is a member itself if ``.`` is among them. The empty tree is the empty set. This is
structured-merge-diff's `fieldpath.Set` in the form it is stored in, so nothing is encoded or decoded.

Sets are never changed in place; they may share parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from nsk8s.cluster.structure import Structure

Json = Any
"""Any JSON value."""
Fields = dict[str, "Fields"]
"""A set of fields, or a node of one."""

LEAF: Fields = {}
"""A member without children."""

_encode = msgspec.json.Encoder().encode
_ABSENT = object()


# --- path elements ----------------------------------------------------------------------------------


def element(item: Json, structure: Structure) -> str:
    """The path element of an item of a list that is described by `structure`. A key that the item lacks has
    its default, or is null (nothing valid is without)."""
    if structure.kind == "map":
        given = item if type(item) is dict else {}
        try:
            keys = {key: given[key] for key in structure.item_keys}
        except KeyError:
            keys = {key: given.get(key, structure.defaults.get(key)) for key in structure.item_keys}
        return "k:" + _encode(keys).decode()
    return "v:" + _encode(item).decode()


def elements(items: list[Json], structure: Structure) -> dict[str, list[Json]]:
    """The items of a list by path element; more than one where there are duplicates."""
    found: dict[str, list[Json]] = {}
    for item in items:
        found.setdefault(element(item, structure), []).append(item)
    return found


def below(structure: Structure, path: str) -> Structure:
    """The structure of what a path element leads to."""
    return structure[path[2:]] if path[0] == "f" else structure.item


# --- the fields of objects --------------------------------------------------------------------------


def of(value: Json, structure: Structure) -> Fields:
    """The fields of a mapping that somebody applies: its leaves, the items of its lists and the keys of its
    maps (TypedValue.ToFieldSet)."""
    found: Fields = {}
    for name, item in value.items():
        node = _applied(item, structure[name])
        if not structure.declares(name) and (node is None or (node and "." not in node)):
            node = {".": LEAF, **node} if node else LEAF
        if node is not None:
            found["f:" + name] = node
    return found


def _applied(value: Json, structure: Structure) -> Fields | None:
    if type(value) is dict and value and not structure.atomic:
        return of(value, structure) or None
    if type(value) is list and structure.kind != "atomic":
        found: Fields = {}
        for path, items in elements(value, structure).items():
            node = _applied(items[0], structure.item) if len(items) == 1 else None
            found[path] = {".": LEAF, **node} if node else LEAF
        return found or None
    return LEAF


def whole(value: Json, structure: Structure) -> Fields:
    """The node of a value that has come, or gone, with all that is in it."""
    if type(value) is dict:
        if value and not structure.atomic:
            found = {".": LEAF}
            for name, item in value.items():
                found["f:" + name] = (
                    whole(item, structure[name]) if type(item) is dict or type(item) is list else LEAF
                )
            return found
    elif type(value) is list and value and structure.kind != "atomic":
        found = {".": LEAF}
        for path, items in elements(value, structure).items():
            found[path] = whole(items[0], structure.item) if len(items) == 1 else LEAF
        return found
    return LEAF


def compare(old: Json, new: Json, structure: Structure) -> tuple[Fields, Fields]:
    """What `new` has no longer, and what it has changed or added, of two mappings (TypedValue.Compare)."""
    removed: Fields = {}
    changed: Fields = {}
    for name, after in new.items():
        before = old.get(name, _ABSENT)
        if before is after or before == after:
            continue
        if before is _ABSENT:
            if name not in structure.standing:
                changed["f:" + name] = whole(after, structure[name])
                continue
            before = None
        _note("f:" + name, before, after, structure[name], removed, changed)
    for name, before in old.items():
        if name not in new:
            if name in structure.standing:
                _note("f:" + name, before, None, structure[name], removed, changed)
            else:
                removed["f:" + name] = whole(before, structure[name])
    return removed, changed


def _note(
    path: str, before: Json, after: Json, structure: Structure, removed: Fields, changed: Fields
) -> None:
    """Put the difference of two unequal values, which both are there, under `path`."""
    sample = after if after is not None else before
    if type(sample) is dict and not structure.atomic:
        if type(before) in (dict, type(None)) and type(after) in (dict, type(None)):
            gone, new = compare(before or {}, after or {}, structure)
            if gone:
                removed[path] = gone
            if new:
                changed[path] = new
            return
    elif (
        type(sample) is list
        and structure.kind != "atomic"
        and type(before) in (list, type(None))
        and type(after) in (list, type(None))
    ):
        gone, new = _compare_items(before or [], after or [], structure)
        if gone:
            removed[path] = gone
        if new:
            changed[path] = new
        return
    changed[path] = LEAF


def _compare_items(old: list[Json], new: list[Json], structure: Structure) -> tuple[Fields, Fields]:
    removed: Fields = {}
    changed: Fields = {}
    olds, news = elements(old, structure), elements(new, structure)
    for path, after in news.items():
        before = olds.get(path, ())
        if len(after) > 1 and len(before) > 1:
            if after != before:
                changed[path] = LEAF
        elif len(after) > 1:
            if before:
                removed[path] = whole(before[0], structure.item)
            changed[path] = LEAF
        elif len(before) > 1:
            changed[path] = whole(after[0], structure.item)
            removed[path] = LEAF
        elif not before:
            changed[path] = whole(after[0], structure.item)
        elif before[0] != after[0]:
            _note(path, before[0], after[0], structure.item, removed, changed)
    for path, before in olds.items():
        if path not in news:
            removed[path] = whole(before[0], structure.item) if len(before) == 1 else LEAF
    return removed, changed


# --- sets -------------------------------------------------------------------------------------------


def member(node: Fields) -> bool:
    """Whether the node is in the set itself, not only what is below it."""
    return not node or "." in node


def union(one: Fields, other: Fields) -> Fields:
    """What is in either (of two roots)."""
    if not one or not other or one is other:
        return one or other
    found = dict(one)
    for path, node in other.items():
        mine = found.get(path)
        if mine is None:
            found[path] = node
        elif mine is not node:
            found[path] = _with(member(mine) or member(node), union(_children(mine), _children(node)))
    return found


def intersection(one: Fields, other: Fields) -> Fields:
    """What is in both (of two roots)."""
    found: Fields = {}
    for path, node in one.items():
        theirs = other.get(path)
        if theirs is not None:
            _keep(
                found,
                path,
                member(node) and member(theirs),
                intersection(_children(node), _children(theirs)) if node and theirs else LEAF,
            )
    return found


def difference(one: Fields, other: Fields) -> Fields:
    """What is in `one` but not in `other` (of two roots). A member of `other` takes away that field alone,
    not what is below it."""
    if not other:
        return one
    found: Fields = {}
    for path, node in one.items():
        theirs = other.get(path)
        if theirs is None:
            found[path] = node
        else:
            children = _children(node)
            _keep(
                found,
                path,
                member(node) and not member(theirs),
                difference(children, _children(theirs)) if children and theirs else children,
            )
    return found


def named(fields: Fields, structure: Structure) -> Fields:
    """The set and every declared field on the way to its members: of ``a.b.c`` also ``a`` and ``a.b``, unless
    they are keys of maps or items of lists (Set.EnsureNamedFieldsAreMembers)."""
    found: Fields = {}
    for path, node in fields.items():
        if not node:
            found[path] = node
            continue
        inside = named(_children(node), below(structure, path))
        found[path] = _with("." in node or (path[0] == "f" and structure.declares(path[2:])), inside)
    return found


def paths(fields: Fields) -> Iterator[tuple[str, ...]]:
    """Its members, each as path elements: those of a level before those below it, sorted."""
    ordered = sorted(path for path in fields if path != ".")
    for path in ordered:
        if member(fields[path]):
            yield (path,)
    for path in ordered:
        for rest in paths(fields[path]):
            yield (path, *rest)


def shown(path: tuple[str, ...]) -> str:
    """A path as people read it: ``.spec.containers[name="web"].image``."""
    words = []
    for one in path:
        if one[0] == "f":
            words.append("." + one[2:])
        elif one[0] == "k":
            keys = msgspec.json.decode(one[2:])
            words.append("[" + ",".join(f"{k}={_encode(v).decode()}" for k, v in sorted(keys.items())) + "]")
        else:
            words.append(f"[={one[2:]}]")
    return "".join(words)


def read(fields: Json) -> Fields:
    """A set that a client has sent, in the form that ours have. Raises ValueError if it is none."""
    if type(fields) is not dict:
        raise ValueError("a set of fields is an object")
    found: Fields = {}
    for path, node in fields.items():
        if path == ".":
            if node != {}:
                raise ValueError(". has no children")
            found["."] = LEAF
        elif path[:2] == "f:":
            found[path] = read(node)
        elif path[:2] in ("k:", "v:"):
            value = msgspec.json.decode(path[2:])
            if path[0] == "k":
                value = dict(sorted(value.items())) if type(value) is dict else {}
            found[path[:2] + _encode(value).decode()] = read(node)
        elif path[:2] == "i:" and path[2:].isdecimal():
            found[path] = read(node)
        else:
            raise ValueError(f"no path element: {path}")
    return found


def _children(node: Fields) -> Fields:
    return {path: child for path, child in node.items() if path != "."} if "." in node else node


def _with(itself: bool, children: Fields) -> Fields:
    return {".": LEAF, **children} if itself and children else children


def _keep(found: Fields, path: str, itself: bool, children: Fields) -> None:
    if children:
        found[path] = {".": LEAF, **children} if itself else children
    elif itself:
        found[path] = LEAF
