"""Objects in another version of their kind: what upstream's `pkg/apis/*/*/conversion.go` and the defaults
of old versions do.

Conversion never fails: fields of a wrong type stay as they are, for `validation` to find.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from nsk8s.api.kinds import Resource
from nsk8s.api.types import Obj

Convert = Callable[[Obj], Obj]
Fields = dict[str, Any]

MAX_INT32 = 2**31 - 1
EMPTY_SELECTOR = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match"
"""How policy/v1 says what an empty selector was in v1beta1: no pods (upstream's name)."""
HPA = "autoscaling.alpha.kubernetes.io"
"""Prefix of the annotations that hold what autoscaling/v1 has no fields for."""


def convert(obj: Obj, to: Resource) -> Obj:
    """`obj` as an object of `to`, a version of the same stored kind; `obj` itself if it is one, or is
    something else in its place, such as a Scale."""
    given, kind = obj.get("apiVersion"), to.kind
    if given == to.api_version or obj.get("kind") != kind:
        return obj
    if (up := _UP.get((str(given), kind))) is not None:
        obj = up(obj)
    if (down := _DOWN.get((to.api_version, kind))) is not None:
        obj = down(obj)
    return {**obj, "apiVersion": to.api_version}


def _at(obj: object, *path: str) -> Fields:
    """The mapping at `path`; an empty one if there is none."""
    for key in path:
        obj = obj.get(key) if isinstance(obj, dict) else None
    return obj if isinstance(obj, dict) else {}


def _renamed(obj: Obj, names: Mapping[str, str]) -> Obj:
    return {names.get(key, key): value for key, value in obj.items()}


def _with_spec(obj: Obj, change: Callable[[Fields], Fields]) -> Obj:
    spec = obj.get("spec")
    return {**obj, "spec": change(spec)} if isinstance(spec, dict) else obj


# --- events -----------------------------------------------------------------------------------------

_EVENT = {
    "regarding": "involvedObject",
    "note": "message",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
    "reportingController": "reportingComponent",
}
"""Fields of events.k8s.io/v1 and what core/v1 calls them."""
_CORE_EVENT = {core: new for new, core in _EVENT.items()}


def _event_up(obj: Obj) -> Obj:
    return _renamed(obj, _EVENT)


def _event_down(obj: Obj) -> Obj:
    return _renamed(obj, _CORE_EVENT)


# --- autoscaling ------------------------------------------------------------------------------------


def _autoscaler_up(obj: Obj) -> Obj:
    """autoscaling/v1 -> v2: the CPU target is one of the metrics, the others stand in an annotation."""
    annotations = dict(_at(obj, "metadata", "annotations"))
    metrics = [_metric_up(m) for m in _listed(annotations.pop(f"{HPA}/metrics", None))]
    behavior = _parsed(annotations.pop(f"{HPA}/behavior", None))
    conditions = _listed(annotations.pop(f"{HPA}/conditions", None))
    annotations.pop(f"{HPA}/current-metrics", None)

    def change(spec: Fields) -> Fields:
        spec = dict(spec)
        cpu = spec.pop("targetCPUUtilizationPercentage", None)
        found = [_resource_metric("cpu", cpu), *metrics] if cpu is not None else metrics
        return spec | ({"metrics": found} if found else {}) | ({"behavior": behavior} if behavior else {})

    new = _with_spec(obj, change)
    if isinstance(status := obj.get("status"), dict):
        status = dict(status)
        cpu = status.pop("currentCPUUtilizationPercentage", None)
        if cpu is not None:
            current = {"name": "cpu", "current": {"averageUtilization": cpu}}
            status["currentMetrics"] = [{"type": "Resource", "resource": current}]
        new = {**new, "status": status | ({"conditions": conditions} if conditions else {})}
    return _annotated(new, annotations)


def _autoscaler_down(obj: Obj) -> Obj:
    """autoscaling/v2 -> v1."""
    annotations = dict(_at(obj, "metadata", "annotations"))

    def change(spec: Fields) -> Fields:
        spec = dict(spec)
        others = []
        for metric in spec.pop("metrics", None) or ():
            target = _at(metric, "resource", "target")
            if _at(metric, "resource").get("name") == "cpu" and "averageUtilization" in target:
                spec["targetCPUUtilizationPercentage"] = target["averageUtilization"]
            else:
                others.append(_metric_down(metric))
        if others:
            annotations[f"{HPA}/metrics"] = _compact(others)
        if behavior := spec.pop("behavior", None):
            annotations[f"{HPA}/behavior"] = _compact(behavior)
        return spec

    new = _with_spec(obj, change)
    if isinstance(status := obj.get("status"), dict):
        status = dict(status)
        for metric in status.pop("currentMetrics", None) or ():
            current = _at(metric, "resource", "current")
            if _at(metric, "resource").get("name") == "cpu" and "averageUtilization" in current:
                status["currentCPUUtilizationPercentage"] = current["averageUtilization"]
        if conditions := status.pop("conditions", None):
            annotations[f"{HPA}/conditions"] = _compact(conditions)
        new = {**new, "status": status}
    return _annotated(new, annotations)


def _resource_metric(name: str, utilization: object) -> Fields:
    target = {"type": "Utilization", "averageUtilization": utilization}
    return {"type": "Resource", "resource": {"name": name, "target": target}}


_SOURCES = ("resource", "containerResource", "pods", "object", "external")


def _metric_up(metric: Fields) -> Fields:
    """A metric as autoscaling/v1 annotates it -> v2: names and targets are in objects of their own."""
    new = dict(metric)
    for source in _SOURCES:
        if not isinstance(old := metric.get(source), dict):
            continue
        old = dict(old)
        target: Fields = {}
        for field, type_, value in (
            ("targetAverageUtilization", "Utilization", "averageUtilization"),
            ("targetAverageValue", "AverageValue", "averageValue"),
            ("averageValue", "AverageValue", "averageValue"),
            ("targetValue", "Value", "value"),
        ):
            if old.get(field) is not None:
                target = {"type": type_, value: old.pop(field)}
        found: Fields = {"target": target}
        if source == "object":
            found["describedObject"] = old.pop("target", {})
        if "metricName" in old:
            selector = old.pop("metricSelector", None) or old.pop("selector", None)
            found["metric"] = {"name": old.pop("metricName")} | ({"selector": selector} if selector else {})
        new[source] = {**old, **found}
    return new


def _metric_down(metric: Fields) -> Fields:
    """The reverse of `_metric_up`."""
    new = dict(metric)
    for source in _SOURCES:
        if not isinstance(old := metric.get(source), dict):
            continue
        old = dict(old)
        target, name = _at(old, "target"), _at(old, "metric")
        old.pop("target", None)
        old.pop("metric", None)
        found: Fields = {}
        if source == "object":
            found["target"] = old.pop("describedObject", {})
        if name:
            found["metricName"] = name.get("name")
            if selector := name.get("selector"):
                found["metricSelector" if source == "external" else "selector"] = selector
        average = "averageValue" if source == "object" else "targetAverageValue"
        for field, value in (
            ("targetAverageUtilization", "averageUtilization"),
            (average, "averageValue"),
            ("targetValue", "value"),
        ):
            if target.get(value) is not None:
                found[field] = target[value]
        new[source] = {**old, **found}
    return new


def _annotated(obj: Obj, annotations: Fields) -> Obj:
    meta = obj.get("metadata")
    if not isinstance(meta, dict) or annotations == (meta.get("annotations") or {}):
        return obj
    meta = {key: value for key, value in meta.items() if key != "annotations"}
    return {**obj, "metadata": meta | ({"annotations": annotations} if annotations else {})}


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _parsed(text: object) -> Any:  # noqa: ANN401  # any JSON
    try:
        return json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None  # upstream ignores what it cannot read here, too


def _listed(text: object) -> list[Fields]:
    found = _parsed(text)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


# --- ingresses --------------------------------------------------------------------------------------


def _ingress_up(obj: Obj) -> Obj:
    """v1beta1 -> v1: a backend's service and port are in an object of their own."""

    def change(spec: Fields) -> Fields:
        spec = _renamed(spec, {"backend": "defaultBackend"})
        if "defaultBackend" in spec:
            spec["defaultBackend"] = _backend_up(spec["defaultBackend"])

        def path(one: Fields) -> Fields:
            given = {"pathType": "ImplementationSpecific", **one}
            return given | ({"backend": _backend_up(one["backend"])} if "backend" in one else {})

        return _with_paths(spec, path)

    return _with_spec(obj, change)


def _ingress_down(obj: Obj) -> Obj:
    def change(spec: Fields) -> Fields:
        spec = _renamed(spec, {"defaultBackend": "backend"})
        if "backend" in spec:
            spec["backend"] = _backend_down(spec["backend"])

        def path(one: Fields) -> Fields:
            if one.get("pathType") == "ImplementationSpecific":  # the only one there was: nobody wrote it
                one = {key: value for key, value in one.items() if key != "pathType"}
            return one | ({"backend": _backend_down(one["backend"])} if "backend" in one else {})

        return _with_paths(spec, path)

    return _with_spec(obj, change)


def _with_paths(spec: Fields, change: Callable[[Fields], Fields]) -> Fields:
    if not isinstance(rules := spec.get("rules"), list):
        return spec
    new = []
    for rule in rules:
        paths = _at(rule, "http").get("paths")
        if isinstance(paths, list):
            changed = [change(one) if isinstance(one, dict) else one for one in paths]
            new.append({**rule, "http": {**rule["http"], "paths": changed}})
        else:
            new.append(rule)
    return {**spec, "rules": new}


def _backend_up(backend: object) -> object:
    if not isinstance(backend, dict) or not {"serviceName", "servicePort"} & backend.keys():
        return backend
    port = backend.get("servicePort")
    service: Fields = {"name": backend.get("serviceName", "")}
    if port is not None:
        service["port"] = {"number" if isinstance(port, int) else "name": port}
    rest = {k: v for k, v in backend.items() if k not in ("serviceName", "servicePort")}
    return {**rest, "service": service}


def _backend_down(backend: object) -> object:
    service = _at(backend, "service")
    if not isinstance(backend, dict) or not service:
        return backend
    port = _at(service, "port")
    found = {k: v for k, v in backend.items() if k != "service"} | {"serviceName": service.get("name", "")}
    number = port.get("number") or port.get("name")
    return found if number is None else {**found, "servicePort": number}


# --- workloads --------------------------------------------------------------------------------------


def _workload_up(defaults: Mapping[str, Any], *, selects: bool) -> Convert:
    """An old workload -> apps/v1, with the `defaults` that its version had and apps/v1 has not. `selects`:
    its selector is, if left out, that of the template's labels."""

    def up(obj: Obj) -> Obj:
        def change(spec: Fields) -> Fields:
            spec = {k: v for k, v in spec.items() if k not in ("rollbackTo", "templateGeneration")}
            labels = _at(spec, "template", "metadata", "labels")
            if selects and not spec.get("selector") and labels:
                spec["selector"] = {"matchLabels": labels}
            for field, value in defaults.items():
                spec.setdefault(field, value)
            strategy = _at(spec, "strategy")
            if "strategy" in defaults and strategy.get("type", "RollingUpdate") == "RollingUpdate":
                rolling = {**defaults["strategy"]["rollingUpdate"], **_at(strategy, "rollingUpdate")}
                spec["strategy"] = {**strategy, "type": "RollingUpdate", "rollingUpdate": rolling}
            return spec

        return _with_spec(obj, change)

    return up


_ONE = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}}
_LATER = {"type": "OnDelete"}

