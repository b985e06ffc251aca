"""The OpenAPI documents: complete, of what is there now, and in three encodings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from nsk8s.api.types import Obj
from nsk8s.apiserver import openapi
from nsk8s.apiserver.openapi import OpenApi
from tests.unit.cluster.worlds import World

POD = {"group": "", "kind": "Pod", "version": "v1"}
PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
CRD: Obj = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "pets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "pets", "kind": "Pet"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"size": {"type": "integer", "description": "How big."}},
                    }
                },
            }
        ],
    },
}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def documents(world: World) -> OpenApi:
    registry = world.registry
    return OpenApi(lambda: registry.kinds, registry.definitions.schema, lambda: registry.version)


def test_every_group_has_a_complete_document(documents: OpenApi) -> None:
    index = _json(documents, "/openapi/v3")["paths"]
    assert {"api/v1", "apis/apps/v1", "apis/networking.k8s.io/v1"} <= set(index)
    for name, entry in index.items():
        path, _, mark = entry["serverRelativeURL"].partition("?hash=")
        assert path == f"/openapi/v3/{name}"
        found = documents.document(path, {"hash": mark})
        assert found is not None
        assert found.lasting
        told = msgspec.json.decode(found.body)
        schemas = told["components"]["schemas"]
        assert set(_references(told)) <= set(schemas)
        assert "x-go-type" not in found.body.decode()


def test_another_hash_is_answered_but_not_kept(documents: OpenApi) -> None:
    found = documents.document("/openapi/v3/api/v1", {"hash": "OLD"})
    assert found is not None
    assert not found.lasting


def test_a_patch_says_what_kubectl_looks_for(documents: OpenApi) -> None:
    told = _json(documents, "/openapi/v3/api/v1")
    patch = told["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"]
    assert patch["x-kubernetes-group-version-kind"] == POD
    assert {"fieldValidation", "dryRun", "force"} <= {one["name"] for one in patch["parameters"]}
    assert "application/strategic-merge-patch+json" in patch["requestBody"]["content"]
    assert patch["operationId"] == "patchCoreV1NamespacedPod"
    pod = told["components"]["schemas"]["io.k8s.api.core.v1.Pod"]
    assert pod["x-kubernetes-group-version-kind"] == [POD]
    volumes = told["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"]
    assert volumes["x-kubernetes-patch-merge-key"] == "name"
    scale = told["paths"]["/api/v1/namespaces/{namespace}/replicationcontrollers/{name}/scale"]["get"]
    assert scale["x-kubernetes-group-version-kind"] == {
        "group": "autoscaling",
        "kind": "Scale",
        "version": "v1",
    }


def test_what_stands_beside_a_reference_is_kept(documents: OpenApi) -> None:
    schemas = _json(documents, "/openapi/v3/apis/apps/v1")["components"]["schemas"]
    strategy = schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"]
    assert strategy == {
        "allOf": [{"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentStrategy"}],
        "x-kubernetes-patch-strategy": "retainKeys",
    }


def test_custom_resources_come_and_go(world: World, documents: OpenApi) -> None:
    before = _json(documents, "/openapi/v3")["paths"]
    assert "apis/example.com/v1" not in before
    world.registry.create(CRD)
    index = _json(documents, "/openapi/v3")["paths"]
    assert index["api/v1"] == before["api/v1"]
    told = _json(documents, "/openapi/v3/apis/example.com/v1")
    pet = told["components"]["schemas"]["com.example.v1.Pet"]
    assert pet["x-kubernetes-group-version-kind"] == [
        {"group": "example.com", "kind": "Pet", "version": "v1"}
    ]
    assert set(pet["properties"]) == {"apiVersion", "kind", "metadata", "size"}
    assert "com.example.v1.PetList" in told["components"]["schemas"]
    patch = told["paths"]["/apis/example.com/v1/namespaces/{namespace}/pets/{name}"]["patch"]
    assert "application/strategic-merge-patch+json" not in patch["requestBody"]["content"]


def test_a_changed_schema_has_another_address(world: World, documents: OpenApi) -> None:
    world.registry.create(CRD)
    before = _json(documents, "/openapi/v3")["paths"]["apis/example.com/v1"]
    stored = world.store.find("customresourcedefinitions.apiextensions.k8s.io", "", "pets.example.com")
    changed = msgspec.json.decode(msgspec.json.encode(stored))
    schema = changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["name"] = {"type": "string"}
    world.registry.update(changed)
    assert _json(documents, "/openapi/v3")["paths"]["apis/example.com/v1"] != before
    pet = _json(documents, "/openapi/v3/apis/example.com/v1")["components"]["schemas"]["com.example.v1.Pet"]
    assert "name" in pet["properties"]


def test_v2_says_the_same_in_swagger(world: World, documents: OpenApi) -> None:
    world.registry.create(CRD)
    told = _json(documents, "/openapi/v2")
    assert told["swagger"] == "2.0"
    assert set(_references(told)) <= set(told["definitions"])
    patch = told["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"]
    assert {"name": "dryRun", "in": "query", "type": "string", "uniqueItems": True} in patch["parameters"]
    assert patch["consumes"][0] == "application/json-patch+json"
    quantity = told["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"]
    assert quantity == {"type": "string"}
    assert "com.example.v1.Pet" in told["definitions"]


def test_v2_is_there_as_protobuf(documents: OpenApi) -> None:
    found = documents.document("/openapi/v2", {}, PROTOBUF)
    assert found is not None
    assert found.content_type == "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    told = _fields(found.body)
    assert told[1] == [b"2.0"]
    definitions = {_fields(one)[1][0].decode(): _fields(one)[2][0] for one in _fields(told[9][0])[1]}
    as_json = _json(documents, "/openapi/v2")
    assert set(definitions) == set(as_json["definitions"])
    port = _fields(definitions["io.k8s.api.core.v1.ContainerPort"])
    assert port[19] == [b"containerPort"]
    properties = {_fields(one)[1][0]: _fields(_fields(one)[2][0]) for one in _fields(port[25][0])[1]}
    assert properties[b"containerPort"][2] == [b"int32"]
    assert _fields(properties[b"containerPort"][22][0])[1] == [b"integer"]
    assert _fields(properties[b"protocol"][5][0])[2] == [b'"TCP"\n']
    paths = {_fields(one)[1][0].decode(): _fields(_fields(one)[2][0]) for one in _fields(told[8][0])[2]}
    assert set(paths) == set(as_json["paths"])
    patch = _fields(paths["/api/v1/namespaces/{namespace}/pods/{name}"][8][0])
    extensions = {_fields(one)[1][0]: _fields(_fields(one)[2][0])[2][0] for one in patch[13]}
    assert msgspec.json.decode(extensions[b"x-kubernetes-group-version-kind"]) == POD


def test_descriptions_come_with_the_package_that_has_them(
    documents: OpenApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {
        "io.k8s.api.core.v1.Pod": {"description": "A pod.", "properties": {"spec": {"description": "Its."}}}
    }
    monkeypatch.setattr(openapi, "_described", lambda: told)
    pod = _json(documents, "/openapi/v3/api/v1")["components"]["schemas"]["io.k8s.api.core.v1.Pod"]
    assert pod["description"] == "A pod."
    assert pod["properties"]["spec"]["description"] == "Its."
    assert "description" not in pod["properties"]["status"]


def test_nothing_else_is_a_document(documents: OpenApi) -> None:
    for path in ("/openapi", "/openapi/v1", "/openapi/v3/api/v2", "/openapi/v3/apis/a/b/c", "/api"):
        assert documents.document(path, {}) is None


def _json(documents: OpenApi, path: str) -> Any:  # noqa: ANN401  # JSON
    found = documents.document(path, {})
    assert found is not None
    assert found.content_type == "application/json"
    return msgspec.json.decode(found.body)


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str):
            yield reference.rpartition("/")[2]
        for below in value.values():
            yield from _references(below)
    elif isinstance(value, list):
        for below in value:
            yield from _references(below)


def _fields(message: bytes) -> dict[int, list[bytes]]:
    """The fields of a protobuf message; numbers are given as the bytes that they are encoded in."""
    found: dict[int, list[bytes]] = {}
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == 2:
            size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
        elif key & 7 == 1:
            value, at = message[at : at + 8], at + 8
        else:
            assert key & 7 == 0
            end = _varint(message, at)[1]
            value, at = message[at:end], end
        found.setdefault(key >> 3, []).append(value)
    assert at == len(message)
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
