"""kube-proxy's configuration as it shows on one node: whom it takes for a pod, and which of the node's
addresses take nodePorts.

Source: pkg/proxy/util localdetector.go and nodeport_addresses.go, cmd/kube-proxy/app server_linux.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from nsk8s.api.families import Family, family, of_family
from nsk8s.api.topology import KubeProxy, NodeTopology, Topology

LOOPBACK = IPv4Network("127.0.0.0/8")


class LocalTraffic(NamedTuple):
    """How traffic from pods is told from all other: by its source network or by the interface it comes in on
    (``cni+`` stands for any name that begins so). With neither nobody can tell."""

    source: str = ""
    interface: str = ""

    def __bool__(self) -> bool:
        return bool(self.source or self.interface)


class NodeProxy(NamedTuple):
    """kube-proxy of one family on the node `name` with its InternalIP `address`.

    `node_ports` are the addresses that take nodePorts, None for all that are the node's own; `localhost`
    says whether those of 127.0.0.0/8 do, `liberal` whether out-of-window TCP packets are let through.
    """

    name: str
    address: str
    local: LocalTraffic
    masquerade_all: bool = False
    node_ports: tuple[str, ...] | None = None
    localhost: bool = True
    liberal: bool = False

    @property
    def family(self) -> Family:
        """Whose rules it writes: there is one for each family of the cluster, and they know nothing of each
        other."""
        return family(self.address)

    def accepts(self, source_ranges: Sequence[str]) -> bool:
        """Whether the node's own address is in one of a load balancer's `source_ranges`."""
        own = ip_address(self.address)
        return any(own in ip_network(each) for each in source_ranges)


def node_proxy(cluster: Topology, node: NodeTopology, kind: Family, addresses: Sequence[str]) -> NodeProxy:
    """kube-proxy of the family `kind` on `node`, whose `addresses` of that family these are besides
    loopback's. 127.0.0.1 takes nodePorts, ::1 never does: there is nothing like route_localnet for it."""
    options, nft = cluster.kube_proxy, cluster.proxy_mode == "nftables"
    address = of_family(node.addresses, kind)
    wanted = _networks(options.node_port_addresses or (("primary",) if nft else ()), node, kind)
    everywhere = any(network.prefixlen == 0 for network in wanted) or not wanted
    localhost = (
        kind == 4
        and cluster.proxy_mode == "iptables"
        and options.localhost_node_ports
        and (everywhere or any(n.version == 4 and n.overlaps(LOOPBACK) for n in wanted))
    )
    own = [*(["127.0.0.1"] if localhost else []), *addresses]
    chosen = tuple(ip for network in wanted for ip in own if ip_address(ip) in network)
    return NodeProxy(
        node.name,
        address,
        _local(options, of_family(cluster.pod_cidrs, kind), of_family(node.pod_cidrs, kind), kind),
        options.masquerade_all,
        None if everywhere else tuple(dict.fromkeys(chosen)),
        localhost,
        options.tcp_be_liberal,
    )


def _networks(words: Sequence[str], node: NodeTopology, kind: Family) -> list[IPv4Network | IPv6Network]:
    """nodePortAddresses of the family, with ``primary`` for the node's own InternalIP."""
    own = of_family(node.addresses, kind)
    found = (ip_network(own if word == "primary" else word) for word in words)
    return [network for network in found if network.version == kind]


def _local(options: KubeProxy, pods: str, subnet: str, kind: Family) -> LocalTraffic:
    match options.detect_local_mode:
        case "NodeCIDR":
            return LocalTraffic(source=subnet)
        case "BridgeInterface":
            return LocalTraffic(interface=options.bridge_interface)
        case "InterfaceNamePrefix":
            return LocalTraffic(interface=f"{options.interface_name_prefix}+")
        case _:
            given = options.cluster_cidr
            return LocalTraffic(source=pods if given is None else of_family(given.split(","), kind).strip())
