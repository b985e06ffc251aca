"""Where kube-proxy itself listens on a node, and what it tells there.

Source: pkg/proxy/healthcheck, cmd/kube-proxy/app server.go: its own health, its mode, and for load balancers
whether the node has endpoints of a service (externalTrafficPolicy Local).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nsk8s.dataplane.proxyoptions import NodeProxy

HEALTHZ_PORT = 10256
METRICS_PORT = 10249


class HealthCheck(NamedTuple):
    """What a node tells on a service's healthCheckNodePort: `endpoints` are its own that are ready."""

    namespace: str
    service: str
    port: int
    endpoints: int


class Listener(NamedTuple):
    """A TCP port of a node and what is told there: ``("healthz",)``, ``("metrics", MODE)`` or ``("service",
    NAMESPACE, NAME, ENDPOINTS)``. `address` is empty for every address of the node."""

    address: str
    port: int
    tells: tuple[str | int, ...]


def listeners(proxies: Iterable[tuple[NodeProxy, Sequence[HealthCheck]]], mode: str) -> tuple[Listener, ...]:
    """Where kube-proxy in `mode` listens on a node; health checks are answered where nodePorts are. `proxies`
    are those of the node, the primary family's first, whose word holds where both would tell the same."""
    found: dict[tuple[str, int], Listener] = {}
    for node, checks in proxies:
        for check in checks:
            for address in ("",) if node.node_ports is None else node.node_ports:
                tells = "service", check.namespace, check.service, check.endpoints
                found.setdefault((address, check.port), Listener(address, check.port, tells))
    healthz = Listener("", HEALTHZ_PORT, ("healthz",))
    return healthz, Listener("127.0.0.1", METRICS_PORT, ("metrics", mode)), *found.values()
