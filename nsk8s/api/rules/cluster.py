"""Nodes, namespaces, quotas, limits, leases, priorities and events (`pkg/apis/*/validation`)."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from nsk8s.api import names
from nsk8s.api.defaults.pods import CRITICAL
from nsk8s.api.findings import Findings, below
from nsk8s.api.quantities import QUANTITIES, quantity
from nsk8s.api.rules import pods
from nsk8s.api.rules.rule import AnyObject, Rule, frozen
from nsk8s.api.types import Node, Obj, ObjectReference, Struct

HIGHEST_PRIORITY = 1_000_000_000
"""Of a user's PriorityClass."""
SCOPES = (
    *("Terminating", "NotTerminating", "BestEffort", "NotBestEffort"),
    *("PriorityClass", "CrossNamespacePodAffinity", "VolumeAttributesClass"),
)


def _node(view: Node, findings: Findings) -> None:
    pods.taints(view.spec.taints, "spec.taints", findings)


def _node_update(old: Obj, new: Obj, findings: Findings) -> None:
    before, after = ((o.get("spec") or {}).get("podCIDR") for o in (old, new))
    if before and before != after:
        findings.forbidden("spec.podCIDR", 'node updates may not change podCIDR except from "" to valid')


# --- amounts ----------------------------------------------------------------------------------------


def _amount(value: object, path: str, findings: Findings) -> Fraction | None:
    found = quantity(value)
    if found is None:
        findings.invalid(path, value, QUANTITIES)
    elif found < 0:
        findings.invalid(path, str(value), "must be greater than or equal to 0")
    return found


class QuotaSpec(Struct, frozen=True):
    """A ResourceQuotaSpec."""

    hard: dict[str, Any] = {}
    scopes: tuple[str, ...] = ()


class Quota(AnyObject, frozen=True):
    """A ResourceQuota."""

    spec: QuotaSpec = QuotaSpec()


def _quota(view: Quota, findings: Findings) -> None:
    for name, value in view.spec.hard.items():
        at = below("spec.hard", name)
        if wrong := names.label_key(name):
            findings.invalid(at, name, wrong)
        _amount(value, at, findings)
    for scope in view.spec.scopes:
        findings.one_of("spec.scopes", scope, SCOPES)


def _quota_update(old: Obj, new: Obj, findings: Findings) -> None:
    frozen(old, new, "spec.scopes", findings)


class Limit(Struct, frozen=True):
    """A LimitRangeItem."""

    type: str = ""
    min: dict[str, Any] = {}
    max: dict[str, Any] = {}
    default: dict[str, Any] = {}
    defaultRequest: dict[str, Any] = {}
    maxLimitRequestRatio: dict[str, Any] = {}


class LimitSpec(Struct, frozen=True):
    """A LimitRangeSpec."""

    limits: tuple[Limit, ...] = ()


class LimitRange(AnyObject, frozen=True):
    """A LimitRange."""

    spec: LimitSpec = LimitSpec()


def _limit_range(view: LimitRange, findings: Findings) -> None:
    seen: set[str] = set()
    for i, limit in enumerate(view.spec.limits):
        at = f"spec.limits[{i}]"
        if not limit.type:
            findings.required(f"{at}.type")
        elif limit.type in seen:
            findings.duplicate(f"{at}.type", limit.type)
        seen.add(limit.type)
        if limit.type == "Pod":
            for field in ("default", "defaultRequest"):
                if getattr(limit, field):
                    findings.forbidden(f"{at}.{field}", "may not be specified when `type` is 'Pod'")
        _ordered(limit, at, findings)


_WORDS = {"defaultRequest": "default request"}


def _ordered(limit: Limit, at: str, findings: Findings) -> None:
    """No value of an item is greater than the next: min, defaultRequest, default, max."""
    found = {}
    for field in ("min", "defaultRequest", "default", "max", "maxLimitRequestRatio"):
        values: dict[str, Any] = getattr(limit, field)
        found[field] = {k: _amount(v, below(f"{at}.{field}", k), findings) for k, v in values.items()}
    for low, high in (
        ("min", "max"),
        ("min", "defaultRequest"),
        ("min", "default"),
        ("defaultRequest", "max"),
        ("default", "max"),
        ("defaultRequest", "default"),
    ):
        for key, less in found[low].items():
            more = found[high].get(key)
            if less is not None and more is not None and less > more:
                value, limiting = getattr(limit, low)[key], getattr(limit, high)[key]
                why = f"{_WORDS.get(low, low)} value {value} is greater than {_WORDS.get(high, high)} value "
                findings.invalid(below(f"{at}.{low}", key), str(value), f"{why}{limiting}")


# --- leases, priorities, events ---------------------------------------------------------------------


class LeaseSpec(Struct, frozen=True):
    """A LeaseSpec."""

    leaseDurationSeconds: int | None = None
    leaseTransitions: int | None = None


class Lease(AnyObject, frozen=True):
    """A Lease."""

    spec: LeaseSpec = LeaseSpec()


def _lease(view: Lease, findings: Findings) -> None:
    seconds = view.spec.leaseDurationSeconds
    if seconds is not None and seconds <= 0:
        findings.invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0")
    findings.at_least("spec.leaseTransitions", view.spec.leaseTransitions, 0)


class PriorityClass(AnyObject, frozen=True):
    """A PriorityClass."""

    value: int = 0
    preemptionPolicy: str = "PreemptLowerPriority"


def _priority_class(view: PriorityClass, findings: Findings) -> None:
    if view.metadata.name in CRITICAL:
        return
    if view.metadata.name.startswith("system-"):
        why = "priority class names with 'system-' prefix are reserved for system use only"
        findings.forbidden("metadata.name", why)
    if view.value > HIGHEST_PRIORITY:
        why = f"maximum allowed value of a user defined priority is {HIGHEST_PRIORITY}"
        findings.forbidden("value", why)
    findings.one_of("preemptionPolicy", view.preemptionPolicy, ("PreemptLowerPriority", "Never"))


def _priority_class_update(old: Obj, new: Obj, findings: Findings) -> None:
    if old.get("value", 0) != new.get("value", 0):
        findings.forbidden("value", "may not be changed in an update.")
    frozen(old, new, "preemptionPolicy", findings)


class Event(AnyObject, frozen=True):
    """An Event."""

    involvedObject: ObjectReference | None = None


def _event(view: Event, findings: Findings) -> None:
    about = view.involvedObject
    if about is not None and about.namespace and about.namespace != (view.metadata.namespace or "default"):
        findings.invalid("involvedObject.namespace", about.namespace, "does not match event.namespace")


RULES: dict[str, Rule] = {
    "Node": Rule(Node, _node, update=_node_update),
    "Namespace": Rule(name=names.label),
    "ResourceQuota": Rule(Quota, _quota, update=_quota_update),
    "LimitRange": Rule(LimitRange, _limit_range),
    "Lease": Rule(Lease, _lease),
    "PriorityClass": Rule(PriorityClass, _priority_class, update=_priority_class_update),
    "Event": Rule(Event, _event),
}
