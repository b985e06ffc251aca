from __future__ import annotations

import json

import pytest

from nsk8s.cluster.objectmeta import LAST_APPLIED
from nsk8s.errors import ApiError
from tests.unit.cluster.worlds import World, deployment, pod, service


def test_objects_go_to_default_and_namespaces_must_exist() -> None:
    world = World()
    assert world.create(pod("a"))["metadata"]["namespace"] == "default"
    elsewhere = pod("a")
    elsewhere["metadata"]["namespace"] = "nowhere"
    with pytest.raises(ApiError, match=r'^namespaces "nowhere" not found$') as error:
        world.create(elsewhere)
    assert error.value.code == 404


def test_what_only_the_server_says_is_not_taken_from_users() -> None:
    obj = pod("a")
    obj["metadata"] |= {"uid": "mine", "deletionTimestamp": "now"}
    made = World().create({**obj, "status": {"phase": "Running"}})
    assert made["metadata"]["uid"] != "mine"
    assert "deletionTimestamp" not in made["metadata"]
    assert made["status"] == {"phase": "Pending"}


def test_unknown_kinds_and_invalid_objects() -> None:
    world = World()
    with pytest.raises(ApiError, match='no matches for kind "Ingress" in version "extensions/v1beta1"'):
        world.create({"apiVersion": "extensions/v1beta1", "kind": "Ingress", "metadata": {"name": "a"}})
    with pytest.raises(ApiError, match=r'^Pod "a" is invalid: spec\.containers: Required value') as error:
        world.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}})
    assert (error.value.code, error.value.reason) == (422, "Invalid")
    assert error.value.causes[0].path == "spec.containers"


def test_update_keeps_the_status_and_conflicts_on_a_stale_version() -> None:
    world = World()
    world.create(pod("a"))
    stored = world.get("pods", "a")
    relabelled = {**pod("a", {"x": "y"}), "spec": stored["spec"], "status": {"phase": "Failed"}}
    new = world.registry.update(relabelled)
    assert new["status"] == stored["status"]
    stale = {**new, "metadata": {**new["metadata"], "resourceVersion": "1", "labels": {}}}
    with pytest.raises(ApiError, match="the object has been modified") as error:
        world.registry.update(stale)
    assert error.value.code == 409


def test_some_fields_never_change() -> None:
    world = World()
    world.create(pod("a"))
    stored = world.get("pods", "a")
    with pytest.raises(ApiError, match='Pod "a" is invalid: spec: Forbidden: pod updates may not change'):
        world.registry.update({**stored, "spec": {**stored["spec"], "hostNetwork": True}})
    world.create(deployment("d"))
    stored = world.get("deployments.apps", "d")
    other = deployment("d", selector={"matchLabels": {"app": "e"}})
    other["spec"]["template"]["metadata"]["labels"] = {"app": "e"}
    with pytest.raises(ApiError, match="field is immutable"):
        world.registry.update({**stored, "spec": other["spec"]})


def test_patches_of_three_kinds() -> None:
    world = World()
    world.create(service("a"))
    patch = world.registry.patch
    merged = patch("services", "default", "a", {"metadata": {"labels": {"x": "y"}}}, "merge")
    assert merged["metadata"]["labels"] == {"x": "y"}
    operations = [{"op": "replace", "path": "/metadata/labels/x", "value": "z"}]
    assert patch("services", "default", "a", operations, "json")["metadata"]["labels"] == {"x": "z"}
    ports = {"spec": {"ports": [{"port": 81, "name": "b"}, {"port": 80, "name": "a"}]}}
    stored = patch("services", "default", "a", ports, "strategic")
    assert [p["port"] for p in stored["spec"]["ports"]] == [81, 80]
    assert patch("services", "default", "a", {}, "merge") is stored
    with pytest.raises(ApiError, match="does not match the name on the URL") as error:
        patch("services", "default", "a", {"metadata": {"name": "b"}}, "merge")
    assert error.value.code == 400


def test_the_status_subresource_changes_only_the_status() -> None:
    world = World()
    world.create(pod("a"))
    patch = {"metadata": {"labels": {"x": "y"}}, "status": {"phase": "Running"}}
    new = world.registry.patch("pods", "default", "a", patch, "merge", "status")
    assert new["status"]["phase"] == "Running"
    assert "labels" not in new["metadata"]


