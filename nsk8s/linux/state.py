"""Comparing states: `diff` says what to do, `ours` says what of an observed state is ours to compare.

The laws, for whole machines (mappings of namespace name to state; the order of links says how they were made
and is no difference):

    diff(x, x) == ()
    apply(... apply(actual, op) ..., op) over diff(actual, desired) == desired
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from nsk8s.linux import iptables, nftables
from nsk8s.linux.model import KEYS, Key, Machine, Model, apply
from nsk8s.linux.values import (
    Address,
    Family,
    FdbEntry,
    Link,
    Namespace,
    NamespaceState,
    Neighbour,
    Op,
    Restore,
    Route,
    Ruleset,
    Sysctl,
    Transaction,
    Value,
    Verb,
    VethPair,
)

__all__ = ["EVERYTHING", "Machine", "Reading", "apply", "diff", "ours", "reading"]


class Reading(NamedTuple):
    """What has to be read of a namespace where not everything matters: each part takes the kernel its time,
    and a list of neighbours as long as one of the whole machine's. `neighbours` to ask for one by one, or
    None for the list; `routes6`: those of IPv6 as well."""

    neighbours: frozenset[Neighbour] | None = None
    routes6: bool = True


EVERYTHING = Reading()
"""All there is."""

T = TypeVar("T", Address, Route, Neighbour, FdbEntry)


def diff(actual: Machine, desired: Machine) -> tuple[Op, ...]:
    """What turns `actual` into `desired`, in an order in which it can be done: namespaces go, then links that
    are in the way; then each namespace in the order of `desired` is made and filled.

    `desired` names a namespace before those whose veth pairs end in it, and has both ends of each pair.
    What a deletion takes along is made again. Raises ValueError if `desired` contradicts itself.
    """
    changed = [name for name, state in desired.items() if actual.get(name) != state]
    gone = [name for name in actual if name not in desired]
    if not changed and not gone:
        return ()
    work = _Difference(actual, desired)
    for name in gone:
        work.do("delete", name, Namespace(name))
    for name in changed:
        if name in work.model:
            work.model.open(name)
    for name in desired:
        work.clear(name)
    for name in desired:
        if name not in work.model or work.model.touched(name):
            work.fill(name)
    for name in work.unfinished:
        work.hang(name, last=True)
    return tuple(work.ops)


class _Difference:
    """The operations found so far, and the model on which each was carried out as it was found."""

    def __init__(self, actual: Machine, desired: Machine) -> None:
        self.model = Model(actual)
        self.ops: list[Op] = []
        self.unfinished: list[str] = []  # where a value hangs on an outer end that is not made yet
        self._desired = desired
        self._links: dict[str, dict[str, Link]] = {}

    def do(self, verb: Verb, namespace: str, value: Value) -> None:
        op = Op(verb, namespace, value)
        self.model.apply(op)
        self.ops.append(op)

    def clear(self, name: str) -> None:
        """Delete the links that are not wanted or cannot become what is wanted."""
        wanted = self._desired[name].links
        if name in self.model and self.model.touched(name):
            names = {link.name: link for link in wanted}
            held = self.model.open(name).links
            for link in list(held.values()):
                want = names.get(link.name)
                if link.name in held and (want is None or not _alike(link, want)):
                    self.do("delete", name, link)
        for link in wanted:
            if link.peer:
                self._clear_pair(name, link)

    def _clear_pair(self, name: str, inner: Link) -> None:
        """Delete an end that has lost its other end, or has another's."""
        there, outer = inner.peer or ("", "")
        if all(each in self.model and not self.model.touched(each) for each in (name, there)):
            return
        self._end(name, inner)
        far = self.model.open(there).links.get(outer) if there in self.model else None
        near = self.model.open(name).links.get(inner.name) if name in self.model else None
        if near and not far:
            self.do("delete", name, near)
        elif far and not near:
            self.do("delete", there, far)

    def _end(self, name: str, inner: Link) -> Link:
        """The outer end that `inner` in `name` shall have."""
        there, device = inner.peer or ("", "")
        if there not in self._links:
            state = self._desired.get(there)
            self._links[there] = {link.name: link for link in state.links} if state else {}
        outer = self._links[there].get(device)
        if outer is None:
            raise ValueError(f"{name}: the other end of {inner.name}, {device} in {there!r}, is not desired")
        return outer

    def fill(self, name: str) -> None:
        """Make one namespace what it should be, but for what must wait for another one's veth pairs."""
        want = self._desired[name]
        if name not in self.model:
            self.do("add", name, Namespace(name, want.hostname))
        elif self.model.open(name).hostname != want.hostname:
            self.do("change", name, Namespace(name, want.hostname))
        self._reconcile(name, Sysctl, want.sysctls)
        held = self.model.open(name).links
        for link in want.links:
            have = held.get(link.name)
            if have is None and link.peer:
                self.do("add", name, VethPair(link, self._end(name, link), link.why))
            elif have is None and link.kind != "veth":
                self.do("add", name, link)
            elif have is not None and have != link:
                self.do("change", name, link)
        self.hang(name)
        self._rule(name)

    def _rule(self, name: str) -> None:
        """The rules; nothing else depends on them."""
        want, have = self._desired[name], self.model.open(name)
        self._restore(name, have.rules, want.rules, 4)
        self._restore(name, have.rules6, want.rules6, 6)
        for commands in nftables.pieces(nftables.transaction(have.nft, want.nft)):
            self.ops.append(Op("change" if have.nft else "add", name, Transaction(commands)))

    def _restore(self, name: str, have: Ruleset, want: Ruleset, family: Family) -> None:
        if script := iptables.script(have, want):
            self.ops.append(Op("change" if have.tables else "add", name, Restore(script, family)))

    def hang(self, name: str, *, last: bool = False) -> None:
        """Bring what hangs on devices into agreement; unless it is the `last` time, leave out what hangs on a
        veth end that some later namespace brings along."""
        want, held = self._desired[name], self.model.open(name).links
        missing = set() if last else {link.name for link in want.links} - held.keys()
        if missing:
            self.unfinished.append(name)

        def ready(values: frozenset[T]) -> Iterable[T]:
            return [value for value in values if value.dev not in missing] if missing else values

        if self._reconcile(name, Address, ready(want.addresses)):
            # A first address takes the second ones of its subnet along.
            self._reconcile(name, Address, ready(want.addresses))
        self._reconcile(name, Route, ready(want.routes))
        self._reconcile(name, Neighbour, ready(want.neighbours))
        self._reconcile(name, FdbEntry, ready(want.fdb))

    def _reconcile(self, name: str, kind: type[Any], wanted: Iterable[Any]) -> bool:
        """Add or change what is wanted and not so, then delete what is not; whether any was deleted."""
        held: dict[Key, Any] = self.model.open(name).sets[kind]
        key = KEYS[kind]
        want = {key(value): value for value in wanted}
        if held == want:
            return False
        for value in sorted((v for k, v in want.items() if held.get(k) != v), key=_order):
            self.do("change" if key(value) in held else "add", name, value)
        extra = sorted((v for k, v in held.items() if k not in want), key=_order, reverse=True)
        for value in extra:
            self.do("delete", name, value)
        return bool(extra)


