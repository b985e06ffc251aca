"""Services as kube-proxy's iptables mode writes them, in the save form of iptables-save(8).

Source: pkg/proxy/iptables proxier.go (the shape of 1.32 to 1.37, without the `nfacct` counters: those rules
exist only where the named counters do, and they count but decide nothing).

One service port gives, with H = a hash of its name:

    nat     KUBE-SERVICES, KUBE-NODEPORTS   one rule per frontend address, leading to
            KUBE-FW-H                       a load balancer's address: who may come (loadBalancerSourceRanges)
            KUBE-EXT-H                      what comes from outside: masquerade or keep local
            KUBE-SVC-H / KUBE-SVL-H         load balancing over all / this node's endpoints
            KUBE-SEP-…                      one endpoint: hairpin mark, DNAT
    filter  KUBE-SERVICES, KUBE-EXTERNAL-SERVICES   REJECT (no endpoint anywhere), DROP (none on this node)
            KUBE-PROXY-FIREWALL             DROP what KUBE-FW-H let pass by
            KUBE-NODEPORTS                  ACCEPT the health check node port
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_network
from typing import NamedTuple, Self

from msgspec import Struct, field
from msgspec.structs import replace

from nsk8s.api.families import Family, family, of_family
from nsk8s.api.types import Service, ServicePort
from nsk8s.dataplane.endpoints import PROXY_NAME_LABEL, Choice, ProxyEndpoint
from nsk8s.dataplane.names import chain_hash, service_port_name
from nsk8s.dataplane.proxyoptions import LocalTraffic, NodeProxy
from nsk8s.linux.values import Chain

LARGE_CLUSTER = 1000
"""With more endpoints than this in the cluster, the many endpoint rules carry no comments."""

_NEW = "-m conntrack --ctstate NEW"
_FIREWALL_JUMP = f'{_NEW} -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL'
_EXTERNAL_JUMP = (
    f'{_NEW} -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES'
)
_SERVICES_JUMP = '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES'

JUMPS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("nat", "PREROUTING"): (_SERVICES_JUMP,),
    ("nat", "OUTPUT"): (_SERVICES_JUMP,),
    ("nat", "POSTROUTING"): ('-m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',),
    ("filter", "INPUT"): (
        _FIREWALL_JUMP,
        '-m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS',
        _EXTERNAL_JUMP,
    ),
    ("filter", "FORWARD"): (
        _FIREWALL_JUMP,
        '-m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD',
        f"{_NEW} {_SERVICES_JUMP}",
        _EXTERNAL_JUMP,
    ),
    ("filter", "OUTPUT"): (_FIREWALL_JUMP, f"{_NEW} {_SERVICES_JUMP}"),
}
"""Rules that kube-proxy inserts at the top of built-in chains, as they then stand from the top."""

_CANARY = Chain("KUBE-PROXY-CANARY")
_MARK_MASQ = "KUBE-MARK-MASQ"
_NODEPORTS = (
    '-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain"'
)
_NAT = (
    Chain(_MARK_MASQ, ("-j MARK --set-xmark 0x4000/0x4000",)),
    Chain(
        "KUBE-POSTROUTING",
        (
            "-m mark ! --mark 0x4000/0x4000 -j RETURN",
            "-j MARK --set-xmark 0x4000/0x0",
            '-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully',
        ),
    ),
    _CANARY,
)
_INVALID = "-m conntrack --ctstate INVALID -j DROP"
_FORWARD = (
    '-m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT',
    '-m comment --comment "kubernetes forwarding conntrack rule" '
    "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
)


class Words(NamedTuple):
    """What differs in the rules of the families: the length and the mask of an address, what is loopback's,
    how a connection is refused."""

    bits: int
    mask: str
    loopback: str
    unreachable: str


WORDS: Mapping[Family, Words] = {
    4: Words(32, "255.255.255.255", "127.0.0.0/8", "icmp-port-unreachable"),
    6: Words(128, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::1/128", "icmp6-port-unreachable"),
}


class Frontend(NamedTuple):
    """One port of a service as kube-proxy sees it; `affinity` is the ClientIP timeout in seconds, 0
    without affinity. `load_balancer_ips` are those that kube-proxy captures (ipMode VIP)."""

    name: str
    protocol: str
    cluster_ip: str
    port: int
    node_port: int
    external_ips: tuple[str, ...]
    internal_local: bool
    external_local: bool
    affinity: int
    load_balancer_ips: tuple[str, ...] = ()
    source_ranges: tuple[str, ...] = ()
    health_check_port: int = 0

    @property
    def external(self) -> bool:
        """Whether it has any address besides the ClusterIP."""
        return bool(self.node_port or self.external_ips or self.load_balancer_ips)

    @property
    def firewalled(self) -> bool:
        """Whether its load balancer's addresses are not for everybody."""
        return bool(self.load_balancer_ips and self.source_ranges)

    @property
    def cluster_policy(self) -> bool:
        """Whether any traffic ever goes to all endpoints (with Local, pods' and the node's own does)."""
        return not self.internal_local or self.external

    @property
    def local_policy(self) -> bool:
        """Whether any traffic ever goes to this node's endpoints only."""
        return self.internal_local or (self.external_local and self.external)


