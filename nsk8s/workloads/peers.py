"""Who is connected to a stand-in, whatever is spoken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nsk8s.workloads.behaviours import Site

MAPPED = "::ffff:"
"""How an IPv4 address begins on a socket for both families (RFC 4291, 2.5.5.2)."""


class Peer(asyncio.Protocol):
    """A connection; counts itself among `members` while it is open. `last` is the loop's time at which
    something last arrived."""

    def __init__(
        self, site: Site, log: Callable[[str], None], members: set[Peer], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._site = site
        self._log = log
        self._members = members
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._aborted = False
        self.last = loop.time()
        members.add(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember who is there."""
        assert isinstance(transport, asyncio.Transport)
        if self._aborted:  # between accept(2) and now: left open it would keep a dead pod's namespace
            transport.abort()
        else:
            self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        self._members.discard(self)
        self._transport = None

    def abort(self) -> None:
        """Close it now, losing what is not sent yet."""
        self._aborted = True
        self._members.discard(self)
        if self._transport:
            self._transport.abort()


def endpoint(address: object) -> tuple[str, int]:
    """(host, port) of an internet socket; other sockets (tests) have none. An IPv4 address is told as such,
    though a socket for both families has it as an IPv6 one."""
    if isinstance(address, tuple) and len(address) >= 2:
        return str(address[0]).removeprefix(MAPPED), int(address[1])
    return "", 0
