"""What the API server adds to Services: cluster IPs and node ports, and the Service of itself.

Both are given out lowest first, from the band that real allocators prefer for dynamic use, so that the
same manifests always get the same numbers (upstream's order is random): KEP-3070 for cluster IPs, KEP-3668
for node ports. What a Service has it keeps until it is deleted or changes its type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from nsk8s.api.families import BY_NAME, NAMES, family
from nsk8s.api.topology import Topology
from nsk8s.api.types import Obj
from nsk8s.cluster.store import Cursor, Store
from nsk8s.errors import Problem

NODE_PORTS = range(30000, 32768)
DYNAMIC_NODE_PORTS = 30086
"""The lowest node port given to who does not ask for one; those below are left to who does."""


SINGLE, PREFER, REQUIRE = "SingleStack", "PreferDualStack", "RequireDualStack"
"""spec.ipFamilyPolicy."""


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


class AddressSpan(Span):
    """The addresses of one service CIDR."""

    def __init__(self, network: IPv4Network | IPv6Network) -> None:
        size = max(1, network.num_addresses - 2)
        super().__init__(size, static_band(size))
        self.network = network

    def offset(self, ip: str) -> int:
        """The number of an address; outside 0..size-1 if it is not one of these."""
        return int(ip_address(ip)) - int(self.network.network_address) - 1

    def address(self, number: int) -> str:
        """The address with that number."""
        return str(self.network.network_address + 1 + number)


class ServiceAllocator:
    """Who has which cluster IP and node port; follows the store."""

    def __init__(self, store: Store, topology: Topology) -> None:
        self._store = store
        self._cursor = Cursor(store)
        self._networks = {family(cidr): ip_network(cidr) for cidr in topology.service_cidrs}
        self._primary = topology.families[0]
        self._reset()

    def complete(self, new: Obj, old: Obj | None, problems: list[Problem]) -> Obj:
        """A valid Service with its cluster IP and node ports filled in; those of `old` are its own. Nothing
        is taken before the Service is in the store. Appends to `problems` what cannot be had."""
        self._follow()
        spec = dict(new.get("spec") or {})
        mine_ports = set(_node_ports(old or {}))
        if spec.get("type") == "ExternalName":
            for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.pop(field, None)
        else:
            before = len(problems)
            self._families(spec, (old or {}).get("spec") or {}, problems)
            if len(problems) == before:
                self._cluster_ips(spec, set(_cluster_ips(old or {})), problems)
        self._ports(spec, mine_ports, problems)
        return {**new, "spec": spec}

    def _families(self, spec: dict[str, Any], was: dict[str, Any], problems: list[Problem]) -> None:
        """Fill ipFamilyPolicy and ipFamilies, as initIPFamilyFields of upstream's Service registry does: no
        Service is given a second family, or deprived of it, that did not ask for that."""
        if was.get("type") == "ExternalName":
            was = {}
        same = {
            field: bool(was) and spec.get(field) == was.get(field) for field in ("clusterIPs", "ipFamilies")
        }
        policy = spec.get("ipFamilyPolicy") or was.get("ipFamilyPolicy")
        if policy == was.get("ipFamilyPolicy") == PREFER and all(same.values()):
            return
        headless = "None" in (spec.get("clusterIP"), *(spec.get("clusterIPs") or ()))
        open_ended = headless and not spec.get("selector")
        policy = spec["ipFamilyPolicy"] = policy or (REQUIRE if open_ended else SINGLE)
        if policy == SINGLE:
            for field in (field for field, unchanged in same.items() if unchanged and spec.get(field)):
                spec[field] = spec[field][:1]
        ips = [] if headless else spec.get("clusterIPs") or [ip for ip in (spec.get("clusterIP"),) if ip]
        families = list(spec.get("ipFamilies") or ())
        found = len(problems)
        for field, given, what in (("clusterIPs", ips, "cluster IP"), ("ipFamilies", families, "IP family")):
            many = "IP families" if what == "IP family" else "cluster IPs"
            if policy == SINGLE and len(given) == 2:
                why = f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {many} are specified"
            elif policy != SINGLE and len(given) == 1 and len(was.get(field) or ()) == 2:
                why = f"must be 'SingleStack' to release the secondary {what}"
            else:
                continue
            problems.append(Problem("spec.ipFamilyPolicy", f'Invalid value: "{policy}": {why}'))
        for i, ip in enumerate(ips[len(families) :], len(families)):
            families.append(NAMES[family(ip)])
            if family(ip) not in self._networks:
                what = f"Invalid value: {_go(ips)}: {families[-1]} is not configured on this cluster"
                problems.append(Problem(f"spec.clusterIPs[{i}]", what))
        if len(problems) > found:
            return
        known = [NAMES[kind] for kind in self._networks]
        if not open_ended:
            if policy == REQUIRE and len(known) < 2:
                why = "this cluster is not configured for dual-stack services"
                problems.append(Problem("spec.ipFamilyPolicy", f'Invalid value: "{REQUIRE}": {why}'))
            for i, name in enumerate(families):
                if name not in known:
                    what = f'Invalid value: "{name}": not configured on this cluster'
                    problems.append(Problem(f"spec.ipFamilies[{i}]", what))
        families = families or [NAMES[self._primary]]
        if policy != SINGLE and len(families) == 1 and (open_ended or len(known) == 2):
            families.append("IPv6" if families == ["IPv4"] else "IPv4")
        spec["ipFamilies"] = families

    def _cluster_ips(self, spec: dict[str, Any], mine: set[str], problems: list[Problem]) -> None:
        """An address of each of the families, those asked for or free ones."""
        wanted = list(spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else []))
        if wanted[:1] != ["None"]:
            for i, name in enumerate(spec["ipFamilies"]):
                span = self._ips.get(BY_NAME[name])
                if span is None:
                    continue  # what it had before the cluster lost that family it keeps
                if i < len(wanted):
                    self._check_address(wanted[i], span, mine, problems)
                elif (offset := span.lowest(set())) is not None:
                    wanted.append(span.address(offset))
                else:
                    what = f"failed to allocate a serviceIP: range is full: {span.network}"
                    problems.append(Problem("spec.clusterIPs", f"Internal error: {what}"))
                    return
        spec["clusterIP"], spec["clusterIPs"] = wanted[0], wanted

    @staticmethod
    def _check_address(ip: str, span: AddressSpan, mine: set[str], problems: list[Problem]) -> None:
        offset = span.offset(ip)
        if not 0 <= offset < span.size:
            why = (
                f"the provided IP ({ip}) is not in the valid range. The range of valid IPs is {span.network}"
            )
        elif offset in span and ip not in mine:
            why = "provided IP is already allocated"
        else:
            return
        what = f'Invalid value: []string{{{{"{ip}"}}}}: failed to allocate IP {ip}: {why}'
        problems.append(Problem("spec.clusterIPs", what))

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
            self._health_check_port(spec, named, mine, problems)
        else:
            spec.pop("healthCheckNodePort", None)

    def _health_check_port(
        self, spec: dict[str, Any], named: set[int], mine: set[int], problems: list[Problem]
    ) -> None:
        wanted = spec.get("healthCheckNodePort")
        if not wanted:
            if found := self._free(named, problems):
                spec["healthCheckNodePort"] = found
            return
        found_wrong: list[Problem] = []
        self._check(wanted, mine, "", found_wrong)
        for one in found_wrong:
            why = one.what.removeprefix(f"Invalid value: {wanted}: ")
            what = f"Internal error: failed to allocate requested HealthCheck NodePort {wanted}: {why}"
            problems.append(Problem("spec.healthCheckNodePort", what))

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
        self._ips = {kind: AddressSpan(network) for kind, network in self._networks.items()}
        self._node_ports = Span(len(NODE_PORTS), DYNAMIC_NODE_PORTS - NODE_PORTS.start)

    def _take(self, obj: Obj) -> None:
        for span, offset in self._offsets(obj):
            span.add(offset)
        for number in _node_ports(obj):
            self._node_ports.add(number - NODE_PORTS.start)

    def _give_back(self, obj: Obj) -> None:
        for span, offset in self._offsets(obj):
            span.discard(offset)
        for number in _node_ports(obj):
            self._node_ports.discard(number - NODE_PORTS.start)

    def _offsets(self, obj: Obj) -> Iterator[tuple[AddressSpan, int]]:
        for ip in _cluster_ips(obj):
            span = self._ips.get(family(ip))
            if span is not None and 0 <= (offset := span.offset(ip)) < span.size:
                yield span, offset


def _cluster_ips(obj: Obj) -> list[str]:
    """The addresses of a Service; none of a headless one."""
    spec = obj.get("spec") or {}
    return [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP")] if ip and ip != "None"]


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
        for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if field in new and new[field] == old.get(field):
                del new[field]
    else:
        _keep_addresses(new, old)
    had = {_port_key(p): p["nodePort"] for p in old.get("ports") or () if p.get("nodePort")}
    # allocateLoadBalancerNodePorts: false takes none away; who wants that leaves them out.
    wants, reachable = _wants_node_ports(new), new.get("type") in ("NodePort", "LoadBalancer")
    given = new.get("ports")
    ports = []
    for port in given if isinstance(given, list) and all(isinstance(p, dict) for p in given) else ():
        number = had.get(_port_key(port))
        if wants and number and not port.get("nodePort"):
            port = {**port, "nodePort": number}
        elif number and not reachable and port.get("nodePort") == number:
            port = {k: v for k, v in port.items() if k != "nodePort"}
        ports.append(port)
    if ports:
        new["ports"] = ports
    health = old.get("healthCheckNodePort")
    if health and new.get("type") == "LoadBalancer" and new.get("externalTrafficPolicy") == "Local":
        new.setdefault("healthCheckNodePort", health)
    elif health and new.get("healthCheckNodePort") == health:
        del new["healthCheckNodePort"]
    useless: tuple[str, ...] = () if reachable or new.get("externalIPs") else ("externalTrafficPolicy",)
    if new.get("type") != "LoadBalancer":
        useless += ("allocateLoadBalancerNodePorts", "loadBalancerClass")
    for field in useless:
        if field in new and new[field] == old.get(field):
            del new[field]
    return {**obj, "spec": new}


def _keep_addresses(new: dict[str, Any], old: dict[str, Any]) -> None:
    """clusterIP and the first of clusterIPs are one thing, whichever of them is given or changed
    (normalizeClusterIPs)."""
    given, listed = new.get("clusterIP"), new.get("clusterIPs")
    had = old.get("clusterIPs") or ([old["clusterIP"]] if old.get("clusterIP") else [])
    if had and (not given or given == had[0]) and not listed:
        new["clusterIP"], new["clusterIPs"] = had[0], had
    elif given and (not listed or (listed == had and given != had[0])):
        new["clusterIPs"] = [given]
    elif listed and isinstance(listed, list) and not given:
        new["clusterIP"] = listed[0]


def _go(texts: Iterable[str]) -> str:
    """A list of texts as Go's ``%#v`` writes it."""
    return "[]string{" + ", ".join(f'"{text}"' for text in texts) + "}"


def _port_key(port: dict[str, Any]) -> tuple[int, str]:
    return port.get("port", 0), port.get("protocol", "TCP")


# --- the Service of the API server itself ---------------------------------------------------------------

API_PORT = 6443
"""Where the API server listens on its node."""


def kubernetes_service(topology: Topology) -> tuple[Obj, Obj | None, Obj | None]:
    """The Service ``kubernetes`` in ``default``, its Endpoints and its EndpointSlice (None without a
    control-plane node), as kube-apiserver's own reconciler makes them: single stack, of
    the primary family."""
    primary = NAMES[topology.families[0]]
    address = str(ip_network(topology.service_cidr)[1])
    labels = {"component": "apiserver", "provider": "kubernetes"}
    service: Obj = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilies": [primary],
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
        "addressType": primary,
        "endpoints": [{"addresses": [ip], "conditions": {"ready": True}} for ip in masters],
        "ports": [port],
    }
    return service, endpoints, piece
