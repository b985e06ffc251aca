"""When an Indexed Job has failed or succeeded before all its indexes have: backoffLimitPerIndex,
maxFailedIndexes, podFailurePolicy, successPolicy."""

from __future__ import annotations

from nsk8s.api.types import Obj, Pod
from nsk8s.cluster.patch import Json
from tests.unit.cluster.test_jobs import FINALIZER, RESOURCE, conditions, end, job, status, ticking
from tests.unit.cluster.worlds import World

INDEX = "batch.kubernetes.io/job-completion-index"
FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"


def indexed(name: str = "j", count: int = 3, **spec: Json) -> Obj:
    return job(name, completionMode="Indexed", completions=count, parallelism=count, **spec)


def at(world: World, index: int) -> Pod:
    """The pod that is at work on an index."""
    (found,) = (p for p in world.active() if p.metadata.annotations[INDEX] == str(index))
    return found


def indexes_at_work(world: World) -> list[int]:
    return sorted(int(p.metadata.annotations[INDEX]) for p in world.active())


# --- failures of an index -------------------------------------------------------------------------------


def test_an_index_fails_on_its_own_and_the_others_go_on() -> None:
    world = ticking()
    world.create(indexed(backoffLimitPerIndex=1))
    assert world.get(RESOURCE, "j")["spec"]["backoffLimit"] == 2**31 - 1
    assert status(world)["failedIndexes"] == ""
    assert at(world, 1).metadata.annotations[FAILURES] == "0"
    first = at(world, 1)
    end(world, first, "Failed", 1)
    assert indexes_at_work(world) == [0, 2]
    kept = world.get("pods", first.metadata.name)
    assert kept["metadata"]["finalizers"] == [FINALIZER], "until its successor knows how often it has failed"
    assert status(world).get("failed", 0) == 0
    assert world.control.wake() == world.now + 10
    world.settle(10)
    assert at(world, 1).metadata.annotations[FAILURES] == "1"
    assert "finalizers" not in world.get("pods", first.metadata.name)["metadata"]
    assert status(world)["failed"] == 1
    end(world, at(world, 1), "Failed", 1)
    assert (status(world)["failedIndexes"], status(world)["failed"]) == ("1", 2)
    world.settle(1000)
    assert indexes_at_work(world) == [0, 2]
    assert conditions(world) == []
    end(world, at(world, 0))
    end(world, at(world, 2))
    assert conditions(world) == [
        ("FailureTarget", "True", "FailedIndexes"),
        ("Failed", "True", "FailedIndexes"),
    ]
    assert status(world)["conditions"][-1]["message"] == "Job has failed indexes"
    assert (status(world)["completedIndexes"], status(world)["succeeded"]) == ("0,2", 2)


def test_each_index_has_its_own_patience() -> None:
    world = ticking()
    world.create(indexed(count=2, backoffLimitPerIndex=5))
    end(world, at(world, 0), "Failed", 1)
    world.settle(10)
    end(world, at(world, 0), "Failed", 1)
    world.settle(5)
    end(world, at(world, 1), "Failed", 1)
    assert indexes_at_work(world) == []
    world.settle(10)
    assert indexes_at_work(world) == [1], "it has failed once, and the other twice"
    world.settle(5)
    assert indexes_at_work(world) == [0, 1]
    assert at(world, 0).metadata.annotations[FAILURES] == "2"


def test_another_control_plane_knows_how_often_an_index_has_failed() -> None:
    world = ticking()
    world.create(indexed(count=1, backoffLimitPerIndex=1))
    end(world, at(world, 0), "Failed", 1)
    world.store.commit()
    again = World(world.topology, world.store)
    again.tick()
    assert again.active() == []
    again.settle(10)
    assert at(again, 0).metadata.annotations[FAILURES] == "1"
    end(again, at(again, 0), "Failed", 1)
    assert conditions(again)[-1] == ("Failed", "True", "FailedIndexes")


def test_too_many_failed_indexes_end_it() -> None:
    world = ticking()
    world.create(indexed(count=4, backoffLimitPerIndex=0, maxFailedIndexes=1))
    end(world, at(world, 3), "Failed", 1)
    assert (status(world)["failedIndexes"], conditions(world)) == ("3", [])
    end(world, at(world, 1), "Failed", 1)
    assert conditions(world)[0] == ("FailureTarget", "True", "MaxFailedIndexesExceeded")
    assert status(world)["conditions"][0]["message"] == (
        "Job has exceeded the specified maximal number of failed indexes"
    )
    assert (status(world)["failedIndexes"], world.active()) == ("1,3", [])
    world.reap()
    assert conditions(world)[-1] == ("Failed", "True", "MaxFailedIndexesExceeded")


