"""What stand-ins of applications say, byte for byte, and gRPC's health service."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from nsk8s.workloads import grpc
from nsk8s.workloads.behaviours import Site
from nsk8s.workloads.http import Connection
from nsk8s.workloads.protocols import SPEECHES, STAND_IN, datagram

SITE = Site("p", "shop", "w1", "host", "10.0.0.1", "c", "example/app:v1", {"UDP/53": "dns"})


@pytest.mark.parametrize(
    ("behaviour", "said", "answered"),
    [
        ("redis", b"PING\r\n", b"+PONG\r\n"),
        ("redis", b"*1\r\n$4\r\nping\r\n*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n", b"+PONG\r\n$2\r\nhi\r\n"),
        ("redis", b"GET x\r\n", f"-ERR unknown command 'GET', {STAND_IN}\r\n".encode()),
        ("redis", b"*1\r\n$4\r\npi", b""),
        ("memcached", b"version\r\nget x\r\n", b"VERSION 1.6.29\r\nEND\r\n"),
        ("postgres", b"\0\0\0\x08\x04\xd2\x16\x2f", b"N"),
        ("postgres", b"\0\0\0", b""),
        ("amqp", b"AMQP\0\0\x09\x01", b"AMQP\0\0\x09\x01"),
        ("silent", b"anything", b""),
    ],
)
def test_answers(behaviour: str, said: bytes, answered: bytes) -> None:
    assert SPEECHES[behaviour].answer(SITE, said).data == answered


def test_what_is_incomplete_is_kept() -> None:
    reply = SPEECHES["redis"].answer(SITE, b"PING\r\n*1\r\n$4\r\npi")
    assert (reply.data, reply.used) == (b"+PONG\r\n", 6)


def test_mysql_greets_with_an_error_packet() -> None:
    packet = SPEECHES["mysql"].greet(SITE)
    assert int.from_bytes(packet[:3], "little") == len(packet) - 4
    assert packet[4] == 0xFF


def test_datagrams() -> None:
    assert datagram("hostname-raw", SITE, b"x", 1) == b"host"
    assert datagram("porter", SITE, b"x", 53) == b"dns"
    assert datagram("echo", SITE, b"x", 1) == b"x"


async def _asked(behaviour: str, service: str = "") -> None:
    loop = asyncio.get_running_loop()
    members: set[Any] = set()
    log = logging.getLogger("test").debug
    server = await loop.create_server(lambda: Connection(behaviour, SITE, log, members, loop), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(20):
            await grpc.check(reader, writer, "host", service)
    finally:
        writer.close()
        server.close()


def test_an_unknown_server_is_healthy_over_grpc() -> None:
    asyncio.run(_asked("echo"))
    asyncio.run(_asked("echo", "shop.Cart"))


def test_a_web_server_does_not_speak_grpc() -> None:
    with pytest.raises(grpc.Unhealthy, match="Unavailable"):
        asyncio.run(_asked("nginx"))
