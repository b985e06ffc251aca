"""Sessions over a real socket with a process that is none: what streams carry, and who waits for whom."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import logging
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nsk8s import streamclient
from nsk8s.apiserver.streams import connection, handlers, spdy
from nsk8s.apiserver.streams.access import LogOptions, Process, Socket
from nsk8s.apiserver.streams.connection import BUFFER
from nsk8s.errors import ApiError, NsK8sError
from nsk8s.paths import ClusterPaths
from tests.unit.apiserver.served import DEADLINE, Served, served
from tests.unit.apiserver.streams.test_spdy import Client, control, data


class Cat:
    """A process that gives back what it is told, once it may; `code` is how it ends."""

    stderr = None

    def __init__(self, code: int) -> None:
        self.code = code
        self.stdin = self
        self.stdout = self
        self.may = asyncio.Event()
        self.may.set()
        self.sizes: list[tuple[int, int]] = []
        self.taken = 0
        self.killed = asyncio.Event()
        self._over = asyncio.Event()
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue(1)

    async def write(self, data: bytes) -> None:
        await self.may.wait()
        self.taken += len(data)
        await self._pieces.put(data)

    def close(self) -> None:
        self._over.set()
        if self._pieces.empty():
            self._pieces.put_nowait(b"")

    async def read(self) -> bytes:
        if self._over.is_set() and self._pieces.empty():
            return b""
        return await self._pieces.get()

    def resize(self, width: int, height: int) -> None:
        self.sizes.append((width, height))

    async def wait(self) -> int:
        await self._over.wait()
        return self.code

    def kill(self) -> None:
        self.killed.set()


class Pods:
    """One pod called ``cat``."""

    def __init__(self) -> None:
        self.processes: list[Cat] = []

    def exec(
        self, namespace: str, pod: str, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> Callable[[], Process]:
        if pod != "cat":
            raise ApiError(404, "NotFound", f'pods "{pod}" not found')

        def start() -> Process:
            if command[0] == "never":
                raise NsK8sError("it cannot be")
            self.processes.append(Cat(int(command[0])))
            return self.processes[-1]

        return start

    def attach(
        self, namespace: str, pod: str, container: str, *, stdin: bool, tty: bool
    ) -> Callable[[], Process]:
        return self.exec(namespace, pod, container, ["0"], stdin=stdin, tty=tty)

    def forwards(self, namespace: str, pod: str) -> None:
        pass

    async def dial(self, namespace: str, pod: str, port: int) -> Socket:
        raise NsK8sError("refused")

    def open_socket(self, family: int) -> socket.socket:
        return socket.socket(family)

    async def logs(self, namespace: str, pod: str, options: LogOptions) -> AsyncIterator[bytes]:
        yield b"said\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Pods]]:
    patch = pytest.MonkeyPatch()
    patch.setenv("NSK8S_STATE", os.fspath(tmp_path_factory.mktemp("s")))
    with served(ClusterPaths("t")) as found:
        pods = Pods()
        found.loop.call_soon_threadsafe(handlers.install, found.server, found.world.store, pods)
        yield found, pods
    patch.undo()


def execute(world: tuple[Served, Pods], *command: str, pod: str = "cat") -> int:
    return streamclient.execute(world[0].paths, "default", pod, "", command, stdin=True, tty=False)


@pytest.fixture
def standard_streams(tmp_path: Path) -> Iterator[Callable[[bytes], Path]]:
    """Put a file before standard input, and another behind standard output."""
    kept = os.dup(0), os.dup(1)

    def put(text: bytes) -> Path:
        (tmp_path / "in").write_bytes(text)
        for fd, name, flags in ((0, "in", os.O_RDONLY), (1, "out", os.O_WRONLY | os.O_CREAT)):
            opened = os.open(tmp_path / name, flags)
            os.dup2(opened, fd)
            os.close(opened)
        return tmp_path / "out"

    yield put
    for fd, old in enumerate(kept):
        os.dup2(old, fd)
        os.close(old)


@pytest.mark.parametrize("code", [0, 3, 137])
def test_what_goes_in_comes_out_and_the_code_is_told(
    world: tuple[Served, Pods], standard_streams: Callable[[bytes], Path], code: int
) -> None:
    text = os.urandom(20_000_000)
    out = standard_streams(text)
    assert execute(world, str(code)) == code
    assert hashlib.sha256(out.read_bytes()).digest() == hashlib.sha256(text).digest()


def test_what_cannot_be_run(world: tuple[Served, Pods], standard_streams: Callable[[bytes], Path]) -> None:
    standard_streams(b"")
    with pytest.raises(ApiError, match="it cannot be"):
        execute(world, "never")
    with pytest.raises(ApiError, match='pods "nobody" not found'):
        execute(world, "0", pod="nobody")


def test_the_last_word_is_read_though_nobody_reads_ours(
    standard_streams: Callable[[bytes], Path],
) -> None:
    standard_streams(b"")
    ours, theirs = socket.socketpair()
    status = b'{"kind": "Status", "status": "Failure", "message": "it cannot be", "code": 500}'
    theirs.sendall(bytes((0x82, len(status) + 1, streamclient.ERROR)) + status + bytes((0x88, 0)))
    theirs.close()
    ping = bytes((0x89, 0))  # to be answered before anything is read
    with ours, pytest.raises(ApiError, match="it cannot be"):
        streamclient.Conversation(ours, ping, stdin=True, changes=-1).hold()


# --- SPDY, by hand ------------------------------------------------------------------------------------------

QUERY = "command=0&stdin=true&stdout=true"
HEAD = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: "
KEY = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "


def upgraded(
    world: tuple[Served, Pods], path: str = f"exec?{QUERY}", protocol: str = "v4.channel.k8s.io"
) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(DEADLINE)
    sock.connect(os.fspath(world[0].paths.socket))
    line = f"POST /api/v1/namespaces/default/pods/cat/{path} HTTP/1.1\r\nHost: x\r\n"
    sock.sendall(f"{line}{HEAD}{protocol}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += sock.recv(1)
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    assert f"X-Stream-Protocol-Version: {protocol}".encode() in answer
    return sock


def opening(client: Client) -> bytes:
    return b"".join(
        client.open(number, {"streamtype": kind})
        for number, kind in ((1, "error"), (3, "stdin"), (5, "stdout"))
    )


def said(sock: socket.socket) -> dict[int, bytes]:
    """All data by stream, until the server ends the connection."""
    read = b""
    while piece := sock.recv(65536):
        read += piece
    found: dict[int, bytes] = {}
    while read:
        stream, length = struct.unpack_from(">II", read)
        length &= 0xFF_FFFF
        if not stream & 0x8000_0000:
            found[stream] = found.get(stream, b"") + read[8 : 8 + length]
        read = read[8 + length :]
    return found


def test_spdy(world: tuple[Served, Pods]) -> None:
    with upgraded(world) as sock:
        sock.sendall(opening(Client()) + data(3, b"hello") + control(spdy.PING, bytes((0, 0, 0, 1))))
        sock.sendall(data(3, b"", spdy.FIN))
        found = said(sock)
    assert found[5] == b"hello"
    assert b'"status":"Success"' in found[1]


def settled(what: Callable[[], bool]) -> None:
    """Wait until something is so in the server's thread."""
    end = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def pour(sock: socket.socket) -> int:
    """Send on stream 3 until nobody takes it any more for a second; how much was taken."""
    sent = 0
    sock.settimeout(1)
    with suppress(TimeoutError):
        while sent < 100 * BUFFER:
            sock.sendall(data(3, bytes(60_000)))
            sent += 60_000
    return sent


