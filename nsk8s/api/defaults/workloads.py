"""What makes pods (`pkg/apis/{apps,batch,autoscaling}/*/defaults.go`, and ReplicationControllers)."""

from __future__ import annotations

from typing import Any

from nsk8s.api.defaults.fill import Fill, beneath, defaults_of, filled, within
from nsk8s.api.defaults.pods import template
from nsk8s.api.types import Obj

NO_LIMIT = 2**31 - 1

PATTERNS = ("podFailurePolicy", "rules", "onPodConditions")
PATTERN = defaults_of({"status": "True"})


def _of_spec(fill: Fill) -> Fill:
    return lambda obj: within(obj, "spec", fill)


def _rolling(strategy: object, defaults: dict[str, Any]) -> object:
    """A strategy that rolls, unless it says otherwise, in steps of `defaults`."""
    if type(strategy) is not dict:
        return strategy
    new = filled(strategy, {"type": "RollingUpdate"})
    if new["type"] == "RollingUpdate":
        new = within(filled(new, {"rollingUpdate": {}}), "rollingUpdate", lambda r: filled(r, defaults))
    return new


def _deployment(spec: dict[str, Any]) -> dict[str, Any]:
    new = filled(
        template(spec),
        {"replicas": 1, "strategy": {}, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600},
    )
    return {**new, "strategy": _rolling(new["strategy"], {"maxSurge": "25%", "maxUnavailable": "25%"})}


def _replica_set(spec: dict[str, Any]) -> dict[str, Any]:
    return filled(template(spec), {"replicas": 1})


def _daemon_set(spec: dict[str, Any]) -> dict[str, Any]:
    new = filled(template(spec), {"updateStrategy": {}, "revisionHistoryLimit": 10})
    return {**new, "updateStrategy": _rolling(new["updateStrategy"], {"maxSurge": 0, "maxUnavailable": 1})}


def _stateful_set(spec: dict[str, Any]) -> dict[str, Any]:
    new = filled(
        template(spec),
        {
            "podManagementPolicy": "OrderedReady",
            "replicas": 1,
            "revisionHistoryLimit": 10,
            "updateStrategy": {},
            "persistentVolumeClaimRetentionPolicy": {},
        },
    )
    new["updateStrategy"] = _rolling(new["updateStrategy"], {"partition": 0})
    keep = {"whenDeleted": "Retain", "whenScaled": "Retain"}
    return within(new, "persistentVolumeClaimRetentionPolicy", lambda policy: filled(policy, keep))


def _template_labels(obj: Obj) -> Any:  # noqa: ANN401  # any JSON
    found: Any = obj
    for key in ("spec", "template", "metadata", "labels"):
        found = found.get(key) if type(found) is dict else None
    return found


def _with_labels(obj: Obj) -> Obj:
    """Without labels of its own it has those of its template."""
    labels, meta = _template_labels(obj), obj.get("metadata")
    if not labels or type(meta) is not dict or meta.get("labels"):
        return obj
    return {**obj, "metadata": {**meta, "labels": labels}}


def _replication_controller(obj: Obj) -> Obj:
    labels = _template_labels(obj)

    def fill(spec: dict[str, Any]) -> dict[str, Any]:
        if labels and not spec.get("selector"):
            spec = {**spec, "selector": labels}
        return filled(template(spec), {"replicas": 1})

    return within(_with_labels(obj), "spec", fill)


def _job(obj: Obj) -> Obj:
    def fill(spec: dict[str, Any]) -> dict[str, Any]:
        new = template(spec)
        if "completions" not in new and "parallelism" not in new:
            new = {**new, "completions": 1}
        new = beneath(new, PATTERNS, PATTERN)
        policy = "Failed" if "podFailurePolicy" in new else "TerminatingOrFailed"
        return filled(
            new,
            {
                "parallelism": 1,
                "backoffLimit": NO_LIMIT if "backoffLimitPerIndex" in new else 6,
                "completionMode": "NonIndexed",
                "suspend": False,
                "podReplacementPolicy": policy,
                "manualSelector": False,
            },
        )

    return within(_with_labels(obj), "spec", fill)


def _cron_job(spec: dict[str, Any]) -> dict[str, Any]:
    return filled(
        beneath(
            beneath(spec, ("jobTemplate", "spec"), template), ("jobTemplate", "spec", *PATTERNS), PATTERN
        ),
        {
            "concurrencyPolicy": "Allow",
            "suspend": False,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 1,
        },
    )


_PERCENT = {"type": "Percent", "value": 100, "periodSeconds": 15}
_PODS = {"type": "Pods", "value": 4, "periodSeconds": 15}
_UP = {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [_PODS, _PERCENT]}
_DOWN = {"selectPolicy": "Max", "policies": [_PERCENT]}


def _autoscaler(obj: Obj) -> Obj:
    def behave(behavior: dict[str, Any]) -> dict[str, Any]:
        new = filled(behavior, {"scaleUp": {}, "scaleDown": {}})
        new = within(new, "scaleUp", lambda rules: filled(rules, _UP))
        return within(new, "scaleDown", lambda rules: filled(rules, _DOWN))

    def fill(spec: dict[str, Any]) -> dict[str, Any]:
        new = filled(spec, {"minReplicas": 1})
        if obj.get("apiVersion") == "autoscaling/v1":
            return new
        if not new.get("metrics"):
            target = {"type": "Utilization", "averageUtilization": 80}
            new["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
        return within(new, "behavior", behave)

    return within(obj, "spec", fill)


KINDS: dict[str, Fill] = {
    "Deployment": _of_spec(_deployment),
    "ReplicaSet": _of_spec(_replica_set),
    "DaemonSet": _of_spec(_daemon_set),
    "StatefulSet": _of_spec(_stateful_set),
    "ReplicationController": _replication_controller,
    "Job": _job,
    "CronJob": _of_spec(_cron_job),
    "HorizontalPodAutoscaler": _autoscaler,
}
