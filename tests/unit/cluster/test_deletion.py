"""How objects end: graceful pods, finalizers, owners and dependents, namespaces."""

from __future__ import annotations

from typing import Any

import pytest

from nsk8s.api.types import Obj
from nsk8s.cluster.deletion import Propagation
from nsk8s.errors import ApiError
from tests.unit.cluster.worlds import World, deployment, pod


def config(name: str, *owners: Obj, finalizers: tuple[str, ...] = (), block: bool = True) -> Obj:
    meta: dict[str, Any] = {"name": name}
    if owners:
        meta["ownerReferences"] = [
            {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
                "blockOwnerDeletion": block,
            }
            for owner in owners
        ]
    if finalizers:
        meta["finalizers"] = list(finalizers)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}


def release(world: World, name: str, *, resource: str = "configmaps") -> None:
    world.registry.patch(resource, "default", name, {"metadata": {"finalizers": None}}, "merge")
    world.settle()


def left(world: World) -> list[str]:
    return world.names("configmaps")


def delete(world: World, name: str, propagation: Propagation = "") -> Obj:
    gone = world.registry.delete("configmaps", "default", name, propagation=propagation)
    world.settle()
    return gone


# --- pods -----------------------------------------------------------------------------------------------


def test_a_pod_without_a_node_goes_at_once() -> None:
    world = World()
    world.create(pod("a", nodeSelector={"no": "where"}))
    world.registry.delete("pods", "default", "a")
    assert world.names("pods") == []


@pytest.mark.parametrize(("given", "grace"), [(None, 30), (7, 7), (-5, 1)])
def test_a_pod_gets_time_to_end(given: int | None, grace: int) -> None:
    world = World()
    world.create(pod("a"))
    meta = world.registry.delete("pods", "default", "a", grace=given)["metadata"]
    assert meta["deletionGracePeriodSeconds"] == grace
    assert meta["deletionTimestamp"] == f"2026-11-23T20:33:{grace:02}Z"


def test_grace_0_removes_a_pod_at_once() -> None:
    world = World()
    world.create(pod("a"))
    world.registry.delete("pods", "default", "a")
    world.registry.delete("pods", "default", "a", grace=0)
    assert world.names("pods") == []


def test_a_second_deletion_can_only_shorten() -> None:
    world = World()
    world.create(pod("a"))
    world.registry.delete("pods", "default", "a", grace=20)
    assert world.registry.delete("pods", "default", "a")["metadata"]["deletionGracePeriodSeconds"] == 20
    again = world.registry.delete("pods", "default", "a", grace=5)["metadata"]
    assert again["deletionGracePeriodSeconds"] == 5


# --- finalizers -----------------------------------------------------------------------------------------


def test_a_finalizer_keeps_an_object_until_it_is_removed() -> None:
    world = World()
    world.create(config("a", finalizers=("example.com/wait",)))
    assert delete(world, "a")["metadata"]["deletionTimestamp"]
    assert left(world) == ["a"]
    release(world, "a")
    assert left(world) == []


# --- dependents -----------------------------------------------------------------------------------------


def test_background_deletion_takes_the_owner_first() -> None:
    world = World()
    owner = world.create(config("owner"))
    world.create(config("child", owner, finalizers=("example.com/wait",)))
    delete(world, "owner", "Background")
    assert left(world) == ["child"]
    assert world.get("configmaps", "child")["metadata"]["deletionTimestamp"]


