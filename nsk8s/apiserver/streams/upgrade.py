"""Agreeing with a client on how streams are carried, and taking its connection over from HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from nsk8s.apiserver.request import Request
from nsk8s.apiserver.streams import channels
from nsk8s.apiserver.streams.connection import SpdyConnection, TransportWire, WebSocketWire
from nsk8s.errors import ApiError

READ_AHEAD = 128 * 1024
"""Bytes of a connection that are read before anybody asks for them."""


class TakenOver(web.StreamResponse):
    """Stands for an answer where HTTP has nothing more to say."""

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Send nothing."""


def wants_websocket(request: Request) -> bool:
    """Whether the client asks for a WebSocket; else it must ask for SPDY. Raises `ApiError` 400."""
    headers = request.http.headers
    upgrade = headers.get("Upgrade", "").lower()
    if "upgrade" not in headers.get("Connection", "").lower() or upgrade not in ("websocket", "spdy/3.1"):
        raise ApiError(400, "BadRequest", "Upgrade request required")
    return upgrade == "websocket"


def agreed(request: Request, supported: Sequence[str]) -> str:
    """The first protocol of the client's (``X-Stream-Protocol-Version``) that we support; "" if it names
    none. Raises `ApiError` 403 (httpstream.Handshake)."""
    asked = _words(request.http.headers.getall("X-Stream-Protocol-Version", ()))
    if not asked:
        return ""
    for protocol in asked:
        if protocol in supported:
            return protocol
    raise _disagreement(asked, supported)


@asynccontextmanager
async def spdy(request: Request, protocol: str) -> AsyncIterator[SpdyConnection]:
    """The client's connection, speaking SPDY from here on and closed at the end."""
    lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: SPDY/3.1"]
    if protocol:
        lines.append(f"X-Stream-Protocol-Version: {protocol}")
    async with taken_over(request, "\r\n".join([*lines, "", ""]).encode()) as (reader, writer):
        yield SpdyConnection(TransportWire(reader, writer))


@asynccontextmanager
async def taken_over(
    request: Request, head: bytes
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """The client's connection after `head`, the last that it hears of HTTP; closed at the end."""
    transport = request.http.transport
    if transport is None:
        raise ConnectionResetError("the client has gone")
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(READ_AHEAD // 2)
    taking = _Taken(reader, transport.get_protocol())
    transport.write(head)
    transport.set_protocol(taking)
    taking.connection_made(transport)
    writer = asyncio.StreamWriter(transport, taking, reader, loop)
    try:
        yield reader, writer
    finally:
        transport.close()


class _Taken(asyncio.StreamReaderProtocol):
    """Our protocol in place of HTTP's, which is told only that the connection is lost."""

    def __init__(self, reader: asyncio.StreamReader, http: asyncio.BaseProtocol) -> None:
        super().__init__(reader)
        self._http = http

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell both."""
        super().connection_lost(exc)
        self._http.connection_lost(exc)


@asynccontextmanager
async def websocket(
    request: Request, supported: Sequence[str], *, autoping: bool = True
) -> AsyncIterator[web.WebSocketResponse]:
    """The client's connection as a WebSocket, closed at the end. A client that names no protocol gets
    none. Without `autoping` whoever reads is told of pings and pongs. Raises `ApiError`: 403 when it names
    only others, 400 when it does not know how."""
    asked = _words(request.http.headers.getall("Sec-WebSocket-Protocol", ())[:1])
    if asked and not set(asked) & set(supported):
        raise _disagreement(asked, supported)
    socket = web.WebSocketResponse(
        protocols=supported,
        autoping=autoping,
        compress=False,
        max_msg_size=channels.MESSAGE_LIMIT,
        timeout=1.0,
    )
    try:
        await socket.prepare(request.http)
    except (web.HTTPBadRequest, ValueError) as error:  # ValueError: a Sec-WebSocket-Key that is not ASCII
        what = error.text if isinstance(error, web.HTTPBadRequest) else error
        raise ApiError(400, "BadRequest", f"unable to upgrade: {what}") from error
    try:
        yield socket
    finally:
        if not socket.closed:
            await socket.close()


def tunnel(request: Request, socket: web.WebSocketResponse) -> SpdyConnection:
    """SPDY in the messages of a WebSocket."""
    return SpdyConnection(WebSocketWire(socket, request.http.transport))


def _words(headers: Sequence[str]) -> list[str]:
    return [word.strip() for header in headers for word in header.split(",")]


def _disagreement(asked: Sequence[str], supported: Sequence[str]) -> ApiError:
    return ApiError(
        403,
        "Forbidden",
        f"unable to upgrade: unable to negotiate protocol: client supports [{' '.join(asked)}], "
        f"server accepts [{' '.join(supported)}]",
    )
