"""When a Job fails or succeeds before its time: podFailurePolicy and successPolicy
(`pkg/apis/batch/validation`)."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

from nsk8s.api import names
from nsk8s.api.findings import Findings, shown
from nsk8s.api.types import Struct

MOST_RULES = 20
"""Rules of a policy, and patterns of a rule."""
MOST_CODES = 255
"""Exit codes of a rule."""
LONGEST_INDEXES = 64 * 1024
"""Bytes of the indexes of a rule."""

ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
OPERATORS = ("In", "NotIn")
STATUSES = ("False", "True", "Unknown")


class OnExitCodes(Struct, frozen=True):
    """A PodFailurePolicyOnExitCodesRequirement."""

    containerName: str | None = None
    operator: str = ""
    values: tuple[int, ...] = ()


class OnPodCondition(Struct, frozen=True):
    """A PodFailurePolicyOnPodConditionsPattern."""

    type: str = ""
    status: str = ""


class PodFailurePolicyRule(Struct, frozen=True):
    """A PodFailurePolicyRule."""

    action: str = ""
    onExitCodes: OnExitCodes | None = None
    onPodConditions: tuple[OnPodCondition, ...] | None = None


class PodFailurePolicy(Struct, frozen=True):
    """A PodFailurePolicy."""

    rules: tuple[PodFailurePolicyRule, ...] = ()


class SuccessPolicyRule(Struct, frozen=True):
    """A SuccessPolicyRule."""

    succeededIndexes: str | None = None
    succeededCount: int | None = None


class SuccessPolicy(Struct, frozen=True):
    """A SuccessPolicy."""

    rules: tuple[SuccessPolicyRule, ...] = ()


def failure_policy(
    policy: PodFailurePolicy, path: str, containers: Collection[str], per_index: bool, findings: Findings
) -> None:
    """`containers` are the names of the pod's; `per_index`: whether an index fails on its own."""
    _at_most(f"{path}.rules", len(policy.rules), MOST_RULES, findings)
    for number, rule in enumerate(policy.rules):
        at = f"{path}.rules[{number}]"
        _supported(f"{at}.action", rule.action, ACTIONS, findings)
        if rule.action == "FailIndex" and not per_index:
            findings.invalid(f"{at}.action", rule.action, "requires the backoffLimitPerIndex to be set")
        if rule.onExitCodes is not None:
            _exit_codes(rule.onExitCodes, f"{at}.onExitCodes", containers, findings)
        patterns = rule.onPodConditions or ()
        _at_most(f"{at}.onPodConditions", len(patterns), MOST_RULES, findings)
        for position, pattern in enumerate(patterns):
            here = f"{at}.onPodConditions[{position}]"
            if wrong := names.label_key(pattern.type):
                findings.invalid(f"{here}.type", pattern.type, wrong)
            _supported(f"{here}.status", pattern.status, STATUSES, findings)
        if rule.onExitCodes is not None and patterns:
            what = "specifying both OnExitCodes and OnPodConditions is not supported"
            findings.add(at, f"Invalid value: {what}")
        if rule.onExitCodes is None and not patterns:
            findings.add(at, "Invalid value: specifying one of OnExitCodes and OnPodConditions is required")


def _exit_codes(codes: OnExitCodes, path: str, containers: Collection[str], findings: Findings) -> None:
    _supported(f"{path}.operator", codes.operator, OPERATORS, findings)
    if codes.containerName is not None and codes.containerName not in containers:
        why = "must be one of the container or initContainer names in the pod template"
        findings.invalid(f"{path}.containerName", codes.containerName, why)
    values = codes.values
    listed = f"Invalid value: []int32{{{', '.join(map(str, values))}}}"
    if not values:
        findings.add(f"{path}.values", f"{listed}: at least one value is required")
    _at_most(f"{path}.values", len(values), MOST_CODES, findings)
    for position, value in enumerate(values):
        if codes.operator == "In" and value == 0:
            findings.invalid(f"{path}.values[{position}]", value, "must not be 0 for the In operator")
        if value in values[:position]:
            findings.duplicate(f"{path}.values[{position}]", value)
    if list(values) != sorted(values):
        findings.add(f"{path}.values", f"{listed}: must be ordered")


def success_policy(policy: SuccessPolicy, path: str, completions: int, findings: Findings) -> None:
    """Of a Job with that many indexes."""
    if not policy.rules:
        why = "at least one rules must be specified when the successPolicy is specified"
        findings.required(f"{path}.rules", why)
    _at_most(f"{path}.rules", len(policy.rules), MOST_RULES, findings)
    for number, rule in enumerate(policy.rules):
        at = f"{path}.rules[{number}]"
        text, count = rule.succeededIndexes, rule.succeededCount
        if text is None and count is None:
            findings.required(at, "at least one of succeededCount or succeededIndexes must be specified")
        total = 0
        if text is not None:
            if len(text.encode()) > LONGEST_INDEXES:
                what = f"Too long: may not be more than {LONGEST_INDEXES} bytes"
                findings.add(f"{at}.succeededIndexes", what)
            try:
                total = _total(text, completions)
            except ValueError as error:
                findings.invalid(f"{at}.succeededIndexes", text, f"error parsing succeededIndexes: {error}")
        if count is None:
            continue
        findings.at_least(f"{at}.succeededCount", count, 0)
        limits = [(completions, "the number of specified completions")]
        if text is not None:
            limits.append((total, "the number of indexes in the specified succeededIndexes field"))
        for most, what in limits:
            if count > most:
                findings.invalid(
                    f"{at}.succeededCount", count, f"must be less than or equal to {most} ({what})"
                )


def _total(text: str, completions: int) -> int:
    """How many indexes a text lists. Raises ValueError."""
    total, last = 0, -1
    for part in text.split(",") if text else ():
        ends = part.split("-")
        if len(ends) > 2:
            what = f"the fragment {shown(part)} violates the requirement that an index interval can have "
            raise ValueError(what + "at most two parts separated by '-'")
        numbers = [_index(end, completions) for end in ends]
        for before, after in pairwise((last, *numbers)):
            if before >= after:
                raise ValueError(f"non-increasing order, previous: {before}, current: {after}")
        total += numbers[-1] - numbers[0] + 1
        last = numbers[-1]
    return total


def _index(text: str, completions: int) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"cannot convert string to integer for index: {shown(text)}")
    if int(text) >= completions:
        raise ValueError(f"too large index: {shown(text)}")
    return int(text)


def _supported(path: str, value: str, words: tuple[str, ...], findings: Findings) -> None:
    if value:
        findings.one_of(path, value, words)
    else:
        findings.required(path, f"valid values: [{' '.join(map(shown, words))}]")


def _at_most(path: str, count: int, most: int, findings: Findings) -> None:
    if count > most:
        findings.add(path, f"Too many: {count}: must have at most {most} items")
