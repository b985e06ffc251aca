"""Jobs, with the kubelets played."""

from __future__ import annotations

from typing import Any

import pytest

from nsk8s.api.types import Obj, Pod
from nsk8s.cluster import indexes
from nsk8s.cluster.patch import Json
from nsk8s.errors import ApiError
from tests.unit.cluster.worlds import World

RESOURCE = "jobs.batch"
FINALIZER = "batch.kubernetes.io/job-tracking"


def job(name: str, pod: Json = None, **spec: Json) -> Obj:
    containers = [{"name": "c", "image": "busybox"}]
    template = {"spec": {"containers": containers, "restartPolicy": "Never", **(pod or {})}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": template, **spec},
    }


def ticking() -> World:
    world = World()
    world.tick()
    return world


def status(world: World, name: str = "j") -> dict[str, Any]:
    found: dict[str, Any] = world.get(RESOURCE, name)["status"]
    return found


def end(world: World, pod: Pod, phase: str = "Succeeded", code: int = 0) -> None:
    """A pod's only container has ended."""
    world.status(pod, ready=False, phase=phase)
    stored = world.get("pods", pod.metadata.name)
    ended = {"exitCode": code, "finishedAt": world.store.now()}
    containers = [{"name": "c", "state": {"terminated": ended}, "restartCount": 0, "ready": False}]
    world.registry.update_status({**stored, "status": {**stored["status"], "containerStatuses": containers}})
    world.settle()


def conditions(world: World, name: str = "j") -> list[tuple[str, str, str]]:
    return [(c["type"], c["status"], c["reason"]) for c in status(world, name).get("conditions", ())]


def reasons(world: World) -> list[str]:
    return [e["reason"] for e in world.store.list("events") if e["involvedObject"]["kind"] == "Job"]


