"""StatefulSets, with the kubelets played."""

from __future__ import annotations

from typing import Any

import pytest

from nsk8s.api.types import Obj
from nsk8s.cluster.patch import Json
from tests.unit.cluster.worlds import World, deployment, pod, service

RESOURCE = "statefulsets.apps"
REVISIONS = "controllerrevisions.apps"
PARALLEL: Obj = {"podManagementPolicy": "Parallel"}
CLAIM = {
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


def stateful_set(name: str, replicas: int = 3, image: str = "nginx", **spec: Json) -> Obj:
    made = deployment(name, replicas, image, **{"serviceName": name, **spec})
    made["kind"] = "StatefulSet"
    return made


def images(world: World) -> dict[str, str]:
    return {p.metadata.name: p.spec.containers[0].image for p in world.active()}


def status(world: World, name: str = "db") -> dict[str, Any]:
    found: dict[str, Any] = world.get(RESOURCE, name)["status"]
    return found


def ready(world: World, name: str) -> None:
    world.status(world.view(name), ready=True)
    world.settle()


def test_pods_come_one_after_the_other_under_names_that_stay() -> None:
    world = World()
    world.create(stateful_set("db"))
    assert world.names("pods") == ["db-0"]
    ready(world, "db-0")
    assert world.names("pods") == ["db-0", "db-1"]
    world.settle()
    assert world.names("pods") == ["db-0", "db-1"], "the third waits for the second"
    world.finish()
    assert world.names("pods") == ["db-0", "db-1", "db-2"]
    stored = world.get("pods", "db-1")
    (revision,) = world.names(REVISIONS)
    assert (stored["spec"]["hostname"], stored["spec"]["subdomain"]) == ("db-1", "db")
    assert stored["metadata"]["labels"] == {
        "app": "db",
        "apps.kubernetes.io/pod-index": "1",
        "controller-revision-hash": revision,
        "statefulset.kubernetes.io/pod-name": "db-1",
    }
    assert "generateName" not in stored["metadata"]
    assert status(world) == {
        "observedGeneration": 1,
        "replicas": 3,
        "readyReplicas": 3,
        "currentReplicas": 3,
        "updatedReplicas": 3,
        "availableReplicas": 3,
        "currentRevision": revision,
        "updateRevision": revision,
        "collisionCount": 0,
    }


def test_a_deleted_pod_comes_back_when_it_is_gone() -> None:
    world = World()
    world.create(stateful_set("db"))
    world.finish()
    before = world.view("db-1").metadata.uid
    world.registry.delete("pods", "default", "db-1")
    world.settle()
    assert [p.metadata.name for p in world.active()] == ["db-0", "db-2"]
    world.reap()
    assert world.view("db-1").metadata.uid != before
    assert world.view("db-1").spec.hostname == "db-1"


def test_in_parallel_nobody_waits() -> None:
    world = World()
    world.create(stateful_set("db", **PARALLEL))
    assert len(world.active()) == 3
    world.registry.scale(RESOURCE, "default", "db", 0)
    world.settle()
    assert world.active() == []


def test_scaling_down_takes_the_last_first() -> None:
    world = World()
    world.create(stateful_set("db", 4))
    world.finish()
    world.registry.scale(RESOURCE, "default", "db", 1)
    world.settle()
    assert [p.metadata.name for p in world.active()] == ["db-0", "db-1", "db-2"]
    world.settle()
    assert len(world.active()) == 3, "the next waits until it is gone"
    world.reap()
    assert [p.metadata.name for p in world.active()] == ["db-0", "db-1"]
    world.finish()
    assert world.names("pods") == ["db-0"]


def test_ordinals_may_begin_elsewhere() -> None:
    world = World()
    world.create(stateful_set("db", 2, ordinals={"start": 5}))
    world.finish()
    assert world.names("pods") == ["db-5", "db-6"]
    world.apply(stateful_set("db", 2, ordinals={"start": 6}))
    world.finish()
    assert world.names("pods") == ["db-6", "db-7"]


def test_a_rolling_update_goes_backwards() -> None:
    world = World()
    world.create(stateful_set("db"))
    world.finish()
    old = status(world)["currentRevision"]
    world.apply(stateful_set("db", image="httpd"))
    assert sorted(images(world)) == ["db-0", "db-1"], "the last goes first"
    world.reap()
    assert images(world) == {"db-0": "nginx", "db-1": "nginx", "db-2": "httpd"}
    world.settle()
    assert len(images(world)) == 3, "the next waits for the first to be ready"
    assert (status(world)["currentRevision"], status(world)["updatedReplicas"]) == (old, 1)
    ready(world, "db-2")
    world.reap()
    assert images(world) == {"db-0": "nginx", "db-1": "httpd", "db-2": "httpd"}
    world.finish()
    assert set(images(world).values()) == {"httpd"}
    assert status(world)["currentRevision"] == status(world)["updateRevision"] != old


def test_a_partition_keeps_the_first_as_they_are() -> None:
    world = World()
    partition: Obj = {"updateStrategy": {"rollingUpdate": {"partition": 2}}}
    world.create(stateful_set("db", **partition))
    world.finish()
    world.apply(stateful_set("db", image="httpd", **partition))
    world.finish()
    assert images(world) == {"db-0": "nginx", "db-1": "nginx", "db-2": "httpd"}
    world.registry.delete("pods", "default", "db-0")
    world.finish()
    assert images(world)["db-0"] == "nginx", "below the partition the old template counts"
    world.apply(stateful_set("db", image="httpd"))
    world.finish()
    assert set(images(world).values()) == {"httpd"}


@pytest.mark.parametrize(("most", "together"), [(2, 2), ("50%", 2), ("20%", 1), (9, 4)])
def test_several_are_renewed_at_a_time(most: int | str, together: int) -> None:
    world = World()
    rolling: Obj = {"updateStrategy": {"rollingUpdate": {"maxUnavailable": most, "partition": 1}}, **PARALLEL}
    world.create(stateful_set("db", 5, **rolling))
    world.finish()
    world.apply(stateful_set("db", 5, image="httpd", **rolling))
    gone = [f"db-{ordinal}" for ordinal in range(5 - together, 5)]
    assert sorted({f"db-{n}" for n in range(5)} - images(world).keys()) == gone
    world.reap()
    assert [name for name, image in sorted(images(world).items()) if image == "httpd"] == gone
    world.settle()
    assert len(images(world)) == 5, "the next wait until one of them is ready"
    ready(world, "db-4")
    assert len(images(world)) == (5 if together == 4 else 4)
    world.finish()
    assert images(world) == {"db-0": "nginx", **{f"db-{ordinal}": "httpd" for ordinal in range(1, 5)}}


def test_who_is_unavailable_already_counts() -> None:
    world = World()
    rolling: Obj = {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 2}}, **PARALLEL}
    world.create(stateful_set("db", 4, **rolling))
    world.finish()
    world.status(world.view("db-0"), ready=False)
    world.apply(stateful_set("db", 4, image="httpd", **rolling))
    assert sorted(images(world)) == ["db-0", "db-1", "db-2"]


