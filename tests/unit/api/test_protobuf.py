"""Vectors: each line of `protobuf.vectors` has a body in base64 and the same object as JSON, both written by
Go (apimachinery 0.32.3: its fuzzer's objects, its protobuf serializer, encoding/json)."""

from __future__ import annotations

import base64
import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsk8s.api import protobuf
from nsk8s.api.defaults import without_nulls
from nsk8s.errors import ApiError

VECTORS = [
    (base64.b64decode(body), json.loads(wanted))
    for body, wanted in (
        line.split(" ", 1) for line in Path(__file__).with_name("protobuf.vectors").read_text().splitlines()
    )
]


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def body(api_version: str, kind: str, raw: bytes) -> bytes:
    meta = field(1, api_version.encode()) + field(2, kind.encode())
    return protobuf.MAGIC + field(1, meta) + field(2, raw)


@pytest.mark.parametrize(("encoded", "wanted"), VECTORS, ids=[v["kind"] for _, v in VECTORS])
def test_go_says_the_same_in_json(encoded: bytes, wanted: dict[str, Any]) -> None:
    assert without_nulls(protobuf.decode(encoded)) == without_nulls(wanted)


def test_zero_is_kept_where_go_has_a_pointer() -> None:
    replicas = protobuf.decode(
        body("apps/v1", "Deployment", field(2, field(1, 0) + field(6, 0) + field(7, 0)))
    )
    assert replicas["spec"] == {"replicas": 0, "revisionHistoryLimit": 0}  # minReadySeconds is no pointer
    ready = protobuf.decode(body("discovery.k8s.io/v1", "EndpointSlice", field(2, field(2, field(1, 0)))))
    assert ready["endpoints"] == [{"conditions": {"ready": False}}]
    port = protobuf.decode(
        body("discovery.k8s.io/v1", "EndpointSlice", field(3, field(1, b"") + field(3, 80)))
    )
    assert port["ports"] == [{"name": "", "port": 80}]


def test_numbers_have_the_size_and_sign_that_go_gives_them() -> None:
    tolerated = field(22, field(2, b"Exists") + field(5, -1))
    pod = protobuf.decode(body("v1", "Pod", field(2, tolerated)))
    assert pod["spec"]["tolerations"] == [{"operator": "Exists", "tolerationSeconds": -1}]
    cut = protobuf.decode(body("apps/v1", "Deployment", field(2, field(1, (1 << 32) + 3))))
    assert cut["spec"]["replicas"] == 3


def test_forms_of_their_own() -> None:
    lease = field(2, field(3, field(1, 1_700_000_000) + field(2, 123_456_789)))
    assert protobuf.decode(body("coordination.k8s.io/v1", "Lease", lease))["spec"] == {
        "acquireTime": "2023-11-14T22:13:20.123456Z"
    }
    meta = field(1, field(1, b"x") + field(8, b"") + field(9, field(1, -62135596800)))
    assert protobuf.decode(body("v1", "ConfigMap", meta))["metadata"] == {
        "name": "x",
        "deletionTimestamp": "0001-01-01T00:00:00Z",
    }
    secret = field(2, field(1, b"key") + field(2, b"\0\xff"))
    assert protobuf.decode(body("v1", "Secret", secret))["data"] == {"key": "AP8="}
    extra = field(1, field(5, field(1, b"k") + field(2, field(1, b"a") + field(1, b"b"))))
    review = body("authorization.k8s.io/v1", "SubjectAccessReview", field(2, extra[2:]))
    assert protobuf.decode(review)["spec"] == {"extra": {"k": ["a", "b"]}}


