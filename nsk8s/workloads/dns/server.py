"""The DNS pods of a whole cluster in one process.

A stand-in server (see `standin_server`) for the containers that run CoreDNS: it answers on their port 53, UDP
and TCP, and on their ports for health (8080), readiness (8181) and metrics (9153). It learns the cluster's
objects from the control plane's unix socket, and answers on while that is away.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import dns.rcode

from nsk8s.api.types import EndpointSlice, ObjectMeta, Service, Struct
from nsk8s.workloads import standin_server
from nsk8s.workloads.behaviours import Response
from nsk8s.workloads.dns import answer, corefile
from nsk8s.workloads.dns.answer import Answers, Ask
from nsk8s.workloads.dns.forward import Forwarder, Full, opened_in
from nsk8s.workloads.dns.watch import Taker, follow
from nsk8s.workloads.dns.zone import Zone
from nsk8s.workloads.http import Connection
from nsk8s.workloads.peers import Peer
from nsk8s.workloads.standin_server import StandIn

PORT = 53
FIRST_SYNC = 2.0
"""Seconds for which a new DNS pod waits for the objects before it starts without them."""
PIPELINE = 64
"""Most questions of one connection that are answered at a time."""
COREFILE = "/api/v1/namespaces/kube-system/configmaps?fieldSelector=metadata.name%3Dcoredns"


class Named(Struct, frozen=True):
    """An object of which only the name matters."""

    metadata: ObjectMeta = ObjectMeta()


class ConfigMap(Struct, frozen=True):
    """CoreDNS's configuration."""

    data: dict[str, str] = {}


class Server(standin_server.Server):
    """DNS for the pods it is told of."""

    def __init__(self) -> None:
        super().__init__()
        self.zone = Zone()
        self.answers = Answers(self.zone, random.Random(time.time_ns()).shuffle)
        self.forwarder = Forwarder()
        self.counts: Counter[tuple[str, str]] = Counter()
        self._again = asyncio.Event()
        self._synced: list[asyncio.Event] = []

    # --- what the cluster holds -----------------------------------------------------------------------

    def learn(self, control_plane: Path) -> None:
        """Follow the objects from now on."""
        takers: tuple[Taker[Any], ...] = (
            self._taker(Named, "/api/v1/namespaces", "namespaces", self._put_namespace, self._drop_namespace),
            self._taker(Service, "/api/v1/services", "services", self.zone.put_service, self._drop_service),
            self._taker(
                EndpointSlice,
                "/apis/discovery.k8s.io/v1/endpointslices",
                "endpointslices",
                self.zone.put_slice,
                self._drop_slice,
            ),
            Taker(ConfigMap, COREFILE, self._configured, self._configure, lambda _: self._configured(())),
        )
        for taker in takers:
            synced = asyncio.Event()
            self._synced.append(synced)
            self.spawn(follow(control_plane, taker, synced, self._again))
        self.spawn(self._first_sync())

    async def _first_sync(self) -> None:
        for event in self._synced:
            await event.wait()
        self.answers.synced = True
        self.answers.forget()

    def _taker(
        self,
        kind: type[Any],
        url: str,
        resource: str,
        put: Callable[[Any], None],
        drop: Callable[[tuple[str, str]], None],
    ) -> Taker[Any]:
        def listed(objects: Iterable[Any]) -> None:
            gone = set(self.zone.names(resource))
            for one in objects:
                put(one)
                gone.discard((one.metadata.namespace, one.metadata.name))
            for key in gone:
                drop(key)
            self._changed()

        def putting(one: Any) -> None:  # noqa: ANN401 (an object of `kind`)
            put(one)
            self._changed()

        def dropping(one: Any) -> None:  # noqa: ANN401
            drop((one.metadata.namespace, one.metadata.name))
            self._changed()

        return Taker(kind, url, listed, putting, dropping)

    def _put_namespace(self, namespace: Named) -> None:
        self.zone.put_namespace(namespace.metadata.name)

    def _drop_namespace(self, key: tuple[str, str]) -> None:
        self.zone.drop_namespace(key[1])

    def _drop_service(self, key: tuple[str, str]) -> None:
        self.zone.drop_service(key)

    def _drop_slice(self, key: tuple[str, str]) -> None:
        self.zone.drop_slice(key)

    def _changed(self) -> None:
        self.zone.serial = int(time.time())
        self.answers.forget()

    def _configured(self, found: Iterable[ConfigMap]) -> None:
        self._configure(next(iter(found), ConfigMap()))

    def _configure(self, config: ConfigMap) -> None:
        self.forwarder.upstreams = corefile.upstreams(config.data.get("Corefile", ""))
        self.answers.forwards = bool(self.forwarder.upstreams)
        self.answers.forget()

    # --- what the control plane asks ------------------------------------------------------------------

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one control connection; who opens it may be a new control plane that has just come up."""
        self._again.set()
        await super().answer(reader, writer)

    async def serve(self, requests: Iterable[dict[str, Any]]) -> list[tuple[str, str, str]]:
        """Open the sockets of several DNS pods, when there is something to answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_SYNC):
                for event in self._synced:
                    await event.wait()
        errors = await super().serve(requests)
        self._stand()
        return errors

    def stop(self, key: standin_server.Key) -> bool:
        """Close everything of one DNS pod."""
        stopped = super().stop(key)
        self._stand()
        return stopped

    def _stand(self) -> None:
        self.zone.addresses = [one.site.ip for one in self.standins.values()]
        self._changed()

    # --- what pods ask --------------------------------------------------------------------------------

    def hear(self, one: StandIn, opened: socket.socket) -> None:
        """Answer datagrams, from the very address they came to."""
        reply, count = self.answers.reply, self.counts
        for _ in range(standin_server.TURN):
            try:
                query, ancillary, _, sender = opened.recvmsg(65535, 64)
            except OSError:
                return
            made = reply(query)
            if isinstance(made, bytes):
                count[one.site.pod, "udp"] += 1
                with suppress(OSError):
                    opened.sendmsg([made], standin_server.from_same(ancillary), 0, sender)
            elif made is not None:
                count[one.site.pod, "udp"] += 1
                say = partial(self._say, opened, standin_server.from_same(ancillary), sender)
                self.spawn(self._forward(one, made, say, tcp=False))

    def _say(
        self,
        opened: socket.socket,
        ancillary: list[tuple[int, int, bytes]],
        sender: tuple[Any, ...],
        made: bytes,
    ) -> None:
        with suppress(OSError):
            opened.sendmsg([made], ancillary, 0, sender)

    async def _forward(self, one: StandIn, ask: Ask, say: Callable[[bytes], None], *, tcp: bool) -> None:
        say(await self.outside(one, ask, tcp=tcp))

    async def outside(self, one: StandIn, ask: Ask, *, tcp: bool) -> bytes:
        """What the upstreams answer a DNS pod; an answer that says so if nobody does."""
        namespace = f"/proc/{one.request['pid']}/ns/net"

        def opener(family: socket.AddressFamily, kind: socket.SocketKind) -> asyncio.Future[socket.socket]:
            return self._loop.run_in_executor(self._visitor, opened_in, namespace, family, kind)

        try:
            if not ask.target:
                return await self.forwarder.ask(ask.query, opener, tcp=tcp)
            query = answer.question(ask.target, answer.kind_of(ask.query), 0)
            said = await self.forwarder.ask(query, opener, tcp=False)
            if said[2] & 2:  # truncated
                said = await self.forwarder.ask(query, opener, tcp=True)
            return self.answers.finish(ask, said, tcp=tcp)
        except Full:
            return answer.refusal(ask.query, dns.rcode.REFUSED)
        except (OSError, EOFError, TimeoutError):
            return answer.refusal(ask.query, dns.rcode.SERVFAIL)

    def connect(self, one: StandIn, port: int) -> Page | Questions:
        """Who talks to a new connection."""
        if port == PORT:
            return Questions(self, one, self._loop)
        page = partial(self._page, one, port)
        return Page(page, one, self._loop)

    def _page(self, one: StandIn, port: int, path: str) -> tuple[int, str]:
        match port, path:
            case 8080, "/health":
                return 200, "OK"
            case 8181, "/ready":
                return (200, "OK") if self.answers.synced else (503, "kubernetes")
            case 9153, "/metrics":
                return 200, self._metrics(one.site.pod)
            case _:
                return 404, "404 page not found\n"

    def _metrics(self, pod: str) -> str:
        """What is counted, in Prometheus' text format and CoreDNS's names."""
        name = "coredns_dns_requests_total"
        lines = [f"# HELP {name} Counter of DNS requests made per protocol.", f"# TYPE {name} counter"]
        for protocol in ("tcp", "udp"):
            count = self.counts[pod, protocol]
            lines.append(f'{name}{{proto="{protocol}",server="dns://:53"}} {count}')
        return "\n".join(lines) + "\n"


