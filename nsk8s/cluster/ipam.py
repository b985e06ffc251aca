"""Pod addresses, as the CNI plugin host-local gives them out.

Each node hands out addresses of its own pod CIDR: round robin, starting after the last one given, so that
an address just released is the last to be used again. The network's first address is the gateway's (cni0),
the network and broadcast addresses are nobody's.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from nsk8s.api.topology import Topology
from nsk8s.api.types import Pod
from nsk8s.errors import UserError

FIRST = 2
"""Offset of the first pod's address: 0 is the network, 1 the gateway."""


class AddressesExhausted(UserError):
    """A node's pod CIDR has no free address."""


def room(pod_cidr: str) -> int:
    """How many pods a pod CIDR has addresses for."""
    return max(0, IPv4Network(pod_cidr).num_addresses - FIRST - 1)


class _Range:
    def __init__(self, cidr: str) -> None:
        self.cidr = cidr
        network = IPv4Network(cidr)
        self.base = int(network.network_address)
        self.size = network.num_addresses - FIRST - 1
        self.used: set[int] = set()
        self.last = -1


class Ipam:
    """Which address belongs to a pod. Built anew after a restart from the pods that there are."""

    def __init__(self, topology: Topology, pods: Iterable[Pod]) -> None:
        self._ranges = {node.name: _Range(node.pod_cidr) for node in topology.nodes}
        newest: dict[str, tuple[str, int]] = {}
        for pod in pods:
            if pod.spec.hostNetwork or not pod.status.podIP or pod.terminal:
                continue
            found = self._find(pod.spec.nodeName, pod.status.podIP)
            if found is None:
                continue
            span, offset = found
            span.used.add(offset)
            age = (pod.metadata.creationTimestamp, offset)
            if age > newest.get(pod.spec.nodeName, ("", -1)):
                newest[pod.spec.nodeName] = age
                span.last = offset

    def allocate(self, node: str) -> str:
        """The next free address of `node`. Raises `AddressesExhausted`."""
        span = self._ranges[node]
        if len(span.used) >= span.size:
            raise AddressesExhausted(
                f"node {node}: no IP addresses available in pod CIDR {span.cidr}, {len(span.used)} in use",
                hint="give the node a larger podCIDR, or the cluster more nodes",
            )
        offset = span.last
        while (offset := (offset + 1) % span.size) in span.used:
            pass
        span.used.add(offset)
        span.last = offset
        return str(IPv4Address(span.base + FIRST + offset))

    def release(self, node: str, ip: str) -> None:
        """`ip` is free again. Releasing what is not in use is not an error."""
        found = self._find(node, ip)
        if found is not None:
            found[0].used.discard(found[1])

    def _find(self, node: str, ip: str) -> tuple[_Range, int] | None:
        span = self._ranges.get(node)
        if span is None or not ip:
            return None
        offset = int(IPv4Address(ip)) - span.base - FIRST
        return (span, offset) if 0 <= offset < span.size else None
