"""Short words for clusters with services: two nodes, one client, endpoints by address."""

from __future__ import annotations

import msgspec
import msgspec.structs

from nsk8s.api.topology import ClientTopology, KubeProxy, NodeTopology, Topology
from nsk8s.api.types import (
    Container,
    ContainerPort,
    Endpoint,
    EndpointConditions,
    EndpointPort,
    EndpointSlice,
    LoadBalancerIngress,
    LoadBalancerStatus,
    ObjectMeta,
    Pod,
    PodSpec,
    PodStatus,
    Service,
    ServicePort,
    ServiceSpec,
    ServiceStatus,
)
from nsk8s.dataplane.compiler import ClusterView, Compiler
from nsk8s.linux.values import NamespaceState

TOPOLOGY = Topology(
    "t",
    nodes=(
        NodeTopology("n1", "control-plane", ("172.18.0.11",), ("10.244.1.0/24",)),
        NodeTopology("n2", "worker", ("172.18.0.12",), ("10.244.2.0/24",)),
    ),
    clients=(ClientTopology("external", ("172.18.0.200",)),),
)
NODE_OF = {"10.244.1": "n1", "10.244.2": "n2"}

Backed = tuple[Service, EndpointSlice]


def endpoint(text: str) -> Endpoint:
    """``10.244.1.2``, with words after it: ``unready``, ``terminating`` (still serving), ``gone``
    (terminating and failing its probe)."""
    ip, *words = text.split()
    conditions = EndpointConditions(
        ready=not words,
        serving=words in ([], ["terminating"]),
        terminating="terminating" in words or "gone" in words,
    )
    return Endpoint(addresses=(ip,), nodeName=NODE_OF[ip.rpartition(".")[0]], conditions=conditions)


def slice_of(
    service: str, endpoints: tuple[str, ...], ports: tuple[EndpointPort, ...], suffix: str = "abcde"
) -> EndpointSlice:
    return EndpointSlice(
        metadata=ObjectMeta(
            name=f"{service}-{suffix}",
            namespace="default",
            labels={"kubernetes.io/service-name": service},
        ),
        endpoints=tuple(map(endpoint, endpoints)),
        ports=ports,
    )


def service(
    name: str,
    cluster_ip: str,
    *endpoints: str,
    port: int = 80,
    target: int = 8080,
    port_name: str = "http",
    protocol: str = "TCP",
    node_port: int = 0,
    external_ips: tuple[str, ...] = (),
    internal: str = "Cluster",
    external: str = "Cluster",
    affinity: str = "None",
    ingress: tuple[LoadBalancerIngress | str, ...] = (),
    source_ranges: tuple[str, ...] = (),
    health: int = 0,
) -> Backed:
    """A service of one port in namespace default, and its slice; a load balancer if it has `ingress` (of
    ipMode VIP where that is an address) or a `health` check node port."""
    reachable = bool(node_port or external_ips or ingress or health)
    points = tuple(LoadBalancerIngress(ip=each) if isinstance(each, str) else each for each in ingress)
    spec = ServiceSpec(
        type="LoadBalancer" if ingress or health else "NodePort" if node_port else "ClusterIP",
        clusterIP=cluster_ip,
        ports=(ServicePort(port=port, name=port_name, protocol=protocol, nodePort=node_port),),
        externalIPs=external_ips,
        internalTrafficPolicy=internal,
        externalTrafficPolicy=external if reachable else None,
        sessionAffinity=affinity,
        loadBalancerSourceRanges=source_ranges,
        healthCheckNodePort=health,
    )
    status = ServiceStatus(LoadBalancerStatus(points))
    meta = ObjectMeta(name=name, namespace="default")
    ports = (EndpointPort(name=port_name, port=target, protocol=protocol),)
    return Service(metadata=meta, spec=spec, status=status), slice_of(name, endpoints, ports)


def joined(*each: Backed) -> Backed:
    """One service with the ports of several that have the same endpoints."""
    (first, piece), *_ = each
    ports = tuple(port for one, _ in each for port in one.spec.ports)
    targets = tuple(port for _, one in each for port in one.ports or ())
    spec = msgspec.structs.replace(first.spec, ports=ports)
    return msgspec.structs.replace(first, spec=spec), msgspec.structs.replace(piece, ports=targets)


def pod(
    name: str,
    ip: str,
    *ports: ContainerPort,
    uid: str = "",
    host_network: bool = False,
    labels: dict[str, str] | None = None,
) -> Pod:
    meta = ObjectMeta(name=name, namespace="default", uid=uid or f"uid-of-{name}", labels=labels or {})
    return Pod(
        metadata=meta,
        spec=PodSpec(
            nodeName=NODE_OF[ip.rpartition(".")[0]],
            containers=(Container(ports=ports),),
            hostNetwork=host_network,
        ),
        status=PodStatus(podIP=ip),
    )


def view(*services: Backed, pods: tuple[Pod, ...] = ()) -> ClusterView:
    return ClusterView(pods, [each for each, _ in services], [each for _, each in services])


def compiled(
    *services: Backed,
    pods: tuple[Pod, ...] = (),
    options: KubeProxy | None = None,
    mode: str = "iptables",
    cluster: Topology = TOPOLOGY,
) -> dict[str, NamespaceState]:
    topology = msgspec.structs.replace(cluster, kube_proxy=options or KubeProxy(), proxy_mode=mode)
    return Compiler(topology).compile(view(*services, pods=pods))


def rules(state: NamespaceState, table: str, chain: str) -> tuple[str, ...]:
    return state.rules.tables[table][chain].rules
