"""The Cluster document, checked and resolved to a `Topology`.

What is left out gets a default:

- *Roles.* If no node is said to be the control plane, the first node without a role is; it runs pods like
  any other (as k3s does). A node that is said to be it gets the taint
  ``node-role.kubernetes.io/control-plane:NoSchedule`` (as kubeadm does) unless it gives its `taints`, or
  unless the cluster has no worker (as kind does).
- *Networks.* Those of the families that the given networks have; IPv4 if none is given.
- *Addresses.* The first address of nodeCIDR is the fabric's and the last the host's; nodes, then clients,
  get the next free ones from the second on.
- *Pod networks.* Each node gets the next free /24 of podCIDR, of IPv6 the next free /64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, ip_address, ip_network
from types import MappingProxyType
from typing import Any

from nsk8s.api import names, networks
from nsk8s.api.families import of_family
from nsk8s.api.findings import Findings
from nsk8s.api.networks import Networks
from nsk8s.api.schema import CLUSTER, WRONG, conform
from nsk8s.api.topology import ClientTopology, DnsTopology, KubeProxy, NodeTopology, Topology
from nsk8s.api.types import Obj, Taint
from nsk8s.errors import ManifestError, Problem

CONTROL_PLANE_TAINT = Taint("node-role.kubernetes.io/control-plane", "", "NoSchedule")
RESERVED_NAMES = {"fabric": "the underlay's own namespace"}
DEFAULTS: Mapping[str, Any] = {
    name: schema["default"]
    for name, schema in CLUSTER["properties"]["spec"]["properties"].items()
    if "default" in schema
}


def resolve(cluster: Obj) -> Topology:
    """The topology that a Cluster document describes. Raises ManifestError with everything that is wrong
    (without file positions: `manifest.read` gives those)."""
    topology, problems = read(cluster)
    if topology is None or problems:
        raise ManifestError(problems)
    return topology


def read(cluster: Obj) -> tuple[Topology | None, list[Problem]]:
    """The topology, or None, and everything that is wrong with the document."""
    findings = Findings()
    document = conform(cluster, CLUSTER, findings)
    if not isinstance(document, dict):
        return None, findings.problems
    spec = {**DEFAULTS, **(document.get("spec") or {})}
    nodes, clients = spec["nodes"], spec["clients"]
    _check_names(nodes, clients, findings)
    _check_labels(nodes, findings)
    roles = _roles(nodes, findings)
    found = networks.read(document.get("spec") or {}, findings)
    addresses = networks.addresses(nodes, clients, found["nodeCIDR"], findings)
    pod_cidrs = networks.pod_cidrs(nodes, found["podCIDR"], findings)
    kube_proxy = _kube_proxy(spec, findings)
    dns = _dns(spec["dns"], found, findings)
    if spec["hostAccess"] and 4 not in found["nodeCIDR"]:
        hint = "give nodeCIDR an IPv4 network beside its own, or set hostAccess: false"
        findings.add("spec.hostAccess", "the host reaches nodes by IPv4, and the cluster has none", hint)
    if findings.problems:
        return None, findings.problems
    tainted = "worker" in roles
    topology = Topology(
        name=document["metadata"]["name"],
        nodes=tuple(
            NodeTopology(
                name=node["name"],
                role=role,
                addresses=address,
                pod_cidrs=pod_cidr,
                labels=MappingProxyType(dict(node.get("labels") or {})),
                taints=_taints(node, tainted),
            )
            for node, role, address, pod_cidr in zip(nodes, roles, addresses, pod_cidrs, strict=False)
        ),
        clients=tuple(
            ClientTopology(client["name"], address)
            for client, address in zip(clients, addresses[len(nodes) :], strict=True)
        ),
        pod_cidrs=networks.as_texts(found["podCIDR"]),
        service_cidrs=networks.as_texts(found["serviceCIDR"]),
        node_cidrs=networks.as_texts(found["nodeCIDR"]),
        network=spec["network"],
        proxy_mode=spec["proxyMode"],
        kube_proxy=kube_proxy,
        host_access=spec["hostAccess"],
        images=MappingProxyType(dict(spec["images"])),
        kubernetes_version=spec["kubernetesVersion"],
        legacy_apis=spec["legacyAPIs"],
        dns=dns,
    )
    return topology, []


def collisions(topology: Topology, routes: Iterable[tuple[str, str]], own: str = "") -> list[Problem]:
    """Where the one network that hostAccess adds to the host, the IPv4 one of nodeCIDR, meets a route the
    host has.

    `routes` are (CIDR, interface) pairs of the host's main table; the default route and those through
    `own`, the cluster's own link, do not count.
    """
    underlay = of_family(topology.node_cidrs, 4)
    if not topology.host_access or not underlay:
        return []
    wanted = IPv4Network(underlay)
    found = []
    for cidr, interface in routes:
        route = IPv4Network(cidr, strict=False)
        if route.prefixlen and interface != own and route.overlaps(wanted):
            where = f" on {interface}" if interface else ""
            found.append(
                Problem(
                    "spec.nodeCIDR",
                    f"{wanted} collides with this host's own route {route}{where}",
                    "choose another nodeCIDR, or set hostAccess: false",
                )
            )
    return found


# --- names ------------------------------------------------------------------------------------------


def _given(items: Sequence[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The items that conform, with their positions."""
    return ((i, item) for i, item in enumerate(items) if item is not WRONG)


