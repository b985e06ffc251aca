"""What makes pods: deployments, sets, jobs, and what scales or protects them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from nsk8s.api.age import age, duration, moment
from nsk8s.api.types import Obj
from nsk8s.apiserver.printers.columns import (
    AGE,
    CONTAINERS,
    NAME,
    NONE,
    SELECTOR,
    UNSET,
    Column,
    Printer,
    age_of,
    at,
    container_cells,
    label_text,
    name_of,
    selector_text,
)


def _ready(status: Obj, spec: Obj) -> str:
    return f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"


def _pod_spec(spec: Obj) -> Obj | None:
    found: Obj | None = at(spec, "template", "spec")
    return found


def _deployment(obj: Obj, now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return [
        name_of(obj),
        _ready(status, spec),
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        age_of(obj, now),
        *container_cells(_pod_spec(spec)),
        selector_text(spec.get("selector")),
    ]


def _replicas(obj: Obj, now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    counts = spec.get("replicas", 0), status.get("replicas", 0), status.get("readyReplicas", 0)
    return [name_of(obj), *counts, age_of(obj, now), *container_cells(_pod_spec(spec))]


def _replica_set(obj: Obj, now: datetime) -> list[Any]:
    return [*_replicas(obj, now), selector_text(at(obj, "spec", "selector")) or NONE]


def _replication_controller(obj: Obj, now: datetime) -> list[Any]:
    return [*_replicas(obj, now), label_text(at(obj, "spec", "selector"))]


def _daemon_set(obj: Obj, now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return [
        name_of(obj),
        status.get("desiredNumberScheduled", 0),
        status.get("currentNumberScheduled", 0),
        status.get("numberReady", 0),
        status.get("updatedNumberScheduled", 0),
        status.get("numberAvailable", 0),
        label_text(at(spec, "template", "spec", "nodeSelector")),
        age_of(obj, now),
        *container_cells(_pod_spec(spec)),
        selector_text(spec.get("selector")) or NONE,
    ]


def _stateful_set(obj: Obj, now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return [name_of(obj), _ready(status, spec), age_of(obj, now), *container_cells(_pod_spec(spec))]


def _job(obj: Obj, now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    succeeded, parallelism = status.get("succeeded", 0), spec.get("parallelism") or 0
    if spec.get("completions") is not None:
        completions = f"{succeeded}/{spec['completions']}"
    else:
        completions = f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"
    began, ended = moment(status.get("startTime")), moment(status.get("completionTime"))
    took = duration((ended or now) - began) if began else ""
    return [
        name_of(obj),
        _job_state(obj, status),
        completions,
        took,
        age_of(obj, now),
        *container_cells(_pod_spec(spec)),
        selector_text(spec.get("selector")) or NONE,
    ]


def _job_state(obj: Obj, status: Obj) -> str:
    true = {c.get("type") for c in status.get("conditions") or () if c.get("status") == "True"}
    for condition in ("Complete", "Failed"):
        if condition in true:
            return condition
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return next((state for state in ("Suspended", "FailureTarget") if state in true), "Running")


def _cron_job(obj: Obj, now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    last, suspend = status.get("lastScheduleTime"), spec.get("suspend")
    job = at(spec, "jobTemplate", "spec") or {}
    return [
        name_of(obj),
        spec.get("schedule", ""),
        spec.get("timeZone") or NONE,
        UNSET if suspend is None else str(bool(suspend)),
        len(status.get("active") or ()),
        age(last, now) if last else NONE,
        age_of(obj, now),
        *container_cells(_pod_spec(job)),
        selector_text(job.get("selector")) or NONE,
    ]


def _revision(obj: Obj, now: datetime) -> list[Any]:
    owner = next((o for o in obj["metadata"].get("ownerReferences") or () if o.get("controller")), None)
    controller = NONE
    if owner is not None:
        group = owner.get("apiVersion", "").rpartition("/")[0]
        kind = owner.get("kind", "").lower()
        controller = f"{kind}.{group}/{owner.get('name')}" if group else f"{kind}/{owner.get('name')}"
    return [name_of(obj), controller, obj.get("revision", 0), age_of(obj, now)]


def _disruption_budget(obj: Obj, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    return [
        name_of(obj),
        "N/A" if least is None else str(least),
        "N/A" if most is None else str(most),
        at(obj, "status", "disruptionsAllowed") or 0,
        age_of(obj, now),
    ]


# --- autoscalers ------------------------------------------------------------------------------------

_SOURCES = {
    "External": "external",
    "Pods": "pods",
    "Object": "object",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}


def _autoscaler(obj: Obj, now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    target, least = spec.get("scaleTargetRef") or {}, spec.get("minReplicas")
    return [
        name_of(obj),
        f"{target.get('kind', '')}/{target.get('name', '')}",
        _metrics(*_both(obj, spec, status)),
        UNSET if least is None else str(least),
        spec.get("maxReplicas", 0),
        status.get("currentReplicas", 0),
        age_of(obj, now),
    ]


def _both(obj: Obj, spec: Obj, status: Obj) -> tuple[Sequence[Obj], Sequence[Obj]]:
    """Metrics wanted and measured; autoscaling/v1 has the CPU's utilization only."""
    if obj.get("apiVersion") != "autoscaling/v1":
        return spec.get("metrics") or (), status.get("currentMetrics") or ()
    wanted, found = spec.get("targetCPUUtilizationPercentage"), status.get("currentCPUUtilizationPercentage")
    if wanted is None:
        return (), ()
    target, current = {"averageUtilization": wanted}, {"averageUtilization": found}
    return (
        [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        [] if found is None else [{"type": "Resource", "resource": {"name": "cpu", "current": current}}],
    )


def _metrics(specs: Sequence[Obj], statuses: Sequence[Obj]) -> str:
    """``cpu: 10%/80%`` for each metric, two of them at most (formatHPAMetrics)."""
    if not specs:
        return NONE
    found = [_metric(spec, statuses[i] if i < len(statuses) else {}) for i, spec in enumerate(specs)]
    more = f" + {len(found) - 2} more..." if len(found) > 2 else ""
    return ", ".join(found[:2]) + more


def _metric(spec: Obj, status: Obj) -> str:
    field = _SOURCES.get(spec.get("type", ""))
    if field is None:
        return "<unknown type>"
    source = spec.get(field) or {}
    target, current = source.get("target") or {}, (status.get(field) or {}).get("current") or {}

    def shown(key: str) -> str:
        return f"{current.get(key, '<unknown>')}/{target.get(key)}"

    if field in ("resource", "containerResource"):
        if target.get("averageValue") is not None:
            text = shown("averageValue")
        else:
            used, wanted = current.get("averageUtilization"), target.get("averageUtilization")
            text = "<unknown>" if used is None else f"{used}%"
            text += "/<auto>" if wanted is None else f"/{wanted}%"
        return f"{source.get('name')}: {text}"
    if field == "pods":
        return shown("averageValue")
    return f"{shown('averageValue')} (avg)" if target.get("averageValue") is not None else shown("value")


_COUNT = "integer"
_REPLICAS = (
    NAME,
    Column("Desired", _COUNT, "How many pods there should be."),
    Column("Current", _COUNT, "How many pods there are."),
    Column("Ready", _COUNT, "How many pods are ready."),
    AGE,
    *CONTAINERS,
    *SELECTOR,
)

PRINTERS: dict[str, Printer] = {
    "deployments.apps": Printer(
        (
            NAME,
            Column("Ready", description="How many of its pods are ready."),
            Column("Up-to-date", description="How many pods have the latest template."),
            Column("Available", description="How many pods have been ready for minReadySeconds."),
            AGE, *CONTAINERS, *SELECTOR,
        ),
        _deployment,
    ),
    "replicasets.apps": Printer(_REPLICAS, _replica_set),
    "replicationcontrollers": Printer(_REPLICAS, _replication_controller),
    "daemonsets.apps": Printer(
        (
            NAME,
            Column("Desired", _COUNT, "How many nodes should run its pod."),
            Column("Current", _COUNT, "How many of these run it."),
            Column("Ready", _COUNT, "On how many nodes it is ready."),
            Column("Up-to-date", _COUNT, "On how many nodes it has the latest template."),
            Column("Available", _COUNT, "On how many nodes it is available."),
            Column("Node Selector", description="The labels of the nodes that should run it."),
            AGE, *CONTAINERS, *SELECTOR,
        ),
        _daemon_set,
    ),
    "statefulsets.apps": Printer(
        (NAME, Column("Ready", description="How many of its pods are ready."), AGE, *CONTAINERS),
        _stateful_set,
    ),
    "controllerrevisions.apps": Printer(
        (
            NAME,
            Column("Controller", description="What it is a revision of."),
            Column("Revision", description="Its number."),
            AGE,
        ),
        _revision,
    ),
    "jobs.batch": Printer(
        (
            NAME,
            Column("Status", description="What has become of it."),
            Column("Completions", description="How many pods have succeeded, of how many."),
            Column("Duration", description="How long it took, or has been running."),
            AGE, *CONTAINERS, *SELECTOR,
        ),
        _job,
    ),
    "cronjobs.batch": Printer(
        (
            NAME,
            Column("Schedule", description="When it runs, as crontab(5) has it."),
            Column("Timezone", description="The time zone of its schedule."),
            Column("Suspend", "boolean", "Whether no further runs are begun."),
            Column("Active", _COUNT, "How many jobs are running."),
            Column("Last Schedule", description="The time since it ran last."),
            AGE, *CONTAINERS, *SELECTOR,
        ),
        _cron_job,
    ),
    "poddisruptionbudgets.policy": Printer(
        (
            NAME,
            Column("Min Available", description="How many pods must stay available."),
            Column("Max Unavailable", description="How many pods may be unavailable."),
            Column("Allowed Disruptions", _COUNT, "How many pods may be evicted now."),
            AGE,
        ),
        _disruption_budget,
    ),
    "horizontalpodautoscalers.autoscaling": Printer(
        (
            NAME,
            Column("Reference", description="What it scales."),
            Column("Targets", description="Its metrics: measured and wanted."),
            Column("MinPods", description="The fewest replicas."),
            Column("MaxPods", description="The most replicas."),
            Column("Replicas", description="How many replicas there are."),
            AGE,
        ),
        _autoscaler,
    ),
}  # fmt: skip
