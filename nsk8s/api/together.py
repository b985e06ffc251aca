"""What the objects of a manifest must not do to each other, and what the cluster must offer them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network

from msgspec import Struct

from nsk8s.api.defaults import without_nulls
from nsk8s.api.families import family
from nsk8s.api.findings import Findings
from nsk8s.api.kinds import BUILTIN, Kinds, Resource
from nsk8s.api.networks import Networks
from nsk8s.api.topology import NodeTopology, Topology
from nsk8s.api.types import Deployment, Obj, Pod, PodSpec, ReplicaSet, Service
from nsk8s.api.views import view
from nsk8s.errors import Problem

NAMESPACES = frozenset(("default", "kube-system", "kube-public", "kube-node-lease"))
"""What every cluster has."""
NODE_OVERHEAD = 3
"""Addresses of a node's podCIDR that no pod gets: the network's, the bridge's, the broadcast's."""
SERVICE_OVERHEAD = 3
"""Addresses of serviceCIDR that no user's service gets: the network's, the API's, the broadcast's."""

Finding = tuple[int | None, Problem]
"""A problem of the object at a position, or (None) of the Cluster document."""


def check(topology: Topology | None, objects: Sequence[Obj], kinds: Kinds = BUILTIN) -> list[Finding]:
    """Everything that valid objects of `kinds` get wrong only together, or with `topology`."""
    found: list[Finding] = []
    found += _duplicates(objects, kinds)
    own = [(i, obj) for i, obj in enumerate(objects) if not _resource(obj, kinds).custom]
    services = [
        (i, service)
        for i, obj in own
        if obj["kind"] == "Service" and isinstance(service := view(without_nulls(obj)), Service)
    ]
    found += _node_ports(services)
    found += _cluster_ips(services, topology)
    if topology is not None:
        found += _namespaces(objects, kinds)
        found += _service_room(services, topology)
        found += _pod_room([obj for _, obj in own], topology)
    return found


def _problem(i: int | None, findings: Findings) -> Iterator[Finding]:
    return ((i, problem) for problem in findings.problems)


def _resource(obj: Obj, kinds: Kinds) -> Resource:
    return kinds.by_kind[obj["apiVersion"], obj["kind"]]


def _place(obj: Obj, kinds: Kinds) -> str:
    """The namespace an object will be in."""
    namespaced = _resource(obj, kinds).namespaced
    return (obj["metadata"].get("namespace") or "default") if namespaced else ""


def _duplicates(objects: Sequence[Obj], kinds: Kinds) -> Iterator[Finding]:
    seen: set[tuple[str, str, str, str]] = set()
    for i, obj in enumerate(objects):
        name = obj["metadata"]["name"]
        identity = (obj["apiVersion"], obj["kind"], _place(obj, kinds), name)
        if identity in seen:
            findings = Findings()
            where = f" in namespace {identity[2]}" if identity[2] else ""
            findings.duplicate("metadata.name", name, f"there is a {obj['kind']} of that name{where} already")
            yield from _problem(i, findings)
        seen.add(identity)


def _named(service: Service) -> str:
    return f"{service.metadata.namespace or 'default'}/{service.metadata.name}"


def _node_ports(services: Sequence[tuple[int, Service]]) -> Iterator[Finding]:
    taken: dict[tuple[str, int], str] = {}
    for i, service in services:
        findings = Findings()
        for j, port in enumerate(service.spec.ports):
            claim = (port.protocol, port.nodePort)
            if port.nodePort and claim in taken:
                findings.invalid(
                    f"spec.ports[{j}].nodePort",
                    port.nodePort,
                    "provided port is already allocated",
                    f"service {taken[claim]} has it; choose another, or leave nodePort out",
                )
            elif port.nodePort:
                taken[claim] = _named(service)
        yield from _problem(i, findings)


def _cluster_ips(services: Sequence[tuple[int, Service]], topology: Topology | None) -> Iterator[Finding]:
    taken: dict[str, str] = {}
    networks = {family(cidr): ip_network(cidr) for cidr in topology.service_cidrs} if topology else {}
    if topology is not None:
        taken[str(networks[topology.families[0]].network_address + 1)] = "default/kubernetes"
    for i, service in services:
        findings = Findings()
        for ip in service.spec.cluster_ips:
            _cluster_ip(ip, service, networks, taken, findings)
        yield from _problem(i, findings)


def _cluster_ip(
    ip: str, service: Service, networks: Networks, taken: dict[str, str], findings: Findings
) -> None:
    network = networks.get(family(ip))
    if network is not None and not int(network[0]) < int(ip_address(ip)) < int(network[-1]):
        findings.invalid(
            "spec.clusterIP",
            ip,
            f"failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. "
            f"The range of valid IPs is {network}",
            "choose one inside serviceCIDR, or leave clusterIP out",
        )
    elif ip in taken and taken[ip] != _named(service):
        findings.invalid(
            "spec.clusterIP",
            ip,
            f"failed to allocate IP {ip}: provided IP is already allocated",
            f"service {taken[ip]} has it; choose another, or leave clusterIP out",
        )
    taken.setdefault(ip, _named(service))


def _namespaces(objects: Sequence[Obj], kinds: Kinds) -> Iterator[Finding]:
    known = NAMESPACES | {obj["metadata"]["name"] for obj in objects if obj["kind"] == "Namespace"}
    for i, obj in enumerate(objects):
        place = _place(obj, kinds)
        if place and place not in known:
            yield (
                i,
                Problem(
                    "metadata.namespace",
                    f'namespaces "{place}" not found',
                    "add a document of kind Namespace with that name",
                ),
            )


def _service_room(services: Sequence[tuple[int, Service]], topology: Topology) -> Iterator[Finding]:
    network = ip_network(topology.service_cidr)
    room = network.num_addresses - SERVICE_OVERHEAD
    wanted = sum(s.spec.clusterIP != "None" and s.spec.type != "ExternalName" for _, s in services)
    if wanted > room:
        what = f'"{network}" is too small: {room} addresses for {wanted} services'
        yield None, Problem("spec.serviceCIDR", what, "take a shorter prefix")


class _Demand(Struct, frozen=True):
    """Pods that need an address, and where they can be."""

    spec: PodSpec
    count: int


def _pod_room(objects: Sequence[Obj], topology: Topology) -> Iterator[Finding]:
    """Whether the nodes that pods can be on have addresses for them, as far as nodeName, nodeSelector and
    taints say where that is."""
    room = {
        n.name: min(ip_network(cidr).num_addresses for cidr in n.pod_cidrs) - NODE_OVERHEAD
        for n in topology.nodes
    }
    groups: dict[frozenset[str], int] = {}
    for demand in _demands(objects):
        possible = frozenset(n.name for n in topology.nodes if _can_be_on(demand.spec, n))
        groups[possible] = groups.get(possible, 0) + demand.count
    for possible in groups:
        if not possible:
            continue  # pods that no node takes stay Pending, as on any cluster
        wanted = sum(count for names, count in groups.items() if names and names <= possible)
        offered = sum(room[name] for name in possible)
        if wanted > offered:
            where = f"the {len(possible)} nodes" if len(possible) > 1 else next(iter(possible))
            yield (
                None,
                Problem(
                    "spec.podCIDR" if len(possible) > 1 else _own_pod_cidr(topology, possible),
                    f"too small: {offered} addresses on {where} for {wanted} pods",
                    "add nodes, or give nodes wider podCIDRs",
                ),
            )
            return


def _own_pod_cidr(topology: Topology, names: frozenset[str]) -> str:
    position = next(i for i, node in enumerate(topology.nodes) if node.name in names)
    return f"spec.nodes[{position}].podCIDR"


def _demands(objects: Sequence[Obj]) -> Iterator[_Demand]:
    for obj in objects:
        if obj["kind"] not in ("Pod", "Deployment", "ReplicaSet"):
            continue
        match view(without_nulls(obj)):
            case Pod(spec=spec):
                demand = _Demand(spec, 1)
            case Deployment(spec=owner) | ReplicaSet(spec=owner):
                demand = _Demand(owner.template.spec, owner.replicas)
            case _:
                continue
        if not demand.spec.hostNetwork:
            yield demand


def _can_be_on(spec: PodSpec, node: NodeTopology) -> bool:
    if spec.nodeName:
        return spec.nodeName == node.name
    labels: Mapping[str, str] = {
        "kubernetes.io/hostname": node.name,
        "kubernetes.io/os": "linux",
        **node.labels,
    }
    if any(labels.get(k) != v for k, v in spec.nodeSelector.items()):
        return False
    return bool(spec.tolerations) or not any(t.effect in ("NoSchedule", "NoExecute") for t in node.taints)
