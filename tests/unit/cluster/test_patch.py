from __future__ import annotations

import pytest

from nsk8s.cluster.patch import Json, difference, json_patch, merge
from nsk8s.errors import ApiError


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(target: Json, patch: Json, result: Json) -> None:
    assert merge(target, patch) == result


def test_difference_is_the_way_from_one_to_the_other() -> None:
    before = {"a": 1, "b": {"c": 2, "d": 3}, "e": [1]}
    after = {"b": {"c": 2, "d": 4}, "e": [2], "f": {}}
    assert merge(before, difference(before, after)) == after
    assert difference(before, before) == {}


@pytest.mark.parametrize(
    ("operations", "result"),
    [
        ([{"op": "add", "path": "/l/1", "value": 9}], {"l": [1, 9, 2], "m": {"a/b": 0}}),
        ([{"op": "add", "path": "/l/-", "value": 9}], {"l": [1, 2, 9], "m": {"a/b": 0}}),
        ([{"op": "remove", "path": "/l/0"}], {"l": [2], "m": {"a/b": 0}}),
        ([{"op": "replace", "path": "/m/a~1b", "value": 5}], {"l": [1, 2], "m": {"a/b": 5}}),
        ([{"op": "move", "from": "/l/0", "path": "/x"}], {"l": [2], "m": {"a/b": 0}, "x": 1}),
        ([{"op": "copy", "from": "/m", "path": "/n"}], {"l": [1, 2], "m": {"a/b": 0}, "n": {"a/b": 0}}),
        ([{"op": "test", "path": "/l", "value": [1, 2]}], {"l": [1, 2], "m": {"a/b": 0}}),
        ([{"op": "replace", "path": "", "value": 3}], 3),
    ],
)
def test_json_patch(operations: Json, result: Json) -> None:
    target = {"l": [1, 2], "m": {"a/b": 0}}
    assert json_patch(target, operations) == result
    assert target == {"l": [1, 2], "m": {"a/b": 0}}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/absent"},
        {"op": "replace", "path": "/l/7", "value": 1},
        {"op": "test", "path": "/l", "value": []},
        {"op": "add", "path": "/l/0/x/y", "value": 1},
        {"op": "add", "path": "l", "value": 1},
        {"op": "move", "from": "/absent", "path": "/x"},
        {"op": "dance", "path": "/l"},
    ],
)
def test_json_patches_that_do_not_apply(operation: Json) -> None:
    with pytest.raises(ApiError):
        json_patch({"l": [1]}, [operation])
