"""Nodes, namespaces, and the control loop itself."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from nsk8s.cluster.control import Control
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.store import Change, Key
from nsk8s.errors import ApiError, NsK8sError
from tests.unit.cluster.worlds import NOW, World, deployment, pod, service, three_nodes


def test_a_node_is_what_the_topology_says() -> None:
    world = World(three_nodes(w1={"labels": {"zone": "a"}}))
    node = world.get("nodes", "w1", "")
    assert node["metadata"]["labels"] == {
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": "w1",
        "kubernetes.io/os": "linux",
        "zone": "a",
    }
    assert node["metadata"]["annotations"]["flannel.alpha.coreos.com/public-ip"] == "172.18.0.3"
    assert node["spec"] == {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]}
    assert node["status"]["addresses"][0] == {"type": "InternalIP", "address": "172.18.0.3"}
    assert node["status"]["nodeInfo"]["kubeletVersion"] == "v1.33.0+nsk8s"
    assert {c["type"]: c["status"] for c in node["status"]["conditions"]}["Ready"] == "True"
    master = world.get("nodes", "master", "")
    assert master["metadata"]["labels"]["node-role.kubernetes.io/control-plane"] == ""
    taint = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
    assert master["spec"]["taints"] == [taint]


def test_what_users_change_survives_another_up() -> None:
    world = World(three_nodes(w1={"labels": {"zone": "a", "old": "x"}}))
    mine = {"metadata": {"labels": {"zone": "mine", "name": "ingress"}, "annotations": {"a": "b"}}}
    world.registry.patch("nodes", "", "w1", mine | {"spec": {"unschedulable": True}}, "merge")
    world.settle()
    before = world.get("nodes", "w1", "")
    again = World(three_nodes(w1={"labels": {"zone": "a", "old": "x"}}), world.store)
    assert again.get("nodes", "w1", "") is before
    changed = World(three_nodes(w1={"labels": {"zone": "a", "new": "y"}}), world.store)
    node = changed.get("nodes", "w1", "")
    labels = node["metadata"]["labels"]
    assert {k: labels.get(k) for k in ("zone", "name", "old", "new")} == {
        "zone": "mine",
        "name": "ingress",
        "old": None,
        "new": "y",
    }
    assert node["metadata"]["annotations"]["a"] == "b"
    assert node["spec"]["unschedulable"] is True


def test_a_node_that_leaves_takes_its_pods_along() -> None:
    world = World()
    world.create(deployment("web", 4))
    topology = three_nodes()
    smaller = type(topology)("test", topology.nodes[:2])
    after = World(smaller, world.store)
    assert after.names("nodes", "") == ["master", "w1"]
    assert [p.spec.nodeName for p in after.pods()] == ["w1"] * 4


def test_a_node_deleted_by_hand_registers_again() -> None:
    world = World()
    world.registry.delete("nodes", "", "w1")
    world.settle()
    assert "w1" in world.names("nodes", "")


def test_the_systems_namespaces() -> None:
    world = World()
    names = ["default", "kube-node-lease", "kube-public", "kube-system"]
    assert world.names("namespaces", "") == names
    assert world.get("namespaces", "default", "")["metadata"]["labels"] == {
        "kubernetes.io/metadata.name": "default"
    }
    with pytest.raises(ApiError, match='namespaces "default" is forbidden') as error:
        world.registry.delete("namespaces", "", "default")
    assert error.value.code == 403


def test_a_namespace_goes_when_it_is_empty() -> None:
    world = World()
    world.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})
    for obj in (deployment("web", 2), service("web"), pod("p")):
        obj["metadata"]["namespace"] = "n"
        world.create(obj)
    world.registry.delete("namespaces", "", "n")
    world.settle()
    assert world.get("namespaces", "n", "")["status"]["phase"] == "Terminating"
    assert all(p.metadata.deletionTimestamp for p in world.pods())
    late = pod("late")
    late["metadata"]["namespace"] = "n"
    with pytest.raises(ApiError, match="because it is being terminated"):
        world.create(late)
    world.reap()
    assert "n" not in world.names("namespaces", "")
    assert all(not list(world.store.list(r, "n")) for r in world.store.resources())


class Quarrel:
    """A controller that never agrees with itself."""

    informers = None

    def __init__(self, world: World) -> None:
        self.world = world

    def touched(self, change: Change) -> Iterable[Key]:
        if change.key.name == "p":
            yield change.key

    def sync(self, key: Key, now: float) -> float | None:
        obj = self.world.store.find(*key)
        value = str(self.world.store.revision)
        labels = {"metadata": {**obj["metadata"], "labels": {"x": value}}}
        self.world.store.update("pods", {**obj, **labels})
        return None


def test_a_quarrel_is_reported_and_does_not_hang() -> None:
    world = World()
    world.control._controllers = (*world.control._controllers, Quarrel(world))
    world.control._queues.append({})
    world.control._listeners.clear()
    with pytest.raises(NsK8sError, match=r"Quarrel has synced pods default/p \d+ times"):
        world.create(pod("p"))
    world.settle()  # begins anew, with the controllers it should have
    assert world.view("p").spec.nodeName == "w1"


def test_settling_twice_and_starting_again_change_nothing() -> None:
    world = World()
    world.create(deployment("web", 3))
    world.create(service("web"))
    world.make_ready()
    revision = world.store.revision
    world.settle()
    registry = Registry(world.store, world.topology)
    Control(world.store, registry, world.topology).settle(world.now)
    assert world.store.revision == revision


def test_a_node_keeps_the_conditions_that_others_write() -> None:
    world = World()
    node = world.get("nodes", "w1", "")
    said = {"type": "NetworkUnavailable", "status": "False"}  # with no time, as a patch may leave it
    ready = {"type": "Ready", "status": "False"}
    kept = [c for c in node["status"]["conditions"] if c["type"] != "Ready"]
    world.registry.update_status({**node, "status": {**node["status"], "conditions": [said, ready, *kept]}})
    Control(world.store, world.registry, world.topology).settle(world.now)
    found = {c["type"]: c for c in world.get("nodes", "w1", "")["status"]["conditions"]}
    assert found["NetworkUnavailable"] == said
    assert (found["Ready"]["status"], found["Ready"]["lastTransitionTime"]) == ("True", NOW)


def test_a_rollback_is_followed() -> None:
    world = World()
    world.create(service("web"))
    world.create(deployment("web", 2))
    world.make_ready()
    world.store.commit()
    world.registry.scale("deployments.apps", "default", "web", 6)
    world.settle()
    world.store.rollback()
    world.settle()
    assert len(world.active()) == 2
    assert world.store.pending() == ()
    world.create(pod("p"))
    assert world.view("p").spec.nodeName
