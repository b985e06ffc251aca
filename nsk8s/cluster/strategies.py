"""What an API server writes into new and changed workloads besides defaults (the strategies' PrepareForCreate
and PrepareForUpdate)."""

from __future__ import annotations

from collections.abc import Callable

from nsk8s.api.selectors import matches
from nsk8s.api.types import Obj
from nsk8s.cluster.jobpods import CONTROLLER_UID, identity
from nsk8s.cluster.ownership import selector_of
from nsk8s.errors import ApiError, Problem

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
"""Annotation of a DaemonSet: how often its template has changed (spec.templateGeneration of old)."""


def begun(resource: str, obj: Obj, uid: Callable[[], str]) -> Obj:
    """A new object, as it is to be stored; `uid` gives new ones. Raises `ApiError` 422 for a Job that selects
    pods by itself without saying so."""
    if resource == "daemonsets.apps":
        return _annotated(obj, "1")
    if resource == "jobs.batch" and not obj["spec"].get("manualSelector"):
        return _selecting(obj, uid())
    return obj


def revised(resource: str, old: Obj, new: Obj) -> Obj:
    """An object in place of `old`."""
    if resource == "daemonsets.apps":
        generation = (old["metadata"].get("annotations") or {}).get(TEMPLATE_GENERATION, "1")
        if old["spec"].get("template") != new["spec"].get("template") and generation.isdecimal():
            generation = str(int(generation) + 1)
        return _annotated(new, generation)
    if resource == "services" and new["spec"].get("type") != "LoadBalancer":
        return {**new, "status": {**(new.get("status") or {}), "loadBalancer": {}}}
    return new


def reported(resource: str, obj: Obj) -> Obj:
    """An object with a new status: nodes capture a load balancer's address unless it says otherwise."""
    status = obj.get("status") or {}
    points = (status.get("loadBalancer") or {}).get("ingress") if resource == "services" else None
    if not points:
        return obj
    filled = [
        {**point, "ipMode": "VIP"} if point.get("ip") and "ipMode" not in point else point for point in points
    ]
    return {**obj, "status": {**status, "loadBalancer": {**status["loadBalancer"], "ingress": filled}}}


def _selecting(job: Obj, uid: str) -> Obj:
    """A Job that knows its pods by its own uid (generateSelector), and shows its template's labels if it has
    none of its own (SetDefaults_Job, whenever it is read)."""
    meta, spec = job["metadata"], job["spec"]
    labels = identity(meta.get("name", ""), uid)
    template = spec["template"]
    inner = template.get("metadata") or {}
    template = {**template, "metadata": {**inner, "labels": {**(inner.get("labels") or {}), **labels}}}
    selector = spec.get("selector") or {}
    chosen = {CONTROLLER_UID: uid, **(selector.get("matchLabels") or {})}
    new = {
        **job,
        "metadata": {**meta, "uid": uid, "labels": meta.get("labels") or template["metadata"]["labels"]},
        "spec": {**spec, "selector": {**selector, "matchLabels": chosen}, "template": template},
    }
    if not matches(selector_of(new), labels):
        what = "Invalid value: `selector` not auto-generated"
        problem = Problem("spec.selector", what, "leave it out, or set spec.manualSelector: true")
        raise ApiError(
            422,
            "Invalid",
            f'Job.batch "{meta.get("name", "")}" is invalid: spec.selector: {what}',
            kind="Job",
            name=meta.get("name", ""),
            causes=[problem],
        )
    return new


def _annotated(obj: Obj, generation: str) -> Obj:
    meta = obj["metadata"]
    annotations = {**(meta.get("annotations") or {}), TEMPLATE_GENERATION: generation}
    return {**obj, "metadata": {**meta, "annotations": annotations}}
