"""A packet's walk through a node's iptables rules: what becomes of the first packet of a connection.

The walker knows nothing of Kubernetes: it reads the rules in their save form, in the order of the kernel's
hooks, and takes every way where a rule decides by chance.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from nsk8s.linux.values import NamespaceState, Ruleset


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection; `to` is its destination after DNAT, if there was one, `interface`
    where it came in (empty: it is the node's own)."""

    source: str
    protocol: str
    destination: str
    port: int
    mark: int = 0
    to: str = ""
    interface: str = ""

    @property
    def now(self) -> tuple[str, int]:
        """Where it goes as rewritten so far."""
        if not self.to:
            return self.destination, self.port
        ip, _, port = self.to.rpartition(":")
        return ip.strip("[]"), int(port)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, taken apart; `tests` are (match option, inverted, value)."""

    tests: tuple[tuple[str, bool, str], ...]
    target: str
    argument: str


TAKES_VALUE = {
    *("-s", "-d", "-i", "-p", "--dport", "--dports", "--src-type", "--dst-type", "--ctstate", "--mark"),
    *("--probability", "--mode", "--seconds", "--name", "--mask", "--comment"),
}
SAYS_NOTHING = {"--mode", "--seconds", "--name", "--mask", "--comment", "--reap", "--rsource", "--set"}


@lru_cache(maxsize=100_000)
def parse(text: str) -> Rule:
    words = iter(shlex.split(text))
    tests: list[tuple[str, bool, str]] = []
    inverted, target, argument = False, "", ""
    for word in words:
        if word == "!":
            inverted = True
            continue
        if word == "-m":
            next(words)
        elif word == "-j":
            target = next(words)
            argument = " ".join(words)
        elif word in TAKES_VALUE or word in SAYS_NOTHING or word == "--rcheck":
            value = next(words) if word in TAKES_VALUE else ""
            if word not in SAYS_NOTHING:
                tests.append((word, inverted, value))
        else:
            raise AssertionError(f"the walker does not know {word!r} in {text!r}")
        inverted = False
    return Rule(tuple(tests), target, argument)


class Walker:
    """Walks packets over one node, whose addresses decide what is LOCAL, and from which networks a packet
    comes in by which interface. Chains whose names begin with one of `but` are taken to be empty."""

    def __init__(self, node: NamespaceState, but: tuple[str, ...] = (), family: int = 4) -> None:
        self.rules: Ruleset = node.rules if family == 4 else node.rules6
        self.but = but
        self.local = {address.cidr.partition("/")[0] for address in node.addresses}
        self.networks = {
            **{ipaddress.ip_interface(one.cidr).network: one.dev for one in node.addresses},
            **{ipaddress.ip_network(one.dst): one.dev for one in node.routes if one.dst != "default"},
        }

    def interface(self, source: str) -> str:
        """Where a packet from elsewhere comes in: by the most specific network, else the uplink."""
        ip = ipaddress.ip_address(source)
        found = [network for network in self.networks if ip in network]
        return self.networks[max(found, key=lambda network: network.prefixlen)] if found else "eth0"

    def walk(self, source: str, protocol: str, destination: str, port: int) -> frozenset[str]:
        """All that can become of it: ``ip:port`` after DNAT (empty if unchanged), with `` masq`` where its
        source is masqueraded; or REJECT; or DROP; or ACCEPT where a rule lets it in."""
        own = self.is_local(source)
        interface = "" if own else self.interface(source)
        packet = Packet(source, protocol, destination, port, interface=interface)
        outcomes: set[str] = set()
        first = "OUTPUT" if own else "PREROUTING"
        for rewritten, verdict in self.chain("nat", first, packet):
            assert verdict in ("", "DNAT", "ACCEPT"), verdict
            outcomes |= self.filtered(first, rewritten)
        return frozenset(outcomes)

    def filtered(self, first: str, packet: Packet) -> set[str]:
        """The filter hooks and nat POSTROUTING, for a packet that came past nat `first`."""
        here = self.is_local(packet.now[0])
        if first == "PREROUTING":
            hooks = ["INPUT"] if here else ["FORWARD"]
        else:
            hooks = ["OUTPUT", "INPUT"] if here else ["OUTPUT"]
        verdict = ""
        for hook in hooks:
            # Nothing in the filter table rewrites a packet or decides by chance.
            ((_, verdict),) = self.chain("filter", hook, packet)
            if verdict in ("DROP", "REJECT"):
                return {verdict}
        if first == "PREROUTING" and here:
            return {packet.to or verdict}
        return {
            sent.to + (" masq" if verdict == "MASQUERADE" else "")
            for sent, verdict in self.chain("nat", "POSTROUTING", packet)
        }

    def is_local(self, ip: str) -> bool:
        return ip in self.local or ip == "::1" or ip.startswith("127.")

    def chain(self, table: str, name: str, packet: Packet) -> Iterator[tuple[Packet, str]]:
        """Every way through a chain: the packet at its end and the verdict, empty if it returned."""
        rules = () if name.startswith(self.but) else self.rules.tables[table][name].rules
        yield from self.follow(table, rules, packet)

    def follow(self, table: str, rules: tuple[str, ...], packet: Packet) -> Iterator[tuple[Packet, str]]:
        for at, text in enumerate(rules):
            rule = parse(text)
            if not self.matches(rule, packet):
                continue
            if any(option == "--probability" for option, _, _ in rule.tests):
                yield from self.follow(table, rules[at + 1 :], packet)
            if rule.target == "MARK":
                value, mask = (int(part, 16) for part in rule.argument.split()[1].split("/"))
                packet = replace(packet, mark=(packet.mark & ~mask) ^ value)
            elif rule.target == "DNAT":
                yield replace(packet, to=rule.argument.split()[1]), "DNAT"
                return
            elif rule.target == "RETURN":
                yield packet, ""
                return
            elif rule.target in ("ACCEPT", "DROP", "REJECT", "MASQUERADE"):
                yield packet, rule.target
                return
            elif not rule.target:
                continue  # it only counts
            else:
                for after, verdict in self.chain(table, rule.target, packet):
                    if verdict:
                        yield after, verdict
                    else:
                        yield from self.follow(table, rules[at + 1 :], after)
                return
        yield packet, ""

    def matches(self, rule: Rule, packet: Packet) -> bool:
        return all(
            self.holds(option, value, packet) is not inverted for option, inverted, value in rule.tests
        )

    def holds(self, option: str, value: str, packet: Packet) -> bool:
        ip, port = packet.now
        match option:
            case "-s":
                return ipaddress.ip_address(packet.source) in ipaddress.ip_network(value)
            case "-d":
                return ipaddress.ip_address(ip) in ipaddress.ip_network(value)
            case "-i":
                wild = value.endswith("+")
                return packet.interface.startswith(value[:-1]) if wild else packet.interface == value
            case "-p":
                return value == packet.protocol
            case "--dport" | "--dports":
                return str(port) in value.split(",")
            case "--src-type":
                return self.is_local(packet.source)
            case "--dst-type":
                return self.is_local(ip)
            case "--ctstate":
                states = {"NEW", "DNAT"} if packet.to else {"NEW"}
                return bool(states & set(value.split(",")))
            case "--mark":
                wanted, mask = (int(part, 16) for part in value.split("/"))
                return packet.mark & mask == wanted
            case "--probability":
                return True  # both ways are taken
            case "--rcheck":
                return False  # a client that nobody has seen yet
            case _:
                raise AssertionError(option)