class Page(Connection):
    """HTTP on one of the ports beside DNS: `page` gives status and text for a path."""

    def __init__(
        self, page: Callable[[str], tuple[int, str]], one: StandIn, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(one.behaviour, one.site, lambda _: None, one.connections, loop)
        self._page = page

    def _answer(self) -> None:
        assert self._request is not None
        path = self._request.target.decode("latin-1").partition("?")[0]
        status, text = self._page(path)
        headers = (("Content-Type", "text/plain; charset=utf-8"),)
        self._respond(Response(status, headers, text.encode()))


class Questions(Peer):
    """DNS over one TCP connection: each message behind its length (RFC 7766)."""

    def __init__(self, server: Server, one: StandIn, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(one.site, one.log, one.connections, loop)
        self._server = server
        self._one = one
        self._data = bytearray()
        self._open = 0
        self._ended = False

    def data_received(self, data: bytes) -> None:
        """Answer what is whole."""
        self.last = self._loop.time()
        self._data += data
        self._advance()

    def eof_received(self) -> bool:
        """No more questions; what is asked is answered first."""
        self._ended = True
        return self._open > 0

    def pause_writing(self) -> None:
        """The client does not read: neither do we."""
        if self._transport:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        if self._transport:
            self._transport.resume_reading()

    def _advance(self) -> None:
        while len(self._data) >= 2 and self._open < PIPELINE:
            length = int.from_bytes(self._data[:2], "big")
            if len(self._data) < length + 2:
                return
            query = bytes(self._data[2 : length + 2])
            del self._data[: length + 2]
            made = self._server.answers.reply(query, tcp=True)
            if made is None:
                self.abort()
                return
            self._server.counts[self._one.site.pod, "tcp"] += 1
            if isinstance(made, bytes):
                self._say(made)
            else:
                self._open += 1
                self._server.spawn(self._ask(made))

    async def _ask(self, ask: Ask) -> None:
        made = await self._server.outside(self._one, ask, tcp=True)
        self._open -= 1
        self._say(made)
        self._advance()
        if self._ended and not self._open and self._transport:
            self._transport.close()

    def _say(self, made: bytes) -> None:
        if self._transport:
            self._transport.write(len(made).to_bytes(2, "big") + made)


def serve(ready: socket.socket, path: str, control_plane: str) -> None:
    """Be the server that listens on the unix socket `path` and asks that of the control plane, for ever."""

    async def _serve() -> None:
        server = Server()
        server.learn(Path(control_plane))
        await standin_server.listen(server, ready, path)

    asyncio.run(_serve())
