"""A connection that speaks another protocol than HTTP, passed through between a client and a pod.

The client asks for it (``Upgrade``), the pod agrees (101), and from then on bytes flow both ways until one
side has had enough. Source: k8s.io/apimachinery/pkg/util/proxy (UpgradeAwareHandler.tryUpgrade).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from aiohttp import web
from multidict import CIMultiDict

from nsk8s.apiserver.request import Request
from nsk8s.apiserver.streams.upgrade import TakenOver, taken_over
from nsk8s.errors import ApiError, in_words

CONNECT_TIMEOUT = 30.0
"""Seconds that a pod may take to answer a connection."""
REFUSAL_TIMEOUT = 10.0
"""Seconds that a pod may take to say why it does not agree."""
HEAD_LIMIT = 64 * 1024
"""Bytes of the pod's answer before its body."""
PIECE = 64 * 1024

HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
"""Headers that concern one connection only (RFC 9110, 7.6.1)."""
FRAMING = {"content-length", "transfer-encoding"}
"""... and those that say where a body ends."""


class Location(NamedTuple):
    """Where a request goes."""

    scheme: str
    address: str
    port: int


class Head(NamedTuple):
    """The beginning of an answer."""

    status: int
    reason: str
    headers: CIMultiDict[str]


def wants_upgrade(request: Request) -> bool:
    """Whether the client asks for another protocol, whichever."""
    return any("upgrade" in value.lower() for value in request.http.headers.getall("Connection", ()))


async def pass_through(
    request: Request, to: Location, target: str, headers: Sequence[tuple[str, str]], opened: socket.socket
) -> web.StreamResponse:
    """Ask a pod for `target` with these headers, by the socket `opened`, and join the client's connection to
    the pod's. Raises `ApiError` 500 for a pod that is not reached or has misunderstood; a refusal is
    returned."""
    http = request.http
    body = await http.read()
    kept = [(name, value) for name, value in headers if name.lower() not in FRAMING]
    if body:
        kept.append(("Content-Length", str(len(body))))
    text = "".join(f"{name}: {value}\r\n" for name, value in kept)
    words = f"{http.method} {target} HTTP/1.1\r\n{text}\r\n".encode(errors="surrogateescape")
    reader, writer = await _dialled(to, opened)
    try:
        writer.write(words + body)
        await writer.drain()
        raw = await reader.readuntil(b"\r\n\r\n")
        head = _parsed(raw)
        if head.status == 101:
            async with taken_over(request, raw) as (ours, back):
                await _joined((ours, writer), (reader, back))
            return TakenOver()
        if head.status < 400:
            raise ApiError(500, "", f"invalid upgrade response: status code {head.status}")
        return await _refusal(head, reader)
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
        raise ApiError(500, "", "unexpected EOF" if isinstance(error, EOFError) else str(error)) from error
    finally:
        writer.close()


async def _dialled(to: Location, opened: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    opened.setblocking(False)
    secure = None
    if to.scheme == "https":  # nobody has told us whom to trust
        secure = ssl.create_default_context()
        secure.check_hostname, secure.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await asyncio.get_running_loop().sock_connect(opened, (to.address, to.port))
            return await asyncio.open_connection(
                sock=opened, ssl=secure, server_hostname=to.address if secure else None, limit=HEAD_LIMIT
            )
    except TimeoutError as error:
        opened.close()
        raise ApiError(500, "", f"dial tcp {to.address}:{to.port}: i/o timeout") from error
    except OSError as error:
        opened.close()
        what = f"dial tcp {to.address}:{to.port}: connect: {in_words(error)}"
        raise ApiError(500, "", what) from error


async def _joined(*ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    """Copy each way until one of them is over."""
    copying = [asyncio.create_task(_copy(*way)) for way in ways]
    try:
        await asyncio.wait(copying, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in copying:
            task.cancel()
        await asyncio.gather(*copying, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()


def _parsed(raw: bytes) -> Head:
    """Raises ValueError for what is no answer."""
    first, *lines = raw.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    status, _, reason = rest.partition(" ")
    if not (version.startswith("HTTP/") and status.isdecimal() and len(status) == 3):
        raise ValueError(f"malformed HTTP response {first!r}")
    pairs = (line.partition(":") for line in lines if line)
    return Head(int(status), reason, CIMultiDict((name.strip(), value.strip()) for name, _, value in pairs))


async def _refusal(head: Head, reader: asyncio.StreamReader) -> web.Response:
    """What a pod says that does not agree, as ours; as much of it as comes in time."""
    body = bytearray()
    with suppress(TimeoutError, EOFError):
        async with asyncio.timeout(REFUSAL_TIMEOUT):
            await _read_body(head, reader, body)
    answer = web.Response(status=head.status, reason=head.reason, body=bytes(body))
    for name, value in head.headers.items():
        if name.lower() not in HOP_BY_HOP | FRAMING:
            answer.headers.add(name, value)
    answer.force_close()
    return answer


async def _read_body(head: Head, reader: asyncio.StreamReader, body: bytearray) -> None:
    if "chunked" in head.headers.get("transfer-encoding", "").lower():
        while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        return
    left = head.headers.get("content-length", "")
    while not left or len(body) < int(left):
        piece = await reader.read(PIECE)
        if not piece:
            return
        body += piece
