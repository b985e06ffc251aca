"""What clients see of stand-ins, over a socket pair, by a client that shares no code with them."""

from __future__ import annotations

import asyncio
import io
import json
import random
import socket
from contextlib import suppress
from http.client import HTTPResponse
from typing import cast

import pytest

from nsk8s.workloads.behaviours import Site
from nsk8s.workloads.http import MAX_BODY, MAX_HEAD, Connection
from nsk8s.workloads.peers import Peer

SITE = Site("web-1", "shop", "w1", "web-1", "10.244.1.3", "web", "example/web")
DEADLINE = 10.0


class Talk:
    """Sends bytes to one connection of a stand-in, and reads all that comes until it is closed."""

    def __init__(self, behaviour: str = "echo") -> None:
        self.behaviour = behaviour
        self.log: list[str] = []
        self.members: set[Peer] = set()

    def say(self, data: bytes) -> bytes:
        return asyncio.run(self._say(data))

    async def _say(self, data: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        connection = Connection(self.behaviour, SITE, self.log.append, self.members, loop)
        await loop.connect_accepted_socket(lambda: connection, theirs)
        answer = b""
        async with asyncio.timeout(DEADLINE):
            sending = loop.create_task(self._send(ours, data))
            while piece := await loop.sock_recv(ours, 65536):
                answer += piece
            await sending
        ours.close()
        return answer

    async def _send(self, ours: socket.socket, data: bytes) -> None:
        with suppress(OSError):  # it may be refused before all is said
            await asyncio.get_running_loop().sock_sendall(ours, data)
            ours.shutdown(socket.SHUT_WR)

    def ask(
        self, path: str = "/", method: str = "GET", more: str = "", body: bytes = b""
    ) -> tuple[int, dict[str, str], bytes]:
        head = f"{method} {path} HTTP/1.1\r\nHost: 10.96.0.1\r\nUser-Agent: test/1\r\n{more}\r\n".encode()
        return parse(self.say(head + body), method)[0]


class Answers(io.BytesIO):
    """Bytes that look like a socket to http.client, which closes what it has read."""

    def makefile(self, mode: str) -> Answers:
        return self

    def close(self) -> None:
        pass


def parse(data: bytes, method: str = "GET") -> list[tuple[int, dict[str, str], bytes]]:
    """All responses in `data`, read by the standard library."""
    found = []
    stream = Answers(data)
    while stream.tell() < len(data):
        response = HTTPResponse(cast("socket.socket", stream), method=method)
        response.begin()
        found.append((response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()))
    return found


def test_nginx_names_the_pod() -> None:
    talk = Talk("nginx")
    status, headers, body = talk.ask()
    assert status == 200
    assert headers["server"].startswith("nginx/")
    assert headers["content-type"] == "text/html"
    assert b"Welcome to nginx!" in body
    assert b"pod web-1" in body
    assert len(talk.log) == 1
    assert '"GET / HTTP/1.1" 200' in talk.log[0]
    assert talk.log[0].endswith('"-" "test/1"\n')
    assert talk.ask("//")[0] == talk.ask("//index.html")[0] == 200
    assert talk.ask("/missing")[0] == 404
    assert talk.ask("/", "POST", "Content-Length: 0\r\n")[0] == 405


@pytest.mark.parametrize(("behaviour", "words"), [("httpd", b"It works!"), ("tomcat", b"Apache Tomcat")])
def test_other_servers(behaviour: str, words: bytes) -> None:
    status, _, body = Talk(behaviour).ask()
    assert status == 200
    assert words in body
    assert b"pod web-1" in body
    assert Talk(behaviour).ask("/x")[0] == 404


def test_jwilder_whoami() -> None:
    assert Talk("jwilder-whoami").ask()[2] == b"I'm web-1\n"


def test_traefik_whoami() -> None:
    body = Talk("traefik-whoami").ask("/a?b=1", more="X-Zone: a\r\nAccept: */*\r\n")[2]
    assert body == (
        b"Hostname: web-1\nIP: 127.0.0.1\nIP: 10.244.1.3\nRemoteAddr: :0\n"
        b"GET /a?b=1 HTTP/1.1\r\nHost: 10.96.0.1\r\nUser-Agent: test/1\r\nAccept: */*\r\nX-Zone: a\r\n\r\n"
    )
    assert json.loads(Talk("traefik-whoami").ask("/api")[2])["hostname"] == "web-1"
    assert Talk("traefik-whoami").ask("/health")[0] == 200


def test_the_unknown_image_shows_what_it_saw() -> None:
    status, headers, body = Talk().ask("/p?q", "PUT", "Content-Length: 5\r\n", b"hello")
    assert (status, headers["content-type"]) == (200, "application/json")
    seen = json.loads(body)
    expected = {
        "pod": "web-1",
        "namespace": "shop",
        "node": "w1",
        "method": "PUT",
        "path": "/p?q",
        "body": "hello",
    }
    assert {key: seen[key] for key in expected} == expected
    assert seen["headers"]["user-agent"] == "test/1"
    assert {"client", "clientPort", "port"} <= set(seen)


def test_head_has_the_length_and_no_body() -> None:
    status, headers, body = Talk("nginx").ask(method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 100


def test_several_requests_on_one_connection() -> None:
    talk = Talk("jwilder-whoami")
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    answers = parse(talk.say(request * 50))
    assert [body for _, _, body in answers] == [b"I'm web-1\n"] * 50
    assert len(talk.log) == 50
    assert not talk.members


def test_http_1_0_is_closed_after_the_answer() -> None:
    request = b"GET / HTTP/1.0\r\n\r\n"
    assert len(parse(Talk("jwilder-whoami").say(request + request))) == 1


def test_expect_100_continue() -> None:
    answer = Talk().say(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS to a plain port
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (MAX_HEAD + 100_000), 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + b"x" * (MAX_BODY + 70_000), 413),
    ],
)
@pytest.mark.parametrize("behaviour", ["nginx", "echo"])
def test_what_is_no_request_is_refused_and_the_connection_closed(
    data: bytes, status: int, behaviour: str
) -> None:
    talk = Talk(behaviour)
    answers = parse(talk.say(data))
    assert [answer[0] for answer in answers] == [status]
    assert not talk.members


def test_garbage_never_raises() -> None:
    source = random.Random(7)
    for _ in range(50):
        Talk().say(source.randbytes(source.randrange(1, 400)))


def test_a_connection_aborted_before_it_is_made_is_closed() -> None:
    async def run() -> bytes:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        log: list[str] = []
        connection = Connection("echo", SITE, log.append, set(), loop)
        connection.abort()
        await loop.connect_accepted_socket(lambda: connection, theirs)
        with ours:
            async with asyncio.timeout(DEADLINE):
                return await loop.sock_recv(ours, 10)

    assert asyncio.run(run()) == b""
