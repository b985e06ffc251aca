"""Watches: who follows which objects, and what each is told.

An event is encoded once for each form (whole object, table row) and its bytes are shared by all watchers
that want it. A watcher that does not read is dropped, never waited for.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager

import msgspec

from nsk8s.api.types import Obj
from nsk8s.apiserver.addressing import Filter
from nsk8s.apiserver.forms import Form
from nsk8s.cluster.store import Change

Audience = dict["Watcher", None]
"""Watchers of the same objects in the same form: what one of them is told, all are told."""

BACKLOG = 20_000
"""Events a watcher may be behind before it is dropped; it comes back with its last resourceVersion."""
PAUSE = 2.0
"""For how long watchers are left alone after they were woken, as a multiple of the time that they took: a
hundred of them would take all the time there is, were they to send each event by itself."""


def event(about: Filter, change: Change) -> tuple[str, Obj] | None:
    """What a change is to a watcher of these objects: one that leaves the selection is DELETED, one that
    enters it ADDED; None if it is nothing."""
    if change.key.resource != about.stored_as:
        return None
    if about.everything:
        return change.type, change.new
    now = change.type != "DELETED" and about.passes(change.new)
    before = change.old is not None and about.passes(change.old)
    if now:
        return ("MODIFIED" if before else "ADDED"), change.new
    return ("DELETED", change.new) if before else None


def events(about: Filter, changes: Iterable[Change]) -> Iterator[tuple[str, Obj]]:
    """All that `changes` are to a watcher of these objects."""
    for change in changes:
        found = event(about, change)
        if found is not None:
            yield found


class Watcher:
    """One client's watch. `drop` ends its connection, whatever it is doing."""

    def __init__(self, about: Filter, form: Form, drop: Callable[[], None]) -> None:
        self.about = about
        self.form = form
        self._drop = drop
        self._lines: list[bytes] = []
        self._waiting: asyncio.Future[None] | None = None
        self._dropped = False

    def tell(self, text: bytes) -> None:
        """Queue one line, to be sent when the watcher is woken; one that is too far behind is dropped
        instead."""
        if len(self._lines) >= BACKLOG:
            if not self._dropped:
                self._dropped = True
                self._drop()
            return
        self._lines.append(text)

    def wake(self) -> None:
        """Let it send what it has."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def told(self) -> list[bytes]:
        """Wait for lines; all that there are by then."""
        if not self._lines:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        found, self._lines = self._lines, []
        return found


class Watchers:
    """All watches of the server, by resource."""

    def __init__(self) -> None:
        self._audiences: dict[str, dict[tuple[Filter, Hashable], Audience]] = {}
        self._told: dict[Watcher, None] = {}
        self._waking: asyncio.TimerHandle | None = None
        self._begun = self._next = 0.0

    def __len__(self) -> int:
        """How many there are."""
        return sum(len(one) for audiences in self._audiences.values() for one in audiences.values())

    def notify(self, changes: Iterable[Change]) -> None:
        """Tell everybody concerned; `changes` are committed."""
        if not self._audiences:
            return
        for change in changes:
            lines: dict[tuple[str, Hashable], bytes] = {}
            for (about, form), audience in self._audiences.get(change.key.resource, {}).items():
                found = event(about, change)
                if found is None:
                    continue
                text = lines.get((found[0], form))
                if text is None:
                    text = lines[found[0], form] = next(iter(audience)).form.event(*found)
                for watcher in audience:
                    watcher.tell(text)
                self._told |= audience
        if self._told and self._waking is None:
            self._waking = asyncio.get_running_loop().call_at(self._next, self._wake)

    def _wake(self) -> None:
        """Wake everybody who has been told something, and see how long sending it takes."""
        loop = asyncio.get_running_loop()
        told, self._told = self._told, {}
        loop.call_soon(self._begin)  # what is ready before that is others' work
        for watcher in told:
            watcher.wake()
        loop.call_soon(self._rest)

    def _begin(self) -> None:
        self._begun = asyncio.get_running_loop().time()

    def _rest(self) -> None:
        now = asyncio.get_running_loop().time()
        self._next = now + PAUSE * (now - self._begun)
        self._waking = None
        if self._told:
            self._waking = asyncio.get_running_loop().call_at(self._next, self._wake)

    @contextmanager
    def following(self, watcher: Watcher) -> Iterator[None]:
        """From now on, `watcher` is told of every change."""
        key = watcher.about, watcher.form.key
        audiences = self._audiences.setdefault(watcher.about.stored_as, {})
        audiences.setdefault(key, {})[watcher] = None
        try:
            yield
        finally:
            del audiences[key][watcher]
            if not audiences[key]:
                del audiences[key]


def line(kind: str, obj: Obj) -> bytes:
    """One event of a watch."""
    return msgspec.json.encode({"type": kind, "object": obj}) + b"\n"


def bookmark(form: Form, revision: int, *, initial_end: bool = False) -> bytes:
    """A BOOKMARK event: nothing but a resourceVersion. With `initial_end` it says that the initial events
    of a streaming list are complete (KEP-3157), and how an empty list looks in this form."""
    meta: Obj = {"resourceVersion": str(revision), "creationTimestamp": None}
    if initial_end:
        meta["annotations"] = {
            "k8s.io/initial-events-end": "true",
            "kubernetes.io/initial-events-list-blueprint": base64.b64encode(form.many((), {})).decode(),
        }
    return line("BOOKMARK", {"kind": form.kind, "apiVersion": form.api_version, "metadata": meta})
