"""The server's side of SPDY/3.1, without I/O: bytes in, events and bytes out.

Written for the clients of the Kubernetes API (moby/spdystream), which open streams, send and half-close
them, reset and ping, and know no flow control: WINDOW_UPDATE is ignored and never sent. Whatever bytes come
in, the answer is events or one `SpdyError`.

Source: https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/ (frames: section 2.2 and 2.6).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping

from msgspec import Struct, field

FRAME_LIMIT = 1 << 20
"""Longest frame in bytes that is taken; clients send at most 64 KiB."""
HEADERS_LIMIT = 64 * 1024
"""Longest block of headers in bytes, unpacked."""
DATA_SIZE = 64 * 1024
"""Longest DATA frame that is sent."""

FIN = 0x01
UNIDIRECTIONAL = 0x02
SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
PROTOCOL_ERROR, REFUSED_STREAM, CANCEL = 1, 3, 5
"""Reasons for RST_STREAM."""

_VERSION = 3
_CONTROL = 0x8000
_LAST_ID = 0x7FFF_FFFF

_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges "
    "age allow authorization cache-control connection content-base content-encoding content-language "
    "content-length content-location content-md5 content-range content-type date etag expect expires from "
    "host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location "
    "max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer "
    "transfer-encoding upgrade user-agent vary via warning www-authenticate method get status 200_OK version "
    "HTTP/1.1 url public set-cookie keep-alive origin"
)
_REST = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _counted(word: bytes) -> bytes:
    return struct.pack(">I", len(word)) + word


DICTIONARY = b"".join(_counted(word.replace("_", " ").encode()) for word in _WORDS.split()) + _REST.encode()
"""What zlib knows from the beginning (section 2.6.10.1)."""

NOTHING = struct.pack(">II", 2, 0)
"""An empty DATA frame of a stream that nobody has (servers' have even numbers): receivers drop it."""


class SpdyError(Exception):
    """The client does not speak SPDY/3.1; the connection is of no more use."""


class Opened(Struct, frozen=True):
    """The client has opened a stream; names of headers are in lower case."""

    stream: int
    headers: Mapping[str, str]


class Data(Struct, frozen=True):
    """Bytes of a stream."""

    stream: int
    data: bytes


class Finished(Struct, frozen=True):
    """The client will send no more on a stream (half-close)."""

    stream: int


class Reset(Struct, frozen=True):
    """The client has given a stream up, both ways."""

    stream: int


class Ponged(Struct, frozen=True):
    """The client waits for these bytes: the answer to its PING."""

    frame: bytes


Event = Opened | Data | Finished | Reset | Ponged


class Spdy(Struct):
    """One connection. The methods that make frames must have their bytes sent in the order of the calls:
    headers are packed as one zlib stream."""

    _rest: bytearray = field(default_factory=bytearray)
    _last: int = 0
    _unpack: zlib._Decompress = field(default_factory=lambda: zlib.decompressobj(zdict=DICTIONARY))
    _pack: zlib._Compress = field(default_factory=lambda: zlib.compressobj(zdict=DICTIONARY))

    def receive(self, data: bytes) -> Iterator[Event]:
        """What the client says; to be consumed whole. Raises `SpdyError`."""
        self._rest += data
        position, rest = 0, self._rest
        try:
            while len(rest) - position >= 8:
                first, second, flags_length = struct.unpack_from(">HHI", rest, position)
                length = flags_length & 0xFF_FFFF
                if length > FRAME_LIMIT:
                    raise SpdyError(f"a frame of {length} bytes")
                if len(rest) - position - 8 < length:
                    break
                payload = bytes(memoryview(rest)[position + 8 : position + 8 + length])
                position += 8 + length
                if first & _CONTROL:
                    yield from self._control(first & ~_CONTROL, second, flags_length >> 24, payload)
                else:
                    stream = first << 16 | second
                    if payload:
                        yield Data(stream, payload)
                    if flags_length >> 24 & FIN:
                        yield Finished(stream)
        finally:
            del rest[:position]

    def reply(self, stream: int) -> bytes:
        """SYN_REPLY: the stream is accepted."""
        packed = self._pack.compress(struct.pack(">I", 0)) + self._pack.flush(zlib.Z_SYNC_FLUSH)
        return _frame(SYN_REPLY, struct.pack(">I", stream) + packed)

    def data(self, stream: int, data: bytes, *, last: bool = False) -> Iterator[bytes]:
        """DATA frames; with `last` the stream is half-closed behind them."""
        view = memoryview(data)
        while len(view) > DATA_SIZE:
            yield struct.pack(">II", stream, DATA_SIZE) + view[:DATA_SIZE]
            view = view[DATA_SIZE:]
        yield struct.pack(">II", stream, (FIN if last else 0) << 24 | len(view)) + view

    def reset(self, stream: int, reason: int) -> bytes:
        """RST_STREAM: the stream is refused, or given up."""
        return _frame(RST_STREAM, struct.pack(">II", stream, reason))

    def goaway(self) -> bytes:
        """GOAWAY: no streams are accepted any more."""
        return _frame(GOAWAY, struct.pack(">II", self._last, 0))

    def _control(self, version: int, kind: int, flags: int, payload: bytes) -> Iterator[Event]:
        if version != _VERSION:
            raise SpdyError(f"version {version}")
        try:
            match kind:
                case 1:  # SYN_STREAM: stream, associated stream, priority, slot, headers
                    (stream,) = struct.unpack_from(">I", payload)
                    headers = self._headers(payload[10:])
                    yield Opened(self._new(stream), headers)
                    if flags & FIN:
                        yield Finished(stream)
                case 8:  # HEADERS: unpacked, for the sake of zlib's state
                    self._headers(payload[4:])
                case 3:
                    yield Reset(struct.unpack_from(">I", payload)[0] & _LAST_ID)
                case 6:
                    (number,) = struct.unpack(">I", payload)
                    if number % 2:  # the client's own, not an answer to one of ours
                        yield Ponged(_frame(PING, payload))
                case 2:
                    raise SpdyError("SYN_REPLY, though this side opens no streams")
        except struct.error as error:
            raise SpdyError(f"a control frame of kind {kind} with {len(payload)} bytes") from error

    def _new(self, stream: int) -> int:
        """Streams of a client have odd numbers, each larger than all before."""
        if not stream & 1 or not self._last < stream <= _LAST_ID:
            raise SpdyError(f"stream {stream} after {self._last}")
        self._last = stream
        return stream

    def _headers(self, packed: bytes) -> dict[str, str]:
        try:
            block = self._unpack.decompress(packed, HEADERS_LIMIT)
        except zlib.error as error:
            raise SpdyError(f"headers: {error}") from error
        if self._unpack.unconsumed_tail or self._unpack.eof:
            raise SpdyError(f"headers of more than {HEADERS_LIMIT} bytes")
        (count,) = struct.unpack_from(">I", block)
        position, words = 4, []
        for _ in range(2 * count):
            (length,) = struct.unpack_from(">I", block, position)
            position += 4 + length
            if position > len(block):
                raise SpdyError("headers that break off")
            words.append(block[position - length : position].decode("latin-1"))
        return {name.lower(): value for name, value in zip(words[::2], words[1::2], strict=True)}


def _frame(kind: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">HHI", _CONTROL | _VERSION, kind, flags << 24 | len(payload)) + payload
