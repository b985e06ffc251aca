"""The network keeper against a model of the kernel: what it notices, and what it need not look at."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import pytest

from nsk8s.daemon.network import Network, Plan
from nsk8s.kernel.machine import Machine
from nsk8s.kernel.sandboxes import Sandbox
from nsk8s.linux import iptables
from nsk8s.linux.state import apply
from nsk8s.linux.values import Chain, NamespaceState, Op, Restore, Ruleset


def rules(*jumps: str) -> Ruleset:
    return Ruleset({"nat": {"KUBE-A": Chain("KUBE-A", jumps)}})


class ModelMachine:
    """The model kernel behind the interface of `Machine`, counting what it is asked; `meddle` is run once,
    after the next restore, as somebody else's change would be."""

    def __init__(self) -> None:
        self.states: Mapping[str, NamespaceState] = {}
        self.numbers: dict[str, int] = {}
        self.dumped: list[str] = []
        self.meddle = ""

    def sandboxes(self) -> dict[str, Sandbox]:
        return {name: Sandbox(name, "", 1) for name in self.states}

    def remove(self, names: Iterable[str]) -> None:
        self.states = {n: s for n, s in self.states.items() if n not in set(names)}

    def generation(self, name: str) -> int:
        return self.numbers[name]

    def apply(self, ops: Sequence[Op], tags: Mapping[str, str]) -> None:
        for op in ops:
            self.states = apply(self.states, op)
            self.numbers.setdefault(op.namespace, 1)
            if isinstance(op.value, Restore):
                self.numbers[op.namespace] += op.value.script.count("COMMIT\n")
                if self.meddle:
                    self.flush(self.meddle)
                    self.meddle = ""

    def observe(
        self,
        names: Iterable[str],
        own_chains: tuple[str, ...],
        *,
        without_rules: Collection[str] = (),
        sysctls: Mapping[str, Iterable[str]],
    ) -> dict[str, NamespaceState]:
        found = {name: self.states[name] for name in names}
        self.dumped += [name for name in found if name not in without_rules]
        return {n: replace(s, rules=iptables.EMPTY) if n in without_rules else s for n, s in found.items()}

    def flush(self, name: str) -> None:
        """What ``iptables -t nat -F`` does."""
        self.states = {**self.states, name: replace(self.states[name], rules=rules())}
        self.numbers[name] += 1


def plan(*jumps: str) -> Plan:
    return Plan({"w1": NamespaceState("w1", rules=rules(*jumps))}, {}, {})


@pytest.fixture
def machine() -> ModelMachine:
    return ModelMachine()


@pytest.fixture
def network(machine: ModelMachine) -> Network:
    return Network(cast("Machine", machine))


def test_rules_that_nobody_touched_are_not_dumped(machine: ModelMachine, network: Network) -> None:
    async def story() -> None:
        wanted = plan("-j RETURN")
        await network.reach(wanted)
        assert await network.compare(wanted, ["w1"]) == 0
        assert machine.dumped == []

    asyncio.run(story())


def test_a_flush_is_repaired(machine: ModelMachine, network: Network) -> None:
    async def story() -> None:
        wanted = plan("-j RETURN")
        await network.reach(wanted)
        machine.flush("w1")
        assert await network.compare(wanted, ["w1"]) == 1
        assert machine.states["w1"].rules == rules("-j RETURN")
        assert await network.compare(wanted, ["w1"]) == 0
        assert machine.dumped == ["w1"]

    asyncio.run(story())


def test_a_flush_in_the_moment_of_our_own_restore_is_repaired(
    machine: ModelMachine, network: Network
) -> None:
    async def story() -> None:
        await network.reach(plan("-j RETURN"))
        machine.meddle = "w1"
        wanted = plan("-j RETURN", "-j ACCEPT")
        await network.reach(wanted)
        assert machine.states["w1"].rules == rules()  # the flush came last
        assert await network.compare(wanted, ["w1"]) == 1
        assert machine.states["w1"].rules == rules("-j RETURN", "-j ACCEPT")

    asyncio.run(story())
