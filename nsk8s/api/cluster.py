"""The Cluster document, checked and resolved to a `Topology`.

What is left out gets a default:

- *Roles.* If no node is said to be the control plane, the first node without a role is; it runs pods like
  any other (as k3s does). A node that is said to be it gets the taint
  ``node-role.kubernetes.io/control-plane:NoSchedule`` (as kubeadm does) unless it gives its `taints`, or
  unless the cluster has no worker (as kind does).
- *Addresses.* The first address of nodeCIDR is the fabric's and the last the host's; nodes, then clients,
  get the next free ones from the second on.
- *Pod networks.* Each node gets the next free /24 of podCIDR.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, ip_network
from types import MappingProxyType
from typing import Any

from nsk8s.api import names
from nsk8s.api.findings import Findings
from nsk8s.api.schema import CLUSTER, WRONG, conform
from nsk8s.api.topology import ClientTopology, KubeProxy, NodeTopology, Topology
from nsk8s.api.types import Obj, Taint
from nsk8s.errors import ManifestError, Problem

CONTROL_PLANE_TAINT = Taint("node-role.kubernetes.io/control-plane", "", "NoSchedule")
NODE_PREFIX = 24
"""Length of the prefix of a node's podCIDR that is not given (kube-controller-manager's default)."""
SMALLEST_POD_PREFIX = 30
"""A node's podCIDR must hold the bridge's address and one pod's."""
SERVICE_PREFIXES = range(12, 29)
"""kube-apiserver allows nothing larger than a /12; below a /28 the addresses of the API (.1) and of
DNS (.10) do not both fit."""
RESERVED_NAMES = {"fabric": "the underlay's own namespace"}
UNUSABLE = tuple(map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")))
"""This network, loopback, link-local, multicast and reserved (RFC 6890)."""
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
    networks = _networks(spec, findings)
    addresses = _addresses(nodes, clients, networks.get("nodeCIDR"), findings)
    pod_cidrs = _pod_cidrs(nodes, networks.get("podCIDR"), findings)
    kube_proxy = _kube_proxy(spec, findings)
    if findings.problems:
        return None, findings.problems
    tainted = "worker" in roles
    topology = Topology(
        name=document["metadata"]["name"],
        nodes=tuple(
            NodeTopology(
                name=node["name"],
                role=role,
                address=address,
                pod_cidr=pod_cidr,
                labels=MappingProxyType(dict(node.get("labels") or {})),
                taints=_taints(node, tainted),
            )
            for node, role, address, pod_cidr in zip(nodes, roles, addresses, pod_cidrs, strict=False)
        ),
        clients=tuple(
            ClientTopology(client["name"], address)
            for client, address in zip(clients, addresses[len(nodes) :], strict=True)
        ),
        pod_cidr=spec["podCIDR"],
        service_cidr=spec["serviceCIDR"],
        node_cidr=spec["nodeCIDR"],
        network=spec["network"],
        proxy_mode=spec["proxyMode"],
        kube_proxy=kube_proxy,
        host_access=spec["hostAccess"],
        images=MappingProxyType(dict(spec["images"])),
        kubernetes_version=spec["kubernetesVersion"],
        legacy_apis=spec["legacyAPIs"],
    )
    return topology, []


def collisions(topology: Topology, routes: Iterable[tuple[str, str]], own: str = "") -> list[Problem]:
    """Where the one network that hostAccess adds to the host, nodeCIDR, meets a route the host has.

    `routes` are (CIDR, interface) pairs of the host's main table; the default route and those through
    `own`, the cluster's own link, do not count.
    """
    if not topology.host_access:
        return []
    wanted = IPv4Network(topology.node_cidr)
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
        _network(f"{path}.clusterCIDR", cluster_cidr, findings)
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


# --- networks ---------------------------------------------------------------------------------------


def _network(path: str, cidr: str, findings: Findings) -> IPv4Network | None:
    """A network that hosts can use, or None with a finding."""
    try:
        network = IPv4Network(cidr, strict=False)
    except ValueError as error:
        findings.add(path, f'"{cidr}" is not an IPv4 network: {error}', "numbers up to 255, prefix up to 32")
        return None
    if str(network.network_address) != cidr.partition("/")[0]:
        findings.add(path, f'"{cidr}" has bits set behind its prefix', f'write "{network}"')
        return None
    for unusable in UNUSABLE:
        if network.overlaps(unusable):
            findings.add(path, f'"{cidr}" meets {unusable}, which is reserved', "choose a private network")
            return None
    return network


def _networks(spec: Mapping[str, Any], findings: Findings) -> dict[str, IPv4Network]:
    networks: dict[str, IPv4Network] = {}
    for field in ("podCIDR", "serviceCIDR", "nodeCIDR"):
        network = _network(f"spec.{field}", spec[field], findings)
        if network is None:
            continue
        for other, taken in networks.items():
            if network.overlaps(taken):
                findings.add(
                    f"spec.{field}", f'"{network}" overlaps {other} "{taken}"', "choose one outside it"
                )
        networks[field] = network
    services = networks.get("serviceCIDR")
    if services is not None and services.prefixlen not in SERVICE_PREFIXES:
        size = "large" if services.prefixlen < SERVICE_PREFIXES.start else "small"
        findings.add(
            "spec.serviceCIDR",
            f'"{services}" is too {size}',
            f"take a prefix from /{SERVICE_PREFIXES.start} to /{SERVICE_PREFIXES.stop - 1}",
        )
    return networks


def _addresses(
    nodes: Sequence[Any], clients: Sequence[Any], underlay: IPv4Network | None, findings: Findings
) -> list[str]:
    """Every node's and then every client's address on the underlay."""
    if underlay is None:
        return []
    first, last = int(underlay.network_address) + 1, int(underlay.broadcast_address) - 1
    taken: dict[int, str] = {}
    result: list[int | None] = []
    for field, items in (("nodes", nodes), ("clients", clients)):
        for i, item in enumerate(items):
            path = f"spec.{field}[{i}].address"
            text = item.get("address") if item is not WRONG else None
            address = _address(path, text, underlay, findings) if text else None
            if address is not None and address in taken:
                findings.duplicate(path, text, f"{taken[address]} has that address; choose another")
            elif address is not None:
                taken[address] = path
            result.append(address)
    room = last - first - 1
    if len(result) > room:
        findings.add(
            "spec.nodeCIDR",
            f'"{underlay}" is too small: {max(room, 0)} addresses for {len(result)} nodes and clients',
            "the first address is the fabric's and the last the host's; take a shorter prefix",
        )
        return []
    free = (a for a in range(first + 1, last) if a not in taken)
    return [str(IPv4Address(next(free) if address is None else address)) for address in result]


def _address(path: str, text: str, underlay: IPv4Network, findings: Findings) -> int | None:
    try:
        address = IPv4Address(text)
    except ValueError as error:
        findings.add(path, f'"{text}" is not an IPv4 address: {error}')
        return None
    number = int(address)
    first, last = int(underlay.network_address) + 1, int(underlay.broadcast_address) - 1
    if address not in underlay:
        findings.add(path, f'"{text}" is outside nodeCIDR "{underlay}"', "choose one inside, or leave it out")
    elif number in (first, last):
        whose = "the fabric's" if number == first else "the host's"
        findings.add(path, f'"{text}" is {whose} own address on the underlay', "choose another")
    elif not first < number < last:
        findings.add(path, f'"{text}" is no host\'s address in "{underlay}"', "choose another")
    else:
        return number
    return None


def _pod_cidrs(nodes: Sequence[Any], pods: IPv4Network | None, findings: Findings) -> list[str]:
    """Every node's podCIDR."""
    if pods is None:
        return []
    given: dict[int, IPv4Network] = {}
    for i, node in _given(nodes):
        path = f"spec.nodes[{i}].podCIDR"
        network = _network(path, node["podCIDR"], findings) if node.get("podCIDR") else None
        if network is None:
            continue
        if not network.subnet_of(pods):
            findings.add(
                path,
                f'"{network}" is outside the cluster\'s podCIDR "{pods}"',
                "choose one inside it, or widen spec.podCIDR",
            )
        elif network.prefixlen > SMALLEST_POD_PREFIX:
            findings.add(
                path, f'"{network}" is too small for any pod', f"take a /{SMALLEST_POD_PREFIX} or shorter"
            )
        else:
            given[i] = network
    _check_overlaps(given, findings)
    missing = sum(node is WRONG or not node.get("podCIDR") for node in nodes)
    free = _free_networks(pods, given.values())
    found = [str(network) for _, network in zip(range(missing), free, strict=False)]
    if len(found) < missing:
        findings.add(
            "spec.podCIDR",
            f'"{pods}" is too small: it has room for {len(found)} more /{NODE_PREFIX}, and {missing} of '
            f"{len(nodes)} nodes need one",
            "take a shorter prefix, or give nodes smaller podCIDRs of their own",
        )
        return []
    rest = iter(found)
    return [str(given[i]) if i in given else next(rest, "") for i in range(len(nodes))]


def _check_overlaps(given: Mapping[int, IPv4Network], findings: Findings) -> None:
    """In address order a network that overlaps any other overlaps the widest-reaching one before it."""
    reach: tuple[int, IPv4Network] | None = None
    for i, network in sorted(given.items(), key=lambda item: (item[1].network_address, item[1].prefixlen)):
        if reach is not None and network.overlaps(reach[1]):
            later, earlier = max(i, reach[0]), min(i, reach[0])
            findings.add(
                f"spec.nodes[{later}].podCIDR",
                f'"{given[later]}" overlaps "{given[earlier]}" of spec.nodes[{earlier}]',
                "choose another",
            )
        if reach is None or network.broadcast_address > reach[1].broadcast_address:
            reach = (i, network)


def _free_networks(pods: IPv4Network, taken: Iterable[IPv4Network]) -> Iterator[IPv4Network]:
    """The /24s of `pods` that none of `taken` overlaps, in order."""
    if pods.prefixlen > NODE_PREFIX:
        return
    step = 1 << (32 - NODE_PREFIX)
    blocked = {
        number
        for network in taken
        for number in range(int(network.network_address) // step, int(network.broadcast_address) // step + 1)
    }
    start = int(pods.network_address) // step
    for number in range(start, start + (1 << (NODE_PREFIX - pods.prefixlen))):
        if number not in blocked:
            yield IPv4Network((number * step, NODE_PREFIX))
