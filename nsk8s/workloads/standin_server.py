"""The stand-ins of a whole cluster in one process, which `standins` starts.

It opens its listening sockets inside each pod's network namespace (a socket stays in the namespace it was
made in) and answers over all of them from one event loop. It outlives the control plane, which speaks to it
over a unix socket, one JSON object a line each way:

    {"op": "serve", "standins": [...]}                 ->  {"errors": [[pod, container, why], ...]}
    {"op": "stop", "keys": [[pod, container], ...]}    ->  {"stopped": n}
    {"op": "list"}                                     ->  {"standins": [...]}
    {"op": "listen", "places": [[place, tells], ...]}  ->  {"errors": [[place, why], ...]}

with stand-ins as `standins.StandIn` describes them; the last is about kube-proxy's own ports (`kubeproxy`).

A stand-in that cannot have its port is refused and leaves nothing open. One whose pod ends (its pause
process) is stopped at once: an open socket would keep a dead pod's namespace, and its links, alive.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import resource
import select
import socket
import struct
import time
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from msgspec import Struct, field

from nsk8s.kernel.namespaces import CLONE_NEWNET, setns
from nsk8s.workloads.behaviours import Site, greeting, taken
from nsk8s.workloads.http import Connection
from nsk8s.workloads.kubeproxy import Ports
from nsk8s.workloads.peers import Peer, endpoint
from nsk8s.workloads.protocols import SPEECHES, datagram
from nsk8s.workloads.streams import Stream

BACKLOG = 511
"""nginx's; the kernel caps it at net.core.somaxconn."""
CONNECTIONS = 1024
"""Most open connections for one stand-in; more are closed at once."""
IDLE = 75.0
"""Seconds after which a silent connection is closed (nginx's keepalive_timeout)."""
IP_PKTINFO = 8
TURN = 64
"""Most connections accepted, or datagrams answered, before the loop looks at others."""
REST = 0.5
"""Seconds to wait when the process has no descriptors left."""


Key = tuple[str, str]


class StandIn(Struct):
    """One container that is served: `request` is what the control plane asked, as it came."""

    request: dict[str, Any]
    site: Site
    sockets: list[tuple[str, int, socket.socket]]
    pause: int = -1
    connections: set[Peer] = field(default_factory=set)

    @property
    def key(self) -> Key:
        """(pod UID, container)."""
        return str(self.request["pod"]), str(self.request["container"])

    @property
    def behaviour(self) -> str:
        """What it answers."""
        return str(self.request["behaviour"])

    def log(self, line: str) -> None:
        """Append to the container's log; opened for each line, for there may be thousands of them."""
        path, text = self.request["log"], line.encode(errors="replace")
        with suppress(OSError):
            try:
                file = open(path, "ab")  # noqa: SIM115 (closed below)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                file = open(path, "ab")  # noqa: SIM115
            with file:
                file.write(text)


