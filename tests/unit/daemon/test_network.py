"""The network keeper against a model of the kernel: what it notices, and what it need not look at."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

import pytest

from nsk8s.daemon.network import LOOK, Compared, Network, Plan, Share, portions
from nsk8s.kernel.machine import Machine
from nsk8s.kernel.sandboxes import Sandbox
from nsk8s.linux import iptables, nftables
from nsk8s.linux.nftables import Key, Set, Table
from nsk8s.linux.state import Reading, apply
from nsk8s.linux.values import Chain, Link, Namespace, NamespaceState, Op, Restore, Ruleset, Transaction


def rules(*jumps: str) -> Ruleset:
    return Ruleset({"nat": {"KUBE-A": Chain("KUBE-A", jumps)}})


async def reach(network: Network, wanted: Plan) -> list[list[str]]:
    """Reach a plan; the pods that could be used already, a portion at a time."""
    return [pods async for pods in network.reach(wanted)]


class ModelMachine:
    """The model kernel behind the interface of `Machine`, counting what it is asked; `meddle` is run once,
    after the next restore, as somebody else's change would be."""

    def __init__(self) -> None:
        self.states: Mapping[str, NamespaceState] = {}
        self.tags: dict[str, str] = {}
        self.numbers: dict[str, int] = {}
        self.dumped: list[str] = []
        self.begun: list[str] = []
        self.meddle = ""

    def sandboxes(self, *, thorough: bool = True) -> dict[str, Sandbox]:
        return {name: Sandbox(name, self.tags.get(name, ""), 1) for name in self.states}

    def tag(self, name: str) -> str | None:
        return self.tags.get(name) if name in self.states else None

    def remove(self, names: Iterable[str]) -> None:
        self.states = {n: s for n, s in self.states.items() if n not in set(names)}

    def add_shared(self, name: str, owner: str, tag: str) -> None:
        self.states = {**self.states, name: NamespaceState(name)}
        self.tags[name] = tag

    def generation(self, name: str) -> int:
        return self.numbers[name]

    def begin(
        self, names: Iterable[str], states: Mapping[str, NamespaceState], tags: Mapping[str, str]
    ) -> None:
        self.begun += [name for name in names if name not in self.states]

    def applying(self, ops: Sequence[Op], tags: Mapping[str, str]) -> Iterator[list[str]]:
        yield []
        for op in ops:
            if isinstance(op.value, Namespace):
                self.tags[op.namespace] = tags.get(op.namespace, "")
            self.states = apply(self.states, op)
            self.numbers.setdefault(op.namespace, 1)
            if isinstance(op.value, Restore):
                self.numbers[op.namespace] += op.value.script.count("COMMIT\n")
            elif isinstance(op.value, Transaction):
                self.numbers[op.namespace] += 1
            else:
                continue
            if self.meddle:
                self.flush(self.meddle)
                self.meddle = ""

    def observe(
        self,
        names: Iterable[str],
        own_chains: tuple[str, ...],
        *,
        without_rules: Collection[str] = (),
        with_rules6: Collection[str] = (),
        sysctls: Mapping[str, Iterable[str]],
        tables: Mapping[str, Collection[Key]],
        readings: Mapping[str, Reading],
    ) -> dict[str, NamespaceState]:
        found = {name: self.states[name] for name in names}
        self.dumped += [name for name in found if name not in without_rules]
        found = {
            n: replace(
                s,
                rules6=s.rules6 if n in with_rules6 else iptables.EMPTY,
                nft={key: table for key, table in s.nft.items() if key in tables.get(n, ())},
            )
            for n, s in found.items()
        }
        return {
            n: replace(s, rules=iptables.EMPTY, rules6=iptables.EMPTY, nft=nftables.EMPTY)
            if n in without_rules
            else s
            for n, s in found.items()
        }

    def flush(self, name: str) -> None:
        """What ``iptables -t nat -F`` does."""
        self.states = {**self.states, name: replace(self.states[name], rules=rules())}
        self.numbers[name] += 1

    def delete_table(self, name: str, key: Key) -> None:
        """What ``nft delete table`` does."""
        held = {k: table for k, table in self.states[name].nft.items() if k != key}
        self.states = {**self.states, name: replace(self.states[name], nft=held)}
        self.numbers[name] += 1


def plan(*jumps: str) -> Plan:
    return Plan({"w1": NamespaceState("w1", rules=rules(*jumps))}, {}, {})


PROXY, OTHER = ("ip", "kube-proxy"), ("inet", "of-others")


def both(*addresses: str) -> Plan:
    """Rules of either sort on one node."""
    held = Set("cluster-ips", "ipv4_addr", elements=dict.fromkeys(addresses, nftables.PLAIN))
    table = Table("ip", "kube-proxy", sets={held.name: held})
    return Plan({"w1": NamespaceState("w1", rules=rules("-j RETURN"), nft=nftables.tables(table))}, {}, {})


@pytest.fixture
def machine() -> ModelMachine:
    return ModelMachine()


@pytest.fixture
def network(machine: ModelMachine) -> Network:
    return Network(cast("Machine", machine))


def test_rules_that_nobody_touched_are_not_dumped(machine: ModelMachine, network: Network) -> None:
    async def story() -> None:
        wanted = plan("-j RETURN")
        await reach(network, wanted)
        assert await network.compare(wanted, ["w1"]) == Compared((), 0)
        assert machine.dumped == []

    asyncio.run(story())


def test_a_flush_is_repaired(machine: ModelMachine, network: Network) -> None:
    async def story() -> None:
        wanted = plan("-j RETURN")
        await reach(network, wanted)
        machine.flush("w1")
        assert await network.compare(wanted, ["w1"]) == Compared((), 1)
        assert machine.states["w1"].rules == rules("-j RETURN")
        assert await network.compare(wanted, ["w1"]) == Compared((), 0)
        assert machine.dumped == ["w1"]

    asyncio.run(story())


