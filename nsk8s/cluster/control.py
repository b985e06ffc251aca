"""Runs the controllers until nobody has anything more to do.

A controller says which objects a change concerns (`touched`) and brings one of them in order (`sync`). Each
has a work queue of keys without duplicates, in order of arrival, as client-go's; but here everything happens
in one thread, in a fixed order, so that the same requests always lead to the same objects. Controllers
that stand first are served first: endpoints, last, see pods only after all others are done with them, and
write each slice once however many pods became ready.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import Protocol

from nsk8s.api.topology import Topology
from nsk8s.cluster import rbac_defaults
from nsk8s.cluster.aggregation import Aggregation
from nsk8s.cluster.cronjobs import CronJobs
from nsk8s.cluster.daemonsets import DaemonSets
from nsk8s.cluster.definitions import DefinitionsController
from nsk8s.cluster.deployments import Deployments
from nsk8s.cluster.disruption import Disruption
from nsk8s.cluster.endpoints import EndpointsController
from nsk8s.cluster.events import Expiry
from nsk8s.cluster.garbage import Garbage
from nsk8s.cluster.jobs import Jobs
from nsk8s.cluster.namespaces import Namespaces
from nsk8s.cluster.nodehealth import NodeHealth
from nsk8s.cluster.nodes import Nodes
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.replicasets import REPLICATION_CONTROLLERS, ReplicaSets
from nsk8s.cluster.scheduler import Scheduler
from nsk8s.cluster.serviceaccounts import ServiceAccounts
from nsk8s.cluster.statefulsets import StatefulSets
from nsk8s.cluster.store import Change, Cursor, Key, Store, key_of
from nsk8s.cluster.taints import Taints
from nsk8s.errors import NsK8sError

PATIENCE = 200
"""How often one object may be synced within one settle before it is clear that it never ends."""


class Controller(Protocol):
    """One concern of the control plane. Its own memory, if any, must be derivable from the changes it was
    shown: it is thrown away and rebuilt whenever changes were missed or rolled back."""

    @property
    def informers(self) -> frozenset[str] | None:
        """The resources of which it is shown changes; None for all."""

    def touched(self, change: Change) -> Iterable[Key]:
        """The objects to sync because of `change`. Called for every change that it is shown, in order."""

    def sync(self, key: Key, now: float) -> float | None:
        """Bring `key`, which may be gone by now, in order. Returns when (in seconds, the clock of `now`)
        it must be looked at again even if nothing changes."""


class Control:
    """All controllers over one store. `system` goes into each Node's status.nodeInfo (``architecture``,
    ``kernelVersion``, ...)."""

    def __init__(
        self, store: Store, registry: Registry, topology: Topology, system: Mapping[str, str] | None = None
    ) -> None:
        self._store = store
        self._registry = registry
        self._topology = topology
        self._system = dict(system or {})
        self._root_ca = ""
        self._cursor = Cursor(store)
        self._controllers: tuple[Controller, ...] = ()
        self._queues: list[dict[Key, None]] = []
        self._listeners: dict[str, list[tuple[int, Controller]]] = {}
        self._due: list[tuple[float, int, Key]] = []
        self._alarm: dict[tuple[int, Key], float] = {}

    def trust(self, root_ca: str) -> None:
        """Publish the certificate (PEM) by which pods know the API server in every namespace, from the
        next settle on."""
        self._root_ca = root_ca
        for controller, queue in zip(self._controllers, self._queues, strict=True):
            if isinstance(controller, ServiceAccounts):
                controller.root_ca = root_ca
                queue.update(dict.fromkeys(key_of("namespaces", n) for n in self._store.list("namespaces")))

    def settle(self, now: float) -> None:
        """Run until nothing is pending; `now` in seconds. Raises `NsK8sError` if that never happens, which
        means that two controllers want opposite things."""
        while self._due and self._due[0][0] <= now:
            at, index, key = heapq.heappop(self._due)
            if self._alarm.get((index, key)) == at:
                del self._alarm[(index, key)]
                self._queues[index][key] = None
        try:
            self._run(now)
        except NsK8sError:
            self._cursor = Cursor(self._store)  # what was queued is lost: begin anew the next time
            raise

    def _run(self, now: float) -> None:
        syncs: dict[tuple[int, Key], int] = {}
        while True:
            self._listen()
            index = next((i for i, queue in enumerate(self._queues) if queue), None)
            if index is None:
                return
            batch, self._queues[index] = self._queues[index], {}
            controller = self._controllers[index]
            for key in batch:
                count = syncs[(index, key)] = syncs.get((index, key), 0) + 1
                if count > PATIENCE:
                    raise NsK8sError(
                        f"internal error: {type(controller).__name__} has synced {key.resource} "
                        f"{key.namespace}/{key.name} {PATIENCE} times and still finds something to change",
                        hint="two controllers want opposite things; please report this with the manifest",
                    )
                self._again(index, key, controller.sync(key, now))

    def wake(self) -> float | None:
        """When (seconds, the clock of `now`) a settle is due without any change; None: never."""
        while self._due and self._alarm.get(self._due[0][1:]) != self._due[0][0]:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def _again(self, index: int, key: Key, at: float | None) -> None:
        if at is None:
            self._alarm.pop((index, key), None)
        elif self._alarm.get((index, key)) != at:
            self._alarm[(index, key)] = at
            heapq.heappush(self._due, (at, index, key))

    def _listen(self) -> None:
        changes = self._cursor.read()
        if changes is None:
            self._start()
            changes = [
                Change("ADDED", key_of(resource, obj), self._store.revision, None, obj)
                for resource in self._store.resources()
                for obj in self._store.list(resource)
            ]
        queues, listeners = self._queues, self._listeners
        for change in changes:
            resource = change.key.resource
            for index, controller in listeners.get(resource) or self._interested(resource):
                for key in controller.touched(change):
                    queues[index][key] = None

    def _interested(self, resource: str) -> list[tuple[int, Controller]]:
        """Who is shown changes of a resource."""
        found = self._listeners[resource] = [
            (index, controller)
            for index, controller in enumerate(self._controllers)
            if controller.informers is None or resource in controller.informers
        ]
        return found

    def _start(self) -> None:
        """Controllers without memories, and what must be there before any of them."""
        store, registry = self._store, self._registry
        nodes = Nodes(store, self._topology, self._system)
        namespaces = Namespaces(store, registry)
        namespaces.bootstrap()
        rbac_defaults.bootstrap(store)
        nodes.bootstrap()
        endpoints = EndpointsController(store, self._topology)
        endpoints.bootstrap()
        self._controllers = (
            DefinitionsController(store, registry.definitions),
            namespaces,
            Aggregation(store),
            ServiceAccounts(store, self._root_ca),
            nodes,
            NodeHealth(store),
            Taints(store, registry),
            Garbage(store, registry),
            ReplicaSets(store, registry),
            ReplicaSets(store, registry, REPLICATION_CONTROLLERS),
            Deployments(store, registry),
            DaemonSets(store, registry),
            StatefulSets(store, registry),
            CronJobs(store, registry),
            Jobs(store, registry),
            Scheduler(store, self._topology),
            endpoints,
            Disruption(store),
            Expiry(store),
        )
        self._queues = [{} for _ in self._controllers]
        self._listeners = {}
        self._due, self._alarm = [], {}
        self._cursor.read()