class Server:
    """All stand-ins of a cluster."""

    def __init__(self) -> None:
        self.standins: dict[Key, StandIn] = {}
        self._loop = asyncio.get_running_loop()
        self._visitor = ThreadPoolExecutor(1, thread_name_prefix="visitor")
        self._proxies = Ports(self._visitor)
        self._tasks: set[asyncio.Task[Any]] = set()
        # One epoll of our own for all listeners: the loop's add_reader takes 25 microseconds for each.
        self._epoll = select.epoll()
        self._acts: dict[int, Callable[[], object]] = {}
        self._loop.add_reader(self._epoll.fileno(), self._ready)

    # --- what the control plane asks ------------------------------------------------------------------

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one control connection until it ends."""
        with suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(json.dumps(await self._do(json.loads(line))).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _do(self, order: dict[str, Any]) -> dict[str, Any]:
        match order.get("op"):
            case "serve":
                return {"errors": await self.serve(order["standins"])}
            case "stop":
                stopped = [self.stop((pod, container)) for pod, container in order["keys"]]
                return {"stopped": sum(stopped)}
            case "list":
                return {"standins": [one.request for one in self.standins.values()]}
            case "listen":
                wanted = {tuple(place): tuple(tells) for place, tells in order["places"]}
                return {"errors": list((await self._proxies.listen(wanted)).items())}
            case other:
                return {"error": f"unknown op {other!r}"}

    async def serve(self, requests: Iterable[dict[str, Any]]) -> list[tuple[str, str, str]]:
        """Open the sockets of several stand-ins; returns why some could not be. One that is served in the
        same attempt stays as it is."""
        new = []
        for request in requests:
            key = request["pod"], request["container"]
            old = self.standins.get(key)
            if old is None or old.request["attempt"] != request["attempt"]:
                self.stop(key)
                new.append(request)
        opened = await self._loop.run_in_executor(self._visitor, open_all, new)
        errors = []
        for request, result in zip(new, opened, strict=True):
            if isinstance(result, str):
                errors.append((request["pod"], request["container"], result))
            else:
                self._start(result)
        return errors

    def stop(self, key: Key) -> bool:
        """Close everything of one stand-in; False if it is not there."""
        one = self.standins.pop(key, None)
        if one is None:
            return False
        for _, _, opened in one.sockets:
            self._forget(opened.fileno())
            opened.close()
        for connection in list(one.connections):
            connection.abort()
        if one.pause >= 0:
            self._forget(one.pause)
            os.close(one.pause)
        return True

    def sweep(self) -> None:
        """Close connections that have been silent for too long; runs for ever."""
        now = self._loop.time()
        for one in self.standins.values():
            for connection in list(one.connections):
                if connection.last < now - IDLE:
                    connection.abort()
        self._loop.call_later(10.0, self.sweep)

    # --- sockets ----------------------------------------------------------------------------------------

    def _start(self, one: StandIn) -> None:
        self.standins[one.key] = one
        for kind, port, opened in one.sockets:
            act = partial(self._accept, one, port) if kind == "TCP" else partial(self.hear, one)
            self._watch(opened.fileno(), partial(act, opened))
        if one.pause >= 0:
            self._watch(one.pause, partial(self.stop, one.key))
        if text := greeting(one.behaviour, [(kind, port) for kind, port, _ in one.sockets]):
            one.log(text)

    def _accept(self, one: StandIn, port: int, listener: socket.socket) -> None:
        for _ in range(TURN):
            try:
                accepted, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # ECONNABORTED and friends: the next one may be well. Out of descriptors: let it wait.
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._rest(one, port, listener)
                return
            if len(one.connections) >= CONNECTIONS:
                accepted.close()
                continue
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.spawn(self._serve_connection(self.connect(one, port), accepted))

    def connect(self, one: StandIn, port: int) -> Peer:
        """Who talks to a new connection to `port`."""
        behaviour = (
            one.site.options.get(f"behaviour/{port}", one.behaviour) if one.site.options else one.behaviour
        )
        speech = SPEECHES.get(behaviour)
        if speech is None:
            return Connection(behaviour, one.site, one.log, one.connections, self._loop)
        return Stream(speech, one.site, one.log, one.connections, self._loop)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` beside."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_connection(self, connection: Peer, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, accepted)
        except OSError:
            accepted.close()

    def _rest(self, one: StandIn, port: int, listener: socket.socket) -> None:
        self._forget(listener.fileno())

        def again() -> None:
            if self.standins.get(one.key) is one:
                self._watch(listener.fileno(), partial(self._accept, one, port, listener))

        self._loop.call_later(REST, again)

    def _watch(self, fd: int, act: Callable[[], object]) -> None:
        self._acts[fd] = act
        self._epoll.register(fd, select.EPOLLIN)

    def _forget(self, fd: int) -> None:
        if self._acts.pop(fd, None):
            self._epoll.unregister(fd)

    def _ready(self) -> None:
        for fd, _ in self._epoll.poll(0):
            if act := self._acts.get(fd):  # not stopped by the one before
                act()

    def hear(self, one: StandIn, opened: socket.socket) -> None:
        """Send datagrams back, from the very address they came to (a node has several)."""
        for _ in range(TURN):
            try:
                data, ancillary, _, sender = opened.recvmsg(65535, 64)
            except OSError:
                return
            port = opened.getsockname()[1]
            reply = datagram(one.behaviour, one.site, data, port)
            with suppress(OSError):
                opened.sendmsg([reply], from_same(ancillary), 0, sender)
            host, number = endpoint(sender)
            one.log(f"{host}:{number} - - [{timestamp()}] {len(data)} bytes on {port}/UDP\n")


def from_same(ancillary: Iterable[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """What makes an answer leave by the address that a datagram with `ancillary` came to."""
    answer = []
    for level, kind, value in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            local = struct.unpack("=I4s4s", value[:12])[1]
            info = struct.pack("=I4s4s", 0, local, bytes(4))
            answer.append((socket.IPPROTO_IP, IP_PKTINFO, info))
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            answer.append((level, kind, value[:16] + bytes(4)))  # from any device
    return answer


def open_all(requests: list[dict[str, Any]]) -> list[StandIn | str]:
    """Open the listening sockets of all `requests` in their namespaces; in place of one that fails, why.

    Visits the namespaces with the calling thread and brings it home; about 20 microseconds each.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return [_open(request) for request in requests]
    finally:
        setns(home, CLONE_NEWNET)
        os.close(home)


