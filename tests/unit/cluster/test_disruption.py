"""PodDisruptionBudgets and evictions."""

from __future__ import annotations

from typing import Any

import pytest

from nsk8s.api.types import Obj
from nsk8s.cluster.disruption import RESOURCE
from nsk8s.cluster.eviction import evict
from nsk8s.errors import ApiError
from tests.unit.cluster.worlds import NOW, World, deployment, pod

REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."


def budget(name: str = "web", *, app: str = "web", **spec: Any) -> Obj:  # noqa: ANN401  # any JSON
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": app}}, **spec},
    }


def standing(replicas: int, **spec: Any) -> World:  # noqa: ANN401  # any JSON
    world = World()
    world.create(deployment("web", replicas))
    world.finish()
    world.create(budget(**spec))
    return world


def counts(world: World, name: str = "web") -> tuple[int, int, int, int]:
    """Healthy, desired, allowed, expected."""
    status = world.get(RESOURCE, name)["status"]
    fields = ("currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods")
    healthy, desired, allowed, expected = (status[field] for field in fields)
    return healthy, desired, allowed, expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"minAvailable": 2}, (4, 2, 2, 4)),
        ({"minAvailable": 9}, (4, 9, 0, 4)),
        ({"minAvailable": "51%"}, (4, 3, 1, 4)),
        ({"maxUnavailable": 1}, (4, 3, 1, 4)),
        ({"maxUnavailable": "30%"}, (4, 2, 2, 4)),
        ({"maxUnavailable": 9}, (4, 0, 4, 4)),
    ],
)
def test_what_a_budget_allows(spec: dict[str, Any], expected: tuple[int, int, int, int]) -> None:
    assert counts(standing(4, **spec)) == expected


def test_the_condition_says_whether_there_is_room() -> None:
    world = standing(2, minAvailable=2)
    (condition,) = world.get(RESOURCE, "web")["status"]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"], condition["lastTransitionTime"]) == (
        "DisruptionAllowed",
        "False",
        "InsufficientPods",
        NOW,
    )
    world.registry.scale("deployments.apps", "default", "web", 3)
    world.settle()
    world.finish()
    (condition,) = world.get(RESOURCE, "web")["status"]["conditions"]
    assert (condition["status"], condition["reason"]) == ("True", "SufficientPods")


def test_pods_without_a_controller_are_not_expected() -> None:
    world = World()
    world.create(pod("a", {"app": "web"}))
    world.make_ready()
    world.create(budget(maxUnavailable=1))
    assert counts(world) == (1, 0, 0, 0)


def test_a_budget_for_nobody_says_so() -> None:
    world = World()
    world.create(budget(minAvailable=1))
    assert counts(world) == (0, 1, 0, 0)
    assert [e["message"] for e in world.store.list("events") if e["reason"] == "NoPods"] == [
        "No matching pods found"
    ]


def test_an_eviction_deletes_gracefully() -> None:
    world = World()
    world.create(deployment("web", 1))
    world.make_ready()
    (one,) = world.pods()
    evict(world.registry, "default", one.metadata.name, grace=3)
    assert world.view(one.metadata.name).metadata.deletionGracePeriodSeconds == 3


def test_a_budget_refuses_in_upstreams_words() -> None:
    world = standing(2, minAvailable=2)
    with pytest.raises(ApiError) as told:
        evict(world.registry, "default", world.pods()[0].metadata.name)
    assert (told.value.code, told.value.reason, told.value.message) == (429, "TooManyRequests", REFUSED)
    (cause,) = told.value.causes
    assert (cause.reason, cause.what) == (
        "DisruptionBudget",
        "The disruption budget web needs 2 healthy pods and has 2 currently",
    )


def test_evictions_in_a_row_are_counted() -> None:
    world = standing(3, minAvailable=2)
    names = [p.metadata.name for p in world.pods()]
    evict(world.registry, "default", names[0])
    with pytest.raises(ApiError):
        evict(world.registry, "default", names[1])
    world.settle()
    with pytest.raises(ApiError):
        evict(world.registry, "default", names[1])
    world.finish()
    evict(world.registry, "default", names[1])


def test_a_new_budget_is_still_being_processed() -> None:
    world = standing(2, minAvailable=1)
    world.registry.create(budget("late", app="other", minAvailable=0))
    world.registry.patch(RESOURCE, "default", "web", {"spec": {"minAvailable": 0}}, "merge")
    with pytest.raises(ApiError) as told:
        evict(world.registry, "default", world.pods()[0].metadata.name)
    assert told.value.causes[0].what == "The disruption budget web is still being processed by the server."


def test_two_budgets_for_one_pod_are_too_many() -> None:
    world = standing(2, minAvailable=0)
    world.create(budget("second", minAvailable=0))
    with pytest.raises(ApiError) as told:
        evict(world.registry, "default", world.pods()[0].metadata.name)
    assert told.value.code == 500
    assert "more than one PodDisruptionBudget" in told.value.message


def test_what_is_pending_disrupts_nobody() -> None:
    world = World()
    world.create(pod("a", {"app": "web"}))
    world.create(budget(minAvailable=1))
    evict(world.registry, "default", "a")
    assert world.view("a").metadata.deletionTimestamp


@pytest.mark.parametrize(("policy", "allowed"), [("AlwaysAllow", True), ("IfHealthyBudget", False)])
def test_who_is_not_ready_goes_if_the_policy_says_so(policy: str, allowed: bool) -> None:
    world = standing(2, minAvailable=2, unhealthyPodEvictionPolicy=policy)
    sick = world.pods()[0]
    world.status(sick, ready=False)
    world.settle()
    if allowed:
        evict(world.registry, "default", sick.metadata.name)
        return
    with pytest.raises(ApiError):
        evict(world.registry, "default", sick.metadata.name)


def test_who_is_not_ready_goes_while_enough_others_are_healthy() -> None:
    world = standing(3, minAvailable=2)
    sick = world.pods()[0]
    world.status(sick, ready=False)
    world.settle()
    evict(world.registry, "default", sick.metadata.name)
    assert world.get(RESOURCE, "web")["status"].get("disruptedPods") is None
