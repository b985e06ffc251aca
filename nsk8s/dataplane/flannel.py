"""What flannel's vxlan backend and its masquerade (``--ip-masq``) put on a node.

Source: flannel pkg/backend/vxlan and pkg/trafficmngr/iptables. No learning and no ARP on the overlay:
per remote node one neighbour (its VTEP's overlay address → MAC), one forwarding entry (MAC →
node address) and one route over the on-link VTEP address.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from nsk8s.api.families import BITS, Family, family
from nsk8s.api.topology import NodeTopology
from nsk8s.dataplane.names import VTEP_MAC, mac
from nsk8s.linux.values import Address, Chain, FdbEntry, Link, Neighbour, Route, Vxlan

DEVICES: Mapping[Family, str] = {4: "flannel.1", 6: "flannel-v6.1"}
"""The tunnel of each family."""
VNI = 1
PORT = 8472
"""The Linux kernel's own VXLAN port; IANA's 4789 came later and flannel keeps the kernel's."""
OVERHEAD: Mapping[Family, int] = {4: 50, 6: 70}
"""Octets of VXLAN: inner Ethernet 14, VXLAN 8, UDP 8, and IPv4 20 or IPv6 40. Flannel asks for 50 less than
the underlay's MTU in either family; the kernel gives no more than there is."""
MULTICAST: Mapping[Family, str] = {4: "224.0.0.0/4", 6: "ff00::/8"}

_COMMENT = '-m comment --comment "flanneld masq"'
_FORWARD = '-m comment --comment "flanneld forward"'

POSTROUTING_JUMP = f"{_COMMENT} -j FLANNEL-POSTRTG"
"""Appended to nat POSTROUTING."""
FORWARD_JUMP = f"{_FORWARD} -j FLANNEL-FWD"
"""Appended to filter FORWARD."""


class Remote(NamedTuple):
    """What every other node holds for one node: the triple that leads to its pods of one family."""

    node: str
    neighbour: Neighbour
    fdb: FdbEntry
    route: Route


class Vtep(NamedTuple):
    """A node's tunnel endpoint of one family: its overlay `address` (the network address of the podCIDR), its
    MAC address, and where it is on the underlay."""

    node: str
    family: Family
    address: str
    mac: str
    pod_cidr: str
    underlay: str

    @property
    def device(self) -> str:
        """The name of the tunnel."""
        return DEVICES[self.family]


def vteps(node: NodeTopology) -> tuple[Vtep, ...]:
    """The tunnel endpoints of a node."""
    return tuple(
        Vtep(
            node.name, family(cidr), address := cidr.partition("/")[0], mac(VTEP_MAC, address), cidr, underlay
        )
        for cidr, underlay in zip(node.pod_cidrs, node.addresses, strict=True)
    )


def link(vtep: Vtep, underlay: str, mtu: int, index: int) -> Link:
    """The node's tunnel over the device `underlay`, whose MTU is `mtu` octets."""
    return Link(
        vtep.device,
        "vxlan",
        mtu - OVERHEAD[vtep.family],
        mac=vtep.mac,
        vxlan=Vxlan(VNI, PORT, vtep.underlay, underlay),
        index=index,
        why=f"VXLAN tunnel endpoint of node {vtep.node}",
    )


def address(vtep: Vtep) -> Address:
    """The VTEP's own address, alone in its network so that it adds no route."""
    return Address(
        vtep.device, f"{vtep.address}/{BITS[vtep.family]}", why=f"overlay address of node {vtep.node}"
    )


def remote(vtep: Vtep) -> Remote:
    """The entries for `vtep` on all other nodes."""
    why = f"VTEP of node {vtep.node}"
    return Remote(
        vtep.node,
        Neighbour(vtep.device, vtep.address, vtep.mac, why=why),
        FdbEntry(vtep.device, vtep.mac, vtep.underlay, why=why),
        Route(vtep.pod_cidr, vtep.device, via=vtep.address, onlink=True, why=f"pods of node {vtep.node}"),
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
            f"-s {network} ! -d {MULTICAST[family(network)]} {_COMMENT} -j MASQUERADE --random-fully",
            f"! -s {network} -d {network} {_COMMENT} -j MASQUERADE --random-fully",
        ),
    )
