"""Every service port of the cluster with its endpoints, and what a proxy mode writes for it on a node.

What was made of a service is kept as long as the service and its slices are the same objects, and what has
changed since last time is found without looking at the rest: ten thousand services cost a fraction of a
millisecond.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import compress, count
from typing import Any, Generic, Protocol, Self, TypeVar

from nsk8s.api.families import Family
from nsk8s.api.types import EndpointSlice, Service
from nsk8s.dataplane import kubeproxy
from nsk8s.dataplane.endpoints import Choice, ProxyEndpoint, choose, collect, watched
from nsk8s.dataplane.kubeproxy import Frontend
from nsk8s.dataplane.proxyoptions import LocalTraffic, NodeProxy
from nsk8s.dataplane.proxyports import HealthCheck

SERVICE_LABEL = "kubernetes.io/service-name"
ANYWHERE: Mapping[Family, str] = {4: "0.0.0.0", 6: "::"}
"""Stands for any address of a node."""

T = TypeVar("T")
Known = Mapping[Any, Any]


class Written(Protocol):
    """What a proxy mode makes of a service port on a node: chains, and more."""

    @property
    def chains(self) -> tuple[Any, ...]:
        """The chains that are this port's alone."""

    def keeping(self, known: Known) -> Self:
        """The same with those of the `known` chains that are equal to its own."""


R = TypeVar("R", bound=Written)
Name = tuple[str, str]
"""Of a service: its namespace and name."""
Write = Callable[[Frontend, Choice, NodeProxy, bool], R]
"""What a proxy mode makes of a service port on a node that may use some endpoints; the last argument says
whether many rules carry comments."""
_Kind = tuple[tuple[ProxyEndpoint, ...], tuple[ProxyEndpoint, ...], LocalTraffic, bool, bool]
"""What makes nodes differ: the endpoints that hints and a Local policy leave there, how pods are told from
others, whether a load balancer takes the node's own packets; and whether there are comments."""


