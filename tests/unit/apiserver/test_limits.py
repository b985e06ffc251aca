"""What one client may ask for, over TLS: more is refused, slower is dropped, and the log stays empty."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nsk8s.apiserver import connections, server
from nsk8s.apiserver.connections import Quota
from nsk8s.errors import ApiError
from nsk8s.paths import ClusterPaths
from tests.unit.apiserver.entrance import Entrance, entrance
from tests.unit.apiserver.served import DEADLINE

CONFIGMAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
def door(state: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Entrance]:
    with caplog.at_level(logging.INFO), entrance(ClusterPaths("c"), tmp_path) as found:
        yield found
    assert caplog.get_records("call") == []  # `text` is that of the teardown


def config_map(size: int) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "x" * size}}


def test_a_request_of_three_mebibytes_is_too_large(door: Entrance) -> None:
    tls = door.client("jane")
    code, body = door.ask(tls, CONFIGMAPS, method="POST", body=config_map(3 * 1024 * 1024))
    assert (code, body["reason"], body["message"]) == (
        413,
        "RequestEntityTooLarge",
        "Request entity too large: limit is 3145728",
    )
    assert door.ask(tls, CONFIGMAPS, method="POST", body=config_map(1024 * 1024))[0] in (201, 422)
    assert door.ask(tls, f"{CONFIGMAPS}/a")[0] in (200, 404)


def test_the_unix_socket_takes_more_for_our_own_routes_only(door: Entrance) -> None:
    client = door.world.client
    assert len([*client.stream("POST", "/nsk8s/v1/count", {"to": 1, "x": "x" * 4_000_000})]) == 1
    with pytest.raises(ApiError) as refused:
        client.post(CONFIGMAPS, config_map(4_000_000))
    assert refused.value.code == 413


def test_a_long_url_is_fine_and_an_endless_one_is_not(door: Entrance) -> None:
    tls = door.client("jane")
    assert door.ask(tls, "/version?" + "x" * 900_000)[0] == 200
    assert door.ask(tls, "/version?" + "x" * 1_100_000)[0] == 400


def test_a_header_may_be_long_and_not_longer(door: Entrance) -> None:
    tls = door.client("jane")
    assert door.ask(tls, "/version", {"X-Long": "x" * 60_000})[0] == 200
    assert door.ask(tls, "/version", {"X-Long": "x" * 70_000})[0] == 400


@pytest.mark.parametrize("sent", [b"", b"GET /version HT", b"GET /version HTTP/1.1\r\nHost: x\r\nX-A: "])
def test_whoever_never_says_what_he_wants_is_dropped(
    door: Entrance, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "HEADER_TIMEOUT", 0.2)
    with (
        socket.create_connection(("127.0.0.1", door.port), timeout=DEADLINE) as wire,
        door.anonymous().wrap_socket(wire, server_hostname="localhost") as silent,
    ):
        begun = time.monotonic()
        silent.sendall(sent)
        with suppress(ConnectionResetError, ssl.SSLEOFError):  # without a goodbye
            assert silent.recv(1) == b""
        assert time.monotonic() - begun < 5


def test_whoever_has_said_it_may_be_silent(door: Entrance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_TIMEOUT", 0.2)
    tls = door.client("jane")
    begun = time.monotonic()
    code, _ = door.ask(tls, f"{CONFIGMAPS}?watch=1&timeoutSeconds=1")
    assert (code, time.monotonic() - begun > 0.9) == (200, True)


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff", bytes(range(256))])
def test_what_is_no_tls_is_dropped(door: Entrance, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=DEADLINE) as wire:
        wire.sendall(sent)
        wire.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while wire.recv(4096):
                pass  # an alert
    assert door.ask(door.anonymous(), "/version")[0] == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /version HTTP/9.9\r\n\r\n",
        b"GET /version HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST /version HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /version HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_malformed_http_is_refused(door: Entrance, sent: bytes) -> None:
    with (
        socket.create_connection(("127.0.0.1", door.port), timeout=DEADLINE) as wire,
        door.client("jane").wrap_socket(wire, server_hostname="localhost") as secured,
    ):
        secured.sendall(sent)
        answer = secured.recv(65536)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    assert door.ask(door.anonymous(), "/version")[0] == 200


def test_one_user_has_so_many_watches(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WATCHES_PER_USER", 2)
    with entrance(ClusterPaths("c"), tmp_path) as door:
        watching = []
        for _ in range(2):
            tls = door.client("jane")
            one = http.client.HTTPSConnection("127.0.0.1", door.port, context=tls, timeout=DEADLINE)
            one.request("GET", f"{CONFIGMAPS}?watch=1")
            assert one.getresponse().status == 200
            watching.append(one)
        path = f"{CONFIGMAPS}?watch=1&timeoutSeconds=1"
        code, body = door.ask(door.client("jane"), path)
        assert (code, body["reason"]) == (429, "TooManyRequests"), json.dumps(body)
        assert door.ask(door.client("john"), path)[0] == 200
        for one in watching:
            one.close()
        end = time.monotonic() + DEADLINE
        while door.ask(door.client("jane"), path)[0] != 200:
            assert time.monotonic() < end


def test_a_quota_forgets_who_has_nothing_open() -> None:
    quota = Quota("things", 1)
    with quota.one("jane"), pytest.raises(ApiError), quota.one("jane"):
        pass
    with quota.one("jane"):
        pass
    assert not quota._open
