from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from nsk8s.api.topology import Topology
from nsk8s.api.types import Taint, Toleration
from nsk8s.cluster.patch import Json
from nsk8s.cluster.scheduler import tolerated
from tests.unit.cluster.worlds import World, deployment, pod, three_nodes

MASTER = {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}


def scheduled(world: World, name: str) -> dict[str, Any]:
    conditions = world.get("pods", name)["status"]["conditions"]
    found: dict[str, Any] = next(c for c in conditions if c["type"] == "PodScheduled")
    return found


def test_pods_spread_by_owner_then_by_number_then_by_name() -> None:
    world = World()
    for name in ("a", "b", "c"):
        world.create(pod(name))
    assert [world.view(n).spec.nodeName for n in "abc"] == ["w1", "w2", "w1"]
    world.create(deployment("web", 4))
    nodes = Counter(p.spec.nodeName for p in world.pods() if p.metadata.ownerReferences)
    assert nodes == {"w1": 2, "w2": 2}


def test_binding_is_one_update() -> None:
    world = World()
    world.store.commit()
    world.create(pod("a"))
    changes = [(change.type, change.key.resource) for change in world.store.pending()]
    assert changes == [("ADDED", "pods"), ("MODIFIED", "pods"), ("ADDED", "events")]
    assert scheduled(world, "a")["status"] == "True"


def test_the_reasons_are_counted_and_worded_as_upstream() -> None:
    world = World()
    for node in ("w1", "w2"):
        world.registry.patch("nodes", "", node, {"spec": {"unschedulable": True}}, "merge")
    world.settle()
    world.create(pod("a"))
    condition = scheduled(world, "a")
    assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")
    assert condition["message"] == (
        "0/3 nodes are available: 1 node(s) had untolerated taint "
        "{node-role.kubernetes.io/control-plane: }, 2 node(s) were unschedulable. "
        "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )
    revision = world.store.revision
    world.settle()
    assert world.store.revision == revision
    world.registry.patch("nodes", "", "w2", {"spec": {"unschedulable": None}}, "merge")
    world.settle()
    assert world.view("a").spec.nodeName == "w2"


def test_node_selectors_wait_for_a_label() -> None:
    world = World()
    world.create(pod("a", nodeSelector={"name": "ingress"}))
    assert "didn't match Pod's node affinity/selector" in scheduled(world, "a")["message"]
    world.registry.patch("nodes", "", "w2", {"metadata": {"labels": {"name": "ingress"}}}, "merge")
    world.settle()
    assert world.view("a").spec.nodeName == "w2"


@pytest.mark.parametrize(
    ("expression", "nodes"),
    [
        ({"key": "zone", "operator": "In", "values": ["a", "b"]}, {"w1", "w2"}),
        ({"key": "zone", "operator": "NotIn", "values": ["a"]}, {"master", "w2"}),
        ({"key": "zone", "operator": "Exists"}, {"w1", "w2"}),
        ({"key": "zone", "operator": "DoesNotExist"}, {"master"}),
        ({"key": "cores", "operator": "Gt", "values": ["4"]}, {"w2"}),
        ({"key": "cores", "operator": "Lt", "values": ["4"]}, {"w1"}),
    ],
)
def test_node_affinity(expression: dict[str, Any], nodes: set[str]) -> None:
    labels = {
        "w1": {"labels": {"zone": "a", "cores": "2"}},
        "w2": {"labels": {"zone": "b", "cores": "8"}},
    }
    world = World(three_nodes(**labels))
    terms = [{"matchExpressions": [expression]}, {}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    for number in range(len(nodes)):
        world.create(pod(f"p{number}", affinity={"nodeAffinity": required}, tolerations=[MASTER]))
    assert {p.spec.nodeName for p in world.pods()} == nodes


def test_prefer_no_schedule_is_the_last_resort() -> None:
    world = World(three_nodes(w1={"taints": (Taint("slow", "", "PreferNoSchedule"),)}))
    for name in ("a", "b"):
        world.create(pod(name))
    assert {p.spec.nodeName for p in world.pods()} == {"w2"}
    world.registry.patch("nodes", "", "w2", {"spec": {"unschedulable": True}}, "merge")
    world.create(pod("c"))
    assert world.view("c").spec.nodeName == "w1"


def with_port(name: str, **port: Json) -> dict[str, Any]:
    container = {"name": "c", "image": "i", "ports": [{"containerPort": 80, **port}]}
    return pod(name, containers=[container])


def test_host_ports_conflict_by_address_and_protocol() -> None:
    world = World()
    world.create(with_port("a", hostPort=80))
    world.create(with_port("b", hostPort=80))
    world.create(with_port("udp", hostPort=80, protocol="UDP"))
    world.create(with_port("c", hostPort=80, hostIP="127.0.0.1"))
    assert {world.view(n).spec.nodeName for n in ("a", "b")} == {"w1", "w2"}
    assert world.view("udp").spec.nodeName
    assert "2 node(s) didn't have free ports" in scheduled(world, "c")["message"]
    world.registry.delete("pods", "default", "a", grace=0)
    world.settle()
    assert world.view("c").spec.nodeName == "w1"


def test_different_host_ips_do_not_conflict() -> None:
    world = World()
    selector = {"kubernetes.io/hostname": "w1"}
    for name, ip in (("a", "127.0.0.1"), ("b", "127.0.0.2"), ("c", "0.0.0.0")):
        obj = with_port(name, hostPort=80, hostIP=ip)
        world.create({**obj, "spec": {**obj["spec"], "nodeSelector": selector}})
    assert [world.view(n).spec.nodeName for n in "abc"] == ["w1", "w1", ""]


def test_host_network_pods_take_their_container_ports() -> None:
    world = World()
    for name in ("a", "b", "c"):
        obj = with_port(name)
        world.create({**obj, "spec": {**obj["spec"], "hostNetwork": True}})
    assert [world.view(n).spec.nodeName for n in "abc"] == ["w1", "w2", ""]


def test_a_node_is_full_when_its_addresses_are() -> None:
    world = World(three_nodes(w1={"pod_cidrs": ("10.244.1.0/30",)}, w2={"pod_cidrs": ("10.244.2.0/30",)}))
    for name in ("a", "b", "c"):
        world.create(pod(name))
    world.create(pod("host", hostNetwork=True))
    assert world.view("host").spec.nodeName == "w1"
    assert "2 Too many pods" in scheduled(world, "c")["message"]
    world.status(world.view("a"), ready=False, phase="Succeeded")
    world.settle()
    assert world.view("c").spec.nodeName == "w1"


def test_a_node_named_by_the_user_is_taken() -> None:
    world = World()
    world.create(pod("a", nodeName="master"))
    assert world.view("a").spec.nodeName == "master"
    assert "conditions" not in world.get("pods", "a")["status"]
    world.create(pod("b", nodeName="nowhere"))
    assert world.names("pods") == ["a"]


def test_without_nodes() -> None:
    world = World(Topology("empty", ()))
    world.create(pod("a"))
    assert scheduled(world, "a")["message"] == "no nodes available to schedule pods"


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        (Toleration(key="k", value="v"), True),
        (Toleration(key="k", value="w"), False),
        (Toleration(key="k", operator="Exists"), True),
        (Toleration(operator="Exists"), True),
        (Toleration(key="k", value="v", effect="NoExecute"), False),
        (Toleration(value="v"), False),
    ],
)
def test_tolerations(toleration: Toleration, expected: bool) -> None:
    assert tolerated(Taint("k", "v", "NoSchedule"), [toleration]) is expected
