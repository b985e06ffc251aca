"""A client's connection that carries several streams, all alike whatever it speaks.

Both ends may be slow. What the client has sent and nobody has read yet is held up to `BUFFER` bytes for the
connection; then the connection is not read any more, and the client has to wait. What is written waits for
the client in the same way. A client that has gone is noticed in either case.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Protocol

from aiohttp import WSMsgType, web

from nsk8s.apiserver.streams import channels, spdy

BUFFER = 1 << 20
"""Bytes of one connection that wait to be read."""
STREAM_LIMIT = 1000
"""Streams that one connection may have open at a time."""
NUDGE_INTERVAL = 1.0
"""Seconds between two looks whether a client that is made to wait is still there."""
PONG_INTERVAL = 0.1
"""Seconds that a client has for answering a ping."""
PIECE = 64 * 1024
"""Bytes asked for at a time."""


class Stream:
    """One stream, both ways. `headers` are what the client opened it with."""

    def __init__(
        self, held: Held, headers: Mapping[str, str], send: Callable[[bytes, bool], Awaitable[None]]
    ) -> None:
        self.headers = headers
        self._held = held
        self._send = send
        self._pieces: deque[bytes] = deque()
        self._over = False
        self._deaf = False
        self._closed = False
        self._waiting: asyncio.Future[None] | None = None

    @property
    def over(self) -> bool:
        """Closed by both sides."""
        return self._over and self._closed

    async def read(self) -> bytes:
        """What has come; b"" once there will be no more."""
        while not self._pieces:
            if self._over:
                return b""
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        piece = self._pieces.popleft()
        self._held.take(len(piece))
        return piece

    async def write(self, data: bytes) -> None:
        """Send, and wait until the client keeps up. Raises ConnectionError when it has gone."""
        if not self._closed:
            await self._send(data, False)

    async def close(self) -> None:
        """Send no more (half-close). Raises ConnectionError."""
        if not self._closed:
            self._closed = True
            await self._send(b"", True)

    def discard(self) -> None:
        """Read no more: what comes is dropped."""
        self._deaf = True
        self.end()
        self._held.take(sum(map(len, self._pieces)))
        self._pieces.clear()

    def reset(self) -> None:
        """The client has given it up."""
        self._closed = True
        self.discard()

    def feed(self, data: bytes) -> None:
        """The client has sent some."""
        if data and not (self._over or self._deaf):
            self._pieces.append(data)
            self._held.put(len(data))
            self._wake()

    def end(self) -> None:
        """The client will send no more."""
        self._over = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Held:
    """The bytes that a connection's streams hold."""

    def __init__(self) -> None:
        self._size = 0
        self._waiting: asyncio.Future[bool] | None = None

    def put(self, size: int) -> None:
        """More of them."""
        self._size += size

    def take(self, size: int) -> None:
        """Less of them."""
        self._size -= size
        if self._size <= BUFFER and self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(True)

    async def room(
        self, transport: asyncio.WriteTransport | None, nudge: Callable[[], Awaitable[None]]
    ) -> None:
        """Wait until there are less than `BUFFER`. Raises ConnectionError if the client goes meanwhile.

        Over TCP the end of a client that is not being read stays behind what it has sent. But whoever is
        gone answers anything with a reset: `nudge` sends what means nothing and asks for nothing.
        """
        while self._size > BUFFER:
            self._waiting = asyncio.get_running_loop().create_future()
            with _hanging_up(transport, self._waiting):
                while not self._waiting.done():
                    await asyncio.wait((self._waiting,), timeout=NUDGE_INTERVAL)
                    if not self._waiting.done() and transport and not transport.get_write_buffer_size():
                        await nudge()
                if not self._waiting.result():
                    raise ConnectionResetError("the client has gone")