def test_foreground_deletion_takes_the_owner_last() -> None:
    world = World()
    owner = world.create(config("owner"))
    child = world.create(config("child", owner))
    world.create(config("grandchild", child, finalizers=("example.com/wait",)))
    answer = delete(world, "owner", "Foreground")
    assert answer["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert left(world) == ["child", "grandchild", "owner"]
    assert world.get("configmaps", "child")["metadata"]["finalizers"] == ["foregroundDeletion"]
    release(world, "grandchild")
    assert left(world) == []


def test_a_dependent_that_does_not_block_is_not_waited_for() -> None:
    world = World()
    owner = world.create(config("owner"))
    world.create(config("child", owner, finalizers=("example.com/wait",), block=False))
    delete(world, "owner", "Foreground")
    assert left(world) == ["child"]


def test_foreground_deletion_without_dependents_is_over_at_once() -> None:
    world = World()
    world.create(config("owner"))
    delete(world, "owner", "Foreground")
    assert left(world) == []


def test_orphans_lose_their_owner_and_stay() -> None:
    world = World()
    owner = world.create(config("owner"))
    other = world.create(config("other"))
    world.create(config("child", owner, other))
    assert delete(world, "owner", "Orphan")["metadata"]["finalizers"] == ["orphan"]
    assert left(world) == ["child", "other"]
    (reference,) = world.get("configmaps", "child")["metadata"]["ownerReferences"]
    assert reference["name"] == "other"


def test_who_has_another_owner_stays_and_loses_the_reference() -> None:
    world = World()
    owner = world.create(config("owner"))
    other = world.create(config("other"))
    world.create(config("child", owner, other))
    delete(world, "owner")
    assert left(world) == ["child", "other"]
    (reference,) = world.get("configmaps", "child")["metadata"]["ownerReferences"]
    assert reference["name"] == "other"
    delete(world, "other")
    assert left(world) == []


def test_an_owner_of_the_same_name_is_not_the_owner() -> None:
    world = World()
    owner = world.create(config("owner"))
    world.create(config("child", {**owner, "metadata": {**owner["metadata"], "uid": "another"}}))
    assert left(world) == ["owner"]


def test_a_deployment_in_the_foreground_waits_for_its_pods() -> None:
    world = World()
    world.create(deployment("web", 2))
    world.registry.delete("deployments.apps", "default", "web", propagation="Foreground")
    world.settle()
    assert [p.metadata.deletionTimestamp is not None for p in world.pods()] == [True, True]
    assert len(world.names("replicasets.apps")) == len(world.names("deployments.apps")) == 1
    world.reap()
    assert world.names("replicasets.apps") == world.names("deployments.apps") == []


def test_an_orphaned_replica_set_keeps_its_pods() -> None:
    world = World()
    world.create(deployment("web", 2))
    world.registry.delete("deployments.apps", "default", "web", propagation="Orphan")
    world.settle()
    (name,) = world.names("replicasets.apps")
    assert "ownerReferences" not in world.get("replicasets.apps", name)["metadata"]
    assert len(world.active()) == 2


# --- namespaces -----------------------------------------------------------------------------------------


def namespace(world: World, *, finalizers: tuple[str, ...] = ()) -> None:
    meta = {"name": "lab", "finalizers": list(finalizers)} if finalizers else {"name": "lab"}
    world.create({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})


def end(world: World) -> Obj:
    found = world.registry.delete("namespaces", "", "lab")
    world.settle()
    return found


def conditions(world: World) -> dict[str, tuple[str, str, str]]:
    found = world.get("namespaces", "lab", "")["status"]["conditions"]
    return {c["type"]: (c["status"], c["reason"], c["message"]) for c in found}


def inside(obj: Obj) -> Obj:
    return {**obj, "metadata": {**obj["metadata"], "namespace": "lab"}}


def test_an_empty_namespace_goes_at_once() -> None:
    world = World()
    namespace(world)
    assert end(world)["status"]["phase"] == "Terminating"
    assert world.store.get("namespaces", "", "lab") is None


def test_a_namespace_takes_its_content_along_and_waits_for_it() -> None:
    world = World()
    namespace(world)
    world.create(inside(pod("a")))
    world.create(inside(config("held", finalizers=("example.com/wait",))))
    world.create(inside(deployment("web", 2)))
    end(world)
    found = conditions(world)
    assert found["NamespaceContentRemaining"] == (
        "True",
        "SomeResourcesRemain",
        "Some resources are remaining: configmaps. has 1 resource instances, pods. has 3 resource instances",
    )
    assert found["NamespaceFinalizersRemaining"] == (
        "True",
        "SomeFinalizersRemain",
        "Some content in the namespace has finalizers remaining: example.com/wait in 1 resource instances",
    )
    assert found["NamespaceDeletionContentFailure"][0] == "False"
    world.reap()
    assert conditions(world)["NamespaceContentRemaining"][2].endswith("configmaps. has 1 resource instances")
    world.registry.patch("configmaps", "lab", "held", {"metadata": {"finalizers": None}}, "merge")
    world.settle()
    assert world.store.get("namespaces", "", "lab") is None
    assert not list(world.store.list("events", "lab"))


def test_nothing_new_comes_into_a_namespace_that_ends() -> None:
    world = World()
    namespace(world)
    world.create(inside(config("held", finalizers=("example.com/wait",))))
    end(world)
    with pytest.raises(ApiError) as told:
        world.registry.create(inside(config("new")))
    assert told.value.code == 403
    assert "because it is being terminated" in told.value.message


def test_a_namespace_waits_for_its_own_finalizers() -> None:
    world = World()
    namespace(world, finalizers=("example.com/wait",))
    end(world)
    assert "finalizers" not in world.get("namespaces", "lab", "")["spec"]
    world.registry.patch("namespaces", "", "lab", {"metadata": {"finalizers": None}}, "merge")
    world.settle()
    assert world.store.get("namespaces", "", "lab") is None


def test_a_foreign_spec_finalizer_is_removed_through_finalize() -> None:
    world = World()
    namespace(world)
    world.registry.finalize("lab", ["kubernetes", "example.com/mine"])
    end(world)
    assert world.get("namespaces", "lab", "")["spec"]["finalizers"] == ["example.com/mine"]
    world.registry.finalize("lab", [])
    world.settle()
    assert world.store.get("namespaces", "", "lab") is None


def test_an_update_of_a_namespace_leaves_its_finalizers_alone() -> None:
    world = World()
    namespace(world)
    world.create(inside(config("held", finalizers=("example.com/wait",))))
    world.registry.update({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab"}})
    assert world.get("namespaces", "lab", "")["spec"]["finalizers"] == ["kubernetes"]
    end(world)
    assert world.store.get("namespaces", "", "lab") is not None
