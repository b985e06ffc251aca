"""Pods: READY, STATUS and RESTARTS say more than the phase does (upstream's printPod)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from nsk8s.api.age import age
from nsk8s.api.types import Obj
from nsk8s.apiserver.printers.columns import (
    AGE,
    NAME,
    NONE,
    Column,
    Printer,
    age_of,
    container_cells,
    label_text,
    wide,
)


class PodCells(NamedTuple):
    """`restarted` is when (RFC 3339) a container ended last before a restart; "" if none has."""

    ready: int
    total: int
    status: str
    restarts: int
    restarted: str


def cells(pod: Obj) -> PodCells:
    """What to show of `pod`: the most telling reason of any container, not just the phase."""
    spec, status = pod["spec"], pod.get("status") or {}
    inits: list[Obj] = spec.get("initContainers") or []
    sidecars = {c["name"] for c in inits if c.get("restartPolicy") == "Always"} if inits else set()
    reason: str = status.get("reason") or status.get("phase") or ""
    conditions: dict[str, Obj] = {c["type"]: c for c in status.get("conditions") or ()}
    if conditions.get("PodScheduled", {}).get("reason") == "SchedulingGated":
        reason = "SchedulingGated"
    ready, counted = 0, []
    initializing = False
    for index, one in enumerate(status.get("initContainerStatuses") or ()):
        counted.append(one)
        ended = _state(one).get("terminated")
        if ended and ended.get("exitCode", 0) == 0:
            continue
        if one["name"] in sidecars and one.get("started"):
            ready += bool(one.get("ready"))
            continue
        waiting = (_state(one).get("waiting") or {}).get("reason")
        if ended:
            reason = f"Init:{_reason(ended)}"
        elif waiting and waiting != "PodInitializing":
            reason = f"Init:{waiting}"
        else:
            reason = f"Init:{index}/{len(inits)}"
        initializing = True
        break
    if not initializing or _true(conditions, "Initialized"):
        counted = [one for one in counted if one["name"] in sidecars]
        running = False
        for one in reversed(status.get("containerStatuses") or []):
            counted.append(one)
            state = _state(one)
            if (state.get("waiting") or {}).get("reason"):
                reason = state["waiting"]["reason"]
            elif state.get("terminated"):
                reason = _reason(state["terminated"])
            elif one.get("ready") and state.get("running") is not None:
                running = True
                ready += 1
        if reason == "Completed" and running:
            reason = "Running" if _true(conditions, "Ready") else "NotReady"
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            reason = "Terminating"
    restarts = sum([one.get("restartCount", 0) for one in counted])
    return PodCells(
        ready,
        len(spec.get("containers") or ()) + len(sidecars),
        reason,
        restarts,
        max([_last_end(one) for one in counted]) if restarts else "",
    )


def _state(status: Obj) -> dict[str, Any]:
    return status.get("state") or {}


def _reason(ended: Obj) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    return f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode', 0)}"


def _last_end(status: Obj) -> str:
    ended = (status.get("lastState") or {}).get("terminated") or {}
    return ended.get("finishedAt") or ""


def _true(conditions: dict[str, Obj], name: str) -> bool:
    return conditions.get(name, {}).get("status") == "True"


def _pod(obj: Obj, now: datetime) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    ready, total, reason, count, restarted = cells(obj)
    addresses = status.get("podIPs")
    return [
        obj["metadata"]["name"],
        f"{ready}/{total}",
        reason,
        f"{count} ({age(restarted, now)} ago)" if restarted else str(count),
        age_of(obj, now),
        (addresses[0].get("ip") if addresses else status.get("podIP")) or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        _gates(spec["readinessGates"], status) if spec.get("readinessGates") else NONE,
    ]


def _gates(gates: list[Obj], status: Obj) -> str:
    true = {c["type"] for c in status.get("conditions") or () if c.get("status") == "True"}
    return f"{sum(gate.get('conditionType') in true for gate in gates)}/{len(gates)}"


def _ended(reason: str, message: str) -> list[Obj]:
    return [{"type": "Completed", "status": "True", "reason": reason, "message": message}]


_ENDED = {
    "Succeeded": _ended("Succeeded", "The pod has completed successfully."),
    "Failed": _ended("Failed", "The pod failed."),
}


def _conditions(obj: Obj) -> list[Obj]:
    return _ENDED.get((obj.get("status") or {}).get("phase", ""), [])


def _template(obj: Obj, now: datetime) -> list[Any]:
    template = obj.get("template") or {}
    names, images = container_cells(template.get("spec"))
    return [
        obj["metadata"]["name"],
        names,
        images,
        label_text((template.get("metadata") or {}).get("labels")),
    ]


PRINTERS: dict[str, Printer] = {
    "pods": Printer(
        (
            NAME,
            Column("Ready", description="How many of its containers are ready."),
            Column("Status", description="The most telling state of its containers."),
            Column("Restarts", description="How often its containers were restarted, and when last."),
            AGE,
            *wide(
                Column("IP", description="The address of the pod."),
                Column("Node", description="The node it is bound to."),
                Column("Nominated Node", description="The node that is being cleared for it."),
                Column("Readiness Gates", description="How many of its readiness gates are true."),
            ),
        ),
        _pod,
        _conditions,
    ),
    "podtemplates": Printer(
        (
            NAME,
            Column("Containers", description="The names of the template's containers."),
            Column("Images", description="The images of the template's containers."),
            Column("Pod Labels", description="The labels of the template."),
        ),
        _template,
    ),
}
