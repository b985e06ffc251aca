"""CronJobs: the clock begins at 20:33:00 and moves with the world's."""

from __future__ import annotations

from typing import Any

from nsk8s.api.types import Obj
from nsk8s.cluster.patch import Json
from tests.unit.cluster.test_jobs import end, job, ticking
from tests.unit.cluster.worlds import World

RESOURCE = "cronjobs.batch"
JOBS = "jobs.batch"


def cron_job(name: str, schedule: str = "* * * * *", **spec: Json) -> Obj:
    template = {"metadata": {"labels": {"made": "by-cron"}}, "spec": job("x")["spec"]}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {"schedule": schedule, "jobTemplate": template, **spec},
    }


def status(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.get(RESOURCE, "c").get("status", {})
    return found


def reasons(world: World) -> list[str]:
    return [e["reason"] for e in world.store.list("events") if e["involvedObject"]["kind"] == "CronJob"]


def test_a_job_when_it_is_time() -> None:
    world = ticking()
    world.create(cron_job("c"))
    assert world.names(JOBS) == []
    assert world.control.wake() == world.now + 60
    world.settle(60)
    (name,) = world.names(JOBS)
    assert name == f"c-{1795466040 // 60}"
    stored = world.get(JOBS, name)
    assert stored["metadata"]["labels"] == {"made": "by-cron"}
    assert stored["metadata"]["annotations"] == {
        "batch.kubernetes.io/cronjob-scheduled-timestamp": "2026-11-23T20:34:00Z"
    }
    assert stored["metadata"]["ownerReferences"][0]["kind"] == "CronJob"
    assert status(world)["lastScheduleTime"] == "2026-11-23T20:34:00Z"
    assert [ref["name"] for ref in status(world)["active"]] == [name]
    end(world, world.pods()[0])
    assert status(world) == {
        "lastScheduleTime": "2026-11-23T20:34:00Z",
        "lastSuccessfulTime": "2026-11-23T20:34:00Z",
    }
    assert reasons(world) == ["SuccessfulCreate", "SawCompletedJob"]
    assert world.control.wake() == world.now + 60


def test_forbid_waits_for_the_one_before() -> None:
    world = ticking()
    world.create(cron_job("c", concurrencyPolicy="Forbid"))
    world.settle(60)
    world.settle(60)
    assert len(world.names(JOBS)) == 1
    assert "JobAlreadyActive" in reasons(world)
    end(world, world.pods()[0])
    assert len(world.names(JOBS)) == 2, "the one that was missed is made up for"


def test_replace_ends_the_one_before() -> None:
    world = ticking()
    world.create(cron_job("c", concurrencyPolicy="Replace"))
    world.settle(60)
    (first,) = world.names(JOBS)
    world.settle(60)
    world.finish()
    (second,) = world.names(JOBS)
    assert first != second
    assert len(status(world)["active"]) == 1


def test_allow_lets_them_run_side_by_side() -> None:
    world = ticking()
    world.create(cron_job("c"))
    for _ in range(3):
        world.settle(60)
    assert len(status(world)["active"]) == len(world.active()) == 3


def test_history_has_limits() -> None:
    world = ticking()
    world.create(cron_job("c", successfulJobsHistoryLimit=2, failedJobsHistoryLimit=0))
    for _ in range(4):
        world.settle(60)
        end(world, world.active()[0])
    assert len(world.names(JOBS)) == 2
    world.registry.patch(
        RESOURCE, "default", "c", {"spec": {"jobTemplate": {"spec": {"backoffLimit": 0}}}}, "merge"
    )
    world.settle(60)
    end(world, world.active()[0], "Failed", 1)
    assert len(world.names(JOBS)) == 2


def test_suspended_it_begins_nothing_and_makes_up_for_one() -> None:
    world = ticking()
    world.create(cron_job("c", suspend=True))
    world.settle(600)
    assert world.names(JOBS) == []
    world.registry.patch(RESOURCE, "default", "c", {"spec": {"suspend": False}}, "merge")
    world.settle()
    assert len(world.names(JOBS)) == 1
    assert status(world)["lastScheduleTime"] == "2026-11-23T20:43:00Z"


def test_what_is_too_late_is_not_begun() -> None:
    world = ticking()
    world.create(cron_job("c", "40 20 * * *", startingDeadlineSeconds=100, suspend=True))
    world.settle(660)
    world.registry.patch(RESOURCE, "default", "c", {"spec": {"suspend": False}}, "merge")
    world.settle()
    assert world.names(JOBS) == []


def test_far_too_many_missed_times_are_told() -> None:
    world = ticking()
    world.create(cron_job("c", suspend=True))
    world.settle(86400 * 3)
    world.registry.patch(RESOURCE, "default", "c", {"spec": {"suspend": False}}, "merge")
    world.settle()
    assert "TooManyMissedTimes" in reasons(world)
    assert status(world)["lastScheduleTime"] == "2026-11-26T20:33:00Z"


def test_clocks_of_another_zone() -> None:
    world = ticking()
    world.create(cron_job("c", "0 22 * * *", timeZone="Europe/Berlin"))
    assert world.control.wake() == world.now + 27 * 60
    world.settle(27 * 60)
    (name,) = world.names(JOBS)
    stamp = world.get(JOBS, name)["metadata"]["annotations"]
    assert list(stamp.values()) == ["2026-11-23T22:00:00+01:00"]


def test_a_job_made_by_hand_is_noticed() -> None:
    world = ticking()
    made = world.create(cron_job("c", "0 0 1 1 *"))
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "c", "uid": made["metadata"]["uid"]}
    manual = job("manual")
    manual["metadata"]["ownerReferences"] = [{**owner, "controller": True}]
    world.create(manual)
    assert reasons(world) == ["UnexpectedJob"]
    end(world, world.pods()[0])
    assert status(world)["lastSuccessfulTime"] == "2026-11-23T20:33:00Z"


def test_its_jobs_go_with_it() -> None:
    world = ticking()
    world.create(cron_job("c"))
    world.settle(60)
    world.registry.delete(RESOURCE, "default", "c")
    world.finish()
    assert (world.names(JOBS), world.pods()) == ([], [])
