"""READY, STATUS and RESTARTS, as upstream's printers_test has them."""

from __future__ import annotations

from typing import Any

import pytest

from nsk8s.apiserver.printers.pods import cells

Obj = dict[str, Any]

RUNNING: Obj = {"state": {"running": {}}, "ready": True, "started": True}
CREATING: Obj = {"state": {"waiting": {"reason": "ContainerCreating"}}}
COMPLETED: Obj = {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
FAILED: Obj = {"state": {"terminated": {"exitCode": 3, "reason": "Error"}}}
CRASHED: Obj = {
    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:00:07Z"}},
    "restartCount": 3,
}


def pod(
    *apps: Obj, inits: tuple[tuple[str, Obj], ...] = (), phase: str = "Running", **more: str | Obj
) -> Obj:
    """A pod with containers of these statuses; `inits` are restart policies and statuses."""
    listed = [{"name": f"i{n}", **({"restartPolicy": p} if p else {})} for n, (p, _) in enumerate(inits)]
    extra = more.pop("status", {})
    assert isinstance(extra, dict)
    status = {
        "phase": phase,
        "initContainerStatuses": [{"name": f"i{n}", **s} for n, (_, s) in enumerate(inits)],
        "containerStatuses": [{"name": f"c{n}", **s} for n, s in enumerate(apps)],
        **extra,
    }
    containers = [{"name": f"c{n}"} for n, _ in enumerate(apps)]
    return {"metadata": more, "spec": {"initContainers": listed, "containers": containers}, "status": status}


def conditions(**values: str) -> Obj:
    return {"conditions": [{"type": type_, "status": value} for type_, value in values.items()]}


@pytest.mark.parametrize(
    ("shown", "obj"),
    [
        ("1/1 Running 0", pod(RUNNING)),
        ("1/2 ContainerCreating 0", pod(RUNNING, CREATING, phase="Pending")),
        ("1/2 CrashLoopBackOff 3", pod(RUNNING, CRASHED)),
        ("0/1 Completed 0", pod(COMPLETED, phase="Succeeded")),
        ("0/1 Error 0", pod(FAILED, phase="Failed")),
        ("1/2 NotReady 0", pod(RUNNING, COMPLETED)),
        ("1/2 Running 0", pod(RUNNING, COMPLETED, status=conditions(Ready="True"))),
        ("0/1 Init:0/2 0", pod(CREATING, inits=(("", RUNNING), ("", CREATING)), phase="Pending")),
        ("0/1 Init:Error 0", pod(CREATING, inits=(("", FAILED),), phase="Pending")),
        ("0/1 Init:CrashLoopBackOff 3", pod(CREATING, inits=(("", CRASHED),), phase="Pending")),
        ("2/2 Running 0", pod(RUNNING, inits=(("Always", RUNNING),))),
        ("1/2 CrashLoopBackOff 3", pod(CRASHED, inits=(("Always", RUNNING),))),
        ("1/1 Running 0", pod(RUNNING, inits=(("", {**COMPLETED, "restartCount": 5}),))),
        ("1/1 Terminating 0", pod(RUNNING, deletionTimestamp="2026-01-01T00:00:00Z")),
        ("0/1 Completed 0", pod(COMPLETED, phase="Succeeded", deletionTimestamp="2026-01-01T00:00:00Z")),
        (
            "1/2 Init:CrashLoopBackOff 3",
            pod(RUNNING, inits=(("Always", CRASHED),), status=conditions(Initialized="True")),
        ),
    ],
)
def test_cells(shown: str, obj: Obj) -> None:
    seen = cells(obj)
    assert f"{seen.ready}/{seen.total} {seen.status} {seen.restarts}" == shown


def test_the_last_restart_is_of_the_containers_that_count() -> None:
    assert cells(pod(RUNNING, CRASHED)).restarted == "2026-01-01T00:00:07Z"
    assert cells(pod(RUNNING)).restarted == ""
