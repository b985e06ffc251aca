"""Who owns what: creates, updates, patches, scales and applies through the registry."""

from __future__ import annotations

from typing import Any

import pytest

from nsk8s.api.types import Obj
from nsk8s.cluster.objectmeta import LAST_APPLIED
from nsk8s.cluster.patch import Json
from nsk8s.errors import ApiError
from tests.unit.cluster.worlds import World, deployment, pod

DEPLOYMENTS = "deployments.apps"


def config_map(**data: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}


def apply(
    world: World, config: Obj, manager: str, *, force: bool = False, resource: str = "configmaps"
) -> Obj:
    name = config["metadata"]["name"]
    found, _ = world.registry.apply_patch(resource, "default", name, config, manager=manager, force=force)
    return found


def owners(obj: Obj) -> dict[tuple[str, str, str], Json]:
    return {
        (one["manager"], one["operation"], one.get("subresource", "")): one["fieldsV1"]
        for one in obj["metadata"].get("managedFields", ())
    }


def data(*keys: str) -> Json:
    return {"f:data": {f"f:{key}": {} for key in keys}}


def test_a_pod_that_kubectl_has_created() -> None:
    made = World().registry.create(pod("a", {"run": "a"}), manager="kubectl-run")
    (entry,) = made["metadata"]["managedFields"]
    assert {key: entry[key] for key in ("manager", "operation", "apiVersion", "fieldsType")} == {
        "manager": "kubectl-run",
        "operation": "Update",
        "apiVersion": "v1",
        "fieldsType": "FieldsV1",
    }
    assert entry["time"] == made["metadata"]["creationTimestamp"]
    fields = entry["fieldsV1"]
    assert fields["f:metadata"] == {"f:labels": {".": {}, "f:run": {}}}
    assert fields["f:spec"]["f:containers"] == {
        'k:{"name":"c"}': {
            ".": {},
            "f:name": {},
            "f:image": {},
            "f:imagePullPolicy": {},
            "f:resources": {},
            "f:terminationMessagePath": {},
            "f:terminationMessagePolicy": {},
        }
    }
    assert fields["f:spec"]["f:dnsPolicy"] == {}
    assert "f:status" not in fields


def test_the_control_planes_own_objects_are_not_tracked() -> None:
    world = World()
    made = world.registry.create(config_map(a="1"))
    assert "managedFields" not in made["metadata"]
    changed = world.registry.update({**made, "data": {"a": "2"}}, manager="kubectl")
    assert "managedFields" not in changed["metadata"]


def test_a_writer_owns_what_it_changes_and_the_others_lose_it() -> None:
    world = World()
    made = world.registry.create(config_map(a="1", b="1"), manager="one")
    new = world.registry.update({**made, "data": {"a": "2", "c": "1"}}, manager="two")
    assert owners(new) == {
        ("one", "Update", ""): {"f:data": {}},
        ("two", "Update", ""): data("a", "c"),
    }
    again = world.registry.update({**new, "data": {"a": "2", "c": "1"}}, manager="three")
    assert again is new


def test_status_and_scale_are_entries_of_their_own() -> None:
    world = World()
    world.registry.create(deployment("d"), manager="kubectl")
    world.settle()
    stored = world.get(DEPLOYMENTS, "d")
    status = world.registry.update_status(
        {**stored, "status": {**stored["status"], "replicas": 9}}, manager="controller"
    )
    assert owners(status)["controller", "Update", "status"] == {"f:status": {"f:replicas": {}}}
    world.registry.scale(DEPLOYMENTS, "default", "d", 5, manager="kubectl")
    scaled = owners(world.get(DEPLOYMENTS, "d"))
    assert scaled["kubectl", "Update", "scale"] == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in scaled["kubectl", "Update", ""]["f:spec"]


