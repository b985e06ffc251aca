"""READY, STATUS and RESTARTS of a pod, as every `kubectl get pods` shows them (upstream's printPod in
pkg/printers/internalversion)."""

from __future__ import annotations

from typing import Any, NamedTuple

from nsk8s.api.types import Obj


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
    sidecars = {c["name"] for c in inits if c.get("restartPolicy") == "Always"}
    reason: str = status.get("reason") or status.get("phase") or "Pending"
    ready, counted = 0, []
    initializing = False
    for index, one in enumerate(status.get("initContainerStatuses") or ()):
        counted.append(one)
        ended = _state(one).get("terminated")
        if ended and ended.get("exitCode") == 0:
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
    conditions = {c["type"]: c["status"] for c in status.get("conditions") or ()}
    if not initializing or conditions.get("Initialized") == "True":
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
            reason = "Running" if conditions.get("Ready") == "True" else "NotReady"
    if pod["metadata"].get("deletionTimestamp") and status.get("phase") not in ("Succeeded", "Failed"):
        reason = "Terminating"
    return PodCells(
        ready,
        len(spec["containers"]) + len(sidecars),
        reason,
        sum(one.get("restartCount", 0) for one in counted),
        max((_last_end(one) for one in counted), default=""),
    )


def _state(status: Obj) -> dict[str, Any]:
    return status.get("state") or {}


def _reason(ended: Obj) -> str:
    return ended.get("reason") or f"ExitCode:{ended.get('exitCode')}"


def _last_end(status: Obj) -> str:
    ended = (status.get("lastState") or {}).get("terminated") or {}
    return ended.get("finishedAt") or ""
