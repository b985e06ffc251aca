"""Comparing states, and the model kernel: `diff` says what to do, `apply` does it to values.

The laws, for whole machines (mappings of namespace name to state):

    diff(x, x) == ()
    apply(... apply(actual, op) ..., op) over diff(actual, desired) == desired
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from nsk8s.linux import iptables
from nsk8s.linux.values import (
    Address,
    FdbEntry,
    Link,
    Namespace,
    NamespaceState,
    Neighbour,
    Op,
    Restore,
    Route,
    Sysctl,
    Verb,
    VethPair,
)

Machine = Mapping[str, NamespaceState]
Device = tuple[str, str]
"""A namespace, and the name of a device in it."""

HANGING = ("addresses", "routes", "neighbours", "fdb")
"""The sets whose values hang on a device, in the order in which they can be made."""

_FIELD = {Address: "addresses", Route: "routes", Neighbour: "neighbours", FdbEntry: "fdb", Sysctl: "sysctls"}


def diff(actual: Machine, desired: Machine) -> tuple[Op, ...]:
    """What turns `actual` into `desired`, in an order in which it can be done.

    A namespace that is not desired goes, and all it holds with it. Both ends of a veth pair must be in
    `desired` together. Where both can stand, what is new is added before what is old is deleted.
    """
    changed = [name for name, state in desired.items() if actual.get(name) != state]
    gone = [name for name in actual if name not in desired]
    if not changed and not gone:
        return ()
    links = _Links(actual, desired, changed, gone)
    ops = [Op("delete", name, Namespace(name)) for name in gone]
    for name in changed:
        there = actual.get(name)
        if there is None or there.hostname != desired[name].hostname:
            verb: Verb = "add" if there is None else "change"
            ops.append(Op(verb, name, Namespace(name, desired[name].hostname)))
    ops += links.deletions
    for name in changed:
        new, old = desired[name], actual.get(name) or NamespaceState(name)
        ops += [Op("change", name, s) for s in _ordered(new.sysctls - old.sysctls)]
        ops += links.made.get(name, ())
        deletions: list[Op] = []
        for kind in HANGING:
            wanted, held = getattr(new, kind), getattr(old, kind)
            if links.touched:
                held = frozenset(v for v in held if (name, v.dev) not in links.touched)
            ops += [Op("add", name, v) for v in _ordered(wanted - held)]
            deletions += [Op("delete", name, v) for v in _ordered(held - wanted)]
        ops += reversed(deletions)
    for name in changed:
        held_rules = actual[name].rules if name in actual else iptables.EMPTY
        if script := iptables.script(held_rules, desired[name].rules):
            ops.append(Op("change", name, Restore(script)))
    return tuple(ops)


class _Links:
    """What happens to the devices: `deletions` come first; `made` are additions and changes by namespace;
    `touched` are devices that are new or gone, so that nothing hangs on them any more."""

    def __init__(self, actual: Machine, desired: Machine, changed: list[str], gone: list[str]) -> None:
        self.deletions: list[Op] = []
        self.made: dict[str, list[Op]] = {}
        self.touched: set[Device] = set()
        self._held = {name: {link.name: link for link in state.links} for name, state in actual.items()}
        self._wanted = {name: {link.name: link for link in desired[name].links} for name in desired}
        self._fresh: set[Device] = set()
        self._inner: dict[Device, Device] = {
            link.peer: (name, link.name)
            for name, state in actual.items()
            for link in state.links
            if link.peer
        }
        for name in gone:
            for link in actual[name].links:
                self._lose(name, link)
        for name in changed:
            for link in desired[name].links:
                self._replace(name, link)
        for name in changed:
            for link in self._held.get(name, {}).values():
                if link.name not in self._wanted[name]:
                    self._delete(name, link)
        for name in changed:
            self.made[name] = list(self._make(name, desired[name].links))

    def _replace(self, name: str, link: Link) -> None:
        """Decide whether a device must be made; if another stands in its place, that one goes."""
        held = self._held.get(name, {}).get(link.name)
        lost = (name, link.name) in self.touched
        if link.peer is None:
            if link.kind == "veth":
                return  # comes with its inner end
            same = held is not None and (held.kind, held.vxlan) == (link.kind, link.vxlan)
            if held is not None and not same:
                self._delete(name, held)
            if not same or lost:
                self._fresh.add((name, link.name))
            return
        if link.peer.name not in self._wanted.get(link.peer.namespace, {}):
            raise ValueError(f"{name}: the other end of {link.name}, {link.peer}, is not desired")
        far = self._held.get(link.peer.namespace, {}).get(link.peer.name)
        same = held is not None and far is not None and (held.kind, held.peer) == (link.kind, link.peer)
        if same and not lost and link.peer not in self.touched:
            return
        if held is not None:
            self._delete(name, held)
        if far is not None:
            self._delete(link.peer.namespace, far)
        self._fresh |= {(name, link.name), link.peer}

    def _make(self, name: str, links: Iterable[Link]) -> Iterator[Op]:
        remade = {link.name for link in links if link.kind == "bridge" and (name, link.name) in self._fresh}
        for link in links:
            held = self._held.get(name, {}).get(link.name)
            if (name, link.name) in self._fresh:
                if link.peer is not None:
                    outer = self._wanted[link.peer.namespace][link.peer.name]
                    yield Op("add", name, VethPair(link, outer, why=link.why))
                elif link.kind != "veth":
                    yield Op("add", name, link)
            elif held is not None and (held != link or link.master in remade):
                yield Op("change", name, link)
        self.touched |= {device for device in self._fresh if device[0] == name}

    def _delete(self, name: str, link: Link) -> None:
        if (name, link.name) not in self.touched:
            self.deletions.append(Op("delete", name, link))
            self._lose(name, link)

    def _lose(self, name: str, link: Link) -> None:
        """A device goes, and with it the other end of its pair."""
        self.touched.add((name, link.name))
        other = link.peer or self._inner.get((name, link.name))
        if other:
            self.touched.add((other[0], other[1]))


def apply(machine: Machine, op: Op) -> Machine:
    """The model kernel: `machine` after `op`, with the consequences the real one has."""
    states = dict(machine)
    name, value = op.namespace, op.value
    if isinstance(value, Namespace):
        if op.verb == "delete":
            for link in states.pop(name).links:
                _without(states, *(link.peer or ("", "")))
            for other, state in list(states.items()):
                for link in state.links:
                    if link.peer and link.peer.namespace == name:
                        _without(states, other, link.name)
        elif op.verb == "add":
            states[name] = NamespaceState(name, value.hostname)
        else:
            states[name] = replace(states[name], hostname=value.hostname)
        return states
    state = states[name]
    match value:
        case VethPair():
            assert value.inner.peer is not None
            states[name] = _with_link(state, value.inner)
            far = value.inner.peer.namespace
            states[far] = _with_link(states[far], value.outer)
        case Link() if op.verb == "delete":
            _without(states, name, value.name)
        case Link():
            states[name] = _with_link(state, value)
        case Restore():
            states[name] = replace(state, rules=iptables.apply(state.rules, value.script))
        case _:
            field = _FIELD[type(value)]
            held = getattr(state, field)
            if isinstance(value, Sysctl):
                held = frozenset(s for s in held if s.key != value.key)
            kept = held - {value} if op.verb == "delete" else held | {value}
            states[name] = _replaced(state, {field: kept})
    return states


def ours(
    actual: NamespaceState, desired: NamespaceState, previous: NamespaceState | None = None
) -> NamespaceState:
    """An observed state without what none of us made, so that `diff` leaves that alone.

    A value that is not desired is ours if it was in `previous` (what was last applied), hangs on a VXLAN
    device, or is a bridge port. Of sysctls and per-device sysctls, only those desired are looked at.
    """
    wanted = {link.name: link for link in desired.links}
    known = {link.name for link in previous.links} if previous else set()
    links = [
        _looked_at(link, wanted.get(link.name))
        for link in actual.links
        if link.name in wanted or link.name in known or (link.kind == "veth" and link.master)
    ]
    order = {link.name: index for index, link in enumerate(desired.links)}
    links.sort(key=lambda link: order.get(link.name, len(order)))
    tunnels = {link.name for link in desired.links if link.kind == "vxlan"}
    fields: dict[str, Any] = {"links": tuple(links)}
    for kind in HANGING:
        held, asked = getattr(actual, kind), getattr(desired, kind)
        if held != asked:
            before = getattr(previous, kind) if previous else frozenset()
            held = frozenset(v for v in held if v in asked or v in before or v.dev in tunnels)
        fields[kind] = held
    keys = {sysctl.key for sysctl in desired.sysctls}
    fields["sysctls"] = frozenset(s for s in actual.sysctls if s.key in keys)
    fields["rules"] = iptables.settled(actual.rules, desired.rules)
    return _replaced(actual, fields)


def _looked_at(link: Link, wanted: Link | None) -> Link:
    """A link with only those details that somebody asked for."""
    if wanted is None:
        return link
    keys = {key for key, _ in wanted.conf}
    conf = tuple((key, value) for key, value in link.conf if key in keys) if keys else ()
    mac = link.mac if wanted.mac else ""
    peer = link.peer if wanted.peer else None
    if (conf, mac, peer) == (link.conf, link.mac, link.peer):
        return link
    return replace(link, conf=conf, mac=mac, peer=peer)


def _with_link(state: NamespaceState, link: Link) -> NamespaceState:
    """The state with a device made or changed, where the state's order puts it."""
    names = [held.name for held in state.links]
    if link.name in names:
        links = tuple(link if held.name == link.name else held for held in state.links)
    else:
        links = (*state.links, link)
    return replace(state, links=links)


