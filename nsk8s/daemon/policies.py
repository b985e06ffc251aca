"""What the control plane answers about network policies: verdicts on connections, and tables of them.

The names of the command line become the ends of connections here, where the objects are; what the policies
mean is `nsk8s.cluster.policy`'s word.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from typing import Any

from nsk8s.api.families import family
from nsk8s.api.policytypes import NetworkPolicy
from nsk8s.api.types import ContainerPort, EndpointSlice, Namespace, Obj, Pod, Service
from nsk8s.cluster.policy import (
    CLUSTER_POLICIES,
    POLICIES,
    Decision,
    Party,
    World,
    decide,
    pod_party,
)
from nsk8s.daemon.loop import Loop
from nsk8s.dataplane.compiler import pod_namespace
from nsk8s.dataplane.flannel import vteps
from nsk8s.errors import ApiError, KernelError
from nsk8s.kernel.machine import Machine

MOST_PODS = 200
"""Pods that a table can have: every pair of them is decided, in the control plane's own time."""
SOME_PORT = 80
SERVICE = "kubernetes.io/service-name"


class PolicyAnswers:
    """Answers for one cluster, by the objects of its present `loop`."""

    def __init__(self, loop: Callable[[], Loop], machine: Machine) -> None:
        self._loop = loop
        self._machine = machine

    async def verdict(self, query: Obj) -> Obj:
        """`GET /nsk8s/v1/policy/verdict`: whether ``from`` may connect to ``to`` on ``port`` (a number, or a
        name) by ``protocol``; names without a namespace are in ``namespace``. A Service has a verdict for
        each of its endpoints. Raises `ApiError` 400 and 404."""
        namespace, protocol = query.get("namespace") or "default", (query.get("protocol") or "TCP").upper()
        world = self._world()
        source = self._party(str(query.get("from", "")), namespace)
        word, port = str(query.get("to", "")), str(query.get("port") or "")
        service = self._service(word, namespace)
        if service is not None:
            targets, note = self._endpoints(service, port, protocol)
        else:
            target = self._party(word, namespace)
            targets, note = [(target, _number(port, target, protocol))], ""
        found = []
        for target, number in targets:
            seen = self._seen(source, target)
            said = decide(world, seen, target, protocol, number, through_service=service is not None)
            found.append(
                {
                    "allowed": said.allowed,
                    "source": {"name": seen.name, "address": seen.address},
                    "target": {"name": target.name, "address": target.address},
                    "protocol": protocol,
                    "port": number,
                    "egress": self._decision(said.egress),
                    "ingress": self._decision(said.ingress),
                    "by": said.by.direction.lower(),
                }
            )
        return {"verdicts": found, "note": note}

    async def matrix(self, query: Obj) -> Obj:
        """`GET /nsk8s/v1/policy/matrix`: the pods of a ``namespace`` (empty: of all), and for every pair of
        them whether the first may connect to the second, on ``port`` or the second's first port of the
        ``protocol``. Raises `ApiError` 400."""
        namespace, protocol = query.get("namespace") or "", (query.get("protocol") or "TCP").upper()
        world = self._world()
        pods = [
            pod
            for pod in world.pods
            if pod.status.podIP and (not namespace or pod.metadata.namespace == namespace)
        ]
        if len(pods) > MOST_PODS:
            why = f"{len(pods)} pods are too many for one table (at most {MOST_PODS}); choose a namespace"
            raise ApiError(400, "BadRequest", why)
        parties = [pod_party(pod) for pod in pods]
        ports = [_number(str(query.get("port") or ""), party, protocol) for party in parties]
        cells = [
            [
                decide(world, self._seen(source, target), target, protocol, port).allowed
                for target, port in zip(parties, ports, strict=True)
            ]
            for source in parties
        ]
        rows = [self._row(pod, port) for pod, port in zip(pods, ports, strict=True)]
        return {"protocol": protocol, "pods": rows, "allowed": cells}

    def _row(self, pod: Pod, port: int) -> Obj:
        meta = pod.metadata
        try:
            pid = self._machine.pid(pod_namespace(meta.namespace, meta.name))
        except KernelError:
            pid = 0
        return {
            "namespace": meta.namespace,
            "name": meta.name,
            "node": pod.spec.nodeName,
            "address": pod.status.podIP,
            "port": port,
            "pid": pid,
        }

    # --- the objects ----------------------------------------------------------------------------------

    def _world(self) -> World:
        loop = self._loop()
        store = loop.store
        return World(
            {
                v.metadata.name: v.metadata.labels
                for v in store.views("namespaces")
                if isinstance(v, Namespace)
            },
            [pod for pod in loop.pods() if not pod.terminal],
            [v for v in store.views(POLICIES) if isinstance(v, NetworkPolicy)],
            loop.cluster_policies(),
        )

    def _decision(self, said: Decision) -> Obj:
        found: Obj = {"allowed": said.allowed, "why": said.why}
        if said.policy is None:
            return found
        meta = said.policy.metadata
        resource = POLICIES if meta.namespace else CLUSTER_POLICIES
        obj = self._loop().store.find(resource, meta.namespace, meta.name)
        policy = {"kind": obj["kind"], "name": meta.name}
        found["policy"] = policy | ({"namespace": meta.namespace} if meta.namespace else {})
        if said.path:
            found |= {"path": said.path, "peer": said.peer, "rule": _at(obj, said.path)}
        return found

    # --- who is meant ---------------------------------------------------------------------------------

    def _party(self, word: str, namespace: str) -> Party:
        """A pod (``NAME``, ``NAMESPACE/NAME``, ``pod/NAME``), ``node/NAME``, ``client/NAME``, the name of a
        client, or an address."""
        loop = self._loop()
        kind, slash, name = word.partition("/")
        if _is_address(word):
            return self._owner(word)
        nodes = {node.name: node.addresses[0] for node in loop.topology.nodes}
        clients = {client.name: client.addresses[0] for client in loop.topology.clients}
        if slash and kind in ("node", "nodes", "no") and name in nodes:
            return Party(f"node {name}", nodes[name], name)
        if slash and kind in ("client", "clients") and name in clients:
            return Party(f"client {name}", clients[name])
        place = (namespace, name if slash and kind in ("pod", "pods", "po") else word)
        if slash and kind not in ("pod", "pods", "po"):
            place = (kind, name)
        for pod in loop.pods():
            if (pod.metadata.namespace, pod.metadata.name) == place:
                return pod_party(pod)
        if not slash and word in clients:
            return Party(f"client {word}", clients[word])
        if not slash and word in nodes:
            return Party(f"node {word}", nodes[word], word)
        raise ApiError(404, "NotFound", f'pods "{place[1]}" not found in namespace "{place[0]}"')

    def _owner(self, address: str) -> Party:
        """Whose address it is."""
        loop = self._loop()
        for node in loop.topology.nodes:
            if address in node.addresses:
                return Party(f"node {node.name}", address, node.name)
        for pod in loop.pods():
            if address in pod.status.ips and not pod.terminal:
                return pod_party(pod, address)
        return Party(f"address {address}", address)

    def _seen(self, source: Party, target: Party) -> Party:
        """A node by the address that pods of another node see of it, which is its tunnel's."""
        if source.pod is not None or not source.node or target.pod is None or source.node == target.node:
            return source
        for tunnel in vteps(self._loop().topology.node(source.node)):
            if family(tunnel.address) == family(target.address):
                return Party(source.name, tunnel.address, source.node)
        return source

    # --- services -------------------------------------------------------------------------------------

    def _service(self, word: str, namespace: str) -> Service | None:
        """``svc/NAME``, ``svc/NAMESPACE/NAME``, or a Service's address."""
        store = self._loop().store
        kind, _, name = word.partition("/")
        services = [v for v in store.views("services") if isinstance(v, Service)]
        if kind in ("svc", "service", "services"):
            space, slash, short = name.partition("/")
            place = (space, short) if slash else (namespace, name)
            for service in services:
                if (service.metadata.namespace, service.metadata.name) == place:
                    return service
            raise ApiError(404, "NotFound", f'services "{place[1]}" not found in namespace "{place[0]}"')
        return next(
            (s for s in services if _is_address(word) and word in s.spec.cluster_ips),
            None,
        )

    def _endpoints(self, service: Service, port: str, protocol: str) -> tuple[list[tuple[Party, int]], str]:
        """Where a service's connections end, each with its port, and what is to be said about that."""
        ports = [p for p in service.spec.ports if p.protocol == protocol]
        chosen = [p for p in ports if port in ("", str(p.port), p.name)]
        name = f"{service.metadata.namespace}/{service.metadata.name}"
        if not chosen:
            there = ", ".join(f"{p.port}/{p.protocol}" for p in service.spec.ports) or "none"
            raise ApiError(
                400, "BadRequest", f"service {name} has no port {port or protocol}; it has {there}"
            )
        found: list[tuple[Party, int]] = []
        for piece in self._loop().store.views("endpointslices.discovery.k8s.io", service.metadata.namespace):
            if (
                not isinstance(piece, EndpointSlice)
                or piece.metadata.labels.get(SERVICE) != service.metadata.name
            ):
                continue
            numbers = [p.port for p in piece.ports or () if (p.name or "") == chosen[0].name and p.port]
            ready = (e for e in piece.endpoints or () if e.addresses and e.conditions.ready is not False)
            if numbers:
                found += [(self._owner(endpoint.addresses[0]), numbers[0]) for endpoint in ready]
        if not found:
            raise ApiError(400, "BadRequest", f"service {name} has no ready endpoints: nobody could answer")
        note = f"service {name} port {chosen[0].port} leads to {len(found)} endpoint"
        return found, note + ("s" if len(found) > 1 else "")


def _at(obj: Obj, path: str) -> Any:  # noqa: ANN401  # JSON
    """The value at ``spec.ingress[0]``."""
    field, _, index = path.removeprefix("spec.").partition("[")
    return obj["spec"][field][int(index.rstrip("]"))]


def _number(port: str, target: Party, protocol: str) -> int:
    """The port that is meant: by number, by a container's name for it, or the first that there is; a pod
    without ports may listen anywhere. Raises `ApiError` 400."""
    if port.isdecimal():
        if not 1 <= int(port) <= 65535:
            raise ApiError(400, "BadRequest", f"port {port}: must be between 1 and 65535, inclusive")
        return int(port)
    for declared in _declared(target):
        if declared.protocol == protocol and port in ("", declared.name):
            return declared.containerPort
    if port:
        raise ApiError(400, "BadRequest", f"{target.name} has no {protocol} port called {port}")
    return SOME_PORT


def _declared(target: Party) -> Iterator[ContainerPort]:
    if target.pod is not None:
        for container in target.pod.spec.containers:
            yield from container.ports


def _is_address(word: str) -> bool:
    try:
        ipaddress.ip_address(word)
    except ValueError:
        return False
    return True
