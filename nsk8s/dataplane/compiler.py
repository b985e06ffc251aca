"""A cluster, compiled: the whole desired state of every namespace.

    Compiler(topology).compile(view) == {"fabric": …, <nodes>, <clients>, <pods>, "": … with hostAccess}

Pure, and quick the second time: what does not depend on pods or services is made once, and a state or
rule set that nothing has changed is the same object as last time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct, field

from nsk8s.api.families import Family
from nsk8s.api.policytypes import ClusterNetworkPolicy, NetworkPolicy
from nsk8s.api.topology import NodeTopology, Topology
from nsk8s.api.types import EndpointSlice, Labels, Pod, Service
from nsk8s.dataplane import fabric, flannel, kubelet, node, policy
from nsk8s.dataplane.fabric import FABRIC, Underlay
from nsk8s.dataplane.nftproxy import TABLES
from nsk8s.dataplane.pod import Shape, Wiring, pod_namespace, shape, subnets, wire
from nsk8s.dataplane.proxyoptions import node_proxy
from nsk8s.dataplane.proxyports import Listener, listeners
from nsk8s.dataplane.services import ProxyRules, service_rules
from nsk8s.linux import nftables
from nsk8s.linux.nftables import EMPTY, Key
from nsk8s.linux.values import NamespaceState, Ruleset

__all__ = ["FABRIC", "OWN_CHAINS", "OWN_TABLES", "ClusterView", "Compiler", "Own", "pod_namespace"]

OWN_CHAINS = ("KUBE-", "FLANNEL-", "CNI-")
"""Prefixes of the iptables chains that belong to the cluster; all others are somebody else's."""

OWN_TABLES: Collection[Key] = frozenset((*TABLES, policy.TABLE))
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


class ClusterView(Struct, frozen=True):
    """What the cluster's state says about the network: `pods` are those whose sandbox is wanted, each
    with spec.nodeName and status.podIPs; `zones` has the zone of each node that is in one, `namespaces` the
    labels of each."""

    pods: Sequence[Pod] = ()
    services: Sequence[Service] = ()
    slices: Sequence[EndpointSlice] = ()
    zones: Mapping[str, str] = field(default_factory=dict)
    policies: Sequence[NetworkPolicy] = ()
    cluster_policies: Sequence[ClusterNetworkPolicy] = ()
    namespaces: Mapping[str, Labels] = field(default_factory=dict)


