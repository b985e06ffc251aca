"""binding, ephemeralcontainers and resize of pods; taints and cordons of nodes."""

from __future__ import annotations

import pytest

from nsk8s.api.types import Obj
from nsk8s.cluster.podparts import add_containers, bind, resize
from nsk8s.errors import ApiError
from tests.unit.cluster.worlds import World, pod

TARGET = {"target": {"kind": "Node", "name": "w2"}}


# --- binding ----------------------------------------------------------------------------------------------


def test_pods_of_another_scheduler_wait_for_it() -> None:
    world = World()
    world.create(pod("a", schedulerName="mine"))
    assert "conditions" not in world.get("pods", "a")["status"]
    bind(world.registry, "default", "a", TARGET)
    world.settle()
    assert world.view("a").spec.nodeName == "w2"
    (condition,) = world.get("pods", "a")["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("PodScheduled", "True")
    with pytest.raises(ApiError) as told:
        bind(world.registry, "default", "a", TARGET)
    assert told.value.code == 409
    assert told.value.message == (
        'Operation cannot be fulfilled on pods/binding "a": pod a is already assigned to node "w2"'
    )


def test_a_binding_needs_a_target() -> None:
    world = World()
    world.create(pod("a", schedulerName="mine"))
    with pytest.raises(ApiError) as told:
        bind(world.registry, "default", "a", {"target": {}})
    assert (told.value.code, told.value.message) == (
        422,
        'Binding "a" is invalid: target.name: Required value',
    )


def test_a_gated_pod_is_not_scheduled_until_the_gates_are_gone() -> None:
    world = World()
    world.create(pod("a", schedulingGates=[{"name": "example.com/wait"}]))
    (condition,) = world.get("pods", "a")["status"]["conditions"]
    assert condition["reason"] == "SchedulingGated"
    with pytest.raises(ApiError):
        bind(world.registry, "default", "a", TARGET)
    obj = world.get("pods", "a")
    open_ = {k: v for k, v in obj["spec"].items() if k != "schedulingGates"}
    world.store.update("pods", {**obj, "spec": open_})
    world.settle()
    assert world.view("a").spec.nodeName


# --- ephemeral containers ---------------------------------------------------------------------------------


def with_debuggers(world: World, *containers: Obj) -> Obj:
    obj = world.get("pods", "a")
    return {**obj, "spec": {**obj["spec"], "ephemeralContainers": list(containers)}}


DEBUGGER = {"name": "d", "image": "busybox", "targetContainerName": "c"}


def test_ephemeral_containers_are_only_added() -> None:
    world = World()
    world.create(pod("a"))
    other = with_debuggers(world, DEBUGGER)
    other["spec"]["nodeName"] = "elsewhere"
    made = add_containers(world.registry, other)
    assert made["spec"]["nodeName"] == "w1"
    (one,) = made["spec"]["ephemeralContainers"]
    assert (one["imagePullPolicy"], one["terminationMessagePolicy"]) == ("Always", "File")
    second = {"name": "e", "image": "busybox:1"}
    made = add_containers(world.registry, with_debuggers(world, one, second))
    assert [c["name"] for c in made["spec"]["ephemeralContainers"]] == ["d", "e"]
    assert add_containers(world.registry, with_debuggers(world, *made["spec"]["ephemeralContainers"])) is made


@pytest.mark.parametrize(
    ("containers", "message"),
    [
        ([], 'spec.ephemeralContainers: Forbidden: existing ephemeral containers "d" may not be removed\n'),
        (
            [{**DEBUGGER, "image": "alpine"}],
            'spec.ephemeralContainers: Forbidden: existing ephemeral containers "d" may not be changed\n',
        ),
        (
            [DEBUGGER, {"name": "c", "image": "busybox"}],
            'spec.ephemeralContainers[1].name: Duplicate value: "c"',
        ),
        ([DEBUGGER, {"name": "x"}], "spec.ephemeralContainers[1].image: Required value"),
        (
            [DEBUGGER, {"name": "x", "image": "y", "targetContainerName": "z"}],
            'spec.ephemeralContainers[1].targetContainerName: Not found: "z"',
        ),
        (
            [DEBUGGER, {"name": "x", "image": "y", "ports": [{"containerPort": 1}]}],
            "spec.ephemeralContainers[1].ports: Forbidden: cannot be set for an Ephemeral Container",
        ),
        ([DEBUGGER, 7], "spec.ephemeralContainers[1].name: Required value"),
    ],
)
def test_everything_else_is_refused(containers: list[Obj], message: str) -> None:
    world = World()
    world.create(pod("a"))
    add_containers(world.registry, with_debuggers(world, DEBUGGER))
    with pytest.raises(ApiError) as told:
        add_containers(world.registry, with_debuggers(world, *containers))
    assert (told.value.code, told.value.message) == (422, f'Pod "a" is invalid: {message}')


def test_an_old_state_is_a_conflict() -> None:
    world = World()
    world.create(pod("a"))
    new = with_debuggers(world, DEBUGGER)
    new["metadata"] = {**new["metadata"], "resourceVersion": "1"}
    with pytest.raises(ApiError) as told:
        add_containers(world.registry, new)
    assert told.value.code == 409


def test_resize_keeps_what_is_asked_for() -> None:
    world = World()
    world.create(pod("a"))
    obj = world.get("pods", "a")
    asked = {"requests": {"cpu": "1"}}
    new = {**obj, "spec": {"containers": [{"name": "c", "image": "other", "resources": asked}]}}
    (container,) = resize(world.registry, new)["spec"]["containers"]
    assert (container["image"], container["resources"]) == ("nginx", asked)


# --- taints -----------------------------------------------------------------------------------------------


def taint(world: World, node: str, *taints: Obj) -> None:
    world.registry.patch("nodes", "", node, {"spec": {"taints": list(taints) or None}}, "merge")
    world.settle()


def test_a_cordon_is_a_taint_and_is_told() -> None:
    world = World()
    world.registry.patch("nodes", "", "w1", {"spec": {"unschedulable": True}}, "merge")
    world.settle()
    (found,) = world.get("nodes", "w1", "")["spec"]["taints"]
    assert (found["key"], found["effect"]) == ("node.kubernetes.io/unschedulable", "NoSchedule")
    world.registry.patch("nodes", "", "w1", {"spec": {"unschedulable": None}}, "merge")
    world.settle()
    assert "taints" not in world.get("nodes", "w1", "")["spec"]
    told = [e["message"] for e in world.store.list("events") if "Schedulable" in e["reason"]]
    assert told == [
        "Node w1 status is now: NodeNotSchedulable",
        "Node w1 status is now: NodeSchedulable",
    ]


def test_no_execute_evicts_those_who_do_not_tolerate_it() -> None:
    world = World()
    forever = {"key": "k", "operator": "Exists"}
    for name, tolerations in (
        ("goes", []),
        ("stays", [forever]),
        ("later", [{**forever, "effect": "NoExecute", "tolerationSeconds": 30}]),
    ):
        world.create(pod(name, nodeName="w1", tolerations=tolerations))
    taint(world, "w1", {"key": "k", "effect": "NoExecute"})
    going = {p.metadata.name for p in world.pods() if p.metadata.deletionTimestamp}
    assert going == {"goes"}
    assert world.control.wake() == world.now + 30
    world.settle(30)
    going = {p.metadata.name for p in world.pods() if p.metadata.deletionTimestamp}
    assert going == {"goes", "later"}
    assert "Marking for deletion Pod default/later" in [e["message"] for e in world.store.list("events")]


def test_a_taint_that_goes_in_time_does_no_harm() -> None:
    world = World()
    tolerations = [{"key": "k", "operator": "Exists", "tolerationSeconds": 30}]
    world.create(pod("a", nodeName="w1", tolerations=tolerations))
    taint(world, "w1", {"key": "k", "effect": "NoExecute"})
    taint(world, "w1")
    world.settle(60)
    assert world.view("a").metadata.deletionTimestamp is None


def test_nodes_have_leases_and_tell_of_themselves() -> None:
    world = World()
    (lease,) = [x for x in world.store.list("leases.coordination.k8s.io") if x["metadata"]["name"] == "w1"]
    assert lease["metadata"]["namespace"] == "kube-node-lease"
    assert lease["spec"]["holderIdentity"] == "w1"
    about = {
        (e["reason"], e["involvedObject"]["uid"])
        for e in world.store.list("events")
        if e["involvedObject"]["name"] == "w1"
    }
    uid = world.get("nodes", "w1", "")["metadata"]["uid"]
    assert about == {("Starting", "w1"), ("NodeReady", "w1"), ("RegisteredNode", uid)}
