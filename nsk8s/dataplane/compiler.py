"""A cluster, compiled: the whole desired state of every namespace.

    Compiler(topology).compile(view) == {"fabric": …, <nodes>, <clients>, <pods>, "": … with hostAccess}

Pure, and quick the second time: what does not depend on pods or services is made once, and a state or
rule set that nothing has changed is the same object as last time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from nsk8s.api.topology import NodeTopology, Topology
from nsk8s.api.types import EndpointSlice, Pod, Service
from nsk8s.dataplane import fabric, flannel, kubelet, node
from nsk8s.dataplane.fabric import FABRIC, Underlay
from nsk8s.dataplane.nftproxy import TABLES
from nsk8s.dataplane.pod import Shape, Subnet, Wiring, pod_namespace, shape, wire
from nsk8s.dataplane.proxyoptions import node_proxy
from nsk8s.dataplane.proxyports import Listener, listeners
from nsk8s.dataplane.services import ProxyRules, service_rules
from nsk8s.linux.nftables import Key
from nsk8s.linux.values import NamespaceState, Ruleset

__all__ = ["FABRIC", "OWN_CHAINS", "OWN_TABLES", "ClusterView", "Compiler", "Own", "pod_namespace"]

OWN_CHAINS = ("KUBE-", "FLANNEL-", "CNI-")
"""Prefixes of the iptables chains that belong to the cluster; all others are somebody else's."""

OWN_TABLES: Collection[Key] = TABLES
"""The tables of nft(8) that belong to the cluster in its namespaces, whether it wants them or not; all others
are somebody else's."""


class Own(NamedTuple):
    """The rules that belong to the cluster, whether it wants them or not: prefixes of iptables chains, and
    tables of nft(8). All others are somebody else's."""

    chains: tuple[str, ...] = OWN_CHAINS
    tables: Collection[Key] = OWN_TABLES

    @staticmethod
    def of(topology: Topology) -> Own:
        """What is the cluster's own; nothing that kube-proxy writes if the user brings his own."""
        if topology.proxy_mode != "none":
            return EVERYTHING
        chains = tuple(prefix for prefix in OWN_CHAINS if prefix != "KUBE-")
        return Own((*chains, *kubelet.NAMES), frozenset(OWN_TABLES) - frozenset(TABLES))


EVERYTHING = Own()
"""All that a cluster ever writes."""

CROWD = 256
"""With more talking pairs of neighbours than this, neighbour entries are permanent: the kernel has one
table for all namespaces (net.ipv4.neigh.default.gc_thresh3, 1024), and permanent entries do not count.
Below it ARP can be seen at work."""


@dataclass(frozen=True, slots=True)
class ClusterView:
    """What the cluster's state says about the network: `pods` are those whose sandbox is wanted, each
    with spec.nodeName and status.podIP; `zones` has the zone of each node that is in one."""

    pods: Sequence[Pod] = ()
    services: Sequence[Service] = ()
    slices: Sequence[EndpointSlice] = ()
    zones: Mapping[str, str] = field(default_factory=dict)


class Compiler:
    """Compiles views of the cluster that `topology` describes."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        underlay = Underlay.of(topology.node_cidr)
        remotes = [flannel.remote(each) for each in topology.nodes]
        self._fabric = fabric.fabric(topology)
        self._clients = [fabric.client(each, underlay) for each in topology.clients]
        self._host = [fabric.host(topology)] if topology.host_access else []
        self._nodes = {each.name: _Node(each, topology, remotes, underlay) for each in topology.nodes}
        self._services = service_rules(topology, [each.proxy for each in self._nodes.values()])
        self._pods: dict[str, tuple[Pod, Shape, Wiring]] = {}

    def compile(self, view: ClusterView) -> dict[str, NamespaceState]:
        """The desired state of every namespace by name: fabric, nodes, clients, pods, host.

        A hostNetwork pod has no namespace of its own here.
        """
        pods = [pod for pod in view.pods if not pod.spec.hostNetwork]
        crowded = len(pods) + len(self._nodes) * (len(self._nodes) - 1) > CROWD
        self._pods = {
            pod_namespace(p.metadata.namespace, p.metadata.name): self._wired(p, crowded) for p in pods
        }
        placed: dict[str, list[Wiring]] = {name: [] for name in self._nodes}
        for pod, _, wiring in self._pods.values():
            placed[pod.spec.nodeName].append(wiring)
        rules = self._services.rules(view.services, view.slices, view.zones)
        states = {FABRIC: self._fabric}
        for name, each in self._nodes.items():
            states[name] = each.state(tuple(placed[name]), rules[name], crowded=crowded)
        for outside in self._clients:
            states[outside.name] = outside
        for name, (_, _, wiring) in self._pods.items():
            states[name] = wiring.state
        for host in self._host:
            states[host.name] = host
        return states

    def udp_frontends(self) -> dict[tuple[str, int], frozenset[tuple[str, int]]]:
        """The UDP frontends of the view compiled last, (address, port) or (0.0.0.0, nodePort), each with its
        serving backends; when they change, connection tracking entries of other backends are stale."""
        return self._services.udp_frontends()

    def proxy_listeners(self) -> dict[str, tuple[Listener, ...]]:
        """Where kube-proxy itself listens on each node, and what it tells there, after the view compiled
        last; nowhere where there is none."""
        if self._topology.proxy_mode == "none":
            return {}
        checks = self._services.health_checks()
        mode = self._topology.proxy_mode
        return {name: listeners(each.proxy, mode, checks[name]) for name, each in self._nodes.items()}

    def _wired(self, pod: Pod, crowded: bool) -> tuple[Pod, Shape, Wiring]:
        last = self._pods.get(pod_namespace(pod.metadata.namespace, pod.metadata.name))
        if last and last[0] is pod and last[1].crowded is crowded:
            return last
        form = shape(pod, crowded=crowded)
        if last and last[1] == form:
            return pod, form, last[2]
        subnet = self._nodes[form.node].subnet
        return pod, form, wire(pod, form, subnet, self._topology.pod_cidr)


class _Node:
    """One node, and what was last compiled for it."""

    def __init__(
        self,
        topology: NodeTopology,
        cluster: Topology,
        remotes: Sequence[flannel.Remote],
        underlay: Underlay,
    ) -> None:
        self.subnet = Subnet.of(topology)
        self.proxy = node_proxy(cluster, topology, node.addresses(topology))
        self._empty = node.base(topology, remotes, underlay, self.proxy)
        self._rules = node.NodeRules(topology, cluster.pod_cidr)
        self._others = [other for other in cluster.nodes if other.name != topology.name]
        self._last: tuple[tuple[Wiring, ...], ProxyRules, bool] | None = None
        self._state = self._empty
        self._ruleset: tuple[tuple[object, ...], Ruleset] | None = None

    def state(self, pods: tuple[Wiring, ...], rules: ProxyRules, *, crowded: bool) -> NamespaceState:
        """The node's state with these pods (in any fixed order) and kube-proxy's rules."""
        last = self._last
        if last is None or last[1] is not rules or (last[0], last[2]) != (pods, crowded):
            ports = tuple(wired.ports for wired in pods if wired.ports is not None)
            if self._ruleset is None or self._ruleset[0] != (rules.iptables, ports):
                made = self._rules.with_services(rules.iptables, ports)
                self._ruleset = (rules.iptables, ports), made
            neighbours = node.underlay_neighbours(self._others) if crowded else frozenset()
            self._state = node.populated(self._empty, pods, neighbours, self._ruleset[1], rules.nft)
            self._last = (pods, rules, crowded)
        return self._state
