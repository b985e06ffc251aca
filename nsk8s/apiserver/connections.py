"""Connections to the API, and how much one of them may ask for.

What is measured here: requests and headers in bytes, the time a client may take to say what it wants, and how
many things that never end (watches, sessions) one user may have open.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpProcessingError, RawRequestMessage

from nsk8s.errors import ApiError

BODY_LIMIT = 3 * 1024 * 1024
"""Largest request in bytes (kube-apiserver's MaxRequestBodyBytes)."""
OWN_BODY_LIMIT = 64 * 1024 * 1024
"""Largest request to our own routes, which are served on the unix socket only: `up` sends a whole cluster's
objects at once."""
OWN = "/nsk8s/"
"""How the paths of our own routes begin."""
LINE_LIMIT = 1024 * 1024
"""Longest request line in bytes: `exec` has its command in the URL. (Go's MaxHeaderBytes)"""
FIELD_LIMIT = 64 * 1024
"""Longest header in bytes: a token has one or two thousand."""
HANDSHAKE_TIMEOUT = 10.0
"""Seconds a client may take to greet."""
SHUTDOWN_TIMEOUT = 5.0
"""Seconds a client may take to say goodbye."""
HEADER_TIMEOUT = 32.0
"""Seconds from the connection to the end of the first request's headers (kube-apiserver's
ReadHeaderTimeout)."""
IDLE_TIMEOUT = 90.0
"""Seconds between two requests."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

log = logging.getLogger("nsk8s.http")


def _worth_telling(record: logging.LogRecord) -> bool:
    """What is no HTTP is answered with 400, and is no event."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


log.addFilter(_worth_telling)


class Connections(web.Server):
    """aiohttp's low-level server with our limits. `trusted` clients have our own routes, and may be silent
    for as long as they like."""

    def __init__(self, handler: Handler, *, trusted: bool) -> None:
        self._trusted = trusted
        self._options = {
            "access_log": None,
            "logger": log,
            "max_line_size": LINE_LIMIT,
            "max_field_size": FIELD_LIMIT,
            **({} if trusted else {"keepalive_timeout": IDLE_TIMEOUT}),
        }
        super().__init__(handler, request_factory=self._request, handler_cancellation=True)

    def __call__(self) -> web.RequestHandler:
        """The protocol of a new connection."""
        loop = asyncio.get_running_loop()
        if self._trusted:
            return web.RequestHandler(self, loop=loop, **self._options)  # type: ignore[arg-type]  # by name
        return _Connection(self, loop=loop, **self._options)  # type: ignore[arg-type]  # by name

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        if isinstance(protocol, _Connection):
            protocol.heard()
        limit = OWN_BODY_LIMIT if self._trusted and message.path.startswith(OWN) else BODY_LIMIT
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=limit)


class _Connection(web.RequestHandler):
    """A connection that ends if it never says what it wants."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As `asyncio.Protocol.connection_made`."""
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self._patience = asyncio.get_running_loop().call_later(HEADER_TIMEOUT, transport.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        """As `asyncio.Protocol.connection_lost`."""
        self.heard()
        super().connection_lost(exc)

    def heard(self) -> None:
        """The headers of a request are here."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


class Listener:
    """A listening socket that is served."""

    def __init__(self, opened: asyncio.Server, connections: Connections) -> None:
        self._opened = opened
        self._connections = connections

    async def close(self) -> None:
        """Listen no more, and end the connections that came in here."""
        self._opened.close()
        await self._connections.shutdown(0)


class Quota:
    """How many `things` one user may have open at a time."""

    def __init__(self, things: str, limit: int) -> None:
        self._things = things
        self._limit = limit
        self._open: Counter[str] = Counter()

    @contextmanager
    def one(self, user: str) -> Iterator[None]:
        """Have one more for as long as the context lasts. Raises `ApiError` 429."""
        if self._open[user] >= self._limit:
            what = f"{user} has {self._limit} {self._things} open already, please try again later"
            raise ApiError(429, "TooManyRequests", what)
        self._open[user] += 1
        try:
            yield
        finally:
            self._open[user] -= 1
            if not self._open[user]:
                del self._open[user]