def _without(states: dict[str, NamespaceState], name: str, device: str) -> None:
    """Drop a device, the other end of its pair, and what hangs on either."""
    state = states.get(name)
    held = next((link for link in state.links if link.name == device), None) if state else None
    if state is None or held is None:
        return
    fields: dict[str, Any] = {
        kind: frozenset(v for v in getattr(state, kind) if v.dev != device) for kind in HANGING
    }
    fields["links"] = tuple(
        replace(link, master="") if link.master == device else link
        for link in state.links
        if link.name != device
    )
    states[name] = _replaced(state, fields)
    if held.peer:
        _without(states, *held.peer)
    for other, far in list(states.items()):
        for link in far.links:
            if link.peer == (name, device):
                _without(states, other, link.name)


def _replaced(state: NamespaceState, fields: dict[str, Any]) -> NamespaceState:
    return replace(state, **fields)


def _ordered(values: Iterable[Any]) -> list[Any]:
    """Values in an order that does not depend on hashing; on-link routes before those via a gateway."""
    return sorted(values, key=_sort_key)


def _sort_key(value: Any) -> tuple[Any, ...]:  # noqa: ANN401  # any value of a set
    if isinstance(value, Route):
        return (bool(value.via) and not value.onlink, value.dst == "default", value.dst, value.dev, value.via)
    if isinstance(value, Sysctl):
        return (value.key, value.value)
    return tuple(str(getattr(value, field)) for field in value.__slots__ if field != "why")
