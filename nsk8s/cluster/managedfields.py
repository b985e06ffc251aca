"""Who owns which fields of an object: the entries of ``metadata.managedFields`` (KEP-555), and what a
create, an update or a patch does to them.

What apimachinery's `util/managedfields` does for requests other than server-side apply: a writer owns what it
has changed, the others lose that and what is gone. Names, UIDs and the like belong to nobody. An
object that is not tracked (the control plane's own) stays untracked until it is first applied.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from nsk8s.api.types import Obj
from nsk8s.cluster import fieldset
from nsk8s.cluster.fieldset import LEAF, Fields
from nsk8s.cluster.structure import Structure
from nsk8s.errors import ApiError

MOST_UPDATERS = 10
"""Entries of updates that an object keeps; older ones are merged."""
ANCIENT = "ancient-changes"
"""Manager of merged entries."""

OWNERLESS: Fields = {
    "f:apiVersion": LEAF,
    "f:kind": LEAF,
    "f:metadata": {
        ".": LEAF,
        "f:clusterName": LEAF,
        "f:creationTimestamp": LEAF,
        "f:generation": LEAF,
        "f:managedFields": LEAF,
        "f:name": LEAF,
        "f:namespace": LEAF,
        "f:resourceVersion": LEAF,
        "f:selfLink": LEAF,
        "f:uid": LEAF,
    },
}
"""Fields that nobody ever owns."""


class Writer(NamedTuple):
    """Who writes: the field manager, in which apiVersion, through which subresource, and when (RFC 3339)."""

    manager: str
    version: str
    subresource: str
    now: str

    def identity(self, operation: str) -> Identity:
        """Whose entry this write belongs to."""
        version = "" if operation == "Apply" else self.version
        return Identity(operation, self.manager or "unknown", version, self.subresource)


class Identity(NamedTuple):
    """Whose an entry is. An Apply is the same manager's in every version, an Update in one."""

    operation: str
    manager: str
    version: str
    subresource: str

    def __str__(self) -> str:
        """As the API server's conflicts name it."""
        words = f'"{self.manager}"'
        if self.subresource:
            words += f' with subresource "{self.subresource}"'
        return words if self.operation == "Apply" else f"{words} using {self.version}"


class Entry(NamedTuple):
    """What one manager owns, in which version, since when (empty: not known)."""

    version: str
    time: str
    fields: Fields


Managed = dict[Identity, Entry]


def decode(entries: object) -> Managed:
    """The entries of a stored object."""
    found: Managed = {}
    for one in entries if isinstance(entries, list) else ():
        operation, version = one["operation"], one["apiVersion"]
        who = Identity(
            operation,
            one.get("manager", ""),
            "" if operation == "Apply" else version,
            one.get("subresource", ""),
        )
        found[who] = Entry(version, one.get("time", ""), one.get("fieldsV1") or LEAF)
    return found


def owners(obj: Obj) -> Managed:
    """Who owns the fields of a stored object."""
    return decode(obj["metadata"].get("managedFields"))


def owned(obj: Obj, entries: list[Obj] | None) -> Obj:
    """`obj` with these entries; without any if there are none."""
    meta = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    if entries:
        meta["managedFields"] = entries
    return {**obj, "metadata": meta}


def unmanaged(meta: Obj) -> Obj:
    """The metadata of what is to be applied. Raises `ApiError` 400."""
    if meta.get("managedFields") is not None:
        raise ApiError(400, "BadRequest", "metadata.managedFields must be nil")
    return meta


def encode(managed: Managed) -> list[Obj]:
    """The entries as they are stored: applies first, then by time."""
    found = []
    for who in sorted(managed, key=lambda who: (who[0], managed[who].time, *who[1:])):
        entry = managed[who]
        one: Obj = {"manager": who.manager, "operation": who.operation, "apiVersion": entry.version}
        if entry.time:
            one["time"] = entry.time
        one["fieldsType"] = "FieldsV1"
        one["fieldsV1"] = entry.fields
        if who.subresource:
            one["subresource"] = who.subresource
        found.append(one)
    return found


def read(entries: object) -> list[Obj] | None:
    """Entries that a client has sent, in our form; None for entries that are none (they are ignored)."""
    if not isinstance(entries, list):
        return None
    try:
        return [_read(one) for one in entries]
    except ValueError:
        return None


