"""port-forward: each connection of the client's is a pair of streams, joined to a socket in the pod.

SPDY (plain, or tunnelled in a WebSocket): the client opens an error and a data stream for each, paired by
``requestid``. WebSocket channels: two for each port of the query; both begin with the port (16 bits, little
endian). Source: k8s.io/kubelet/pkg/cri/streaming/portforward.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import web

from nsk8s.apiserver.request import Request
from nsk8s.apiserver.streams import channels, upgrade
from nsk8s.apiserver.streams.access import Socket
from nsk8s.apiserver.streams.connection import ChannelConnection, SpdyConnection, Stream, attended
from nsk8s.errors import ApiError, NsK8sError

SPDY_PROTOCOL = "portforward.k8s.io"
TUNNELLED = f"SPDY/3.1+{SPDY_PROTOCOL}"
PORT_LIMIT = 100
"""Ports of one WebSocket."""

Dial = Callable[[int], Awaitable[Socket]]


async def serve(request: Request, dial: Dial) -> web.StreamResponse:
    """Forward until the client goes. Raises `ApiError` before the connection is taken over."""
    if not upgrade.wants_websocket(request):
        protocol = upgrade.agreed(request, (SPDY_PROTOCOL,))
        async with upgrade.spdy(request, protocol) as connection:
            await Pairs(dial).forward(connection)
            return upgrade.TakenOver()
    if TUNNELLED in request.http.headers.get("Sec-WebSocket-Protocol", ""):
        async with upgrade.websocket(request, (TUNNELLED,)) as socket:
            await Pairs(dial).forward(upgrade.tunnel(request, socket))
            return socket
    ports = _ports(request)
    async with upgrade.websocket(request, (channels.V4, channels.V4_BASE64)) as socket:
        await _over_channels(request, socket, ports, dial)
        return socket


class Pairs:
    """The pairs of a SPDY connection's streams."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._waiting: dict[str, Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def forward(self, connection: SpdyConnection) -> None:
        """Until the client goes."""
        try:
            await attended(connection, connection.run(self._take), _for_ever())
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self, stream: Stream) -> None:
        port, kind = _port(stream.headers.get("port", "")), stream.headers.get("streamtype", "")
        if kind not in ("error", "data"):
            raise ValueError(f"invalid stream type {kind!r}")
        name = stream.headers.get("requestid", "")
        other = self._waiting.pop(name, None)
        if other is None:
            self._waiting[name] = stream
            return
        if other.headers["streamtype"] == kind:
            raise ValueError(f"{kind} stream already assigned")
        data, error = (stream, other) if kind == "data" else (other, stream)
        task = asyncio.create_task(_join(data, error, port, self._dial))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _over_channels(
    request: Request, socket: web.WebSocketResponse, ports: list[int], dial: Dial
) -> None:
    connection = ChannelConnection(
        socket, request.http.transport, socket.ws_protocol or channels.V4, 2 * len(ports)
    )

    async def work() -> None:
        pairs = list(zip(ports, connection.streams[::2], connection.streams[1::2], strict=True))
        for port, data, error in pairs:
            await data.write(port.to_bytes(2, "little"))
            await error.write(port.to_bytes(2, "little"))
        await asyncio.gather(*(_join(data, error, port, dial) for port, data, error in pairs))

    await attended(connection, connection.run(), work())


async def _join(data: Stream, error: Stream, port: int, dial: Dial) -> None:
    """One connection, from dialling to both ends' closing."""
    error.discard()
    with suppress(ConnectionError):  # the client has gone
        try:
            socket = await dial(port)
        except NsK8sError as refused:
            data.discard()
            await error.write(refused.message.encode())
        else:
            try:
                await _copy(data, socket)
            finally:
                socket.close()
        await data.close()
        await error.close()
        data.discard()


async def _copy(data: Stream, socket: Socket) -> None:
    """Both ways; over once the pod has closed its side."""

    async def into() -> None:
        with suppress(ConnectionError):
            while piece := await data.read():
                await socket.write(piece)
            socket.finish()
            return
        data.discard()

    sending = asyncio.create_task(into())
    try:
        while piece := await _some(socket):
            await data.write(piece)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _some(socket: Socket) -> bytes:
    try:
        return await socket.read()
    except ConnectionError:
        return b""


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def _ports(request: Request) -> list[int]:
    texts = request.http.query.getall("ports", [])
    if not texts:
        raise ApiError(400, "BadRequest", 'query parameter "port" is required')
    try:
        ports = [_port(word) for text in texts for word in text.split(",")]
    except ValueError as error:
        raise ApiError(400, "BadRequest", str(error)) from error
    if len(ports) > PORT_LIMIT:
        raise ApiError(400, "BadRequest", f"at most {PORT_LIMIT} ports can be forwarded by one WebSocket")
    return ports


def _port(text: str) -> int:
    """A port's number. Raises ValueError."""
    if not (text.isascii() and text.isdecimal() and len(text) < 6):
        raise ValueError(f"unable to parse {text!r} as a port")
    if not 0 < int(text) < 65536:
        raise ValueError(f'port "{text}" must be > 0')
    return int(text)
