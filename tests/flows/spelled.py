"""A flow table in IPv6: the same machines, services and flows under the addresses that a dual-stack cluster
has for them."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_address

import msgspec.structs

from nsk8s.api.topology import ClientTopology, NodeTopology, Topology
from tests.flows.tables import Table
from tests.flows.views import TOPOLOGY, Backed

DUAL = msgspec.structs.replace(
    TOPOLOGY,
    nodes=tuple(
        NodeTopology(
            node.name,
            node.role,
            (*node.addresses, f"fd00:18::{10 + number}"),
            (*node.pod_cidrs, f"fd00:244:{number}::/64"),
        )
        for number, node in enumerate(TOPOLOGY.nodes, 1)
    ),
    clients=(ClientTopology("external", ("172.18.0.200", "fd00:18::200")),),
    pod_cidrs=(*TOPOLOGY.pod_cidrs, "fd00:244::/32"),
    service_cidrs=(*TOPOLOGY.service_cidrs, "fd00:96::/108"),
    node_cidrs=(*TOPOLOGY.node_cidrs, "fd00:18::/64"),
)
"""The cluster of the tables with both families."""

_ADDRESS = re.compile(r"\b(\d+)\.(\d+)\.(\d+)\.(\d+)(/\d+|:\d+)?(?![\d.])")
_NETWORKS = {"172.18.0.128/25": "fd00:18::200/127"}
"""The load balancers' source range has the client in it, and nobody else."""
_WAYS = {
    ("10", "244"): "fd00:244:{:x}::{}",
    ("10", "96"): "fd00:96::{:x}:{}",
    ("172", "18"): "fd00:18::{:x}:{}",
    ("198", "51"): "fd00:51::{:x}:{}",
}


def topology(family: int) -> Topology:
    """The cluster in which tables of that family are played."""
    return TOPOLOGY if family == 4 else DUAL


def spelled(table: Table, family: int) -> Table:
    """The table in the words of that family."""
    if family == 4:
        return table
    flows = (
        replace(
            flow,
            source=six(flow.source),
            to=six(flow.to),
            becomes=six(flow.becomes),
            nftables=flow.nftables and six(flow.nftables),
        )
        for flow in table.flows
    )
    return replace(table, services=tuple(map(_service, table.services)), flows=tuple(flows))


def six(text: str) -> str:
    """A text with every IPv4 address in it, alone, as ``IP:port`` or ``IP/32``, in IPv6."""

    def one(found: re.Match[str]) -> str:
        a, b, c, d, tail = found.groups(default="")
        if found[0] in _NETWORKS:
            return _NETWORKS[found[0]]
        wide = "::1" if a == "127" else str(ip_address(_WAYS[a, b].format(int(c), d)))
        if tail.startswith(":"):
            return f"[{wide}]{tail}"
        assert tail in ("", "/32"), f"no network like {found[0]} in IPv6"
        return wide + ("/128" if tail else "")

    return _ADDRESS.sub(one, text)


def _service(backed: Backed) -> Backed:
    service, piece = backed
    spec, balancer = service.spec, service.status.loadBalancer
    change = msgspec.structs.replace
    spec = change(
        spec,
        clusterIP=six(spec.clusterIP),
        clusterIPs=(six(spec.clusterIP),),
        ipFamilies=("IPv6",),
        externalIPs=tuple(map(six, spec.externalIPs)),
        loadBalancerSourceRanges=tuple(map(six, spec.loadBalancerSourceRanges)),
    )
    ingress = tuple(change(point, ip=six(point.ip)) for point in balancer.ingress)
    status = change(service.status, loadBalancer=change(balancer, ingress=ingress))
    endpoints = tuple(
        change(endpoint, addresses=tuple(map(six, endpoint.addresses))) for endpoint in piece.endpoints or ()
    )
    return (
        change(service, spec=spec, status=status),
        change(piece, addressType="IPv6", endpoints=endpoints),
    )
