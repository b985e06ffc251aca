"""kube-proxy's own ports on the nodes: its health, its mode, and whether a node has endpoints of a service.

They are served by the stand-in server, for they must answer while the control plane is dead. What is told is
what was said last; the sockets stand in the nodes' network namespaces.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from contextlib import suppress
from email.utils import formatdate
from functools import partial
from http import HTTPStatus

import h11

from nsk8s.kernel.listening import listening
from nsk8s.kernel.namespaces import inside

Place = tuple[int, str, int]
"""The node's pause process, the address (empty for all) and the port."""
Tells = tuple[str | int, ...]
"""As `dataplane.proxyports.Listener` has it."""
Answer = tuple[int, tuple[tuple[str, str], ...], str]
"""Status, headers, body."""

IDLE = 75.0
"""Seconds after which a silent connection is closed."""
STARTED = time.monotonic()

_JSON = ("Content-Type", "application/json")
_TEXT = ("Content-Type", "text/plain; charset=utf-8")
_NOSNIFF = ("X-Content-Type-Options", "nosniff")
_MISSING: Answer = 404, (_TEXT, _NOSNIFF), "404 page not found\n"


def answer(tells: Tells, path: str, now: str) -> Answer:
    """What is told to who asks for `path`; `now` as Go prints a time."""
    match tells, path:
        case ("service", namespace, name, int(count)), _:
            weight = ("X-Load-Balancing-Endpoint-Weight", str(count))
            return 200 if count else 503, (_JSON, _NOSNIFF, weight), _service(namespace, name, count)
        case ("healthz",), "/healthz":
            times = f'"lastUpdated": "{now}","currentTime": "{now}"'
            return 200, (_JSON, _NOSNIFF), f'{{{times}, "nodeEligible": true}}'
        case ("healthz",), "/livez":
            return 200, (_JSON, _NOSNIFF), f'{{"lastUpdated": "{now}","currentTime": "{now}"}}'
        case ("metrics", mode), "/proxyMode":
            return 200, (_TEXT, _NOSNIFF), str(mode)
        case ("metrics", _), "/healthz":
            return 200, (_TEXT, _NOSNIFF), "ok"
        case _:
            return _MISSING


def _service(namespace: str | int, name: str | int, count: int) -> str:
    whole = {
        "service": {"namespace": namespace, "name": name},
        "localEndpoints": count,
        "serviceProxyHealthy": True,
    }
    return json.dumps(whole, indent="\t")


def _now() -> str:
    """Go's time.Time.String: with the seconds since the process began."""
    seconds = time.time_ns()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds // 10**9))
    return f"{stamp}.{seconds % 10**9:09d} +0000 UTC m=+{time.monotonic() - STARTED:.9f}"


class Ports:
    """All of kube-proxy's ports of a cluster. `visitor` is the thread that goes into the nodes' networks."""

    def __init__(self, visitor: Executor) -> None:
        self._loop = asyncio.get_running_loop()
        self._visitor = visitor
        self._tells: dict[Place, Tells] = {}
        self._servers: dict[Place, asyncio.Server] = {}
        self._clients: dict[Place, set[asyncio.StreamWriter]] = {}
        self._nodes: dict[int, int] = {}  # pidfds: an open socket would keep a dead node's network alive

    async def listen(self, wanted: Mapping[Place, Tells]) -> dict[Place, str]:
        """Listen at all `wanted` places and nowhere else; returns where that cannot be, and why."""
        for place in [place for place in self._servers if place not in wanted]:
            self._close(place)
        self._tells = dict(wanted)
        missing = [place for place in wanted if place not in self._servers]
        errors: dict[Place, str] = {}
        for place, opened in (await self._loop.run_in_executor(self._visitor, open_all, missing)).items():
            if isinstance(opened, str):
                errors[place] = opened
                continue
            self._clients[place] = set()
            handler = partial(self._serve, place)
            self._servers[place] = await asyncio.start_server(handler, sock=opened)
            self._attend(place[0])
        return errors

    def _attend(self, pid: int) -> None:
        """Close what stands in a node's network when the node ends."""
        if pid in self._nodes:
            return
        try:
            self._nodes[pid] = os.pidfd_open(pid)
        except OSError:
            self._ended(pid)
        else:
            self._loop.add_reader(self._nodes[pid], self._ended, pid)

    def _ended(self, pid: int) -> None:
        for place in [place for place in self._servers if place[0] == pid]:
            self._close(place)

    def _close(self, place: Place) -> None:
        self._servers.pop(place).close()
        for writer in self._clients.pop(place):
            writer.transport.abort()
        if not any(other[0] == place[0] for other in self._servers) and place[0] in self._nodes:
            fd = self._nodes.pop(place[0])
            self._loop.remove_reader(fd)
            os.close(fd)

    async def _serve(self, place: Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests until it ends."""
        clients = self._clients.get(place)
        if clients is None:  # closed between accept(2) and now
            writer.transport.abort()
            return
        clients.add(writer)
        try:
            with suppress(OSError, TimeoutError, h11.ProtocolError):
                await self._converse(place, reader, writer)
        finally:
            clients.discard(writer)
            writer.close()

    async def _converse(
        self, place: Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        http = h11.Connection(h11.SERVER)
        request: h11.Request | None = None
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                async with asyncio.timeout(IDLE):
                    http.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.EndOfMessage) and request is not None and place in self._tells:
                path = request.target.decode("latin-1").partition("?")[0]
                status, headers, body = answer(self._tells[place], path, _now())
                told = [*headers, ("Date", formatdate(usegmt=True)), ("Content-Length", str(len(body)))]
                reason = HTTPStatus(status).phrase.encode()
                said = http.send(h11.Response(status_code=status, headers=told, reason=reason)) or b""
                if request.method != b"HEAD":
                    said += http.send(h11.Data(data=body.encode())) or b""
                writer.write(said + (http.send(h11.EndOfMessage()) or b""))
                await writer.drain()
                if http.our_state is h11.MUST_CLOSE:
                    return
                http.start_next_cycle()
            elif not isinstance(event, h11.Data):
                return  # the client has gone, or the place has


def open_all(places: list[Place]) -> dict[Place, socket.socket | str]:
    """Listening sockets in the nodes' networks; in place of one that cannot be, why. Visits the namespaces
    with the calling thread and brings it home."""
    found: dict[Place, socket.socket | str] = {}
    for pid, group in itertools.groupby(sorted(places), key=lambda place: place[0]):
        here = list(group)
        try:
            with inside(pid, "net"):
                found |= {place: _listening(*place[1:]) for place in here}
        except OSError as error:
            found |= dict.fromkeys(here, f"listen: the node's network is gone: {error.strerror}")
    return found


def _listening(address: str, port: int) -> socket.socket | str:
    try:
        return listening(address, port)
    except OSError as error:
        return f"listen tcp {address}:{port}: bind: {os.strerror(error.errno or 0).lower()}"
