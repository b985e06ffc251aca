"""Server-side apply (KEP-555): what a manager wants of an object, merged into it.

A port of structured-merge-diff's `merge.Updater.Apply` and of apimachinery's `util/managedfields` around it,
with FieldsV1 trees in place of its path sets. Merged are the items of lists by their keys, everything else
field by field or whole, as the `Structure` says. What the manager applied before and applies no more goes,
unless somebody else owns it.
"""

from __future__ import annotations

import json
from typing import Any

from nsk8s.api.types import Obj
from nsk8s.cluster import fieldset
from nsk8s.cluster.applicable import check
from nsk8s.cluster.fieldset import Fields
from nsk8s.cluster.managedfields import (
    OWNERLESS,
    Entry,
    Identity,
    Managed,
    Writer,
    contended,
    decode,
    recorded,
    without,
)
from nsk8s.cluster.objectmeta import LAST_APPLIED
from nsk8s.cluster.structure import Structure
from nsk8s.errors import ApiError, Problem

Json = Any
"""Any JSON value."""

KUBECTL = "kubectl"
"""The manager of ``kubectl apply --server-side``, which may take over what client-side apply has left."""
BEFORE = "before-first-apply"
"""Manager of what was in an untracked object when it is first applied."""

_ABSENT: Json = object()


class Contended(Exception):
    """Others own what would be changed."""

    def __init__(self, fields: dict[Identity, Fields]) -> None:
        super().__init__()
        self.fields = fields


def apply(
    live: Obj, config: Obj, structure: Structure, writer: Writer, *, force: bool = False
) -> tuple[Obj, Managed]:
    """`live` with what `writer` wants of it, and who owns its fields then. For a new object `live` has an
    apiVersion and a kind only.

    Raises `ApiError`: 409 Conflict where others own what would change, unless `force`; 500 (as upstream)
    for a `config` that is not as its schema."""
    check(config, structure)
    managed = decode(live.get("metadata", {}).get("managedFields"))
    if not managed:
        managed = recorded({}, {}, live, structure, writer._replace(manager=BEFORE))
    try:
        new, managed = _applied(live, config, managed, structure, writer, force)
    except Contended as refused:
        allowed = _left_by_client(live, structure, writer) if writer.manager == KUBECTL else {}
        left = {who: fieldset.difference(fields, allowed) for who, fields in refused.fields.items()}
        left = {who: fields for who, fields in left.items() if fields}
        if left:
            raise _conflict(left) from None
        new, managed = _applied(live, config, managed, structure, writer, True)
    if writer.manager == KUBECTL and (new.get("metadata", {}).get("annotations") or {}).get(LAST_APPLIED):
        new = _remembering(new, config)
    return new, managed


def _applied(
    live: Obj, config: Obj, managed: Managed, structure: Structure, writer: Writer, force: bool
) -> tuple[Obj, Managed]:
    me = writer.identity("Apply")
    wanted = fieldset.of(config, structure)
    mine = fieldset.difference(wanted, OWNERLESS)
    last = managed.get(me)
    new = merge(live, config, structure)
    if last is not None and last.fields != mine:
        owned = wanted
        for who, entry in managed.items():
            if who != me:
                owned = fieldset.union(owned, entry.fields)
        new = _pruned(new, last.fields, owned, structure)
    removed, changed = fieldset.compare(live, new, structure)
    if not force and (theirs := contended(managed, me, changed)):
        raise Contended(theirs)
    after = without(managed, me, removed, changed)
    time = writer.now if new != live else last.time if last is not None else ""
    after.pop(me, None)
    if mine:
        after[me] = Entry(writer.version, time, mine)
    return new, after


def _pruned(merged: Obj, last: Fields, owned: Fields, structure: Structure) -> Obj:
    """`merged` without what was applied last time and is owned by nobody now."""

    def fields(obj: Obj) -> Fields:
        return fieldset.named(fieldset.of(obj, structure), structure)

    last, there = fieldset.named(last, structure), fields(merged)
    pruned = remove(merged, last, structure) or {}
    kept = fieldset.union(fields(pruned), fieldset.named(owned, structure))
    pruned = remove(merged, fieldset.difference(there, kept), structure) or {}
    gone = fieldset.intersection(fieldset.difference(there, fields(pruned)), last)
    found: Obj = remove(merged, gone, structure) or {}
    return found


