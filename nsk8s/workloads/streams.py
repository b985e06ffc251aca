"""One connection to a stand-in that says what its `Speech` has it say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nsk8s.workloads.behaviours import Site
from nsk8s.workloads.peers import Peer, endpoint
from nsk8s.workloads.protocols import Speech

MAX_UNUSED = 64 * 1024
"""Bytes that nobody could make sense of yet before it is hung up."""


class Stream(Peer):
    """Says what a `Speech` says."""

    def __init__(
        self,
        speech: Speech,
        site: Site,
        log: Callable[[str], None],
        members: set[Peer],
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
        host, port = endpoint(transport.get_extra_info("peername"))
        self._log(f"connection from {host}:{port}\n")
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
