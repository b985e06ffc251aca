"""Every node's service rules in the proxy mode of the cluster, computed once and shared.

All nodes hold the same rules for a service but where a Local traffic policy or topology hints make them
differ. A rule set that nothing has changed is the same object as last time, and so is a chain, so that a
later diff can pass over it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple, Protocol

from nsk8s.api.families import Family, of_family
from nsk8s.api.topology import Topology
from nsk8s.api.types import EndpointSlice, Service
from nsk8s.dataplane import kubeproxy, nftproxy
from nsk8s.dataplane.kubeproxy import PortRules, Tables
from nsk8s.dataplane.nftproxy import NodeTable
from nsk8s.dataplane.proxyoptions import NodeProxy
from nsk8s.dataplane.proxyports import HealthCheck
from nsk8s.dataplane.serviceports import Name, R, ServicePorts, Write
from nsk8s.linux import nftables

_Made = tuple[tuple[PortRules, ...], tuple[str, ...]]
"""What tables are made of: the rules of all service ports, and the rules for nodePorts behind them."""
_UdpFrontends = dict[tuple[str, int], frozenset[tuple[str, int]]]


class ProxyRules(NamedTuple):
    """All that kube-proxy writes on a node: its iptables chains, if it writes any, and its tables of nft."""

    iptables: Tables | None = None
    nft: nftables.Tables = nftables.EMPTY


class ServiceRules(Protocol):
    """The service rules of some nodes."""

    def rules(
        self,
        services: Sequence[Service],
        slices: Sequence[EndpointSlice],
        zones: Mapping[str, str] | None = None,
    ) -> dict[str, ProxyRules]:
        """kube-proxy's rules by node; those of a node are the same objects as last time where nothing has
        changed. `zones` has the zone of each node that is in one."""

    def health_checks(self) -> dict[str, tuple[HealthCheck, ...]]:
        """What every node tells load balancers that ask whether it has endpoints, after the last call of
        `rules`."""

    def udp_frontends(self) -> _UdpFrontends:
        """Where UDP services are reached after the last call of `rules`, and the backends that serve."""


def service_rules(topology: Topology, kind: Family, nodes: Sequence[NodeProxy]) -> ServiceRules:
    """The service rules of one family of all `nodes` in the cluster's proxy mode."""
    match topology.proxy_mode:
        case "nftables":
            return NftablesRules(nodes, kind, of_family(topology.service_cidrs, kind))
        case "none":
            return NoRules(nodes)
        case _:
            return IptablesRules(nodes, kind)


class NoRules:
    """Nobody's rules: somebody else brings his own kube-proxy."""

    def __init__(self, nodes: Sequence[NodeProxy]) -> None:
        self._nodes = tuple(nodes)
        self._none = {node.name: ProxyRules() for node in nodes}

    def rules(
        self,
        services: Sequence[Service],
        slices: Sequence[EndpointSlice],
        zones: Mapping[str, str] | None = None,
    ) -> dict[str, ProxyRules]:
        """None on any node."""
        return self._none

    def health_checks(self) -> dict[str, tuple[HealthCheck, ...]]:
        """Nothing is told."""
        return {node.name: () for node in self._nodes}

    def udp_frontends(self) -> _UdpFrontends:
        """None: connection tracking is left alone."""
        return {}


class PortsRules(ABC, Generic[R]):
    """The rules of a mode that has some for each service port: what it `write`s of one on a node."""

    def __init__(self, nodes: Sequence[NodeProxy], kind: Family, write: Write[R]) -> None:
        self._nodes = tuple(nodes)
        self._ports = ServicePorts(write, kind)

    def rules(
        self,
        services: Sequence[Service],
        slices: Sequence[EndpointSlice],
        zones: Mapping[str, str] | None = None,
    ) -> dict[str, ProxyRules]:
        """See `ServiceRules`."""
        return self._written(self._ports.update(services, slices), zones or {})

    @abstractmethod
    def _written(self, changed: set[Name], zones: Mapping[str, str]) -> dict[str, ProxyRules]:
        """The rules by node, after the ports of the `changed` services have become others."""

    def health_checks(self) -> dict[str, tuple[HealthCheck, ...]]:
        """See `ServiceRules`."""
        return self._ports.health_checks(self._nodes)

    def udp_frontends(self) -> _UdpFrontends:
        """See `ServiceRules`."""
        return self._ports.udp_frontends()


class IptablesRules(PortsRules[PortRules]):
    """The rules of the iptables mode."""

    def __init__(self, nodes: Sequence[NodeProxy], kind: Family) -> None:
        super().__init__(nodes, kind, kubeproxy.port_rules)
        self._alike = len({node.local for node in nodes}) < 2
        self._tables: dict[_Made, ProxyRules] = {}

    def _written(self, changed: set[Name], zones: Mapping[str, str]) -> dict[str, ProxyRules]:
        """All chains are gone through when anything has changed."""
        ports = [port for _, entry in sorted(self._ports.entries.items()) for port in entry.ports]
        comments = sum(len(port.endpoints) for port in ports) <= kubeproxy.LARGE_CLUSTER
        alike = self._alike and all(port.alike for port in ports)
        made: dict[_Made, ProxyRules] = {}
        result: dict[str, ProxyRules] = {}
        rules: tuple[PortRules, ...] = ()
        for node in self._nodes:
            if not (alike and result):
                zone = zones.get(node.name, "")
                rules = tuple(port.rules(node, zone, comments=comments) for port in ports)
            key = rules, kubeproxy.nodeports_tail(node)
            if key not in made:
                made[key] = self._tables.get(key) or ProxyRules(kubeproxy.tables(rules, node))
            result[node.name] = made[key]
        self._tables = made
        return result


class NftablesRules(PortsRules[nftproxy.PortRules]):
    """The rules of the nftables mode. `service_cidr` is the network of the services."""

    def __init__(self, nodes: Sequence[NodeProxy], kind: Family, service_cidr: str) -> None:
        super().__init__(nodes, kind, nftproxy.port_rules)
        self._tables = {node.name: NodeTable(node, kind, [service_cidr]) for node in nodes}
        self._zones: Mapping[str, str] = {}
        self._made: dict[str, tuple[nftables.Table, ProxyRules]] = {}

    def _written(self, changed: set[Name], zones: Mapping[str, str]) -> dict[str, ProxyRules]:
        """Only what has changed is gone through."""
        if zones != self._zones:
            changed |= {
                name for name, entry in self._ports.entries.items() if any(p.hinted for p in entry.ports)
            }
            self._zones = dict(zones)
        return {node.name: self._node(node, changed) for node in self._nodes}

    def _node(self, node: NodeProxy, changed: set[Name]) -> ProxyRules:
        held, zone = self._tables[node.name], self._zones.get(node.name, "")
        for name in sorted(changed):
            entry = self._ports.entries.get(name)
            held.exchange(name, tuple(port.rules(node, zone) for port in entry.ports) if entry else ())
        table, last = held.table(), self._made.get(node.name)
        if last is None or last[0] is not table:
            last = self._made[node.name] = table, ProxyRules(nft=nftables.tables(table))
        return last[1]
