"""A node's network namespace: the uplink, flannel's bridge and tunnel, one bridge port per pod, and the
rules of everybody who writes rules on a node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache

from nsk8s.api.families import Family, of_family
from nsk8s.api.topology import NodeTopology
from nsk8s.dataplane import fabric, flannel, kubelet, kubeproxy, pod, portmap
from nsk8s.dataplane.fabric import Underlay
from nsk8s.dataplane.names import UNDERLAY_MAC, link_local, mac, naming
from nsk8s.dataplane.pod import Subnet, Wiring
from nsk8s.dataplane.proxyoptions import NodeProxy
from nsk8s.linux import iptables, nftables
from nsk8s.linux.values import Address, Chain, Link, NamespaceState, Neighbour, Ruleset, Sysctl

_BRIDGE_INDEX = 3
_TUNNEL_INDEX: Mapping[Family, int] = {4: 4, 6: 5}

SYSCTLS = frozenset(
    (
        # net.ipv4.conf.all.forwarding is the same switch.
        Sysctl("net.ipv4.ip_forward", "1", why="kubelet, bridge plugin: a node routes for its pods"),
        # Loose, as systemd sets it on Debian and Ubuntu. Strict would only hold as long as every path is
        # symmetric (a static route for pods or services through another node is not); and without a value
        # here the namespace would have the host's, whatever that is.
        Sysctl("net.ipv4.conf.all.rp_filter", "2", why="systemd: loose reverse path filter"),
        # Without it a same-node answer crosses the bridge past conntrack and the service's DNAT stays.
        Sysctl("net.bridge.bridge-nf-call-iptables", "1", why="kubeadm: bridged pods meet the rules"),
    )
)


SYSCTLS6 = fabric.ipv6_sysctls() | {
    Sysctl("net.ipv6.conf.all.forwarding", "1", why="kubelet, bridge plugin: a node routes for its pods"),
    Sysctl("net.bridge.bridge-nf-call-ip6tables", "1", why="kubeadm: bridged pods meet the rules"),
}


def addresses(node: NodeTopology, kind: Family) -> tuple[str, ...]:
    """The node's own addresses of one family besides loopback's: on eth0, cni0 and the tunnel."""
    (gateway,) = (net.gateway for net in pod.subnets(node, node.pod_cidrs) if net.family == kind)
    (vtep,) = (vtep.address for vtep in flannel.vteps(node) if vtep.family == kind)
    return of_family(node.addresses, kind), gateway, vtep


def sysctls(proxies: Sequence[NodeProxy]) -> frozenset[Sysctl]:
    """All that is set on a node; kube-proxy's part depends on how it is configured."""
    found = set(SYSCTLS)
    for proxy in proxies:
        if proxy.family == 6:
            found |= SYSCTLS6
            continue
        why = (
            "kube-proxy: nodePorts on 127.0.0.1" if proxy.localhost else "the kernel: 127.0.0.0/8 stays here"
        )
        found.add(Sysctl("net.ipv4.conf.all.route_localnet", "1" if proxy.localhost else "0", why=why))
    if any(proxy.liberal for proxy in proxies):
        why = "kube-proxy: conntrack.tcpBeLiberal"
        found.add(Sysctl("net.netfilter.nf_conntrack_tcp_be_liberal", "1", why=why))
    return frozenset(found)


def base(
    node: NodeTopology,
    remotes: Iterable[flannel.Remote],
    nets: Sequence[Underlay],
    subnets: Sequence[Subnet],
    proxies: Sequence[NodeProxy],
) -> NamespaceState:
    """The part of the node that no pod and no service changes. cni0 is there from the start (the bridge
    plugin makes it with the node's first pod)."""
    why, vteps = f"node {node.name}", flannel.vteps(node)
    others = [remote for remote in remotes if remote.node != node.name]
    hardware = subnets[0].gateway_mac
    links = (
        fabric.attached(node.name, node.addresses, why),
        Link(pod.BRIDGE, "bridge", pod.MTU, mac=hardware, index=_BRIDGE_INDEX, why=f"pods of {why}"),
        *(flannel.link(vtep, "eth0", fabric.MTU, _TUNNEL_INDEX[vtep.family]) for vtep in vteps),
    )
    gateways = [f"{net.gateway}/{net.prefix}" for net in subnets]
    if any(net.family == 6 for net in subnets):
        gateways.append(f"{link_local(hardware)}/64")
    return NamespaceState(
        node.name,
        hostname=node.name,
        links=links,
        addresses=frozenset(
            (
                *fabric.uplink(node.addresses, nets, why),
                *(Address(pod.BRIDGE, cidr, why=f"gateway of pods of {why}") for cidr in gateways),
                *map(flannel.address, vteps),
            )
        ),
        routes=frozenset((*map(fabric.default_route, nets), *(remote.route for remote in others))),
        neighbours=frozenset(remote.neighbour for remote in others),
        fdb=frozenset(remote.fdb for remote in others),
        sysctls=sysctls(proxies),
    )


