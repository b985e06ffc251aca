"""Services, Endpoints and EndpointSlices (`pkg/apis/core/validation`, `pkg/apis/discovery/validation`)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from nsk8s.api import names
from nsk8s.api.families import BY_NAME, family
from nsk8s.api.findings import Findings
from nsk8s.api.rules.balancers import balancer, balancer_status, balancer_update
from nsk8s.api.rules.pods import PROTOCOLS, ip_address
from nsk8s.api.rules.rule import AnyObject, Rule, frozen
from nsk8s.api.types import EndpointSlice, Obj, Service, ServicePort, ServiceSpec, Struct

NODE_PORTS = range(30000, 32768)
"""kube-apiserver's default --service-node-port-range."""
TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
AFFINITY_SECONDS = 86400
"""The longest session affinity: a day."""
DISTRIBUTIONS = ("PreferClose", "PreferSameNode", "PreferSameZone")
SLICE_ENDPOINTS = 1000
"""The most endpoints an EndpointSlice can have."""


def service(view: Service, findings: Findings) -> None:
    """A Service."""
    spec = view.spec
    findings.one_of("spec.type", spec.type, TYPES)
    findings.labels("spec.selector", spec.selector)
    headless = spec.clusterIP == "None"
    if not spec.ports and not headless and spec.type != "ExternalName":
        findings.required("spec.ports", hint="name at least one port, such as {port: 80}")
    _ports(spec, findings)
    if headless and spec.type in ("NodePort", "LoadBalancer"):
        findings.invalid("spec.clusterIP", "None", f"may not be set to 'None' for {spec.type} services")
    elif spec.clusterIP and not headless:
        if spec.type == "ExternalName":
            findings.forbidden("spec.clusterIP", "may not be set for ExternalName services")
        elif ip_address(spec.clusterIP, "spec.clusterIP", findings) and spec.ipFamilies:
            _of_family(spec.clusterIP, 0, spec.ipFamilies, findings)
    _stacks(spec, findings)
    if spec.type == "ExternalName":
        name = spec.externalName.removesuffix(".")
        if not name:
            findings.required("spec.externalName")
        else:
            findings.name("spec.externalName", name, names.subdomain(name))
    for i, address in enumerate(spec.externalIPs):
        path = f"spec.externalIPs[{i}]"
        if ip_address(address, path, findings):
            _routable(address, path, findings)
    _affinity(spec, findings)
    _traffic(spec, findings)
    balancer(spec, findings)


def _stacks(spec: ServiceSpec, findings: Findings) -> None:
    """The families, and the addresses of each (ValidateServiceClusterIPsRelatedFields)."""
    ips, families = spec.clusterIPs, spec.ipFamilies
    if spec.type == "ExternalName":
        for field, given in (("clusterIPs", ips), ("ipFamilies", families)):
            if given:
                findings.forbidden(f"spec.{field}", "may not be set for ExternalName services")
        if spec.ipFamilyPolicy:
            findings.forbidden("spec.ipFamilyPolicy", "may not be set for ExternalName services")
        return
    if spec.clusterIP and ips and ips[0] != spec.clusterIP:
        findings.invalid("spec.clusterIPs", ips, "first value must match `clusterIP`")
    elif ips and not spec.clusterIP:
        findings.invalid("spec.clusterIPs", ips, "must be empty when `clusterIP` is not specified")
    for i, name in enumerate(families):
        findings.one_of(f"spec.ipFamilies[{i}]", name, tuple(BY_NAME))
        if name in families[:i]:
            findings.duplicate(f"spec.ipFamilies[{i}]", name)
    if spec.ipFamilyPolicy is not None:
        findings.one_of("spec.ipFamilyPolicy", spec.ipFamilyPolicy, FAMILY_POLICIES)
    if len(ips) < 2:
        return
    if ips[0] == "None":
        findings.invalid("spec.clusterIPs", ips, "'None' must be the first and only value")
        return
    sound = [ip_address(ip, f"spec.clusterIPs[{i}]", findings) for i, ip in enumerate(ips)]
    if len(ips) > 2:
        findings.invalid("spec.clusterIPs", ips, "may only hold up to 2 values")
    if not all(sound):
        return
    if len({family(ip) for ip in ips}) < 2:
        findings.invalid("spec.clusterIPs", ips, "may specify no more than one IP for each IP family")
    for i, ip in enumerate(ips[1 : len(families)], 1):
        _of_family(ip, i, families, findings)


