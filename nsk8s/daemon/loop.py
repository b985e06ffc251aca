"""What the control plane decides: events in, commands and a desired network out; no I/O.

One `turn` runs the controllers and the kubelet until neither has anything more to say, and commits the
store. `desired` compiles the network that the objects now ask for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress

import msgspec

from nsk8s.api.policytypes import ClusterNetworkPolicy, NetworkPolicy
from nsk8s.api.topology import Topology
from nsk8s.api.types import ZONE, EndpointSlice, Namespace, Node, Pod, Service
from nsk8s.cluster.control import Control
from nsk8s.cluster.heartbeats import beat
from nsk8s.cluster.ipam import Ipam
from nsk8s.cluster.kubelet import Kubelet
from nsk8s.cluster.lifecycle import Command, Event
from nsk8s.cluster.policy import CLUSTER_POLICIES, POLICIES
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.store import Change, Store, key_of
from nsk8s.dataplane.compiler import ClusterView, Compiler, Own
from nsk8s.dataplane.proxyports import Listener
from nsk8s.linux.values import NamespaceState


class Loop:
    """The decisions of one cluster with one topology. After a restart, or when the topology has
    changed, a new Loop over the same store `adopt`s what runs. `system` is what the nodes say of the machine
    they stand on (see `Control`)."""

    def __init__(self, store: Store, topology: Topology, system: Mapping[str, str] | None = None) -> None:
        self.store = store
        self.topology = topology
        self.registry = Registry(store, topology)
        self.control = Control(store, self.registry, topology, system)
        self.kubelet = Kubelet(store, topology, Ipam(topology, self.pods()))
        self.own = Own.of(topology)
        self._compiler = Compiler(topology)

    def pods(self) -> list[Pod]:
        """All pods."""
        return [v for v in self.store.views("pods") if isinstance(v, Pod)]

    def adopt(
        self, sandboxes: Set[str], containers: Mapping[tuple[str, str], str], now: float
    ) -> list[Command]:
        """Take over what already runs: pod UIDs with a sandbox, and container ids by (pod UID, name)."""
        return self.kubelet.adopt(sandboxes, containers, now)

    def turn(self, now: float, events: Iterable[Event] = ()) -> tuple[list[Command], Sequence[Change]]:
        """Take in `events`, let everybody finish, commit; `now` in seconds. Returns what to do and what
        changed."""
        commands: list[Command] = []
        for event in events:
            commands += self.kubelet.handle(event, now)
        while True:
            before = self.store.revision
            self.control.settle(now)
            commands += self.kubelet.sync(now)
            if self.store.revision == before:
                break
        return commands, self.store.commit()

    def alive(self) -> None:
        """Somebody has looked at the nodes, and they are well."""
        beat(self.store, (node.name for node in self.topology.nodes))

    def wake(self) -> float | None:
        """When (seconds, the clock of `now`) a turn is due without any event; None: never."""
        times = [t for t in (self.control.wake(), self.kubelet.wake()) if t is not None]
        return min(times, default=None)

    def udp_frontends(self) -> dict[tuple[str, int], frozenset[tuple[str, int]]]:
        """The backends of every UDP frontend, as of the last `desired`."""
        return self._compiler.udp_frontends()

    def proxy_listeners(self) -> dict[str, tuple[Listener, ...]]:
        """Where kube-proxy itself listens on each node, as of the last `desired`."""
        return self._compiler.proxy_listeners()

    def desired(self) -> dict[str, NamespaceState]:
        """Every namespace's whole desired state. Unchanged namespaces are the identical value."""
        services = [v for v in self.store.views("services") if isinstance(v, Service)]
        slices = [
            v for v in self.store.views("endpointslices.discovery.k8s.io") if isinstance(v, EndpointSlice)
        ]
        view = ClusterView(
            self.kubelet.wanted(),
            services,
            slices,
            self._zones(),
            [v for v in self.store.views(POLICIES) if isinstance(v, NetworkPolicy)],
            self.cluster_policies(),
            {
                v.metadata.name: v.metadata.labels
                for v in self.store.views("namespaces")
                if isinstance(v, Namespace)
            },
        )
        return self._compiler.compile(view)

    def cluster_policies(self) -> list[ClusterNetworkPolicy]:
        """The ClusterNetworkPolicies, but for those that cannot be read: whoever defines the kind anew may
        allow what is none."""
        found = []
        for obj in self.store.list(CLUSTER_POLICIES):
            with suppress(msgspec.ValidationError):
                policy = self.store.view(key_of(CLUSTER_POLICIES, obj))
                assert isinstance(policy, ClusterNetworkPolicy)
                found.append(policy)
        return found

    def _zones(self) -> dict[str, str]:
        nodes = [v for v in self.store.views("nodes") if isinstance(v, Node)]
        return {v.metadata.name: v.metadata.labels[ZONE] for v in nodes if ZONE in v.metadata.labels}