def underlay_neighbours(nodes: Iterable[NodeTopology]) -> frozenset[Neighbour]:
    """Permanent neighbour entries for `nodes` on the underlay."""
    return frozenset(
        Neighbour("eth0", address, mac(UNDERLAY_MAC, naming(node.addresses)), why=f"node {node.name}")
        for node in nodes
        for address in node.addresses
    )


def populated(
    empty: NamespaceState,
    pods: Sequence[Wiring],
    neighbours: frozenset[Neighbour],
    rules: Mapping[Family, Ruleset],
    nft: nftables.Tables,
) -> NamespaceState:
    """The node `empty` with its pods' ports, more permanent `neighbours`, and its rules of each family."""
    return replace(
        empty,
        links=empty.links + tuple(wired.outer for wired in pods),
        neighbours=empty.neighbours.union(
            neighbours, (neighbour for wired in pods for neighbour in wired.neighbours)
        ),
        rules=rules.get(4, iptables.EMPTY),
        rules6=rules.get(6, iptables.EMPTY),
        nft=nft,
    )


class NodeRules:
    """The rules of one family on one node but for its services and hostPorts, made once; its pods are in
    `subnet`."""

    def __init__(self, subnet: Subnet) -> None:
        self._family = subnet.family
        own = kubelet.CHAINS6 if subnet.family == 6 else kubelet.CHAINS
        self._nat = _by_name(*own["nat"], flannel.masquerade_chain(subnet.pods, subnet.cidr))
        self._filter = _by_name(*own["filter"], flannel.forward_chain(subnet.pods))

    def with_services(self, proxy: kubeproxy.Tables | None, ports: Sequence[portmap.PodPorts]) -> Ruleset:
        """The whole rule set; without anything of kube-proxy's if it writes no chains."""
        hostports = {chain.name: chain for chain in portmap.chains(ports)}
        builtin = _builtins(self._family, proxied=proxy is not None, forwarding=bool(hostports))
        mangle, nat, filters = (proxy.mangle, proxy.nat, proxy.filter) if proxy else ({}, {}, {})
        return Ruleset(
            {
                "mangle": {**_MANGLE, **mangle},
                "nat": {**builtin["nat"], **hostports, **self._nat, **nat},
                "filter": {**builtin["filter"], **self._filter, **filters},
            }
        )


def _builtin(name: str, top: tuple[str, ...], below: tuple[str, ...] = ()) -> Chain:
    return Chain(name, top + below, builtin=True, top=len(top))


def _by_name(*chains: Chain) -> dict[str, Chain]:
    return {chain.name: chain for chain in chains}


@cache
def _builtins(kind: Family, *, proxied: bool, forwarding: bool) -> dict[str, dict[str, Chain]]:
    """The rules in built-in chains: everybody's jumps to his own, kube-proxy's if it writes chains, the
    portmap plugin's if it forwards ports."""
    jumps = kubeproxy.JUMPS if proxied else dict.fromkeys(kubeproxy.JUMPS, ())
    masquerade = (portmap.MASQ_JUMP,) if forwarding else ()
    forward = (portmap.DNAT_JUMP,) if forwarding else ()
    firewall = (kubelet.JUMP,) if kind == 4 else ()
    nat = (
        _builtin("PREROUTING", jumps["nat", "PREROUTING"], forward),
        _builtin("OUTPUT", jumps["nat", "OUTPUT"], forward),
        _builtin("POSTROUTING", masquerade + jumps["nat", "POSTROUTING"], (flannel.POSTROUTING_JUMP,)),
    )
    filters = (
        _builtin("INPUT", jumps["filter", "INPUT"] + firewall),
        _builtin("FORWARD", jumps["filter", "FORWARD"], (flannel.FORWARD_JUMP,)),
        _builtin("OUTPUT", jumps["filter", "OUTPUT"] + firewall),
    )
    return {
        table: _by_name(*(c for c in chains if c.rules))
        for table, chains in (("nat", nat), ("filter", filters))
    }


_MANGLE = _by_name(*kubelet.CHAINS["mangle"])
