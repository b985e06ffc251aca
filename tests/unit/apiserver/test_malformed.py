"""Whatever is sent, the answer is a Status that says what is wrong, and the log stays empty."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nsk8s.apiserver import connections
from nsk8s.apiserver.request import Request
from nsk8s.client import Client
from nsk8s.errors import ApiError
from nsk8s.paths import ClusterPaths
from tests.unit.apiserver.served import DEADLINE, Served, served
from tests.unit.cluster.worlds import deployment, pod

PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
MERGE = "application/merge-patch+json"


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A world with a pod and a deployment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NSK8S_STATE", str(tmp_path_factory.mktemp("api")))
        with served(ClusterPaths("t")) as found:
            found.client.post(PODS, pod("a"))
            found.client.post(DEPLOYMENTS, deployment("web", 1))
            yield found


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing of it is an event for the control plane's log."""
    with caplog.at_level(logging.INFO):
        yield
    assert caplog.get_records("call") == []  # `text` is that of the teardown


def ask(api: Served, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, Any]]:
    """Code and JSON of the answer to a request with any bytes as its body."""
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(DEADLINE)
        wire.connect(str(api.paths.socket))
        named = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        listed = "".join(f"{k}: {v}\r\n" for k, v in named.items())
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{listed}"
        wire.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = http.client.HTTPResponse(wire)
        answer.begin()
        raw = answer.read()
    return answer.status, json.loads(raw) if raw else {}


NESTED = b'{"metadata":{"name":"deep"},"data":' + b'{"a":' * 200 + b"1" + b"}" * 201
VERY_NESTED = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("POST", PODS, b"{oops", 400),
        ("POST", PODS, b"\xff\xfe", 400),
        ("POST", PODS, b"null", 400),
        ("POST", PODS, b"[]", 400),
        ("POST", PODS, b'"text"', 400),
        ("POST", PODS, b'{"metadata": []}', 400),
        ("POST", PODS, b'{"metadata": [1]}', 400),
        ("POST", PODS, b'{"metadata": {"name": 7}}', 400),
        ("POST", PODS, b'{"metadata": {"name": "\\ud800"}}', 400),
        ("POST", PODS, b'{"kind": ["Pod"], "apiVersion": {}}', 400),
        ("POST", PODS, b'{"kind": "Service", "apiVersion": "v1"}', 400),
        ("POST", PODS, b'{"metadata": {"namespace": "other", "name": "x"}}', 400),
        ("POST", PODS, NESTED, 400),
        ("POST", PODS, VERY_NESTED, 400),
        ("POST", "/api/v1/namespaces/default/configmaps", NESTED, 400),
        ("PUT", f"{PODS}/a", b'{"metadata": {"name": "b"}}', 400),
        ("PUT", f"{DEPLOYMENTS}/web/scale", b'{"spec": {"replicas": "many"}}', 400),
        ("PUT", f"{DEPLOYMENTS}/web/scale?dryRun=All", b'{"spec": []}', 400),
        ("PUT", PODS, b"{}", 405),
        ("PATCH", PODS, b"{}", 405),
        ("PATCH", f"{PODS}/a", b"{}", 415),
        ("DELETE", f"{PODS}/a", b"[]", 400),
        ("DELETE", f"{PODS}/a", b'{"gracePeriodSeconds": "soon"}', 422),
        ("DELETE", f"{PODS}/a", b'{"gracePeriodSeconds": -5}', 422),
        ("DELETE", f"{PODS}/a", b'{"propagationPolicy": "Whatever"}', 422),
        ("DELETE", f"{PODS}/a", b'{"preconditions": {"uid": "another"}}', 409),
        ("DELETE", f"{PODS}/a?gracePeriodSeconds=x", b"", 400),
        ("DELETE", f"{PODS}/a/status", b"", 405),
        ("DELETE", f"{PODS}/a?dryRun=Some", b"", 422),
        ("GET", f"{PODS}/a/log", b"", 404),
        ("GET", "/api/v1/pods/a", b"", 404),
        ("POST", "/api/v1/pods", b"{}", 405),
        ("GET", "/api", b"", 200),
        ("GET", "/", b"", 200),
        ("GET", "/api/v1/namespaces/default/pods/a/b/c", b"", 404),
        ("GET", "/api/v1/namespaces/default/nodes", b"", 404),
        ("GET", "/apis/apps/v2/deployments", b"", 404),
        ("GET", "/api/v1/namespaces//pods", b"", 404),
        ("GET", f"{PODS}/%2e%2e%2f%00", b"", 404),
        ("GET", f"{PODS}/%ff%fe", b"", 404),
        ("GET", f"{PODS}?labelSelector=a+in", b"", 400),
        ("GET", f"{PODS}?labelSelector=%00", b"", 400),
        ("GET", f"{PODS}?fieldSelector=spec.bogus%3D1", b"", 400),
        ("GET", f"{PODS}?resourceVersion=99999", b"", 504),
        ("OPTIONS", PODS, b"", 405),
    ],
)
def test_it_is_answered(standing: Served, method: str, path: str, body: bytes, code: int) -> None:
    before = standing.world.store.revision
    status, answer = ask(standing, method, path, body)
    assert status == code, answer
    if code >= 400:
        assert (answer["kind"], answer["status"], answer["code"]) == ("Status", "Failure", code)
        assert answer["reason"]
        assert answer["message"]
        assert standing.world.store.revision == before
    assert not standing.world.store.pending()


