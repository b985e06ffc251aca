"""Channels in WebSocket messages, without I/O: ``v4.channel.k8s.io``, ``v5.channel.k8s.io`` and older ones.

The first byte of a message is the channel's number, the rest its data; in the base64 variants the number is
a digit and the data base64. In version 5 a client
can say that it sends no more on a channel: byte 255, then its number (KEP-4006).

Source: k8s.io/apimachinery/pkg/util/httpstream/wsstream, k8s.io/apimachinery/pkg/util/remotecommand.
"""

from __future__ import annotations

import base64
import binascii

from msgspec import Struct

V5 = "v5.channel.k8s.io"
V4 = "v4.channel.k8s.io"
V4_BASE64 = "v4.base64.channel.k8s.io"
V1 = "channel.k8s.io"
V1_BASE64 = "base64.channel.k8s.io"

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
"""What exec and attach have on their channels."""

CLOSE = 255
MESSAGE_LIMIT = 32 * 1024 * 1024
"""Longest message in bytes that is taken (golang.org/x/net/websocket, DefaultMaxPayloadBytes)."""


class ChannelError(Exception):
    """A message that is none of this protocol."""


class Said(Struct, frozen=True):
    """Bytes on a channel; `last` without any: the client will send no more on it."""

    channel: int
    data: bytes
    last: bool = False


def encode(protocol: str, channel: int, data: bytes) -> bytes | str:
    """A message to the client: text in the base64 variants."""
    if "base64" in protocol:
        return f"{channel}{base64.b64encode(data).decode()}"
    return bytes((channel,)) + data


def decode(protocol: str, message: bytes | str) -> Said | None:
    """What a message says; None for an empty one. Raises `ChannelError`."""
    raw = message.encode(errors="surrogatepass") if isinstance(message, str) else message
    if not raw:
        return None
    if "base64" in protocol:
        try:
            return Said(raw[0] - ord("0"), base64.b64decode(raw[1:], validate=True))
        except binascii.Error as error:
            raise ChannelError(f"not base64: {error}") from error
    if protocol == V5 and raw[0] == CLOSE:
        if len(raw) != 2:
            raise ChannelError(f"the end of a channel in {len(raw)} bytes")
        return Said(raw[1], b"", last=True)
    return Said(raw[0], raw[1:])
