"""One call of `Machine.applying`: operations grouped by namespace, each group in one send.

New namespaces are made ahead by processes of their own, and those of pods are wired by another one. What the
kernel refuses is tried once more at the end, for two reasons it may have had are gone then: an interface that
another group made later, and a leftover end of a veth pair whose namespace the kernel had not finished taking
down.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import chain, islice
from typing import NamedTuple

from nsk8s.errors import KernelError
from nsk8s.kernel import iptables, namespaces, nftables, observation, rtnetlink
from nsk8s.kernel.making import Wanted
from nsk8s.kernel.namespaces import CLONE_NEWNET
from nsk8s.kernel.netlink import Netlink, Refusal
from nsk8s.kernel.sandboxes import Sandboxes
from nsk8s.kernel.wiring import Setting, Wirer, Wiring, carry_out
from nsk8s.linux.nftables import Command
from nsk8s.linux.values import (
    Address,
    Family,
    FdbEntry,
    Link,
    Namespace,
    Neighbour,
    Op,
    Restore,
    Route,
    Sysctl,
    Transaction,
    VethPair,
)

_GONE = {errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL}
"""What the kernel says when that which is to be deleted is not there: no failure."""

_IPV6_MIN_MTU = 1280  # below, an interface has no IPv6 and refuses its settings (RFC 8200)
_PORTION = 100  # new namespaces that are told of at a time
_BEFORE_UP = (Namespace, Sysctl, Link, VethPair, Address)


class Failed(NamedTuple):
    """An operation that was not carried out, and why."""

    op: Op
    refusal: Refusal


_OuterEnds = dict[str, dict[str, tuple[Op, Link, int]]]
"""By namespace and name, outer ends of new pairs: the pair's operation, the end and its number."""


class _Portion(NamedTuple):
    """New pods that are being wired: all their operations, which of them wait for the wirer's answer, what
    has failed already, and what their pairs need at the outer ends afterwards."""

    groups: Mapping[str, list[Op]]
    waiting: list[str]
    failed: list[Failed]
    outer: _OuterEnds


class _Devices:
    """The interfaces of one namespace: name -> ifindex, and the numbers that are free."""

    def __init__(self, names: Mapping[str, int]) -> None:
        self.names = dict(names)
        self._used = set(names.values())
        self._last = max(self._used, default=0)

    def __getitem__(self, name: str) -> int:
        return self.names[name]

    def pop(self, name: str) -> int:
        """Forget an interface; 0 if it is not there."""
        return self.names.pop(name, 0)

    def add(self, link: Link) -> int:
        """The number for a new interface: the one asked for, or else one that is free."""
        index = link.index
        if not index or index in self._used:
            index = self._last + 1
        self._last = max(self._last, index)
        self._used.add(index)
        self.names[link.name] = index
        return index


@functools.cache
def _restoring() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="iptables")


