"""A pod worker's state from what a restarted control plane finds: the pod's status in the store, and what
really runs.

A container that runs and was not known to is a start whose report was lost: it is one attempt on. One that
should run and does not has ended unseen (ContainerStatusUnknown, exit code 137, as upstream says it).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from nsk8s.api.types import Obj
from nsk8s.cluster.containers import FIRST_BACKOFF, MAX_BACKOFF, ContainerRun
from nsk8s.cluster.podworker import PodWorker

SCHEME = "nsk8s://"
"""Before a container's id in a pod's status."""

LOST = "The container could not be located when the control plane came back"


def seconds(stamp: str) -> float:
    """An RFC 3339 time in seconds since the epoch."""
    return datetime.fromisoformat(stamp).timestamp()


def restore(
    worker: PodWorker, sandbox: bool, containers: Mapping[tuple[str, str], str], now: float, stamp: str
) -> None:
    """Set `worker`'s containers from its object's status; `sandbox` says whether its sandbox exists,
    `containers` which containers run; `now` and `stamp` are the same moment on two clocks."""
    status: Obj = worker.obj.get("status") or {}
    known: dict[str, Obj] = {
        s["name"]: s
        for field in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
        for s in status.get(field) or ()
    }
    worker.ips = worker.view.status.ips
    if sandbox:
        worker.sandbox = "ready"
    shift = now - seconds(stamp)
    for run in worker.runs():
        id_ = containers.get((worker.uid, run.spec.name), "").removeprefix(SCHEME)
        _restore(run, known.get(run.spec.name) or {}, id_, worker.ip, now, stamp, shift)
    if worker.inits:
        worker.initialized = any(run.phase != "waiting" for run in worker.apps) or all(
            run.succeeded or (run.role == "sidecar" and run.started) for run in worker.inits
        )
        worker.restarted = any(run.phase == "waiting" and run.terminated for run in worker.runs())


def _restore(
    run: ContainerRun, status: Obj, running_id: str, ip: str, now: float, stamp: str, shift: float
) -> None:
    state: dict[str, Any] = status.get("state") or {}
    last = (status.get("lastState") or {}).get("terminated")
    ended = state.get("terminated")
    recorded = status.get("containerID", "").removeprefix(SCHEME)
    was_running = "running" in state
    run.terminated, run.before = (ended, last) if ended else (last, None)
    run.id = recorded
    run.says = status.get("imageID", "")
    if recorded or run.terminated is not None or was_running:
        run.attempt = status.get("restartCount", 0)
    _back_off(run, now)
    if running_id:
        if not was_running:
            run.attempt += 1
            run.says = ""
        began = seconds(state["running"]["startedAt"]) + shift if was_running else now
        run.running(running_id, run.says, ip, began, state["running"]["startedAt"] if was_running else stamp)
        run.untold = not was_running
        if was_running:
            _trust(run, status, now)
        run.backoff_since = began
    elif was_running:
        run.phase = "running"
        run.started_at = state["running"].get("startedAt", stamp)
        run.exited(137, "ContainerStatusUnknown", LOST, now, stamp)
    elif ended or (state.get("waiting") or {}).get("reason") == "CrashLoopBackOff":
        run.phase = "exited"
        finished = run.terminated.get("finishedAt") if run.terminated else None
        run.restart_at = (seconds(finished) + shift if finished else now) + run.backoff


def _back_off(run: ContainerRun, now: float) -> None:
    """What `attempt` restarts have brought the back-off to."""
    if run.attempt > 0:
        run.backoff = min(FIRST_BACKOFF * 2.0 ** min(run.attempt - 1, 10), MAX_BACKOFF)
        run.backoff_since = now


def _trust(run: ContainerRun, status: Obj, now: float) -> None:
    """Probes go on from what they had established: a restart of the control plane makes no pod unready."""
    startup, readiness = run.probe("startup"), run.probe("readiness")
    if startup is not None and status.get("started"):
        startup.result = True
        startup.disable()
        run.enable(now)
    if readiness is not None:
        readiness.result = bool(status.get("ready"))
