"""Watches: who follows which objects, and what each is told.

An event is encoded once for each form (whole object, table row) and its bytes are shared by all watchers
that want it. A watcher that does not read is dropped, never waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import msgspec

from nsk8s.api.kinds import Resource
from nsk8s.api.types import Obj
from nsk8s.apiserver.addressing import Filter
from nsk8s.cluster.store import Change

BACKLOG = 20_000
"""Events a watcher may be behind before it is dropped; it comes back with its last resourceVersion."""

Form = Callable[[Obj], Obj]
"""How an object is shown: as it is, or as a row of a table."""


class Watcher:
    """One client's watch. `drop` ends its connection, whatever it is doing."""

    def __init__(self, about: Filter, form: Form, form_name: str, drop: Callable[[], None]) -> None:
        self.about = about
        self.form = form
        self.form_name = form_name
        self._drop = drop
        self._lines: asyncio.Queue[bytes] = asyncio.Queue(BACKLOG)

    def event(self, change: Change) -> tuple[str, Obj] | None:
        """What this change is to this watcher: an object that leaves its selection is DELETED, one that
        enters it ADDED; None if it is nothing."""
        if change.key.resource != self.about.address.resource.name:
            return None
        now = change.type != "DELETED" and self.about.passes(change.new)
        before = change.old is not None and self.about.passes(change.old)
        if now:
            return ("MODIFIED" if before else "ADDED"), change.new
        return ("DELETED", change.new) if before else None

    def events(self, changes: Iterable[Change]) -> Iterator[tuple[str, Obj]]:
        """All that `changes` are to this watcher."""
        for change in changes:
            found = self.event(change)
            if found is not None:
                yield found

    def tell(self, text: bytes) -> None:
        """Queue one line; a watcher that is too far behind is dropped instead."""
        try:
            self._lines.put_nowait(text)
        except asyncio.QueueFull:
            self._drop()

    async def told(self) -> bytes:
        """Wait for lines; all that there are by then."""
        found = [await self._lines.get()]
        while not self._lines.empty():
            found.append(self._lines.get_nowait())
        return b"".join(found)


class Watchers:
    """All watches of the server."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._watchers)

    def notify(self, changes: Iterable[Change]) -> None:
        """Tell everybody concerned; `changes` are committed."""
        if not self._watchers:
            return
        for change in changes:
            lines: dict[tuple[str, str], bytes] = {}
            for watcher in self._watchers:
                event = watcher.event(change)
                if event is None:
                    continue
                key = (event[0], watcher.form_name)
                if key not in lines:
                    lines[key] = line(event[0], watcher.form(event[1]))
                watcher.tell(lines[key])

    @contextmanager
    def following(self, watcher: Watcher) -> Iterator[None]:
        """From now on, `watcher` is told of every change."""
        self._watchers.add(watcher)
        try:
            yield
        finally:
            self._watchers.discard(watcher)


def line(kind: str, obj: Obj) -> bytes:
    """One event of a watch."""
    return msgspec.json.encode({"type": kind, "object": obj}) + b"\n"


def bookmark(resource: Resource, revision: int, *, initial_end: bool = False) -> bytes:
    """A BOOKMARK event: nothing but a resourceVersion. With `initial_end` it says that the initial events
    of a streaming list are complete (KEP-3157)."""
    meta: Obj = {"resourceVersion": str(revision), "creationTimestamp": None}
    if initial_end:
        meta["annotations"] = {"k8s.io/initial-events-end": "true"}
    return line("BOOKMARK", {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta})
