"""A new connection's first packet through policy tables: what the rules do, read from their own words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network

from nsk8s.linux.nftables import Tables

VERDICTS = ("accept", "drop", "return")


@dataclass(frozen=True)
class Packet:
    source: str
    target: str
    protocol: str
    port: int

    def value(self, words: str) -> str:
        """What an expression means for this packet."""
        match words:
            case "ip saddr" | "ip6 saddr":
                return self.source if (":" in self.source) == ("6" in words) else ""
            case "ip daddr" | "ip6 daddr":
                return self.target if (":" in self.target) == ("6" in words) else ""
            case "meta l4proto":
                return self.protocol
            case "meta nfproto":
                return "ipv6" if ":" in self.source else "ipv4"
            case "th dport":
                return str(self.port)
        protocol, _, field = words.partition(" ")
        assert field == "dport", words
        return str(self.port) if protocol == self.protocol else ""


def passes(tables: Tables, packet: Packet) -> bool:
    """Whether a node with these tables forwards the packet."""
    for table in tables.values():
        bases = [chain for chain in table.chains.values() if chain.hook]
        for base in sorted(bases, key=lambda chain: chain.hook.priority if chain.hook else 0):
            walk = _Walk({n: c.rules for n, c in table.chains.items()}, table.sets, packet)
            if walk.chain(base.name) == "drop":
                return False
    return True


@dataclass
class _Walk:
    chains: dict[str, tuple[str, ...]]
    sets: object
    packet: Packet

    def chain(self, name: str) -> str:
        """How a chain ends: ``accept``, ``drop``, or by returning."""
        for rule in self.chains[name]:
            verdict, leaves = self.rule(rule)
            if verdict in ("accept", "drop") or leaves:
                return verdict
        return "return"

    def rule(self, rule: str) -> tuple[str, bool]:
        """The verdict of a rule, and whether it ends its chain."""
        matches, action = _parsed(rule)
        for words, equal, wanted in matches:
            if words in ("ct state", "icmpv6 type"):
                return "", False  # a new connection of something else
            value = " . ".join(self.packet.value(part) for part in words.split(" . "))
            if not value or self._in(value, wanted) is not equal:
                return "", False
        if action.startswith("vmap "):
            held = self.sets[action.removeprefix("vmap @")].elements  # type: ignore[index]
            value = self.packet.value(matches[-1][0]) if matches else ""
            element = held.get(value)
            if element is None:
                return "", False
            action = element.value
        verb, _, target = action.partition(" ")
        if verb in ("jump", "goto"):
            ended = self.chain(target)
            return ended, verb == "goto" or ended != "return"
        return verb, True

    def _in(self, value: str, wanted: str) -> bool:
        if wanted.startswith("@"):
            return value in self.sets[wanted[1:]].elements  # type: ignore[index]
        if wanted == "":
            return True
        return _contains(wanted, value)


@lru_cache(4096)
def _contains(wanted: str, value: str) -> bool:
    if "/" in wanted:
        return ip_address(value) in ip_network(wanted)
    first, _, last = wanted.partition("-")
    if first.isdecimal() and last.isdecimal():
        return int(first) <= int(value) <= int(last)
    return value == wanted


@lru_cache(4096)
def _parsed(rule: str) -> tuple[tuple[tuple[str, bool, str], ...], str]:
    """The matches of a rule, (expression, whether it must be so, value), and what it does."""
    words = rule.partition(" comment ")[0].split()
    matches = []
    while words and words[0] not in (*VERDICTS, "jump", "goto", "vmap"):
        taken = list(_expression(words))
        words = words[len(taken) :]
        if words[0] == "vmap":
            matches.append((" ".join(taken), True, ""))
            break
        equal = words[0] != "!="
        words = words[0 if equal else 1 :]
        value, words = words[0], words[1:]
        if value == "{":
            end = words.index("}")
            value, words = " ".join(words[:end]), words[end + 1 :]
        matches.append((" ".join(taken), equal, value))
    return tuple(matches), " ".join(words)


def _expression(words: list[str]) -> Iterator[str]:
    """``ip saddr``, or several joined by dots."""
    for at in range(0, len(words), 3):
        yield from words[at : at + 2]
        if words[at + 2] != ".":
            return
        yield "."
