"""One policy → the rules of its chains, in the words in which nft(8) prints them.

A rule names the pods of a selector by their set (`pods_set`) and ports that have names by `ports_set`, so it
stays as it is whatever pods come and go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Literal, NamedTuple

from msgspec import Struct

from nsk8s.api.families import Family, family
from nsk8s.api.policytypes import (
    ClusterNetworkPolicy,
    ClusterNetworkPolicyPeer,
    ClusterNetworkPolicyProtocol,
    ClusterNetworkPolicyRule,
    NetworkPolicy,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    NetworkPolicyRule,
)
from nsk8s.dataplane.selections import Named, Scope, Term, short, terms

Direction = Literal["egress", "ingress"]
IP: Mapping[Family, str] = {4: "ip", 6: "ip6"}
ADDRESS: Mapping[Family, str] = {4: "ipv4_addr", 6: "ipv6_addr"}
NOBODY = Scope("", (), (Term("", "In"),))
"""No pod has a label without a key."""
VERDICTS: Mapping[str, str] = {"Accept": "accept", "Deny": "drop", "Pass": "return"}


class Compiled(Struct, frozen=True, eq=False):
    """A policy: the pods that it is about (`subject`), its rules by direction (None: not about that
    direction), and what these look into. `tier` is empty for a NetworkPolicy."""

    policy: NetworkPolicy | ClusterNetworkPolicy
    name: str
    tier: str
    priority: int
    subject: Scope
    egress: tuple[str, ...] | None
    ingress: tuple[str, ...] | None
    scopes: frozenset[Scope]
    ports: frozenset[Named]

    def rules(self, direction: Direction) -> tuple[str, ...] | None:
        """Its rules for one direction."""
        return self.egress if direction == "egress" else self.ingress


def pods_set(scope: Scope, of: Family) -> str:
    """The name of the set of a scope's addresses."""
    return f"pods{'6' if of == 6 else ''}-{scope.name}"


def ports_set(name: Named, of: Family) -> str:
    """The name of the set of addresses and ports that are called so."""
    return f"ports{'6' if of == 6 else ''}-{short('/'.join(name))}"


def compiled(policy: NetworkPolicy | ClusterNetworkPolicy, families: Sequence[Family]) -> Compiled:
    """What comes of a policy in a cluster of these families."""
    if isinstance(policy, ClusterNetworkPolicy):
        return _cluster_policy(policy, families)
    meta, spec = policy.metadata, policy.spec
    types = spec.policyTypes or ("Ingress", *(("Egress",) if spec.egress else ()))
    writer = _Writer(families)
    return Compiled(
        policy,
        f"{meta.namespace}/{meta.name}",
        "",
        0,
        Scope(meta.namespace, (), terms(spec.podSelector)),
        writer.namespaced(meta.namespace, "egress", spec.egress) if "Egress" in types else None,
        writer.namespaced(meta.namespace, "ingress", spec.ingress) if "Ingress" in types else None,
        frozenset(writer.scopes),
        frozenset(writer.ports),
    )


def _cluster_policy(policy: ClusterNetworkPolicy, families: Sequence[Family]) -> Compiled:
    spec = policy.spec
    writer = _Writer(families)
    return Compiled(
        policy,
        policy.metadata.name,
        spec.tier,
        spec.priority,
        _cluster_scope(spec.subject) or NOBODY,
        writer.clusterwide("egress", spec.egress) if spec.egress else None,
        writer.clusterwide("ingress", spec.ingress) if spec.ingress else None,
        frozenset(writer.scopes),
        frozenset(writer.ports),
    )


def _cluster_scope(peer: ClusterNetworkPolicyPeer) -> Scope | None:
    if peer.namespaces is not None:
        return Scope("", terms(peer.namespaces), ())
    if peer.pods is not None:
        return Scope("", terms(peer.pods.namespaceSelector), terms(peer.pods.podSelector))
    return None


class _Port(NamedTuple):
    """What of a packet must be so, in nft's words ("" for anything), for destinations of one family if they
    must have a port of some name."""

    match: str
    name: Named | None = None


