"""Deployments and ReplicaSets, with the kubelets played."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from nsk8s.api.types import Deployment
from nsk8s.cluster.deployments import RESOURCE, bounds, template_hash
from nsk8s.cluster.events import TTL
from nsk8s.cluster.patch import Json
from nsk8s.cluster.replicasets import DELETION_COST, ReplicaSets
from nsk8s.cluster.store import Change, Key, key_of
from tests.unit.cluster.worlds import World, deployment, pod, service

SETS = "replicasets.apps"


FORGOTTEN = 1_000.0 + TTL
"""When the events of a new world are: the last thing that anybody waits for."""


def condition(obj: dict[str, Any], type_: str) -> tuple[str, str]:
    found = next(c for c in obj["status"]["conditions"] if c["type"] == type_)
    return found["status"], found["reason"]


def test_names_labels_and_owners() -> None:
    world = World()
    world.create(deployment("web", 2))
    (name,) = world.names(SETS)
    assert re.fullmatch(r"web-[bcdfghjklmnpqrstvwxz2456789]{1,10}", name)
    rs = world.get(SETS, name)
    hashed = name.removeprefix("web-")
    assert rs["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": hashed}
    assert rs["metadata"]["annotations"] == {
        "deployment.kubernetes.io/desired-replicas": "2",
        "deployment.kubernetes.io/max-replicas": "3",
        "deployment.kubernetes.io/revision": "1",
    }
    for each in world.pods():
        assert re.fullmatch(rf"{name}-[bcdfghjklmnpqrstvwxz2456789]{{5}}", each.metadata.name)
        assert each.metadata.labels == {"app": "web", "pod-template-hash": hashed}
        (owner,) = each.metadata.ownerReferences
        assert (owner.kind, owner.name, owner.uid) == ("ReplicaSet", name, rs["metadata"]["uid"])
    assert world.get("pods", world.names("pods")[0])["spec"]["serviceAccountName"] == "default"


def test_the_hash_is_of_the_template_alone() -> None:
    template = deployment("a")["spec"]["template"]
    same = {"spec": template["spec"], "metadata": template["metadata"]}
    other = deployment("a", image="httpd")["spec"]["template"]
    assert template_hash(template) == template_hash(same)
    assert len({template_hash(template), template_hash(other), template_hash(template, 1)}) == 3


def test_status_on_the_way_to_ready() -> None:
    world = World()
    world.create(deployment("web", 2))
    before = world.get(RESOURCE, "web")
    assert before["status"]["unavailableReplicas"] == 2
    assert condition(before, "Available") == ("False", "MinimumReplicasUnavailable")
    assert condition(before, "Progressing") == ("True", "ReplicaSetUpdated")
    world.make_ready()
    after = world.get(RESOURCE, "web")
    assert {k: v for k, v in after["status"].items() if k != "conditions"} == {
        "observedGeneration": after["metadata"]["generation"],
        "replicas": 2,
        "updatedReplicas": 2,
        "readyReplicas": 2,
        "availableReplicas": 2,
    }
    assert condition(after, "Available") == ("True", "MinimumReplicasAvailable")
    assert condition(after, "Progressing") == ("True", "NewReplicaSetAvailable")
    assert world.control.wake() == FORGOTTEN


def test_a_replicaset_looks_at_what_it_counts() -> None:
    """A place, an address, a container that starts: nothing of it is for a ReplicaSet to see."""
    world = World()
    world.create(deployment("web", 1))
    sets = ReplicaSets(world.store, world.registry)
    one = world.store.find("pods", "default", world.pods()[0].metadata.name)
    owner = Key("replicasets.apps", "default", world.names("replicasets.apps")[0])

    def touched(**changed: Json) -> list[Key]:
        new = {**one, **changed}
        return list(sets.touched(Change("MODIFIED", key_of("pods", one), 0, one, new)))

    meta, ready = one["metadata"], {"type": "Ready", "status": "True"}
    assert touched(spec={**one["spec"], "nodeName": "w2"}) == []
    assert touched(status={"phase": "Running", "podIP": "10.244.1.2"}) == []
    assert touched(status={"phase": "Failed"}) == [owner]
    assert touched(status={"conditions": [ready]}) == [owner]
    assert touched(metadata={**meta, "deletionTimestamp": "2026-01-01T00:00:00Z"}) == [owner]
    assert touched(metadata={**meta, "labels": {"app": "other"}}) == [owner]
    assert touched(metadata={**meta, "ownerReferences": []}) == [owner]


def test_a_deleted_pod_is_replaced_under_another_name() -> None:
    world = World()
    world.create(deployment("web", 2))
    world.make_ready()
    gone = world.names("pods")[0]
    world.registry.delete("pods", "default", gone)
    world.settle()
    assert len(world.active()) == 2
    assert gone not in [p.metadata.name for p in world.active()]
    world.registry.delete("replicasets.apps", "default", world.names(SETS)[0])
    world.settle()
    world.reap()
    assert len(world.active()) == 2


def test_a_failed_pod_is_replaced() -> None:
    world = World()
    world.create(deployment("web", 1))
    world.status(world.pods()[0], ready=False, phase="Failed")
    world.settle()
    assert [len(world.active()), len(world.pods())] == [1, 2]


def test_labels_decide_who_belongs() -> None:
    world = World()
    world.create(deployment("web", 2))
    first = world.names("pods")[0]
    rs = world.names(SETS)[0]
    labels = world.view(first).metadata.labels
    world.registry.patch("pods", "default", first, {"metadata": {"labels": {"app": "other"}}}, "merge")
    world.settle()
    assert world.view(first).metadata.ownerReferences == ()
    assert len(world.pods()) == 3
    world.registry.patch("pods", "default", first, {"metadata": {"labels": labels}}, "merge")
    world.settle()
    assert world.view(first).metadata.ownerReferences[0].name == rs
    assert len(world.active()) == 2


def test_a_replicaset_adopts_what_matches() -> None:
    world = World()
    world.create(pod("lonely", {"app": "x"}))
    spec = deployment("x", 2)["spec"]
    rs = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "x"}, "spec": spec}
    world.create(rs)
    assert len(world.pods()) == 2
    assert world.view("lonely").metadata.ownerReferences[0].kind == "ReplicaSet"
    late = world.create(pod("late", {"app": "x"}))
    assert late["metadata"]["name"] not in [p.metadata.name for p in world.active()]


def test_scaling_down_takes_the_least_valuable_first() -> None:
    world = World()
    world.create(deployment("web", 5))
    world.make_ready()
    names = world.names("pods")
    cheap, unready, *_ = names
    annotations = {"metadata": {"annotations": {DELETION_COST: "-5"}}}
    world.registry.patch("pods", "default", cheap, annotations, "merge")
    world.status(world.view(unready), ready=False)
    world.settle()
    world.registry.scale(RESOURCE, "default", "web", 3)
    world.settle()
    assert {p.metadata.name for p in world.active()} == set(names) - {cheap, unready}
    world.registry.scale(RESOURCE, "default", "web", 2)
    world.settle()
    assert {p.spec.nodeName for p in world.active()} == {"w1", "w2"}  # the crowded node gave one up


def test_a_rolling_update_surges_then_shrinks() -> None:
    world = World()
    world.apply(deployment("web", 4))
    world.make_ready()
    (old,) = world.names(SETS)
    world.apply(deployment("web", 4, image="httpd"))
    sizes = {o["metadata"]["name"]: o["spec"]["replicas"] for o in world.store.list(SETS)}
    (new,) = set(sizes) - {old}
    assert sizes == {old: 3, new: 2}  # 25 % of 4: one more, one less
    assert condition(world.get(RESOURCE, "web"), "Available")[0] == "True"
    world.finish()
    assert [world.get(SETS, n)["spec"]["replicas"] for n in (old, new)] == [0, 4]
    assert world.get(RESOURCE, "web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"
    world.apply(deployment("web", 4))
    world.finish()
    assert [world.get(SETS, n)["spec"]["replicas"] for n in (old, new)] == [4, 0]
    assert world.get(SETS, old)["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"


def test_a_broken_version_does_not_take_the_old_one_down() -> None:
    world = World()
    world.apply(deployment("web", 4))
    world.make_ready()
    world.apply(deployment("web", 4, image="broken"))
    for _ in range(5):
        world.reap()
        world.settle(1)
    assert sum(p.ready for p in world.active()) == 3
    assert len(world.active()) == 5
    world.settle(600)
    assert condition(world.get(RESOURCE, "web"), "Progressing") == ("False", "ProgressDeadlineExceeded")


def test_recreate_waits_until_the_last_old_pod_is_gone() -> None:
    world = World()
    strategy = {"type": "Recreate"}
    world.apply(deployment("web", 2, strategy=strategy))
    world.make_ready()
    world.apply(deployment("web", 2, image="httpd", strategy=strategy))
    assert world.active() == []
    assert len(world.pods()) == 2
    world.reap()
    assert [p.spec.containers[0].image for p in world.active()] == ["httpd", "httpd"]


def test_min_ready_seconds_are_waited_for() -> None:
    world = World()
    world.create(deployment("web", 1, minReadySeconds=10))
    world.make_ready()
    assert "availableReplicas" not in world.get(RESOURCE, "web")["status"]
    assert world.control.wake() == world.now + 10
    world.settle(10)
    assert world.get(RESOURCE, "web")["status"]["availableReplicas"] == 1
    assert world.control.wake() == FORGOTTEN


def test_a_paused_deployment_scales_but_does_not_roll() -> None:
    world = World()
    world.apply(deployment("web", 2))
    world.make_ready()
    world.apply(deployment("web", 3, image="httpd", paused=True))
    assert len(world.names(SETS)) == 1
    assert {p.spec.containers[0].image for p in world.active()} == {"nginx"}
    assert len(world.active()) == 3
    world.apply(deployment("web", 3, image="httpd"))
    world.finish()
    assert {p.spec.containers[0].image for p in world.active()} == {"httpd"}


def test_old_versions_beyond_the_limit_are_forgotten() -> None:
    world = World()
    for image in ("a", "b", "c", "d"):
        world.apply(deployment("web", 1, image=image, revisionHistoryLimit=1))
        world.finish()
    images = [o["spec"]["template"]["spec"]["containers"][0]["image"] for o in world.store.list(SETS)]
    assert sorted(images) == ["c", "d"]


def test_deleting_a_deployment_takes_everything_along() -> None:
    world = World()
    world.create(deployment("web", 2))
    world.registry.delete(RESOURCE, "default", "web")
    world.settle()
    world.reap()
    assert (world.names(SETS), world.pods()) == ([], [])


def test_owners_of_unknown_kinds_are_believed_in() -> None:
    world = World()
    obj = pod("p")
    owner = {"apiVersion": "example.com/v1", "kind": "Robot", "name": "r", "uid": "1"}
    world.create({**obj, "metadata": {"name": "p", "ownerReferences": [owner]}})
    assert world.names("pods") == ["p"]
    gone = {"apiVersion": "v1", "kind": "ConfigMap", "name": "r", "uid": "1"}
    world.create({**obj, "metadata": {"name": "q", "ownerReferences": [gone]}})
    world.reap()
    assert world.names("pods") == ["p"]


def test_orphans_stay_and_are_adopted_again() -> None:
    world = World()
    world.create(deployment("web", 2))
    (rs,) = world.names(SETS)
    world.registry.delete(RESOURCE, "default", "web", propagation="Orphan")
    world.settle()
    assert "ownerReferences" not in world.get(SETS, rs)["metadata"]
    pods = world.names("pods")
    world.create(deployment("web", 2))
    assert (world.names(SETS), world.names("pods")) == ([rs], pods)


def test_foreground_deletion_takes_dependents_first() -> None:
    world = World()
    world.create(deployment("web", 2))
    world.make_ready()
    world.registry.delete(RESOURCE, "default", "web", propagation="Foreground")
    world.settle()
    assert world.get(RESOURCE, "web")["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert world.active() == []
    world.reap()
    assert (world.names(RESOURCE), world.names(SETS)) == ([], [])


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (4, "25%", "25%", (1, 1)),
        (3, "25%", "25%", (1, 0)),
        (10, "25%", "25%", (3, 2)),
        (1, 0, "25%", (0, 1)),
        (2, "100%", 5, (2, 2)),
    ],
)
def test_bounds(replicas: int, surge: int | str, unavailable: int | str, expected: tuple[int, int]) -> None:
    world = World()
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    world.create(deployment("d", replicas, strategy={"type": "RollingUpdate", "rollingUpdate": rolling}))
    view = world.store.view(Key(RESOURCE, "default", "d"))
    assert isinstance(view, Deployment)
    assert bounds(view) == expected


def test_a_big_cluster_costs_two_writes_a_pod() -> None:
    world = World()
    world.store.commit()
    for number in range(10):
        world.registry.create(deployment(f"d{number}", 20))
        world.registry.create(service(f"d{number}"))
    world.settle()
    writes = Counter(change.key.resource for change in world.store.commit())
    assert writes["pods"] == 2 * 200
    assert writes[SETS] <= 3 * 10
    assert writes[RESOURCE] <= 5 * 10
    world.make_ready()
    writes = Counter(change.key.resource for change in world.store.pending())
    assert writes["pods"] == 200
    assert writes["endpointslices.discovery.k8s.io"] == writes["endpoints"] == 10


def test_a_replication_controller_keeps_its_pods() -> None:
    world = World()
    spec = {"replicas": 2, "template": deployment("rc")["spec"]["template"]}
    rc = {"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "rc"}, "spec": spec}
    world.create(rc)
    world.make_ready()
    assert world.get("replicationcontrollers", "rc")["status"] == {
        "replicas": 2,
        "fullyLabeledReplicas": 2,
        "readyReplicas": 2,
        "availableReplicas": 2,
        "observedGeneration": 1,
    }
    world.create(pod("late", {"app": "rc"}))
    world.finish()
    assert len(world.pods()) == 2
    world.registry.scale("replicationcontrollers", "default", "rc", 1)
    world.finish()
    assert len(world.pods()) == 1
    (owner,) = world.pods()[0].metadata.ownerReferences
    assert (owner.kind, owner.apiVersion) == ("ReplicationController", "v1")
    said = {(e["reason"], e["source"].get("component")) for e in world.store.list("events")}
    assert ("SuccessfulDelete", "replication-controller") in said
    world.registry.delete("replicationcontrollers", "default", "rc")
    world.finish()
    assert world.pods() == []
