"""Asks the upstreams, from inside the DNS pod's network (CoreDNS's plugin forward).

The query goes out as it came, with an id and a source port that nobody can guess; what comes back from
elsewhere or to another question is not heard. One upstream after the other is asked, in random order.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from ipaddress import ip_address

from nsk8s.kernel.namespaces import CLONE_NEWNET, setns

PORT = 53
PATIENCE = 2.0
"""Seconds for which one upstream may be silent."""
DEADLINE = 5.0
"""Seconds for all of them."""
CONCURRENT = 1000
"""Most queries on their way at a time; more are refused (max_concurrent)."""

Opener = Callable[[socket.AddressFamily, socket.SocketKind], Awaitable[socket.socket]]
"""Makes a socket inside the DNS pod's network."""


def opened_in(namespace: str, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
    """A socket of the network namespace at the path `namespace`. Visits it with the calling thread."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(there, CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            opened = socket.socket(family, kind)
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)
    opened.setblocking(False)
    return opened


class Full(Exception):
    """Too many queries are on their way."""


class Forwarder:
    """Asks `upstreams`, addresses; there may be none."""

    def __init__(self) -> None:
        self.upstreams: Sequence[str] = ()
        self._asked = 0

    async def ask(self, query: bytes, opener: Opener, *, tcp: bool) -> bytes:
        """The answer to `query`, with its id. Raises TimeoutError or OSError if nobody answers, `Full`."""
        if self._asked >= CONCURRENT:
            raise Full
        self._asked += 1
        try:
            async with asyncio.timeout(DEADLINE):
                return await self._ask_all(query, opener, tcp)
        finally:
            self._asked -= 1

    async def _ask_all(self, query: bytes, opener: Opener, tcp: bool) -> bytes:
        failure: Exception = TimeoutError()
        for upstream in random.sample(list(self.upstreams), len(self.upstreams)):
            family = socket.AF_INET6 if ip_address(upstream).version == 6 else socket.AF_INET
            number = secrets.token_bytes(2)
            asking = _by_tcp if tcp else _by_udp
            try:
                opened = await opener(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
                with opened:
                    async with asyncio.timeout(PATIENCE):
                        answer = await asking(opened, upstream, number + query[2:])
            except (OSError, EOFError, TimeoutError) as error:
                failure = error
                continue
            return query[:2] + answer[2:]
        raise failure


async def _by_udp(opened: socket.socket, upstream: str, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(opened, (upstream, PORT))
    await loop.sock_sendall(opened, query)
    while True:
        answer = await loop.sock_recv(opened, 65535)
        if _answers(answer, query):
            return answer


async def _by_tcp(opened: socket.socket, upstream: str, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(opened, (upstream, PORT))
    await loop.sock_sendall(opened, len(query).to_bytes(2, "big") + query)
    read = partial(_exactly, loop, opened)
    while True:
        answer = await read(int.from_bytes(await read(2), "big"))
        if _answers(answer, query):
            return answer


async def _exactly(loop: asyncio.AbstractEventLoop, opened: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = await loop.sock_recv(opened, count - len(found))
        if not more:
            raise EOFError
        found += more
    return found


def _answers(answer: bytes, query: bytes) -> bool:
    """Whether this is an answer to the query: the same id, and the same question if it has one."""
    if len(answer) < 12 or answer[:2] != query[:2] or not answer[2] & 0x80:
        return False
    if answer[4:6] == b"\0\0":
        return True
    end = 12
    while end < len(query) and query[end]:
        end += query[end] + 1
    return answer[12 : end + 5].lower() == query[12 : end + 5].lower()