def _alike(have: Link, want: Link) -> bool:
    """Whether one can become the other without being made anew."""
    return (have.kind, have.vxlan, have.peer) == (want.kind, want.vxlan, want.peer)


def _order(value: Any) -> tuple[Any, ...]:  # noqa: ANN401  # any value of a set
    """An order that does not depend on hashing; routes to gateways after those that need none."""
    if isinstance(value, Route):
        return (bool(value.via), value.dst == "default", value.dst)
    return KEYS[type(value)](value)


def ours(
    actual: NamespaceState, desired: NamespaceState, previous: NamespaceState | None = None
) -> NamespaceState:
    """An observed state without what none of us made, so that `diff` leaves that alone.

    A value that is not desired is ours, to be deleted, if it was in `previous` (what was last applied), hangs
    on a VXLAN device of ours, or is a veth on a bridge of ours; rules in chains of ours, if we want any rules
    here. Of what is desired only those details count that were asked for: sysctls, the settings of a device,
    its MAC, the host name. Links come in the order in which they are desired. Tables of nft(8) are ours as
    observed.
    """
    before = previous or NamespaceState(actual.name)
    tunnels = {link.name for link in desired.links if link.kind == "vxlan"}

    def kept(held: frozenset[T], asked: frozenset[T], last: frozenset[T]) -> frozenset[T]:
        if held == asked:
            return asked
        return frozenset(v for v in held if v in asked or v in last or v.dev in tunnels)

    keys = {sysctl.key for sysctl in desired.sysctls}

    def settled(held: Ruleset, asked: Ruleset, last: Ruleset) -> Ruleset:
        return iptables.settled(held, asked) if asked.tables or last.tables else asked

    return NamespaceState(
        actual.name,
        actual.hostname if desired.hostname else "",
        _our_links(actual.links, desired.links, before.links),
        kept(actual.addresses, desired.addresses, before.addresses),
        kept(actual.routes, desired.routes, before.routes),
        kept(actual.neighbours, desired.neighbours, before.neighbours),
        kept(actual.fdb, desired.fdb, before.fdb),
        frozenset(sysctl for sysctl in actual.sysctls if sysctl.key in keys),
        settled(actual.rules, desired.rules, before.rules),
        settled(actual.rules6, desired.rules6, before.rules6),
        nftables.settled(actual.nft, desired.nft),
    )


def reading(desired: NamespaceState, previous: NamespaceState) -> Reading:
    """What has to be read for `ours` to tell: of the rest it would keep nothing."""
    if any(link.vxlan for link in desired.links):
        return EVERYTHING
    routes6 = any(route.family == 6 for state in (desired, previous) for route in state.routes)
    return Reading(desired.neighbours | previous.neighbours, routes6)


def _our_links(
    actual: tuple[Link, ...], desired: tuple[Link, ...], previous: tuple[Link, ...]
) -> tuple[Link, ...]:
    held = {link.name: link for link in actual}
    wanted = [_in_words_of(link, held[link.name]) for link in desired if link.name in held]
    names = {link.name for link in desired}
    last = {link.name: link for link in previous}
    bridges = {link.name for link in desired if link.kind == "bridge"}
    extra = [
        _in_words_of(last.get(link.name, link), link)
        for link in actual
        if link.name not in names and (link.name in last or (link.kind == "veth" and link.master in bridges))
    ]
    return (*wanted, *extra)


def _in_words_of(wanted: Link, seen: Link) -> Link:
    """The link seen, with those details only that somebody asked for."""
    keys = {key for key, _ in wanted.conf}
    conf = tuple(pair for pair in seen.conf if pair[0] in keys) if keys else ()
    mac, peer = seen.mac if wanted.mac else "", seen.peer if wanted.peer else None
    link = replace(seen, conf=conf, mac=mac, peer=peer)
    return wanted if link == wanted else link
