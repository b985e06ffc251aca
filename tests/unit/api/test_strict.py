"""Unknown, repeated and mistyped fields.

recorded_decoding.json has what a Go program that uses sigs.k8s.io/json and apimachinery 0.32.3 says of wrong
texts: [kind, text, decoder, converter].
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from nsk8s.api import strict
from nsk8s.api.openapi import Schema, schema_of, structural
from nsk8s.api.types import Obj
from nsk8s.errors import ApiError

POD = """{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","labels":{"app":"web"}},"spec":{
  "containers":[{"name":"c","image":"nginx","ports":[{"containerPort":80}],"resources":{"limits":{"cpu":"1"}}}]}}"""

DEPLOYMENT = """{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{
  "unknown1":"val1","unknownDupe":"valDupe","unknownDupe":"valDupe2","paused":true,"paused":false,
  "template":{"spec":{"containers":[{"name":"nginx","unknownNested":"val1","imagePullPolicy":"Always",
  "imagePullPolicy":"Never"}]}}}}"""

STRICT = [
    'unknown field "spec.unknown1"',
    'unknown field "spec.unknownDupe"',
    'duplicate field "spec.paused"',
    'unknown field "spec.template.spec.containers[0].unknownNested"',
    'duplicate field "spec.template.spec.containers[0].imagePullPolicy"',
]
"""Of test/integration/apiserver/field_validation_test.go."""


def test_what_is_right_is_the_same_object() -> None:
    body = _json(POD)
    obj, warnings = strict.decode(body, POD.encode(), _schema("Pod"), "Strict")
    assert obj is body
    assert warnings == []


def test_strict_refuses_unknown_and_repeated_fields() -> None:
    with pytest.raises(ApiError) as refused:
        _decode(DEPLOYMENT, "Strict")
    assert refused.value.code == 400
    assert refused.value.message == (
        'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: '
        + ", ".join(STRICT)
    )


@pytest.mark.parametrize("mode", ["Warn", ""])
def test_warn_drops_them_and_says_so(mode: str) -> None:
    obj, warnings = _decode(DEPLOYMENT, mode)
    assert warnings == STRICT
    assert obj["spec"]["paused"] is False  # the last one counts
    assert set(obj["spec"]) == {"paused", "template"}
    assert set(obj["spec"]["template"]["spec"]["containers"][0]) == {"name", "imagePullPolicy"}


def test_ignore_drops_them_silently() -> None:
    obj, warnings = _decode(DEPLOYMENT, "Ignore")
    assert warnings == []
    assert set(obj["spec"]) == {"paused", "template"}


YAML = b"""apiVersion: apps/v1
kind: Deployment
metadata:
  name: d
spec:
  unknownDupe: valDupe
  unknownDupe: valDupe2
  paused: true
  paused: false
