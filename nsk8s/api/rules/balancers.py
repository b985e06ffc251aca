"""What Services of type LoadBalancer have, and no others (`pkg/apis/core/validation`)."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from nsk8s.api import names
from nsk8s.api.findings import Findings
from nsk8s.api.types import LoadBalancerStatus, Obj, Service, ServiceSpec

ONLY = "may only be used when `type` is 'LoadBalancer'"
BOTH = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
CIDRS = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
ADDRESSES = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
IP_MODES = ("Proxy", "VIP")


def balancer(spec: ServiceSpec, findings: Findings) -> None:
    """The fields that are about a load balancer. The API server's errors name loadBalancerSourceRanges with a
    capital letter."""
    wanted = spec.type == "LoadBalancer"
    ranges = "spec.LoadBalancerSourceRanges"
    if spec.loadBalancerSourceRanges and not wanted:
        findings.forbidden(ranges, ONLY)
    for i, cidr in enumerate(spec.loadBalancerSourceRanges):
        try:
            ip_network(cidr.strip() if "/" in cidr else "", strict=False)
        except ValueError:
            findings.invalid(f"{ranges}[{i}]", cidr.strip(), CIDRS)
    if spec.allocateLoadBalancerNodePorts is not None and not wanted:
        findings.forbidden("spec.allocateLoadBalancerNodePorts", ONLY)
    if spec.loadBalancerClass is not None:
        if not wanted:
            findings.forbidden("spec.loadBalancerClass", ONLY)
        elif wrong := names.label_key(spec.loadBalancerClass):
            findings.invalid("spec.loadBalancerClass", spec.loadBalancerClass, wrong)
    if spec.healthCheckNodePort:
        if not (wanted and spec.externalTrafficPolicy == "Local"):
            findings.invalid("spec.healthCheckNodePort", spec.healthCheckNodePort, BOTH)
        else:
            findings.port("spec.healthCheckNodePort", spec.healthCheckNodePort)


def balancer_update(before: Obj, after: Obj, findings: Findings) -> None:
    """What stays as it is from one spec to the next."""
    if not before.get("type") == after.get("type") == "LoadBalancer":
        return
    if before.get("loadBalancerClass") != after.get("loadBalancerClass"):
        findings.invalid("spec.loadBalancerClass", after.get("loadBalancerClass"), "may not change once set")
    checked = all(spec.get("externalTrafficPolicy") == "Local" for spec in (before, after))
    if checked and before.get("healthCheckNodePort") != after.get("healthCheckNodePort"):
        findings.forbidden("spec.healthCheckNodePort", "field is immutable")


def balancer_status(view: Service, findings: Findings) -> None:
    """The addresses that a load balancer is said to have."""
    at = "status.loadBalancer.ingress"
    balancer: LoadBalancerStatus = view.status.loadBalancer
    if balancer.ingress and view.spec.type != "LoadBalancer":
        findings.forbidden(at, "may only be used when `spec.type` is 'LoadBalancer'")
        return
    for i, point in enumerate(balancer.ingress):
        path = f"{at}[{i}]"
        if point.ip:
            if not _address(point.ip):
                findings.invalid(f"{path}.ip", point.ip, ADDRESSES)
            findings.one_of(f"{path}.ipMode", point.ipMode or "VIP", IP_MODES)
        elif point.ipMode is not None:
            findings.forbidden(f"{path}.ipMode", "may not be specified when `ip` is not set")
        if point.hostname:
            findings.name(f"{path}.hostname", point.hostname, names.subdomain(point.hostname))
            if _address(point.hostname):
                findings.invalid(f"{path}.hostname", point.hostname, "must be a DNS name, not an IP address")


def _address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
