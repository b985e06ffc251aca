"""Services as kube-proxy's nftables mode writes them: one table of nft(8), in the words of ``nft list``.

Source: pkg/proxy/nftables proxier.go, the shape of 1.36 and 1.37 (no chains for endpoints without affinity,
no mark-for-masquerade chain). What differs from the iptables mode is meant to: nodePorts only on the node's
primary address and never on 127.0.0.1, a port of a ClusterIP that no service has is refused, an address of
the service network that no service has is silent, and nothing is accepted that another table drops.

One service port gives, with N = a hash of its name, and the name:

    service-ips, service-nodeports          one element per frontend address, leading to
        external-N                          what comes from outside: masquerade or keep local
        service-N / local-N                 load balancing over all / this node's endpoints
        endpoint-N, affinity-N              one endpoint of a service with affinity, and whom it has served
    no-endpoint-services, …-nodeports       refuse (no endpoint anywhere) or drop (none on this node)
    firewall-ips, firewall-N                who may reach a load balancer's address
    hairpin-connections                     this node's endpoints, masqueraded when they reach themselves
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import collapse_addresses, ip_network
from typing import NamedTuple, Self

from msgspec import Struct
from msgspec.structs import replace

from nsk8s.dataplane.endpoints import Choice, ProxyEndpoint
from nsk8s.dataplane.kubeproxy import Frontend
from nsk8s.dataplane.proxyoptions import LocalTraffic, NodeProxy
from nsk8s.linux.nftables import PLAIN, Chain, Element, Family, Hook, Key, Set, Table

NAME = "kube-proxy"
COMMENT = "rules for kube-proxy"
TABLES: tuple[Key, ...] = (("ip", NAME), ("ip6", NAME))
"""Everything that kube-proxy has in this mode."""

_LONGEST = 240
"""Octets of a name without its prefix (knftables' NameLengthMax less 16)."""

_MARK = "meta mark set meta mark | 0x00004000"


class Words(NamedTuple):
    """What an IP family is called in rules: the table's `family`, its type of addresses, its loopback."""

    family: Family
    address: str
    loopback: str


FAMILIES: Mapping[int, Words] = {
    4: Words("ip", "ipv4_addr", "127.0.0.0/8"),
    6: Words("ip6", "ipv6_addr", "::1"),
}


class PortRules(Struct, frozen=True, eq=False):
    """What one service port adds to a node; compared by identity, for it is shared. `hairpins` are elements
    by the node on which the endpoint is."""

    chains: tuple[Chain, ...]
    elements: tuple[tuple[str, str, Element], ...]
    affinity: tuple[Set, ...]
    hairpins: Mapping[str, tuple[str, ...]]

    def keeping(self, known: Mapping[Chain, Chain]) -> Self:
        """The same with those of the `known` chains that are equal to its own."""
        if not known:
            return self
        return replace(self, chains=tuple(known.get(chain, chain) for chain in self.chains))


def named(name: str) -> str:
    """How the names of the chains and sets of a service port or endpoint end."""
    digest = base64.b32encode(hashlib.sha256(name.encode()).digest()[:5]).decode()
    whole = f"{digest}-{name}"
    return whole if len(whole) <= _LONGEST else f"{whole[: _LONGEST - 3]}..."


def port_rules(front: Frontend, choice: Choice, node: NodeProxy, comments: bool = True) -> PortRules:
    """The rules for `front` on a node that may use `choice`. The `comments` stay however many there are."""
    words = FAMILIES[6 if ":" in front.cluster_ip else 4]
    service, _, port_name = front.name.partition(":")
    whole = f"{service}/{front.protocol}/{port_name}"
    end = named(whole)
    svc, svl, ext, fw = (f"{kind}-{end}" for kind in ("service", "local", "external", "firewall"))
    internal = bool(choice.local) if front.internal_local else choice.exist
    external = bool(choice.local) if front.external_local else choice.exist
    why_not = Element("drop" if choice.exist else "goto reject-chain", front.name)
    tail = f" . {front.protocol} . {front.port}"
    elements = [("cluster-ips", front.cluster_ip, PLAIN)]
    if internal:
        to = Element(f"goto {svl if front.internal_local else svc}")
        elements.append(("service-ips", front.cluster_ip + tail, to))
    else:
        elements.append(("no-endpoint-services", front.cluster_ip + tail, why_not))
    addresses = (*front.external_ips, *front.load_balancer_ips)
    outside = [("service-ips", "no-endpoint-services", ip + tail) for ip in addresses]
    if front.node_port:
        key = f"{front.protocol} . {front.node_port}"
        outside.append(("service-nodeports", "no-endpoint-nodeports", key))
    for there, nowhere, key in outside:
        if choice.exist:
            elements.append((there, key, Element(f"goto {ext}")))
        if not external:
            elements.append((nowhere, key, why_not))
    chains: list[Chain] = []
    if front.firewalled:
        chains.append(Chain(fw, (_firewall(front, words, of_node=node.accepts(front.source_ranges)),)))
        held = Element(f"goto {fw}", front.name)
        elements += [("firewall-ips", ip + tail, held) for ip in front.load_balancer_ips]
    if choice.exist and front.external:
        chains.append(Chain(ext, _external(front, words, node.local, svc, svl if external else "")))
    alone = choice.reachable if front.affinity else ()
    ends = {e.address: named(f"{whole}__{e.ip.replace(':', '.')}/{e.port}") for e in alone}
    for name, endpoints in ((svc, choice.cluster), (svl, choice.local)):
        if endpoints:
            chains.append(Chain(name, _balance(front, words, endpoints, ends)))
    affinity: list[Set] = []
    for endpoint in alone:
        name = ends[endpoint.address]
        remember = f"update @affinity-{name} {{ {words.family} saddr }}"
        chains.append(Chain(f"endpoint-{name}", (remember, _dnat(front, endpoint))))
        affinity.append(_affinity(words, f"affinity-{name}", front.affinity))
    return PortRules(tuple(chains), tuple(elements), tuple(affinity), _hairpins(front, choice.reachable))


def _dnat(front: Frontend, endpoint: ProxyEndpoint) -> str:
    return f"meta l4proto {front.protocol} dnat to {endpoint.address}"


def _balance(
    front: Frontend, words: Words, endpoints: Sequence[ProxyEndpoint], ends: Mapping[str, str]
) -> tuple[str, ...]:
    """The rules of a service- or local- chain: who was served lately goes where it was; then one of the
    endpoints is drawn."""
    drawn = f"numgen random mod {len(endpoints)}"
    if front.affinity:
        names = [ends[endpoint.address] for endpoint in endpoints]
        again = (f"{words.family} saddr @affinity-{name} goto endpoint-{name}" for name in names)
        targets = ", ".join(f"{number} : goto endpoint-{name}" for number, name in enumerate(names))
        return (*again, f"{drawn} vmap {{ {targets} }}")
    if len(endpoints) == 1:
        return (_dnat(front, endpoints[0]),)
    targets = ", ".join(f"{number} : {e.ip} . {e.port}" for number, e in enumerate(endpoints))
    return (f"meta l4proto {front.protocol} dnat {words.family} to {drawn} map {{ {targets} }}",)


def _external(front: Frontend, words: Words, pods: LocalTraffic, svc: str, svl: str) -> tuple[str, ...]:
    """external-: `svl` is empty if traffic from outside has no endpoint here (only what is short-circuited to
    all endpoints passes then)."""
    if not front.external_local:
        return (_MARK, f"goto {svc}")
    rules = []
    if pods:
        rules.append(f'{_source(words, pods)} goto {svc} comment "short-circuit pod traffic"')
    rules.append(f'fib saddr type local {_MARK} comment "masquerade local traffic"')
    rules.append(f'fib saddr type local goto {svc} comment "short-circuit local traffic"')
    return (*rules, f"goto {svl}") if svl else tuple(rules)


def _source(words: Words, pods: LocalTraffic, relation: str = "") -> str:
    """The match of traffic from pods; of all other with the `relation` ``!= ``."""
    if pods.source:
        return f"{words.family} saddr {relation}{pods.source}"
    return f'iifname {relation}"{pods.interface.replace("+", "*")}"'


def _firewall(front: Frontend, words: Words, *, of_node: bool) -> str:
    """The rule of firewall-. A node that may reach a load balancer's address is seen with that address itself
    where it is the node's own."""
    sources = [*front.source_ranges, *(front.load_balancer_ips if of_node else ())]
    merged = [str(each) for each in collapse_addresses(ip_network(each) for each in sources)]  # type: ignore[type-var]  # of one family
    sources = [each.removesuffix("/32").removesuffix("/128") for each in merged]
    return f"{words.family} saddr != {_any_of(sources)} drop"


def _any_of(networks: Sequence[str]) -> str:
    """As nft has it: a set of one is no set."""
    return networks[0] if len(networks) == 1 else f"{{ {', '.join(networks)} }}"


def _affinity(words: Words, name: str, seconds: int) -> Set:
    return Set(name, words.address, flags=("dynamic", "timeout"), timeout=seconds, size=65535)


def _hairpins(front: Frontend, endpoints: Iterable[ProxyEndpoint]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for each in endpoints:
        found.setdefault(each.node, []).append(f"{each.ip} . {each.ip} . {front.protocol} . {each.port}")
    return {node: tuple(keys) for node, keys in found.items()}


def static(node: NodeProxy, family: int, service_cidrs: Sequence[str]) -> Table:
    """The table of a node without any service. `service_cidrs` are the networks of the services."""
    words = FAMILIES[family]
    ip, address = words.family, words.address
    triple, verdicts = f"{address} . inet_proto . inet_service", "verdict"
    sets = [
        Set("hairpin-connections", f"{address} . {triple}", comment="service hairpin connections"),
        Set("cluster-ips", address, comment="Active ClusterIPs"),
        Set(
            "no-endpoint-services",
            *(triple, verdicts),
            comment="vmap to drop or reject packets to services with no endpoints",
        ),
        Set(
            "no-endpoint-nodeports",
            *("inet_proto . inet_service", verdicts),
            comment="vmap to drop or reject packets to service nodeports with no endpoints",
        ),
        Set(
            "firewall-ips",
            *(triple, verdicts),
            comment="destinations that are subject to LoadBalancerSourceRanges",
        ),
        Set("service-ips", triple, verdicts, comment="ClusterIP, ExternalIP and LoadBalancer IP traffic"),
        Set("service-nodeports", "inet_proto . inet_service", verdicts, comment="NodePort traffic"),
    ]
    if node.node_ports is None:
        for_nodes = unanswered = f"{ip} daddr != {words.loopback} "
        for_nodes = f"fib daddr type local {for_nodes}"
    else:
        held = dict.fromkeys(node.node_ports, PLAIN)
        sets.insert(
            2, Set("nodeport-ips", address, comment="IPs that accept NodePort traffic", elements=held)
        )
        for_nodes = unanswered = f"{ip} daddr @nodeport-ips "
    dispatch = f"{ip} daddr . meta l4proto . th dport vmap"
    by_port = "meta l4proto . th dport vmap"
    services = [f"{dispatch} @service-ips", f"{for_nodes}{by_port} @service-nodeports"]
    if node.masquerade_all:
        services.insert(0, f'{ip} daddr @cluster-ips {_MARK} comment "masquerade all clusterIP traffic"')
    elif node.local:
        others = _source(words, node.local, "!= ")
        why = "masquerade clusterIP traffic from outside cluster"
        services.insert(0, f'{ip} daddr @cluster-ips {others} {_MARK} comment "{why}"')
    refused = 'comment "Reject traffic to invalid ports of ClusterIPs"'
    checked = [f"{ip} daddr @cluster-ips reject {refused}"]
    if service_cidrs:
        unallocated = 'comment "Drop traffic to unallocated ClusterIPs"'
        checked.append(f"{ip} daddr {_any_of(service_cidrs)} drop {unallocated}")
    new = "ct state new jump"
    firewall, endpoints, addresses = (
        f"{new} firewall-check",
        f"{new} service-endpoints-check",
        f"{new} cluster-ips-check",
    )
    chains = (
        Chain("filter-prerouting-pre-dnat", (firewall,), Hook("filter", "prerouting", -110)),
        Chain("filter-output-pre-dnat", (firewall,), Hook("filter", "output", -110)),
        Chain("filter-input", (f"{new} nodeport-endpoints-check", endpoints), Hook("filter", "input", 0)),
        Chain("filter-forward", (endpoints, addresses), Hook("filter", "forward", 0)),
        Chain("filter-output", (endpoints, addresses), Hook("filter", "output", 0)),
        Chain("nat-prerouting", ("jump services",), Hook("nat", "prerouting", -100)),
        Chain("nat-output", ("jump services",), Hook("nat", "output", -100)),
        Chain("nat-postrouting", ("jump masquerading",), Hook("nat", "postrouting", 100)),
        Chain("nodeport-endpoints-check", (f"{unanswered}{by_port} @no-endpoint-nodeports",)),
        Chain("service-endpoints-check", (f"{dispatch} @no-endpoint-services",)),
        Chain("firewall-check", (f"{dispatch} @firewall-ips",)),
        Chain("services", tuple(services)),
        Chain("masquerading", _masquerading(ip)),
        Chain("cluster-ips-check", tuple(checked)),
        Chain(
            "reject-chain",
            ("reject",),
            comment="helper for @no-endpoint-services / @no-endpoint-nodeports",
        ),
    )
    return Table(ip, NAME, COMMENT, {chain.name: chain for chain in chains}, {one.name: one for one in sets})


def _masquerading(ip: str) -> tuple[str, str]:
    masquerade = "masquerade fully-random"
    marked = "meta mark & 0x00004000 != 0x00000000 meta mark set meta mark ^ 0x00004000"
    itself = f"ct status dnat {ip} saddr . {ip} daddr . meta l4proto . th dport @hairpin-connections"
    return f"{marked} {masquerade}", f"{itself} {masquerade}"


class NodeTable:
    """The table of one node, with the rules of its services put in and taken out again. What a change does
    not touch stays the same object, and its cost does not depend on how many services there are (but for
    copies of the mappings that it touches)."""

    def __init__(self, node: NodeProxy, family: int, service_cidrs: Sequence[str]) -> None:
        self._node = node.name
        self._table = static(node, family, service_cidrs)
        self._chains = dict(self._table.chains)
        self._sets = dict(self._table.sets)
        self._elements = {name: _Elements() for name in self._sets}
        self._held: dict[object, tuple[PortRules, ...]] = {}
        self._changed = False

    def exchange(self, key: object, rules: tuple[PortRules, ...]) -> None:
        """Let `rules` (none: of a service that is gone) be those of the service `key`."""
        last = self._held.pop(key, ())
        if rules:
            self._held[key] = rules
        if last == rules:
            return
        self._changed = True
        for port in last:
            for chain in port.chains:
                self._chains.pop(chain.name, None)
            for one in port.affinity:
                self._sets.pop(one.name, None)
        for port in rules:
            self._chains.update((chain.name, chain) for chain in port.chains)
            self._sets.update((one.name, one) for one in port.affinity)
        went, came = self._elements_of(last), self._elements_of(rules)
        if last and rules:  # what both have stays where it is
            before, now = Counter(went), Counter(came)
            went, came = (before - now).elements(), (now - before).elements()
        for name, element, value in went:
            self._elements[name].remove(element, value)
        for name, element, value in came:
            self._elements[name].add(element, value)

    def _elements_of(self, rules: tuple[PortRules, ...]) -> Iterator[tuple[str, str, Element]]:
        for port in rules:
            yield from port.elements
            for key in port.hairpins.get(self._node, ()):
                yield "hairpin-connections", key, PLAIN

    def table(self) -> Table:
        """The table as a value; the same object as last time if nothing has changed."""
        if not self._changed:
            return self._table
        self._changed = False
        for name, elements in self._elements.items():
            if elements.changed:
                self._sets[name] = replace(self._sets[name], elements=elements.value())
        self._table = replace(self._table, chains=dict(self._chains), sets=dict(self._sets))
        return self._table


class _Elements:
    """The elements of a set to which many may add the same one; where two want different values for a key,
    the lesser one holds, whoever came first."""

    def __init__(self) -> None:
        self.changed = False
        self._wanted: dict[str, list[Element]] = {}
        self._held: dict[str, Element] = {}

    def add(self, key: str, element: Element) -> None:
        """One more wants it."""
        self._let(key, [*self._wanted.get(key, ()), element])

    def remove(self, key: str, element: Element) -> None:
        """One of those who wanted it does so no more."""
        left = list(self._wanted[key])
        left.remove(element)
        self._let(key, left)

    def _let(self, key: str, wanted: list[Element]) -> None:
        if not wanted:
            del self._wanted[key], self._held[key]
            self.changed = True
            return
        self._wanted[key], first = wanted, min(wanted)
        if self._held.get(key) != first:
            self._held[key] = first
            self.changed = True

    def value(self) -> Mapping[str, Element]:
        """As they are now."""
        self.changed = False
        return dict(self._held)
