"""One call of `Machine.applying`: operations grouped by namespace, each group in one send.

New namespaces are made ahead by a thread of their own. What the kernel refuses is tried once more at the end,
for two reasons it may have had are gone then: an interface that another group made later, and a leftover end
of a veth pair whose namespace the kernel had not finished taking down.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from itertools import chain, islice
from typing import NamedTuple

from nsk8s.errors import KernelError
from nsk8s.kernel import iptables, namespaces, nftables, observation, rtnetlink, sysctl
from nsk8s.kernel.making import Wanted
from nsk8s.kernel.namespaces import CLONE_NEWNET
from nsk8s.kernel.netlink import Netlink, Refusal
from nsk8s.kernel.sandboxes import Sandboxes
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


class Batch:
    """The state of one call: open namespaces and known interfaces. Use once, then `close`."""

    def __init__(self, sandboxes: Sandboxes, tags: Mapping[str, str]) -> None:
        self._sandboxes = sandboxes
        self._tags = tags
        self._ipv6 = os.path.exists("/proc/sys/net/ipv6")
        self._netns: dict[str, int] = {}
        self._devices: dict[str, _Devices] = {}
        self._fresh: Mapping[str, int] | None = None  # what the kernel puts into every new namespace
        self._outer: dict[str, dict[str, tuple[Op, Link, int]]] = {}
        self.failed: list[Failed] = []
        self.errors: list[KernelError] = []

    def close(self) -> None:
        """Come home and let all namespaces go."""
        self._sandboxes.settle()
        self._sandboxes.home.back()
        for fd in self._netns.values():
            os.close(fd)
        self._netns.clear()

    def run(self, ops: Sequence[Op]) -> Iterator[list[str]]:
        """Carry out all it can; what was refused is in `failed` and `errors` afterwards.

        New namespaces with a tag come last: when they can be used, the rules of all others are in force.
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
        names = iter(last)
        while portion := list(islice(names, _PORTION)):
            failed = self._attempt({name: last[name] for name in portion})
            self.failed += failed
            self._rules({name: rules[name] for name in portion if name in rules})
            unmade = {one.op.namespace for one in failed}
            yield [name for name in portion if name not in unmade]

    def _new(self, ops: Sequence[Op]) -> Wanted | None:
        """The sandbox that a group of operations begins with, unless it is there already."""
        value = ops[0].value
        if not isinstance(value, Namespace) or ops[0].namespace in self._sandboxes:
            return None
        return Wanted(ops[0].namespace, value.hostname, self._tags.get(ops[0].namespace, ""))

    def _rules(self, groups: Mapping[str, list[Op]]) -> None:
        """Put rule sets in force. Leaves the thread at home."""
        self._sandboxes.home.back()
        scripts: dict[Family, dict[str, str]] = {4: {}, 6: {}}
        transactions: dict[str, list[tuple[Command, ...]]] = {}
        for op in chain.from_iterable(groups.values()):
            if isinstance(op.value, Restore):
                of_family = scripts[op.value.family]
                of_family[op.namespace] = of_family.get(op.namespace, "") + op.value.script
            elif isinstance(op.value, Transaction):
                transactions.setdefault(op.namespace, []).append(op.value.commands)
        enter = self._sandboxes.enter
        self.errors += iptables.restore(scripts[4], enter) + iptables.restore(scripts[6], enter, 6)
        self.errors += nftables.commit(transactions, enter)

    def _attempt(self, *passes: Mapping[str, list[Op]]) -> list[Failed]:
        """Carry out groups of operations, what was refused twice."""
        failed = [one for groups in passes for one in self._pass(groups)]
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
                refusal = Refusal(error.errno or errno.EIO, error.strerror or str(error))
                failed += [Failed(op, refusal) for op in group]
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
        for op in ops:
            if isinstance(op.value, VethPair):
                self._known(_outer_namespace(op.value))
        new = self._new(ops)
        if new:
            self._sandboxes.made(new)
            self._enter(name)
        else:
            self._known(name)
            self._enter(name)
        failed: list[Failed] = []
        with Netlink() as netlink:
            if new:
                if self._fresh is None:
                    self._fresh = observation.devices(netlink)
                self._devices[name] = _Devices(self._fresh)
            refused = netlink.send(self._messages(name, ops, failed))
        for number, refusal in refused.items():
            op = ops[number]
            if not (op.verb == "delete" and refusal.errno in _GONE):
                failed.append(Failed(op, refusal))
        return failed

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
            case Sysctl(key, value):
                if not delete:  # a deleted intention leaves the value: nobody knows what it was before
                    sysctl.write(key, value)
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
        netns = -1 if there == name else self._open(there)
        yield rtnetlink.add_veth(number, pair, inner, outer, master, netns)
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
        known = self._netns.get(name)
        fd = self._sandboxes.open(name) if known is None else known
        try:
            namespaces.setns(fd, CLONE_NEWNET)
        finally:
            if known is None:
                os.close(fd)

    def _open(self, name: str) -> int:
        if name not in self._netns:
            self._netns[name] = self._sandboxes.open(name)
        return self._netns[name]


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