def test_an_apply_that_would_change_what_others_own_is_a_conflict() -> None:
    world = World()
    config = deployment("d", 3)
    apply(world, config, "me", resource=DEPLOYMENTS)
    world.registry.scale(DEPLOYMENTS, "default", "d", 4, manager="kubectl")
    with pytest.raises(ApiError) as refused:
        apply(world, config, "me", resource=DEPLOYMENTS)
    error = refused.value
    assert (error.code, error.reason) == (409, "Conflict")
    who = '"kubectl" with subresource "scale" using apps/v1'
    assert error.message == f"Apply failed with 1 conflict: conflict with {who}: .spec.replicas"
    (cause,) = error.causes
    assert (cause.path, cause.what, cause.reason) == (
        ".spec.replicas",
        f"conflict with {who}",
        "FieldManagerConflict",
    )
    forced = apply(world, config, "me", force=True, resource=DEPLOYMENTS)
    assert forced["spec"]["replicas"] == 3
    assert ("kubectl", "Update", "scale") not in owners(forced)


def test_several_conflicts_are_told_by_manager() -> None:
    world = World()
    apply(world, config_map(a="1", b="1"), "one")
    world.registry.update(
        {**world.get("configmaps", "c"), "data": {"a": "1", "b": "1", "c": "1"}}, manager="two"
    )
    with pytest.raises(ApiError) as refused:
        apply(world, config_map(a="2", b="2", c="2"), "three")
    assert refused.value.message == (
        'Apply failed with 3 conflicts: conflicts with "one":\n- .data.a\n- .data.b\n'
        'conflicts with "two" using v1:\n- .data.c'
    )


def test_what_is_applied_no_more_goes_unless_somebody_else_owns_it() -> None:
    world = World()
    apply(world, config_map(a="1", b="1", c="1"), "one")
    apply(world, config_map(b="1"), "two")
    left = apply(world, config_map(a="1"), "one")
    assert left["data"] == {"a": "1", "b": "1"}
    assert owners(left) == {("one", "Apply", ""): data("a"), ("two", "Apply", ""): data("b")}


