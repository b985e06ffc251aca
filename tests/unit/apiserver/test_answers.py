"""The head of an answer, to the letter."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import NamedTuple

import pytest

from nsk8s.paths import ClusterPaths
from tests.unit.apiserver.served import DEADLINE, Served, served

OBJECTS = "/api/v1/namespaces/default/configmaps"
OBJECT = f"{OBJECTS}/a"


@pytest.fixture
def api(state: Path) -> Iterator[Served]:
    with served(ClusterPaths("t")) as found:
        found.client.post(OBJECTS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})
        yield found


class Answer(NamedTuple):
    """One answer: status line, headers, body; and what follows until the server closes, if it shall."""

    status: str
    headers: Message
    body: bytes
    rest: bytes


def ask(api: Served, *requests: str, closes: bool = False) -> Answer:
    """The first answer to what is sent."""
    with socket.socket(socket.AF_UNIX) as wire, wire.makefile("rb") as stream:
        wire.settimeout(DEADLINE)
        wire.connect(str(api.paths.socket))
        for request in requests:
            wire.sendall(request.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        status = stream.readline().decode().rstrip()
        headers = http.client.parse_headers(stream)
        body = stream.read(int(headers["Content-Length"]))
        return Answer(status, headers, body, stream.read() if closes else b"")


def test_an_answer_says_what_it_is_how_long_and_when(api: Served) -> None:
    answer = ask(api, f"GET {OBJECT} HTTP/1.1\nHost: x")
    assert answer.status == "HTTP/1.1 200 OK"
    assert sorted(answer.headers) == ["Content-Length", "Content-Type", "Date"]
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Date"].endswith(" GMT")
    assert json.loads(answer.body)["metadata"]["name"] == "a"


@pytest.mark.parametrize(
    ("head", "connection"),
    [
        ("HTTP/1.1\nHost: x\nConnection: close", "close"),
        ("HTTP/1.0", None),
        ("HTTP/1.0\nConnection: keep-alive", "keep-alive"),
        ("HTTP/1.1\nHost: x", None),
    ],
)
def test_whether_the_connection_stays(api: Served, head: str, connection: str | None) -> None:
    stays = connection == "keep-alive" or (connection is None and head.startswith("HTTP/1.1"))
    answer = ask(api, f"GET {OBJECT} {head}", closes=not stays)
    assert answer.headers.get("Connection") == connection
    assert answer.rest == b""


def test_two_requests_on_one_connection(api: Served) -> None:
    again = f"GET {OBJECT}x HTTP/1.1\nHost: x\nConnection: close"
    answer = ask(api, f"GET {OBJECT} HTTP/1.1\nHost: x", again, closes=True)
    assert answer.status == "HTTP/1.1 200 OK"
    assert answer.rest.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert answer.rest.endswith(b'"code":404}')


def test_a_warning_stands_in_the_head(api: Served) -> None:
    body = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"},"dota":{}}'
    path = f"{OBJECTS}?fieldValidation=Warn"
    answer = ask(api, f"POST {path} HTTP/1.1\nHost: x\nContent-Length: {len(body)}\n\n{body}")
    assert answer.status == "HTTP/1.1 201 Created"
    assert answer.headers["Warning"] == '299 - "unknown field \\"dota\\""'