def test_a_patch_cannot_nest_deeper_either(standing: Served) -> None:
    revisions = "/apis/apps/v1/namespaces/default/controllerrevisions"  # their data is anything
    standing.client.post(revisions, {"metadata": {"name": "m"}, "revision": 1, "data": {}})
    path = "/data"
    patch: list[dict[str, Any]] = []
    for _ in range(150):
        path += "/a"
        patch.append({"op": "add", "path": path, "value": {}})
    status, answer = ask(
        standing,
        "PATCH",
        f"{revisions}/m",
        json.dumps(patch).encode(),
        Content_Type="application/json-patch+json",
    )
    assert status == 400
    assert "nested deeper" in answer["message"]
    assert standing.client.get(f"{revisions}/m")["data"] == {}


def test_a_huge_body_is_refused(standing: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BODY_LIMIT", 1000)
    status, answer = ask(standing, "POST", PODS, b'"' + b"x" * 2000 + b'"')
    assert (status, answer["reason"]) == (413, "RequestEntityTooLarge")


def test_protobuf_that_is_none_is_refused(standing: Served) -> None:
    for body in (b"k8s\0...", b"{}", b"k8s\0"):
        status, answer = ask(standing, "POST", PODS, body, Content_Type="application/vnd.kubernetes.protobuf")
        assert (status, answer["reason"]) == (400, "BadRequest")


def test_an_unknown_media_type_is_refused(standing: Served) -> None:
    status, answer = ask(standing, "POST", PODS, b"\xd9\xd9\xf7", Content_Type="application/cbor")
    assert (status, answer["reason"]) == (415, "UnsupportedMediaType")
    assert ask(standing, "GET", PODS, Accept="application/vnd.kubernetes.protobuf")[0] == 406
    assert ask(standing, "GET", PODS, Accept="application/vnd.kubernetes.protobuf,application/json")[0] == 200


@pytest.mark.parametrize(
    "wire",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(standing: Served, wire: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.settimeout(DEADLINE)
        other.connect(str(standing.paths.socket))
        other.sendall(wire)
        other.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := other.recv(65536):
            answer += piece
    assert answer == b"" or answer.startswith(
        (b"HTTP/1.0 400", b"HTTP/1.1 400", b"HTTP/1.0 4", b"HTTP/1.1 4")
    )
    assert standing.client.get(f"{PODS}/a")["kind"] == "Pod"


def test_a_client_that_leaves_in_the_middle_is_no_event(standing: Served) -> None:
    for sent in (b"POST ", f"POST {PODS} HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{{".encode()):
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(str(standing.paths.socket))
            other.sendall(sent)
    assert standing.client.get(f"{PODS}/a")["kind"] == "Pod"


def test_a_client_that_leaves_while_it_is_told_something_is_no_event(standing: Served) -> None:
    async def told(request: Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request.http)
        assert request.http.transport is not None
        request.http.transport.close()
        await answer.write(b"never read")
        return answer

    standing.server.handle("pods", "log", told)
    with socket.socket(socket.AF_UNIX) as other:
        other.settimeout(DEADLINE)
        other.connect(str(standing.paths.socket))
        other.sendall(f"GET {PODS}/a/log HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        while other.recv(65536):
            pass
    assert standing.client.get(f"{PODS}/a")["kind"] == "Pod"


def test_a_dry_run_changes_nothing(standing: Served) -> None:
    store = standing.world.store
    before = standing.client.get(PODS)
    made = standing.client.post(f"{PODS}?dryRun=All", pod("imagined"))
    assert made["metadata"]["uid"]
    standing.client.request("DELETE", f"{PODS}/a?dryRun=All", {"gracePeriodSeconds": 0})
    standing.client.request(
        "PATCH", f"{DEPLOYMENTS}/web/scale?dryRun=All", {"spec": {"replicas": 5}}, content_type=MERGE
    )
    after = standing.client.get(PODS)
    assert after["items"] == before["items"]
    assert standing.client.get(f"{DEPLOYMENTS}/web")["spec"]["replicas"] == 1
    assert not store.pending()
    with pytest.raises(ApiError, match="not found"):
        standing.client.get(f"{PODS}/imagined")


def test_many_clients_at_once(standing: Served) -> None:
    wrong: list[BaseException] = []

    def one(number: int) -> None:
        try:
            client = Client(standing.paths)
            for turn in range(5):
                name = f"many-{number}-{turn}"
                client.post(PODS, pod(name, {"many": str(number)}))
                found = client.get(f"{PODS}?labelSelector=many%3D{number}")["items"]
                assert name in [item["metadata"]["name"] for item in found]
                client.request("DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 0})
            client.close()
        except BaseException as error:  # noqa: BLE001  # told by the test's own thread
            wrong.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert wrong == []
    assert standing.client.get(f"{PODS}?labelSelector=many")["items"] == []


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["apiVersion", "kind", "metadata", "spec", "status", "name", "namespace", "labels", "replicas",
             "containers", "ports", "selector", "template", "items", "annotations", "ownerReferences",
             "finalizers", "containerPort", "port", "op", "path", "value"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip
PATHS = st.sampled_from(
    [
        f"/api/v1{place}/{plural}{name}"
        for place in ("", "/namespaces/default")
        for plural in ("pods", "services", "endpoints", "configmaps", "nodes", "namespaces", "events")
        for name in ("", "/a", "/a/status", "/a/scale", "/kubernetes")
    ]
    + [f"{DEPLOYMENTS}{name}" for name in ("", "/web", "/web/status", "/web/scale")]
    + ["/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/x"]
)
TYPES = st.sampled_from(
    ["application/json", MERGE, "application/json-patch+json", "application/strategic-merge-patch+json",
     "application/apply-patch+yaml"]
)  # fmt: skip


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(method=st.sampled_from(["POST", "PUT", "PATCH", "DELETE"]), path=PATHS, body=JSONS, kind=TYPES)
def test_any_json_is_answered(standing: Served, method: str, path: str, body: object, kind: str) -> None:
    query = "?dryRun=All"  # nothing of it is kept: each example meets the same world
    status, answer = ask(standing, method, path + query, json.dumps(body).encode(), Content_Type=kind)
    assert status < 500, (method, path, body, answer)