def test_who_is_not_read_has_to_wait_and_is_missed_when_gone(world: tuple[Served, Pods]) -> None:
    started = len(world[1].processes)
    with upgraded(world) as sock:
        sock.sendall(opening(Client()))
        settled(lambda: len(world[1].processes) > started)
        process = world[1].processes[-1]
        world[0].loop.call_soon_threadsafe(process.may.clear)
        assert pour(sock) < 4 * BUFFER
        assert process.taken == 0
    settled(process.killed.is_set)


def test_a_refused_port_is_told_on_the_error_stream(world: tuple[Served, Pods]) -> None:
    client = Client()
    with upgraded(world, "portforward", "portforward.k8s.io") as sock:
        for number, kind in ((1, "error"), (3, "data")):
            sock.sendall(client.open(number, {"streamtype": kind, "port": "81", "requestid": "0"}))
        sock.sendall(client.open(5, {"streamtype": "data", "port": "notaport", "requestid": "1"}))
        sock.shutdown(socket.SHUT_WR)
        found = said(sock)
    assert found[1] == b"refused"


@pytest.mark.parametrize(
    "head",
    [
        "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v9\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: v9\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4\udcd3\r\n",
        f"{KEY}\udcfc\r\n",
        f"{KEY}é\r\n",
        "",
    ],
)
def test_who_cannot_agree_is_told_in_http(
    world: tuple[Served, Pods], caplog: pytest.LogCaptureFixture, head: str
) -> None:
    with caplog.at_level(logging.WARNING), socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(os.fspath(world[0].paths.socket))
        path = f"/api/v1/namespaces/default/pods/cat/exec?{QUERY}"
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode(errors="surrogateescape"))
        answer = sock.recv(65536)
    assert caplog.records == []
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 403"))
    assert b'"kind":"Status"' in answer


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60), max_size=5), st.booleans())
def test_nonsense_ends_the_connection_and_nothing_else(
    world: tuple[Served, Pods], caplog: pytest.LogCaptureFixture, pieces: list[bytes], begun: bool
) -> None:
    caplog.clear()
    with caplog.at_level(logging.WARNING), upgraded(world) as sock:
        sock.sendall((opening(Client()) if begun else b"") + b"".join(pieces) + b"\xff" * 16)
        sock.shutdown(socket.SHUT_WR)
        said(sock) if not begun else sock.recv(1)
    assert caplog.records == []
    settled(lambda: all(process.killed.is_set() for process in world[1].processes))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60), max_size=5))
