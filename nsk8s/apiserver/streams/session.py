"""exec and attach: the streams of a client joined to a process, until one of the two ends.

Streams are counted, not matched: a client may open fewer or others than its query says, and gets what it
has opened (kubelet, cri/streaming/remotecommand).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from nsk8s.apiserver.addressing import truth
from nsk8s.apiserver.request import Request
from nsk8s.apiserver.status import failure
from nsk8s.apiserver.streams import channels, upgrade
from nsk8s.apiserver.streams.access import Process, Sink, Source
from nsk8s.apiserver.streams.connection import ChannelConnection, SpdyConnection, Stream, attended
from nsk8s.errors import ApiError, NsK8sError

SPDY_PROTOCOLS = (channels.V5, channels.V4, "v3.channel.k8s.io", "v2.channel.k8s.io", channels.V1)
WEBSOCKET_PROTOCOLS = (
    channels.V5,
    channels.V4,
    channels.V4_BASE64,
    channels.V1,
    channels.V1_BASE64,
)
STRUCTURED = (channels.V5, channels.V4, channels.V4_BASE64)
"""Protocols in which the error stream has a Status."""
CREATION_TIMEOUT = 30.0
"""Seconds a client has to open its streams (DefaultStreamCreationTimeout)."""
SIZE_LIMIT = 4096
"""Bytes of a window's size that are looked at."""


class Options(Struct, frozen=True):
    """core/v1.PodExecOptions and PodAttachOptions, without the command."""

    container: str
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @classmethod
    def of(cls, request: Request) -> Options:
        """From the query. Raises `ApiError` 400."""
        query = request.query
        stdin, stdout, stderr, tty = (truth(query, key) for key in ("stdin", "stdout", "stderr", "tty"))
        if not (stdin or stdout or stderr):
            raise ApiError(400, "BadRequest", "you must specify at least 1 of stdin, stdout, stderr")
        return cls(query.get("container", ""), stdin, stdout, stderr and not tty, tty)

    @property
    def expected(self) -> int:
        """How many streams a SPDY client opens: the error stream, the asked ones, and a terminal's size."""
        return 1 + self.stdin + self.stdout + self.stderr + self.tty


class Session(Struct):
    """A client's streams; those it did not open are None. With `structured` it reads a Status from the
    error stream, else text."""

    structured: bool
    stdin: Stream | None = None
    stdout: Stream | None = None
    stderr: Stream | None = None
    error: Stream | None = None
    resize: Stream | None = None

    async def attend(self, start: Callable[[], Process], words: str) -> None:
        """Join the streams to a process until it ends, and tell how; `words` is what it runs. Raises
        ConnectionError if the client goes."""
        try:
            code = await self._joined(start())
        except NsK8sError as error:
            await self._tell(failure(error))
        else:
            await self._tell(_status(code, words))

    async def _joined(self, process: Process) -> int:
        outputs = [
            asyncio.create_task(_from(source, stream))
            for source, stream in ((process.stdout, self.stdout), (process.stderr, self.stderr))
            if source is not None
        ]
        inputs = []
        if self.stdin is not None:
            inputs.append(asyncio.create_task(_into(self.stdin, process.stdin)))
        if self.resize is not None:
            inputs.append(asyncio.create_task(_sizes(self.resize, process.resize)))
        try:
            code = await process.wait()
            await asyncio.gather(*outputs)
            return code
        finally:
            process.kill()
            for task in (*inputs, *outputs):
                task.cancel()
            await asyncio.gather(*inputs, *outputs, return_exceptions=True)

    async def _tell(self, status: dict[str, Any]) -> None:
        if self.error is not None:
            if self.structured:
                await self.error.write(msgspec.json.encode(status))
            elif status["status"] == "Failure":
                await self.error.write(status["message"].encode())
        for stream in (self.stdout, self.stderr, self.error):
            if stream is not None:
                await stream.close()


async def serve(
    request: Request, options: Options, start: Callable[[], Process], words: str
) -> web.StreamResponse:
    """Join whatever the client speaks to the process that `start` makes once its streams are there. Raises
    `ApiError` before the connection is taken over."""
    if upgrade.wants_websocket(request):
        async with upgrade.websocket(request, WEBSOCKET_PROTOCOLS, autoping=False) as socket:
            await _over_channels(request, socket, options, start, words)
            return socket
    protocol = upgrade.agreed(request, SPDY_PROTOCOLS)
    async with upgrade.spdy(request, protocol) as connection:
        await _over_spdy(connection, protocol, options, start, words)
        return upgrade.TakenOver()


async def _over_channels(
    request: Request,
    socket: web.WebSocketResponse,
    options: Options,
    start: Callable[[], Process],
    words: str,
) -> None:
    protocol = socket.ws_protocol or ""
    connection = ChannelConnection(socket, request.http.transport, protocol, channels.RESIZE + 1)
    stdin, stdout, stderr, error, resize = connection.streams
    session = Session(protocol in STRUCTURED, stdin, stdout, stderr, error, resize)
    if not options.stdin:
        stdin.discard()

    async def work() -> None:
        if protocol == channels.V5:  # which only client-go speaks
            await connection.met()
        first = stdout if options.stdout else stderr if options.stderr else error
        await first.write(b"")  # the streams are there (kubelet, createWebSocketStreams)
        await session.attend(start, words)

    await attended(connection, connection.run(), work())


async def _over_spdy(
    connection: SpdyConnection,
    protocol: str,
    options: Options,
    start: Callable[[], Process],
    words: str,
) -> None:
    session = Session(protocol in STRUCTURED)
    complete = asyncio.Event()
    count = 0

    def take(stream: Stream) -> None:
        nonlocal count
        name = stream.headers.get("streamtype", "")
        if name not in ("stdin", "stdout", "stderr", "error", "resize"):
            raise ValueError(name)
        setattr(session, name, stream)
        count += 1
        if count == options.expected:
            complete.set()

    async def work() -> None:
        async with asyncio.timeout(CREATION_TIMEOUT):
            await complete.wait()
        await session.attend(start, words)

    await attended(connection, connection.run(take), work())


async def _from(source: Source, stream: Stream | None) -> None:
    """Everything that comes out; what nobody wants is dropped."""
    while piece := await source.read():
        if stream is not None:
            await stream.write(piece)


async def _into(stream: Stream, sink: Sink | None) -> None:
    """Everything that goes in, and that there will be no more; for a program that does not read any more
    (or never did), it is dropped."""
    if sink is not None:
        with suppress(ConnectionError):
            while piece := await stream.read():
                await sink.write(piece)
            sink.close()
            return
    stream.discard()


async def _sizes(stream: Stream, resize: Callable[[int, int], None]) -> None:
    """``{"Width":80,"Height":24}``, one after the other; what is none is ignored."""
    rest = ""
    decoder = json.JSONDecoder()
    while piece := await stream.read():
        rest = (rest + piece.decode(errors="replace"))[-SIZE_LIMIT:].lstrip()
        with suppress(ValueError, RecursionError):  # not whole yet
            while rest:
                size, end = decoder.raw_decode(rest)
                rest = rest[end:].lstrip()
                match size:
                    case {"Width": int(width), "Height": int(height)}:
                        if 0 < width < 65536 and 0 < height < 65536:
                            resize(width, height)


def _status(code: int, words: str) -> dict[str, Any]:
    """How a process has ended (remotecommand.ExecuteInContainer)."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    why = f"error executing command {words}, exit code {code}"
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: {why}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
