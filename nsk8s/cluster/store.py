"""The objects of one cluster: keys, revisions, indexes and the watch log.

What etcd and the API server's storage layer are to a real cluster. One global, increasing
resourceVersion; every change is logged so that a watch can go on from where it was. Objects are plain
dicts and never changed in place: whoever wants a change makes a new dict and calls `update`.

Changes become durable, and visible to `since`, when `commit` returns; nothing may be acknowledged
to a client before that. A `Journal` keeps them (SQLite in the daemon; a distributed store can take its
place), `NoJournal` forgets. What is decided inside the control plane reads every change at once, with a
`Cursor`, whether it is committed yet or not.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec
from msgspec import Struct

from nsk8s.api.types import Obj
from nsk8s.api.views import View, view
from nsk8s.cluster.objectmeta import WITHOUT_GENERATION
from nsk8s.errors import ApiError

LOG_LENGTH = 16384
"""Changes kept for watches to resume from; an older resourceVersion is answered with 410 Expired."""


class Key(NamedTuple):
    """Where an object is: group-resource (``pods``, ``deployments.apps``), namespace ("" for
    cluster-scoped ones) and name."""

    resource: str
    namespace: str
    name: str


class Change(Struct, frozen=True):
    """One entry of the watch log. `old` is None for ADDED; for DELETED `new` is the last state, carrying
    the revision of its deletion."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    key: Key
    revision: int
    old: Obj | None
    new: Obj


class Journal(Protocol):
    """Where the store's changes survive the control plane."""

    def load(self) -> tuple[int, Iterable[tuple[str, Obj]]]:
        """The last revision written, and every object with its group-resource."""

    def write(self, revision: int, changes: Sequence[Change], encoded: Callable[[Obj], bytes]) -> None:
        """Make `changes` durable, all or none; returns when they are. `encoded` gives an object as JSON."""


class NoJournal:
    """A journal that forgets: for tests and dry runs."""

    def load(self) -> tuple[int, Iterable[tuple[str, Obj]]]:
        """Nothing was ever written."""
        return 0, ()

    def write(self, revision: int, changes: Sequence[Change], encoded: Callable[[Obj], bytes]) -> None:
        """Forget."""


