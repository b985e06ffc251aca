"""Upgraded connections through the proxies, to a server of a protocol that nobody else speaks."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from nsk8s.apiserver.streams import handlers, passing
from nsk8s.paths import ClusterPaths
from tests.unit.apiserver.served import DEADLINE, Served, served
from tests.unit.apiserver.streams.test_sessions import Pods
from tests.unit.cluster.worlds import pod

Answer = Callable[[bytes, socket.socket], None]
UPGRADE = "Connection: keep-alive, Upgrade\r\nUpgrade: shout/1\r\n"
AGREED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: shout/1\r\n\r\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With a pod whose address is this host's."""
    patch = pytest.MonkeyPatch()
    patch.setenv("NSK8S_STATE", os.fspath(tmp_path_factory.mktemp("s")))
    with served(ClusterPaths("t")) as found:
        found.loop.call_soon_threadsafe(handlers.install, found.server, found.world.store, Pods())

        def make() -> None:
            made = found.world.registry.create(pod("shouter"))
            found.world.registry.update_status({**made, "status": {"podIP": "127.0.0.1"}})

        found.within(make)
        yield found
    patch.undo()


class Shouter:
    """A server in the pod, for one connection at a time: `heard` is the head of the last request."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.heard = b""
        self.over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                opened, _ = self._listening.accept()
                opened.settimeout(DEADLINE)
                self.heard = head_of(opened)
                with opened:
                    self._answer(self.heard, opened)
                self.over.set()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(DEADLINE)


@pytest.fixture
def shouting() -> Iterator[Callable[[Answer], Shouter]]:
    made: list[Shouter] = []

    def make(answer: Answer) -> Shouter:
        made.append(Shouter(answer))
        return made[-1]

    yield make
    for one in made:
        one.close()


def shout(_head: bytes, opened: socket.socket) -> None:
    """Agree, and give everything back in capitals; the first word comes with the agreement."""
    opened.sendall(AGREED + b"welcome ")
    while piece := opened.recv(65536):
        opened.sendall(piece.upper())


def head_of(sock: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = sock.recv(1)
        if not piece:
            return head
        head += piece
    return head


def asked(world: Served, port: int, head: str = UPGRADE, method: str = "GET") -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(DEADLINE)
    sock.connect(os.fspath(world.paths.socket))
    path = f"/api/v1/namespaces/default/pods/shouter:{port}/proxy/a%20b?c=d"
    sock.sendall(
        f"{method} {path} HTTP/1.1\r\nHost: here.example\r\nAuthorization: Bearer x\r\n{head}\r\n".encode()
    )
    return sock


def exactly(sock: socket.socket, count: int) -> bytes:
    found = bytearray()
    while len(found) < count:
        piece = sock.recv(count - len(found))
        assert piece, f"only {len(found)} of {count} bytes"
        found += piece
    return bytes(found)


def everything(sock: socket.socket) -> bytes:
    found = b""
    while piece := sock.recv(65536):
        found += piece
    return found


def test_what_is_said_goes_both_ways(world: Served, shouting: Callable[[Answer], Shouter]) -> None:
    server = shouting(shout)
    with asked(world, server.port) as sock:
        assert head_of(sock) == AGREED
        assert exactly(sock, 8) == b"welcome "
        for word in (b"one", b"two"):
            sock.sendall(word)
            assert exactly(sock, 3) == word.upper()
    assert server.over.wait(DEADLINE), "the client has gone, so the pod's connection ends"
    first, *headers = server.heard.decode().strip().split("\r\n")
    assert first == "GET /a%20b?c=d HTTP/1.1"
    assert {"Host: here.example", "Connection: keep-alive, Upgrade", "Upgrade: shout/1"} <= set(headers)
    assert not [line for line in headers if line.lower().startswith("authorization")]


def test_a_body_arrives_before_the_other_protocol(
    world: Served, shouting: Callable[[Answer], Shouter]
) -> None:
    heard = []

    def agree(_head: bytes, opened: socket.socket) -> None:
        heard.append(exactly(opened, 5))
        opened.sendall(AGREED)

    server = shouting(agree)
    with asked(world, server.port, f"Transfer-Encoding: chunked\r\n{UPGRADE}", method="POST") as sock:
        sock.sendall(b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
        assert everything(sock) == AGREED
    assert heard == [b"hello"]
    assert b"\r\nContent-Length: 5\r\n" in server.heard
    assert b"chunked" not in server.heard


def test_much_goes_both_ways_at_a_time(world: Served, shouting: Callable[[Answer], Shouter]) -> None:
    text = os.urandom(8_000_000)
    server = shouting(shout)
    with asked(world, server.port) as sock:
        head_of(sock)
        exactly(sock, 8)
        sending = threading.Thread(target=sock.sendall, args=(text,))
        sending.start()
        found = exactly(sock, len(text))
        sending.join(DEADLINE)
    assert hashlib.sha256(found).digest() == hashlib.sha256(text.upper()).digest()


def test_who_is_not_heard_has_to_wait(world: Served, shouting: Callable[[Answer], Shouter]) -> None:
    done = threading.Event()

    def ignore(_head: bytes, opened: socket.socket) -> None:
        opened.sendall(AGREED)
        done.wait(DEADLINE)

    with asked(world, shouting(ignore).port) as sock:
        head_of(sock)
        sock.settimeout(0.5)
        sent = 0
        with suppress(TimeoutError):
            while sent < 100_000_000:
                sent += sock.send(bytes(60_000))
        done.set()
    assert sent < 32_000_000, "the kernel's buffers, and little of ours"


def test_the_pods_last_word_is_heard(world: Served, shouting: Callable[[Answer], Shouter]) -> None:
    def bye(_head: bytes, opened: socket.socket) -> None:
        opened.sendall(AGREED + b"bye" * 100_000)

    with asked(world, shouting(bye).port) as sock:
        assert everything(sock) == AGREED + b"bye" * 100_000


@pytest.mark.parametrize(
    ("body", "framing"),
    [
        (b"not here", b"Content-Length: 8\r\n\r\nnot here"),
        (b"not here", b"Transfer-Encoding: chunked\r\n\r\n4\r\nnot \r\n4;x\r\nhere\r\n0\r\n\r\n"),
        (b"not here", b"\r\nnot here"),
        (b"", b"Content-Length: 0\r\n\r\n"),
    ],
)
def test_a_pod_that_does_not_agree_says_why(
    world: Served, shouting: Callable[[Answer], Shouter], body: bytes, framing: bytes
) -> None:
    def refuse(_head: bytes, opened: socket.socket) -> None:
        opened.sendall(b"HTTP/1.1 404 Nowhere\r\nContent-Type: text/x\r\n" + framing)
        if framing != b"\r\nnot here":
            opened.recv(1)  # it would talk on

    with asked(world, shouting(refuse).port) as sock:
        head, _, said = everything(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 Nowhere\r\n")
    assert b"Content-Type: text/x" in head
    assert said == body


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"invalid upgrade response: status code 200"),
        (b"HTTP/1.1 101 Switch", b"unexpected EOF"),
        (b"HELLO\r\n\r\n", b"malformed HTTP response"),
    ],
)
def test_a_pod_that_has_not_understood(
    world: Served, shouting: Callable[[Answer], Shouter], answer: bytes, words: bytes
) -> None:
    with asked(world, shouting(lambda _, opened: opened.sendall(answer)).port) as sock:
        head = head_of(sock)
        said = sock.recv(65536)
    assert head.startswith(b"HTTP/1.1 500 ")
    assert words in said


def test_a_pod_that_is_not_reached(world: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with asked(world, port) as sock:
        assert head_of(sock).startswith(b"HTTP/1.1 500 ")
        assert f"dial tcp 127.0.0.1:{port}: connect: connection refused".encode() in sock.recv(65536)


def test_a_pod_that_does_not_answer(world: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "CONNECT_TIMEOUT", 0.2)

    async def never(*_: object) -> None:
        await asyncio.sleep(DEADLINE)

    monkeypatch.setattr(world.loop, "sock_connect", never)
    with asked(world, 9) as sock:
        assert head_of(sock).startswith(b"HTTP/1.1 500 ")
        assert b"dial tcp 127.0.0.1:9: i/o timeout" in sock.recv(65536)