def _open(request: dict[str, Any]) -> StandIn | str:
    site = Site(
        pod=request["name"],
        namespace=request["namespace"],
        node=request["node"],
        hostname=request["hostname"],
        ip=request["ip"],
        container=request["container"],
        image=request["image"],
        options=request.get("options") or {},
        secondary=request.get("secondary") or "",
    )
    one = StandIn(request, site, [])
    pid = int(request["pid"])
    try:
        one.pause = os.pidfd_open(pid)
        there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(there, CLONE_NEWNET)
        finally:
            os.close(there)
    except OSError as error:
        _close(one)
        return f"the pod's namespace is gone: {error.strerror}"
    for kind, port in request["ports"]:
        try:
            one.sockets.append((kind, port, _listen(kind, port, ipv6=any(":" in ip for ip in site.ips))))
        except OSError as error:
            _close(one)
            one.log(taken(one.behaviour, kind, port, f"{error.errno}: {error.strerror}"))
            return f"listen on {port}/{kind}: {(error.strerror or '').lower()}"
    return one


def _listen(kind: str, port: int, *, ipv6: bool) -> socket.socket:
    """For every address of the pod, with `ipv6` those of both families with one socket."""
    family, anywhere = (socket.AF_INET6, "::") if ipv6 else (socket.AF_INET, "0.0.0.0")
    opened = socket.socket(family, socket.SOCK_STREAM if kind == "TCP" else socket.SOCK_DGRAM)
    try:
        opened.setblocking(False)
        if ipv6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if kind == "TCP":
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((anywhere, port))
            opened.listen(BACKLOG)
        else:
            if ipv6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                opened.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            opened.bind((anywhere, port))
    except BaseException:
        opened.close()
        raise
    return opened


def _close(one: StandIn) -> None:
    for _, _, opened in one.sockets:
        opened.close()
    if one.pause >= 0:
        os.close(one.pause)


def timestamp() -> str:
    """Now, as access logs write it."""
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())


async def listen(server: Server, ready: socket.socket, path: str) -> None:
    """Listen on the unix socket `path`, say so to `ready`, and serve for ever."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    server.sweep()
    new = f"{path}.{os.getpid()}"
    control = await asyncio.start_unix_server(server.answer, new, limit=64 * 1024 * 1024)
    os.chmod(new, 0o600)
    os.replace(new, path)  # whoever finds the socket finds it listening
    with ready, suppress(BrokenPipeError):  # who started us was killed; the next one finds the socket
        ready.send(b"ready")
    gc.freeze()
    async with control:
        await control.serve_forever()


def serve(ready: socket.socket, path: str) -> None:
    """Be the server that listens on the unix socket `path`, for ever."""

    async def _serve() -> None:
        await listen(Server(), ready, path)

    asyncio.run(_serve())
