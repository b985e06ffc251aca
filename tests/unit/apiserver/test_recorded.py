"""What client-go 0.32.3 said, byte by byte, is understood, and answered as when the client was content.

``recorded/typed.jsonl``: one request of a typed clientset a line, in the order in which they were sent to a
fresh cluster: what was called, the request, the code, and what its answer must hold.
``recorded/exec-with-three-streams.spdy``: a whole connection of `remotecommand`'s SPDY executor, as cyclonus
calls it: the query asks for a terminal, but the streams are error, stdout and stderr, and none for resizing.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nsk8s.apiserver.authorization import Authorizer
from nsk8s.apiserver.reviews import Reviews
from nsk8s.apiserver.streams import handlers
from nsk8s.apiserver.streams.access import Process
from nsk8s.apiserver.streams.spdy import Opened, Spdy
from nsk8s.apiserver.tokens import Tokens
from nsk8s.daemon.pki import Keys
from nsk8s.paths import ClusterPaths
from tests.conformity import faults
from tests.unit.apiserver.served import DEADLINE, Served, served
from tests.unit.apiserver.streams.test_sessions import Pods
from tests.unit.cluster.worlds import service

RECORDED = Path(__file__).with_name("recorded")
ALL = [json.loads(line) for line in (RECORDED / "typed.jsonl").read_text().splitlines()]
REQUESTS = [row for row in ALL if "answer" in row]
WATCHES = {row["path"]: row for row in ALL if "answer" not in row}
EXEC = (RECORDED / "exec-with-three-streams.spdy").read_bytes()

Row = dict[str, Any]


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NSK8S_STATE", os.fspath(tmp_path_factory.mktemp("r")))
        with served(ClusterPaths("r")) as found:
            tokens = Tokens(found.world.store, Keys(found.paths).signing_key)
            Reviews(found.world.store, Authorizer(found.world.store), tokens).serve(found.server)
            yield found


class Wire(http.client.HTTPConnection):
    """HTTP over the unix socket."""

    def __init__(self, api: Served) -> None:
        super().__init__("x", timeout=DEADLINE)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(os.fspath(api.paths.socket))

    def ask(self, row: Row, path: str = "") -> http.client.HTTPResponse:
        self.request(row["method"], path or row["path"], base64.b64decode(row["body"]), row["headers"])
        return self.getresponse()


def holds(found: object, wanted: object, path: str = "") -> None:
    """`found` has everything that `wanted` has; lists have the same length."""
    if isinstance(wanted, dict):
        assert isinstance(found, dict), path
        for key, value in wanted.items():
            assert key in found, f"{path}.{key}"
            holds(found[key], value, f"{path}.{key}")
    elif isinstance(wanted, list):
        assert isinstance(found, list), path
        assert len(found) == len(wanted), path
        for position, value in enumerate(wanted):
            holds(found[position], value, f"{path}[{position}]")
    else:
        assert found == wanted, path


@pytest.mark.parametrize("row", REQUESTS, ids=[row["did"] for row in REQUESTS])
def test_it_is_answered_as_it_was(standing: Served, row: Row) -> None:
    """In the order of the file: they build on each other."""
    with closing(Wire(standing)) as wire:
        answer = wire.ask(row)
        found = json.loads(answer.read())
    assert answer.status == row["status"], found
    holds(found, row["answer"])
    assert found["kind"] == "Status" or faults(found) == []


def lines(answer: http.client.HTTPResponse) -> Iterator[tuple[str, Row]]:
    while text := answer.readline():
        event = json.loads(text)
        yield event["type"], event["object"]


def test_a_reflector_lists_and_goes_on_from_there(standing: Served) -> None:
    first, second = (row for path, row in WATCHES.items() if "sendInitialEvents" not in path)
    with closing(Wire(standing)) as wire:
        listed = json.loads(wire.ask(first).read())
        assert listed["kind"] == "ServiceList"
        revision = listed["metadata"]["resourceVersion"]
        standing.client.post("/api/v1/namespaces/default/services", service("seen-by-the-reflector"))
        before, _, after = second["path"].partition("resourceVersion=")
        path = f"{before}resourceVersion={revision}&{after.partition('&')[2]}"
        kind, obj = next(lines(wire.ask(second, path)))
    assert (kind, obj["metadata"]["name"]) == ("ADDED", "seen-by-the-reflector")


def test_a_reflector_has_the_list_streamed(standing: Served) -> None:
    (row,) = (row for path, row in WATCHES.items() if "sendInitialEvents" in path)
    standing.client.post("/api/v1/namespaces/default/services", service("streamed"))
    seen, notes = [], {}
    with closing(Wire(standing)) as wire:
        for kind, obj in lines(wire.ask(row)):
            meta = obj["metadata"]
            if kind == "BOOKMARK":
                notes = meta["annotations"]
                break
            assert kind == "ADDED"
            seen.append((meta["namespace"], meta["name"]))
    assert seen == sorted(seen)
    assert ("default", "streamed") in seen
    assert notes["k8s.io/initial-events-end"] == "true"
    blueprint = json.loads(base64.b64decode(notes["kubernetes.io/initial-events-list-blueprint"]))
    assert (blueprint["kind"], blueprint["items"]) == ("ServiceList", [])


class Three:
    """A process that says a word on each of its outputs and ends with 3."""

    stdin = None

    def __init__(self) -> None:
        self.stdout = Word(b"out\n")
        self.stderr = Word(b"err\n")

    def resize(self, width: int, height: int) -> None:
        raise AssertionError("there is no stream for it")

    async def wait(self) -> int:
        return 3

    def kill(self) -> None:
        pass


class Word:
    def __init__(self, word: bytes) -> None:
        self._words = [word]

    async def read(self) -> bytes:
        return self._words.pop() if self._words else b""


class OnePod(Pods):
    """Starts a `Three`, whatever is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[list[str], bool, bool]] = []

    def exec(
        self, namespace: str, pod: str, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> Callable[[], Process]:
        self.asked.append((list(command), stdin, tty))
        return Three


def test_the_streams_are_counted_not_believed(standing: Served) -> None:
    pods = OnePod()
    standing.loop.call_soon_threadsafe(handlers.install, standing.server, standing.world.store, pods)
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(DEADLINE)
        wire.connect(os.fspath(standing.paths.socket))
        head, end, frames = EXEC.partition(b"\r\n\r\n")
        wire.sendall(head + end)
        answer = wire.recv(65536)
        assert answer.startswith(b"HTTP/1.1 101 ")
        wire.sendall(frames)
        while b"out\n" not in answer or b'"ExitCode"' not in answer:
            piece = wire.recv(65536)
            assert piece, answer
            answer += piece
    assert pods.asked == [(["sh", "-c", "echo out; echo err >&2; exit 3"], False, True)]


def test_the_streams_of_the_recorded_exec() -> None:
    _, _, frames = EXEC.partition(b"\r\n\r\n")
    opened = [event for event in Spdy().receive(frames) if isinstance(event, Opened)]
    assert [event.headers["streamtype"] for event in opened] == ["error", "stdout", "stderr"]
