"""A packet's walk through a node's tables of nft(8), as `walk` walks through iptables: every way is taken
where a rule decides by chance. The walker knows nothing of Kubernetes; it reads rules as ``nft list`` prints
them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from nsk8s.linux.nftables import Table
from nsk8s.linux.values import NamespaceState
from tests.flows.walk import Packet, Walker

Way = tuple[Packet, str]
"""A packet at the end of a chain, and the verdict: empty if the chain was left without one."""

_WORDS = re.compile(r'"[^"]*"|[{},]|[^\s{},]+')
_SELECTORS = (
    *(("ip", "daddr"), ("ip", "saddr"), ("ip6", "daddr"), ("ip6", "saddr"), ("meta", "l4proto")),
    *(("th", "dport"), ("iifname",), ("fib", "daddr", "type"), ("fib", "saddr", "type")),
    *(("ct", "state"), ("ct", "status"), ("numgen", "random", "mod")),
)
FINAL = {"drop": "DROP", "reject": "REJECT", "masquerade": "MASQUERADE", "accept": "ACCEPT"}


@lru_cache(maxsize=100_000)
def words(rule: str) -> tuple[str, ...]:
    """A rule's words without its comment."""
    found = tuple(_WORDS.findall(rule))
    return found[: found.index("comment")] if "comment" in found else found