def _read(entry: Any) -> Obj:  # noqa: ANN401  # any JSON
    if type(entry) is not dict or not all(
        type(value) is str for name, value in entry.items() if name != "fieldsV1"
    ):
        raise ValueError("an entry is an object of strings")
    if entry.get("operation") not in ("Apply", "Update"):
        raise ValueError("operation must be `Apply` or `Update`")
    if not entry.get("apiVersion"):
        raise ValueError("apiVersion must not be empty")
    if entry.get("fieldsType") != "FieldsV1":
        raise ValueError("invalid fieldsType")
    return {**entry, "fieldsV1": fieldset.read(entry.get("fieldsV1") or {})}


def is_reset(entries: object) -> bool:
    """Whether a client asks for the tracking to end: no entries, or a single empty one."""
    return entries == [] or entries == [{}]


def same(one: object, other: object) -> bool:
    """Whether entries differ in nothing but their times (which alone are no reason to write)."""
    if one == other or not one or not other:
        return one == other or not (one or other)
    mine, theirs = decode(one), decode(other)
    return mine.keys() == theirs.keys() and all(
        mine[who].version == theirs[who].version and mine[who].fields == theirs[who].fields for who in mine
    )


# --- updates ----------------------------------------------------------------------------------------


def updated(old: Obj | None, new: Obj, given: object, structure: Structure, writer: Writer) -> list[Obj]:
    """The entries of `new`, with which `writer` creates an object or replaces `old`. The entries that the
    client has `given` count in place of the stored ones; an object without any stays so (SkipNonApplied)."""
    managed: Managed = {}
    if not is_reset(given):
        stored = None if old is None else old["metadata"].get("managedFields")
        managed = decode(stored if not given or given == stored else read(given) or stored)
    if old is not None and not managed:
        return []
    return encode(recorded(managed, {} if old is None else old, new, structure, writer))


def recorded(managed: Managed, old: Obj, new: Obj, structure: Structure, writer: Writer) -> Managed:
    """`managed` after `writer` has made `new` of `old`."""
    removed, changed = fieldset.compare(old, new, structure)
    me = writer.identity("Update")
    found = without(managed, me, removed, changed)
    mine = found.pop(me, None)
    gained = fieldset.difference(changed, OWNERLESS)
    if mine is not None:
        kept = fieldset.difference(mine.fields, removed)
        time = writer.now if gained else mine.time
        mine = Entry(writer.version, time, fieldset.union(gained, kept))
    elif gained:
        mine = Entry(writer.version, writer.now, gained)
    if mine is not None and mine.fields:
        found[me] = mine
    return _capped(found) if len(found) > MOST_UPDATERS else found


def contended(managed: Managed, me: Identity, changed: Fields) -> dict[Identity, Fields]:
    """Which of the changed fields belong to others."""
    found = {}
    for who, entry in managed.items():
        if who != me and (theirs := fieldset.intersection(entry.fields, changed)):
            found[who] = theirs
    return found


def without(managed: Managed, me: Identity, removed: Fields, changed: Fields) -> Managed:
    """`managed` when all others have lost what is gone, and what I have changed."""
    found = {}
    for who, entry in managed.items():
        fields = entry.fields
        if who != me:
            fields = fieldset.difference(fieldset.difference(fields, changed), removed)
        if fields:
            found[who] = entry if fields is entry.fields else entry._replace(fields=fields)
    return found


def _capped(managed: Managed) -> Managed:
    """The oldest updates merged, one entry for each version (capManagersManager)."""
    oldest = sorted(
        (who for who in managed if who.operation == "Update"), key=lambda who: (managed[who].time, who)
    )
    found = dict(managed)
    first: dict[str, Identity] = {}
    left = len(oldest)
    for who in oldest:
        if left <= MOST_UPDATERS:
            break
        entry = found[who]
        if entry.version not in first:
            first[entry.version] = who
            continue
        bucket = Identity("Update", ANCIENT, entry.version, "")
        if bucket not in found:
            found[bucket] = found.pop(first[entry.version])
        fields = fieldset.union(found[bucket].fields, entry.fields)
        del found[who]
        found[bucket] = Entry(entry.version, entry.time, fields)
        left -= 1
    return found
