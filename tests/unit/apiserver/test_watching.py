"""Watches to the letter: what stands on the wire, how they end, and who is not waited for."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from nsk8s.api.types import Obj
from nsk8s.apiserver import watches, watching
from nsk8s.client import Client, _send, _UnixConnection
from nsk8s.errors import ApiError
from nsk8s.paths import ClusterPaths
from tests.unit.apiserver.served import DEADLINE, Served, served
from tests.unit.cluster.worlds import pod

PODS = "/api/v1/namespaces/default/pods"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
MERGE = "application/merge-patch+json"


@pytest.fixture
def api(state: Path) -> Iterator[Served]:
    with served(ClusterPaths("t")) as found:
        yield found


def relabel(api: Served, name: str, value: str) -> None:
    api.client.request(
        "PATCH", f"{PODS}/{name}", {"metadata": {"labels": {"app": value}}}, content_type=MERGE
    )


def until(what: str, holds: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.01)


@contextmanager
def watching_now(api: Served, query: str, accept: str = "application/json") -> Iterator[Iterator[Obj]]:
    """The events of a watch that the server has taken up when the context begins."""
    wire = _UnixConnection(str(api.paths.socket), DEADLINE)
    try:
        answer = _send(wire, "GET", f"{PODS}?{query}", None, accept, "")
        assert answer.status == 200, answer.read()
        yield (json.loads(text) for text in iter(answer.readline, b""))
    finally:
        wire.close()


def watchers(api: Served) -> int:
    return len(api.server._watchers)


@pytest.mark.parametrize("began", ["empty", "with objects", "from a revision"])
def test_only_the_first_table_event_has_columns(api: Served, began: str) -> None:
    if began == "with objects":
        api.client.post(PODS, pod("a"))
    revision = api.client.get(PODS)["metadata"]["resourceVersion"]
    query = f"watch=true&resourceVersion={revision}" if began == "from a revision" else "watch=true"
    with watching_now(api, query, TABLE) as events:
        api.client.post(PODS, pod("b"))
        relabel(api, "b", "x")
        first, second, third = next(events), next(events), next(events)
    assert [c["name"] for c in first["object"]["columnDefinitions"]][:2] == ["Name", "Ready"]
    assert second["object"]["columnDefinitions"] is None
    assert third["object"]["columnDefinitions"] is None
    assert {e["object"]["kind"] for e in (first, second, third)} == {"Table"}


def test_a_watch_ends_when_its_time_is_over_with_a_bookmark(api: Served) -> None:
    api.client.post(PODS, pod("a"))
    events = list(Client(api.paths).watch(f"{PODS}?watch=1&timeoutSeconds=1&allowWatchBookmarks=true"))
    assert [e["type"] for e in events] == ["ADDED", "BOOKMARK"]
    assert events[1]["object"]["kind"] == "Pod"
    assert int(events[1]["object"]["metadata"]["resourceVersion"]) == api.world.store.revision
    until("the watcher has gone", lambda: watchers(api) == 0)


def test_a_silent_watch_gets_bookmarks(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "BOOKMARK_INTERVAL", 0.05)
    events = Client(api.paths).watch(f"{PODS}?watch=1&allowWatchBookmarks=true")
    assert [next(events)["type"] for _ in range(2)] == ["BOOKMARK", "BOOKMARK"]
    without = Client(api.paths).watch(f"{PODS}?watch=1&timeoutSeconds=1")
    assert list(without) == []


def test_a_streaming_list_says_where_the_list_ends(api: Served) -> None:
    for name in ("b", "a"):
        api.client.post(PODS, pod(name))
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    events = Client(api.paths).watch(f"{PODS}?{query}")
    three = [next(events) for _ in range(3)]
    assert [e["object"]["metadata"].get("name") for e in three] == ["a", "b", None]
    notes = three[2]["object"]["metadata"]["annotations"]
    blueprint = notes.pop("kubernetes.io/initial-events-list-blueprint")
    assert notes == {"k8s.io/initial-events-end": "true"}
    assert json.loads(base64.b64decode(blueprint)) == {
        "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []
    }  # fmt: skip


@pytest.mark.parametrize(("shape", "listed"), [("PartialObjectMetadata", "items"), ("Table", "rows")])
def test_the_end_of_a_streaming_list_has_its_form(api: Served, shape: str, listed: str) -> None:
    """A metadata client has no Pods, not even an empty one in a bookmark."""
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    with watching_now(api, query, f"application/json;as={shape};v=v1;g=meta.k8s.io") as events:
        end = next(events)
    assert (end["type"], end["object"]["kind"]) == ("BOOKMARK", shape)
    assert end["object"]["apiVersion"] == "meta.k8s.io/v1"
    notes = end["object"]["metadata"]["annotations"]
    empty = json.loads(base64.b64decode(notes["kubernetes.io/initial-events-list-blueprint"]))
    assert empty["kind"] == ("Table" if shape == "Table" else f"{shape}List")
    assert empty[listed] == []


@pytest.mark.parametrize(
    "query",
    [
        "sendInitialEvents=true",
        "sendInitialEvents=true&resourceVersionMatch=Exact",
        "resourceVersionMatch=Exact",
    ],
)
def test_parameters_that_contradict_each_other_are_refused(api: Served, query: str) -> None:
    with pytest.raises(ApiError) as refused:
        next(Client(api.paths).watch(f"{PODS}?watch=1&{query}"))
    assert refused.value.code == 422


@pytest.mark.parametrize("query", ["resourceVersion=x", "timeoutSeconds=-1", "resourceVersion=" + "9" * 5000])
def test_a_watch_with_a_wrong_number_is_refused(api: Served, query: str) -> None:
    with pytest.raises(ApiError) as refused:
        next(Client(api.paths).watch(f"{PODS}?watch=1&{query}"))
    assert refused.value.code == 400


def test_a_watch_from_the_future_is_refused(api: Served) -> None:
    with pytest.raises(ApiError, match="Too large resource version") as refused:
        next(Client(api.paths).watch(f"{PODS}?watch=1&resourceVersion=999999"))
    assert refused.value.code == 504


def test_nothing_is_missed_between_list_and_watch(api: Served) -> None:
    """Changes go on while the watch begins; list and events together are the store."""
    listing = api.client.get(PODS)
    query = f"watch=1&timeoutSeconds=2&resourceVersion={listing['metadata']['resourceVersion']}"
    events = Client(api.paths).watch(f"{PODS}?{query}")
    names = [f"p{n:02}" for n in range(30)]
    for name in names[:15]:
        api.client.post(PODS, pod(name))
    first = next(events)
    for name in names[15:]:
        api.client.post(PODS, pod(name))
    for name in names[::3]:
        api.client.request("DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 0})
    there: dict[str, str] = {}
    revisions = []
    for event in [first, *events]:
        meta = event["object"]["metadata"]
        revisions.append(int(meta["resourceVersion"]))
        if event["type"] == "DELETED":
            del there[meta["name"]]
        else:
            assert (event["type"] == "ADDED") == (meta["name"] not in there)
            there[meta["name"]] = meta["resourceVersion"]
    assert revisions == sorted(set(revisions))
    now = {o["metadata"]["name"]: o["metadata"]["resourceVersion"] for o in api.client.get(PODS)["items"]}
    assert there == now


def test_a_client_that_goes_leaves_nothing(api: Served) -> None:
    with ExitStack() as clients:
        for _ in range(10):
            clients.enter_context(watching_now(api, "watch=1&resourceVersion=1"))
        assert watchers(api) == 10
    until("all watchers have gone", lambda: watchers(api) == 0)


def test_a_watcher_that_does_not_read_is_dropped(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "BACKLOG", 10)
    api.client.post(PODS, pod("a", note="x"))
    with socket.socket(socket.AF_UNIX) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.connect(str(api.paths.socket))
        wire.sendall(f"GET {PODS}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        until("it watches", lambda: watchers(api) == 1)
        big = "x" * 100_000
        for number in range(200):
            if watchers(api) == 0:
                break
            patch = {"metadata": {"annotations": {"big": f"{number}{big}"}}}
            api.client.request("PATCH", f"{PODS}/a", patch, content_type=MERGE)
        until("it is dropped", lambda: watchers(api) == 0)
    assert api.client.get(f"{PODS}/a")["metadata"]["name"] == "a"


def test_an_event_is_one_line_of_json(api: Served) -> None:
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(DEADLINE)
        wire.connect(str(api.paths.socket))
        api.client.post(PODS, pod("a"))
        wire.sendall(f"GET {PODS}?watch=1&timeoutSeconds=1 HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        whole = b""
        while piece := wire.recv(65536):
            whole += piece
    head, _, body = whole.partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0]
    assert b"application/json" in head
    events = [json.loads(text) for text in body.splitlines()]
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in events] == [("ADDED", "a")]


def test_a_burst_reaches_every_watcher_whole_and_in_order_but_not_event_by_event(api: Served) -> None:
    with ExitStack() as stack:
        everybody = [stack.enter_context(watching_now(api, "watch=true")) for _ in range(30)]
        until("all watch", lambda: watchers(api) == 30)
        woken = 0
        wake = watching.Watcher.wake

        def counted(watcher: watching.Watcher) -> None:
            nonlocal woken
            woken += 1
            wake(watcher)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(watching.Watcher, "wake", counted)
            for number in range(100):
                api.client.post(PODS, pod(f"p{number:03}"))
            told = [[next(events) for _ in range(200)] for events in everybody]  # made, and scheduled
    made = [[e["object"]["metadata"]["name"] for e in events if e["type"] == "ADDED"] for events in told]
    assert made == [[f"p{number:03}" for number in range(100)]] * 30
    assert woken < 30 * 200
