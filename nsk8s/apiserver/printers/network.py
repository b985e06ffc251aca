"""Services and what is behind and in front of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from nsk8s.api.types import Obj
from nsk8s.apiserver.printers.columns import (
    AGE,
    NAME,
    NONE,
    SELECTOR,
    UNSET,
    Column,
    Printer,
    age_of,
    at,
    ingress_points,
    label_text,
    name_of,
    selector_text,
    with_more,
)


def _service(obj: Obj, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    ports = ",".join(
        f"{p['port']}{':' + str(p['nodePort']) if p.get('nodePort') else ''}/{p.get('protocol', 'TCP')}"
        for p in spec.get("ports") or ()
    )
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return [
        name_of(obj),
        spec.get("type", "ClusterIP"),
        addresses[0] or NONE,
        _external(obj, spec),
        ports or NONE,
        age_of(obj, now),
        label_text(spec.get("selector")),
    ]


def _external(obj: Obj, spec: Obj) -> str:
    given: list[str] = list(spec.get("externalIPs") or ())
    match spec.get("type", "ClusterIP"):
        case "ExternalName":
            return str(spec.get("externalName", ""))
        case "LoadBalancer":
            return ",".join([*ingress_points(obj.get("status")), *given]) or "<pending>"
    return ",".join(given) or NONE


def _endpoints(obj: Obj, now: datetime) -> list[Any]:
    found: list[str] = []
    for subset in obj.get("subsets") or ():
        addresses = [_host(one.get("ip", "")) for one in subset.get("addresses") or ()]
        if ports := subset.get("ports"):
            found += [f"{address}:{port.get('port', 0)}" for port in ports for address in addresses]
        else:
            found += [one.get("ip", "") for one in subset.get("addresses") or ()]
    return [name_of(obj), with_more(found) if obj.get("subsets") else NONE, age_of(obj, now)]


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip


def _slice(obj: Obj, now: datetime) -> list[Any]:
    ports = [
        str(p["port"]) if p.get("port") is not None else p.get("name", "*") for p in obj.get("ports") or ()
    ]
    found = [a for e in obj.get("endpoints") or () for a in e.get("addresses") or ()]
    return [
        name_of(obj),
        obj.get("addressType", ""),
        with_more(ports) or UNSET,
        with_more(found) or UNSET,
        age_of(obj, now),
    ]


def _ingress(obj: Obj, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    return [
        name_of(obj),
        spec.get("ingressClassName") or NONE,
        _hosts(spec.get("rules") or []),
        ",".join(ingress_points(obj.get("status"))),
        "80, 443" if spec.get("tls") else "80",
        age_of(obj, now),
    ]


def _hosts(rules: list[Obj]) -> str:
    """Three hosts at most; the rest is counted in rules (upstream's formatHosts)."""
    shown: list[str] = []
    for rule in rules:
        if len(shown) == 3:
            return f"{','.join(shown)} + {len(rules) - 3} more..."
        if rule.get("host"):
            shown.append(rule["host"])
    return ",".join(shown) or "*"


def _ingress_class(obj: Obj, now: datetime) -> list[Any]:
    about = at(obj, "spec", "parameters")
    parameters = NONE
    if about:
        group = f".{about['apiGroup']}" if about.get("apiGroup") is not None else ""
        parameters = f"{about.get('kind', '')}{group}/{about.get('name', '')}"
    return [name_of(obj), at(obj, "spec", "controller") or "", parameters, age_of(obj, now)]


def _network_policy(obj: Obj, now: datetime) -> list[Any]:
    return [name_of(obj), selector_text(at(obj, "spec", "podSelector")) or NONE, age_of(obj, now)]


def _service_cidr(obj: Obj, now: datetime) -> list[Any]:
    return [name_of(obj), ",".join(at(obj, "spec", "cidrs") or ()), age_of(obj, now)]


def _ip_address(obj: Obj, now: datetime) -> list[Any]:
    parent = at(obj, "spec", "parentRef")
    if not parent:
        return [name_of(obj), NONE]
    kind = ".".join(word for word in (parent.get("resource"), parent.get("group")) if word).lower()
    words = [kind, parent.get("namespace"), parent.get("name", "")]
    return [name_of(obj), "/".join(word for word in words if word)]


PRINTERS: dict[str, Printer] = {
    "services": Printer(
        (
            NAME,
            Column("Type", description="How it can be reached."),
            Column("Cluster-IP", description="Its address inside the cluster."),
            Column("External-IP", description="Its addresses outside the cluster."),
            Column("Port(s)", description="Its ports, with those of the nodes."),
            AGE,
            *SELECTOR,
        ),
        _service,
    ),
    "endpoints": Printer(
        (NAME, Column("Endpoints", description="Addresses and ports behind the service."), AGE), _endpoints
    ),
    "endpointslices.discovery.k8s.io": Printer(
        (
            NAME,
            Column("AddressType", description="What its addresses are."),
            Column("Ports", description="The ports of every endpoint."),
            Column("Endpoints", description="The addresses of the endpoints."),
            AGE,
        ),
        _slice,
    ),
    "ingresses.networking.k8s.io": Printer(
        (
            NAME,
            Column("Class", description="The IngressClass that takes care of it."),
            Column("Hosts", description="The hosts of its rules."),
            Column("Address", description="Where its load balancer can be reached."),
            Column("Ports", description="The ports that are open: 443 with TLS only."),
            AGE,
        ),
        _ingress,
    ),
    "ingressclasses.networking.k8s.io": Printer(
        (
            NAME,
            Column("Controller", description="What takes care of ingresses of this class."),
            Column("Parameters", description="The object with the controller's parameters."),
            AGE,
        ),
        _ingress_class,
    ),
    "networkpolicies.networking.k8s.io": Printer(
        (NAME, Column("Pod-Selector", description="The labels of the pods it applies to."), AGE),
        _network_policy,
    ),
    "servicecidrs.networking.k8s.io": Printer(
        (NAME, Column("CIDRs", description="Where cluster IPs are taken from."), AGE), _service_cidr
    ),
    "ipaddresses.networking.k8s.io": Printer(
        (NAME, Column("ParentRef", description="What has the address.")), _ip_address
    ),
}
