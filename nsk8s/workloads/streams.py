"""One connection to a stand-in that does not speak HTTP/1.1: a `Speech`, or HTTP/2 for gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from nsk8s.workloads.behaviours import Site
from nsk8s.workloads.http import MAPPED
from nsk8s.workloads.protocols import Speech

MAX_UNUSED = 64 * 1024
"""Bytes that nobody could make sense of yet before it is hung up."""


class Peer(asyncio.Protocol):
    """A connection; counts itself among `members` while it is open. `last` is the loop's time at which
    something last arrived."""

    def __init__(
        self, site: Site, log: Callable[[str], None], members: set[Any], loop: asyncio.AbstractEventLoop
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
        if self._aborted:
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


class Stream(Peer):
    """Says what a `Speech` says."""

    def __init__(
        self,
        speech: Speech,
        site: Site,
        log: Callable[[str], None],
        members: set[Any],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(site, log, members, loop)
        self._speech = speech
        self._unused = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet who is there."""
        super().connection_made(transport)
        if self._transport is None:
            return
        client = self._transport.get_extra_info("peername") or ("", 0)
        self._log(f"connection from {client[0].removeprefix(MAPPED)}:{client[1]}\n")
        self._transport.write(self._speech.greet(self._site))
        if self._speech.hang_up:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Answer."""
        self.last = self._loop.time()
        if self._transport is None or self._transport.is_closing():
            return
        reply = self._speech.answer(self._site, self._unused + data)
        self._unused = (self._unused + data)[reply.used :]
        self._transport.write(reply.data)
        if reply.close or len(self._unused) > MAX_UNUSED:
            self._transport.close()