def _of_family(ip: str, i: int, families: Sequence[str], findings: Findings) -> None:
    if families[i] in BY_NAME and family(ip) != BY_NAME[families[i]]:
        why = f"expected an {families[i]} value as indicated by `ipFamilies[{i}]`"
        findings.invalid(f"spec.clusterIPs[{i}]", ip, why)


def _ports(spec: ServiceSpec, findings: Findings) -> None:
    names_taken: set[str] = set()
    taken: set[tuple[str, int]] = set()
    node_ports: set[tuple[str, int]] = set()
    for i, port in enumerate(spec.ports):
        path = f"spec.ports[{i}]"
        if len(spec.ports) > 1 and not port.name:
            findings.required(f"{path}.name", hint="name the ports of a service that has several")
        elif port.name:
            findings.name(f"{path}.name", port.name, names.label(port.name))
            if port.name in names_taken:
                findings.duplicate(f"{path}.name", port.name)
            names_taken.add(port.name)
        findings.port(f"{path}.port", port.port)
        findings.one_of(f"{path}.protocol", port.protocol, PROTOCOLS)
        if port.targetPort not in (0, ""):
            findings.port_or_name(f"{path}.targetPort", port.targetPort)
        if (port.protocol, port.port) in taken:
            value = {"protocol": port.protocol, "port": port.port}
            findings.duplicate(path, value, "a port and protocol can be there once")
        taken.add((port.protocol, port.port))
        if port.nodePort:
            _node_port(port, spec.type, path, node_ports, findings)


def _node_port(
    port: ServicePort, kind: str, path: str, taken: set[tuple[str, int]], findings: Findings
) -> None:
    if kind not in ("NodePort", "LoadBalancer"):
        findings.forbidden(
            f"{path}.nodePort", f"may not be used when `type` is '{kind}'", "set spec.type: NodePort"
        )
    elif port.nodePort not in NODE_PORTS:
        findings.invalid(
            f"{path}.nodePort",
            port.nodePort,
            "provided port is not in the valid range. The range of valid ports is "
            f"{NODE_PORTS.start}-{NODE_PORTS.stop - 1}",
            "choose one inside, or leave nodePort out and one is given",
        )
    elif (port.protocol, port.nodePort) in taken:
        findings.duplicate(f"{path}.nodePort", port.nodePort, "a nodePort can be used once")
    taken.add((port.protocol, port.nodePort))


def _affinity(spec: ServiceSpec, findings: Findings) -> None:
    findings.one_of("spec.sessionAffinity", spec.sessionAffinity, ("ClientIP", "None"))
    config = spec.sessionAffinityConfig
    if config is None:
        return
    if spec.sessionAffinity == "None":
        findings.forbidden(
            "spec.sessionAffinityConfig",
            "must not be set when session affinity is None",
            "set spec.sessionAffinity: ClientIP",
        )
    elif not 1 <= config.clientIP.timeoutSeconds <= AFFINITY_SECONDS:
        findings.invalid(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            config.clientIP.timeoutSeconds,
            f"must be greater than 0 and less than {AFFINITY_SECONDS}",
        )


def _traffic(spec: ServiceSpec, findings: Findings) -> None:
    external = spec.externalTrafficPolicy
    findings.one_of("spec.externalTrafficPolicy", external or "Cluster", ("Cluster", "Local"))
    findings.one_of("spec.internalTrafficPolicy", spec.internalTrafficPolicy, ("Cluster", "Local"))
    reachable = spec.type in ("NodePort", "LoadBalancer") or (spec.type == "ClusterIP" and spec.externalIPs)
    if external and not reachable:
        why = "may only be set for externally-accessible services"
        findings.invalid("spec.externalTrafficPolicy", external, why)
    if spec.trafficDistribution is not None:
        findings.one_of("spec.trafficDistribution", spec.trafficDistribution, DISTRIBUTIONS)


