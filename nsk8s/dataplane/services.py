"""Every node's service rules, computed once and shared.

All nodes hold the same rules for a service but where a Local traffic policy or topology hints make them
differ. A rule set
is kept between calls as long as its service and slices are the same objects, and a chain that comes
out with the same rules stays the same object, so that a later diff can pass over it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from nsk8s.api.types import EndpointSlice, Service
from nsk8s.dataplane import kubeproxy
from nsk8s.dataplane.endpoints import ProxyEndpoint, choose, collect, watched
from nsk8s.dataplane.kubeproxy import Frontend, PortRules, Tables
from nsk8s.dataplane.proxyoptions import LocalTraffic, NodeProxy
from nsk8s.dataplane.proxyports import HealthCheck
from nsk8s.linux.values import Chain

SERVICE_LABEL = "kubernetes.io/service-name"
Known = Mapping[Chain, Chain]
_Made = tuple[tuple[PortRules, ...], tuple[str, ...]]
"""What tables are made of: the rules of all service ports, and the rules for nodePorts behind them."""
_Kind = tuple[tuple[ProxyEndpoint, ...], tuple[ProxyEndpoint, ...], LocalTraffic, bool]
"""What makes nodes differ: the endpoints that hints and a Local policy leave there, how pods are told from
others, and whether a load balancer takes the node's own packets."""


class ServiceRules:
    """The service rules of all `nodes`."""

    def __init__(self, nodes: Sequence[NodeProxy]) -> None:
        self._nodes = tuple(nodes)
        self._alike = len({node.local for node in nodes}) < 2
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._tables: dict[_Made, Tables] = {}

    def tables(
        self,
        services: Sequence[Service],
        slices: Sequence[EndpointSlice],
        zones: Mapping[str, str] | None = None,
    ) -> dict[str, Tables]:
        """kube-proxy's chains by node; the same object as last time where nothing has changed. `zones` has
        the zone of each node that is in one."""
        zones = zones or {}
        self._entries = self._updated(services, slices)
        ports = [port for _, entry in sorted(self._entries.items()) for port in entry.ports]
        comments = sum(len(port.endpoints) for port in ports) <= kubeproxy.LARGE_CLUSTER
        alike = self._alike and all(port.alike for port in ports)
        made: dict[_Made, Tables] = {}
        result: dict[str, Tables] = {}
        rules: tuple[PortRules, ...] = ()
        for node in self._nodes:
            if not (alike and result):
                zone = zones.get(node.name, "")
                rules = tuple(port.rules(node, zone, comments=comments) for port in ports)
            key = rules, kubeproxy.nodeports_tail(node)
            if key not in made:
                made[key] = self._tables.get(key) or kubeproxy.tables(rules, node)
            result[node.name] = made[key]
        self._tables = made
        return result

    def health_checks(self) -> dict[str, tuple[HealthCheck, ...]]:
        """What every node tells load balancers that ask whether it has endpoints, after the last call of
        `tables`."""
        found: dict[str, list[HealthCheck]] = {node.name: [] for node in self._nodes}
        for (namespace, name), entry in sorted(self._entries.items()):
            port = next((p.front.health_check_port for p in entry.ports if p.front.health_check_port), 0)
            if not port:
                continue
            ready = {(e.node, e.ip) for p in entry.ports for e in p.endpoints if e.ready}
            counted = Counter(node for node, _ in ready)
            for node in self._nodes:
                check = HealthCheck(namespace, name, port, counted[node.name])
                found[node.name].append(check)
        return {node: tuple(checks) for node, checks in found.items()}

    def udp_frontends(self) -> dict[tuple[str, int], frozenset[tuple[str, int]]]:
        """Where UDP services of the last call are reached, (address, port) with the unspecified address for
        any of a node, and their backends that still serve: whatever else a connection tracking entry for
        one of them says is stale (pkg/proxy/conntrack cleanup.go)."""
        found: dict[tuple[str, int], frozenset[tuple[str, int]]] = {}
        for port in (port for entry in self._entries.values() for port in entry.ports):
            front = port.front
            if front.protocol == "udp":
                backends = frozenset((e.ip, e.port) for e in port.endpoints if e.serving)
                for address in (front.cluster_ip, *front.external_ips, *front.load_balancer_ips):
                    found[address, front.port] = backends
                if front.node_port:
                    found["0.0.0.0", front.node_port] = backends
        return found

    def _updated(
        self, services: Sequence[Service], slices: Sequence[EndpointSlice]
    ) -> dict[tuple[str, str], _Entry]:
        grouped: dict[tuple[str, str], list[EndpointSlice]] = {}
        for piece in slices:
            if watched(piece) and (name := piece.metadata.labels.get(SERVICE_LABEL)):
                grouped.setdefault((piece.metadata.namespace, name), []).append(piece)
        entries: dict[tuple[str, str], _Entry] = {}
        for service in filter(kubeproxy.proxied, services):
            key = (service.metadata.namespace, service.metadata.name)
            mine, last = grouped.get(key, []), self._entries.get(key)
            entries[key] = last if last and last.made_of(service, mine) else _Entry(service, mine, last)
        return entries


class _Entry:
    """A service with its slices, and what came of them."""

    def __init__(self, service: Service, slices: Sequence[EndpointSlice], last: _Entry | None) -> None:
        self._service = service
        self._slices = slices
        known = {chain: chain for port in last.ports for chain in port.chains()} if last else {}
        found = collect(slices)
        self.ports: tuple[_Port, ...] = tuple(
            _Port(kubeproxy.frontend(service, port), found.get((port.name, port.protocol), ()), known)
            for port in service.spec.ports
        )

    def made_of(self, service: Service, slices: Sequence[EndpointSlice]) -> bool:
        return (
            self._service is service
            and len(self._slices) == len(slices)
            and all(mine is theirs for mine, theirs in zip(self._slices, slices, strict=True))
        )


class _Port:
    """One service port with its endpoints, and its rules on the kinds of node there are. `alike`: all nodes
    use the same endpoints (their rules may still differ in how pods are told from others)."""

    def __init__(self, front: Frontend, endpoints: Sequence[ProxyEndpoint], known: Known) -> None:
        self.front = front
        self.endpoints = endpoints
        self._known = known
        self._comments = True
        self._hinted = front.cluster_policy and any(endpoint.hinted for endpoint in endpoints)
        self.alike = not (self._hinted or front.local_policy or front.firewalled)
        self._rules: dict[_Kind, PortRules] = {}

    def rules(self, node: NodeProxy, zone: str, *, comments: bool) -> PortRules:
        if comments is not self._comments:
            self._comments, self._rules = comments, {}
        front = self.front
        kind: _Kind = (), (), node.local, False
        if self.alike and kind in self._rules:
            return self._rules[kind]
        choice = choose(
            *(self.endpoints, node.name, zone),
            cluster_policy=front.cluster_policy,
            local_policy=front.local_policy,
        )
        accepted = front.firewalled and node.accepts(front.source_ranges)
        kind = choice.cluster if self._hinted else (), choice.local, node.local, accepted
        if kind not in self._rules:
            made = kubeproxy.port_rules(front, choice, node, comments=comments)
            chains = tuple(self._known.get(chain, chain) for chain in made.chains)
            self._rules[kind] = replace(made, chains=chains)
        return self._rules[kind]

    def chains(self) -> list[Chain]:
        return [chain for rules in self._rules.values() for chain in rules.chains]
