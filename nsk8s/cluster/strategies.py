"""What an API server writes into new and changed workloads besides defaults (the strategies' PrepareForCreate
and PrepareForUpdate)."""

from __future__ import annotations

from nsk8s.api.types import Obj

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
"""Annotation of a DaemonSet: how often its template has changed (spec.templateGeneration of old)."""


def begun(resource: str, obj: Obj) -> Obj:
    """A new object, as it is to be stored."""
    if resource == "daemonsets.apps":
        return _annotated(obj, "1")
    return obj


def revised(resource: str, old: Obj, new: Obj) -> Obj:
    """An object in place of `old`."""
    if resource == "daemonsets.apps":
        generation = (old["metadata"].get("annotations") or {}).get(TEMPLATE_GENERATION, "1")
        if old["spec"].get("template") != new["spec"].get("template") and generation.isdecimal():
            generation = str(int(generation) + 1)
        return _annotated(new, generation)
    return new


def _annotated(obj: Obj, generation: str) -> Obj:
    meta = obj["metadata"]
    annotations = {**(meta.get("annotations") or {}), TEMPLATE_GENERATION: generation}
    return {**obj, "metadata": {**meta, "annotations": annotations}}
