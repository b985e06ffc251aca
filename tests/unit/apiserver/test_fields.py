"""Which schema a request's objects are decoded by, and what comes of it over HTTP."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsk8s.api.types import Obj
from nsk8s.apiserver.addressing import address
from nsk8s.apiserver.fields import Fields
from nsk8s.errors import ApiError
from nsk8s.paths import ClusterPaths
from tests.unit.apiserver.served import Served, served
from tests.unit.apiserver.test_openapi import CRD
from tests.unit.cluster.worlds import World


@pytest.mark.parametrize(
    ("path", "body", "unknown"),
    [
        ("/api/v1/namespaces/a/pods", {"spec": {"foo": 1}}, "spec.foo"),
        ("/apis/apps/v1/namespaces/a/deployments/d/status", {"status": {"foo": 1}}, "status.foo"),
        ("/apis/apps/v1/namespaces/a/deployments/d/scale", {"spec": {"foo": 1}}, "spec.foo"),
        ("/api/v1/namespaces/a/pods/p/eviction", {"foo": 1}, "foo"),
        ("/apis/example.com/v1/namespaces/a/pets", {"size": 1, "foo": 1}, "foo"),
    ],
)
def test_each_path_has_its_schema(path: str, body: Obj, unknown: str) -> None:
    world = World()
    world.registry.create(CRD)
    where = address(path, world.registry.kinds)
    assert where is not None
    told: list[str] = []
    fields = Fields.of(world.registry, where, {}, b"", told)
    assert "foo" not in str(fields.given(body))
    assert "foo" not in str(fields.made(body, {}, "merge"))
    assert told == [f'unknown field "{unknown}"'] * 2
    strictly = Fields.of(world.registry, where, {"fieldValidation": "Strict"}, b"", told)
    with pytest.raises(ApiError, match="strict decoding error"):
        strictly.given(body)


MAPS = "/api/v1/namespaces/default/configmaps"
TWICE = b'{"metadata":{"name":"twice"},"data":{"a":"1","a":"2"},"foo":1}'


@pytest.fixture
def api(state: Path) -> Iterator[Served]:
    with served(ClusterPaths("t")) as found:
        yield found


def test_strict_stores_nothing(api: Served) -> None:
    code, answer, _ = ask(api, "POST", f"{MAPS}?fieldValidation=Strict", TWICE)
    assert code == 400
    assert answer["message"] == (
        'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: '
        'duplicate field "data.a", unknown field "foo"'
    )
    assert ask(api, "GET", f"{MAPS}/twice")[0] == 404


def test_warnings_are_headers(api: Served) -> None:
    code, answer, warnings = ask(api, "POST", MAPS, TWICE)
    assert (code, answer["data"], "foo" in answer) == (201, {"a": "2"}, False)
    assert warnings == [
        '299 - "duplicate field \\"data.a\\""',
        '299 - "unknown field \\"foo\\""',
    ]
    code, _, warnings = ask(api, "PUT", f"{MAPS}/twice?fieldValidation=Ignore", TWICE)
    assert (code, warnings) == (200, [])


@pytest.mark.parametrize("kind", ["merge", "strategic-merge"])
def test_what_a_patch_makes_is_judged(api: Served, kind: str) -> None:
    ask(api, "POST", MAPS, b'{"metadata":{"name":"m"}}')
    media = f"application/{kind}-patch+json"
    code, answer, _ = ask(api, "PATCH", f"{MAPS}/m?fieldValidation=Strict", b'{"foo":{"a":1}}', media)
    assert code == 422
    assert answer["message"].endswith('strict decoding error: unknown field "foo"')
    assert answer["details"]["causes"][0]["field"] == "patch"
    code, answer, warnings = ask(api, "PATCH", f"{MAPS}/m", b'{"foo":1,"data":{"b":"1"}}', media)
    assert (code, "foo" in answer, answer["data"]) == (200, False, {"b": "1"})
    assert warnings == ['299 - "unknown field \\"foo\\""']


def test_yaml_is_a_body_as_well(api: Served) -> None:
    text = b"metadata:\n  name: yaml\ndata:\n  a: '1'\n  a: '2'\n"
    code, answer, warnings = ask(api, "POST", MAPS, text, "application/yaml")
    assert code == 201, answer
    assert answer["data"] == {"a": "2"}
    assert warnings == ['299 - "line 5: key \\"a\\" already set in map"']


def ask(
    api: Served, method: str, path: str, body: bytes = b"", media: str = "application/json"
) -> tuple[int, Obj, list[str]]:
    """Status, answer and warnings."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(api.paths.socket))
    try:
        connection.request(method, path, body, {"Content-Type": media})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers.get_all("Warning") or []
    finally:
        connection.close()
