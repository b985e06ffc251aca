"""The client against servers that do not behave: who hears what, and what becomes of the connection."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nsk8s import client as clients
from nsk8s.client import Client
from nsk8s.errors import ApiError, ClusterGone, HostError, Timeout
from nsk8s.paths import ClusterPaths

DEADLINE = 10.0
OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"a": "b"}\n'


@pytest.fixture
def paths(state: Path) -> ClusterPaths:
    found = ClusterPaths("t")
    found.directory.mkdir(parents=True)
    return found


def request(wire: socket.socket) -> bytes:
    """One whole request."""
    text = b""
    while b"\r\n\r\n" not in text:
        text += wire.recv(65536)
    head, _, body = text.partition(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    while length and len(body) < int(length[1]):
        body += wire.recv(65536)
    return text


@contextmanager
def serving(paths: ClusterPaths, *turns: Callable[[socket.socket], object]) -> Iterator[list[bytes]]:
    """One connection after the other is handled by one of `turns`; the requests that came."""
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(paths.socket))
        door.listen()

        def serve() -> None:
            for turn in turns:
                wire, _ = door.accept()
                with wire:
                    heard.append(request(wire))
                    turn(wire)

        thread = threading.Thread(target=serve)
        thread.start()
        yield heard
        thread.join(DEADLINE)
        assert not thread.is_alive()


def answers(*raw: bytes) -> Callable[[socket.socket], None]:
    """Send an answer; for each further one, hear another request first."""

    def turn(wire: socket.socket) -> None:
        wire.sendall(raw[0])
        for more in raw[1:]:
            request(wire)
            wire.sendall(more)

    return turn


def test_one_connection_serves_many_requests(paths: ClusterPaths) -> None:
    with serving(paths, answers(OK, OK, OK)) as heard:
        client = Client(paths)
        assert [client.get("/x") for _ in range(3)] == [{"a": "b"}] * 3
        client.close()
    assert len(heard) == 1


def test_a_connection_closed_for_its_idleness_is_made_again(paths: ClusterPaths) -> None:
    with serving(paths, answers(OK), answers(OK)) as heard:
        client = Client(paths)
        client.get("/x")
        assert client.get("/y") == {"a": "b"}
        client.close()
    assert [text.split()[1] for text in heard] == [b"/x", b"/y"]


def test_a_post_is_not_said_twice(paths: ClusterPaths) -> None:
    with serving(paths, answers(OK)) as heard:
        client = Client(paths)
        client.get("/x")
        with pytest.raises(ClusterGone, match="went away during POST /y"):
            client.post("/y", {})
    assert len(heard) == 1


def test_nobody_listens(paths: ClusterPaths) -> None:
    with pytest.raises(ClusterGone, match="'t' does not run") as missing:
        Client(paths).get("/x")
    assert missing.value.hint
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(paths.socket))  # of a daemon that was killed
    with pytest.raises(ClusterGone, match="'t' does not run"):
        Client(paths).get("/x")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{",
    ],
)
def test_a_server_that_goes_away_while_it_answers(paths: ClusterPaths, raw: bytes) -> None:
    with serving(paths, answers(raw)), pytest.raises(ClusterGone, match="went away during GET /x"):
        Client(paths).get("/x?secret=1")


def test_a_stream_that_breaks_off(paths: ClusterPaths) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with serving(paths, answers(head + b'8\r\n{"n": 1}\r\n1\r\n\n\r\n')):
        lines = Client(paths).stream("POST", "/x", {})
        assert next(lines) == {"n": 1}
        with pytest.raises(ClusterGone, match="went away during POST /x"):
            next(lines)


def test_an_error_that_is_no_status(paths: ClusterPaths) -> None:
    refusal = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\noops\n"
    with serving(paths, answers(refusal)):
        client = Client(paths)
        with pytest.raises(ApiError, match="oops") as refused:
            client.get("/x")
        client.close()
    assert refused.value.code == 502


def test_no_answer_in_time(paths: ClusterPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "PATIENCE", 0.05)
    over = threading.Event()
    with serving(paths, lambda _: over.wait(DEADLINE)):
        with pytest.raises(Timeout, match="no answer to GET /x"):
            Client(paths).get("/x")
        over.set()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_socket_of_somebody_else(paths: ClusterPaths) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(paths.socket))
        paths.socket.chmod(0o600)
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            try:
                Client(paths).get("/x")
            except HostError as error:
                os._exit(0 if "another user" in error.message and "sudo" in error.hint else 2)
            except BaseException:  # noqa: BLE001  # whatever it is, the test shall see it
                os._exit(3)
            os._exit(4)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0,)
