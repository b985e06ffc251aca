"""The underlay: one bridge in a namespace of its own, a port on it for every node and client, and for the
host if it asks. The bridge's address is everybody's default gateway and a dead end: it does not forward,
so that a packet for nowhere (an undefined port of a ClusterIP, say) is lost in silence as it would be
beyond a real cluster's router.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nsk8s.api.families import Family, family, of_family
from nsk8s.api.topology import ClientTopology, NodeTopology, Topology
from nsk8s.dataplane.names import (
    PORT_MAC,
    UNDERLAY_MAC,
    fabric_port,
    host_link,
    link_local,
    mac,
    naming,
)
from nsk8s.dataplane.pod import number
from nsk8s.linux.values import Address, Link, NamespaceState, Peer, Route, Sysctl

FABRIC = "fabric"
HOST = ""
"""The name of the host's own namespace; it is in a compiled cluster only with hostAccess."""
BRIDGE = "br0"
MTU = 1500
_HOST_PORT = "host"
_FIRST_INDEX = 100
_LAST_INDEX = 1 << 24

_SYSCTLS = frozenset(
    (
        Sysctl("net.ipv4.ip_forward", "0", why="the way out of the cluster ends here"),
        Sysctl("net.bridge.bridge-nf-call-iptables", "0", why="a switch looks at frames only"),
    )
)


def ipv6_sysctls() -> frozenset[Sysctl]:
    """What a namespace needs to have IPv6 on its devices (they are made without, for without use it costs
    dear: each would look for routers and neighbours): the addresses given, and no others."""
    return frozenset(
        (
            Sysctl("net.ipv6.conf.all.disable_ipv6", "0", why="IPv6 is used here"),
            Sysctl("net.ipv6.conf.default.accept_ra", "0", why="routes are configured, nobody asks for any"),
            Sysctl("net.ipv6.conf.default.addr_gen_mode", "1", why="no addresses but those configured"),
        )
    )


_SYSCTLS6 = ipv6_sysctls() | {
    Sysctl("net.bridge.bridge-nf-call-ip6tables", "0", why="a switch looks at frames only"),
}


_SILENCE = frozenset(
    Route(
        network, BRIDGE, why="never taken, for nothing is forwarded: without a route the sender would be told"
    )
    for network in ("2000::/3", "fc00::/7")
)
"""IPv4 says nothing of a packet that nobody would forward, IPv6 does unless it has a route: for all unicast
addresses that are not of one link."""


class Underlay(NamedTuple):
    """nodeCIDR of one family and what is derived from it: `gateway` its first usable address, `host` its
    last."""

    family: Family
    base: int
    prefix: str
    gateway: str
    host: str

    @staticmethod
    def of(node_cidr: str) -> Underlay:
        """The underlay of `node_cidr`."""
        network = ipaddress.ip_network(node_cidr)
        return Underlay(
            family(node_cidr),
            int(network.network_address),
            str(network.prefixlen),
            str(network[1]),
            str(network[-2]),
        )


def underlays(topology: Topology) -> tuple[Underlay, ...]:
    """The underlay's networks, one of each family."""
    return tuple(map(Underlay.of, topology.node_cidrs))


def attached(name: str, addresses: Sequence[str], why: str) -> Link:
    """The ``eth0`` of a node or client on the fabric."""
    return Link(
        "eth0",
        "veth",
        MTU,
        mac=mac(UNDERLAY_MAC, naming(addresses)),
        peer=Peer(FABRIC, fabric_port(name)),
        index=2,
        why=why,
    )


def uplink(addresses: Sequence[str], nets: Sequence[Underlay], why: str) -> Iterator[Address]:
    """The addresses of that ``eth0``; with IPv6 also the link-local one, from which neighbours are asked for
    when packets of others pass."""
    for address, underlay in zip(addresses, nets, strict=True):
        yield Address("eth0", f"{address}/{underlay.prefix}", why=why)
        if underlay.family == 6:
            yield Address("eth0", f"{link_local(mac(UNDERLAY_MAC, naming(addresses)))}/64", why=why)


def default_route(underlay: Underlay) -> Route:
    """Where everything else goes, and is dropped."""
    return Route("default", "eth0", via=underlay.gateway, why="the fabric, which forwards nothing")


def fabric(topology: Topology) -> NamespaceState:
    """The fabric's own namespace."""
    nets = underlays(topology)
    main = next((net for net in nets if net.family == 4), nets[0])
    bridge = Link(
        BRIDGE,
        "bridge",
        MTU,
        mac=mac(UNDERLAY_MAC, main.gateway),
        index=2,
        why="the underlay between nodes",
    )
    ends: list[NodeTopology | ClientTopology] = [*topology.nodes, *topology.clients]
    ports = [
        Link(
            fabric_port(end.name),
            "veth",
            MTU,
            mac=mac(PORT_MAC, naming(end.addresses)),
            master=BRIDGE,
            index=_port_index(naming(end.addresses), main),
            why=f"port of {end.name}",
        )
        for end in ends
    ]
    if topology.host_access:
        # No explicit index: the pair's other end lives among the host's devices, whose numbers are not ours.
        ports.append(
            Link(
                _HOST_PORT,
                "veth",
                MTU,
                mac=mac(PORT_MAC, main.host),
                master=BRIDGE,
                why="port of the host",
            )
        )
    return NamespaceState(
        FABRIC,
        hostname=FABRIC,
        links=(bridge, *ports),
        addresses=frozenset(
            Address(BRIDGE, f"{net.gateway}/{net.prefix}", why="default gateway") for net in nets
        ),
        routes=_SILENCE if 6 in topology.families else frozenset(),
        sysctls=_SYSCTLS | (_SYSCTLS6 if 6 in topology.families else frozenset()),
    )


def _port_index(address: str, underlay: Underlay) -> int:
    index = _FIRST_INDEX + number(address) - underlay.base
    return index if index < _LAST_INDEX else 0


def client(outside: ClientTopology, nets: Sequence[Underlay]) -> NamespaceState:
    """A namespace outside the cluster: it reaches node addresses and has no route to pods or services
    but the gateway's dead end."""
    why = f"client {outside.name}"
    return NamespaceState(
        outside.name,
        hostname=outside.name,
        links=(attached(outside.name, outside.addresses, why),),
        addresses=frozenset(uplink(outside.addresses, nets, why)),
        routes=frozenset(map(default_route, nets)),
        sysctls=ipv6_sysctls() if any(net.family == 6 for net in nets) else frozenset(),
    )


def host(topology: Topology) -> NamespaceState:
    """The host's own namespace with hostAccess: one link onto the fabric; its address brings the one
    route, to the nodes' IPv4 addresses."""
    underlay = Underlay.of(of_family(topology.node_cidrs, 4))
    device, why = host_link(topology.name), f"hostAccess of cluster {topology.name}"
    link = Link(
        device,
        "veth",
        MTU,
        mac=mac(UNDERLAY_MAC, underlay.host),
        peer=Peer(FABRIC, _HOST_PORT),
        why=why,
    )
    return NamespaceState(
        HOST,
        links=(link,),
        addresses=frozenset((Address(device, f"{underlay.host}/{underlay.prefix}", why=why),)),
    )
