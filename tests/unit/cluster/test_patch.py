from __future__ import annotations

import pytest

from nsk8s.cluster.patch import Json, difference, json_patch, merge, strategic, three_way
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


def test_strategic_patches_merge_containers_by_name() -> None:
    spec = {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]}
    patch = {"containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}]}
    assert strategic(spec, patch)["containers"] == [
        {"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
        {"name": "b"},
    ]


def test_strategic_directives() -> None:
    spec = {"containers": [{"name": "a"}, {"name": "b"}], "finalizers": ["x", "y"], "m": {"a": 1, "b": 2}}
    assert strategic(spec, {"containers": [{"name": "a", "$patch": "delete"}]})["containers"] == [
        {"name": "b"}
    ]
    replaced = {"containers": [{"$patch": "replace"}, {"name": "c"}]}
    assert strategic(spec, replaced)["containers"] == [{"name": "c"}]
    assert strategic(spec, {"$deleteFromPrimitiveList/finalizers": ["x"]})["finalizers"] == ["y"]
    assert strategic(spec, {"finalizers": ["z"]})["finalizers"] == ["x", "y", "z"]
    assert strategic(spec, {"m": {"$retainKeys": ["b", "c"], "c": 3}})["m"] == {"b": 2, "c": 3}
    assert strategic(spec, {"m": {"$patch": "replace", "c": 3}})["m"] == {"c": 3}
    ordered = {
        "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}],
        "containers": [{"name": "c"}],
    }
    assert [c["name"] for c in strategic(spec, ordered)["containers"]] == ["c", "b", "a"]


def test_the_same_port_for_tcp_and_udp_are_two_ports() -> None:
    spec = {"ports": [{"port": 53, "protocol": "UDP", "name": "dns"}]}
    both = strategic(spec, {"ports": [{"port": 53, "protocol": "TCP", "name": "dns-tcp"}]})
    assert [p["name"] for p in both["ports"]] == ["dns", "dns-tcp"]
    renamed = strategic(spec, {"ports": [{"port": 53, "name": "other"}]})
    assert renamed["ports"] == [{"port": 53, "protocol": "UDP", "name": "other"}]


def test_an_apply_removes_what_the_last_one_said_and_keeps_what_others_added() -> None:
    original = {"labels": {"a": "1", "b": "2"}, "ports": [{"port": 80}, {"port": 81}], "l": [1]}
    modified = {"labels": {"a": "1"}, "ports": [{"port": 80, "name": "http"}], "l": [2]}
    current = {
        "labels": {"a": "1", "b": "2", "other": "x"},
        "ports": [{"port": 80, "nodePort": 30080}, {"port": 81}, {"port": 82}],
        "l": [1],
        "clusterIP": "10.96.0.5",
    }
    assert three_way(original, modified, current) == {
        "labels": {"a": "1", "other": "x"},
        "ports": [{"port": 80, "nodePort": 30080, "name": "http"}, {"port": 82}],
        "l": [2],
        "clusterIP": "10.96.0.5",
    }


def test_an_apply_of_another_strategy_drops_the_old_ones_fields() -> None:
    current = {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}
    assert three_way({}, {"strategy": {"type": "Recreate"}}, current) == {"strategy": {"type": "Recreate"}}
