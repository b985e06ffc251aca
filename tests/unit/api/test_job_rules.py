"""What a Job's policies of failure and success may say, in the API server's words."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from nsk8s.api.defaults import default
from nsk8s.api.kinds import RESOURCES
from nsk8s.api.validation import validate, validate_update

JOB = next(r for r in RESOURCES if r.kind == "Job")
ONCE = {
    "restartPolicy": "Never",
    "containers": [{"name": "c", "image": "x"}],
    "initContainers": [{"name": "i", "image": "x"}],
}
INDEXED = {"completionMode": "Indexed", "completions": 5, "parallelism": 2}
PER_INDEX = {**INDEXED, "backoffLimitPerIndex": 1}


def job(**spec: Any) -> dict[str, Any]:  # noqa: ANN401  # right or wrong
    spec = {"template": {"spec": copy.deepcopy(ONCE)}, **spec}
    return default({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": spec})


def problems(obj: dict[str, Any]) -> list[str]:
    return [f"{problem.path}: {problem.what}" for problem in validate(obj, JOB)]


def failing(**rule: Any) -> dict[str, Any]:  # noqa: ANN401
    return {**PER_INDEX, "podFailurePolicy": {"rules": [{"action": "Count", **rule}]}}


def exits(*values: int, operator: str = "In", **more: str) -> dict[str, Any]:
    return failing(onExitCodes={"operator": operator, "values": list(values), **more})


def succeeding(**rule: Any) -> dict[str, Any]:  # noqa: ANN401
    return {**INDEXED, "successPolicy": {"rules": [rule]}}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {**PER_INDEX, "maxFailedIndexes": 5},
        failing(action="FailIndex", onPodConditions=[{"type": "DisruptionTarget"}]),
        exits(1, 2, 42, containerName="i"),
        exits(0, operator="NotIn"),
        succeeding(succeededIndexes="0,2-4", succeededCount=4),
        succeeding(succeededCount=5),
    ],
)
def test_what_is_right(spec: dict[str, Any]) -> None:
    assert problems(job(**spec)) == []


FAILURE = "spec.podFailurePolicy.rules"
SUCCESS = "spec.successPolicy.rules"
PARSING = "error parsing succeededIndexes"


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        (
            {**PER_INDEX, "backoffLimitPerIndex": -1},
            "spec.backoffLimitPerIndex: Invalid value: -1: must be greater",
        ),
        (
            {**INDEXED, "maxFailedIndexes": 1},
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
        ),
        (
            {"backoffLimitPerIndex": 1},
            "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
        ),
        (
            {**PER_INDEX, "maxFailedIndexes": 6},
            "spec.maxFailedIndexes: Invalid value: 6: must be less than or equal to completions",
        ),
        (
            {**PER_INDEX, "completions": 100_001},
            "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
        ),
        (
            {**PER_INDEX, "completions": 100_001, "maxFailedIndexes": 10_001},
            "spec.maxFailedIndexes: Invalid value: 10001: must be less than or equal to 10000 when "
            "completions are "
            "above 100000 and used with backoff limit per index",
        ),
        (
            {**INDEXED, "parallelism": 100_001},
            "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion "
            "mode is "
            "Indexed",
        ),
        (
            {"podReplacementPolicy": "Never"},
            'spec.podReplacementPolicy: Unsupported value: "Never": supported values: "Failed", '
            '"TerminatingOrFailed"',
        ),
        (
            {**exits(1), "podReplacementPolicy": "TerminatingOrFailed"},
            'spec.podReplacementPolicy: Unsupported value: "TerminatingOrFailed": supported values: "Failed"',
        ),
        (
            {**exits(1), "template": {"spec": {**ONCE, "restartPolicy": "OnFailure"}}},
            'spec.template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" is supported when '
            "podFailurePolicy is specified",
        ),
        (
            failing(action="Panic", onPodConditions=[{"type": "a"}]),
            f'{FAILURE}[0].action: Unsupported value: "Panic": supported values: "Count", "FailIndex", '
            '"FailJob", '
            '"Ignore"',
        ),
        (
            failing(action="", onPodConditions=[{"type": "a"}]),
            f'{FAILURE}[0].action: Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]',
        ),
        (
            {
                **INDEXED,
                "podFailurePolicy": {"rules": [{"action": "FailIndex", "onPodConditions": [{"type": "a"}]}]},
            },
            f'{FAILURE}[0].action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set',
        ),
        (
            failing(),
            f"{FAILURE}[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
        ),
        (
            failing(onExitCodes={"operator": "In", "values": [1]}, onPodConditions=[{"type": "a"}]),
            f"{FAILURE}[0]: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported",
        ),
        (
            failing(onPodConditions=[{"type": "a", "status": "Perhaps"}]),
            f'{FAILURE}[0].onPodConditions[0].status: Unsupported value: "Perhaps": supported values: '
            '"False", '
            '"True", "Unknown"',
        ),
        (
            failing(onPodConditions=[{"type": "a b"}]),
            f'{FAILURE}[0].onPodConditions[0].type: Invalid value: "a b"',
        ),
        (
            exits(1, operator="Is"),
            f'{FAILURE}[0].onExitCodes.operator: Unsupported value: "Is": supported values: "In", "NotIn"',
        ),
        (
            exits(1, containerName="z"),
            f'{FAILURE}[0].onExitCodes.containerName: Invalid value: "z": must be one of the container or '
            "initContainer names in the pod template",
        ),
        (
            exits(),
            f"{FAILURE}[0].onExitCodes.values: Invalid value: []int32{{}}: at least one value is required",
        ),
        (
            exits(*range(1, 257)),
            f"{FAILURE}[0].onExitCodes.values: Too many: 256: must have at most 255 items",
        ),
        (
            exits(0, 1),
            f"{FAILURE}[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
        ),
        (exits(1, 1), f"{FAILURE}[0].onExitCodes.values[1]: Duplicate value: 1"),
        (exits(2, 1), f"{FAILURE}[0].onExitCodes.values: Invalid value: []int32{{2, 1}}: must be ordered"),
        (
            {"podFailurePolicy": {"rules": [exits(1)["podFailurePolicy"]["rules"][0]] * 21}},
            f"{FAILURE}: Too many: 21: must have at most 20 items",
        ),
        ({"successPolicy": {"rules": [{"succeededCount": 1}]}}, "requires indexed completion mode"),
        (
            {**INDEXED, "successPolicy": {"rules": []}},
            f"{SUCCESS}: Required value: at least one rules must be specified when the successPolicy is "
            "specified",
        ),
        (
            succeeding(),
            f"{SUCCESS}[0]: Required value: at least one of succeededCount or succeededIndexes must be "
            "specified",
        ),
        (
            succeeding(succeededCount=-1),
            f"{SUCCESS}[0].succeededCount: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            succeeding(succeededCount=6),
            f"{SUCCESS}[0].succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of "
            "specified completions)",
        ),
        (
            succeeding(succeededCount=3, succeededIndexes="1,3"),
            f"{SUCCESS}[0].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number "
            "of indexes "
            "in the specified succeededIndexes field)",
        ),
        (succeeding(succeededIndexes="5"), f'Invalid value: "5": {PARSING}: too large index: "5"'),
        (succeeding(succeededIndexes="a"), f'{PARSING}: cannot convert string to integer for index: "a"'),
        (succeeding(succeededIndexes="3-1"), f"{PARSING}: non-increasing order, previous: 3, current: 1"),
        (succeeding(succeededIndexes="1-3,3"), f"{PARSING}: non-increasing order, previous: 3, current: 3"),
        (
            succeeding(succeededIndexes="0-1-2"),
            f'{PARSING}: the fragment "0-1-2" violates the requirement that an index interval can have at '
            "most two "
            "parts separated by '-'",
        ),
    ],
)
def test_what_is_wrong(spec: dict[str, Any], what: str) -> None:
    (found,) = problems(job(**spec))
    assert what in found


@pytest.mark.parametrize(
    ("field", "before", "after"),
    [
        ("backoffLimitPerIndex", PER_INDEX, {**PER_INDEX, "backoffLimitPerIndex": 2}),
        ("successPolicy", succeeding(succeededCount=1), succeeding(succeededCount=2)),
        ("podFailurePolicy", exits(1), exits(2)),
    ],
)
def test_what_stays_as_it_is(field: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    (found,) = validate_update(job(**before), job(**after), JOB)
    assert found.path == f"spec.{field}"
    assert found.what.endswith("field is immutable")
