"""A small cluster's zone, for tests."""

from __future__ import annotations

import random

from nsk8s.api.types import EndpointSlice, Service
from nsk8s.api.views import view
from nsk8s.workloads.dns.answer import Answers
from nsk8s.workloads.dns.zone import Found, Record, Zone


def service(name: str, ip: str = "None", *, namespace: str = "shop", **spec: object) -> Service:
    """A Service; headless unless it has an address."""
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    ips = [ip, *(["fd00:10:96::50"] if ip == "10.96.0.50" else [])]
    meta = {"name": name, "namespace": namespace}
    found = view(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"clusterIP": ip, "clusterIPs": ips, "ports": ports, **spec},
        }
    )
    assert isinstance(found, Service)
    return found


def piece(service: str, *endpoints: dict[str, object], name: str = "", ports: object = None) -> EndpointSlice:
    """A slice of a Service."""
    meta = {
        "name": name or f"{service}-1",
        "namespace": "shop",
        "labels": {"kubernetes.io/service-name": service},
    }
    found = view(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": meta,
            "endpoints": list(endpoints),
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}] if ports is None else ports,
        }
    )
    assert isinstance(found, EndpointSlice)
    return found


def endpoint(address: str, hostname: str = "", *, ready: bool = True) -> dict[str, object]:
    """An endpoint of a slice."""
    made: dict[str, object] = {"addresses": [address], "conditions": {"ready": ready}}
    return {**made, "hostname": hostname} if hostname else made


def zone() -> Zone:
    """Services of every kind in the namespace shop; another namespace is empty."""
    made = Zone()
    made.serial = 7
    made.addresses = ["10.244.0.2", "10.244.0.3"]
    for namespace in ("shop", "empty", "kube-system"):
        made.put_namespace(namespace)
    made.put_service(service("web", "10.96.0.50"))
    made.put_service(service("db"))
    made.put_service(service("idle"))
    for name, target in (
        ("inside", "web.shop.svc.cluster.local"),
        ("outside", "example.com"),
        ("nowhere", "none.shop.svc.cluster.local"),
        ("one", "two.shop.svc.cluster.local"),
        ("two", "one.shop.svc.cluster.local"),
        ("number", "192.0.2.1"),
    ):
        made.put_service(service(name, "", type="ExternalName", externalName=target, clusterIPs=[]))
    made.put_slice(piece("web", endpoint("10.244.1.9")))
    made.put_slice(
        piece(
            "db",
            endpoint("10.244.1.2", "db-0"),
            endpoint("10.244.2.2", "db-1"),
            endpoint("10.244.2.3"),
            endpoint("10.244.2.4", "db-3", ready=False),
        )
    )
    made.put_slice(piece("db", endpoint("fd00::1:2", "db-0"), name="db-v6"))
    made.put_slice(piece("idle", endpoint("10.244.1.7", ready=False)))
    return made


def said(found: Found | None, zone: Zone) -> str:
    """What the zone says, as dig shows it."""
    if found is None:
        return "outside\n"
    status = "NXDOMAIN" if found.missing else "NOERROR"
    sections = [
        ("answer", found.records),
        ("authority", () if found.records else (zone.soa(found.zone),)),
        ("additional", found.extra),
    ]
    lines = [f"{status}{f', then {found.outside}' if found.outside else ''}\n"]
    lines += [f"{name}: {_line(record)}\n" for name, records in sections for record in records]
    return "".join(lines)


def _line(record: Record) -> str:
    return f"{record.name or '@'} {record.ttl} {record.type} {record.data}"


def answers(seed: int = 1) -> Answers:
    """Ready to answer."""
    made = Answers(zone(), random.Random(seed).shuffle)
    made.synced = True
    return made