def _check_names(nodes: Sequence[Any], clients: Sequence[Any], findings: Findings) -> None:
    taken: dict[str, str] = {}
    for field, items in (("nodes", nodes), ("clients", clients)):
        for i, item in _given(items):
            name = item.get("name")
            path = f"spec.{field}[{i}].name"
            if name is None:
                continue
            if name in RESERVED_NAMES:
                findings.add(path, f'"{name}" is the name of {RESERVED_NAMES[name]}', "choose another name")
            elif name in taken:
                findings.duplicate(path, name, f"{taken[name]} has that name; choose another")
            else:
                taken[name] = path.removesuffix(".name")


def _check_labels(nodes: Sequence[Any], findings: Findings) -> None:
    for i, node in _given(nodes):
        findings.labels(f"spec.nodes[{i}].labels", node.get("labels"))
        seen = set()
        for j, taint in _given(node.get("taints") or ()):
            path = f"spec.nodes[{i}].taints[{j}]"
            if "key" in taint and (wrong := names.label_key(taint["key"])):
                findings.invalid(f"{path}.key", taint["key"], wrong)
            if "value" in taint and (wrong := names.label_value(taint["value"])):
                findings.invalid(f"{path}.value", taint["value"], wrong)
            identity = (taint.get("key"), taint.get("effect"))
            if identity in seen:
                findings.duplicate(path, taint, "taints must be unique by key and effect")
            seen.add(identity)


# --- roles ------------------------------------------------------------------------------------------


def _roles(nodes: Sequence[Any], findings: Findings) -> list[str]:
    roles = [node.get("role", "") if node is not WRONG else "" for node in nodes]
    if "control-plane" not in roles:
        if "" not in roles:
            findings.add(
                "spec.nodes", "no node is the control plane", "give one of them `role: control-plane`"
            )
            return roles
        roles[roles.index("")] = "control-plane"
    return [role or "worker" for role in roles]


def _taints(node: Mapping[str, Any], tainted: bool) -> tuple[Taint, ...]:
    """`tainted`: the cluster has workers, so nodes said to be the control plane are kept free of pods."""
    if node.get("taints") is not None:
        return tuple(Taint(t["key"], t.get("value") or "", t["effect"]) for t in node["taints"])
    return (CONTROL_PLANE_TAINT,) if tainted and node.get("role") == "control-plane" else ()


# --- kube-proxy -------------------------------------------------------------------------------------

_DETECTED_BY = {"BridgeInterface": "bridgeInterface", "InterfaceNamePrefix": "interfaceNamePrefix"}
"""The field of detectLocal that a detectLocalMode needs."""


def _kube_proxy(spec: Mapping[str, Any], findings: Findings) -> KubeProxy:
    given = spec["kubeProxy"]
    path = "spec.kubeProxy"
    mode, detected = given.get("detectLocalMode") or "ClusterCIDR", given.get("detectLocal") or {}
    needed = _DETECTED_BY.get(mode)
    if needed and needed not in detected:
        findings.add(f"{path}.detectLocal.{needed}", "is missing", f"detectLocalMode {mode} needs it")
    cluster_cidr = given.get("clusterCIDR")
    if cluster_cidr:
        networks.each(f"{path}.clusterCIDR", cluster_cidr, findings)
    addresses = given.get("nodePortAddresses") or []
    for i, word in enumerate(addresses):
        at = f"{path}.nodePortAddresses[{i}]"
        if word is WRONG or (word == "primary" and len(addresses) == 1):
            continue
        if word == "primary":
            findings.add(at, '"primary" cannot stand beside others', "let it be the only one")
            continue
        try:
            ip_network(word)
        except ValueError as error:
            findings.add(at, f'"{word}" is not a network: {error}', "write 172.18.0.0/24, or primary")
    iptables = given.get("iptables") or {}
    return KubeProxy(
        masquerade_all=(given.get(spec["proxyMode"]) or {}).get("masqueradeAll", False),
        localhost_node_ports=iptables.get("localhostNodePorts", True),
        detect_local_mode=mode,
        cluster_cidr=cluster_cidr,
        bridge_interface=detected.get("bridgeInterface", ""),
        interface_name_prefix=detected.get("interfaceNamePrefix", ""),
        node_port_addresses=tuple(addresses),
        tcp_be_liberal=(given.get("conntrack") or {}).get("tcpBeLiberal", False),
    )


# --- dns --------------------------------------------------------------------------------------------


def _dns(dns: Mapping[str, Any], found: Mapping[str, Networks], findings: Findings) -> DnsTopology:
    upstreams = dns.get("upstreams") or ()
    for i, text in enumerate(upstreams):
        path = f"spec.dns.upstreams[{i}]"
        if text is WRONG:
            continue
        try:
            address = ip_address(text)
        except ValueError as error:
            findings.add(path, f'"{text}" is not an IP address: {error}')
            continue
        if text in upstreams[:i]:
            findings.duplicate(path, text)
        if not any(address in network for each in found.values() for network in each.values()):
            findings.add(
                path,
                f'"{text}" is outside the emulated network',
                "name a client, a node, a pod or a service of this cluster: queries never leave the machine",
            )
    return DnsTopology(dns.get("replicas", DnsTopology().replicas), tuple(upstreams))