def test_schemas_of_custom_resources() -> None:
    """JSONSchemaPropsOrArray, OrBool and OrStringArray are in JSON what they have; numbers are doubles."""
    text, number = field(5, b"string"), field(5, b"number") + varint(9 << 3 | 1) + struct.pack("<d", 1.5)
    open_, closed = field(30, field(1, 1)), field(30, field(1, 0))
    either = field(32, field(1, b"d") + field(2, field(2, b"a") + field(2, b"b")))
    names = {
        b"list": field(5, b"array") + field(24, field(1, text)),
        b"tuple": field(24, field(2, text) + field(2, number)),
        b"map": field(30, field(1, 0) + field(2, text)),
        b"open": open_,
        b"closed": closed + either,
        b"whole": varint(9 << 3 | 1) + struct.pack("<d", 3.0) + field(8, field(1, b'{"a":1}')),
    }
    schema = b"".join(field(29, field(1, name) + field(2, below)) for name, below in names.items())
    sent = field(2, field(7, field(1, b"v1") + field(2, 1) + field(3, 0) + field(4, field(1, schema))))
    version = protobuf.decode(body("apiextensions.k8s.io/v1", "CustomResourceDefinition", sent))["spec"]
    assert version["versions"] == [
        {
            "name": "v1",
            "served": True,
            "storage": False,
            "schema": {
                "openAPIV3Schema": {
                    "properties": {
                        "list": {"type": "array", "items": {"type": "string"}},
                        "tuple": {"items": [{"type": "string"}, {"type": "number", "maximum": 1.5}]},
                        "map": {"additionalProperties": {"type": "string"}},
                        "open": {"additionalProperties": True},
                        "closed": {"additionalProperties": False, "dependencies": {"d": ["a", "b"]}},
                        "whole": {"maximum": 3, "default": {"a": 1}},
                    }
                }
            },
        }
    ]
    endless = field(2, field(7, field(4, field(1, varint(9 << 3 | 1) + struct.pack("<d", float("inf"))))))
    with pytest.raises(ApiError, match="unsupported value: inf"):
        protobuf.decode(body("apiextensions.k8s.io/v1", "CustomResourceDefinition", endless))


def test_delete_options_belong_to_every_group() -> None:
    for api_version in ("v1", "apps/v1", "meta.k8s.io/v1", "policy/v1"):
        options = protobuf.decode(body(api_version, "DeleteOptions", field(1, 0) + field(4, b"Foreground")))
        assert options == {
            "apiVersion": api_version,
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "propagationPolicy": "Foreground",
        }


def test_unknown_fields_are_skipped() -> None:
    fixed = varint(900 << 3 | 1) + bytes(8) + varint(901 << 3 | 5) + bytes(4)
    group = varint(902 << 3 | 3) + field(1, 5) + varint(902 << 3 | 4)
    unknown = field(900, 7) + field(901, b"bytes") + fixed + group
    assert protobuf.decode(body("v1", "Pod", unknown + field(1, field(1, b"x")))) == {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": "x"},
    }


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"{}", "does not appear to be a protobuf message"),
        (protobuf.MAGIC, 'no kind "" is registered for version ""'),
        (body("v1", "Martian", b""), 'no kind "Martian" is registered for version "v1"'),
        (body("v1", "Pod", b"\x0a\xff"), "Pod in version .* cannot be handled as a Pod: unexpected EOF"),
        (body("v1", "Pod", b"\x0a\x05ab"), "unexpected EOF"),
        (body("v1", "Pod", b"\xff" * 11), "integer overflow"),
        (body("v1", "Pod", b"\x00\x01"), "illegal tag"),
        (body("v1", "Pod", b"\x0f"), "illegal wireType 7"),
        (body("v1", "Pod", b"\x0c"), "illegal wireType 4"),
        (body("v1", "Pod", b"\x0b"), "unexpected EOF"),
        (body("v1", "Pod", field(1, 5)), "wrong wireType"),
        (body("v1", "Pod", field(1, field(8, field(1, 1 << 62)))), "year outside of range"),
        (body("apps/v1", "ControllerRevision", field(2, field(1, b"{"))), "not JSON"),
        (body("apps/v1", "ControllerRevision", field(2, field(1, b"[" * 100_000))), "nested too deep"),
    ],
)
def test_what_is_wrong_is_refused(sent: bytes, message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        protobuf.decode(sent)
    assert (caught.value.code, caught.value.reason) == (400, "BadRequest")


def test_objects_in_objects_have_an_end() -> None:
    nested = body("v1", "Pod", b"")
    for _ in range(200):
        nested = body("v1", "List", field(2, field(1, nested)))
    with pytest.raises(ApiError, match="nested deeper than 100 levels"):
        protobuf.decode(nested)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    vector=st.sampled_from(VECTORS),
    at=st.integers(0, 4000),
    put=st.binary(max_size=6),
    cut=st.integers(0, 6),
)
def test_any_change_of_a_body_gives_an_object_or_an_error(
    vector: tuple[bytes, object], at: int, put: bytes, cut: int
) -> None:
    whole = vector[0]
    at %= len(whole)
    _decodes_or_refuses(whole[:at] + put + whole[at + cut :])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(["Pod", "Service", "Event", "List", "DeleteOptions"]), raw=st.binary(max_size=200)
)
def test_any_bytes_give_an_object_or_an_error(kind: str, raw: bytes) -> None:
    _decodes_or_refuses(raw)
    _decodes_or_refuses(protobuf.MAGIC + raw)
    _decodes_or_refuses(body("v1", kind, raw))


def _decodes_or_refuses(sent: bytes) -> None:
    with suppress(ApiError):
        json.dumps(protobuf.decode(sent))