def test_a_pod_that_died_is_told_of_once_and_not_made_again_by_itself(
    machine: ModelMachine, network: Network
) -> None:
    async def story() -> None:
        wanted = Plan(
            {name: NamespaceState(name) for name in ("w1", "p1", "p2")}, {"p1": "u1", "p2": "u2"}, {}
        )
        await reach(network, wanted)
        machine.remove(["p1"])
        assert await network.compare(wanted, ["w1"]) == Compared(["u1"], 0)
        assert "p1" not in machine.states
        without = Plan({name: NamespaceState(name) for name in ("w1", "p2")}, {"p2": "u2"}, {})
        assert await network.compare(without, ["w1", "p2"]) == Compared((), 0)
        assert machine.states.keys() == {"w1", "p2"}

    asyncio.run(story())


@pytest.mark.parametrize(
    "former",
    [
        Plan({name: NamespaceState(name) for name in ("w1", "p1")}, {"p1": "former"}, {}),
        Plan({"w1": NamespaceState("w1")}, {}, {"p1": Share("w1", "former")}),
    ],
    ids=("its own network", "its node's network"),
)
def test_a_pod_of_a_former_ones_name_gets_a_sandbox_of_its_own(
    machine: ModelMachine, network: Network, former: Plan
) -> None:
    async def story() -> None:
        await reach(network, former)
        wanted = Plan({name: NamespaceState(name) for name in ("w1", "p1")}, {"p1": "new"}, {})
        await reach(network, wanted)
        assert machine.tags["p1"] == "new"
        assert await network.compare(wanted, ["w1", "p1"]) == Compared((), 0)

    asyncio.run(story())


def test_new_namespaces_are_begun_while_it_is_decided_what_goes_into_them(
    machine: ModelMachine, network: Network
) -> None:
    """The nodes first, as the plan has them; what is there already is not begun again."""
    names = ("w1", "w2", "a", "b")
    states = {name: NamespaceState(name) for name in names}
    asyncio.run(reach(network, Plan(states, {"a": "uid-a", "b": "uid-b"}, {})))
    assert machine.begun == list(names)
    states["c"] = NamespaceState("c")
    asyncio.run(reach(network, Plan(states, {"a": "uid-a", "b": "uid-b", "c": "uid-c"}, {})))
    assert machine.begun == [*names, "c"]


def test_what_is_new_is_done_and_is_no_damage(machine: ModelMachine, network: Network) -> None:
    async def story() -> None:
        await reach(network, plan("-j RETURN"))
        wanted = plan("-j RETURN", "-j ACCEPT")
        assert await network.compare(wanted, ["w1"]) == Compared((), 0)
        assert machine.states["w1"].rules == rules("-j RETURN", "-j ACCEPT")
        assert machine.dumped == []

    asyncio.run(story())


def test_a_flush_in_the_moment_of_our_own_restore_is_repaired(
    machine: ModelMachine, network: Network
) -> None:
    async def story() -> None:
        await reach(network, plan("-j RETURN"))
        machine.meddle = "w1"
        wanted = plan("-j RETURN", "-j ACCEPT")
        await reach(network, wanted)
        assert machine.states["w1"].rules == rules()  # the flush came last
        assert await network.compare(wanted, ["w1"]) == Compared((), 1)
        assert machine.states["w1"].rules == rules("-j RETURN", "-j ACCEPT")

    asyncio.run(story())


def test_either_sort_of_rules_counts_for_the_generation(machine: ModelMachine, network: Network) -> None:
    async def story() -> None:
        await reach(network, both("10.0.0.1"))
        await reach(network, both("10.0.0.1", "10.0.0.2"))
        wanted = both("10.0.0.2")
        await reach(network, wanted)
        assert machine.states == wanted.states
        assert await network.compare(wanted, ["w1"]) == Compared((), 0)
        assert machine.dumped == []

    asyncio.run(story())


def test_a_deleted_table_is_made_again_and_those_of_others_are_left(
    machine: ModelMachine, network: Network
) -> None:
    async def story() -> None:
        wanted = both("10.0.0.1")
        await reach(network, wanted)
        other = nftables.tables(Table("inet", "of-others"))
        held = machine.states["w1"]
        machine.states = {"w1": replace(held, nft={**held.nft, **other})}
        machine.delete_table("w1", PROXY)
        assert await network.compare(wanted, ["w1"]) == Compared((), 1)
        assert machine.states["w1"].nft == {**wanted.states["w1"].nft, **other}
        assert await network.compare(wanted, ["w1"]) == Compared((), 0)

    asyncio.run(story())


def test_a_table_left_by_an_earlier_control_plane_goes(machine: ModelMachine, network: Network) -> None:
    async def story() -> None:
        machine.states, machine.numbers = both("10.0.0.1").states, {"w1": 9}
        await reach(network, plan("-j RETURN"))
        assert machine.states["w1"].nft == {}

    asyncio.run(story())


def test_a_look_is_taken_at_so_many_interfaces_at_a_time() -> None:
    few = NamespaceState("few", links=(Link("eth0", "veth", 1450),))
    many = replace(few, links=few.links * LOOK)
    states = {"w1": many, "p1": few, "p2": few, "w2": many, "none": NamespaceState("none")}
    assert list(portions(states, states)) == [["w1"], ["p1", "p2", "w2"], ["none"]]
    assert list(portions([], states)) == []
    pods = {f"p{number}": few for number in range(LOOK)}
    assert [len(portion) for portion in portions(pods, pods)] == [LOOK // 2, LOOK // 2]