def test_the_whole_jobs_limit_counts_the_failures_that_wait_as_well() -> None:
    world = ticking()
    world.create(indexed(count=3, backoffLimitPerIndex=9, backoffLimit=1))
    end(world, at(world, 0), "Failed", 1)
    end(world, at(world, 1), "Failed", 1)
    assert conditions(world)[0] == ("FailureTarget", "True", "BackoffLimitExceeded")
    world.reap()
    assert conditions(world)[-1] == ("Failed", "True", "BackoffLimitExceeded")
    assert status(world)["failed"] == 3, "with the one that was ended"
    assert not [p for p in world.store.list("pods") if p["metadata"].get("finalizers")]


def test_a_policy_fails_an_index_at_once() -> None:
    world = ticking()
    rules = [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}]
    world.create(indexed(count=2, backoffLimitPerIndex=5, podFailurePolicy={"rules": rules}))
    end(world, at(world, 0), "Failed", 42)
    assert (status(world)["failedIndexes"], status(world)["failed"]) == ("0", 1)
    assert indexes_at_work(world) == [1]
    end(world, at(world, 1))
    assert conditions(world)[-1] == ("Failed", "True", "FailedIndexes")


def test_what_a_policy_ignores_makes_an_index_wait_and_not_fail() -> None:
    world = ticking()
    rules = [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]
    world.create(indexed(count=1, backoffLimitPerIndex=0, podFailurePolicy={"rules": rules}))
    (rule,) = world.get(RESOURCE, "j")["spec"]["podFailurePolicy"]["rules"]
    assert rule["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    pod = at(world, 0)
    stored = world.get("pods", pod.metadata.name)
    disrupted = [{"type": "DisruptionTarget", "status": "True"}]
    world.registry.update_status(
        {**stored, "status": {**stored["status"], "phase": "Failed", "conditions": disrupted}}
    )
    world.settle()
    assert (status(world)["failedIndexes"], world.active()) == ("", [])
    world.settle(10)
    again = at(world, 0).metadata.annotations
    assert (again[FAILURES], again[IGNORED]) == ("0", "1")
    assert status(world).get("failed", 0) == 0
    end(world, at(world, 0), "Failed", 1)
    assert conditions(world)[-1] == ("Failed", "True", "FailedIndexes")


# --- successes ------------------------------------------------------------------------------------------


def test_a_leader_that_succeeds_is_enough() -> None:
    world = ticking()
    world.create(indexed(successPolicy={"rules": [{"succeededIndexes": "0"}]}))
    end(world, at(world, 2))
    assert conditions(world) == []
    end(world, at(world, 0))
    assert conditions(world)[0] == ("SuccessCriteriaMet", "True", "SuccessPolicy")
    assert status(world)["conditions"][0]["message"] == "Matched rules at index 0"
    assert (world.active(), status(world).get("failed", 0)) == ([], 0)
    world.reap()
    assert conditions(world)[-1] == ("Complete", "True", "SuccessPolicy")
    assert (status(world)["completedIndexes"], status(world)["succeeded"]) == ("0,2", 2)
    assert "completionTime" in status(world)


def test_so_many_of_these_or_all_of_those() -> None:
    rules = [
        {"succeededIndexes": "1-3", "succeededCount": 2},
        {"succeededCount": 4},
        {"succeededIndexes": "0,5"},
    ]
    for successes, rule in (([1, 3], 0), ([0, 5], 2), ([0, 1, 4, 2], 0)):
        world = ticking()
        world.create(indexed(count=6, successPolicy={"rules": rules}))
        for position, index in enumerate(successes):
            assert conditions(world) == [], (successes, position)
            end(world, at(world, index))
        assert status(world)["conditions"][0]["message"] == f"Matched rules at index {rule}"


def test_a_failure_comes_before_a_success() -> None:
    world = ticking()
    rules = [{"succeededIndexes": "0"}]
    world.create(indexed(count=2, backoffLimitPerIndex=0, maxFailedIndexes=0, successPolicy={"rules": rules}))
    for index, phase in ((0, "Succeeded"), (1, "Failed")):
        stored = world.get("pods", at(world, index).metadata.name)
        world.registry.update_status({**stored, "status": {**stored["status"], "phase": phase}})
    world.settle()
    assert conditions(world)[-1] == ("Failed", "True", "MaxFailedIndexesExceeded")