"""


def test_yaml_says_where_a_key_comes_again() -> None:
    body, repeated = strict.read_yaml(YAML)
    assert isinstance(body, dict)
    assert body["spec"] == {"unknownDupe": "valDupe2", "paused": False}
    lines = ['line 7: key "unknownDupe" already set in map', 'line 9: key "paused" already set in map']
    assert repeated == lines
    _, warnings = strict.decode(body, YAML, _schema("Deployment"), "Warn")
    assert warnings == [*lines, 'unknown field "spec.unknownDupe"']
    with pytest.raises(ApiError) as refused:
        strict.decode(body, YAML, _schema("Deployment"), "Strict")
    assert refused.value.message == (
        'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: yaml: '
        f'unmarshal errors:\n  {lines[0]}\n  {lines[1]}, unknown field "spec.unknownDupe"'
    )


def test_what_is_not_yaml_is_refused() -> None:
    with pytest.raises(ApiError, match="error converting YAML to JSON: yaml: line 2"):
        strict.read_yaml(b"a: b\nc: d: e\n")


def test_other_modes_are_refused() -> None:
    with pytest.raises(ApiError, match="fieldValidation: Unsupported value") as refused:
        _decode(POD, "strict")
    assert refused.value.code == 422


@pytest.mark.parametrize(
    "text",
    [
        '{"metadata":{"labels":{"a":"1","a" : "2"}}}',
        '{"metadata":{"labels":{"a":"\\\\","a":"2"}}}',
        '{"metadata":{"labels":{"a":"\\u003a","a":"2"}}}',
        '{"metadata":{"labels":{"a":":\\":","a":"\\":"}}}',
    ],
)
def test_repeated_fields_are_found_in_any_writing(text: str) -> None:
    found = strict.check(_json(text), _schema("Pod"), raw=text.encode())
    assert found.strict == ['duplicate field "metadata.labels.a"']


@pytest.mark.parametrize(
    "text",
    [
        '{"metadata":{"annotations":{"a":"{\\"b\\":1,\\"b\\":2}","c\\\\":":","d":"\\":"}}}',
        '{ "metadata" : { "labels" : { "a" : "b" } } }',
    ],
)
def test_no_other_text_has_any(text: str) -> None:
    assert strict.check(_json(text), _schema("Pod"), raw=text.encode()).strict == []


def test_null_is_the_same_as_absent() -> None:
    body = _json(
        '{"metadata":{"creationTimestamp":null,"labels":{"a":null}},'
        '"spec":{"volumes":null,"containers":[null,{"name":"c","ports":null}]}}'
    )
    obj, _ = strict.decode(body, b"", _schema("Pod"), "Strict")
    assert obj == {"metadata": {"labels": {"a": ""}}, "spec": {"containers": [{}, {"name": "c"}]}}
    assert body["spec"]["volumes"] is None  # what was given is left alone


@pytest.mark.parametrize(
    ("kind", "body", "decoding", "converting"),
    msgspec.json.decode(Path(__file__).with_name("recorded_decoding.json").read_bytes()),
)
def test_wrong_types(kind: str, body: str, decoding: str, converting: str) -> None:
    found = strict.check(_json(body), _schema(kind)).errors[0]
    assert found.decoding == decoding
    assert found.converting == converting


def test_a_wrong_type_is_refused_in_any_mode() -> None:
    body = '{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":"x"}}'
    with pytest.raises(ApiError) as refused:
        _decode(body, "Ignore")
    assert refused.value.message == (
        'Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into '
        "Go struct field DeploymentSpec.spec.replicas of type int32"
    )


def test_strategic_patches_are_refused_as_a_whole() -> None:
    patch: Obj = {"spec": {"replicas": "x"}}
    with pytest.raises(ApiError) as refused:
        strict.patched({"kind": "Deployment", **patch}, _schema("Deployment"), "Strict", patch, "strategic")
    assert refused.value.code == 422
    assert refused.value.message == (
        ' "" is invalid: patch: Invalid value: "map[spec:map[replicas:x]]": unrecognized type: int32'
    )
    patch = {"spec": {"foo": [1, True, None]}}
    with pytest.raises(ApiError) as refused:
        strict.patched({"kind": "Deployment", **patch}, _schema("Deployment"), "Strict", patch, "strategic")
    assert refused.value.message == (
        ' "" is invalid: patch: Invalid value: "map[spec:map[foo:[1 true <nil>]]]": '
        'strict decoding error: unknown field "spec.foo"'
    )


def test_merge_patches_are_refused_with_the_object() -> None:
    patch = b'{"spec":{"paused":true,"paused":false}}'
    with pytest.raises(ApiError) as refused:
        strict.patched(
            {"spec": {"paused": False}}, _schema("Deployment"), "Strict", _json(patch), "merge", patch
        )
    assert refused.value.message == (
        ' "" is invalid: patch: Invalid value: "{\\"spec\\":{\\"paused\\":false}}": '
        'strict decoding error: duplicate field "spec.paused"'
    )
    obj, warnings = strict.patched({"spec": {"foo": 1}}, _schema("Deployment"), "", {}, "merge")
    assert (obj, warnings) == ({"spec": {}}, ['unknown field "spec.foo"'])


CUSTOM = structural(
    {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "size": {"type": "integer"},
                    "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    "ports": {
                        "type": "array",
                        "items": {"type": "object", "properties": {"port": {"type": "integer"}}},
                    },
                },
            }
        },
    }
)


def test_custom_resources_are_pruned_but_not_typed() -> None:
    text = (
        '{"apiVersion":"e.com/v1","kind":"Pet","metadata":{"name":"p"},"spec":{"z":1,"z":2,"size":"big",'
        '"any":{"x":null},"ports":[{"port":1,"b":2}]}}'
    )
    body = _json(text)
    obj, warnings = strict.decode(body, text.encode(), CUSTOM, "Warn")
    assert warnings == [
        'duplicate field "spec.z"',
        'unknown field "spec.ports[0].b"',
        'unknown field "spec.z"',
    ]
    assert obj["spec"] == {"size": "big", "any": {"x": None}, "ports": [{"port": 1}]}


def test_metadata_of_custom_resources_is_typed() -> None:
    body = _json('{"apiVersion":"e.com/v1","kind":"Pet","metadata":{"name":"p","labels":{"a":1}}}')
    with pytest.raises(ApiError) as refused:
        strict.decode(body, b"", CUSTOM, "Strict")
    assert refused.value.message == (
        'Pet in version "v1" cannot be handled as a Pet: json: cannot unmarshal number into Go struct field '
        "ObjectMeta.labels of type string"
    )


def _schema(kind: str) -> Schema:
    for api_version in ("v1", "apps/v1", "networking.k8s.io/v1"):
        found = schema_of(api_version, kind)
        if found is not None:
            return found
    raise KeyError(kind)


def _json(text: str | bytes) -> Any:  # noqa: ANN401  # JSON
    return msgspec.json.decode(text)


def _decode(text: str, mode: str) -> tuple[Obj, list[str]]:
    body = _json(text)
    return strict.decode(body, text.encode(), _schema(body["kind"]), mode)
