"""What flannel's vxlan backend and its masquerade (``--ip-masq``) put on a node.

Source: flannel pkg/backend/vxlan and pkg/trafficmngr/iptables. No learning and no ARP on the overlay:
per remote node one neighbour (its VTEP's overlay address → MAC), one forwarding entry (MAC →
node address) and one route over the on-link VTEP address.
"""

from __future__ import annotations

from typing import NamedTuple

from nsk8s.api.topology import NodeTopology
from nsk8s.dataplane.names import VTEP_MAC, mac
from nsk8s.linux.values import Address, Chain, FdbEntry, Link, Neighbour, Route, Vxlan

DEVICE = "flannel.1"
VNI = 1
PORT = 8472
"""The Linux kernel's own VXLAN port; IANA's 4789 came later and flannel keeps the kernel's."""
OVERHEAD = 50
"""Octets of VXLAN over IPv4: inner Ethernet 14, VXLAN 8, UDP 8, IP 20."""

_COMMENT = '-m comment --comment "flanneld masq"'
_FORWARD = '-m comment --comment "flanneld forward"'

POSTROUTING_JUMP = f"{_COMMENT} -j FLANNEL-POSTRTG"
"""Appended to nat POSTROUTING."""
FORWARD_JUMP = f"{_FORWARD} -j FLANNEL-FWD"
"""Appended to filter FORWARD."""


class Remote(NamedTuple):
    """What every other node holds for one node: the triple that leads to its pods."""

    node: str
    neighbour: Neighbour
    fdb: FdbEntry
    route: Route


def vtep_address(node: NodeTopology) -> str:
    """The overlay address of a node's VTEP: the network address of its podCIDR."""
    return node.pod_cidr.partition("/")[0]


def vtep_mac(node: NodeTopology) -> str:
    """The MAC of the node's flannel.1."""
    return mac(VTEP_MAC, vtep_address(node))


def link(node: NodeTopology, underlay: str, mtu: int, index: int) -> Link:
    """The node's flannel.1 over the device `underlay`, whose MTU is `mtu` octets."""
    return Link(
        DEVICE,
        "vxlan",
        mtu - OVERHEAD,
        mac=vtep_mac(node),
        vxlan=Vxlan(VNI, PORT, node.address, underlay),
        index=index,
        why=f"VXLAN tunnel endpoint of node {node.name}",
    )


def address(node: NodeTopology) -> Address:
    """The VTEP's own address, ``/32`` so that it adds no route."""
    return Address(DEVICE, f"{vtep_address(node)}/32", why=f"overlay address of node {node.name}")


def remote(node: NodeTopology) -> Remote:
    """The entries for `node` on all other nodes."""
    vtep, hardware = vtep_address(node), vtep_mac(node)
    return Remote(
        node.name,
        Neighbour(DEVICE, vtep, hardware, why=f"VTEP of node {node.name}"),
        FdbEntry(DEVICE, hardware, node.address, why=f"VTEP of node {node.name}"),
        Route(node.pod_cidr, DEVICE, via=vtep, onlink=True, why=f"pods of node {node.name}"),
    )


def forward_chain(network: str) -> Chain:
    """filter FLANNEL-FWD for the cluster's pod `network`."""
    return Chain("FLANNEL-FWD", (f"-s {network} {_FORWARD} -j ACCEPT", f"-d {network} {_FORWARD} -j ACCEPT"))


def masquerade_chain(network: str, subnet: str) -> Chain:
    """nat FLANNEL-POSTRTG: pods keep their address inside the cluster's pod `network` and take the
    node's outside it; `subnet` is this node's podCIDR. The first rule leaves to kube-proxy what it has
    marked."""
    return Chain(
        "FLANNEL-POSTRTG",
        (
            f"-m mark --mark 0x4000/0x4000 {_COMMENT} -j RETURN",
            f"-s {subnet} -d {network} {_COMMENT} -j RETURN",
            f"-s {network} -d {subnet} {_COMMENT} -j RETURN",
            f"! -s {network} -d {subnet} {_COMMENT} -j RETURN",
            f"-s {network} ! -d 224.0.0.0/4 {_COMMENT} -j MASQUERADE --random-fully",
            f"! -s {network} -d {network} {_COMMENT} -j MASQUERADE --random-fully",
        ),
    )
