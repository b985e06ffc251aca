"""Pod addresses, as the CNI plugin host-local gives them out.

Each node hands out addresses of its own pod CIDRs, one of each family to every pod: round robin, starting
after the last one given, so that an address just released is the last to be used again. The network's first
address is the gateway's (cni0), its own and its last (IPv4's broadcast address) are nobody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network

from nsk8s.api.topology import Topology
from nsk8s.api.types import Pod
from nsk8s.errors import UserError

FIRST = 2
"""Offset of the first pod's address: 0 is the network, 1 the gateway."""


class AddressesExhausted(UserError):
    """A node's pod CIDR has no free address."""


def room(pod_cidrs: Iterable[str]) -> int:
    """How many pods a node with these pod CIDRs has addresses for."""
    return min(max(0, ip_network(cidr).num_addresses - FIRST - 1) for cidr in pod_cidrs)


class _Range:
    def __init__(self, cidr: str) -> None:
        self.cidr = cidr
        network = ip_network(cidr)
        self.base = network.network_address + FIRST
        self.size = network.num_addresses - FIRST - 1
        self.used: set[int] = set()
        self.last = -1

    def offset(self, ip: str) -> int | None:
        """The place of an address among those given out; None if it is not one of them."""
        address = ip_address(ip)
        if address.version != self.base.version:
            return None
        offset = int(address) - int(self.base)
        return offset if 0 <= offset < self.size else None

    def take(self) -> str:
        """The next free address; there must be one."""
        offset = self.last
        while (offset := (offset + 1) % self.size) in self.used:
            pass
        self.used.add(offset)
        self.last = offset
        return str(self.base + offset)


class Ipam:
    """Which address belongs to a pod. Built anew after a restart from the pods that there are."""

    def __init__(self, topology: Topology, pods: Iterable[Pod]) -> None:
        self._ranges = {node.name: [_Range(cidr) for cidr in node.pod_cidrs] for node in topology.nodes}
        newest: dict[str, tuple[str, int]] = {}
        for pod in pods:
            if pod.spec.hostNetwork or pod.terminal:
                continue
            for span, offset in self._find(pod.spec.nodeName, pod.status.ips):
                span.used.add(offset)
                age = (pod.metadata.creationTimestamp, offset)
                if age > newest.get(span.cidr, ("", -1)):
                    newest[span.cidr] = age
                    span.last = offset

    def allocate(self, node: str) -> tuple[str, ...]:
        """The next free addresses of `node`, one of each family. Raises `AddressesExhausted`."""
        for span in self._ranges[node]:
            if len(span.used) >= span.size:
                raise AddressesExhausted(
                    f"node {node}: no IP addresses available in pod CIDR {span.cidr}, "
                    f"{len(span.used)} in use",
                    hint="give the node a larger podCIDR, or the cluster more nodes",
                )
        return tuple(span.take() for span in self._ranges[node])

    def release(self, node: str, ips: Iterable[str]) -> None:
        """`ips` are free again. Releasing what is not in use is not an error."""
        for span, offset in self._find(node, ips):
            span.used.discard(offset)

    def _find(self, node: str, ips: Iterable[str]) -> Iterator[tuple[_Range, int]]:
        for ip in ips:
            for span in self._ranges.get(node, ()):
                if (offset := span.offset(ip)) is not None:
                    yield span, offset
