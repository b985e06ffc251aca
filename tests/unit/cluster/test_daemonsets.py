"""DaemonSets, with the kubelets played."""

from __future__ import annotations

from typing import Any

from nsk8s.api.types import Obj
from nsk8s.cluster.patch import Json
from nsk8s.cluster.revisions import HASH
from tests.unit.cluster.worlds import World, deployment

RESOURCE = "daemonsets.apps"
REVISIONS = "controllerrevisions.apps"


def daemon_set(name: str, image: str = "nginx", pod: Json = None, **spec: Json) -> Obj:
    made = deployment(name, image=image, **spec)
    made["kind"] = "DaemonSet"
    del made["spec"]["replicas"]
    made["spec"]["template"]["spec"].update(pod or {})
    return made


def taint(world: World, node: str, *taints: Obj) -> None:
    world.registry.patch("nodes", "", node, {"spec": {"taints": list(taints) or None}}, "merge")
    world.settle()


def placed(world: World) -> dict[str, str]:
    """Node to image of the pods that stay."""
    return {p.spec.nodeName: p.spec.containers[0].image for p in world.active()}


def status(world: World, name: str) -> dict[str, Any]:
    found: dict[str, Any] = world.get(RESOURCE, name)["status"]
    return found


def test_one_pod_on_every_node_that_takes_it() -> None:
    world = World()
    world.create(daemon_set("agent"))
    assert sorted(placed(world)) == ["w1", "w2"]
    stored = world.get("pods", world.names("pods")[0])
    terms = stored["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (field,) = terms["nodeSelectorTerms"][0]["matchFields"]
    assert field == {"key": "metadata.name", "operator": "In", "values": [stored["spec"]["nodeName"]]}
    assert [t["key"].rpartition("/")[2] for t in stored["spec"]["tolerations"]] == [
        "not-ready", "unreachable", "disk-pressure", "memory-pressure", "pid-pressure", "unschedulable",
    ]  # fmt: skip
    assert all("tolerationSeconds" not in t for t in stored["spec"]["tolerations"])
    (revision,) = world.store.list(REVISIONS)
    assert stored["metadata"]["labels"] == {
        "app": "agent",
        HASH: revision["metadata"]["labels"][HASH],
        "pod-template-generation": "1",
    }
    assert stored["metadata"]["generateName"] == "agent-"
    assert revision["metadata"]["name"] == f"agent-{revision['metadata']['labels'][HASH]}"
    assert revision["data"]["spec"]["template"]["$patch"] == "replace"
    assert status(world, "agent") == {
        "currentNumberScheduled": 2,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 2,
        "numberReady": 0,
        "observedGeneration": 1,
        "updatedNumberScheduled": 2,
        "numberUnavailable": 2,
    }
    world.make_ready()
    assert status(world, "agent")["numberAvailable"] == status(world, "agent")["numberReady"] == 2
    assert "numberUnavailable" not in status(world, "agent")


def test_nodes_come_and_go() -> None:
    world = World()
    world.create(daemon_set("agent", pod={"nodeSelector": {"disk": "ssd"}}))
    assert placed(world) == {}
    assert status(world, "agent")["desiredNumberScheduled"] == 0
    world.registry.patch("nodes", "", "w2", {"metadata": {"labels": {"disk": "ssd"}}}, "merge")
    world.settle()
    assert sorted(placed(world)) == ["w2"]
    world.registry.patch("nodes", "", "w2", {"metadata": {"labels": {"disk": None}}}, "merge")
    world.settle()
    assert placed(world) == {}


def test_taints_keep_new_daemons_away_and_drive_old_ones_out_only_with_no_execute() -> None:
    world = World()
    world.create(daemon_set("agent"))
    world.make_ready()
    taint(world, "w1", {"key": "a", "value": "b", "effect": "NoSchedule"})
    assert sorted(placed(world)) == ["w1", "w2"]
    assert status(world, "agent")["desiredNumberScheduled"] == 1
    assert status(world, "agent")["numberMisscheduled"] == 1
    gone = next(p for p in world.active() if p.spec.nodeName == "w1")
    world.registry.delete("pods", "default", gone.metadata.name)
    world.finish()
    assert sorted(placed(world)) == ["w2"]
    taint(world, "w2", {"key": "a", "value": "b", "effect": "NoExecute"})
    world.finish()
    assert placed(world) == {}
    taint(world, "w1")
    taint(world, "w2")
    assert sorted(placed(world)) == ["w1", "w2"]


def test_a_cordoned_or_failing_node_keeps_its_daemon() -> None:
    world = World()
    world.registry.patch("nodes", "", "w1", {"spec": {"unschedulable": True}}, "merge")
    world.create(daemon_set("agent"))
    assert sorted(placed(world)) == ["w1", "w2"]
    taint(world, "w1", {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"})
    world.settle(600)
    assert sorted(placed(world)) == ["w1", "w2"]


def test_a_tolerant_daemon_is_on_the_control_plane_too() -> None:
    world = World()
    world.create(daemon_set("agent", pod={"tolerations": [{"operator": "Exists"}]}))
    assert sorted(placed(world)) == ["master", "w1", "w2"]


def test_a_rolling_update_renews_one_node_after_the_other() -> None:
    world = World()
    world.create(daemon_set("agent"))
    world.make_ready()
    world.apply(daemon_set("agent", image="httpd"))
    assert sorted(placed(world).values()) == ["nginx"], "one is on its way out"
    world.reap()
    assert sorted(placed(world).values()) == ["httpd", "nginx"]
    assert status(world, "agent")["updatedNumberScheduled"] == 1
    world.settle()
    assert len(world.active()) == 2, "the second waits for the first to be available"
    world.finish()
    assert sorted(placed(world).values()) == ["httpd", "httpd"]
    assert [r["revision"] for r in world.store.list(REVISIONS)] in ([1, 2], [2, 1])
    pod = world.get("pods", world.names("pods")[0])
    assert pod["metadata"]["labels"]["pod-template-generation"] == "2"


def test_with_surge_the_new_daemon_comes_before_the_old_one_goes() -> None:
    world = World()
    rolling: Obj = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    world.create(daemon_set("agent", updateStrategy=rolling))
    world.make_ready()
    world.apply(daemon_set("agent", image="httpd", updateStrategy=rolling))
    assert len(world.active()) == 3
    least = 2
    for _ in range(8):
        world.make_ready()
        least = min(least, sum(p.ready for p in world.active()))
        world.reap()
    assert (least, sorted(placed(world).values())) == (2, ["httpd", "httpd"])


def test_on_delete_nothing_is_renewed_by_itself() -> None:
    world = World()
    world.create(daemon_set("agent", updateStrategy={"type": "OnDelete"}))
    world.make_ready()
    world.apply(daemon_set("agent", image="httpd", updateStrategy={"type": "OnDelete"}))
    world.finish()
    assert sorted(placed(world).values()) == ["nginx", "nginx"]
    old = world.active()[0]
    world.registry.delete("pods", "default", old.metadata.name)
    world.finish()
    assert placed(world)[old.spec.nodeName] == "httpd"


def test_the_way_back_finds_the_old_revision() -> None:
    world = World()
    world.create(daemon_set("agent"))
    world.finish()
    first = next(world.store.list(REVISIONS))
    for image in ("httpd", "tomcat"):
        world.apply(daemon_set("agent", image=image))
        world.finish()
    world.registry.patch(RESOURCE, "default", "agent", first["data"], "strategic")
    world.finish()
    assert set(placed(world).values()) == {"nginx"}
    assert world.get(REVISIONS, first["metadata"]["name"])["revision"] == 4
    assert len(world.names(REVISIONS)) == 3


def test_history_has_a_limit() -> None:
    world = World()
    for image in "abcde":
        world.apply(daemon_set("agent", image=image, revisionHistoryLimit=2))
        world.finish()
    kept = sorted(r["revision"] for r in world.store.list(REVISIONS))
    assert kept == [3, 4, 5]


def test_two_daemons_on_a_node_are_one_too_many() -> None:
    world = World()
    world.create(daemon_set("agent"))
    world.make_ready()
    old = world.active()[0]
    stored = world.get("pods", old.metadata.name)
    meta = {"namespace": "default", "name": "twin", "labels": stored["metadata"]["labels"]}
    world.store.create("pods", {**stored, "metadata": meta})
    world.settle()
    assert [p.metadata.name for p in world.active() if p.spec.nodeName == old.spec.nodeName] == [
        old.metadata.name
    ]
    assert world.get("pods", "twin")["metadata"]["deletionTimestamp"]


def test_dependents_go_with_it() -> None:
    world = World()
    world.create(daemon_set("agent"))
    world.make_ready()
    world.registry.delete(RESOURCE, "default", "agent", propagation="Foreground")
    world.finish()
    assert (world.pods(), world.names(REVISIONS), world.names(RESOURCE)) == ([], [], [])
