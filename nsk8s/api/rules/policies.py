"""PodDisruptionBudgets and autoscalers (`pkg/apis/{policy,autoscaling}/validation`)."""

from __future__ import annotations

from typing import Any

from nsk8s.api import names
from nsk8s.api.findings import Findings
from nsk8s.api.rules.rule import AnyObject, Rule
from nsk8s.api.rules.workloads import amount, label_selector
from nsk8s.api.types import IntOrString, LabelSelector, Struct


class BudgetSpec(Struct, frozen=True):
    """A PodDisruptionBudgetSpec."""

    minAvailable: IntOrString | None = None
    maxUnavailable: IntOrString | None = None
    selector: LabelSelector | None = None
    unhealthyPodEvictionPolicy: str | None = None


class Budget(AnyObject, frozen=True):
    """A PodDisruptionBudget."""

    spec: BudgetSpec = BudgetSpec()


def _budget(view: Budget, findings: Findings) -> None:
    spec = view.spec
    bounds = {"minAvailable": spec.minAvailable, "maxUnavailable": spec.maxUnavailable}
    given = {field: value for field, value in bounds.items() if value is not None}
    if len(given) == 2:
        findings.invalid("spec", given, "minAvailable and maxUnavailable cannot be both set")
    for field, value in given.items():
        found = amount(f"spec.{field}", value, findings)
        if isinstance(value, str) and found is not None and found > 100:
            findings.invalid(f"spec.{field}", value, "must not be greater than 100%")
    if spec.selector is not None:
        label_selector(spec.selector, "spec.selector", findings)
    if spec.unhealthyPodEvictionPolicy is not None:
        words = ("AlwaysAllow", "IfHealthyBudget")
        findings.one_of("spec.unhealthyPodEvictionPolicy", spec.unhealthyPodEvictionPolicy, words)


# --- autoscalers ------------------------------------------------------------------------------------

SOURCES = ("ContainerResource", "External", "Object", "Pods", "Resource")


class ScaleTarget(Struct, frozen=True):
    """A CrossVersionObjectReference."""

    kind: str = ""
    name: str = ""


class AutoscalerSpec(Struct, frozen=True):
    """A HorizontalPodAutoscalerSpec, of version 1 or 2."""

    scaleTargetRef: ScaleTarget = ScaleTarget()
    minReplicas: int | None = None
    maxReplicas: int = 0
    metrics: tuple[dict[str, Any], ...] = ()
    targetCPUUtilizationPercentage: int | None = None


class Autoscaler(AnyObject, frozen=True):
    """A HorizontalPodAutoscaler."""

    spec: AutoscalerSpec = AutoscalerSpec()


def _autoscaler(view: Autoscaler, findings: Findings) -> None:
    spec = view.spec
    if spec.minReplicas is not None and spec.minReplicas < 1:
        findings.invalid("spec.minReplicas", spec.minReplicas, "must be greater than or equal to 1")
    if spec.maxReplicas < 1:
        findings.invalid("spec.maxReplicas", spec.maxReplicas, "must be greater than 0")
    if spec.minReplicas is not None and spec.maxReplicas < spec.minReplicas:
        why = "must be greater than or equal to `minReplicas`"
        findings.invalid("spec.maxReplicas", spec.maxReplicas, why)
    for field, value in (("kind", spec.scaleTargetRef.kind), ("name", spec.scaleTargetRef.name)):
        at = f"spec.scaleTargetRef.{field}"
        if not value:
            findings.required(at)
        elif wrong := names.path_segment(value):
            findings.invalid(at, value, wrong)
    percentage = spec.targetCPUUtilizationPercentage
    if percentage is not None and percentage < 1:
        findings.invalid("spec.targetCPUUtilizationPercentage", percentage, "must be greater than 0")
    for i, metric in enumerate(spec.metrics):
        _metric(metric, f"spec.metrics[{i}]", findings)


def _metric(metric: dict[str, Any], at: str, findings: Findings) -> None:
    kind = metric.get("type") or ""
    if not kind:
        findings.required(f"{at}.type", "must specify a metric source type")
    findings.one_of(f"{at}.type", kind, SOURCES)
    if kind not in SOURCES:
        return
    wanted = kind[0].lower() + kind[1:]
    fields = [name[0].lower() + name[1:] for name in SOURCES]
    source = metric.get(wanted)
    if not isinstance(source, dict):
        findings.required(f"{at}.{wanted}", "must populate information for the given metric source")
    elif kind in ("Resource", "ContainerResource"):
        if not source.get("name"):
            findings.required(f"{at}.{wanted}.name", "must specify a resource name")
        target = source.get("target")
        target = target if isinstance(target, dict) else {}
        if target.get("averageUtilization") is None and target.get("averageValue") is None:
            why = "must set either a target raw value or a target utilization"
            findings.required(f"{at}.{wanted}.target.averageUtilization", why)
    for field in fields:
        if field != wanted and metric.get(field) is not None:
            findings.forbidden(f"{at}.{field}", "must populate the given metric source only")


RULES: dict[str, Rule] = {
    "PodDisruptionBudget": Rule(Budget, _budget),
    "HorizontalPodAutoscaler": Rule(Autoscaler, _autoscaler),
}