def test_nonsense_in_a_websocket(
    world: tuple[Served, Pods], caplog: pytest.LogCaptureFixture, pieces: list[bytes]
) -> None:
    caplog.clear()
    key = base64.b64encode(bytes(16)).decode()
    with caplog.at_level(logging.WARNING), socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(os.fspath(world[0].paths.socket))
        sock.sendall(
            f"GET /api/v1/namespaces/default/pods/cat/exec?{QUERY} HTTP/1.1\r\nHost: x\r\n"
            f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n".encode()
        )
        assert b" 101 " in sock.recv(65536)
        sock.sendall(b"".join(pieces))
    assert caplog.records == []
    settled(lambda: all(process.killed.is_set() for process in world[1].processes))


HEADS = [
    f"{method} /api/v1/namespaces/default/pods/cat/{path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()
    for method, path, lines in (
        ("POST", f"exec?{QUERY}", f"{HEAD}v4.channel.k8s.io\r\nUser-Agent: kubectl/v1.33\r\n"),
        (
            "GET",
            f"exec?{QUERY}",
            f"{KEY}dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n",
        ),
        ("GET", "log?follow=true&tailLines=1", "Accept: text/plain\r\n"),
        (
            "DELETE",
            "?propagationPolicy=Orphan&dryRun=All",
            "Content-Type: application/json\r\nAccept: */*\r\n",
        ),
    )
]


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(st.data())
def test_a_head_with_a_few_other_octets(
    world: tuple[Served, Pods], caplog: pytest.LogCaptureFixture, data: st.DataObject
) -> None:
    head = bytearray(data.draw(st.sampled_from(HEADS)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(head) - 5))
        head[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    caplog.clear()
    with caplog.at_level(logging.WARNING), socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(os.fspath(world[0].paths.socket))
        sock.sendall(bytes(head) + b"\r\n\r\n")
        answer = sock.recv(65536)
    assert not answer or 100 < int(answer.split(b" ", 2)[1]) < 500, answer
    assert caplog.records == []


def test_a_client_that_goes_while_something_else_ends_the_wait_is_no_second_error(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "NUDGE_INTERVAL", 0.01)

    async def story() -> None:
        ours, theirs = socket.socketpair()
        _, writer = await asyncio.open_unix_connection(sock=ours)
        held = connection.Held()
        held.put(BUFFER + 1)

        async def nudge() -> None:
            theirs.close()
            await asyncio.sleep(0.1)  # the loop sees that the client has gone
            raise ConnectionResetError("nudged in vain")

        with pytest.raises(ConnectionResetError, match="nudged in vain"):
            await held.room(writer.transport, nudge)
        writer.close()

    asyncio.run(story())
    gc.collect()
    assert caplog.records == []


@pytest.mark.parametrize("answers", [True, False])
def test_client_go_is_told_nothing_before_it_reads_or_has_had_its_time(
    world: tuple[Served, Pods], monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    monkeypatch.setattr(connection, "PONG_INTERVAL", DEADLINE if answers else 0.01)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(os.fspath(world[0].paths.socket))
        sock.sendall(
            f"GET /api/v1/namespaces/default/pods/cat/exec?{QUERY} HTTP/1.1\r\nHost: x\r\n"
            f"{KEY}dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n".encode()
        )
        read = b""
        while b"\r\n\r\n" not in read:
            read += sock.recv(1)
        assert sock.recv(2, socket.MSG_WAITALL) == bytes((0x89, 0)), "a ping"
        if answers:
            sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                sock.recv(1)
            sock.settimeout(DEADLINE)
            sock.sendall(bytes((0x8A, 0x80, 0, 0, 0, 0)))  # a pong
        assert sock.recv(3, socket.MSG_WAITALL) == bytes((0x82, 1, 1)), "nothing yet on standard output"
