"""Nodes that are not ready, and what becomes of what is on them."""

from __future__ import annotations

from typing import Any

from nsk8s.cluster.heartbeats import KUBELET, beat
from nsk8s.cluster.patch import Json
from tests.unit.cluster.test_daemonsets import daemon_set
from tests.unit.cluster.test_endpoints import conditions as endpoints
from tests.unit.cluster.worlds import World, deployment, service

BRIEF = [
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 20}
    for key in ("not-ready", "unreachable")
]


def ticking() -> World:
    world = World()
    world.tick()
    return world


def kubelet(world: World, node: str, state: str | None) -> None:
    world.registry.patch("nodes", "", node, {"metadata": {"annotations": {KUBELET: state}}}, "merge")
    world.settle()


def ready(world: World, node: str) -> tuple[str, str]:
    conditions = world.get("nodes", node, "")["status"]["conditions"]
    found = next(c for c in conditions if c["type"] == "Ready")
    return found["status"], found["reason"]


def taints(world: World, node: str) -> list[tuple[str, str]]:
    spec: dict[str, Json] = world.get("nodes", node, "")["spec"]
    return [(t["key"].rpartition("/")[2], t["effect"]) for t in spec.get("taints", ())]


def brief(name: str, replicas: int) -> Any:  # noqa: ANN401  # an object
    made = deployment(name, replicas)
    made["spec"]["template"]["spec"]["tolerations"] = BRIEF
    return made


def test_a_kubelet_that_is_silent_for_long_is_lost_and_its_pods_are_evicted() -> None:
    world = ticking()
    world.create(service("web"))
    world.create(brief("web", 4))
    world.make_ready()
    before = endpoints(world, "web")
    kubelet(world, "w1", "stopped")
    assert ready(world, "w1") == ("True", "KubeletReady")
    assert world.control.wake() == world.now + 50
    beat(world.store, ("w1", "w2"))
    world.settle(49)
    assert endpoints(world, "web") == before
    world.settle(1)
    assert ready(world, "w1") == ("Unknown", "NodeStatusUnknown")
    assert taints(world, "w1") == [("unreachable", "NoSchedule"), ("unreachable", "NoExecute")]
    there = {p.metadata.name for p in world.pods() if p.spec.nodeName == "w1"}
    assert len(there) == 2
    assert {name for name, (good, *_) in endpoints(world, "web").items() if not good} == there
    world.settle(19)
    assert not [p for p in world.pods() if p.metadata.deletionTimestamp]
    world.settle(1)
    assert {p.metadata.name for p in world.pods() if p.metadata.deletionTimestamp} == there
    world.make_ready()
    assert [p.spec.nodeName for p in world.active()] == ["w2"] * 4
    reasons = [e["reason"] for e in world.store.list("events")]
    assert {"NodeNotReady", "TaintManagerEviction"} <= set(reasons)


def test_a_kubelet_that_comes_back_in_time() -> None:
    world = ticking()
    world.create(brief("web", 2))
    world.make_ready()
    kubelet(world, "w1", "lost")
    assert ready(world, "w1")[0] == "Unknown", "nobody waits for it"
    world.settle(10)
    kubelet(world, "w1", None)
    assert (ready(world, "w1"), taints(world, "w1")) == (("True", "KubeletReady"), [])
    condition = world.get("nodes", "w1", "")["status"]["conditions"][-1]
    assert condition["lastTransitionTime"] == "2026-11-23T20:33:10Z"
    world.settle(60)
    assert len([p for p in world.pods() if not p.metadata.deletionTimestamp]) == 2


def test_a_node_that_says_itself_that_it_is_not_ready() -> None:
    world = ticking()
    node = world.get("nodes", "w2", "")
    bad = [{**c, "status": "False"} if c["type"] == "Ready" else c for c in node["status"]["conditions"]]
    world.registry.update_status({**node, "status": {**node["status"], "conditions": bad}})
    world.settle()
    assert taints(world, "w2") == [("not-ready", "NoSchedule"), ("not-ready", "NoExecute")]
    world.create(deployment("web", 2))
    assert {p.spec.nodeName for p in world.active()} == {"w1"}


def test_while_no_node_is_ready_nobody_is_driven_out() -> None:
    world = ticking()
    world.create(brief("web", 2))
    for node in ("master", "w1", "w2"):
        kubelet(world, node, "lost")
    assert taints(world, "w1") == [("unreachable", "NoSchedule")]
    world.settle(60)
    assert len(world.active()) == 2
    kubelet(world, "master", None)
    assert ("unreachable", "NoExecute") in taints(world, "w1")


def test_daemons_stay() -> None:
    world = ticking()
    world.create(daemon_set("agent"))
    world.make_ready()
    kubelet(world, "w1", "lost")
    world.settle(1000)
    assert sorted(p.spec.nodeName for p in world.active()) == ["w1", "w2"]
    assert world.get("daemonsets.apps", "agent")["status"]["numberReady"] == 1


def test_another_control_plane_finds_the_kubelet_stopped() -> None:
    world = ticking()
    kubelet(world, "w1", "lost")
    world.store.commit()
    again = World(world.topology, world.store)
    assert ready(again, "w1")[0] == "Unknown"
    lease = "leases.coordination.k8s.io"
    before = again.get(lease, "w1", "kube-node-lease")
    beat(again.store, ("w1",))
    assert again.get(lease, "w1", "kube-node-lease") is before
