"""The model kernel: what an operation makes of a machine, with everything that follows from it.

It is the fake that tests run against, and what `state.diff` plays its operations on while it finds them, so
that what a deletion takes along is made again by the same code that makes it the first time.

A namespace holds one route per family and destination (metrics are not modelled), one neighbour per device
and address, one forwarding entry per device and MAC (but many for the all-zero and multicast MACs):
rtnetlink(7) replaces them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from msgspec import Struct, field

from nsk8s.linux import iptables, nftables
from nsk8s.linux.values import (
    Address,
    FdbEntry,
    Link,
    Namespace,
    NamespaceState,
    Neighbour,
    Op,
    Peer,
    Restore,
    Route,
    Ruleset,
    Sysctl,
    Transaction,
    VethPair,
    family,
)

Machine = Mapping[str, NamespaceState]
"""Namespaces by name."""

Key = tuple[str, ...]


def _fdb_key(entry: FdbEntry) -> Key:
    many = int(entry.mac[:2], 16) & 1 or not entry.mac.strip("0:")
    return (entry.dev, entry.mac, entry.dst) if many else (entry.dev, entry.mac)


KEYS: dict[type[Any], Callable[[Any], Key]] = {
    Sysctl: lambda sysctl: (sysctl.key,),
    Address: lambda address: (address.dev, address.cidr),
    Route: lambda route: (route.dst, str(route.family)),
    Neighbour: lambda neighbour: (neighbour.dev, neighbour.address),
    FdbEntry: _fdb_key,
}
"""What makes two values of a kind the same thing: a new one takes the old one's place."""


class Contents(Struct):
    """What one namespace holds, open for change; sets of values by their `KEYS`."""

    hostname: str = ""
    links: dict[str, Link] = field(default_factory=dict)
    sets: dict[type[Any], dict[Key, Any]] = field(default_factory=lambda: {kind: {} for kind in KEYS})
    rules: Ruleset = field(default_factory=Ruleset)
    rules6: Ruleset = field(default_factory=Ruleset)
    nft: nftables.Tables = field(default_factory=lambda: nftables.EMPTY)

    @staticmethod
    def of(state: NamespaceState) -> Contents:
        """A copy of `state`."""
        values = (state.sysctls, state.addresses, state.routes, state.neighbours, state.fdb)
        return Contents(
            state.hostname,
            {link.name: link for link in state.links},
            {kind: {KEYS[kind](v): v for v in held} for kind, held in zip(KEYS, values, strict=True)},
            state.rules,
            state.rules6,
            state.nft,
        )

    def state(self, name: str) -> NamespaceState:
        """The value again."""
        sysctls, addresses, routes, neighbours, fdb = (
            frozenset(values.values()) for values in self.sets.values()
        )
        return NamespaceState(
            name,
            self.hostname,
            tuple(self.links.values()),
            addresses,
            routes,
            neighbours,
            fdb,
            sysctls,
            self.rules,
            self.rules6,
            self.nft,
        )

    def drop(self, kind: type[Any], wrong: Callable[[Any], bool]) -> None:
        """Forget the values of a kind that are `wrong`."""
        held = self.sets[kind]
        for key in [key for key, value in held.items() if wrong(value)]:
            del held[key]


