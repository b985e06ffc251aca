"""A cluster without a kernel, served by plain HTTP on loopback: everything decides as usual, and whatever the
kubelets ask for goes well at once. For what the control plane tells kubectl over time."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from nsk8s.apiserver.authentication import ADMIN
from nsk8s.apiserver.connections import Listener
from nsk8s.apiserver.server import ApiServer
from nsk8s.cluster.lifecycle import Event
from nsk8s.cluster.store import NoJournal, Store
from nsk8s.daemon.loop import Loop
from nsk8s.daemon.rehearsal import answer
from nsk8s.daemon.server import SUFFIX_LETTERS
from tests.unit.cluster.worlds import three_nodes

DEADLINE = 20.0


class Played:
    """The cluster; `kubeconfig` leads to it."""

    def __init__(self) -> None:
        source = random.Random(1)
        self.store = Store(
            NoJournal(),
            uid=lambda: str(uuid.UUID(int=source.getrandbits(128), version=4)),
            suffix=lambda: "".join(source.choices(SUFFIX_LETTERS, k=5)),
            now=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        self.decisions = Loop(self.store, three_nodes(), {"cpu": "2", "memory": "4000000Ki"})
        self.loop = asyncio.new_event_loop()
        self.server = ApiServer(self.store, self.decisions.registry, self.turn)
        self._listener: Listener | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    async def turn(self) -> None:
        self._turn(())

    def _turn(self, events: tuple[Event, ...]) -> None:
        commands, changes = self.decisions.turn(time.time(), events)
        self.server.notify(changes)
        said = tuple(event for command in commands for event in answer(command))
        if said:
            self.loop.call_soon(self._turn, said)
        if self._timer is not None:
            self._timer.cancel()
        wake = self.decisions.wake()
        if wake is not None:
            self._timer = self.loop.call_later(max(0.0, wake - time.time()), self._turn, ())

    def happen(self, *events: Event) -> None:
        """Something happens to pods; may be called from any thread."""
        self.loop.call_soon_threadsafe(self._turn, events)

    async def begin(self) -> None:
        """Listen."""
        self._listener = await self.server.serve(self._socket, lambda _: ADMIN)
        self.decisions.adopt(set(), {}, time.time())
        self._turn(())

    async def end(self) -> None:
        """Listen no more, and forget what still waits."""
        if self._listener is not None:
            await self._listener.close()
        self._socket.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    @property
    def kubeconfig(self) -> str:
        """For kubectl."""
        return (
            "apiVersion: v1\nkind: Config\ncurrent-context: played\n"
            f"clusters: [{{name: played, cluster: {{server: '{self.address}'}}}}]\n"
            "users: [{name: admin, user: {}}]\n"
            "contexts: [{name: played, context: {cluster: played, user: admin}}]\n"
        )


@contextmanager
def played() -> Iterator[Played]:
    """A played cluster, for as long as the context lasts."""
    found = Played()
    thread = threading.Thread(target=found.loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(found.begin(), found.loop).result(DEADLINE)
        yield found
    finally:
        asyncio.run_coroutine_threadsafe(found.end(), found.loop).result(DEADLINE)
        found.loop.call_soon_threadsafe(found.loop.stop)
        thread.join(DEADLINE)
        found.loop.close()