def _left_by_client(live: Obj, structure: Structure, writer: Writer) -> Fields:
    """The fields that client-side apply has set and that are still as it set them (lastAppliedManager)."""
    try:
        last = json.loads((live.get("metadata", {}).get("annotations") or {}).get(LAST_APPLIED) or "null")
    except ValueError:
        return {}
    if not isinstance(last, dict) or last.get("apiVersion") != writer.version:
        return {}
    removed, changed = fieldset.compare(last, live, structure)
    left = fieldset.difference(fieldset.of(last, structure), changed)
    return fieldset.difference(left, removed)


def _remembering(new: Obj, config: Obj) -> Obj:
    """`new`, whose annotation says what is applied now: going back to client-side apply remains possible
    (lastAppliedUpdater)."""
    meta = config["metadata"]
    if "annotations" in meta:
        others = {name: text for name, text in (meta["annotations"] or {}).items() if name != LAST_APPLIED}
        config = {**config, "metadata": {**meta, "annotations": others}}
    said = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    annotations = {**new["metadata"]["annotations"], LAST_APPLIED: said}
    return {**new, "metadata": {**new["metadata"], "annotations": annotations}}


def _conflict(contested: dict[Identity, Fields]) -> ApiError:
    causes = [
        (who, fieldset.shown(path))
        for who in sorted(contested, key=str)
        for path in fieldset.paths(contested[who])
    ]
    if len(causes) == 1:
        text = f"1 conflict: conflict with {causes[0][0]}: {causes[0][1]}"
    else:
        lines = []
        for who in sorted(contested, key=str):
            lines += [f"conflicts with {who}:", *(f"- {path}" for one, path in causes if one == who)]
        text = f"{len(causes)} conflicts: " + "\n".join(lines)
    return ApiError(
        409,
        "Conflict",
        f"Apply failed with {text}",
        causes=[Problem(path, f"conflict with {who}", reason="FieldManagerConflict") for who, path in causes],
    )


# --- merging ----------------------------------------------------------------------------------------


def merge(old: Obj, new: Obj, structure: Structure) -> Obj:
    """`old` with all that `new` says (TypedValue.Merge)."""
    found = dict(old)
    for name, value in new.items():
        before = old.get(name, _ABSENT)
        found[name] = value if before is _ABSENT else _merged(before, value, structure[name])
    return found


def _merged(old: Json, new: Json, structure: Structure) -> Json:
    sample = new if new is not None else old
    if type(sample) is dict and not structure.atomic and type(old) is dict:
        return merge(old, new or {}, structure) if old or new else new
    if type(sample) is list and structure.kind != "atomic" and type(old) is list:
        return _merged_items(old, new or [], structure) if old or new else new
    return new


def _merged_items(old: list[Json], new: list[Json], structure: Structure) -> list[Json]:
    """The items of both lists: in the order of `new` where it says one, those of `old` alone where they
    stood (mergingWalker.visitListItems)."""
    olds = fieldset.elements(old, structure)
    news = {path: items[0] for path, items in fieldset.elements(new, structure).items()}
    left = [fieldset.element(item, structure) for item in old]
    right = list(news)
    shared = iter([path for path in right if path in olds])
    upcoming = next(shared, None)
    taken: set[str] = set()
    found: list[Json] = []

    def take(path: str) -> None:
        taken.add(path)
        known = olds.get(path, ())
        one = news[path]
        found.append(_merged(known[0], one, structure.item) if len(known) == 1 else one)

    at = to = 0
    while at < len(left) or to < len(right):
        if at < len(left) and to < len(right):
            if left[at] == right[to]:
                take(left[at])
                at, to, upcoming = at + 1, to + 1, next(shared, None)
                continue
            if left[at] in news and upcoming is not None and upcoming != left[at]:
                at += 1
                continue
        if at < len(left):
            if left[at] not in news:
                found.append(old[at])
                at += 1
                continue
            if left[at] in taken:
                at += 1
        if to < len(right):
            take(right[to])
            if upcoming == right[to]:
                upcoming = next(shared, None)
            to += 1
    return found


def remove(value: Json, fields: Fields, structure: Structure) -> Json:
    """`value` without the fields and items of a set; null where nothing is left (removeItemsWithSchema)."""
    if type(value) is dict:
        found: Obj = {}
        for name, item in () if structure.atomic else value.items():
            node = fields.get("f:" + name)
            if node is None:
                found[name] = item
            elif not fieldset.member(node):
                found[name] = remove(item, node, structure[name])
        return found or None
    if type(value) is list:
        kept = []
        for item in () if structure.kind == "atomic" else value:
            node = fields.get(fieldset.element(item, structure))
            if node is None:
                kept.append(item)
            elif not fieldset.member(node):
                kept.append(remove(item, node, structure.item) or {})
        return kept or None
    return value
