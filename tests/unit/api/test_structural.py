"""Custom resources: defaults, and validation in the API server's words.

recorded_structural.json has what kube-openapi's validator says of some values, as the API server tells it:
[schema, value, findings].
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from nsk8s.api.openapi import Schema, structural
from nsk8s.api.structural import defaulted, validate
from nsk8s.api.types import Obj

NAMED = {"type": "object", "properties": {"name": {"type": "string"}, "v": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("schema", "value", "findings"),
    msgspec.json.decode(Path(__file__).with_name("recorded_structural.json").read_bytes()),
)
def test_findings(schema: Obj, value: Obj, findings: list[str]) -> None:
    assert sorted({f"{p.path}: {p.what}" for p in validate(value, Schema(schema))}) == findings


def test_metadata_is_not_judged_here() -> None:
    schema = structural({"type": "object", "properties": {"size": {"type": "integer"}}})
    obj = {"apiVersion": "e.com/v1", "kind": "Pet", "metadata": {"name": 5}, "size": 1}
    assert validate(obj, schema) == []


def test_a_field_may_be_null_if_it_is_nullable() -> None:
    schema = Schema({"type": "object", "properties": {"a": {"type": "string", "nullable": True}}})
    assert validate({"a": None}, schema) == []


@pytest.mark.parametrize(
    ("form", "items", "value", "finding"),
    [
        ("set", {"type": "string"}, ["a", "b", "a", "a"], 'list[2]: Duplicate value: "a"'),
        ("set", {"type": "integer"}, [1, 1], "list[1]: Duplicate value: 1"),
        (
            "map",
            NAMED,
            [{"name": "a", "v": 1}, {"name": "a", "v": 2}],
            'list[1]: Duplicate value: map[string]interface {}{"name":"a"}',
        ),
    ],
)
def test_sets_and_maps_have_nothing_twice(form: str, items: Obj, value: list[object], finding: str) -> None:
    listed: Obj = {"type": "array", "items": items, "x-kubernetes-list-type": form}
    if form == "map":
        listed["x-kubernetes-list-map-keys"] = ["name"]
    schema = Schema({"type": "object", "properties": {"list": listed}})
    assert [f"{p.path}: {p.what}" for p in validate({"list": value}, schema)] == [finding]


def test_defaults() -> None:
    schema = Schema(
        {
            "type": "object",
            "properties": {
                "mode": {"type": "string", "default": "a"},
                "zero": {"type": "integer", "default": 0},
                "inner": {
                    "type": "object",
                    "default": {},
                    "properties": {"deep": {"type": "boolean", "default": False}},
                },
                "absent": {"type": "object", "properties": {"x": {"type": "string", "default": "never"}}},
                "map": {
                    "type": "object",
                    "additionalProperties": {
                        "type": "object",
                        "properties": {"n": {"type": "integer", "default": 1}},
                    },
                },
                "list": {"type": "array", "items": {"type": "string", "default": "item"}},
            },
        }
    )
    given: Obj = {"mode": None, "map": {"k": {}}, "list": ["x", None], "absent": None, "other": None}
    assert defaulted(given, schema) == {
        "mode": "a",
        "zero": 0,
        "inner": {"deep": False},
        "map": {"k": {"n": 1}},
        "list": ["x", "item"],
        "other": None,
    }
    assert given["mode"] is None


def test_nullable_fields_keep_their_null() -> None:
    raw = {"type": "object", "properties": {"a": {"type": "string", "nullable": True, "default": "x"}}}
    assert defaulted({"a": None}, Schema(raw)) == {"a": None}


def test_a_pattern_of_another_world_matches() -> None:
    raw = {"type": "object", "properties": {"a": {"type": "string", "pattern": "\\pL+("}}}
    assert validate({"a": "b"}, Schema(raw)) == []