def test_scale() -> None:
    world = World()
    world.create(deployment("d", 2))
    scale = world.registry.scale("deployments.apps", "default", "d")
    assert scale["spec"] == {"replicas": 2}
    assert scale["status"] == {"replicas": 2, "selector": "app=d"}
    world.registry.patch("deployments.apps", "default", "d", {"spec": {"replicas": 4}}, "merge", "scale")
    world.settle()
    assert len(world.active()) == 4
    with pytest.raises(ApiError, match="must be greater than or equal to 0"):
        world.registry.scale("deployments.apps", "default", "d", -1)
    with pytest.raises(ApiError, match="could not find the requested resource"):
        world.registry.scale("pods", "default", "d")


def test_apply_says_created_unchanged_configured() -> None:
    world = World()
    assert world.apply(deployment("d")) == "created"
    revision = world.store.revision
    assert world.apply(deployment("d")) == "unchanged"
    assert world.store.revision == revision
    assert world.apply(deployment("d", 4)) == "configured"
    annotations = world.get("deployments.apps", "d")["metadata"]["annotations"]
    said = json.loads(annotations[LAST_APPLIED])
    assert said["metadata"] == {"annotations": {}, "name": "d", "namespace": "default"}
    assert said["spec"]["replicas"] == 4


@pytest.mark.parametrize(
    "obj",
    [
        pod("p", tolerations=[{"key": "a", "operator": "Exists"}]),
        pod(
            "p", hostNetwork=True, containers=[{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]
        ),
        service("s", type="NodePort", sessionAffinity="ClientIP"),
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "creationTimestamp": None}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}},
    ],
    ids=lambda obj: obj["kind"],
)
def test_applying_the_same_again_changes_nothing(obj: dict[str, object]) -> None:
    world = World()
    assert [world.apply(obj), world.apply(obj)] == ["created", "unchanged"]


def test_apply_removes_what_was_taken_out_and_keeps_the_rest() -> None:
    world = World()
    first = service("s", type="NodePort", ports=[{"port": 80, "name": "a"}, {"port": 81, "name": "b"}])
    first["metadata"]["labels"] = {"x": "1", "y": "2"}
    world.apply(first)
    world.registry.patch("services", "default", "s", {"metadata": {"labels": {"own": "z"}}}, "merge")
    second = service("s", type="NodePort", ports=[{"port": 81, "name": "b"}])
    second["metadata"]["labels"] = {"x": "1"}
    world.apply(second)
    stored = world.get("services", "s")
    assert stored["metadata"]["labels"] == {"x": "1", "own": "z"}
    assert [(p["name"], p["nodePort"]) for p in stored["spec"]["ports"]] == [("b", 30087)]


def test_a_pod_on_a_node_gets_time_to_end() -> None:
    world = World()
    world.create(pod("a", terminationGracePeriodSeconds=5))
    marked = world.registry.delete("pods", "default", "a")["metadata"]
    assert (marked["deletionTimestamp"], marked["deletionGracePeriodSeconds"]) == ("2026-11-23T20:33:05Z", 5)
    longer = world.registry.delete("pods", "default", "a", grace=60)["metadata"]
    assert longer["deletionGracePeriodSeconds"] == 5
    shorter = world.registry.delete("pods", "default", "a", grace=1)["metadata"]
    assert shorter["deletionGracePeriodSeconds"] == 1
    world.registry.delete("pods", "default", "a", grace=0)
    assert world.names("pods") == []


def test_pods_that_run_nowhere_go_at_once() -> None:
    world = World()
    world.create(pod("unbound", nodeSelector={"no": "where"}))
    world.create(pod("over"))
    world.status(world.view("over"), ready=False, phase="Succeeded")
    for name in ("unbound", "over"):
        world.registry.delete("pods", "default", name)
    assert world.names("pods") == []


def test_finalizers_hold_an_object_back() -> None:
    world = World()
    obj = service("s")
    obj["metadata"]["finalizers"] = ["example.com/wait"]
    world.create(obj)
    world.registry.delete("services", "default", "s")
    assert world.get("services", "s")["metadata"]["deletionTimestamp"]
    world.registry.patch("services", "default", "s", {"metadata": {"finalizers": None}}, "merge")
    assert "s" not in world.names("services")


def test_deleting_what_is_not_there() -> None:
    with pytest.raises(ApiError, match=r'^deployments\.apps "x" not found$'):
        World().registry.delete("deployments.apps", "default", "x")
