"""Deployments and ReplicaSets (`pkg/apis/apps/validation`), and what all controllers have."""

from __future__ import annotations

import re

from nsk8s.api import names
from nsk8s.api.findings import Findings
from nsk8s.api.rules.pods import pod_spec
from nsk8s.api.rules.rule import Rule
from nsk8s.api.selectors import OPERATORS, matches
from nsk8s.api.types import Deployment, LabelSelector, Obj, PodTemplate, ReplicaSet

_is_percentage = re.compile("[0-9]+%").fullmatch


def deployment(view: Deployment, findings: Findings) -> None:
    """A Deployment."""
    spec = view.spec
    findings.at_least("spec.replicas", spec.replicas, 0)
    findings.at_least("spec.minReadySeconds", spec.minReadySeconds, 0)
    findings.at_least("spec.revisionHistoryLimit", spec.revisionHistoryLimit, 0)
    selected_template(spec.selector, spec.template, "deployment", findings)
    strategy = spec.strategy
    findings.one_of("spec.strategy.type", strategy.type, ("Recreate", "RollingUpdate"))
    rolling = strategy.rollingUpdate
    if rolling is None:
        return
    path = "spec.strategy.rollingUpdate"
    if strategy.type == "Recreate":
        findings.forbidden(path, "may not be specified when strategy `type` is 'Recreate'")
        return
    surge = amount(f"{path}.maxSurge", rolling.maxSurge, findings)
    unavailable = amount(f"{path}.maxUnavailable", rolling.maxUnavailable, findings)
    if surge == 0 and unavailable == 0:
        findings.invalid(
            f"{path}.maxUnavailable", rolling.maxUnavailable, "may not be 0 when `maxSurge` is 0"
        )
    if isinstance(rolling.maxUnavailable, str) and unavailable is not None and unavailable > 100:
        findings.invalid(f"{path}.maxUnavailable", rolling.maxUnavailable, "must not be greater than 100%")


def replicaset(view: ReplicaSet, findings: Findings) -> None:
    """A ReplicaSet."""
    findings.at_least("spec.replicas", view.spec.replicas, 0)
    findings.at_least("spec.minReadySeconds", view.spec.minReadySeconds, 0)
    selected_template(view.spec.selector, view.spec.template, "replicaset", findings)


def selected_template(selector: LabelSelector, template: PodTemplate, kind: str, findings: Findings) -> None:
    """A template, and that the controller's selector selects its pods."""
    labels = template.metadata.labels
    before = len(findings.problems)
    label_selector(selector, "spec.selector", findings)
    if not selector.matchLabels and not selector.matchExpressions:
        findings.required(
            "spec.selector",
            f"empty selector is invalid for {kind}",
            "repeat labels of spec.template.metadata.labels under spec.selector.matchLabels",
        )
    elif len(findings.problems) == before and not matches(selector, labels):
        wanted = ", ".join(f"{k}: {v}" for k, v in (selector.matchLabels or {}).items() if labels.get(k) != v)
        findings.invalid(
            "spec.template.metadata.labels",
            labels,
            "`selector` does not match template `labels`",
            f"add {wanted} to the template, or change spec.selector" if wanted else "make them match",
        )
    template_of(template, findings)


def template_of(template: PodTemplate, findings: Findings) -> None:
    """The template of pods that are there for good, at ``spec.template``."""
    findings.labels("spec.template.metadata.labels", template.metadata.labels)
    pod_spec(template.spec, "spec.template.spec", findings)
    if template.spec.restartPolicy in ("OnFailure", "Never"):
        findings.one_of("spec.template.spec.restartPolicy", template.spec.restartPolicy, ("Always",))


def label_selector(selector: LabelSelector, path: str, findings: Findings) -> None:
    """Keys, values and operators of a LabelSelector."""
    findings.labels(f"{path}.matchLabels", selector.matchLabels)
    for i, requirement in enumerate(selector.matchExpressions or ()):
        at = f"{path}.matchExpressions[{i}]"
        if wrong := names.label_key(requirement.key):
            findings.invalid(f"{at}.key", requirement.key, wrong)
        values = requirement.values or ()
        if requirement.operator not in OPERATORS:
            near = names.nearest(requirement.operator, OPERATORS)
            findings.invalid(
                f"{at}.operator",
                requirement.operator,
                "not a valid selector operator",
                f'did you mean "{near}"?' if near else f"one of {', '.join(OPERATORS)}",
            )
        elif requirement.operator in ("In", "NotIn"):
            if not values:
                findings.required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif values:
            findings.forbidden(
                f"{at}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            )
        for j, value in enumerate(values):
            if wrong := names.label_value(value):
                findings.invalid(f"{at}.values[{j}]", value, wrong)


def amount(path: str, value: int | str, findings: Findings) -> int | None:
    """The number of a count or a percentage; None with a finding if it is neither."""
    if isinstance(value, int):
        findings.at_least(path, value, 0)
        return value
    if _is_percentage(value):
        return int(value[:-1])
    findings.invalid(
        path,
        value,
        "a valid percent string must be a numeric string followed by an ending '%' "
        "(e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
    )
    return None


def _selector_update(old: Obj, new: Obj, findings: Findings) -> None:
    before, after = old["spec"].get("selector"), new["spec"].get("selector")
    if before != after:
        hint = "delete it and create it with the new one"
        findings.invalid("spec.selector", after, "field is immutable", hint)


RULES: dict[str, Rule] = {
    "Deployment": Rule(Deployment, deployment, update=_selector_update),
    "ReplicaSet": Rule(ReplicaSet, replicaset, update=_selector_update),
}
