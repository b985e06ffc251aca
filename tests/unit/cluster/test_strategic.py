"""Strategic merge patches and kubectl's three-way merge, driven by the schemas."""

from __future__ import annotations

import pytest

from nsk8s.cluster.patch import Json
from nsk8s.cluster.strategic import strategic, three_way
from nsk8s.cluster.structure import Structure, structure_of
from nsk8s.errors import ApiError


def of(version: str, kind: str) -> Structure:
    found = structure_of(version, kind)
    assert found is not None
    return found


POD, DEPLOYMENT, SERVICE = of("v1", "Pod"), of("apps/v1", "Deployment"), of("v1", "Service")


def patched(spec: Json, patch: Json, structure: Structure = POD) -> Json:
    return strategic({"spec": spec}, {"spec": patch}, structure)["spec"]


def test_containers_are_merged_by_name() -> None:
    spec = {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]}
    patch = {"containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}]}
    env = [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]
    assert patched(spec, patch)["containers"] == [{"name": "a", "image": "2", "env": env}, {"name": "b"}]


@pytest.mark.parametrize(
    ("patch", "names"),
    [
        ({"containers": [{"name": "a", "$patch": "delete"}]}, ["b"]),
        ({"containers": [{"$patch": "replace"}, {"name": "c"}]}, ["c"]),
        ({"containers": [{"name": "c"}]}, ["c", "a", "b"]),
        (
            {
                "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}],
                "containers": [{"name": "c"}],
            },
            ["c", "b", "a"],
        ),
        ({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}, ["b", "a"]),
    ],
)
def test_directives_of_lists(patch: Json, names: list[str]) -> None:
    spec = {"containers": [{"name": "a"}, {"name": "b"}]}
    assert [item["name"] for item in patched(spec, patch)["containers"]] == names


def test_lists_of_scalars_are_sets_where_the_schema_says_so() -> None:
    pod = {"metadata": {"finalizers": ["x", "y"]}, "spec": {"containers": [{"name": "a", "args": ["1"]}]}}
    gone = strategic(pod, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}, POD)
    assert gone["metadata"]["finalizers"] == ["y"]
    more = strategic(pod, {"metadata": {"finalizers": ["z", "x"]}}, POD)
    assert more["metadata"]["finalizers"] == ["z", "x", "y"]
    replaced = strategic(pod, {"spec": {"containers": [{"name": "a", "args": ["2"]}]}}, POD)
    assert replaced["spec"]["containers"][0]["args"] == ["2"]


def test_the_members_of_a_union_that_are_not_retained_go() -> None:
    spec = {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}
    patch = {"strategy": {"$retainKeys": ["type"], "rollingUpdate": None, "type": "Recreate"}}
    assert patched(spec, patch, DEPLOYMENT) == {"strategy": {"type": "Recreate"}}


def test_maps_can_be_replaced_and_emptied() -> None:
    spec = {"nodeSelector": {"a": "1", "b": "2"}}
    assert patched(spec, {"nodeSelector": {"$patch": "replace", "c": "3"}}) == {"nodeSelector": {"c": "3"}}
    assert patched(spec, {"nodeSelector": {"$patch": "delete"}}) == {"nodeSelector": {}}
    assert patched(spec, {"nodeSelector": None}) == {}
    assert patched({}, {"nodeSelector": {"a": None, "b": "1"}}) == {"nodeSelector": {"b": "1"}}


def test_neither_argument_is_changed() -> None:
    spec = {"containers": [{"name": "a", "env": [{"name": "X"}]}]}
    patch = {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a", "env": None}]}
    before = repr((spec, patch))
    patched(spec, patch)
    assert repr((spec, patch)) == before


@pytest.mark.parametrize(
    ("patch", "code", "words"),
    [
        ({"containers": [{"image": "x"}]}, 500, "does not contain declared merge key: name"),
        ({"containers": [{"name": "a", "$patch": "dance"}]}, 500, "unknown patch type: dance in map"),
        ({"containers": [{"name": "a"}, 1]}, 500, "list element types are not identical"),
        ({"containers": [[1]]}, 422, "lists of lists are not supported"),
        ({"strategy": {"$retainKeys": "x"}}, 400, "invalid patch format of retainKeys"),
        ({"strategy": {"$retainKeys": ["a"], "b": 1}}, 400, "invalid patch format of retainKeys"),
        ({"$setElementOrder/containers": 1}, 400, "invalid patch format of setElementOrder list"),
        ({"$setElementOrder": []}, 400, "invalid patch format of setElementOrder list"),
        ({"$deleteFromPrimitiveList": []}, 400, "invalid patch format of primitive list"),
        (
            {"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]},
            500,
            "The order in patch list:",
        ),
        ({"containers": [{"name": {}}]}, 500, "the merge key name is no scalar"),
    ],
)
def test_patches_that_make_no_sense(patch: Json, code: int, words: str) -> None:
    spec = {"containers": [{"name": "a"}], "strategy": {}}
    with pytest.raises(ApiError) as refused:
        patched(spec, patch)
    assert refused.value.code == code
    assert words in refused.value.message


# --- kubectl apply ----------------------------------------------------------------------------------


def test_an_apply_removes_what_the_last_one_said_and_keeps_what_others_added() -> None:
    original = {"selector": {"a": "1", "b": "2"}, "ports": [{"port": 80}, {"port": 81}], "externalIPs": ["1"]}
    modified = {"selector": {"a": "1"}, "ports": [{"port": 80, "name": "http"}], "externalIPs": ["2"]}
    current = {
        "selector": {"a": "1", "b": "2", "other": "x"},
        "ports": [{"port": 80, "nodePort": 30080}, {"port": 81}, {"port": 82}],
        "externalIPs": ["1"],
        "clusterIP": "10.96.0.5",
    }
    assert three_way(original, modified, current, SERVICE["spec"]) == {
        "selector": {"a": "1", "other": "x"},
        "ports": [{"port": 80, "nodePort": 30080, "name": "http"}, {"port": 82}],
        "externalIPs": ["2"],
        "clusterIP": "10.96.0.5",
    }


def test_an_apply_of_another_strategy_drops_the_old_ones_fields() -> None:
    current = {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}
    wanted = {"strategy": {"type": "Recreate"}}
    assert three_way({}, wanted, current, DEPLOYMENT["spec"]) == wanted
    volumes = {"volumes": [{"name": "v", "emptyDir": {}}]}
    other = {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}
    assert three_way({}, other, volumes, POD["spec"]) == other


def test_the_same_port_for_tcp_and_udp_are_two_ports() -> None:
    both = [{"port": 53, "protocol": "UDP", "name": "dns"}, {"port": 53, "protocol": "TCP", "name": "tcp"}]
    live = [{**port, "targetPort": 53} for port in both]
    assert three_way({"ports": both}, {"ports": both}, {"ports": live}, SERVICE["spec"]) == {"ports": live}
    renamed = [both[0], {**both[1], "name": "other"}]
    assert three_way({"ports": both}, {"ports": renamed}, {"ports": live}, SERVICE["spec"]) == {
        "ports": [live[0], {**live[1], "name": "other"}]
    }
    only = [both[1]]
    assert three_way({"ports": both}, {"ports": only}, {"ports": live}, SERVICE["spec"]) == {
        "ports": live[1:]
    }
