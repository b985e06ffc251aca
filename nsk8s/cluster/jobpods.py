"""The pods of a Job: what they carry, and what their end means (pkg/controller/job: pod templates, indexes,
podFailurePolicy)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from nsk8s.api.types import Obj, Pod
from nsk8s.cluster.ownership import NAME_ROOM, from_template

JOB_NAME = "batch.kubernetes.io/job-name"
CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
"""Label and annotation of an Indexed Job's pod."""
FINALIZER = "batch.kubernetes.io/job-tracking"
"""Keeps a pod until it is counted."""
INDEX_VARIABLE = "JOB_COMPLETION_INDEX"


class Verdict(NamedTuple):
    """What a podFailurePolicy says of a pod that has failed: FailJob, Ignore or Count, and why."""

    action: str
    message: str


def identity(name: str, uid: str) -> dict[str, str]:
    """The labels of a Job's pods, by names of today and of old."""
    return {CONTROLLER_UID: uid, JOB_NAME: name, "controller-uid": uid, "job-name": name}


def job_pod(job: Obj, index: int | None) -> Obj:
    """A pod of a Job; of an Indexed one that with `index`."""
    name, template = job["metadata"]["name"], job["spec"]["template"]
    prefix = f"{name}-"
    if index is not None:
        prefix = f"{name}-{index}-"
        template = _indexed(name, template, index)
    return from_template(job, template, generateName=_short(prefix), finalizers=[FINALIZER])


def _short(prefix: str) -> str:
    return prefix if len(prefix) <= NAME_ROOM else prefix[: NAME_ROOM - 1] + "-"


def _indexed(name: str, template: Obj, index: int) -> Obj:
    meta, spec = dict(template.get("metadata") or {}), dict(template["spec"])
    for field in ("labels", "annotations"):
        meta[field] = {**(meta.get(field) or {}), COMPLETION_INDEX: str(index)}
    spec["hostname"] = f"{name}-{index}"
    for field in ("initContainers", "containers"):
        if spec.get(field):
            spec[field] = [_with_index(container) for container in spec[field]]
    return {**template, "metadata": meta, "spec": spec}


def _with_index(container: Obj) -> Obj:
    env = container.get("env") or []
    if any(variable["name"] == INDEX_VARIABLE for variable in env):
        return container
    source = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{COMPLETION_INDEX}']"}}
    return {**container, "env": [*env, {"name": INDEX_VARIABLE, "valueFrom": source}]}


def index_of(pod: Pod) -> int | None:
    """The completion index of a pod, if it has one."""
    text = pod.metadata.annotations.get(COMPLETION_INDEX, "")
    return int(text) if text.isdecimal() else None


def failed(pod: Pod, *, deleted_too: bool) -> bool:
    """Whether a pod counts as failed; one that is being deleted does so at once, if `deleted_too`
    (isPodFailed)."""
    if pod.status.phase == "Failed":
        return True
    return deleted_too and bool(pod.metadata.deletionTimestamp) and pod.status.phase != "Succeeded"


def judged(spec: Obj, pod: Pod) -> Verdict | None:
    """What the first rule of the Job's podFailurePolicy that applies says of a failed pod
    (matchPodFailurePolicy)."""
    if pod.status.phase != "Failed":
        return None
    where = f"{pod.metadata.namespace}/{pod.metadata.name}"
    for position, rule in enumerate((spec.get("podFailurePolicy") or {}).get("rules") or ()):
        end = f"matching {rule['action']} rule at index {position}"
        codes = rule.get("onExitCodes")
        if codes:
            for name, code in _exits(pod):
                wanted = codes.get("containerName") in (None, name)
                listed = code in codes["values"]
                if wanted and code != 0 and listed is (codes["operator"] == "In"):
                    what = f"Container {name} for pod {where} failed with exit code {code} {end}"
                    return Verdict(rule["action"], what)
        for pattern in rule.get("onPodConditions") or ():
            for condition in pod.status.conditions:
                if (condition.type, condition.status) == (pattern["type"], pattern.get("status", "True")):
                    return Verdict(rule["action"], f"Pod {where} has condition {condition.type} {end}")
    return None


def _exits(pod: Pod) -> Iterator[tuple[str, int]]:
    for status in (*pod.status.initContainerStatuses, *pod.status.containerStatuses):
        ended: dict[str, Any] | None = status.state.get("terminated")
        if ended is not None:
            yield status.name, int(ended.get("exitCode", 0))
