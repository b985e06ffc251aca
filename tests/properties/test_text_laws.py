"""What is written can be read back, but for why it was there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import HealthCheck, given, settings

from nsk8s.linux.state import diff
from nsk8s.linux.text import commands, parse, render
from nsk8s.linux.values import NamespaceState
from tests.properties.machines import machines
from tests.properties.test_iptables_laws import alone

EXAMPLES = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(machines())
@EXAMPLES
def test_what_is_written_can_be_read(machine: Mapping[str, NamespaceState]) -> None:
    for state in machine.values():
        asked = replace(state, rules=alone(state.rules), rules6=alone(state.rules6))
        assert parse(render(state)) == parse(render(state, why=True)) == asked
        assert render(parse(render(state))) == render(state)


@given(machines(), machines())
@EXAMPLES
def test_every_operation_can_be_said(
    actual: Mapping[str, NamespaceState], desired: Mapping[str, NamespaceState]
) -> None:
    for op in diff(actual, desired):
        said = commands(op, "article.")
        assert said
        assert all(f"article.{op.namespace}" in said[0] or line.startswith("#") for line in said)
