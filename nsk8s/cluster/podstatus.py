"""A pod's status, as a kubelet reports it: phase, conditions, container states.

Phase and conditions follow upstream's getPhase (pkg/kubelet/kubelet_pods.go) and pkg/kubelet/status/
generate.go, reasons and messages to the letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nsk8s.api.types import Obj
from nsk8s.cluster.containers import ContainerRun
from nsk8s.cluster.podworker import PodWorker

ORDER = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
"""The conditions that are a kubelet's (the last is the scheduler's), in the order it writes them."""


def status(worker: PodWorker, hosts: Sequence[str], stamp: str) -> Obj:
    """The status of a pod on the node with the addresses `hosts`; `stamp` is the time now as RFC 3339."""
    old: Obj = worker.obj.get("status") or {}
    now_phase = phase(worker)
    new: Obj = {
        "phase": now_phase,
        "conditions": conditions(worker, now_phase, old.get("conditions") or (), stamp),
        "hostIP": hosts[0],
        "hostIPs": [{"ip": host} for host in hosts],
    }
    if worker.ip:
        new["podIP"] = worker.ip
        new["podIPs"] = [{"ip": ip} for ip in worker.ips]
    new["startTime"] = old.get("startTime") or stamp
    if worker.inits:
        new["initContainerStatuses"] = [_container(worker, run) for run in worker.inits]
    new["containerStatuses"] = [_container(worker, run) for run in worker.apps]
    if worker.ephemeral:
        new["ephemeralContainerStatuses"] = [_container(worker, run) for run in worker.ephemeral]
    new["qosClass"] = old.get("qosClass") or qos_class(worker.obj.get("spec") or {})
    return new


def phase(worker: PodWorker) -> str:
    """Pending, Running, Succeeded or Failed."""
    if worker.init_failed:
        return "Failed"
    if any(run.terminated is None and run.phase in ("waiting", "starting") for run in worker.apps):
        return "Pending"
    if not worker.initialized and not worker.restarted:
        return "Pending"
    if any(run.phase == "running" for run in (*worker.inits, *worker.apps)):
        return "Running"
    if not worker.deleting and any(run.live or worker.restarts(run) for run in worker.apps):
        return "Running"
    return "Succeeded" if all(run.succeeded for run in worker.apps) else "Failed"


def conditions(worker: PodWorker, now_phase: str, old: Iterable[Obj], stamp: str) -> list[Obj]:
    """The kubelet's conditions, and whatever others have put there. One whose status stays as it was
    keeps its time."""
    before = {c["type"]: c for c in old}
    new: list[Obj] = []
    for type_, holds, reason, message in _conditions(worker, now_phase):
        was = before.get(type_)
        value = "True" if holds else "False"
        at = was.get("lastTransitionTime") if was is not None and was.get("status") == value else None
        condition = {"type": type_, "status": value, "lastTransitionTime": at or stamp}
        if reason:
            condition["reason"] = reason
        if message:
            condition["message"] = message
        new.append(condition)
    scheduled = before.get("PodScheduled")
    new.append(
        scheduled
        if scheduled is not None and scheduled.get("status") == "True"
        else {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp}
    )
    return [*new, *[c for c in before.values() if c["type"] not in ORDER]]


def _conditions(worker: PodWorker, now_phase: str) -> Iterable[tuple[str, bool, str, str]]:
    yield ORDER[0], worker.sandbox == "ready", "", worker.why
    initialized = worker.initialized or now_phase == "Succeeded"
    if now_phase == "Succeeded":
        yield ORDER[1], True, "PodCompleted", ""
        yield ORDER[2], False, "PodCompleted", ""
        yield ORDER[3], False, "PodCompleted", ""
        return
    late = [r.spec.name for r in worker.inits if not (r.started if r.role == "sidecar" else r.succeeded)]
    yield _condition(ORDER[1], initialized, "ContainersNotInitialized", "incomplete", late)
    if now_phase == "Failed":
        yield ORDER[2], False, "PodFailed", ""
        yield ORDER[3], False, "PodFailed", ""
        return
    sidecars = [run for run in worker.inits if run.role == "sidecar"]
    unready = [run.spec.name for run in (*sidecars, *worker.apps) if not run.ready]
    for type_ in ORDER[2:4]:
        if worker.unwell and type_ == "Ready" and not unready:
            yield type_, False, "", ""
            continue
        yield _condition(type_, not unready, "ContainersNotReady", "unready", unready)


def _condition(
    type_: str, holds: bool, reason: str, what: str, names: Iterable[str]
) -> tuple[str, bool, str, str]:
    if holds:
        return type_, True, "", ""
    return type_, False, reason, f"containers with {what} status: [{' '.join(names)}]"


def _container(worker: PodWorker, run: ContainerRun) -> Obj:
    state, last = _states(worker, run)
    init, ephemeral = run.role == "init", run.role == "ephemeral"
    shown: Obj = {
        "name": run.spec.name,
        "image": run.spec.image,
        "imageID": run.says,
        "ready": run.succeeded if init else run.ready and not ephemeral,
        **({} if ephemeral else {"started": run.phase == "running" if init else run.started}),
        "restartCount": max(0, run.attempt - (run.phase == "starting")),
        "state": state,
        "lastState": last,
    }
    if run.id:
        shown["containerID"] = f"nsk8s://{run.id}"
    return shown


def _states(worker: PodWorker, run: ContainerRun) -> tuple[Obj, Obj]:
    ended: Obj = {"terminated": run.terminated} if run.terminated is not None else {}
    if run.why and not run.live:
        return {"waiting": {"reason": "CreateContainerConfigError", "message": run.why}}, ended
    if run.phase == "running":
        return {"running": {"startedAt": run.started_at}}, ended
    if run.phase == "exited" and not worker.deleting and worker.restarts(run) and run.backoff:
        message = (
            f"back-off {_duration(run.backoff)} restarting failed container={run.spec.name} "
            f"pod={worker.name}_{worker.namespace}({worker.uid})"
        )
        return {"waiting": {"reason": "CrashLoopBackOff", "message": message}}, ended
    if run.terminated is not None and run.phase != "waiting":
        return ended, {"terminated": run.before} if run.before is not None else {}
    late = worker.inits and run.role != "ephemeral"
    reason = "PodInitializing" if late else "ContainerCreating"
    return {"waiting": {"reason": reason}}, ended


def _duration(seconds: float) -> str:
    """As Go prints a time.Duration: ``10s``, ``1m20s``, ``5m0s``."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def qos_class(spec: Obj) -> str:
    """BestEffort without any cpu or memory request or limit, Guaranteed where all have limits that equal
    their requests, Burstable otherwise (pkg/apis/core/v1/helper/qos)."""
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    if not any(container.get("resources") for container in containers):
        return "BestEffort"
    some = False
    guaranteed = True
    for container in containers:
        resources: dict[str, Any] = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for kind in ("cpu", "memory"):
            some = some or kind in limits or kind in requests
            if kind not in limits or requests.get(kind, limits[kind]) != limits[kind]:
                guaranteed = False
    return "Guaranteed" if some and guaranteed else "Burstable" if some else "BestEffort"