class Batch:
    """The state of one call: what interfaces there are, and what is under way. Use once, then `close`."""

    def __init__(self, sandboxes: Sandboxes, wirer: Wirer, tags: Mapping[str, str]) -> None:
        self._sandboxes = sandboxes
        self._wirer = wirer
        self._tags = tags
        self._ipv6 = os.path.exists("/proc/sys/net/ipv6")
        self._devices: dict[str, _Devices] = {}
        self._fresh: Mapping[str, int] | None = None  # what the kernel puts into every new namespace
        self._outer: _OuterEnds = {}
        self.failed: list[Failed] = []
        self.errors: list[KernelError] = []

    def close(self) -> None:
        """Come home, with nothing under way."""
        self._wirer.settle()
        self._sandboxes.settle()
        self._sandboxes.home.back()

    def run(self, ops: Sequence[Op]) -> Iterator[list[str]]:
        """Carry out all it can; what was refused is in `failed` and `errors` afterwards.

        New namespaces with a tag come last: before they are wired, the rules of all others are in force.
        Yields their names as soon as they can, a portion at a time, and stands at home meanwhile.
        """
        self._sandboxes.remove(op.namespace for op in ops if _is(op, "delete", Namespace))
        # Links go first: an end in one namespace may be in the way of a new one made from another.
        gone = _grouped(op for op in ops if _is(op, "delete", Link, VethPair))
        rest = (op for op in ops if not _is(op, "delete", Link, VethPair, Namespace))
        groups = _grouped(op for op in rest if not isinstance(op.value, Restore | Transaction))
        rules = _grouped(op for op in ops if isinstance(op.value, Restore | Transaction))
        new = [wanted for wanted in map(self._new, groups.values()) if wanted]
        self._sandboxes.begin(new)
        last = {wanted.name: groups.pop(wanted.name) for wanted in new if wanted.tag}
        self.failed += self._attempt(gone, groups)
        self._rules({name: group for name, group in rules.items() if name not in last})
        portions = _portions(last)
        begun = self._begin(next(portions, {}))
        while begun.groups:
            following = self._begin(next(portions, {}))
            failed = self._finish(begun)
            self.failed += failed
            self._rules({name: rules[name] for name in begun.groups if name in rules})
            unmade = {one.op.namespace for one in failed}
            yield [name for name in begun.groups if name not in unmade]
            begun = following

    def _new(self, ops: Sequence[Op]) -> Wanted | None:
        """The sandbox that a group of operations begins with, unless it is there already."""
        value = ops[0].value
        if not isinstance(value, Namespace) or ops[0].namespace in self._sandboxes:
            return None
        return Wanted(ops[0].namespace, value.hostname, self._tags.get(ops[0].namespace, ""))

    def _rules(self, groups: Mapping[str, list[Op]]) -> None:
        """Put rule sets in force, where there is a namespace for them. Leaves the thread at home."""
        self._sandboxes.home.back()
        there = {name: group for name, group in groups.items() if not name or name in self._sandboxes}
        absent = FileNotFoundError(errno.ENOENT, "there is no such namespace")
        for name in groups.keys() - there.keys():
            self.failed += _all_failed(groups[name], absent)
        try:
            self._restore_and_commit(there)
        except OSError as error:  # one ended meanwhile; whoever looks again sees what is left to do
            for group in there.values():
                self.failed += _all_failed(group, error)

    def _restore_and_commit(self, groups: Mapping[str, list[Op]]) -> None:
        scripts: dict[Family, dict[str, str]] = {4: {}, 6: {}}
        transactions: dict[str, list[tuple[Command, ...]]] = {}
        for op in chain.from_iterable(groups.values()):
            if isinstance(op.value, Restore):
                of_family = scripts[op.value.family]
                of_family[op.namespace] = of_family.get(op.namespace, "") + op.value.script
            elif isinstance(op.value, Transaction):
                transactions.setdefault(op.namespace, []).append(op.value.commands)
        if not transactions:
            self.errors += self._restore(scripts)
            return
        restoring = _restoring().submit(self._restore, scripts)  # much of it is waiting
        try:
            committed = nftables.commit(transactions, self._sandboxes.enter)
        finally:
            wait([restoring])
        self.errors += restoring.result() + committed

    def _restore(self, scripts: Mapping[Family, Mapping[str, str]]) -> list[KernelError]:
        enter = self._sandboxes.enter
        return iptables.restore(scripts[4], enter) + iptables.restore(scripts[6], enter, 6)

    def _begin(self, groups: Mapping[str, list[Op]]) -> _Portion:
        """Begin to wire new pods."""
        portion = _Portion(groups, [], [], self._outer)
        for name, ops in groups.items():
            try:
                self._prepare(name, ops)
                pid = self._sandboxes.pid(name)
                messages = list(self._messages(name, ops, portion.failed))
                self._wirer.begin(Wiring(pid, _settings(ops), messages))
                portion.waiting.append(name)
            except OSError as error:
                portion.failed.extend(_all_failed(ops, error))
        self._outer = {}
        return portion

    def _finish(self, portion: _Portion) -> list[Failed]:
        """Wait until new pods are wired; what was refused is tried once more."""
        failed = portion.failed
        self._outer = portion.outer
        for name in portion.waiting:
            ops = portion.groups[name]
            try:
                failed += _failed(ops, self._wirer.refused())
            except OSError as error:
                failed += _all_failed(ops, error)
        return self._again(failed)

    def _attempt(self, *passes: Mapping[str, list[Op]]) -> list[Failed]:
        """Carry out groups of operations, what was refused twice."""
        return self._again([one for groups in passes for one in self._pass(groups)])

    def _again(self, failed: list[Failed]) -> list[Failed]:
        """Try once more what was refused, and do what is left to do at outer ends; what failed for good."""
        if failed:
            self._devices.clear()
            for op, refusal in failed:
                if isinstance(op.value, VethPair) and refusal.errno == errno.EEXIST:
                    self._clear(op.namespace, op.value)
            failed = self._pass(_grouped(one.op for one in failed))
        return failed + self._outer_ends({id(one.op) for one in failed})

    def _pass(self, groups: Mapping[str, list[Op]]) -> list[Failed]:
        failed: list[Failed] = []
        for name, group in groups.items():
            try:
                failed += self._group(name, group)
            except OSError as error:
                failed += _all_failed(group, error)
        return failed

    def _outer_ends(self, refused_already: Set[int]) -> list[Failed]:
        """What new pairs still need at their outer ends, in one send for each namespace."""
        failed: list[Failed] = []
        outer, self._outer = self._outer, {}
        for name, ends in outer.items():
            made = [end for end in ends.values() if id(end[0]) not in refused_already]
            self._enter(name)
            with Netlink() as netlink:
                refused = netlink.send(
                    chain.from_iterable(_outer_end(n, *end[1:]) for n, end in enumerate(made))
                )
            failed += [Failed(made[number][0], why) for number, why in refused.items()]
        return failed

    def _group(self, name: str, ops: list[Op]) -> list[Failed]:
        """All operations of one namespace; makes it first if they say so."""
        self._prepare(name, ops)
        self._enter(name)
        failed: list[Failed] = []
        refused = carry_out(_settings(ops), self._messages(name, ops, failed))
        return failed + _failed(ops, refused)

    def _prepare(self, name: str, ops: list[Op]) -> None:
        """Make a namespace if its operations say so, and know what interfaces there are, there and where
        outer ends of its pairs come to be. Leaves the thread somewhere."""
        for op in ops:
            if isinstance(op.value, VethPair):
                self._known(_outer_namespace(op.value))
        if new := self._new(ops):
            self._sandboxes.made(new)
            if self._fresh is None:
                self._enter(name)
                with Netlink() as netlink:
                    self._fresh = observation.devices(netlink)
            self._devices[name] = _Devices(self._fresh)
        else:
            self._known(name)

    def _messages(self, name: str, ops: list[Op], failed: list[Failed]) -> Iterator[bytes]:
        """The requests for a group; the sequence number of each is its operation's place in `ops`.

        Interfaces made here go up only after their addresses are there, so that arp_notify has something
        to announce, and before anything that needs them up.
        """
        ups: list[bytes] = []
        for number, op in enumerate(ops):
            if ups and not isinstance(op.value, _BEFORE_UP):
                yield from ups
                ups = []
            try:
                yield from self._encode(name, number, op, ups)
            except KeyError as missing:
                if op.verb != "delete":
                    failed.append(Failed(op, Refusal(errno.ENODEV, f"no interface {missing.args[0]}")))
            except ValueError as error:
                failed.append(Failed(op, Refusal(errno.EINVAL, str(error))))
            except OSError as error:
                failed.append(Failed(op, Refusal(error.errno or errno.EIO, error.strerror or "")))
        yield from ups

    def _encode(self, name: str, number: int, op: Op, ups: list[bytes]) -> Iterator[bytes]:
        """The requests for one operation. Raises KeyError for an interface that is not there."""
        known = self._devices[name]
        delete = op.verb == "delete"
        match op.value:
            case Namespace(hostname=hostname):
                if op.verb == "change":
                    self._sandboxes.rename(name, hostname)
            case Sysctl():
                pass  # not by netlink: see _settings
            case Link() | VethPair() if delete:
                link = op.value if isinstance(op.value, Link) else op.value.inner
                if index := known.pop(link.name):
                    yield rtnetlink.delete_link(number, index)
            case VethPair():
                yield from self._add_veth(name, number, op, op.value, ups)
            case Link() if op.verb == "change":
                link, index = op.value, known[op.value.name]
                master = known[link.master] if link.master else 0
                if observation.mac(index) == link.mac:
                    link = replace(link, mac="")  # even the same one again would flush all neighbours
                yield from rtnetlink.change_link(number, link, index, master, ipv6=self._has_ipv6(link))
            case Link():
                link = op.value
                lower = known[link.vxlan.dev] if link.vxlan else 0
                master = known[link.master] if link.master else 0
                index = known.add(link)
                yield rtnetlink.add_link(number, link, index, master, lower)
                yield from self._before_up(number, link, index, ups)
            case Address():
                yield rtnetlink.address(number, op.value, known[op.value.dev], delete=delete)
            case Route():
                yield rtnetlink.route(number, op.value, known[op.value.dev], delete=delete)
            case Neighbour():
                yield rtnetlink.neighbour(number, op.value, known[op.value.dev], delete=delete)
            case FdbEntry():
                yield rtnetlink.fdb(number, op.value, known[op.value.dev], delete=delete)

    def _add_veth(self, name: str, number: int, op: Op, pair: VethPair, ups: list[bytes]) -> Iterator[bytes]:
        there = _outer_namespace(pair)
        outside = self._devices[there]
        master = outside[pair.outer.master] if pair.outer.master else 0
        inner = self._devices[name].add(pair.inner)
        outer = outside.add(pair.outer)
        pid = 0 if there == name else self._sandboxes.pid(there)
        yield rtnetlink.add_veth(number, pair, inner, outer, master, pid)
        yield from self._before_up(number, pair.inner, inner, ups)
        if pair.outer.conf or pair.outer.hairpin:
            self._outer.setdefault(there, {})[pair.outer.name] = (op, pair.outer, outer)

    def _before_up(self, number: int, link: Link, index: int, ups: list[bytes]) -> Iterator[bytes]:
        yield from rtnetlink.configure(number, link, index, ipv6=self._has_ipv6(link))
        if link.up:
            ups.append(rtnetlink.up(number, index))

    def _has_ipv6(self, link: Link) -> bool:
        return self._ipv6 and link.mtu >= _IPV6_MIN_MTU

    def _clear(self, name: str, pair: VethPair) -> None:
        """Remove what stands in the way of a pair, either end of it."""
        for there, link in ((_outer_namespace(pair), pair.outer), (name, pair.inner)):
            index = self._known(there).pop(link.name)
            if index:
                self._enter(there)
                with Netlink() as netlink:
                    netlink.send([rtnetlink.delete_link(0, index)])  # refused: it went by itself

    def _known(self, name: str) -> _Devices:
        """The interfaces of an existing namespace. Leaves the thread somewhere."""
        if name not in self._devices:
            self._enter(name)
            with Netlink() as netlink:
                self._devices[name] = _Devices(observation.devices(netlink))
        return self._devices[name]

    def _enter(self, name: str) -> None:
        if not name:
            self._sandboxes.home.back("net")
            return
        fd = self._sandboxes.open(name)
        try:
            namespaces.setns(fd, CLONE_NEWNET)
        finally:
            os.close(fd)