@contextmanager
def _hanging_up(transport: asyncio.WriteTransport | None, waiting: asyncio.Future[bool]) -> Iterator[None]:
    """`waiting` comes to nothing (False) when the peer of a connection that is not being read closes it. That
    is no exception: whoever waits may have gone for another reason, and nobody would retrieve it."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or sock.fileno() < 0:
        yield
        return
    loop = asyncio.get_running_loop()
    poll = select.epoll()  # of its own: asyncio's cannot ask for this, and watches the socket already

    def gone() -> None:
        loop.remove_reader(poll.fileno())
        if not waiting.done():
            waiting.set_result(False)

    poll.register(sock.fileno(), select.EPOLLRDHUP | select.EPOLLET)
    loop.add_reader(poll.fileno(), gone)
    try:
        yield
    finally:
        loop.remove_reader(poll.fileno())
        poll.close()


class Wire(Protocol):
    """Bytes to and from a client, in order."""

    async def receive(self) -> bytes:
        """Some bytes; b"" when the client has gone."""

    async def send(self, data: bytes) -> None:
        """Take `data` at once, return when the client keeps up. Raises ConnectionError."""

    async def nudge(self) -> None:
        """Send something that means nothing."""

    def transport(self) -> asyncio.WriteTransport | None:
        """What it runs on."""


class TransportWire:
    """A transport taken over from HTTP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self) -> bytes:
        """As `Wire.receive`."""
        try:
            return await self._reader.read(PIECE)
        except OSError:
            return b""

    async def send(self, data: bytes) -> None:
        """As `Wire.send`."""
        if self._writer.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._writer.write(data)
        await self._writer.drain()

    async def nudge(self) -> None:
        """As `Wire.nudge`."""
        await self.send(spdy.NOTHING)

    def transport(self) -> asyncio.WriteTransport | None:
        """As `Wire.transport`."""
        return self._writer.transport


class WebSocketWire:
    """Bytes in binary messages: SPDY/3.1 tunnelled (KEP-4006)."""

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.WriteTransport | None) -> None:
        self._socket = socket
        self._transport = transport

    async def receive(self) -> bytes:
        """As `Wire.receive`."""
        while True:
            message = await self._socket.receive()
            if message.type is not WSMsgType.BINARY:
                return b""
            if message.data:
                return bytes(message.data)

    async def send(self, data: bytes) -> None:
        """As `Wire.send`."""
        await self._socket.send_bytes(data)

    async def nudge(self) -> None:
        """As `Wire.nudge`: a pong that nobody asked for (RFC 6455, 5.5.3)."""
        await self._socket.pong()

    def transport(self) -> asyncio.WriteTransport | None:
        """As `Wire.transport`."""
        return self._transport