def test_one_pod_that_succeeds() -> None:
    world = ticking()
    made = world.create(job("j"))
    uid = made["metadata"]["uid"]
    assert made["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    (pod,) = world.pods()
    assert pod.metadata.labels == {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": "j",
        "controller-uid": uid,
        "job-name": "j",
    }
    assert world.get("pods", pod.metadata.name)["metadata"]["finalizers"] == [FINALIZER]
    assert (status(world)["active"], status(world)["ready"]) == (1, 0)
    world.make_ready()
    assert status(world)["ready"] == 1
    world.settle(5)
    end(world, pod)
    assert conditions(world) == [
        ("SuccessCriteriaMet", "True", "CompletionsReached"),
        ("Complete", "True", "CompletionsReached"),
    ]
    assert {k: v for k, v in status(world).items() if k != "conditions"} == {
        "startTime": "2026-11-23T20:33:00Z",
        "completionTime": "2026-11-23T20:33:05Z",
        "succeeded": 1,
        "ready": 0,
        "terminating": 0,
        "uncountedTerminatedPods": {},
    }
    assert "finalizers" not in world.get("pods", pod.metadata.name)["metadata"]
    assert sorted(reasons(world)) == ["Completed", "SuccessfulCreate"]
    world.registry.delete("pods", "default", pod.metadata.name)
    world.settle()
    assert (world.pods(), status(world)["succeeded"]) == ([], 1)


@pytest.mark.parametrize(
    ("template", "labels"),
    [
        (
            {},
            {
                f"{group}{name}"
                for group in ("", "batch.kubernetes.io/")
                for name in ("controller-uid", "job-name")
            },
        ),
        ({"metadata": {"labels": {"a": "b"}}}, {"a"}),
    ],
)
def test_a_job_without_labels_shows_its_template_s_and_is_unchanged_when_applied_again(
    template: Obj, labels: set[str]
) -> None:
    """As ``kubectl describe job`` has them: the API server fills them in whenever it reads a Job."""
    world = ticking()
    wanted = job("x")
    wanted["spec"]["template"] |= template
    assert world.apply(wanted) == "created"
    stored = world.get("jobs.batch", "x")
    assert set(stored["metadata"]["labels"]) == labels
    assert world.apply(wanted) == "unchanged"


def test_as_many_at_a_time_as_parallelism_says() -> None:
    world = ticking()
    world.create(job("j", completions=5, parallelism=2))
    seen = set()
    for left in (5, 4, 3, 2, 1):
        assert len(world.active()) == min(2, left)
        pod = world.active()[0]
        seen.add(pod.metadata.name)
        end(world, pod)
    assert (len(seen), status(world)["succeeded"], world.active()) == (5, 5, [])


def test_a_queue_is_done_with_its_first_success_and_last_pod() -> None:
    world = ticking()
    world.create(job("j", parallelism=3))
    first, second, third = world.active()
    end(world, first)
    assert (len(world.active()), conditions(world)) == (2, [])
    end(world, second)
    end(world, third)
    assert conditions(world)[-1] == ("Complete", "True", "CompletionsReached")
    assert len(world.pods()) == 3


def test_a_failure_is_repeated_later_and_later_until_there_were_too_many() -> None:
    world = ticking()
    world.create(job("j", backoffLimit=2))
    for wait in (10.0, 20.0):
        end(world, world.active()[0], "Failed", 1)
        assert world.active() == []
        assert world.control.wake() == world.now + wait
        world.settle(wait)
        assert len(world.active()) == 1
    end(world, world.active()[0], "Failed", 1)
    assert conditions(world) == [
        ("FailureTarget", "True", "BackoffLimitExceeded"),
        ("Failed", "True", "BackoffLimitExceeded"),
    ]
    assert status(world)["failed"] == 3
    assert "completionTime" not in status(world)
    world.settle(1000)
    assert (world.active(), "BackoffLimitExceeded" in reasons(world)) == ([], True)


def test_restarts_in_place_count_as_well() -> None:
    world = ticking()
    world.create(job("j", {"restartPolicy": "OnFailure"}, backoffLimit=2))
    (pod,) = world.pods()
    world.status(pod, ready=True)
    stored = world.get("pods", pod.metadata.name)
    containers = [{"name": "c", "restartCount": 2}]
    world.registry.update_status({**stored, "status": {**stored["status"], "containerStatuses": containers}})
    world.settle()
    world.reap()
    assert conditions(world)[-1] == ("Failed", "True", "BackoffLimitExceeded")


def test_a_deadline_ends_it() -> None:
    world = ticking()
    world.create(job("j", activeDeadlineSeconds=30))
    world.make_ready()
    assert world.control.wake() == world.now + 30
    world.settle(30)
    assert conditions(world) == [("FailureTarget", "True", "DeadlineExceeded")]
    assert world.active() == []
    world.reap()
    assert conditions(world)[-1] == ("Failed", "True", "DeadlineExceeded")


def test_it_goes_some_time_after_its_end() -> None:
    world = ticking()
    world.create(job("j", ttlSecondsAfterFinished=60))
    end(world, world.pods()[0])
    assert world.control.wake() == world.now + 60
    world.settle(59)
    assert world.names(RESOURCE) == ["j"]
    world.settle(1)
    world.finish()
    assert (world.names(RESOURCE), world.pods()) == ([], [])


def test_suspended_nothing_runs() -> None:
    world = ticking()
    world.create(job("j", suspend=True))
    assert world.pods() == []
    assert conditions(world) == [("Suspended", "True", "JobSuspended")]
    assert "startTime" not in status(world)
    world.registry.patch(RESOURCE, "default", "j", {"spec": {"suspend": False}}, "merge")
    world.settle()
    assert len(world.active()) == 1
    assert conditions(world) == [("Suspended", "False", "JobResumed")]
    world.make_ready()
    world.registry.patch(RESOURCE, "default", "j", {"spec": {"suspend": True}}, "merge")
    world.settle()
    world.reap()
    assert (world.pods(), status(world).get("failed", 0)) == ([], 0)


def test_every_index_once() -> None:
    world = ticking()
    world.create(job("j", completionMode="Indexed", completions=3, parallelism=2))
    pods = {p.metadata.annotations["batch.kubernetes.io/job-completion-index"]: p for p in world.active()}
    assert sorted(pods) == ["0", "1"]
    stored = world.get("pods", pods["1"].metadata.name)
    assert stored["metadata"]["name"].startswith("j-1-")
    assert stored["spec"]["hostname"] == "j-1"
    (variable,) = stored["spec"]["containers"][0]["env"]
    assert variable == {
        "name": "JOB_COMPLETION_INDEX",
        "valueFrom": {
            "fieldRef": {
                "apiVersion": "v1",
                "fieldPath": "metadata.labels['batch.kubernetes.io/job-completion-index']",
            }
        },
    }
    end(world, pods["1"], "Failed", 1)
    end(world, pods["0"])
    world.settle(10)
    left = {p.metadata.annotations["batch.kubernetes.io/job-completion-index"] for p in world.active()}
    assert left == {"1", "2"}
    for pod in world.active():
        end(world, pod)
    assert status(world)["completedIndexes"] == "0-2"
    assert conditions(world)[-1][0] == "Complete"


def test_a_policy_ends_it_at_once() -> None:
    world = ticking()
    codes = {"operator": "In", "values": [42]}
    rules = [{"action": "FailJob", "onExitCodes": codes}]
    world.create(job("j", podFailurePolicy={"rules": rules}))
    (pod,) = world.pods()
    end(world, pod, "Failed", 42)
    assert conditions(world)[-1] == ("Failed", "True", "PodFailurePolicy")
    assert status(world)["conditions"][-1]["message"] == (
        f"Container c for pod default/{pod.metadata.name} failed with exit code 42 "
        "matching FailJob rule at index 0"
    )


def test_a_policy_may_not_count_a_failure() -> None:
    world = ticking()
    rules = [{"action": "Ignore", "onExitCodes": {"operator": "NotIn", "values": [1]}}]
    world.create(job("j", podFailurePolicy={"rules": rules}, backoffLimit=0))
    end(world, world.pods()[0], "Failed", 7)
    assert (status(world).get("failed", 0), len(world.active())) == (0, 1)
    end(world, world.active()[0], "Failed", 1)
    assert conditions(world)[-1][0] == "Failed"


def test_a_deleted_pod_is_a_failure_and_replaced() -> None:
    world = ticking()
    world.create(job("j"))
    world.make_ready()
    (pod,) = world.pods()
    world.registry.delete("pods", "default", pod.metadata.name)
    world.settle()
    assert (status(world)["failed"], status(world)["terminating"]) == (1, 1)
    world.reap()
    world.settle(10)
    assert [p.metadata.name for p in world.active()] != [pod.metadata.name]
    assert status(world)["failed"] == 1


@pytest.mark.parametrize("propagation", ["Background", "Foreground", "Orphan"])
def test_dependents_go_or_stay(propagation: Any) -> None:  # noqa: ANN401  # a Literal
    world = ticking()
    world.create(job("j"))
    world.make_ready()
    world.registry.delete(RESOURCE, "default", "j", propagation=propagation)
    world.finish()
    kept = [p.metadata.name for p in world.pods()]
    assert len(kept) == (propagation == "Orphan")
    for name in kept:
        assert "finalizers" not in world.get("pods", name)["metadata"]


def test_who_selects_pods_by_himself_must_say_so() -> None:
    world = ticking()
    with pytest.raises(ApiError, match="`selector` not auto-generated"):
        world.create(job("j", selector={"matchLabels": {"a": "b"}}))
    manual = job("j", selector={"matchLabels": {"a": "b"}}, manualSelector=True)
    manual["spec"]["template"]["metadata"] = {"labels": {"a": "b"}}
    world.create(manual)
    assert world.pods()[0].metadata.labels == {"a": "b"}


def test_an_unfinished_job_goes_on_under_another_control_plane() -> None:
    world = ticking()
    world.create(job("j", backoffLimit=3))
    end(world, world.active()[0], "Failed", 1)
    world.settle(10)
    end(world, world.active()[0], "Failed", 1)
    world.store.commit()
    again = World(world.topology, world.store)
    assert again.active() == []
    assert again.control.wake() == again.now + 20, "whose own clock begins anew"


@pytest.mark.parametrize(
    ("found", "text"), [([], ""), ([0], "0"), ([0, 1], "0,1"), ([3, 1, 2, 7, 9, 10], "1-3,7,9,10")]
)
def test_indexes_as_text(found: list[int], text: str) -> None:
    assert indexes.text(found) == text
    assert indexes.parse(text) == set(found)