class PortRules(Struct, frozen=True, eq=False):
    """What one service port adds to a node, by chain; compared by identity, for it is shared."""

    services: tuple[str, ...] = ()
    node_ports: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    rejected_external: tuple[str, ...] = ()
    firewall: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    chains: tuple[Chain, ...] = ()

    def keeping(self, known: Mapping[Chain, Chain]) -> Self:
        """The same with those of the `known` chains that are equal to its own."""
        if not known:
            return self
        return replace(self, chains=tuple(known.get(chain, chain) for chain in self.chains))


class Tables(Struct, frozen=True, eq=False):
    """kube-proxy's own chains of one node, shared by all nodes that have the same."""

    nat: Mapping[str, Chain]
    filter: Mapping[str, Chain]
    mangle: Mapping[str, Chain] = field(default_factory=lambda: {_CANARY.name: _CANARY})


def proxied(service: Service, kind: Family = 4) -> bool:
    """Whether kube-proxy of that family handles `service`: it has an address (it is not headless), is not
    ExternalName and not another proxy's."""
    return (
        service.spec.type != "ExternalName"
        and bool(of_family(service.spec.cluster_ips, kind))
        and PROXY_NAME_LABEL not in service.metadata.labels
    )


def frontend(service: Service, port: ServicePort, kind: Family = 4) -> Frontend:
    """The `Frontend` of one port of `service`, with its addresses of one family."""
    spec, affinity = service.spec, 0
    if spec.sessionAffinity == "ClientIP":
        client_ip = spec.sessionAffinityConfig.clientIP if spec.sessionAffinityConfig else None
        affinity = client_ip.timeoutSeconds if client_ip else 10800
    balanced = spec.type == "LoadBalancer"
    points = service.status.loadBalancer.ingress
    return Frontend(
        service_port_name(service.metadata.namespace, service.metadata.name, port.name),
        port.protocol.lower(),
        of_family(spec.cluster_ips, kind),
        port.port,
        port.nodePort,
        tuple(ip for ip in spec.externalIPs if family(ip) == kind),
        spec.internalTrafficPolicy == "Local",
        spec.externalTrafficPolicy == "Local",
        affinity,
        tuple(p.ip for p in points if p.ip and family(p.ip) == kind and p.ipMode != "Proxy"),
        tuple(
            str(ip_network(cidr.strip(), strict=False))
            for cidr in spec.loadBalancerSourceRanges
            if family(cidr) == kind
        ),
        spec.healthCheckNodePort if balanced and spec.externalTrafficPolicy == "Local" else 0,
    )