class Store:
    """All objects. `uid`, `suffix` and `now` are the only sources of novelty: a UUID, five characters for
    generated names, and the time as RFC 3339 (``2026-11-23T20:33:00Z``)."""

    def __init__(
        self,
        journal: Journal,
        *,
        uid: Callable[[], str],
        suffix: Callable[[], str],
        now: Callable[[], str],
    ) -> None:
        self._journal = journal
        self.uid = uid
        self.suffix = suffix
        self.now = now
        self._objects: dict[str, dict[str, dict[str, Obj]]] = {}
        self._views: dict[Key, View] = {}
        self._encoded: dict[str, tuple[Obj, bytes]] = {}
        self._encode = msgspec.json.Encoder().encode
        self._labels: dict[tuple[str, str, str, str], dict[str, None]] = {}
        self._owned: dict[str, dict[Key, None]] = {}
        self._log: deque[Change] = deque(maxlen=LOG_LENGTH)
        self._pending: list[Change] = []
        self.rollbacks = 0
        self.revision, stored = journal.load()
        self._oldest = self.revision
        for resource, obj in stored:
            self._put(key_of(resource, obj), obj)
            self._encoded[obj["metadata"].get("uid", "")] = obj, b""

    # --- reading ------------------------------------------------------------------------------------

    def get(self, resource: str, namespace: str, name: str) -> Obj | None:
        """The object, or None."""
        return self._objects.get(resource, {}).get(namespace, {}).get(name)

    def find(self, resource: str, namespace: str, name: str) -> Obj:
        """The object; raises `ApiError` 404 NotFound in the API server's words."""
        obj = self.get(resource, namespace, name)
        if obj is None:
            raise ApiError(404, "NotFound", f'{resource} "{name}" not found', kind=resource, name=name)
        return obj

    def list(self, resource: str, namespace: str | None = None) -> Iterator[Obj]:
        """Objects of a resource in namespace/name order, in one namespace or (None) in all."""
        spaces = self._objects.get(resource, {})
        for space in sorted(spaces) if namespace is None else (namespace,):
            objects = spaces.get(space, {})
            yield from [objects[name] for name in sorted(objects)]

    def count(self, resource: str) -> int:
        """How many objects a resource has."""
        return sum(len(objects) for objects in self._objects.get(resource, {}).values())

    def resources(self) -> tuple[str, ...]:
        """Every group-resource that holds an object."""
        return tuple(sorted(r for r, spaces in self._objects.items() if any(spaces.values())))

    def select(self, resource: str, namespace: str, labels: Mapping[str, str]) -> Iterator[Obj]:
        """Objects in `namespace` that carry all of `labels`, by index, in name order. An empty
        selector selects nothing (a Service without a selector has no endpoints of its own)."""
        sets = [self._labels.get((resource, namespace, k, v), {}) for k, v in labels.items()]
        if not sets:
            return
        smallest = min(sets, key=len)
        found = sorted(smallest)
        if len(sets) > 1:
            found = [name for name in found if all(name in names for names in sets)]
        if found:
            objects = self._objects[resource][namespace]
            yield from [objects[name] for name in found]

    def owned(self, uid: str) -> tuple[Key, ...]:
        """Keys of the objects that name `uid` in an ownerReference."""
        return tuple(self._owned.get(uid, ()))

    def view(self, key: Key) -> View | None:
        """The typed view of an object of a kind in `VIEWS`, converted once a revision; None if gone."""
        cached = self._views.get(key)
        if cached is None:
            obj = self.get(*key)
            if obj is None:
                return None
            cached = self._views[key] = view(obj)
        return cached

    def encoded(self, obj: Obj) -> bytes:
        """An object as JSON; encoded once if it is a committed one, for the journal and for everybody who
        gets, lists or watches it."""
        uid = obj["metadata"].get("uid", "")
        known, text = self._encoded.get(uid, (None, b""))
        if known is not obj:
            return self._encode(obj)
        if not text:
            text = self._encode(obj)
            self._encoded[uid] = obj, text
        return text

    def views(self, resource: str, namespace: str | None = None) -> Iterator[View]:
        """Typed views of a resource's objects, in namespace/name order."""
        for obj in self.list(resource, namespace):
            found = self.view(key_of(resource, obj))
            if found is not None:
                yield found

    # --- writing ------------------------------------------------------------------------------------

    def create(self, resource: str, obj: Obj) -> Obj:
        """Store a new object; fills metadata.uid (unless it is known), resourceVersion, creationTimestamp, a
        generated name, and the generation where the kind has one. Raises `ApiError` 409 AlreadyExists."""
        meta = dict(obj.get("metadata") or {})
        spaces = self._objects.get(resource, {})
        namespace = meta.get("namespace", "")
        if not meta.get("name") and meta.get("generateName"):
            prefix = meta["generateName"]
            taken = spaces.get(namespace, {})
            while (name := prefix + self.suffix()) in taken:
                pass
            meta["name"] = name
        if meta["name"] in spaces.get(namespace, {}):
            raise ApiError(
                409,
                "AlreadyExists",
                f'{resource} "{meta["name"]}" already exists',
                kind=resource,
                name=meta["name"],
            )
        meta["uid"] = meta.get("uid") or self.uid()
        meta["creationTimestamp"] = self.now()
        if resource not in WITHOUT_GENERATION:
            meta["generation"] = 1
        return self._record("ADDED", resource, None, {**obj, "metadata": meta})

    def update(self, resource: str, obj: Obj, *, generation: bool = True) -> Obj:
        """Replace an object. A resourceVersion in `obj` that is not the stored one raises `ApiError`
        409 Conflict; leave it out to write unconditionally. The generation grows when `spec` changes.
        An update that changes nothing is not recorded."""
        meta = dict(obj["metadata"])
        old = self.find(resource, meta.get("namespace", ""), meta["name"])
        stored = old["metadata"]
        wanted = meta.get("resourceVersion")
        if wanted and wanted != stored["resourceVersion"]:
            raise ApiError(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {resource} "{meta["name"]}": the object has been '
                "modified; please apply your changes to the latest version and try again",
                kind=resource,
                name=meta["name"],
            )
        for field in ("uid", "creationTimestamp", "generation", "resourceVersion"):
            if field in stored:
                meta[field] = stored[field]
            else:
                meta.pop(field, None)
        new = {**obj, "metadata": meta}
        if new == old:
            return old
        if generation and "generation" in stored and new.get("spec") != old.get("spec"):
            meta["generation"] = stored["generation"] + 1
        return self._record("MODIFIED", resource, old, new)

    def delete(self, resource: str, namespace: str, name: str) -> Obj:
        """Remove an object at once; graceful deletion is the registry's business."""
        old = self.find(resource, namespace, name)
        return self._record("DELETED", resource, old, {**old, "metadata": dict(old["metadata"])})

    # --- the watch log ------------------------------------------------------------------------------

    def pending(self) -> Sequence[Change]:
        """Changes made since the last commit, oldest first."""
        return tuple(self._pending)

    def commit(self) -> Sequence[Change]:
        """Make all pending changes durable and visible to `since`; returns them. If the journal cannot
        be written they stay pending."""
        done = self._pending
        if done:
            self._remember(done)
            self._journal.write(self.revision, done, self.encoded)
            self._pending = []
            for change in done:
                if len(self._log) == LOG_LENGTH:
                    self._oldest = self._log[0].revision
                self._log.append(change)
        return done

    def rollback(self) -> None:
        """Undo all changes since the last commit, as if nobody had asked for them. Their revisions are
        not used again, and every `Cursor` starts over."""
        if not self._pending:
            return
        for change in reversed(self._pending):
            if change.type != "DELETED":
                self._drop(change.key, change.new)
            if change.old is not None:
                self._put(change.key, change.old)
        self._pending = []
        self.rollbacks += 1

    def changes(self, after: int) -> Sequence[Change]:
        """Changes after the revision `after`, oldest first, committed or not; costs only what it returns.
        Raises `ApiError` 410 Expired when they are forgotten."""
        if after >= self.revision:
            return ()
        first = bisect_right(self._pending, after, key=_revision)
        if first:
            return self._pending[first:]
        return [*self.since(after), *self._pending]

    def since(self, revision: int) -> Sequence[Change]:
        """Committed changes after `revision`. Raises `ApiError` 410 Expired when they are forgotten."""
        if revision < self._oldest:
            raise ApiError(410, "Expired", f"too old resource version: {revision} ({self._oldest})")
        newer: deque[Change] = deque()
        for change in reversed(self._log):
            if change.revision <= revision:
                break
            newer.appendleft(change)
        return tuple(newer)

    # --- inside -------------------------------------------------------------------------------------

    def _record(
        self,
        type_: Literal["ADDED", "MODIFIED", "DELETED"],
        resource: str,
        old: Obj | None,
        new: Obj,
    ) -> Obj:
        self.revision += 1
        new["metadata"]["resourceVersion"] = str(self.revision)
        key = key_of(resource, new)
        if type_ == "MODIFIED" and old is not None and _indexed(old) == _indexed(new):
            self._objects[resource][key.namespace][key.name] = new
            self._views.pop(key, None)
        else:
            if old is not None:
                self._drop(key, old)
            if type_ != "DELETED":
                self._put(key, new)
        self._pending.append(Change(type_, key, self.revision, old, new))
        return new

    def _remember(self, changes: Sequence[Change]) -> None:
        """What `changes` have left behind is worth encoding only once."""
        for key, change in {change.key: change for change in changes}.items():
            uid = change.new["metadata"]["uid"]
            if change.type == "DELETED":
                self._encoded.pop(uid, None)
            elif self.get(*key) is change.new:
                self._encoded[uid] = change.new, b""

    def _put(self, key: Key, obj: Obj) -> None:
        self._objects.setdefault(key.resource, {}).setdefault(key.namespace, {})[key.name] = obj
        for label, value in (obj["metadata"].get("labels") or {}).items():
            self._labels.setdefault((key.resource, key.namespace, label, value), {})[key.name] = None
        for owner in obj["metadata"].get("ownerReferences") or ():
            self._owned.setdefault(owner["uid"], {})[key] = None

    def _drop(self, key: Key, obj: Obj) -> None:
        del self._objects[key.resource][key.namespace][key.name]
        self._views.pop(key, None)
        for label, value in (obj["metadata"].get("labels") or {}).items():
            index = (key.resource, key.namespace, label, value)
            self._labels[index].pop(key.name, None)
            if not self._labels[index]:
                del self._labels[index]
        for owner in obj["metadata"].get("ownerReferences") or ():
            keys = self._owned.get(owner["uid"], {})  # one owner may be named twice
            keys.pop(key, None)
            if not keys:
                self._owned.pop(owner["uid"], None)


class Cursor:
    """How far a reader of the store's changes has come."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._revision = -1
        self._rollbacks = 0

    def read(self) -> Sequence[Change] | None:
        """What has changed since the last call. None: list everything anew, for this is the first call,
        or changes were rolled back, or too many were missed."""
        store = self._store
        after, self._revision = self._revision, store.revision
        if after < 0 or self._rollbacks != store.rollbacks:
            self._rollbacks = store.rollbacks
            return None
        try:
            return store.changes(after)
        except ApiError:
            return None


def key_of(resource: str, obj: Obj) -> Key:
    """The key of an object of `resource`."""
    meta = obj["metadata"]
    return Key(resource, meta.get("namespace", ""), meta["name"])


def _indexed(obj: Obj) -> tuple[object, object]:
    meta = obj["metadata"]
    return meta.get("labels"), meta.get("ownerReferences")


def _revision(change: Change) -> int:
    return change.revision
