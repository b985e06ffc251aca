"""Ingresses, their classes and network policies (`pkg/apis/networking/validation`)."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from nsk8s.api import names
from nsk8s.api.findings import Findings
from nsk8s.api.policytypes import IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort
from nsk8s.api.rules.pods import PROTOCOLS
from nsk8s.api.rules.rule import AnyObject, Rule, frozen
from nsk8s.api.rules.workloads import label_selector
from nsk8s.api.types import Obj, Struct

PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
CONTROLLER_LENGTH = 250


class Reference(Struct, frozen=True):
    """A TypedLocalObjectReference, or the parameters of a class."""

    apiGroup: str | None = None
    kind: str = ""
    name: str = ""
    scope: str = "Cluster"
    namespace: str | None = None


class BackendPort(Struct, frozen=True):
    """A ServiceBackendPort."""

    name: str = ""
    number: int = 0


class ServiceBackend(Struct, frozen=True):
    """An IngressServiceBackend."""

    name: str = ""
    port: BackendPort = BackendPort()


class Backend(Struct, frozen=True):
    """An IngressBackend."""

    service: ServiceBackend | None = None
    resource: Reference | None = None


class Path(Struct, frozen=True):
    """An HTTPIngressPath."""

    path: str = ""
    pathType: str | None = None
    backend: Backend = Backend()


class Http(Struct, frozen=True):
    """An HTTPIngressRuleValue."""

    paths: tuple[Path, ...] = ()


class IngressRule(Struct, frozen=True):
    """An IngressRule."""

    host: str = ""
    http: Http | None = None


class Tls(Struct, frozen=True):
    """An IngressTLS."""

    hosts: tuple[str, ...] = ()
    secretName: str = ""


class IngressSpec(Struct, frozen=True):
    """An IngressSpec."""

    ingressClassName: str | None = None
    defaultBackend: Backend | None = None
    rules: tuple[IngressRule, ...] = ()
    tls: tuple[Tls, ...] = ()


class Ingress(AnyObject, frozen=True):
    """An Ingress."""

    spec: IngressSpec = IngressSpec()


def _ingress(view: Ingress, findings: Findings) -> None:
    spec = view.spec
    if not spec.rules and spec.defaultBackend is None:
        findings.invalid("spec", [], "either `defaultBackend` or `rules` must be specified")
    if spec.defaultBackend is not None:
        _backend(spec.defaultBackend, "spec.defaultBackend", findings)
    for i, rule in enumerate(spec.rules):
        at = f"spec.rules[{i}]"
        if rule.host:
            _host(rule.host, f"{at}.host", findings)
        if rule.http is not None:
            if not rule.http.paths:
                findings.required(f"{at}.http.paths")
            for j, path in enumerate(rule.http.paths):
                _path(path, f"{at}.http.paths[{j}]", findings)
    for i, tls in enumerate(spec.tls):
        for j, host in enumerate(tls.hosts):
            _dns_name(host, f"spec.tls[{i}].hosts[{j}]", findings)
        if tls.secretName:
            findings.name(f"spec.tls[{i}].secretName", tls.secretName, names.subdomain(tls.secretName))
    if spec.ingressClassName is not None:
        findings.name("spec.ingressClassName", spec.ingressClassName, names.subdomain(spec.ingressClassName))


def _host(host: str, path: str, findings: Findings) -> None:
    try:
        ip_address(host)
    except ValueError:
        pass
    else:
        findings.invalid(path, host, "must be a DNS name, not an IP address")
    _dns_name(host, path, findings)


def _dns_name(host: str, path: str, findings: Findings) -> None:
    wrong = names.wildcard_subdomain(host) if "*" in host else names.subdomain(host)
    findings.name(path, host, wrong)


def _path(path: Path, at: str, findings: Findings) -> None:
    if path.pathType is None:
        hint = 'add pathType: Prefix, which is what "/" most often means'
        findings.required(f"{at}.pathType", "pathType must be specified", hint)
        return
    where, value = f"{at}.path", path.path
    if path.pathType in ("Exact", "Prefix"):
        if not value.startswith("/"):
            findings.invalid(where, value, "must be an absolute path")
        for sequence in ("//", "/./", "/../", "%2f", "%2F"):
            if sequence in value:
                findings.invalid(where, value, f"must not contain '{sequence}'")
        for suffix in ("/..", "/."):
            if value.endswith(suffix):
                findings.invalid(where, value, f"cannot end with '{suffix}'")
    elif path.pathType == "ImplementationSpecific":
        if value and not value.startswith("/"):
            findings.invalid(where, value, "must be an absolute path")
    else:
        findings.one_of(f"{at}.pathType", path.pathType, PATH_TYPES)
    _backend(path.backend, f"{at}.backend", findings)


def _backend(backend: Backend, at: str, findings: Findings) -> None:
    service = backend.service
    if backend.resource is not None and service is not None:
        findings.invalid(at, "", "cannot set both resource and service backends")
    elif backend.resource is not None:
        _reference(backend.resource, f"{at}.resource", findings)
    elif service is None:
        findings.invalid(at, "", "resource or service backend is required")
    else:
        if service.name:
            findings.name(f"{at}.service.name", service.name, names.label_1035(service.name))
        else:
            findings.required(f"{at}.service.name")
        if service.port.name and service.port.number:
            findings.invalid(at, "", "cannot set both port name & port number")
        elif service.port.name:
            if wrong := names.port_name(service.port.name):
                findings.invalid(f"{at}.service.port.name", service.port.name, wrong)
        elif service.port.number:
            findings.port(f"{at}.service.port.number", service.port.number)
        else:
            findings.required(at, "port name or number is required")


def _reference(about: Reference, at: str, findings: Findings) -> None:
    if about.apiGroup is not None:
        findings.name(f"{at}.apiGroup", about.apiGroup, names.subdomain(about.apiGroup))
    for field, value in (("kind", about.kind), ("name", about.name)):
        if not value:
            findings.required(f"{at}.{field}")
        elif wrong := names.path_segment(value):
            findings.invalid(f"{at}.{field}", value, wrong)


# --- classes ----------------------------------------------------------------------------------------


class IngressClassSpec(Struct, frozen=True):
    """An IngressClassSpec."""

    controller: str = ""
    parameters: Reference | None = None


class IngressClass(AnyObject, frozen=True):
    """An IngressClass."""

    spec: IngressClassSpec = IngressClassSpec()


def _ingress_class(view: IngressClass, findings: Findings) -> None:
    controller, about = view.spec.controller, view.spec.parameters
    if not controller:
        findings.required("spec.controller")
    elif len(controller) > CONTROLLER_LENGTH:
        what = f"Too long: may not be more than {CONTROLLER_LENGTH} bytes"
        findings.add("spec.controller", what)
    elif not all(controller.partition("/")):
        why = 'must be a domain-prefixed path (such as "acme.io/foo")'
        findings.invalid("spec.controller", controller, why)
    elif wrong := names.subdomain(controller.partition("/")[0]):
        findings.invalid("spec.controller", controller.partition("/")[0], wrong)
    if about is None:
        return
    at = "spec.parameters"
    _reference(about, at, findings)
    findings.one_of(f"{at}.scope", about.scope, ("Cluster", "Namespace"))
    if about.scope == "Namespace" and about.namespace is None:
        findings.required(f"{at}.namespace", "`parameters.scope` is set to 'Namespace'")
    elif about.scope == "Cluster" and about.namespace is not None:
        findings.forbidden(f"{at}.namespace", "`parameters.scope` is set to 'Cluster'")
    elif about.namespace is not None:
        findings.name(f"{at}.namespace", about.namespace, names.label(about.namespace))


def _ingress_class_update(old: Obj, new: Obj, findings: Findings) -> None:
    frozen(old, new, "spec.controller", findings)


# --- policies ---------------------------------------------------------------------------------------


def _network_policy(view: NetworkPolicy, findings: Findings) -> None:
    spec = view.spec
    label_selector(spec.podSelector, "spec.podSelector", findings)
    for direction, rules in (("ingress", spec.ingress), ("egress", spec.egress)):
        for i, rule in enumerate(rules):
            at = f"spec.{direction}[{i}]"
            for j, port in enumerate(rule.ports):
                _policy_port(port, f"{at}.ports[{j}]", findings)
            side, peers = ("from", rule.from_) if direction == "ingress" else ("to", rule.to)
            for j, peer in enumerate(peers):
                _peer(peer, f"{at}.{side}[{j}]", findings)
    if len(spec.policyTypes) > 2:
        findings.invalid(
            "spec.policyTypes", list(spec.policyTypes), "may not specify more than two policyTypes"
        )
        return
    for i, kind in enumerate(spec.policyTypes):
        findings.one_of(f"spec.policyTypes[{i}]", kind, ("Egress", "Ingress"))


def _policy_port(port: NetworkPolicyPort, at: str, findings: Findings) -> None:
    findings.one_of(f"{at}.protocol", port.protocol, PROTOCOLS)
    end = port.endPort
    if port.port is None:
        if end is not None:
            findings.invalid(f"{at}.endPort", end, "may not be specified when `port` is not specified")
        return
    findings.port_or_name(f"{at}.port", port.port)
    if end is None:
        return
    if isinstance(port.port, str):
        findings.invalid(f"{at}.endPort", end, "may not be specified when `port` is non-numeric")
    else:
        if end < port.port:
            findings.invalid(f"{at}.endPort", end, "must be greater than or equal to `port`")
        findings.port(f"{at}.endPort", end)


def _peer(peer: NetworkPolicyPeer, at: str, findings: Findings) -> None:
    selectors = {"podSelector": peer.podSelector, "namespaceSelector": peer.namespaceSelector}
    given = {field: selector for field, selector in selectors.items() if selector is not None}
    for field, selector in given.items():
        label_selector(selector, f"{at}.{field}", findings)
    if peer.ipBlock is not None:
        _ip_block(peer.ipBlock, f"{at}.ipBlock", findings)
        if given:
            findings.forbidden(at, "may not specify both ipBlock and another peer")
    elif not given:
        findings.required(at, "must specify a peer")


def _ip_block(block: IPBlock, at: str, findings: Findings) -> None:
    if not block.cidr:
        findings.required(f"{at}.cidr")
        return
    whole = _network(block.cidr, f"{at}.cidr", findings)
    if whole is None:
        return
    for i, text in enumerate(block.except_):
        part = _network(text, f"{at}.except[{i}]", findings)
        if part is not None and not _strictly_within(part, whole):
            findings.invalid(f"{at}.except[{i}]", text, "must be a strict subset of `cidr`")


def _strictly_within(part: IPv4Network | IPv6Network, whole: IPv4Network | IPv6Network) -> bool:
    return part.network_address in whole and part.prefixlen > whole.prefixlen


def _network(text: str, path: str, findings: Findings) -> IPv4Network | IPv6Network | None:
    address, slash, length = text.partition("/")
    try:
        if slash and length.isdecimal():
            return ip_network(f"{address}/{length}", strict=False)
    except ValueError:
        pass
    findings.invalid(path, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
    return None


RULES: dict[str, Rule] = {
    "Ingress": Rule(Ingress, _ingress),
    "IngressClass": Rule(IngressClass, _ingress_class, update=_ingress_class_update),
    "NetworkPolicy": Rule(NetworkPolicy, _network_policy),
}