def test_on_delete_nothing_is_renewed_by_itself() -> None:
    world = World()
    on_delete: Obj = {"updateStrategy": {"type": "OnDelete"}}
    world.create(stateful_set("db", **on_delete))
    world.finish()
    world.apply(stateful_set("db", image="httpd", **on_delete))
    world.finish()
    assert set(images(world).values()) == {"nginx"}
    world.registry.delete("pods", "default", "db-1")
    world.finish()
    assert images(world) == {"db-0": "nginx", "db-1": "httpd", "db-2": "nginx"}


def test_ready_is_not_yet_available() -> None:
    world = World()
    world.create(stateful_set("db", 2, minReadySeconds=10))
    ready(world, "db-0")
    assert world.names("pods") == ["db-0"]
    assert status(world)["availableReplicas"] == 0
    assert world.control.wake() == world.now + 10
    world.settle(10)
    assert world.names("pods") == ["db-0", "db-1"]
    assert status(world)["availableReplicas"] == 1


def test_a_failed_pod_is_made_anew() -> None:
    world = World()
    world.create(stateful_set("db", 1))
    before = world.view("db-0").metadata.uid
    world.status(world.view("db-0"), ready=False, phase="Failed")
    world.settle()
    assert world.view("db-0").metadata.uid != before


def test_claims_stay() -> None:
    world = World()
    world.create(stateful_set("db", 2, volumeClaimTemplates=[CLAIM]))
    world.finish()
    assert world.names("persistentvolumeclaims") == ["data-db-0", "data-db-1"]
    claim = world.get("persistentvolumeclaims", "data-db-0")
    assert (claim["status"], claim["metadata"]["labels"]) == ({"phase": "Pending"}, {"app": "db"})
    volumes = world.get("pods", "db-0")["spec"]["volumes"]
    assert volumes[0] == {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}}
    world.registry.delete(RESOURCE, "default", "db")
    world.finish()
    assert world.names("pods") == []
    assert world.names("persistentvolumeclaims") == ["data-db-0", "data-db-1"]


