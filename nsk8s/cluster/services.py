"""What the API server adds to Services: cluster IPs and node ports, and the Service of itself.

Both are given out lowest first, from the band that real allocators prefer for dynamic use, so that the
same manifests always get the same numbers (upstream's order is random): KEP-3070 for cluster IPs, KEP-3668
for node ports. What a Service has it keeps until it is deleted or changes its type.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Any

from nsk8s.api.topology import Topology
from nsk8s.api.types import Obj
from nsk8s.cluster.store import Cursor, Store
from nsk8s.errors import Problem

NODE_PORTS = range(30000, 32768)
DYNAMIC_NODE_PORTS = 30086
"""The lowest node port given to who does not ask for one; those below are left to who does."""


class Span:
    """Numbers 0..size-1, each taken or not; a bit set, so that the lowest free one is found at once."""

    def __init__(self, size: int, dynamic: int) -> None:
        self.size = size
        self.dynamic = dynamic
        self._bits = 0

    def __contains__(self, number: int) -> bool:
        return bool(self._bits >> number & 1)

    def add(self, number: int) -> None:
        """Take `number`."""
        self._bits |= 1 << number

    def discard(self, number: int) -> None:
        """Give `number` back."""
        self._bits &= ~(1 << number)

    def lowest(self, but: set[int]) -> int | None:
        """The lowest free number of the dynamic band not in `but`, else of the static band; None if all
        are taken."""
        for first, end in ((self.dynamic, self.size), (0, self.dynamic)):
            free = ~self._bits >> first
            number = first
            while number < end:
                step = (free & -free).bit_length() - 1
                number += step
                if number < end and number not in but:
                    return number
                free >>= step + 1
                number += 1
        return None


def static_band(size: int) -> int:
    """How many addresses of a service CIDR are kept for Services that name theirs:
    ``min(max(16, size/16), 256)``, none in a tiny one (ipallocator's calculateRangeOffset)."""
    return 0 if size <= 16 else min(max(16, size // 16), 256)


class ServiceAllocator:
    """Who has which cluster IP and node port; follows the store."""

    def __init__(self, store: Store, topology: Topology) -> None:
        self._store = store
        self._cursor = Cursor(store)
        self._network = IPv4Network(topology.service_cidr)
        self._base = int(self._network.network_address) + 1
        self._reset()

    def complete(self, new: Obj, old: Obj | None, problems: list[Problem]) -> Obj:
        """A valid Service with its cluster IP and node ports filled in; those of `old` are its own. Nothing
        is taken before the Service is in the store. Appends to `problems` what cannot be had."""
        self._follow()
        spec = dict(new.get("spec") or {})
        mine_ip = self._offsets(old or {})
        mine_ports = set(_node_ports(old or {}))
        if spec.get("type") == "ExternalName":
            for field in ("clusterIP", "clusterIPs"):
                spec.pop(field, None)
        else:
            self._cluster_ip(spec, mine_ip, problems)
        self._ports(spec, mine_ports, problems)
        return {**new, "spec": spec}

    def _cluster_ip(self, spec: dict[str, Any], mine: set[int], problems: list[Problem]) -> None:
        wanted = spec.get("clusterIP") or next(iter(spec.get("clusterIPs") or ()), "")
        if not wanted:
            offset = self._ips.lowest(set())
            if offset is None:
                what = f"failed to allocate a serviceIP: range is full: {self._network}"
                problems.append(Problem("spec.clusterIPs", f"Internal error: {what}"))
                return
            wanted = str(IPv4Address(self._base + offset))
        elif wanted != "None":
            shown = f'Invalid value: []string{{{{"{wanted}"}}}}'
            try:
                offset = int(IPv4Address(wanted)) - self._base
            except AddressValueError:
                problems.append(Problem("spec.clusterIPs[0]", f'Invalid value: "{wanted}": must be an IPv4'))
                return
            if not 0 <= offset < self._ips.size:
                why = f"the provided IP ({wanted}) is not in the valid range"
                why += f". The range of valid IPs is {self._network}"
                what = f"{shown}: failed to allocate IP {wanted}: {why}"
                problems.append(Problem("spec.clusterIPs", what))
            elif offset in self._ips and offset not in mine:
                what = f"{shown}: failed to allocate IP {wanted}: provided IP is already allocated"
                problems.append(Problem("spec.clusterIPs", what))
        spec["clusterIP"] = wanted
        spec["clusterIPs"] = [wanted]
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")

    def _ports(self, spec: dict[str, Any], mine: set[int], problems: list[Problem]) -> None:
        wants = _wants_node_ports(spec)
        ports = [dict(port) for port in spec.get("ports") or ()]
        named = {port["nodePort"] for port in ports if port.get("nodePort")}
        for index, port in enumerate(ports):
            number = port.get("nodePort")
            if number:
                path = f"spec.ports[{index}].nodePort"
                self._check(number, mine, path, problems)
            elif wants:
                twin = next(
                    (p["nodePort"] for p in ports if p.get("nodePort") and p.get("port") == port.get("port")),
                    None,
                )
                found = twin or self._free(named, problems)
                if found:
                    port["nodePort"] = found
                    named.add(found)
        if ports:
            spec["ports"] = ports
        if spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local":
            if spec.get("healthCheckNodePort"):
                self._check(spec["healthCheckNodePort"], mine, "spec.healthCheckNodePort", problems)
            else:
                found = self._free(named, problems)
                if found:
                    spec["healthCheckNodePort"] = found
        else:
            spec.pop("healthCheckNodePort", None)

    def _free(self, named: set[int], problems: list[Problem]) -> int | None:
        offset = self._node_ports.lowest({number - NODE_PORTS.start for number in named})
        if offset is None:
            what = "Internal error: failed to allocate a nodePort: range is full"
            problems.append(Problem("spec.ports", what))
            return None
        return NODE_PORTS.start + offset

    def _check(self, number: int, mine: set[int], path: str, problems: list[Problem]) -> None:
        if number not in NODE_PORTS:
            what = "provided port is not in the valid range. The range of valid ports is "
            what += f"{NODE_PORTS.start}-{NODE_PORTS.stop - 1}"
            problems.append(Problem(path, f"Invalid value: {number}: {what}"))
        elif number - NODE_PORTS.start in self._node_ports and number not in mine:
            what = f"Invalid value: {number}: provided port is already allocated"
            problems.append(Problem(path, what))

    def _follow(self) -> None:
        changes = self._cursor.read()
        if changes is None:
            self._reset()
            for obj in self._store.list("services"):
                self._take(obj)
            return
        for change in changes:
            if change.key.resource == "services":
                if change.old is not None:
                    self._give_back(change.old)
                if change.type != "DELETED":
                    self._take(change.new)

    def _reset(self) -> None:
        size = max(1, self._network.num_addresses - 2)
        self._ips = Span(size, static_band(size))
        self._node_ports = Span(len(NODE_PORTS), DYNAMIC_NODE_PORTS - NODE_PORTS.start)

    def _take(self, obj: Obj) -> None:
        for offset in self._offsets(obj):
            self._ips.add(offset)
        for number in _node_ports(obj):
            self._node_ports.add(number - NODE_PORTS.start)

    def _give_back(self, obj: Obj) -> None:
        for offset in self._offsets(obj):
            self._ips.discard(offset)
        for number in _node_ports(obj):
            self._node_ports.discard(number - NODE_PORTS.start)

    def _offsets(self, obj: Obj) -> set[int]:
        ip = (obj.get("spec") or {}).get("clusterIP")
        if not ip or ip == "None":
            return set()
        offset = int(IPv4Address(ip)) - self._base
        return {offset} if 0 <= offset < self._ips.size else set()


def _wants_node_ports(spec: dict[str, Any]) -> bool:
    if spec.get("type") == "LoadBalancer":
        return spec.get("allocateLoadBalancerNodePorts") is not False
    return spec.get("type") == "NodePort"


def _node_ports(obj: Obj) -> Iterable[int]:
    spec = obj.get("spec") or {}
    for port in spec.get("ports") or ():
        if port.get("nodePort"):
            yield port["nodePort"]
    if spec.get("healthCheckNodePort"):
        yield spec["healthCheckNodePort"]


def kept(obj: Obj, stored: Obj) -> Obj:
    """An update of a Service with the numbers it had where it gives none (patchAllocatedValues), and without
    those that its new type has no use for (dropTypeDependentFields). Before validation: fields of a wrong
    type are left alone."""
    spec, old = obj.get("spec"), stored["spec"]
    if not isinstance(spec, dict):
        return obj
    new = dict(spec)
    if new.get("type") == "ExternalName":
        for field in ("clusterIP", "clusterIPs"):
            if field in new and new[field] == old.get(field):
                del new[field]
    elif old.get("clusterIP") and not new.get("clusterIP") and not new.get("clusterIPs"):
        new["clusterIP"], new["clusterIPs"] = old["clusterIP"], [old["clusterIP"]]
    had = {_port_key(p): p["nodePort"] for p in old.get("ports") or () if p.get("nodePort")}
    wants = _wants_node_ports(new)
    given = new.get("ports")
    ports = []
    for port in given if isinstance(given, list) and all(isinstance(p, dict) for p in given) else ():
        number = had.get(_port_key(port))
        if wants and number and not port.get("nodePort"):
            port = {**port, "nodePort": number}
        elif not wants and number and port.get("nodePort") == number:
            port = {k: v for k, v in port.items() if k != "nodePort"}
        ports.append(port)
    if ports:
        new["ports"] = ports
    health = old.get("healthCheckNodePort")
    if health and new.get("type") == "LoadBalancer" and new.get("externalTrafficPolicy") == "Local":
        new.setdefault("healthCheckNodePort", health)
    elif health and new.get("healthCheckNodePort") == health:
        del new["healthCheckNodePort"]
    if new.get("type") in ("ClusterIP", "ExternalName"):
        for field in ("externalTrafficPolicy", "allocateLoadBalancerNodePorts"):
            if field in new and new[field] == old.get(field):
                del new[field]
    return {**obj, "spec": new}


def _port_key(port: dict[str, Any]) -> tuple[int, str]:
    return port.get("port", 0), port.get("protocol", "TCP")


# --- the Service of the API server itself ---------------------------------------------------------------

API_PORT = 6443
"""Where the API server listens on its node."""


def kubernetes_service(topology: Topology) -> tuple[Obj, Obj | None, Obj | None]:
    """The Service ``kubernetes`` in ``default``, its Endpoints and its EndpointSlice (None without a
    control-plane node), as kube-apiserver's own reconciler makes them."""
    address = str(IPv4Network(topology.service_cidr)[1])
    labels = {"component": "apiserver", "provider": "kubernetes"}
    service: Obj = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": API_PORT}],
        },
        "status": {"loadBalancer": {}},
    }
    masters = [node.address for node in topology.nodes if node.role == "control-plane"]
    if not masters:
        return service, None, None
    port = {"name": "https", "port": API_PORT, "protocol": "TCP"}
    endpoints: Obj = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{"addresses": [{"ip": ip} for ip in masters], "ports": [port]}],
    }
    piece: Obj = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [ip], "conditions": {"ready": True}} for ip in masters],
        "ports": [port],
    }
    return service, endpoints, piece