def _portions(groups: Mapping[str, list[Op]]) -> Iterator[dict[str, list[Op]]]:
    names = iter(groups)
    while portion := {name: groups[name] for name in islice(names, _PORTION)}:
        yield portion


def _settings(ops: Iterable[Op]) -> list[Setting]:
    """The sysctls to write; a deleted intention leaves the value: nobody knows what it was before."""
    return [
        (number, op.value.key, op.value.value)
        for number, op in enumerate(ops)
        if isinstance(op.value, Sysctl) and op.verb != "delete"
    ]


def _failed(ops: Sequence[Op], refused: Mapping[int, Refusal]) -> list[Failed]:
    """The failures among operations, given what the kernel refused by their numbers."""
    return [
        Failed(ops[number], refusal)
        for number, refusal in refused.items()
        if not (ops[number].verb == "delete" and refusal.errno in _GONE)
    ]


def _all_failed(ops: Iterable[Op], error: OSError) -> list[Failed]:
    refusal = Refusal(error.errno or errno.EIO, error.strerror or str(error))
    return [Failed(op, refusal) for op in ops]


def _grouped(ops: Iterable[Op]) -> dict[str, list[Op]]:
    """Operations by namespace."""
    groups: dict[str, list[Op]] = {}
    for op in ops:
        groups.setdefault(op.namespace, []).append(op)
    return groups


def _is(op: Op, verb: str, *kinds: type) -> bool:
    return op.verb == verb and isinstance(op.value, kinds)


def _outer_end(number: int, link: Link, index: int) -> Iterator[bytes]:
    # IPv6 is off by default in the namespaces where outer ends are: nothing to be said of it
    yield from rtnetlink.configure(number, link, index, ipv6=False)
    if link.up and link.conf:
        yield rtnetlink.up(number, index)


def _outer_namespace(pair: VethPair) -> str:
    if pair.inner.peer is None:
        raise ValueError(f"veth {pair.inner.name} does not name its peer")
    return pair.inner.peer.namespace
