"""The control plane's side of the stand-in servers (one for DNS, one for all else): starts them, asks them,
and starts them again if they die.

What is served is remembered here, so that a server that was killed is replaced by one that serves the same;
a new control plane learns from the server what it serves.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import Struct, field

from nsk8s.errors import HostError, Timeout
from nsk8s.kernel.forked import ForkServer
from nsk8s.paths import ClusterPaths
from nsk8s.workloads.images import Protocol
from nsk8s.workloads.kubeproxy import Place, Tells

log = logging.getLogger("nsk8s")

DEADLINE = 10.0
"""Seconds the server may take to listen; it takes a tenth of one."""
LIMIT = 64 * 1024 * 1024
"""Longest line of the protocol: what a list of 100,000 stand-ins needs."""
COMM, DNS_COMM = "nsk8s:standins", "nsk8s:dns"
"""What /proc/PID/comm calls the servers."""
ATTEMPTS = 3
"""How many servers may die over one request before it is given up."""


Key = tuple[str, str]
"""(pod UID, container): a container's stand-in, whichever attempt."""


class StandIn(Struct, frozen=True):
    """A container to be served: `behaviour` on `ports`, in the network of process `pid` (pause) as the
    control plane counts; `log` is the container's log file. `name` is the pod's, `ip` its primary address,
    `secondary` that of the other family, if it has one."""

    pod: str
    container: str
    attempt: int
    pid: int
    behaviour: str
    ports: tuple[tuple[Protocol, int], ...]
    name: str
    namespace: str
    node: str
    hostname: str
    ip: str
    log: str
    image: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    secondary: str = ""

    @property
    def resolver(self) -> bool:
        """Whether it answers DNS."""
        return self.behaviour == "dns"

    @property
    def key(self) -> Key:
        """What it is known by."""
        return self.pod, self.container

    def as_json(self) -> dict[str, Any]:
        """Its fields; the inverse is the constructor."""
        return {name: getattr(self, name) for name in self.__struct_fields__}


class Program(NamedTuple):
    """A stand-in server's code: what /proc/PID/comm calls it, its module, and `arguments` of its own."""

    comm: str
    module: str
    arguments: tuple[str, ...] = ()


Lost = Callable[[Key, str], None]
"""Called with a stand-in that a new server could not take over, and why."""


class Servers:
    """The stand-in servers of one cluster: DNS has one of its own, so that it waits for nobody."""

    def __init__(self, paths: ClusterPaths, forks: ForkServer, lost: Lost | None = None) -> None:
        """`forks` starts them: best one that has loaded most of what they need."""
        others = Program(COMM, "nsk8s.workloads.standin_server")
        self._others = StandIns(paths, forks, paths.standins, others, lost)
        dns = Program(DNS_COMM, "nsk8s.workloads.dns.server", (os.fspath(paths.socket),))
        self._dns = StandIns(paths, forks, paths.dns, dns, lost)
        self._resolvers: set[Key] = set()

    async def start(self) -> list[tuple[str, str, int]]:
        """Connect to the server, starting it if none listens, and to that of DNS if it is there; returns what
        they serve, as `StandIns.start`."""
        served = await self._others.start()
        return served + await self.start_dns() if self._dns.path.exists() else served

    async def start_dns(self) -> list[tuple[str, str, int]]:
        """The same with the server of DNS."""
        served = await self._dns.start()
        self._resolvers.update((pod, container) for pod, container, _ in served)
        return served

    async def serve(self, standins: Iterable[StandIn]) -> dict[Key, str]:
        """As `StandIns.serve`."""
        wanted: dict[bool, list[StandIn]] = {}
        for one in standins:
            wanted.setdefault(one.resolver, []).append(one)
        self._resolvers.update(one.key for one in wanted.get(True, ()))
        asked = [(self._dns if dns else self._others).serve(some) for dns, some in wanted.items()]
        return {key: why for errors in await asyncio.gather(*asked) for key, why in errors.items()}

    async def stop(self, keys: Iterable[Key]) -> None:
        """As `StandIns.stop`."""
        gone = list(keys)
        dns = self._resolvers.intersection(gone)
        self._resolvers -= dns
        if dns:
            await self._dns.stop(dns)
        if len(dns) < len(gone):
            await self._others.stop(key for key in gone if key not in dns)

    async def listen(self, places: Mapping[Place, Tells]) -> dict[Place, str]:
        """As `StandIns.listen`."""
        return await self._others.listen(places)

    async def close(self) -> None:
        """Let go of the servers; they serve on."""
        await self._others.close()
        await self._dns.close()


