"""Every node's service rules, computed once and shared.

All nodes hold the same rules for a service but where a Local traffic policy or topology hints make them
differ. A rule set
is kept between calls as long as its service and slices are the same objects, and a chain that comes
out with the same rules stays the same object, so that a later diff can pass over it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nsk8s.api.types import EndpointSlice, Service
from nsk8s.dataplane import kubeproxy
from nsk8s.dataplane.endpoints import ProxyEndpoint, choose, collect, watched
from nsk8s.dataplane.kubeproxy import Frontend, PortRules, Tables
from nsk8s.linux.values import Chain

SERVICE_LABEL = "kubernetes.io/service-name"
Known = Mapping[Chain, Chain]


class ServiceRules:
    """The service rules of all `nodes` (by name), for pods in `pod_cidr`."""

    def __init__(self, nodes: Sequence[str], pod_cidr: str) -> None:
        self._nodes = tuple(nodes)
        self._pod_cidr = pod_cidr
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._tables: dict[tuple[PortRules, ...], Tables] = {}

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
        alike = all(port.alike for port in ports)
        made: dict[tuple[PortRules, ...], Tables] = {}
        result: dict[str, Tables] = {}
        rules: tuple[PortRules, ...] = ()
        for node in self._nodes:
            if not (alike and result):
                zone = zones.get(node, "")
                rules = tuple(port.rules(node, zone, self._pod_cidr, comments=comments) for port in ports)
            if rules not in made:
                made[rules] = self._tables.get(rules) or kubeproxy.tables(rules)
            result[node] = made[rules]
        self._tables = made
        return result

    def udp_frontends(self) -> dict[tuple[str | None, int], frozenset[tuple[str, int]]]:
        """Where UDP services of the last call are reached, (address, port) with None for any address of a
        node, and their backends that still serve: whatever else a connection tracking entry for one of
        them says is stale (pkg/proxy/conntrack cleanup.go)."""
        found: dict[tuple[str | None, int], frozenset[tuple[str, int]]] = {}
        for port in (port for entry in self._entries.values() for port in entry.ports):
            front = port.front
            if front.protocol == "udp":
                backends = frozenset((e.ip, e.port) for e in port.endpoints if e.serving)
                for address in (front.cluster_ip, *front.external_ips):
                    found[address, front.port] = backends
                if front.node_port:
                    found[None, front.node_port] = backends
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
    """One service port with its endpoints, and its rules on the kinds of node there are: by the
    endpoints that are used there. `alike`: all nodes use the same."""

    def __init__(self, front: Frontend, endpoints: Sequence[ProxyEndpoint], known: Known) -> None:
        self.front = front
        self.endpoints = endpoints
        self._known = known
        self._comments = True
        self._hinted = front.cluster_policy and any(endpoint.hinted for endpoint in endpoints)
        self.alike = not (self._hinted or front.local_policy)
        self._rules: dict[tuple[tuple[ProxyEndpoint, ...], ...], PortRules] = {}

    def rules(self, node: str, zone: str, pod_cidr: str, *, comments: bool) -> PortRules:
        if comments is not self._comments:
            self._comments, self._rules = comments, {}
        front = self.front
        if self._rules and self.alike:
            return next(iter(self._rules.values()))
        choice = choose(
            self.endpoints, node, zone, cluster_policy=front.cluster_policy, local_policy=front.local_policy
        )
        used = (choice.cluster, choice.local) if self._hinted else (choice.local,)
        if used not in self._rules:
            made = kubeproxy.port_rules(front, choice, pod_cidr, comments=comments)
            chains = tuple(self._known.get(chain, chain) for chain in made.chains)
            self._rules[used] = replace(made, chains=chains)
        return self._rules[used]

    def chains(self) -> list[Chain]:
        return [chain for rules in self._rules.values() for chain in rules.chains]
