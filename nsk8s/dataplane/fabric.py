"""The underlay: one bridge in a namespace of its own, a port on it for every node and client, and for the
host if it asks. The bridge's address is everybody's default gateway and a dead end: it does not forward,
so that a packet for nowhere (an undefined port of a ClusterIP, say) is lost in silence as it would be
beyond a real cluster's router.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from nsk8s.api.topology import ClientTopology, NodeTopology, Topology
from nsk8s.dataplane.names import PORT_MAC, UNDERLAY_MAC, fabric_port, host_link, mac
from nsk8s.dataplane.pod import number
from nsk8s.linux.values import Address, Link, NamespaceState, Peer, Route, Sysctl

FABRIC = "fabric"
HOST = ""
"""The name of the host's own namespace; it is in a compiled cluster only with hostAccess."""
BRIDGE = "br0"
MTU = 1500
_HOST_PORT = "host"
_FIRST_INDEX = 100

_SYSCTLS = frozenset(
    (
        Sysctl("net.ipv4.ip_forward", "0", why="the way out of the cluster ends here"),
        Sysctl("net.bridge.bridge-nf-call-iptables", "0", why="a switch looks at frames only"),
    )
)


class Underlay(NamedTuple):
    """nodeCIDR and what is derived from it: `gateway` its first usable address, `host` its last."""

    base: int
    prefix: str
    gateway: str
    host: str

    @staticmethod
    def of(node_cidr: str) -> Underlay:
        """The underlay of `node_cidr`."""
        network = ipaddress.IPv4Network(node_cidr)
        return Underlay(
            int(network.network_address), str(network.prefixlen), str(network[1]), str(network[-2])
        )


def attached(name: str, address: str, underlay: Underlay, why: str) -> Link:
    """The ``eth0`` of a node or client on the fabric."""
    return Link(
        "eth0",
        "veth",
        MTU,
        mac=mac(UNDERLAY_MAC, address),
        peer=Peer(FABRIC, fabric_port(name)),
        index=2,
        why=why,
    )


def default_route(underlay: Underlay) -> Route:
    """Where everything else goes, and is dropped."""
    return Route("default", "eth0", via=underlay.gateway, why="the fabric, which forwards nothing")


def fabric(topology: Topology) -> NamespaceState:
    """The fabric's own namespace."""
    underlay = Underlay.of(topology.node_cidr)
    bridge = Link(
        BRIDGE,
        "bridge",
        MTU,
        mac=mac(UNDERLAY_MAC, underlay.gateway),
        index=2,
        why="the underlay between nodes",
    )
    ends: list[NodeTopology | ClientTopology] = [*topology.nodes, *topology.clients]
    ports = [
        Link(
            fabric_port(end.name),
            "veth",
            MTU,
            mac=mac(PORT_MAC, end.address),
            master=BRIDGE,
            index=_FIRST_INDEX + number(end.address) - underlay.base,
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
                mac=mac(PORT_MAC, underlay.host),
                master=BRIDGE,
                why="port of the host",
            )
        )
    return NamespaceState(
        FABRIC,
        hostname=FABRIC,
        links=(bridge, *ports),
        addresses=frozenset(
            (Address(BRIDGE, f"{underlay.gateway}/{underlay.prefix}", why="default gateway"),)
        ),
        sysctls=_SYSCTLS,
    )


def client(outside: ClientTopology, underlay: Underlay) -> NamespaceState:
    """A namespace outside the cluster: it reaches node addresses and has no route to pods or services
    but the gateway's dead end."""
    why = f"client {outside.name}"
    return NamespaceState(
        outside.name,
        hostname=outside.name,
        links=(attached(outside.name, outside.address, underlay, why),),
        addresses=frozenset((Address("eth0", f"{outside.address}/{underlay.prefix}", why=why),)),
        routes=frozenset((default_route(underlay),)),
    )


def host(topology: Topology) -> NamespaceState:
    """The host's own namespace with hostAccess: one link onto the fabric; its address brings the one
    route, to the nodes."""
    underlay = Underlay.of(topology.node_cidr)
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