class StandIns:
    """One stand-in server of a cluster, listening on the unix socket `path`."""

    def __init__(
        self,
        paths: ClusterPaths,
        forks: ForkServer,
        path: Path,
        program: Program,
        lost: Lost | None = None,
    ) -> None:
        self._paths = paths
        self._forks = forks
        self.path = path
        self._program = program
        self._lost = lost
        self._connecting = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: deque[asyncio.Future[dict[str, Any]]] = deque()
        self._served: dict[Key, StandIn] = {}
        self._places: dict[Place, Tells] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> list[tuple[str, str, int]]:
        """Connect to the server, starting it if none listens; returns what it serves as (pod UID,
        container, attempt). Raises HostError, Timeout."""
        answer = await self._ask({"op": "list"})
        served = [StandIn(**one) for one in answer["standins"]]
        self._served = {one.key: one for one in served}
        return [(*one.key, one.attempt) for one in served]

    async def serve(self, standins: Iterable[StandIn]) -> dict[Key, str]:
        """Open the stand-ins' sockets; returns why some could not be ("listen on 80/TCP: address already
        in use"). The same attempt again is no error, another one replaces it."""
        wanted = list(standins)
        answer = await self._ask({"op": "serve", "standins": [one.as_json() for one in wanted]})
        errors = {(pod, container): why for pod, container, why in answer["errors"]}
        self._served |= {one.key: one for one in wanted if one.key not in errors}
        return errors

    async def stop(self, keys: Iterable[Key]) -> None:
        """Close everything of these stand-ins; one that is not served is no error."""
        gone = list(keys)
        for key in gone:
            self._served.pop(key, None)
        await self._ask({"op": "stop", "keys": gone})

    async def listen(self, places: Mapping[Place, Tells]) -> dict[Place, str]:
        """Let kube-proxy's own ports be these and no others; returns where that cannot be, and why."""
        self._places = dict(places)
        answer = await self._ask({"op": "listen", "places": list(self._places.items())})
        return {(pid, address, port): why for (pid, address, port), why in answer["errors"]}

    async def close(self) -> None:
        """Let go of the server; it serves on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._writer:
            self._writer.close()
            self._writer = None

    # --- the connection -----------------------------------------------------------------------------------

    async def _open(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is None:
                reader, self._writer = await self._connect()
                self._spawn(self._read(reader, self._writer))
            return self._writer

    async def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """One question, one answer; asked again of a new server if the first one dies over it."""
        line = json.dumps(order).encode() + b"\n"
        for _ in range(ATTEMPTS):
            writer = await self._open()
            answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
            self._waiting.append(answer)
            writer.write(line)
            with suppress(ConnectionError):
                return await answer
        raise HostError(
            f"the stand-in server of cluster {self._paths.cluster!r} died {ATTEMPTS} times over one request",
            hint=f"see {self._paths.daemon_log}",
        )

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand out answers until the server is gone; then replace it."""
        with suppress(ConnectionError):
            while line := await reader.readline():
                answer = self._waiting.popleft()
                if not answer.done():  # its asker may have been cancelled
                    answer.set_result(json.loads(line))
        writer.close()
        self._writer = None
        while self._waiting:
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(ConnectionResetError("the stand-in server is gone"))
        log.warning("the stand-in server is gone; starting it again with %d stand-ins", len(self._served))
        self._spawn(self._replace(list(self._served.values())))

    async def _replace(self, served: list[StandIn]) -> None:
        await self.listen(self._places)
        for key, why in (await self.serve(served)).items():
            self._served.pop(key, None)
            if self._lost:
                self._lost(key, why)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_unix_connection(self.path, limit=LIMIT)
        except (FileNotFoundError, ConnectionRefusedError):
            await self._launch()
            return await asyncio.open_unix_connection(self.path, limit=LIMIT)

    async def _launch(self) -> None:
        log_file = os.fspath(self._paths.daemon_log)
        words = (log_file, self._program.module, os.fspath(self.path), *self._program.arguments)
        with self._forks.start(self._program.comm, _serve, words) as ready:
            if not await _readable(ready, DEADLINE):
                raise Timeout(f"the stand-in server did not listen within {DEADLINE:.0f} s")
            if not ready.recv(16):
                raise HostError("the stand-in server ended while starting", hint=f"see {log_file}")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("stand-ins: %s", error)


def _serve(ready: socket.socket, log_file: str, module: str, *arguments: str) -> None:
    """Be a server, from the fork on and for ever; `ready` hears when it listens."""
    os.setsid()  # it outlives the control plane
    os.umask(0o077)
    fd = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for stream in (1, 2):
        os.dup2(fd, stream)
    os.close(fd)
    importlib.import_module(module).serve(ready, *arguments)


async def _readable(file: socket.socket, deadline: float) -> bool:
    loop = asyncio.get_running_loop()
    happened = asyncio.Event()
    loop.add_reader(file, happened.set)
    try:
        async with asyncio.timeout(deadline):
            await happened.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(file)
    return True