class Compiler:
    """Compiles views of the cluster that `topology` describes."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        nets = fabric.underlays(topology)
        remotes = [flannel.remote(vtep) for each in topology.nodes for vtep in flannel.vteps(each)]
        self._fabric = fabric.fabric(topology)
        self._clients = [fabric.client(each, nets) for each in topology.clients]
        self._host = [fabric.host(topology)] if topology.host_access else []
        self._nodes = {each.name: _Node(each, topology, remotes, nets) for each in topology.nodes}
        self._services = {
            kind: service_rules(topology, kind, [each.proxies[kind] for each in self._nodes.values()])
            for kind in topology.families
        }
        self._policies = policy.PolicyRules(tuple(self._nodes), topology.families)
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
        rules = {
            kind: each.rules(view.services, view.slices, view.zones) for kind, each in self._services.items()
        }
        guards = self._policies.tables(view.policies, view.cluster_policies, view.namespaces, pods)
        states = {FABRIC: self._fabric}
        for name, each in self._nodes.items():
            of_node = {kind: of_family[name] for kind, of_family in rules.items()}
            state = each.state(tuple(placed[name]), of_node, crowded=crowded)
            states[name] = each.guarded(state, guards[name])
        for outside in self._clients:
            states[outside.name] = outside
        for name, (_, _, wiring) in self._pods.items():
            states[name] = wiring.state
        for host in self._host:
            states[host.name] = host
        return states

    def udp_frontends(self) -> dict[tuple[str, int], frozenset[tuple[str, int]]]:
        """The UDP frontends of the view compiled last, (address, port) or (0.0.0.0 or ::, nodePort), each
        with its serving backends; when they change, connection tracking entries of other backends are
        stale."""
        return {
            frontend: backends
            for each in self._services.values()
            for frontend, backends in each.udp_frontends().items()
        }

    def proxy_listeners(self) -> dict[str, tuple[Listener, ...]]:
        """Where kube-proxy itself listens on each node, and what it tells there, after the view compiled
        last; nowhere where there is none."""
        if self._topology.proxy_mode == "none":
            return {}
        mode = self._topology.proxy_mode
        checks = {kind: each.health_checks() for kind, each in self._services.items()}
        return {
            name: listeners([(each.proxies[kind], told[name]) for kind, told in checks.items()], mode)
            for name, each in self._nodes.items()
        }

    def _wired(self, pod: Pod, crowded: bool) -> tuple[Pod, Shape, Wiring]:
        last = self._pods.get(pod_namespace(pod.metadata.namespace, pod.metadata.name))
        if last and last[0] is pod and last[1].crowded is crowded:
            return last
        form = shape(pod, crowded=crowded)
        if last and last[1] == form:
            return pod, form, last[2]
        return pod, form, wire(pod, form, self._nodes[form.node].subnets)


class _Node:
    """One node, and what was last compiled for it."""

    def __init__(
        self,
        topology: NodeTopology,
        cluster: Topology,
        remotes: Sequence[flannel.Remote],
        nets: Sequence[Underlay],
    ) -> None:
        self.subnets = subnets(topology, cluster.pod_cidrs)
        self.proxies = {
            kind: node_proxy(cluster, topology, kind, node.addresses(topology, kind))
            for kind in cluster.families
        }
        self._empty = node.base(topology, remotes, nets, self.subnets, tuple(self.proxies.values()))
        self._rules = {net.family: node.NodeRules(net) for net in self.subnets}
        self._others = [other for other in cluster.nodes if other.name != topology.name]
        self._last: tuple[tuple[Wiring, ...], Mapping[Family, ProxyRules], bool] | None = None
        self._state = self._empty
        self._rulesets: dict[Family, tuple[tuple[object, ...], Ruleset]] = {}
        self._guarded = (self._empty, EMPTY, self._empty)

    def state(
        self, pods: tuple[Wiring, ...], rules: Mapping[Family, ProxyRules], *, crowded: bool
    ) -> NamespaceState:
        """The node's state with these pods (in any fixed order) and kube-proxy's rules of each family."""
        last = self._last
        same = last is not None and all(last[1][kind] is each for kind, each in rules.items())
        if not same or last is None or (last[0], last[2]) != (pods, crowded):
            rulesets = {kind: self._ruleset(kind, each, pods) for kind, each in rules.items()}
            neighbours = node.underlay_neighbours(self._others) if crowded else frozenset()
            tables = nftables.tables(*(table for each in rules.values() for table in each.nft.values()))
            self._state = node.populated(self._empty, pods, neighbours, rulesets, tables)
            self._last = (pods, rules, crowded)
        return self._state

    def _ruleset(self, kind: Family, rules: ProxyRules, pods: Sequence[Wiring]) -> Ruleset:
        ports = tuple(wired.ports[kind] for wired in pods if kind in wired.ports)
        if kind not in self._rulesets or self._rulesets[kind][0] != (rules.iptables, ports):
            made = self._rules[kind].with_services(rules.iptables, ports)
            self._rulesets[kind] = (rules.iptables, ports), made
        return self._rulesets[kind][1]

    def guarded(self, state: NamespaceState, tables: nftables.Tables) -> NamespaceState:
        """The node's `state` with the tables of its network policies."""
        if self._guarded[0] is not state or self._guarded[1] is not tables:
            held = MappingProxyType({**state.nft, **tables}) if tables else state.nft
            self._guarded = state, tables, replace(state, nft=held) if tables else state
        return self._guarded[2]
