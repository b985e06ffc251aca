"""What stand-ins say that speak something else than HTTP: bytes in, bytes out, nothing else.

Just enough that a client sees who is there, and that it is a stand-in. Like `behaviours` this is loaded by
the stand-in server and imports next to nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from msgspec import Struct

from nsk8s.workloads.behaviours import Site

STAND_IN = "this is a stand-in: it accepts connections and stores nothing"


class Reply(Struct, frozen=True):
    """What goes back, how much of what arrived is done with, and whether to hang up then."""

    data: bytes
    used: int
    close: bool = False


def _nothing(site: Site) -> bytes:
    return b""


def _silent(site: Site, data: bytes) -> Reply:
    return Reply(b"", len(data))


class Speech(Struct, frozen=True):
    """`greet` is said to who connects (and `hang_up` then), `answer` to what arrives, in whole or in part."""

    greet: Callable[[Site], bytes] = _nothing
    answer: Callable[[Site, bytes], Reply] = _silent
    hang_up: bool = False


def _redis(site: Site, data: bytes) -> Reply:
    """PING, ECHO, INFO and the like; what would store or find something is an error."""
    out, at = b"", 0
    while (request := _redis_request(data[at:])) is not None:
        words, used = request
        at += used
        name = words[0].upper().decode(errors="replace") if words else ""
        if name == "PING":
            out += b"+PONG\r\n" if len(words) < 2 else _bulk(words[1])
        elif name == "ECHO" and len(words) > 1:
            out += _bulk(words[1])
        elif name == "INFO":
            out += _bulk(b"# Server\r\nredis_version:7.4.0\r\nredis_mode:standalone\r\nrole:master\r\n")
        elif name in ("SELECT", "AUTH", "CLIENT"):
            out += b"+OK\r\n"
        elif name == "QUIT":
            return Reply(out + b"+OK\r\n", at, close=True)
        elif name:
            out += f"-ERR unknown command '{name}', {STAND_IN}\r\n".encode()
    return Reply(out, at)


def _redis_request(data: bytes) -> tuple[list[bytes], int] | None:
    """The first request and its length: an array of bulk strings, or a line (RESP)."""
    line, ended, _ = data.partition(b"\r\n") if b"\r\n" in data else data.partition(b"\n")
    if not ended:
        return None
    at = len(line) + len(ended)
    if not line.startswith(b"*"):
        return line.split(), at
    words = []
    for _ in range(int(line[1:]) if line[1:].isdigit() else 0):
        head, ended, _ = data[at:].partition(b"\r\n")
        if not ended or not head[1:].isdigit():
            return None
        at += len(head) + 2
        size = int(head[1:])
        if len(data) < at + size + 2:
            return None
        words.append(data[at : at + size])
        at += size + 2
    return words, at


def _bulk(text: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text)


def _memcached(site: Site, data: bytes) -> Reply:
    out, at = b"", 0
    while (end := data.find(b"\r\n", at)) >= 0:
        words = data[at:end].split()
        at = end + 2
        match words[:1]:
            case [b"version"]:
                out += b"VERSION 1.6.29\r\n"
            case [b"stats"] | [b"get"] | [b"gets"]:
                out += b"END\r\n"
            case [b"quit"]:
                return Reply(out, at, close=True)
            case _:
                out += b"SERVER_ERROR " + STAND_IN.encode() + b"\r\n"
    return Reply(out, at)


SSL_REQUEST = struct.pack(">II", 8, 80877103)


def _postgres(site: Site, data: bytes) -> Reply:
    """No TLS, and no to everybody who wants to log in (which is what pg_isready calls accepting)."""
    if data[:8] == SSL_REQUEST:
        return Reply(b"N", 8)
    if len(data) < 4 or len(data) < struct.unpack(">I", data[:4])[0]:
        return Reply(b"", 0)
    fields = f"SFATAL\0VFATAL\0C0A000\0M{STAND_IN}\0\0".encode()
    return Reply(b"E" + struct.pack(">I", len(fields) + 4) + fields, len(data), close=True)


def _mysql(site: Site) -> bytes:
    """ERR_Packet, in place of the handshake."""
    body = b"\xff" + struct.pack("<H", 1130) + STAND_IN.encode()
    return struct.pack("<I", len(body))[:3] + b"\0" + body


def _amqp(site: Site, data: bytes) -> Reply:
    """The version of the protocol that would be spoken; the client hangs up."""
    return Reply(b"AMQP\0\0\x09\x01", len(data), close=True) if len(data) >= 8 else Reply(b"", 0)


def _hostname(site: Site) -> bytes:
    return site.hostname.encode()


SPEECHES: dict[str, Speech] = {
    "redis": Speech(answer=_redis),
    "memcached": Speech(answer=_memcached),
    "postgres": Speech(answer=_postgres),
    "mysql": Speech(greet=_mysql, hang_up=True),
    "amqp": Speech(answer=_amqp),
    "hostname-raw": Speech(greet=_hostname, hang_up=True),
    "silent": Speech(),
}
"""By the name of a behaviour; one that is not here speaks HTTP."""


def datagram(behaviour: str, site: Site, data: bytes, port: int) -> bytes:
    """What a stand-in answers to a datagram: what it was sent, unless it is one of agnhost's."""
    if behaviour == "hostname-raw":
        return site.hostname.encode()
    if behaviour == "porter":
        return site.options.get(f"UDP/{port}", "").encode()
    return data