def port_rules(front: Frontend, choice: Choice, node: NodeProxy, comments: bool = True) -> PortRules:
    """The rules for `front` on a node that may use `choice`; `comments` is off in large clusters."""
    name, protocol, words = front.name, front.protocol, WORDS[node.family]
    end = chain_hash(name, protocol)
    svc, svl, ext, fw = (f"KUBE-{kind}-{end}" for kind in ("SVC", "SVL", "EXT", "FW"))
    internal = bool(choice.local) if front.internal_local else choice.exist
    external = bool(choice.local) if front.external_local else choice.exist
    firewalled = front.firewalled and choice.exist
    why_not, verdict = (
        (f"{name} has no local endpoints", "DROP")
        if choice.exist
        else (f"{name} has no endpoints", f"REJECT --reject-with {words.unreachable}")
    )

    def to(ip: str, comment: str, interface: str = "") -> str:
        said = f'-m comment --comment "{comment}"'
        return f"-d {ip}/{words.bits} {interface}-p {protocol} {said} -m {protocol} --dport {front.port}"

    services: list[str] = []
    rejected: list[str] = []
    rejected_external: list[str] = []
    node_ports: list[str] = []
    cluster_ip = f"{name} cluster IP"
    if internal:
        services.append(f"{to(front.cluster_ip, cluster_ip)} -j {svl if front.internal_local else svc}")
    else:
        rejected.append(f"{to(front.cluster_ip, why_not)} -j {verdict}")
    outside = [(ip, "external IP", ext) for ip in front.external_ips]
    outside += [(ip, "loadbalancer IP", fw if firewalled else ext) for ip in front.load_balancer_ips]
    for ip, kind, chain in outside:
        if choice.exist:
            services.append(f"{to(ip, f'{name} {kind}')} -j {chain}")
        if not external:
            rejected_external.append(f"{to(ip, why_not)} -j {verdict}")
    if front.node_port:
        dport = f"-m {protocol} --dport {front.node_port}"
        if choice.exist:
            node_ports.append(f'-p {protocol} -m comment --comment "{name}" {dport} -j {ext}')
        if not external:
            local = f'-p {protocol} -m comment --comment "{why_not}" -m addrtype --dst-type LOCAL'
            rejected_external.append(f"{local} {dport} -j {verdict}")
    unaccepted = f"{name} traffic not accepted by {fw}"
    firewall = [f"{to(ip, unaccepted)} -j DROP" for ip in front.load_balancer_ips if firewalled]
    health = []
    if front.health_check_port:
        said = f'-m comment --comment "{name} health check node port"'
        health.append(f"-p tcp {said} -m tcp --dport {front.health_check_port} -j ACCEPT")

    masquerade: tuple[str, ...] = ()
    if internal and node.masquerade_all:
        masquerade = (f"{to(front.cluster_ip, cluster_ip)} -j {_MARK_MASQ}",)
    elif internal and node.local:
        source = f"! -s {node.local.source} " if node.local.source else ""
        interface = f"! -i {node.local.interface} " if node.local.interface else ""
        masquerade = (f"{source}{to(front.cluster_ip, cluster_ip, interface)} -j {_MARK_MASQ}",)
    chains: list[Chain] = []
    if choice.exist and front.external:
        chains.append(Chain(ext, _external(front, node.local, svc, svl if external else "")))
    if firewalled:
        chains.append(Chain(fw, _accepted(front, ext, of_node=node.accepts(front.source_ranges))))
    if choice.cluster:
        first = () if front.internal_local else masquerade
        chains.append(Chain(svc, first + _balance(front, choice.cluster, comments=comments)))
    if choice.local:
        first = masquerade if front.internal_local else ()
        chains.append(Chain(svl, first + _balance(front, choice.local, comments=comments)))
    chains += [_endpoint(front, endpoint, comments=comments) for endpoint in choice.reachable]
    return PortRules(
        tuple(services),
        tuple(node_ports),
        tuple(rejected),
        tuple(rejected_external),
        tuple(firewall),
        tuple(health),
        tuple(chains),
    )


def nodeports_tail(node: NodeProxy) -> tuple[str, ...]:
    """The end of nat KUBE-SERVICES: what is left and is for an address that takes nodePorts."""
    words = WORDS[node.family]
    if node.node_ports is not None:
        return tuple(f"-d {ip}/{words.bits} {_NODEPORTS} -j KUBE-NODEPORTS" for ip in node.node_ports)
    but = "" if node.localhost else f"! -d {words.loopback} "
    return (f"{but}{_NODEPORTS} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",)


def tables(ports: Sequence[PortRules], node: NodeProxy) -> Tables:
    """All of kube-proxy's chains of `node`, from its service `ports` in order."""
    nat = {chain.name: chain for chain in _NAT}
    for port in ports:
        for chain in port.chains:
            nat[chain.name] = chain

    def joined(name: str, rules: Iterable[tuple[str, ...]], *more: str) -> Chain:
        return Chain(name, (*itertools.chain.from_iterable(rules), *more))

    services = joined("KUBE-SERVICES", (port.services for port in ports), *nodeports_tail(node))
    nat[services.name] = services
    nat["KUBE-NODEPORTS"] = joined("KUBE-NODEPORTS", (port.node_ports for port in ports))
    filters = (
        Chain("KUBE-FORWARD", _FORWARD if node.liberal else (_INVALID, *_FORWARD)),
        joined("KUBE-NODEPORTS", (port.health for port in ports)),
        joined("KUBE-PROXY-FIREWALL", (port.firewall for port in ports)),
        joined("KUBE-SERVICES", (port.rejected for port in ports)),
        joined("KUBE-EXTERNAL-SERVICES", (port.rejected_external for port in ports)),
        _CANARY,
    )
    return Tables(nat, {chain.name: chain for chain in filters})


