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
FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"
"""Annotations of a pod whose index fails on its own: how often it has failed before, and how often that was
ignored."""
INDEX_VARIABLE = "JOB_COMPLETION_INDEX"


class Verdict(NamedTuple):
    """What a podFailurePolicy says of a pod that has failed: FailJob, FailIndex, Ignore or Count, and why."""

    action: str
    message: str


def identity(name: str, uid: str) -> dict[str, str]:
    """The labels of a Job's pods, by names of today and of old."""
    return {CONTROLLER_UID: uid, JOB_NAME: name, "controller-uid": uid, "job-name": name}


def job_pod(job: Obj, index: int | None, before: Pod | None = None) -> Obj:
    """A pod of a Job; of an Indexed one that with `index`, after the one `before` has failed."""
    name, template = job["metadata"]["name"], job["spec"]["template"]
    prefix = f"{name}-"
    if index is not None:
        prefix = f"{name}-{index}-"
        template = _indexed(name, template, index)
        if job["spec"].get("backoffLimitPerIndex") is not None:
            template["metadata"]["annotations"].update(_failures(job["spec"], before))
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


def _failures(spec: Obj, before: Pod | None) -> dict[str, str]:
    """The annotations of a pod that follows one that has failed (getNewIndexFailureCounts)."""
    if before is None:
        return {FAILURES: "0"}
    counted, ignored = failures_before(before)
    verdict = judged(spec, before)
    if verdict is not None and verdict.action == "Ignore":
        ignored += 1
    else:
        counted += 1
    return {FAILURES: str(counted), **({IGNORED: str(ignored)} if ignored else {})}


def failures_before(pod: Pod) -> tuple[int, int]:
    """How often a pod's index had failed when it was made: so that it counts, and ignored."""
    texts = (pod.metadata.annotations.get(name, "") for name in (FAILURES, IGNORED))
    counted, ignored = (int(text) if text.isascii() and text.isdecimal() else 0 for text in texts)
    return counted, ignored


def fails_index(spec: Obj, pod: Pod) -> bool:
    """Whether the index of a failed pod has failed with it (isIndexFailed)."""
    verdict = judged(spec, pod)
    if verdict is not None and verdict.action in ("FailIndex", "Ignore"):
        return verdict.action == "FailIndex"
    return failures_before(pod)[0] >= int(spec["backoffLimitPerIndex"])


def failed(spec: Obj, pod: Pod) -> bool:
    """Whether a pod counts as failed; one that is being deleted does so at once, unless the Job replaces only
    those that have failed (isPodFailed)."""
    if pod.status.phase == "Failed":
        return True
    deleted_too = spec.get("podReplacementPolicy") != "Failed"
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
        for condition in () if codes else pod.status.conditions:
            for pattern in rule.get("onPodConditions") or ():
                if (condition.type, condition.status) == (pattern["type"], pattern.get("status", "True")):
                    return Verdict(rule["action"], f"Pod {where} has condition {condition.type} {end}")
    return None


def _exits(pod: Pod) -> Iterator[tuple[str, int]]:
    for status in (*pod.status.containerStatuses, *pod.status.initContainerStatuses):
        state: dict[str, Any] | None = status.state.get("terminated")
        if state is not None:
            yield status.name, int(state.get("exitCode", 0))


def ended(pod: Pod) -> str:
    """When its last container ended."""
    states: list[dict[str, Any]] = [s.state.get("terminated") or {} for s in pod.status.containerStatuses]
    return max((state.get("finishedAt") or "" for state in states), default="")
