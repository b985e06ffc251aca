"""kube-proxy's configuration as it shows on one node: whom it takes for a pod, and which of the node's
addresses take nodePorts.

Source: pkg/proxy/util localdetector.go and nodeport_addresses.go, cmd/kube-proxy/app server_linux.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, ip_address, ip_network
from typing import NamedTuple

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
    """kube-proxy on the node `name` with its InternalIP `address`.

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

    def accepts(self, source_ranges: Sequence[str]) -> bool:
        """Whether the node's own address is in one of a load balancer's `source_ranges`."""
        own = ip_address(self.address)
        return any(own in ip_network(each) for each in source_ranges)


def node_proxy(cluster: Topology, node: NodeTopology, addresses: Sequence[str]) -> NodeProxy:
    """kube-proxy on `node`, whose `addresses` these are besides loopback's."""
    options, nft = cluster.kube_proxy, cluster.proxy_mode == "nftables"
    wanted = _networks(options.node_port_addresses or (("primary",) if nft else ()), node)
    everywhere = any(network.prefixlen == 0 for network in wanted) or not wanted
    localhost = (
        cluster.proxy_mode == "iptables"
        and options.localhost_node_ports
        and (everywhere or any(n.overlaps(LOOPBACK) for n in wanted))
    )
    own = [*(["127.0.0.1"] if localhost else []), *addresses]
    chosen = tuple(ip for network in wanted for ip in own if ip_address(ip) in network)
    return NodeProxy(
        node.name,
        node.address,
        _local(options, cluster.pod_cidr, node.pod_cidr),
        options.masquerade_all,
        None if everywhere else tuple(dict.fromkeys(chosen)),
        localhost,
        options.tcp_be_liberal,
    )


def _networks(words: Sequence[str], node: NodeTopology) -> list[IPv4Network]:
    """nodePortAddresses of the family, with ``primary`` for the node's own InternalIP."""
    found = (ip_network(node.address if word == "primary" else word) for word in words)
    return [network for network in found if isinstance(network, IPv4Network)]


def _local(options: KubeProxy, pods: str, subnet: str) -> LocalTraffic:
    match options.detect_local_mode:
        case "NodeCIDR":
            return LocalTraffic(source=subnet)
        case "BridgeInterface":
            return LocalTraffic(interface=options.bridge_interface)
        case "InterfaceNamePrefix":
            return LocalTraffic(interface=f"{options.interface_name_prefix}+")
        case _:
            return LocalTraffic(source=pods if options.cluster_cidr is None else options.cluster_cidr)
