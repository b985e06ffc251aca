"""A pod's network namespace, as flannel's CNI configuration (bridge plugin, host-local IPAM) leaves it,
and what its node holds for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import NamedTuple

from msgspec import Struct

from nsk8s.api.families import Family, family
from nsk8s.api.topology import NodeTopology
from nsk8s.api.types import ContainerPort, Pod
from nsk8s.dataplane import portmap
from nsk8s.dataplane.names import OUTER_MAC, POD_MAC, link_local, mac, naming, pod_veth
from nsk8s.linux.values import Address, Link, NamespaceState, Neighbour, Peer, Route, Sysctl

BRIDGE = "cni0"
MTU = 1450
"""What a VXLAN tunnel leaves of the underlay's 1500 octets."""

_FIRST_INDEX = 100
"""The node's ends of pod pairs have the ifindex of this plus the pod's host number."""
_LAST_INDEX = 1 << 24

_SYSCTLS6 = frozenset(
    (
        Sysctl("net.ipv6.conf.default.accept_dad", "0", why="bridge plugin: an address is in use at once"),
        Sysctl("net.ipv6.conf.default.accept_ra", "0", why="bridge plugin: nobody asks for routers"),
    )
)
"""For eth0, which comes after them, of a pod with an IPv6 address."""


def pod_namespace(namespace: str, name: str) -> str:
    """The name of the network namespace of the pod `namespace`/`name`."""
    return f"{namespace}.{name}"


def number(address: str) -> int:
    """An address as a number. (`ipaddress` takes four times as long for the many of IPv4.)"""
    if ":" in address:
        return int(ip_address(address))
    a, b, c, d = address.split(".")
    return int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d)


class Subnet(NamedTuple):
    """A podCIDR of a node with what is derived from it: `gateway` is cni0's address, the first usable.
    `pods` is the network of all pods of that family."""

    node: str
    family: Family
    cidr: str
    base: int
    prefix: str
    gateway: str
    gateway_mac: str
    pods: str


def subnets(node: NodeTopology, pod_cidrs: Sequence[str]) -> tuple[Subnet, ...]:
    """The subnets of `node`, one of each family; cni0 has one MAC address for all of them. `pod_cidrs` are
    the cluster's."""
    networks = [cidr.partition("/") for cidr in node.pod_cidrs]
    gateways = [str(ip_address(network) + 1) for network, _, _ in networks]
    hardware = mac(POD_MAC, naming(gateways))
    return tuple(
        Subnet(node.name, family(cidr), cidr, number(network), prefix, gateway, hardware, pods)
        for cidr, (network, _, prefix), gateway, pods in zip(
            node.pod_cidrs, networks, gateways, pod_cidrs, strict=True
        )
    )


class Shape(NamedTuple):
    """All of a pod that its network depends on: as long as it is equal, nothing changes."""

    uid: str
    node: str
    ips: tuple[str, ...]
    hostname: str
    ports: tuple[ContainerPort, ...]
    crowded: bool


class Wiring(Struct, frozen=True, eq=False):
    """A pod's namespace (`state`), and on its node: the `outer` end of its pair, its permanent
    `neighbours` (if the cluster is crowded), its hostPort rules by family."""

    state: NamespaceState
    outer: Link
    neighbours: tuple[Neighbour, ...]
    ports: Mapping[Family, portmap.PodPorts]


def shape(pod: Pod, *, crowded: bool) -> Shape:
    """The `Shape` of `pod`. Its host name is spec.hostname or its own name, 63 characters at most."""
    hostname = (pod.spec.hostname or pod.metadata.name)[:63].rstrip("-.")
    return Shape(
        pod.metadata.uid,
        pod.spec.nodeName,
        pod.status.ips,
        hostname,
        portmap.host_ports(pod),
        crowded,
    )


def wire(pod: Pod, form: Shape, nets: Sequence[Subnet]) -> Wiring:
    """The wiring of `pod`, whose shape is `form`, into the subnets `nets` of its node."""
    name = pod_namespace(pod.metadata.namespace, pod.metadata.name)
    device, why = pod_veth(form.uid), f"Pod {pod.metadata.namespace}/{pod.metadata.name}"
    placed = [(ip, net) for ip in form.ips for net in nets if net.family == family(ip)]
    main, node = naming(form.ips), nets[0].node
    hardware = mac(POD_MAC, main)
    addresses = [Address("eth0", f"{ip}/{net.prefix}", why=why) for ip, net in placed]
    sysctls: frozenset[Sysctl] = frozenset()
    if any(net.family == 6 for _, net in placed):
        addresses.append(Address("eth0", f"{link_local(hardware)}/64", why=why))
        sysctls = _SYSCTLS6
    state = NamespaceState(
        name,
        hostname=form.hostname,
        links=(
            Link(
                "eth0",
                "veth",
                MTU,
                mac=hardware,
                peer=Peer(node, device),
                conf=(("arp_notify", 1),),
                index=2,
                why=why,
            ),
        ),
        addresses=frozenset(addresses),
        routes=frozenset(
            route
            for _, net in placed
            for route in (
                Route("default", "eth0", via=net.gateway, why=f"{BRIDGE} of node {node}"),
                Route(net.pods, "eth0", via=net.gateway, why="the cluster's pods"),
            )
        ),
        neighbours=frozenset(
            Neighbour("eth0", net.gateway, net.gateway_mac, why=f"node {node}") for _, net in placed
        )
        if form.crowded
        else frozenset(),
        sysctls=sysctls,
    )
    index = _FIRST_INDEX + number(main) - next(net.base for ip, net in placed if ip == main)
    outer = Link(
        device,
        "veth",
        MTU,
        mac=mac(OUTER_MAC, main),
        master=BRIDGE,
        hairpin=True,
        index=index if index < _LAST_INDEX else 0,
        why=why,
    )
    return Wiring(
        state,
        outer,
        tuple(Neighbour(BRIDGE, ip, hardware, why=why) for ip, _ in placed) if form.crowded else (),
        {net.family: portmap.pod_ports(pod, form.ports, ip, net.cidr) for ip, net in placed if form.ports},
    )
