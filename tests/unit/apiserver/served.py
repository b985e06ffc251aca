"""The API of a cluster without a kernel, served on a real unix socket by a thread of this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nsk8s.api.topology import Topology
from nsk8s.api.types import Obj
from nsk8s.apiserver.server import ApiServer
from nsk8s.client import Client
from nsk8s.errors import ApiError
from nsk8s.paths import ClusterPaths
from tests.unit.cluster.worlds import World

DEADLINE = 20.0


class Served:
    """A world whose store is served; `client` talks to it. `within` runs something in the thread that
    owns the store, and what it changed is committed before it returns."""

    def __init__(self, paths: ClusterPaths, topology: Topology | None = None) -> None:
        self.paths = paths
        self.world = World(topology)
        self.world.store.commit()
        self.client = Client(paths)
        self.turns = 0
        self.loop = asyncio.new_event_loop()
        self.server = ApiServer(self.world.store, self.world.registry, self.turn)
        self.server.route("GET", "/nsk8s/v1/echo", self.echo)
        self.server.route("POST", "/nsk8s/v1/count", self.count)

    async def turn(self) -> None:
        self.turns += 1
        self.world.settle()
        self.server.notify(self.world.store.commit())

    async def echo(self, query: Obj) -> Obj:
        return {"query": query}

    async def count(self, body: Obj) -> AsyncIterator[Obj]:
        for number in range(body["to"]):
            yield {"number": number}
        if body.get("fail"):
            raise ApiError(422, "Invalid", "too far")

    def within(self, work: Callable[[], Any]) -> None:
        async def run() -> None:
            work()
            await self.turn()

        asyncio.run_coroutine_threadsafe(run(), self.loop).result(DEADLINE)


@contextmanager
def served(paths: ClusterPaths, topology: Topology | None = None) -> Iterator[Served]:
    """A served world, for as long as the context lasts."""
    paths.directory.mkdir(parents=True)
    found = Served(paths, topology)
    thread = threading.Thread(target=found.loop.run_forever)
    thread.start()
    listening = None
    try:
        listen = found.server.listen(paths.socket)
        listening = asyncio.run_coroutine_threadsafe(listen, found.loop).result(DEADLINE)
        yield found
    finally:
        kept = found.client._connection  # it has no other end than the process's
        if kept is not None:
            kept.close()
        if listening is not None:
            found.loop.call_soon_threadsafe(listening.close)
        asyncio.run_coroutine_threadsafe(_end(), found.loop).result(DEADLINE)
        found.loop.call_soon_threadsafe(found.loop.stop)
        thread.join(DEADLINE)
        found.loop.close()


async def _end() -> None:
    """Cancel what still runs in this loop."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