def _external(front: Frontend, pods: LocalTraffic, svc: str, svl: str) -> tuple[str, ...]:
    """KUBE-EXT: `svl` is empty if external traffic has no endpoint here (only what is short-circuited
    to all endpoints passes then)."""
    what = f"{front.name} external destinations"
    if not front.external_local:
        return (f'-m comment --comment "masquerade traffic for {what}" -j {_MARK_MASQ}', f"-j {svc}")
    rules = []
    if pods:
        inside = f"-s {pods.source}" if pods.source else f"-i {pods.interface}"
        rules.append(f'{inside} -m comment --comment "pod traffic for {what}" -j {svc}')
    local = "-m addrtype --src-type LOCAL"
    rules.append(f'-m comment --comment "masquerade LOCAL traffic for {what}" {local} -j {_MARK_MASQ}')
    rules.append(f'-m comment --comment "route LOCAL traffic for {what}" {local} -j {svc}')
    return (*rules, f"-j {svl}") if svl else tuple(rules)


def _accepted(front: Frontend, ext: str, *, of_node: bool) -> tuple[str, ...]:
    """KUBE-FW: who may reach a load balancer's addresses. A node that may is seen with the address itself
    where that is the node's own; who passes by is dropped by KUBE-PROXY-FIREWALL, for nothing has rewritten
    his packets."""
    words = WORDS[family(front.cluster_ip)]
    sources = [*front.source_ranges, *(f"{ip}/{words.bits}" for ip in front.load_balancer_ips if of_node)]
    said = f'-m comment --comment "{front.name} loadbalancer IP" -j {ext}'
    rules = [said if source.endswith("/0") else f"-s {source} {said}" for source in sources]
    other = f"other traffic to {front.name} will be dropped by KUBE-PROXY-FIREWALL"
    return (*rules, f'-m comment --comment "{other}"')


def _balance(front: Frontend, endpoints: Sequence[ProxyEndpoint], *, comments: bool) -> tuple[str, ...]:
    """The rules of KUBE-SVC or KUBE-SVL that choose one of `endpoints`: who was served lately goes where
    it was; then each rule but the last takes an equal share of what the ones before it left."""
    targets = [_chain_name(front, endpoint) for endpoint in endpoints]
    said = [
        f'-m comment --comment "{front.name} -> {endpoint.address}" ' if comments else ""
        for endpoint in endpoints
    ]
    rules: list[str] = []
    if front.affinity:
        rules += [
            f"{comment}-m recent --rcheck --seconds {front.affinity} --reap --name {target}"
            f" --mask {WORDS[family(front.cluster_ip)].mask} --rsource -j {target}"
            for comment, target in zip(said, targets, strict=True)
        ]
    left = len(targets)
    for comment, target in zip(said, targets, strict=True):
        chance = f"-m statistic --mode random --probability {probability(left)} " if left > 1 else ""
        rules.append(f"{comment}{chance}-j {target}")
        left -= 1
    return tuple(rules)


def _endpoint(front: Frontend, endpoint: ProxyEndpoint, *, comments: bool) -> Chain:
    """KUBE-SEP: a pod that reaches itself is masqueraded, else its own answer would confuse it."""
    chain = _chain_name(front, endpoint)
    comment = f'-m comment --comment "{front.name}" ' if comments else ""
    words = WORDS[family(front.cluster_ip)]
    remember = f"-m recent --set --name {chain} --mask {words.mask} --rsource " if front.affinity else ""
    match = f"-p {front.protocol} {comment}{remember}-m {front.protocol}"
    return Chain(
        chain,
        (
            f"-s {endpoint.ip}/{words.bits} {comment}-j {_MARK_MASQ}",
            f"{match} -j DNAT --to-destination {endpoint.address}",
        ),
    )


def _chain_name(front: Frontend, endpoint: ProxyEndpoint) -> str:
    return f"KUBE-SEP-{chain_hash(front.name, front.protocol, endpoint.address)}"


@lru_cache(maxsize=4096)
def probability(left: int) -> str:
    """1/`left` as iptables-save prints it: kube-proxy writes ten digits, the kernel holds a multiple of
    2⁻³¹, and eleven digits come back."""
    return f"{round(float(f'{1 / left:.10f}') * 2**31) / 2**31:.11f}"