class Model:
    """A machine that changes; `machine` is never written to. Raises ValueError for what a kernel refuses
    because something is missing or already there."""

    def __init__(self, machine: Machine) -> None:
        self._untouched = dict(machine)
        self._open: dict[str, Contents] = {}
        self._inner_ends: dict[Peer, Peer] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._open or name in self._untouched

    def touched(self, name: str) -> bool:
        """Whether the namespace may differ from what it was at first."""
        return name in self._open

    def open(self, name: str) -> Contents:
        """What a namespace holds now."""
        if name not in self._open:
            if name not in self._untouched:
                raise ValueError(f"no namespace {name!r}")
            self._open[name] = Contents.of(self._untouched.pop(name))
        return self._open[name]

    def machine(self) -> dict[str, NamespaceState]:
        """The machine as a value."""
        return self._untouched | {name: contents.state(name) for name, contents in self._open.items()}

    def apply(self, op: Op) -> None:
        """Carry out one operation."""
        name, value, delete = op.namespace, op.value, op.verb == "delete"
        match value:
            case Namespace():
                self._namespace(op, value)
            case VethPair():
                self._add_pair(name, value)
            case Link() if delete:
                self._delete_link(name, value.name)
            case Link() if op.verb == "change":
                self._change_link(self.open(name), value)
            case Link():
                self._add_link(name, value)
            case Restore():
                contents = self.open(name)
                if value.family == 6:
                    contents.rules6 = iptables.apply(contents.rules6, value.script)
                else:
                    contents.rules = iptables.apply(contents.rules, value.script)
            case Transaction():
                contents = self.open(name)
                contents.nft = nftables.apply(contents.nft, value.commands)
            case Address() if delete:
                self._delete_address(self.open(name), value)
            case _:
                contents = self.open(name)
                held = contents.sets[type(value)]
                if delete:
                    held.pop(KEYS[type(value)](value), None)
                elif not isinstance(value, Sysctl) and value.dev not in contents.links and value.dev != "lo":
                    raise ValueError(f"{name}: no device for {value}")
                else:
                    held[KEYS[type(value)](value)] = value

    def _namespace(self, op: Op, value: Namespace) -> None:
        name = op.namespace
        if op.verb == "change":
            self.open(name).hostname = value.hostname
        elif op.verb == "add":
            if name in self:
                raise ValueError(f"namespace {name!r} exists")
            self._open[name] = Contents(value.hostname)
        else:
            for link in list(self.open(name).links):
                self._delete_link(name, link)
            del self._open[name]

    def _add_pair(self, name: str, pair: VethPair) -> None:
        peer = pair.inner.peer
        if peer is None or peer.name != pair.outer.name:
            raise ValueError(f"{name}: the inner end of a veth pair names the outer one: {pair}")
        self._add_link(peer.namespace, pair.outer)
        self._add_link(name, pair.inner)
        if self._inner_ends is not None:
            self._inner_ends[peer] = Peer(name, pair.inner.name)

    def _add_link(self, name: str, link: Link) -> None:
        links = self.open(name).links
        if link.name in links:
            raise ValueError(f"{name}: device {link.name} exists")
        for needed in (link.master, link.vxlan.dev if link.vxlan else ""):
            if needed and needed not in links:
                raise ValueError(f"{name}: device {link.name} needs {needed}")
        links[link.name] = link

    @staticmethod
    def _change_link(contents: Contents, link: Link) -> None:
        old = contents.links[link.name]
        contents.links[link.name] = link
        if link.mac != old.mac or not link.up:  # neigh_changeaddr() flushes permanent entries too
            contents.drop(Neighbour, lambda neighbour: neighbour.dev == link.name)
        if not link.up:
            contents.drop(Route, lambda route: route.dev == link.name)
            contents.drop(Address, lambda a: a.dev == link.name and family(a.cidr) == 6)

    @staticmethod
    def _delete_address(contents: Contents, address: Address) -> None:
        """The first IPv4 address of a subnet takes the others of that subnet along; the last of a device its
        routes and neighbours (fib_disable_ip() in the kernel). Which one was first is not known here, so
        each is taken for it. IPv6 addresses go alone."""
        if family(address.cidr) == 6:
            contents.drop(Address, lambda a: a == address)
            return
        dev, source = address.dev, address.cidr.partition("/")[0]
        subnet = ipaddress.ip_interface(address.cidr).network
        contents.drop(Address, lambda a: a.dev == dev and ipaddress.ip_interface(a.cidr).network == subnet)
        contents.drop(Route, lambda route: route.src == source)
        if not any(a.dev == dev and family(a.cidr) == 4 for a in contents.sets[Address].values()):
            contents.drop(Route, lambda route: route.dev == dev and route.family == 4)
            contents.drop(Neighbour, lambda n: n.dev == dev and family(n.address) == 4)

    def _delete_link(self, name: str, device: str) -> None:
        """Delete a device, the other end of its pair, VXLAN devices on top of it and all that hangs on
        any of them; its bridge ports become free. Nothing to do if it is not there."""
        contents = self.open(name)
        link = contents.links.pop(device, None)
        if link is None:
            return
        for kind in (Address, Route, Neighbour, FdbEntry):
            contents.drop(kind, lambda value: value.dev == device)
        for other in list(contents.links.values()):
            if other.master == device:
                contents.links[other.name] = replace(other, master="", hairpin=False)
            elif other.vxlan and other.vxlan.dev == device:
                self._delete_link(name, other.name)
        far = link.peer or (self._inner_end(Peer(name, device)) if link.kind == "veth" else None)
        if far and far.namespace in self:
            self._delete_link(*far)

    def _inner_end(self, outer: Peer) -> Peer | None:
        """The inner end of the pair whose outer one this is; netlink does not say so in the kernel's
        own words, but the kernel knows."""
        if self._inner_ends is None:
            self._inner_ends = {inner.peer: end for end, inner in self._links() if inner.peer}
        return self._inner_ends.get(outer)

    def _links(self) -> Iterator[tuple[Peer, Link]]:
        for name, state in self._untouched.items():
            yield from ((Peer(name, link.name), link) for link in state.links)
        for name, contents in self._open.items():
            yield from ((Peer(name, link.name), link) for link in contents.links.values())


def apply(machine: Machine, op: Op) -> dict[str, NamespaceState]:
    """`machine` after `op`. Raises ValueError for what a kernel refuses."""
    model = Model(machine)
    model.apply(op)
    return model.machine()
