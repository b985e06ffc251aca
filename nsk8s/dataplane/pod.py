"""A pod's network namespace, as flannel's CNI configuration (bridge plugin, host-local IPAM) leaves it,
and what its node holds for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from nsk8s.api.topology import NodeTopology
from nsk8s.api.types import ContainerPort, Pod
from nsk8s.dataplane import portmap
from nsk8s.dataplane.names import OUTER_MAC, POD_MAC, mac, pod_veth
from nsk8s.linux.values import Address, Link, NamespaceState, Neighbour, Peer, Route

BRIDGE = "cni0"
MTU = 1450
"""What a VXLAN tunnel leaves of the underlay's 1500 octets."""

_FIRST_INDEX = 100
"""The node's ends of pod pairs have the ifindex of this plus the pod's host number."""


def pod_namespace(namespace: str, name: str) -> str:
    """The name of the network namespace of the pod `namespace`/`name`."""
    return f"{namespace}.{name}"


def number(address: str) -> int:
    """An IPv4 address as a number."""
    a, b, c, d = address.split(".")
    return int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d)


class Subnet(NamedTuple):
    """A node's podCIDR with what is derived from it: `gateway` is cni0's address, the first usable."""

    node: str
    cidr: str
    base: int
    prefix: str
    gateway: str
    gateway_mac: str

    @staticmethod
    def of(node: NodeTopology) -> Subnet:
        """The subnet of `node`."""
        network, _, prefix = node.pod_cidr.partition("/")
        base = number(network)
        gateway = ".".join(str(octet) for octet in (base + 1).to_bytes(4, "big"))
        return Subnet(node.name, node.pod_cidr, base, prefix, gateway, mac(POD_MAC, gateway))


class Shape(NamedTuple):
    """All of a pod that its network depends on: as long as it is equal, nothing changes."""

    uid: str
    node: str
    ip: str
    hostname: str
    ports: tuple[ContainerPort, ...]
    crowded: bool


@dataclass(frozen=True, eq=False, slots=True)
class Wiring:
    """A pod's namespace (`state`), and on its node: the `outer` end of its pair, its permanent
    `neighbour` entry (if the cluster is crowded), its hostPort rules."""

    state: NamespaceState
    outer: Link
    neighbour: Neighbour | None
    ports: portmap.PodPorts | None


def shape(pod: Pod, *, crowded: bool) -> Shape:
    """The `Shape` of `pod`. Its host name is spec.hostname or its own name, 63 characters at most."""
    hostname = (pod.spec.hostname or pod.metadata.name)[:63].rstrip("-.")
    return Shape(
        pod.metadata.uid,
        pod.spec.nodeName,
        pod.status.podIP,
        hostname,
        portmap.host_ports(pod),
        crowded,
    )


def wire(pod: Pod, form: Shape, subnet: Subnet, pod_cidr: str) -> Wiring:
    """The wiring of `pod`, whose shape is `form`, into `subnet` of the cluster's `pod_cidr`."""
    name = pod_namespace(pod.metadata.namespace, pod.metadata.name)
    ip, device, why = form.ip, pod_veth(form.uid), f"Pod {pod.metadata.namespace}/{pod.metadata.name}"
    hardware = mac(POD_MAC, ip)
    state = NamespaceState(
        name,
        hostname=form.hostname,
        links=(
            Link(
                "eth0",
                "veth",
                MTU,
                mac=hardware,
                peer=Peer(subnet.node, device),
                conf=(("arp_notify", 1),),
                index=2,
                why=why,
            ),
        ),
        addresses=frozenset((Address("eth0", f"{ip}/{subnet.prefix}", why=why),)),
        routes=frozenset(
            (
                Route("default", "eth0", via=subnet.gateway, why=f"{BRIDGE} of node {subnet.node}"),
                Route(pod_cidr, "eth0", via=subnet.gateway, why="the cluster's pods"),
            )
        ),
        neighbours=frozenset(
            (Neighbour("eth0", subnet.gateway, subnet.gateway_mac, why=f"node {subnet.node}"),)
        )
        if form.crowded
        else frozenset(),
    )
    outer = Link(
        device,
        "veth",
        MTU,
        mac=mac(OUTER_MAC, ip),
        master=BRIDGE,
        hairpin=True,
        index=_FIRST_INDEX + number(ip) - subnet.base,
        why=why,
    )
    return Wiring(
        state,
        outer,
        Neighbour(BRIDGE, ip, hardware, why=why) if form.crowded else None,
        portmap.pod_ports(pod, form.ports, subnet.cidr) if form.ports else None,
    )
