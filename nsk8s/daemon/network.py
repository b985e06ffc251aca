"""Keeps the kernel at the compiled state: diff against what was last applied, apply in batches, and
look again from time to time for what others have undone.

What was last applied is only an optimisation: whenever the kernel refuses an operation, or somebody else
has changed its rule set (the nf_tables generation tells), the namespace is observed and diffed anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple, TypeVar, cast

from nsk8s.dataplane.compiler import EVERYTHING, Own
from nsk8s.dataplane.fabric import HOST
from nsk8s.errors import KernelError
from nsk8s.kernel.conntrack import Frontends
from nsk8s.kernel.machine import Machine, Sandbox
from nsk8s.linux.state import diff, ours, reading
from nsk8s.linux.values import Namespace, NamespaceState, Op, Restore, Transaction

FIRST_GENERATION = 1
"""Of the rule set of a new network namespace (net/netfilter/nf_tables_api.c, nf_tables_init_net)."""

T = TypeVar("T")
Steps = Generator[list[str], None, T]
"""Work in the kernel thread that says in between which new namespaces can be used."""
States = Mapping[str, NamespaceState]

LOOK = 128
"""Interfaces that are looked at in one go: what changes meanwhile waits until then, some 20 ms."""


class Share(NamedTuple):
    """A hostNetwork pod's sandbox: it shares the network of `node`; `tag` is its UID."""

    node: str
    tag: str


class Plan(NamedTuple):
    """All that should exist: states by namespace, the pods' UIDs by namespace (`tags`), the sandboxes that
    share a node's network, and which rules are the cluster's `own`."""

    states: States
    tags: Mapping[str, str]
    shares: Mapping[str, Share]
    own: Own = EVERYTHING


class Compared(NamedTuple):
    """What a look has found: the UIDs of pods that have `died`, and how many operations the repair took; 0
    means that nothing had been touched."""

    died: Sequence[str]
    operations: int


def portions(names: Iterable[str], states: States) -> Iterator[list[str]]:
    """The names a few at a time: as many as have LOOK interfaces together."""
    portion: list[str] = []
    interfaces = 0
    for name in names:
        portion.append(name)
        interfaces += 1 + len(states[name].links)  # lo is not listed
        if interfaces >= LOOK:
            yield portion
            portion, interfaces = [], 0
    if portion:
        yield portion


