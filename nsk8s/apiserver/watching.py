"""Watches: who follows which objects, and what each is told.

An event is encoded once for each form (whole object, table row) and its bytes are shared by all watchers
that want it. A watcher that does not read is dropped, never waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import msgspec

from nsk8s.api.types import Obj
from nsk8s.apiserver.addressing import Filter
from nsk8s.cluster.store import Change

BACKLOG = 20_000
"""Events a watcher may be behind before it is dropped; it comes back with its last resourceVersion."""

Form = Callable[[Obj], Obj]
"""How an object is shown: as it is, or as a table."""


class Watcher:
    """One client's watch."""

    def __init__(self, about: Filter, form: Form, form_name: str) -> None:
        self.about = about
        self.form = form
        self.form_name = form_name
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue(BACKLOG)

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

    def tell(self, line: bytes) -> None:
        """Queue one line; a watcher that is too far behind is ended instead."""
        try:
            self.queue.put_nowait(line)
        except asyncio.QueueFull:
            self.queue = asyncio.Queue(1)
            self.queue.put_nowait(None)


class Watchers:
    """All watches of the server."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()

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

    async def follow(self, watcher: Watcher, missed: Sequence[Change]) -> AsyncIterator[bytes]:
        """The lines for one watcher: first what it `missed`, then what comes, until it is dropped. Must be
        iterated from the moment when `missed` was taken, without awaiting in between."""
        self._watchers.add(watcher)
        try:
            for change in missed:
                event = watcher.event(change)
                if event is not None:
                    yield line(event[0], watcher.form(event[1]))
            while (text := await watcher.queue.get()) is not None:
                yield text
        finally:
            self._watchers.discard(watcher)


def line(kind: str, obj: Obj) -> bytes:
    """One event of a watch."""
    return msgspec.json.encode({"type": kind, "object": obj}) + b"\n"