def test_an_apply_that_changes_nothing_is_no_write() -> None:
    world = World()
    first = apply(world, config_map(a="1"), "one")
    assert apply(world, config_map(a="1"), "one") is first
    shared = apply(world, config_map(a="1"), "two")
    assert shared["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]


def test_what_was_there_before_the_first_apply_belongs_to_somebody() -> None:
    world = World()
    world.registry.create(config_map(a="1"))
    with pytest.raises(ApiError, match=r'conflict with "before-first-apply" using v1: \.data\.a'):
        apply(world, config_map(a="2"), "me")


def test_kubectls_migration_from_client_side_apply() -> None:
    """What kubectl 1.32 does: an apply, a second one as ``kubectl-last-applied``, and a JSON patch that
    hands the old manager's fields over."""
    world = World()
    said = '{"apiVersion":"v1","data":{"a":"1","b":"1"},"kind":"ConfigMap","metadata":{"name":"c"}}\n'
    old = config_map(a="1", b="1")
    old["metadata"]["annotations"] = {LAST_APPLIED: said}
    world.registry.create(old, manager="kubectl-client-side-apply")
    applied = apply(world, config_map(a="2"), "kubectl")
    assert applied["data"] == {"a": "2", "b": "1"}
    assert '"a":"2"' in applied["metadata"]["annotations"][LAST_APPLIED]
    entries: list[dict[str, Any]] = [
        one for one in applied["metadata"]["managedFields"] if one["operation"] == "Apply"
    ]
    mine = {**entries[0], "fieldsV1": data("a", "b")}
    operations = [{"op": "replace", "path": "/metadata/managedFields", "value": [mine]}]
    patched = world.registry.patch(
        "configmaps", "default", "c", operations, "json", manager="kubectl-client-side-apply"
    )
    assert patched["metadata"]["resourceVersion"] != applied["metadata"]["resourceVersion"]
    assert owners(patched) == {("kubectl", "Apply", ""): data("a", "b")}
    assert apply(world, config_map(a="2"), "kubectl")["data"] == {"a": "2"}


@pytest.mark.parametrize("entries", [[], [{}]])
def test_a_client_may_end_the_tracking(entries: Json) -> None:
    world = World()
    made = world.registry.create(config_map(a="1"), manager="one")
    body = {**made, "metadata": {**made["metadata"], "managedFields": entries}}
    assert "managedFields" not in world.registry.update(body, manager="two")["metadata"]


@pytest.mark.parametrize(
    "entries",
    [
        [{"operation": "Dance", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {}}],
        [{"operation": "Update", "apiVersion": "", "fieldsType": "FieldsV1", "fieldsV1": {}}],
        [{"operation": "Update", "apiVersion": "v1", "fieldsType": "Fields", "fieldsV1": {}}],
        [{"operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"x": {}}}],
        [{"operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"k:[": {}}}],
        [{"operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:a": 1}}],
        ["x"],
        "x",
        None,
    ],
)
def test_entries_that_are_none_are_ignored(entries: Json) -> None:
    world = World()
    made = world.registry.create(config_map(a="1"), manager="one")
    body = {**made, "metadata": {**made["metadata"], "managedFields": entries}, "data": {"a": "1", "b": "1"}}
    assert set(owners(world.registry.update(body, manager="two"))) == {
        ("one", "Update", ""),
        ("two", "Update", ""),
    }


def test_the_oldest_of_many_updaters_are_merged() -> None:
    world = World()
    obj = world.registry.create(config_map(k0="0"), manager="m00")
    for number in range(1, 13):
        obj = world.registry.update(
            {**obj, "data": {**obj["data"], f"k{number}": "0"}}, manager=f"m{number:02}"
        )
    assert len(owners(obj)) == 10
    ancient = owners(obj)["ancient-changes", "Update", ""]["f:data"]
    assert {"f:k0", "f:k1", "f:k2"} <= set(ancient)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"spec": {"containers": [{"image": "x"}]}},
            ".spec.containers: element 0: associative list with keys has an element that omits key field "
            '"name" (and doesn\'t have default value)',
        ),
        (
            {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}},
            '.spec.containers: duplicate entries for key [name="a"]',
        ),
        ({"spec": {"portz": 1}}, ".spec.portz: field not declared in schema"),
        (
            {"spec": {"priority": "high", "hostNetwork": 1, "tolerations": [{"keyz": 1}]}},
            "errors:\n  .spec.priority: expected numeric (int or float), got string\n"
            "  .spec.hostNetwork: expected boolean, got &{1}\n"
            "  .spec.tolerations[0].keyz: field not declared in schema",
        ),
        (
            {"spec": {"containers": [{"name": "a", "env": [{"name": "X", "value": 1}]}]}},
            '.spec.containers[name="a"].env[name="X"].value: expected string, got '
            "&value.valueUnstructured{Value:1}",
        ),
        ({"spec": {"containers": {"name": "a"}}}, ".spec.containers: expected list, got &{map[name:a]}"),
        ({"spec": ["x"]}, ".spec: expected map, got &{[x]}"),
        (
            {"spec": {"containers": ["x"]}},
            ".spec.containers: element 0: associative list with keys may not have non-map elements",
        ),
        (
            {"metadata": {"name": "p", "finalizers": [None]}},
            ".metadata.finalizers: element 0: associative list without keys has an element that's an "
            "explicit null",
        ),
    ],
)
def test_what_cannot_be_applied(config: Obj, words: str) -> None:
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, **config}
    with pytest.raises(ApiError) as refused:
        apply(World(), body, "me", resource="pods")
    assert refused.value.code == 500
    assert refused.value.message == (
        f"failed to create typed patch object (default/p; /v1, Kind=Pod): {words}"
    )


def test_managed_fields_cannot_be_applied() -> None:
    config = config_map(a="1")
    config["metadata"]["managedFields"] = []
    with pytest.raises(ApiError, match=r"^metadata\.managedFields must be nil$"):
        apply(World(), config, "me")


def test_the_status_can_be_applied() -> None:
    world = World()
    world.registry.create(pod("p"), manager="kubectl")
    config = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {"not": "mine"}},
        "spec": {"nodeName": "w2"},
        "status": {"conditions": [{"type": "Mine", "status": "True"}]},
    }
    found, new = world.registry.apply_patch("pods", "default", "p", config, "status", manager="me")
    assert not new
    assert {"type": "Mine", "status": "True"} in found["status"]["conditions"]
    assert "labels" not in found["metadata"]
    assert owners(found)["me", "Apply", "status"] == {
        "f:status": {"f:conditions": {'k:{"type":"Mine"}': {".": {}, "f:type": {}, "f:status": {}}}}
    }