# --- disruption budgets -----------------------------------------------------------------------------


def _budget_up(obj: Obj) -> Obj:
    """policy/v1beta1 -> v1: an empty selector selected nothing, and now selects everything."""
    nothing = {"matchExpressions": [{"key": EMPTY_SELECTOR, "operator": "Exists"}]}
    if _at(obj, "spec").get("selector") != {}:
        return obj
    return _with_spec(obj, lambda spec: {**spec, "selector": nothing})


def _budget_down(obj: Obj) -> Obj:
    nothing = {"matchExpressions": [{"key": EMPTY_SELECTOR, "operator": "Exists"}]}
    if _at(obj, "spec").get("selector") != nothing:
        return obj
    return _with_spec(obj, lambda spec: {**spec, "selector": {}})


_UP: dict[tuple[str, str], Convert] = {
    ("events.k8s.io/v1", "Event"): _event_up,
    ("autoscaling/v1", "HorizontalPodAutoscaler"): _autoscaler_up,
    ("extensions/v1beta1", "Ingress"): _ingress_up,
    ("networking.k8s.io/v1beta1", "Ingress"): _ingress_up,
    ("policy/v1beta1", "PodDisruptionBudget"): _budget_up,
    ("extensions/v1beta1", "Deployment"): _workload_up(
        {"strategy": _ONE, "revisionHistoryLimit": MAX_INT32, "progressDeadlineSeconds": MAX_INT32},
        selects=True,
    ),
    ("extensions/v1beta1", "ReplicaSet"): _workload_up({}, selects=True),
    ("extensions/v1beta1", "DaemonSet"): _workload_up({"updateStrategy": _LATER}, selects=True),
    ("apps/v1beta1", "Deployment"): _workload_up({"revisionHistoryLimit": 2}, selects=True),
    ("apps/v1beta1", "StatefulSet"): _workload_up({"updateStrategy": _LATER}, selects=True),
}
"""(apiVersion, kind) -> how it becomes the version that is stored; others differ in apiVersion only."""
_DOWN: dict[tuple[str, str], Convert] = {
    ("events.k8s.io/v1", "Event"): _event_down,
    ("autoscaling/v1", "HorizontalPodAutoscaler"): _autoscaler_down,
    ("extensions/v1beta1", "Ingress"): _ingress_down,
    ("networking.k8s.io/v1beta1", "Ingress"): _ingress_down,
    ("policy/v1beta1", "PodDisruptionBudget"): _budget_down,
}
"""(apiVersion, kind) -> how it is made of the version that is stored."""