class NftWalker(Walker):
    """Walks packets over one node's table of one family."""

    def __init__(self, node: NamespaceState, table: Table) -> None:
        super().__init__(node)
        self.table = table

    def walk(self, source: str, protocol: str, destination: str, port: int) -> frozenset[str]:
        own = self.is_local(source)
        interface = "" if own else self.interface(source)
        packet = Packet(source, protocol, destination, port, interface=interface)
        outcomes: set[str] = set()
        for dispatched, verdict in self.hook("output" if own else "prerouting", packet):
            outcomes |= {verdict} if verdict else self.delivered(dispatched, own=own)
        return frozenset(outcomes)

    def delivered(self, packet: Packet, *, own: bool) -> set[str]:
        """What becomes of it after the first hook."""
        here = self.is_local(packet.now[0])
        hook = "input" if here else "" if own else "forward"
        outcomes = set()
        for after, verdict in self.hook(hook, packet) if hook else [(packet, "")]:
            if verdict:
                outcomes.add(verdict)
            elif here and not own:
                outcomes.add(after.to)
            else:
                sent = self.hook("postrouting", after)
                outcomes |= {one.to + (" masq" if masq else "") for one, masq in sent}
        return outcomes

    def hook(self, name: str, packet: Packet) -> Iterator[Way]:
        """Every way through the base chains of a hook in their order; address translation lets a packet go
        on."""
        chains = [chain for chain in self.table.chains.values() if chain.hook and chain.hook.hook == name]
        yield from self.through(sorted((c.hook.priority, c.name) for c in chains if c.hook), packet)

    def through(self, chains: list[tuple[int, str]], packet: Packet) -> Iterator[Way]:
        if not chains:
            yield packet, ""
            return
        for after, verdict in self.chain("", chains[0][1], packet):
            if verdict in ("", "DNAT", "ACCEPT"):
                yield from self.through(chains[1:], after)
            else:
                yield after, verdict

    def chain(self, table: str, name: str, packet: Packet) -> Iterator[Way]:
        yield from self.follow(table, self.table.chains[name].rules, packet)

    def follow(self, table: str, rules: tuple[str, ...], packet: Packet) -> Iterator[Way]:
        if not rules:
            yield packet, ""
            return
        for after, verdict in self.rule(words(rules[0]), packet):
            match verdict.partition(" "):
                case ("", _, _):
                    yield from self.follow(table, rules[1:], after)
                case ("goto", _, name):
                    yield from self.chain(table, name, after)
                case ("jump", _, name):
                    for back, ended in self.chain(table, name, after):
                        if ended:
                            yield back, ended
                        else:
                            yield from self.follow(table, rules[1:], back)
                case _:
                    yield after, verdict

    def rule(self, left: tuple[str, ...], packet: Packet) -> Iterator[Way]:
        """What one rule makes of it: nothing (it does not match, or says no more), ``goto CHAIN``, ``jump
        CHAIN``, or a verdict; several if it draws lots."""
        while left:
            match left:
                case ("jump" | "goto" as how, name):
                    yield packet, f"{how} {name}"
                    return
                case (last, *_) if last in FINAL:
                    yield packet, FINAL[last]
                    return
                case ("update", *_):
                    left = left[left.index("}") + 1 :]
                case ("dnat", *_):
                    yield from ((replace(packet, to=to), "DNAT") for to in targets(left))
                    return
                case ("meta", "mark", "set", "meta", "mark", operator, value, *_):
                    number = int(value, 16)
                    mark = packet.mark | number if operator == "|" else packet.mark ^ number
                    packet, left = replace(packet, mark=mark), left[7:]
                case ("meta", "mark", "&", mask, "!=", value, *_):
                    if packet.mark & int(mask, 16) == int(value, 16):
                        break
                    left = left[6:]
                case ("numgen", "random", "mod", _, "vmap", *choices):
                    yield from ((packet, verdict) for verdict in listed(tuple(choices)).values())
                    return
                case _:
                    holds, left, verdict = self.test(left, packet)
                    if not holds:
                        break
                    if verdict:
                        yield packet, FINAL.get(verdict, verdict)
                        return
        yield packet, ""

    def test(self, left: tuple[str, ...], packet: Packet) -> tuple[bool, tuple[str, ...], str]:
        """Whether the match that `left` begins with holds, what is left behind it, and the verdict that a
        map has for it."""
        values = []
        while True:
            selector = next((s for s in _SELECTORS if left[: len(s)] == s), None)
            assert selector is not None, f"the walker does not know {' '.join(left)!r}"
            values.append(self.value(selector, packet))
            left = left[len(selector) :]
            if left[0] != ".":
                break
            left = left[1:]
        key = " . ".join(values)
        if left[0] == "vmap":
            elements = self.table.sets[left[1].removeprefix("@")].elements
            return (key in elements, left[2:], elements[key].value if key in elements else "")
        inverted = left[0] == "!="
        left = left[1:] if inverted else left
        if left[0] == "{":
            wanted: tuple[str, ...] = tuple(w for w in left[1 : left.index("}")] if w != ",")
            left = left[left.index("}") + 1 :]
        elif left[0].startswith("@"):
            wanted, left = tuple(self.table.sets[left[0][1:]].elements), left[1:]
        else:
            wanted, left = (left[0],), left[1:]
        return any(matches(key, each) for each in wanted) is not inverted, left, ""

    def value(self, selector: tuple[str, ...], packet: Packet) -> str:
        ip, port = packet.now
        match selector:
            case (_, "daddr"):
                return ip
            case (_, "saddr"):
                return packet.source
            case ("meta", "l4proto"):
                return packet.protocol
            case ("th", "dport"):
                return str(port)
            case ("iifname",):
                return packet.interface
            case ("fib", which, "type"):
                return "local" if self.is_local(packet.source if which == "saddr" else ip) else "unicast"
            case ("ct", "state"):
                return "new"
            case _:
                assert selector == ("ct", "status"), selector
                return "dnat" if packet.to else ""


def listed(left: tuple[str, ...]) -> dict[str, str]:
    """``{ 0 : goto a, 1 : goto b }`` as a mapping."""
    inside = " ".join(left[1 : left.index("}")])
    return dict(one.strip().split(" : ", 1) for one in inside.split(","))


def targets(left: tuple[str, ...]) -> list[str]:
    """Where a dnat statement leads: one ``IP:port``, or those of a map of ``IP . port``."""
    if "map" not in left:
        return [left[-1]]
    pairs = (target.split(" . ") for target in listed(left[left.index("map") + 1 :]).values())
    return [f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip, port in pairs]


def matches(key: str, wanted: str) -> bool:
    """Whether a value is what is wanted: the same, of a network, or a name with a ``*`` at its end."""
    if wanted.startswith('"'):
        name = wanted.strip('"')
        return key.startswith(name[:-1]) if name.endswith("*") else key == name
    if "/" in wanted:
        return ipaddress.ip_address(key) in ipaddress.ip_network(wanted)
    return key == wanted