class Network:
    """The cluster's namespaces, held at a plan. All kernel work happens in one thread, in order."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kernel")
        self._applied: dict[str, NamespaceState] = {}
        self._shared: dict[str, Share] = {}
        self._generations: dict[str, int | None] = {}
        self._unsure = True  # nobody has looked yet at what an earlier control plane may have left

    async def in_kernel(self, work: Callable[[], T]) -> T:
        """Run blocking `work` in the kernel thread, after what is queued there already."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def reach(self, plan: Plan) -> AsyncIterator[list[str]]:
        """Bring the kernel from what was last applied to `plan`; the first time, from what is there. Yields
        the UIDs of new pods as soon as their sandboxes can be used, a portion at a time."""
        steps = self._reach(plan)
        try:
            while (made := await self.in_kernel(lambda: next(steps, None))) is not None:
                yield [plan.tags[name] for name in made]
        finally:
            await self.in_kernel(steps.close)

    async def compare(self, plan: Plan, names: Iterable[str], *, thorough: bool = True) -> Compared:
        """Reach `plan`, then look at what the kernel really holds in `names` and repair what differs. If
        sandboxes of pods have ended though the plan has them they are forgotten, and that is all: there is
        another plan then. Only a `thorough` look finds sandboxes that are not ours to have."""
        wanted = [name for name in names if name in plan.states]
        return await self.in_kernel(lambda: self._look(plan, wanted, thorough=thorough))

    async def forget_udp(self, frontends: Frontends) -> None:
        """On every node, forget the UDP flows to backends that serve no more."""
        nodes = [name for name, state in self._applied.items() if _ruled(state)]
        await self.in_kernel(lambda: [self.machine.forget_udp(node, frontends) for node in nodes])

    # --- in the kernel thread -----------------------------------------------------------------------

    def _reach(self, plan: Plan) -> Steps[None]:
        plan = self._with_host(plan)
        self._make_way(plan)
        changed, gone = self._pending(plan)
        if self._unsure:
            yield from self._compare(plan, [], self.machine.sandboxes())
        elif changed or gone:
            names = changed | _outer(changed, plan.states)
            before = {n: self._applied[n] for n in [*names, *gone] if n in self._applied}
            self._begin(plan, changed)
            ops = diff(before, {n: s for n, s in plan.states.items() if n in names})
            try:
                yield from self.machine.applying(ops, plan.tags)
            except KernelError:
                # Memory and kernel disagree: look, and do what is really missing. Again refused is real.
                yield from self._compare(plan, list(names), self.machine.sandboxes())
            else:
                self._wrote(ops)
                self._remember(plan.states, names)
        for name in gone:
            self._applied.pop(name, None)
        self._share(plan)

    def _make_way(self, plan: Plan) -> None:
        """The sandbox of a former pod goes before another one of its name comes."""
        former = [name for name, tag in plan.tags.items() if self.machine.tag(name) not in (None, tag)]
        if former:
            self.machine.remove(former)
        for name in former:
            self._applied.pop(name, None)
            self._shared.pop(name, None)

    def _pending(self, plan: Plan) -> tuple[set[str], list[str]]:
        """Namespaces that are not as the plan has them, and those it does not have."""
        changed = {n for n, state in plan.states.items() if self._applied.get(n) is not state}
        return changed, [n for n in self._applied if n not in plan.states]

    def _look(self, plan: Plan, names: list[str], *, thorough: bool) -> Compared:
        existing = self.machine.sandboxes(thorough=thorough)
        if died := self._died(plan, existing):
            return Compared(died, 0)
        if not self._unsure and (any(self._pending(plan)) or self._shared != plan.shares):
            _finish(self._reach(plan))  # what nobody has done yet is no damage
            existing = self.machine.sandboxes(thorough=thorough)
        return Compared((), _finish(self._compare(plan, names, existing)))

    def _with_host(self, plan: Plan) -> Plan:
        """The host's own namespace does not go when nothing is wanted in it any more: what is ours does."""
        if HOST in plan.states or HOST not in self._applied:
            return plan
        return plan._replace(states={**plan.states, HOST: NamespaceState(HOST)})

    def _died(self, plan: Plan, existing: Mapping[str, Sandbox]) -> list[str]:
        found = []
        for name, tag in plan.tags.items():
            if name in self._applied and (name not in existing or existing[name].tag != tag):
                found.append(tag)
                del self._applied[name]
        for name, share in plan.shares.items():
            if name in self._shared and not self._holds(existing, name, share):
                found.append(share.tag)
                del self._shared[name]
        return found

    def _holds(self, existing: Mapping[str, Sandbox], name: str, share: Share) -> bool:
        """Whether a hostNetwork pod's sandbox is there, and still in the network of its node: a node that
        had to be made anew has another one."""
        there = name in existing and existing[name].tag == share.tag and share.node in existing
        return there and self.machine.network(name) == self.machine.network(share.node)

    def _share(self, plan: Plan) -> None:
        ended = [n for n, share in self._shared.items() if plan.shares.get(n) != share]
        if ended:
            self.machine.remove(ended)
        for name, share in plan.shares.items():
            if self._shared.get(name) != share:
                self.machine.add_shared(name, share.node, share.tag)
        self._shared = dict(plan.shares)

    def _compare(self, plan: Plan, names: list[str], existing: Mapping[str, Sandbox]) -> Steps[int]:
        plan = self._with_host(plan)
        sure = not self._unsure
        if not sure:
            names = list(plan.states)
        tags = {**plan.tags, **{name: share.tag for name, share in plan.shares.items()}}
        wanted = plan.states.keys() | plan.shares.keys()
        stray = [n for n, one in existing.items() if n not in wanted or one.tag != tags.get(n, "")]
        if stray:
            self.machine.remove(stray)
            existing = {n: one for n, one in existing.items() if n not in stray}
        self._shared = {n: s for n, s in plan.shares.items() if n in existing}
        self._applied = {n: s for n, s in self._applied.items() if n in existing or n == HOST}
        self._unsure = True
        present = [n for n in names if n in existing or n == HOST]
        actual = self._observe(plan, present, sure=sure)
        broken = {n for n in names if actual.get(n) != plan.states[n]}
        if broken:
            near = _inner(broken, plan.states)
            near |= _outer(broken | near, plan.states)
            actual |= self._observe(plan, [n for n in near - set(actual) if n in existing], sure=sure)
            scope = broken | near
            self._begin(plan, broken)
            ops = diff(
                {n: s for n, s in actual.items() if n in scope},
                {n: s for n, s in plan.states.items() if n in scope},
            )
            yield from self.machine.applying(ops, plan.tags)
            self._wrote(ops)
            self._remember(plan.states, scope)
        else:
            ops = ()
        self._remember(plan.states, present)
        self._unsure = False
        self._share(plan)
        return len(ops) + len(stray)

    def _begin(self, plan: Plan, names: Set[str]) -> None:
        """Let new namespaces be made, in the plan's order, while it is decided what goes into them."""
        self.machine.begin((name for name in plan.states if name in names), plan.states, plan.tags)

    def _observe(self, plan: Plan, names: list[str], *, sure: bool) -> dict[str, NamespaceState]:
        """What the kernel holds of ours. A rule set whose generation nobody has moved since we wrote it is
        what we wrote, and need not be dumped; nor, if we are `sure` of what we wrote, where we want no rules
        and wrote none."""
        now = {n: self.machine.generation(n) for n in names if _ruled(plan.states[n])}
        kept = {n for n, number in now.items() if number is not None and number == self._generations.get(n)}
        if sure:
            kept |= {n for n in names if n not in now and not _ruled(self._applied.get(n, plan.states[n]))}
        kept &= self._applied.keys()
        self._generations |= now  # asked before the dump: a change during it makes the next look dump again
        found = {}
        keys = {n: [sysctl.key for sysctl in plan.states[n].sysctls] for n in names}
        last = {n: self._applied.get(n, plan.states[n]) for n in names}
        rules6 = {n for n in names if plan.states[n].rules6.tables or last[n].rules6.tables}
        tables = {n: plan.own.tables for n in names if n != HOST}
        seen = self.machine.observe(
            names,
            plan.own.chains,
            without_rules=kept,
            with_rules6=rules6,
            sysctls=keys,
            tables=tables,
            readings={n: reading(plan.states[n], last[n]) for n in names},
        )
        for name, state in seen.items():
            if name in kept:
                was = last[name]
                state = replace(state, rules=was.rules, rules6=was.rules6, nft=was.nft)
            found[name] = ours(state, plan.states[name], self._applied.get(name))
        return found

    def _remember(self, states: States, names: Iterable[str]) -> None:
        for name in names:
            self._applied[name] = states[name]

    def _wrote(self, ops: Iterable[Op]) -> None:
        """Follow the generations over our own writing: each commit of an iptables table is one, and each
        transaction of nft. If the kernel counts more, somebody else wrote at the same time, and the next look
        has to dump the rules."""
        commits: dict[str, int] = {}
        for op in ops:
            if isinstance(op.value, Namespace):
                self._generations[op.namespace] = FIRST_GENERATION
            elif isinstance(op.value, Restore | Transaction):
                count = op.value.script.count("COMMIT\n") if isinstance(op.value, Restore) else 1
                commits[op.namespace] = commits.get(op.namespace, 0) + count
        for name, count in commits.items():
            if (known := self._generations.get(name)) is not None:
                counted = self.machine.generation(name)
                self._generations[name] = counted if counted == known + count else None


def _finish(steps: Steps[T]) -> T:
    """Take all steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("T", end.value)


def _ruled(state: NamespaceState) -> bool:
    """Whether there are any rules of ours."""
    return bool(state.rules.tables or state.rules6.tables or state.nft)


def _outer(names: Iterable[str], states: States) -> set[str]:
    """The namespaces at the outer ends of the veth pairs whose inner ends are in `names`, and in turn at
    theirs: of a pod its node and the fabric."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        ends = {link.peer.namespace for name in todo for link in states[name].links if link.peer}
        todo = [end for end in ends - found if end in states]
        found.update(todo)
    return found


def _inner(names: Iterable[str], states: States) -> set[str]:
    """The namespaces at the inner ends of the veth pairs whose outer ends are in `names`."""
    wanted = set(names)
    return {
        name
        for name, state in states.items()
        if any(link.peer and link.peer.namespace in wanted for link in state.links)
    }
