"""A node's network namespace: the uplink, flannel's bridge and tunnel, one bridge port per pod, and the
rules of everybody who writes rules on a node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache

from nsk8s.api.topology import NodeTopology
from nsk8s.dataplane import fabric, flannel, kubelet, kubeproxy, pod, portmap
from nsk8s.dataplane.fabric import Underlay
from nsk8s.dataplane.names import UNDERLAY_MAC, mac
from nsk8s.dataplane.pod import Subnet, Wiring
from nsk8s.dataplane.proxyoptions import NodeProxy
from nsk8s.linux import nftables
from nsk8s.linux.values import Address, Chain, Link, NamespaceState, Neighbour, Ruleset, Sysctl

_UPLINK_INDEX, _BRIDGE_INDEX, _TUNNEL_INDEX = 2, 3, 4

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


def addresses(node: NodeTopology) -> tuple[str, ...]:
    """The node's own addresses besides loopback's: on eth0, cni0 and flannel.1."""
    return node.address, Subnet.of(node).gateway, flannel.vtep_address(node)


def sysctls(proxy: NodeProxy) -> frozenset[Sysctl]:
    """All that is set on a node; kube-proxy's part depends on how it is configured."""
    localnet = Sysctl(
        "net.ipv4.conf.all.route_localnet",
        "1" if proxy.localhost else "0",
        why="kube-proxy: nodePorts on 127.0.0.1" if proxy.localhost else "the kernel: 127.0.0.0/8 stays here",
    )
    liberal = Sysctl(
        "net.netfilter.nf_conntrack_tcp_be_liberal", "1", why="kube-proxy: conntrack.tcpBeLiberal"
    )
    return SYSCTLS | {localnet} | ({liberal} if proxy.liberal else frozenset())


def base(
    node: NodeTopology, remotes: Iterable[flannel.Remote], underlay: Underlay, proxy: NodeProxy
) -> NamespaceState:
    """The part of the node that no pod and no service changes. cni0 is there from the start (the bridge
    plugin makes it with the node's first pod)."""
    subnet, why = Subnet.of(node), f"node {node.name}"
    others = [remote for remote in remotes if remote.node != node.name]
    links = (
        fabric.attached(node.name, node.address, underlay, why),
        Link(
            pod.BRIDGE, "bridge", pod.MTU, mac=subnet.gateway_mac, index=_BRIDGE_INDEX, why=f"pods of {why}"
        ),
        flannel.link(node, "eth0", fabric.MTU, _TUNNEL_INDEX),
    )
    return NamespaceState(
        node.name,
        hostname=node.name,
        links=links,
        addresses=frozenset(
            (
                Address("eth0", f"{node.address}/{underlay.prefix}", why=why),
                Address(pod.BRIDGE, f"{subnet.gateway}/{subnet.prefix}", why=f"gateway of pods of {why}"),
                flannel.address(node),
            )
        ),
        routes=frozenset((fabric.default_route(underlay), *(remote.route for remote in others))),
        neighbours=frozenset(remote.neighbour for remote in others),
        fdb=frozenset(remote.fdb for remote in others),
        sysctls=sysctls(proxy),
    )


def underlay_neighbours(nodes: Iterable[NodeTopology]) -> frozenset[Neighbour]:
    """Permanent neighbour entries for `nodes` on the underlay."""
    return frozenset(
        Neighbour("eth0", node.address, mac(UNDERLAY_MAC, node.address), why=f"node {node.name}")
        for node in nodes
    )


def populated(
    empty: NamespaceState,
    pods: Sequence[Wiring],
    neighbours: frozenset[Neighbour],
    rules: Ruleset,
    nft: nftables.Tables,
) -> NamespaceState:
    """The node `empty` with its pods' ports, more permanent `neighbours`, and its rules."""
    return replace(
        empty,
        links=empty.links + tuple(wired.outer for wired in pods),
        neighbours=empty.neighbours.union(
            neighbours, (wired.neighbour for wired in pods if wired.neighbour is not None)
        ),
        rules=rules,
        nft=nft,
    )


class NodeRules:
    """The rules of one node but for its services and hostPorts, made once."""

    def __init__(self, node: NodeTopology, pod_cidr: str) -> None:
        self._nat = _by_name(*kubelet.CHAINS["nat"], flannel.masquerade_chain(pod_cidr, node.pod_cidr))
        self._filter = _by_name(*kubelet.CHAINS["filter"], flannel.forward_chain(pod_cidr))

    def with_services(self, proxy: kubeproxy.Tables | None, ports: Sequence[portmap.PodPorts]) -> Ruleset:
        """The whole rule set; without anything of kube-proxy's if it writes no chains."""
        hostports = {chain.name: chain for chain in portmap.chains(ports)}
        builtin = _builtins(proxied=proxy is not None, forwarding=bool(hostports))
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
def _builtins(*, proxied: bool, forwarding: bool) -> dict[str, dict[str, Chain]]:
    """The rules in built-in chains: everybody's jumps to his own, kube-proxy's if it writes chains, the
    portmap plugin's if it forwards ports."""
    jumps = kubeproxy.JUMPS if proxied else dict.fromkeys(kubeproxy.JUMPS, ())
    masquerade = (portmap.MASQ_JUMP,) if forwarding else ()
    forward = (portmap.DNAT_JUMP,) if forwarding else ()
    nat = (
        _builtin("PREROUTING", jumps["nat", "PREROUTING"], forward),
        _builtin("OUTPUT", jumps["nat", "OUTPUT"], forward),
        _builtin("POSTROUTING", masquerade + jumps["nat", "POSTROUTING"], (flannel.POSTROUTING_JUMP,)),
    )
    filters = (
        _builtin("INPUT", (*jumps["filter", "INPUT"], kubelet.JUMP)),
        _builtin("FORWARD", jumps["filter", "FORWARD"], (flannel.FORWARD_JUMP,)),
        _builtin("OUTPUT", (*jumps["filter", "OUTPUT"], kubelet.JUMP)),
    )
    return {
        table: _by_name(*(c for c in chains if c.rules))
        for table, chains in (("nat", nat), ("filter", filters))
    }


_MANGLE = _by_name(*kubelet.CHAINS["mangle"])