def differing(old: Sequence[T], new: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    """Both without the objects that they have in common at the beginning and at the end."""
    most = min(len(old), len(new))
    start = next(compress(count(), map(operator.is_not, old, new)), most)
    end = next(compress(count(), map(operator.is_not, reversed(old), reversed(new))), most)
    end = min(end, most - start)
    return old[start : len(old) - end], new[start : len(new) - end]


class ServicePorts(Generic[R]):
    """The ports of all services that kube-proxy of one family handles, by service, for what one proxy mode
    `write`s."""

    def __init__(self, write: Write[R], kind: Family) -> None:
        self.entries: dict[Name, Entry[R]] = {}
        self._write = write
        self._family = kind
        self._services: Sequence[Service] = ()
        self._slices: Sequence[EndpointSlice] = ()
        self._service_of: dict[Name, Service] = {}
        self._slices_of: dict[Name, list[EndpointSlice]] = {}
        self._udp: dict[Name, Entry[R]] = {}
        self._checked: dict[Name, Entry[R]] = {}

    def update(self, services: Sequence[Service], slices: Sequence[EndpointSlice]) -> set[Name]:
        """Take in what there is now; returns the services whose entry is another than before, or gone."""
        touched: set[Name] = set()
        gone, come = differing(self._services, services)
        for service in gone:
            self._service_of.pop(_name(service), None)
            touched.add(_name(service))
        for service in come:
            if not kubeproxy.proxied(service, self._family):
                continue
            self._service_of[_name(service)] = service
            touched.add(_name(service))
        lost, found = differing(self._slices, slices)
        for piece in filter(self._served, lost):
            name = _service_of(piece)
            self._slices_of[name] = [one for one in self._slices_of[name] if one is not piece]
            touched.add(name)
        for piece in filter(self._served, found):
            name = _service_of(piece)
            self._slices_of.setdefault(name, []).append(piece)
            touched.add(name)
        self._services, self._slices = services, slices
        return {name for name in touched if self._renewed(name)}

    def _served(self, piece: EndpointSlice) -> bool:
        return watched(piece, self._family) and bool(piece.metadata.labels.get(SERVICE_LABEL))

    def _renewed(self, name: Name) -> bool:
        """Bring one entry up to date; whether that took anything."""
        last, service = self.entries.get(name), self._service_of.get(name)
        slices = sorted(self._slices_of.pop(name, ()), key=lambda piece: piece.metadata.name)
        if slices:
            self._slices_of[name] = slices
        if service is None:
            for held in (self.entries, self._udp, self._checked):
                held.pop(name, None)
            return last is not None
        if last and last.made_of(service, slices):
            return False
        entry = self.entries[name] = Entry(service, slices, self._write, self._family, last)
        for held, wanted in (
            (self._udp, any(port.front.protocol == "udp" for port in entry.ports)),
            (self._checked, any(port.front.health_check_port for port in entry.ports)),
        ):
            held.pop(name, None)
            if wanted:
                held[name] = entry
        return True

    def health_checks(self, nodes: Sequence[NodeProxy]) -> dict[str, tuple[HealthCheck, ...]]:
        """What every node says to load balancers that ask whether it has endpoints of a service."""
        found: dict[str, list[HealthCheck]] = {node.name: [] for node in nodes}
        for (namespace, name), entry in sorted(self._checked.items(), key=operator.itemgetter(0)):
            port = next(p.front.health_check_port for p in entry.ports if p.front.health_check_port)
            ready = {(e.node, e.ip) for p in entry.ports for e in p.endpoints if e.ready}
            counted = Counter(node for node, _ in ready)
            for node in nodes:
                found[node.name].append(HealthCheck(namespace, name, port, counted[node.name]))
        return {node: tuple(checks) for node, checks in found.items()}

    def udp_frontends(self) -> dict[tuple[str, int], frozenset[tuple[str, int]]]:
        """Where UDP services are reached, (address, port) with the unspecified address for any of a node,
        and their backends that still serve: whatever else a connection tracking entry for one of them says
        is stale (pkg/proxy/conntrack cleanup.go)."""
        found: dict[tuple[str, int], frozenset[tuple[str, int]]] = {}
        for port in (port for entry in self._udp.values() for port in entry.ports):
            front = port.front
            if front.protocol == "udp":
                backends = frozenset((e.ip, e.port) for e in port.endpoints if e.serving)
                for address in (front.cluster_ip, *front.external_ips, *front.load_balancer_ips):
                    found[address, front.port] = backends
                if front.node_port:
                    found[ANYWHERE[self._family], front.node_port] = backends
        return found


def _name(service: Service) -> Name:
    return service.metadata.namespace, service.metadata.name


def _service_of(piece: EndpointSlice) -> Name:
    return piece.metadata.namespace, piece.metadata.labels[SERVICE_LABEL]


class Entry(Generic[R]):
    """A service with its slices, and what came of them."""

    def __init__(
        self,
        service: Service,
        slices: Sequence[EndpointSlice],
        write: Write[R],
        kind: Family,
        last: Entry[R] | None,
    ) -> None:
        self._service = service
        self._slices = slices
        known = {chain: chain for port in last.ports for chain in port.chains()} if last else {}
        found = collect(slices)
        self.ports: tuple[Port[R], ...] = tuple(
            Port(
                kubeproxy.frontend(service, port, kind),
                found.get((port.name, port.protocol), ()),
                write,
                known,
            )
            for port in service.spec.ports
        )

    def made_of(self, service: Service, slices: Sequence[EndpointSlice]) -> bool:
        """Whether it came from these very objects."""
        return (
            self._service is service
            and len(self._slices) == len(slices)
            and all(mine is theirs for mine, theirs in zip(self._slices, slices, strict=True))
        )


class Port(Generic[R]):
    """One service port with its endpoints, and its rules on the kinds of node there are. `alike`: all nodes
    use the same endpoints (their rules may still differ in how pods are told from others); `hinted`: which
    ones depends on the zones of the nodes."""

    def __init__(
        self, front: Frontend, endpoints: Sequence[ProxyEndpoint], write: Write[R], known: Known
    ) -> None:
        self.front = front
        self.endpoints = endpoints
        self.hinted = front.cluster_policy and any(endpoint.hinted for endpoint in endpoints)
        self.alike = not (self.hinted or front.local_policy or front.firewalled)
        self._write = write
        self._known = known
        self._rules: dict[_Kind, R] = {}

    def rules(self, node: NodeProxy, zone: str, *, comments: bool = True) -> R:
        """What is written for it on `node`, which is in `zone`; the same object for nodes of one kind."""
        front = self.front
        kind: _Kind = (), (), node.local, False, comments
        if self.alike and kind in self._rules:
            return self._rules[kind]
        choice = choose(
            *(self.endpoints, node.name, zone),
            cluster_policy=front.cluster_policy,
            local_policy=front.local_policy,
        )
        accepted = front.firewalled and node.accepts(front.source_ranges)
        kind = choice.cluster if self.hinted else (), choice.local, node.local, accepted, comments
        if kind not in self._rules:
            self._rules[kind] = self._write(front, choice, node, comments).keeping(self._known)
        return self._rules[kind]

    def chains(self) -> list[Any]:
        """All chains written so far."""
        return [chain for rules in self._rules.values() for chain in rules.chains]