def _routable(address: str, path: str, findings: Findings) -> None:
    """An address that packets from elsewhere can be sent to."""
    ip = ipaddress.ip_address(address)
    for wrong, why in (
        (ip.is_unspecified, "may not be unspecified (0.0.0.0 or ::)"),
        (ip.is_loopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (ip.is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (ip.is_multicast, "may not be in the multicast range (224.0.0.0/4, ff00::/8)"),
    ):
        if wrong:
            findings.invalid(path, address, why)


def _update(old: Obj, new: Obj, findings: Findings) -> None:
    """The primary family and cluster IP of a Service stay, unless it stops or begins to have any; the
    secondary ones come and go with the policy. A load balancer keeps who is in charge of it."""
    before, after = old["spec"], new["spec"]
    balancer_update(before, after, findings)
    if "ExternalName" in (before.get("type"), after.get("type")):
        return
    was, now = (s.get("clusterIPs") or [s.get("clusterIP") or ""] for s in (before, after))
    if was == ["None"] == now:
        return
    hint = "delete the service and create it with the new one"
    for i, ip in enumerate(was):
        if ip and (now[i] != ip if i < len(now) else i == 0):
            findings.invalid(f"spec.clusterIPs[{i}]", now, "may not change once set", hint)
    held, given = before.get("ipFamilies") or [], after.get("ipFamilies") or []
    if not given or "None" in (was[0], now[0]):
        return
    if any(name != given[i] for i, name in enumerate(held[: len(given)])):
        findings.invalid("spec.ipFamilies[0]", given, "may not change once set", hint)


# --- endpoints --------------------------------------------------------------------------------------


class EndpointAddress(Struct, frozen=True):
    """An address of Endpoints."""

    ip: str = ""
    hostname: str = ""


class SubsetPort(Struct, frozen=True):
    """A port of Endpoints."""

    name: str = ""
    port: int = 0
    protocol: str = "TCP"


class Subset(Struct, frozen=True):
    """Addresses of Endpoints with their ports."""

    addresses: tuple[EndpointAddress, ...] = ()
    notReadyAddresses: tuple[EndpointAddress, ...] = ()
    ports: tuple[SubsetPort, ...] = ()


class Endpoints(AnyObject, frozen=True):
    """Where a Service's packets go, as users write it by hand; acted on through EndpointSlices."""

    subsets: tuple[Subset, ...] = ()


def endpoints(view: Endpoints, findings: Findings) -> None:
    """An Endpoints object."""
    for i, subset in enumerate(view.subsets):
        path = f"subsets[{i}]"
        if not subset.addresses and not subset.notReadyAddresses:
            findings.required(path, "must specify `addresses` or `notReadyAddresses`")
        for field, addresses in (
            ("addresses", subset.addresses),
            ("notReadyAddresses", subset.notReadyAddresses),
        ):
            for j, address in enumerate(addresses):
                at = f"{path}.{field}[{j}].ip"
                if ip_address(address.ip, at, findings):
                    _routable(address.ip, at, findings)
        ports = [(port.name, port.port, port.protocol) for port in subset.ports]
        _endpoint_ports(ports, f"{path}.ports", findings)


def endpoint_slice(view: EndpointSlice, findings: Findings) -> None:
    """An EndpointSlice."""
    endpoints = view.endpoints or ()
    findings.one_of("addressType", view.addressType, ("IPv4", "IPv6", "FQDN"))
    endpoints = view.endpoints or ()
    if len(endpoints) > SLICE_ENDPOINTS:
        findings.add("endpoints", f"Too many: {len(endpoints)}: must have at most {SLICE_ENDPOINTS} items")
    for i, endpoint in enumerate(endpoints):
        path = f"endpoints[{i}].addresses"
        if not endpoint.addresses:
            findings.required(path, "must contain at least 1 address")
        for j, address in enumerate(endpoint.addresses):
            at = f"{path}[{j}]"
            if view.addressType not in BY_NAME or not ip_address(address, at, findings):
                continue
            if family(address) != BY_NAME[view.addressType]:
                findings.invalid(at, address, f"must be an {view.addressType} address")
            else:
                _routable(address, at, findings)
    ports = [(port.name or "", port.port, port.protocol) for port in view.ports or ()]
    _endpoint_ports(ports, "ports", findings)


def _endpoint_ports(ports: Sequence[tuple[str, int | None, str]], path: str, findings: Findings) -> None:
    """`ports` are (name, number, protocol); a slice's port without a number stands for all ports."""
    taken: set[str] = set()
    for i, (name, number, protocol) in enumerate(ports):
        at = f"{path}[{i}]"
        if name:
            findings.name(f"{at}.name", name, names.label(name))
        if name in taken:
            if name:
                findings.duplicate(f"{at}.name", name)
            else:
                findings.required(f"{at}.name", hint="of several ports only one can be without a name")
        taken.add(name)
        if number is not None:
            findings.port(f"{at}.port", number)
        findings.one_of(f"{at}.protocol", protocol, PROTOCOLS)


def _slice_update(old: Obj, new: Obj, findings: Findings) -> None:
    frozen(old, new, "addressType", findings)


RULES: dict[str, Rule] = {
    "Service": Rule(Service, service, names.label_1035, _update, balancer_status),
    "Endpoints": Rule(Endpoints, endpoints),
    "EndpointSlice": Rule(EndpointSlice, endpoint_slice, update=_slice_update),
}