class _Writer:
    """Writes rules, and notes what they look into."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families
        self.scopes: set[Scope] = set()
        self.ports: set[Named] = set()

    # --- networking.k8s.io/v1 -------------------------------------------------------------------------

    def namespaced(
        self, namespace: str, direction: Direction, rules: Sequence[NetworkPolicyRule]
    ) -> tuple[str, ...]:
        """The rules of a NetworkPolicy; what none accepts is the isolation's."""
        written: list[str] = []
        for i, rule in enumerate(rules):
            path = f"spec.{direction}[{i}]"
            ports = list(_policy_ports(rule.ports))
            side, peers = ("to", rule.to) if direction == "egress" else ("from", rule.from_)
            if not peers:
                written += self._rules(None, None, ports, direction, "accept", path)
            for j, peer in enumerate(peers):
                where = f"{path}.{side}[{j}]"
                if peer.ipBlock is not None:
                    block = _block(peer.ipBlock.cidr, peer.ipBlock.except_, direction)
                    numbered = [p for p in ports if p.name is None or direction == "ingress"]
                    written += self._rules(
                        block, family(peer.ipBlock.cidr), numbered, direction, "accept", where
                    )
                else:
                    written += self._of_pods(_scope(peer, namespace), ports, direction, "accept", where)
        return tuple(written)

    # --- policy.networking.k8s.io/v1alpha2 ------------------------------------------------------------

    def clusterwide(self, direction: Direction, rules: Sequence[ClusterNetworkPolicyRule]) -> tuple[str, ...]:
        """The rules of a ClusterNetworkPolicy."""
        written: list[str] = []
        for i, rule in enumerate(rules):
            verdict = VERDICTS[rule.action]
            ports = list(_cluster_ports(rule.protocols))
            side, peers = ("to", rule.to) if direction == "egress" else ("from", rule.from_)
            for j, peer in enumerate(peers):
                where = f"spec.{direction}[{i}].{side}[{j}]"
                for network in peer.networks or ():
                    block = _block(network, (), direction)
                    written += self._rules(block, family(network), ports, direction, verdict, where)
                scope = _cluster_scope(peer)
                if scope is not None:
                    written += self._of_pods(scope, ports, direction, verdict, where)
        return tuple(written)

    # --- both -----------------------------------------------------------------------------------------

    def _of_pods(
        self, scope: Scope, ports: Sequence[_Port], direction: Direction, verdict: str, path: str
    ) -> Iterator[str]:
        self.scopes.add(scope)
        word = _word(direction)
        for of in self._families:
            match = f"{IP[of]} {word} @{pods_set(scope, of)}"
            yield from self._rules(match, of, ports, direction, verdict, path)

    def _rules(
        self,
        peer: str | None,
        of: Family | None,
        ports: Sequence[_Port],
        direction: Direction,
        verdict: str,
        path: str,
    ) -> Iterator[str]:
        """A peer's rules, one for each of the ports; `of` is the family of the peer, None for anybody."""
        if of is not None and of not in self._families:
            return
        end = f'{verdict} comment "{path}"'
        for match, name in ports:
            if name is None:
                yield " ".join(filter(None, (peer, match, end)))
                continue
            self.ports.add(name)
            for each in self._families if of is None else (of,):
                called = f"{IP[each]} daddr . meta l4proto . th dport @{ports_set(name, each)}"
                yield " ".join(filter(None, (peer, called, end)))


def _word(direction: Direction) -> str:
    """Where in a packet the peer's address is."""
    return "daddr" if direction == "egress" else "saddr"


def _scope(peer: NetworkPolicyPeer, namespace: str) -> Scope:
    if peer.namespaceSelector is None:
        return Scope(namespace, (), terms(peer.podSelector))
    return Scope("", terms(peer.namespaceSelector), terms(peer.podSelector))


def _block(cidr: str, but: Iterable[str], direction: Direction) -> str:
    network = ip_network(cidr, strict=False)
    ip, word = IP[family(cidr)], _word(direction)
    if network.prefixlen == 0:
        first = f"meta nfproto ipv{network.version}"
    else:
        first = f"{ip} {word} {_printed(cidr)}"
    return " ".join([first, *(f"{ip} {word} != {_printed(part)}" for part in but)])


def _printed(cidr: str) -> str:
    """A network as nft prints it: one address without its length."""
    network = ip_network(cidr, strict=False)
    alone = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if alone else str(network)


def _policy_ports(ports: Sequence[NetworkPolicyPort]) -> Iterator[_Port]:
    if not ports:
        yield _Port("")
    for port in ports:
        protocol = port.protocol.lower()
        match port.port:
            case None:
                yield _Port(f"meta l4proto {protocol}")
            case int(first):
                yield _Port(_numbers(protocol, first, port.endPort or first))
            case name:
                yield _Port("", (name, port.protocol))


def _cluster_ports(protocols: Sequence[ClusterNetworkPolicyProtocol]) -> Iterator[_Port]:
    if not protocols:
        yield _Port("")
    for one in protocols:
        for protocol, said in (("tcp", one.tcp), ("udp", one.udp), ("sctp", one.sctp)):
            port = said.destinationPort if said else None
            if said is not None and port is None:
                yield _Port(f"meta l4proto {protocol}")
            elif port is not None and port.range is not None:
                yield _Port(_numbers(protocol, port.range.start, port.range.end))
            elif port is not None:
                yield _Port(_numbers(protocol, port.number, port.number))


def _numbers(protocol: str, first: int, last: int) -> str:
    return f"{protocol} dport {first}" if first == last else f"{protocol} dport {first}-{last}"
