"""A flow table among others in one cluster: its services under names, addresses and ports of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from tests.flows.tables import Table
from tests.flows.views import Backed

PORTS_A_TABLE = 200
"""The nodePorts that tables use lie closer together than this."""


def moved(table: Table, number: int) -> Table:
    """`table` as the one of that number (0 is where it stands)."""
    flows = (
        replace(flow, to=_address(flow.to, number), port=_port(flow.port, number)) for flow in table.flows
    )
    services = tuple(_service(backed, number) for backed in table.services)
    return replace(table, services=services, flows=tuple(flows))


def _address(text: str, number: int) -> str:
    for network, third in (("10.96.", 0), ("198.51.", 100)):
        if text.startswith(f"{network}{third}."):
            return f"{network}{third + number}.{text.rpartition('.')[2]}"
    return text


def _port(port: int, number: int) -> int:
    return port + PORTS_A_TABLE * number if port >= 30000 else port


def _service(backed: Backed, number: int) -> Backed:
    service, piece = backed
    spec, points = service.spec, service.status.loadBalancer.ingress
    ports = tuple(_with(port, nodePort=_port(port.nodePort, number)) for port in spec.ports)
    spec = _with(
        spec,
        clusterIP=_address(spec.clusterIP, number),
        ports=ports,
        externalIPs=tuple(_address(ip, number) for ip in spec.externalIPs),
        healthCheckNodePort=_port(spec.healthCheckNodePort, number),
    )
    ingress = tuple(_with(point, ip=_address(point.ip, number)) for point in points)
    status = _with(service.status, loadBalancer=_with(service.status.loadBalancer, ingress=ingress))
    name = f"{service.metadata.name}-{number}"
    meta = _with(service.metadata, name=name)
    labels = {**piece.metadata.labels, "kubernetes.io/service-name": name}
    return (
        _with(service, metadata=meta, spec=spec, status=status),
        _with(piece, metadata=_with(piece.metadata, name=f"{name}-abcde", labels=labels)),
    )


def _with(struct: Any, **fields: Any) -> Any:  # noqa: ANN401 (any of the API's structs)
    return msgspec.structs.replace(struct, **fields)


def manifests(table: Table) -> list[dict[str, Any]]:
    """The services of a table and their slices as a user would write them; the status stands in them too."""
    found = []
    for service, piece in table.services:
        found.append({"apiVersion": "v1", "kind": "Service", **_written(service)})
        found.append({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", **_written(piece)})
    return found


def _written(value: Any) -> Any:  # noqa: ANN401
    """A struct as JSON, without what has no value."""
    if isinstance(value, msgspec.Struct):
        pairs = ((name, _written(getattr(value, name))) for name in value.__struct_fields__)
        return {name: item for name, item in pairs if item not in ("", 0, None, {}, []) or item is False}
    if isinstance(value, list | tuple):
        return [_written(item) for item in value]
    return value