def test_claims_go_where_they_are_told_to() -> None:
    world = World()
    policy = {"whenDeleted": "Delete", "whenScaled": "Delete"}
    spec: Obj = {"volumeClaimTemplates": [CLAIM], "persistentVolumeClaimRetentionPolicy": policy}
    world.create(stateful_set("db", 2, **spec))
    world.finish()
    world.registry.scale(RESOURCE, "default", "db", 1)
    world.finish()
    assert world.names("persistentvolumeclaims") == ["data-db-0"]
    world.registry.delete(RESOURCE, "default", "db")
    world.finish()
    assert world.names("persistentvolumeclaims") == []


def test_a_name_that_is_taken_is_waited_for() -> None:
    world = World()
    world.create(pod("db-0", {"app": "other"}))
    world.create(stateful_set("db", 1))
    said = [e["message"] for e in world.store.list("events") if e["reason"] == "FailedCreate"]
    assert said == ['create Pod db-0 in StatefulSet db failed error: pods "db-0" already exists']
    world.registry.delete("pods", "default", "db-0")
    world.finish()
    world.settle(10)
    world.finish()
    assert world.view("db-0").metadata.labels["app"] == "db"


def test_without_its_service_it_runs_all_the_same() -> None:
    world = World()
    world.create(stateful_set("db", 2, serviceName="nowhere"))
    world.finish()
    assert [p.ready for p in world.pods()] == [True, True]
    world.create(service("nowhere", clusterIP="None", selector={"app": "db"}))
    world.settle()
    found = world.store.select("endpointslices.discovery.k8s.io", "default",
                               {"kubernetes.io/service-name": "nowhere"})  # fmt: skip
    assert sorted(e["hostname"] for s in found for e in s["endpoints"]) == ["db-0", "db-1"]


def test_identity_is_given_back() -> None:
    world = World()
    world.create(stateful_set("db", 1))
    label = {"metadata": {"labels": {"statefulset.kubernetes.io/pod-name": None}}}
    world.registry.patch("pods", "default", "db-0", label, "merge")
    world.settle()
    assert world.view("db-0").metadata.labels["statefulset.kubernetes.io/pod-name"] == "db-0"


@pytest.mark.parametrize("propagation", ["Background", "Foreground", "Orphan"])
def test_dependents_go_or_stay(propagation: Any) -> None:  # noqa: ANN401  # a Literal
    world = World()
    world.create(stateful_set("db", 2))
    world.finish()
    world.registry.delete(RESOURCE, "default", "db", propagation=propagation)
    world.finish()
    kept = propagation == "Orphan"
    assert (len(world.names("pods")), len(world.names(REVISIONS))) == ((2, 1) if kept else (0, 0))
    if kept:
        before = {p.metadata.uid for p in world.pods()}
        world.create(stateful_set("db", 2))
        world.finish()
        assert {p.metadata.uid for p in world.pods()} == before, "adopted"
        assert len(world.names(REVISIONS)) == 1