class SpdyConnection:
    """Streams of SPDY/3.1, opened by the client. `opened` is told of each; when it raises ValueError, the
    stream is refused."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._spdy = spdy.Spdy()
        self._held = Held()
        self._streams: dict[int, Stream] = {}

    async def run(self, opened: Callable[[Stream], None]) -> None:
        """Read until the client has gone. Raises `spdy.SpdyError` if it talks nonsense, ConnectionError."""
        try:
            while data := await self._wire.receive():
                for event in self._spdy.receive(data):
                    frame = self._happened(event, opened)
                    if frame:
                        await self._wire.send(frame)
                await self._held.room(self._wire.transport(), self._wire.nudge)
        finally:
            for stream in self._streams.values():
                stream.reset()

    async def close(self) -> None:
        """Say that it is over."""
        with suppress(ConnectionError):
            await self._wire.send(self._spdy.goaway())

    def _happened(self, event: spdy.Event, opened: Callable[[Stream], None]) -> bytes:
        match event:
            case spdy.Data(number, data) if number in self._streams:
                self._streams[number].feed(data)
            case spdy.Opened(number, headers):
                stream = Stream(self._held, headers, self._sender(number))
                if len(self._streams) >= STREAM_LIMIT:
                    return self._spdy.reset(number, spdy.REFUSED_STREAM)
                try:
                    opened(stream)
                except ValueError:
                    return self._spdy.reset(number, spdy.REFUSED_STREAM)
                self._streams[number] = stream
                return self._spdy.reply(number)
            case spdy.Finished(number) if number in self._streams:
                self._streams[number].end()
                self._forget(number)
            case spdy.Reset(number) if number in self._streams:
                self._streams.pop(number).reset()
            case spdy.Ponged(frame):
                return frame
        return b""

    def _sender(self, number: int) -> Callable[[bytes, bool], Awaitable[None]]:
        async def send(data: bytes, last: bool) -> None:
            for frame in self._spdy.data(number, data, last=last):
                await self._wire.send(frame)
            if last:
                self._forget(number)

        return send

    def _forget(self, number: int) -> None:
        """What both sides have closed needs no place any more."""
        stream = self._streams.get(number)
        if stream is not None and stream.over:
            del self._streams[number]


class ChannelConnection:
    """Streams that are there from the beginning: `count` channels of a WebSocket."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.WriteTransport | None,
        protocol: str,
        count: int,
    ) -> None:
        self._socket = socket
        self._transport = transport
        self._protocol = protocol
        self._held = Held()
        self._ponged = asyncio.Event()
        self.streams = [Stream(self._held, {}, self._sender(number)) for number in range(count)]

    async def met(self) -> None:
        """Wait until the client has answered a ping (RFC 6455, 5.5.3), for `PONG_INTERVAL` at most. Raises
        ConnectionError.

        client-go begins to read while it still makes its streams, and before 1.34 throws away what comes for
        one that is not there (kubernetes/kubernetes#131189). On a real cluster the way to the kubelet takes
        long enough.
        """
        await self._socket.ping()
        with suppress(TimeoutError):
            async with asyncio.timeout(PONG_INTERVAL):
                await self._ponged.wait()

    async def run(self) -> None:
        """Read until the client has gone. Raises
        `channels.ChannelError` if it talks nonsense, ConnectionError."""
        try:
            while True:
                message = await self._socket.receive()
                if message.type is WSMsgType.PONG:
                    self._ponged.set()
                    continue
                if message.type is WSMsgType.PING:
                    await self._socket.pong(message.data)
                    continue
                if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                    return
                said = channels.decode(self._protocol, message.data)
                if said is None or not 0 <= said.channel < len(self.streams):
                    continue
                if said.last:
                    self.streams[said.channel].end()
                else:
                    self.streams[said.channel].feed(said.data)
                await self._held.room(self._transport, self._socket.pong)
        finally:
            for stream in self.streams:
                stream.reset()

    async def close(self) -> None:
        """Say that it is over."""
        with suppress(ConnectionError):
            await self._socket.close()

    def _sender(self, number: int) -> Callable[[bytes, bool], Awaitable[None]]:
        async def send(data: bytes, last: bool) -> None:
            if last:
                return  # only clients have a word for that
            message = channels.encode(self._protocol, number, data)
            if isinstance(message, str):
                await self._socket.send_str(message)
            else:
                await self._socket.send_bytes(message)

        return send


async def attended(
    connection: SpdyConnection | ChannelConnection,
    reading: Coroutine[None, None, None],
    work: Coroutine[None, None, None],
) -> None:
    """Do `work` while the connection is being read; when the client goes first, or makes no sense, it is
    cancelled. Then say that it is over."""
    reader, worker = asyncio.ensure_future(reading), asyncio.ensure_future(work)
    try:
        await asyncio.wait((reader, worker), return_when=asyncio.FIRST_COMPLETED)
        with suppress(ConnectionError, TimeoutError, spdy.SpdyError, channels.ChannelError):
            if worker.done():
                worker.result()
            else:
                reader.result()
        await connection.close()
    finally:
        for task in (reader, worker):
            task.cancel()
        await asyncio.gather(reader, worker, return_exceptions=True)
