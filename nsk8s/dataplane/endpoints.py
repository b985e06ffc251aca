"""Which endpoints a service's traffic may use from one node: kube-proxy's choice among what the
EndpointSlices say.

Source: pkg/proxy EndpointSliceCache and CategorizeEndpoints, topology hints as of 1.34 (KEP-2433, KEP-3015).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nsk8s.api.families import NAMES, Family
from nsk8s.api.types import EndpointHints, EndpointSlice

HEADLESS_LABEL = "service.kubernetes.io/headless"
PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
"""Objects that carry it belong to another proxy."""


class ProxyEndpoint(NamedTuple):
    """One ``ip:port`` that serves a service port, the state of the pod behind it, and the zones and nodes
    whose traffic it is meant for, if its slice says so."""

    address: str
    ip: str
    node: str
    ready: bool
    serving: bool
    terminating: bool
    zones: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    @property
    def hinted(self) -> bool:
        """Meant for some of the traffic only."""
        return bool(self.zones or self.nodes)

    @property
    def port(self) -> int:
        """The port of `address`."""
        return int(self.address.rpartition(":")[2])

    @property
    def draining(self) -> bool:
        """Being deleted, and still passing its readiness probe."""
        return self.serving and self.terminating


class Choice(NamedTuple):
    """`cluster` and `local` are what either traffic policy uses (empty if the service never asks for
    it), `reachable` all that rules of this node lead to, `exist` whether any node has a usable one."""

    cluster: tuple[ProxyEndpoint, ...]
    local: tuple[ProxyEndpoint, ...]
    reachable: tuple[ProxyEndpoint, ...]
    exist: bool


def watched(piece: EndpointSlice, kind: Family = 4) -> bool:
    """Whether kube-proxy of that family looks at this slice at all."""
    labels = piece.metadata.labels
    return (
        piece.addressType == NAMES[kind] and HEADLESS_LABEL not in labels and PROXY_NAME_LABEL not in labels
    )


def collect(slices: Iterable[EndpointSlice]) -> dict[tuple[str, str], tuple[ProxyEndpoint, ...]]:
    """The endpoints of one service by (port name, protocol), each once, in the order of their text
    (so ``10.0.0.22:80`` stands before ``10.0.0.2:80``).

    A port without a number is skipped; one without a name is the unnamed port, which is what an API
    server's defaulting makes of it. A condition that is not given counts as ready, as serving and as not
    terminating.
    """
    found: dict[tuple[str, str], dict[str, ProxyEndpoint]] = {}
    for piece in slices:
        for port in piece.ports or ():
            if not port.port:
                continue
            group = found.setdefault((port.name or "", port.protocol), {})
            for endpoint in piece.endpoints or ():
                if not endpoint.addresses:
                    continue
                ip, conditions = endpoint.addresses[0], endpoint.conditions
                hints = endpoint.hints or EndpointHints()
                ready, serving = conditions.ready is not False, conditions.serving is not False
                address = f"[{ip}]:{port.port}" if ":" in ip else f"{ip}:{port.port}"
                group.setdefault(
                    address,
                    ProxyEndpoint(
                        address,
                        ip,
                        endpoint.nodeName,
                        ready,
                        serving,
                        bool(conditions.terminating),
                        tuple(zone.name for zone in hints.forZones or ()),
                        tuple(each.name for each in hints.forNodes or ()),
                    ),
                )
    return {key: tuple(group[address] for address in sorted(group)) for key, group in found.items()}


def choose(
    endpoints: Sequence[ProxyEndpoint],
    node: str,
    zone: str = "",
    *,
    cluster_policy: bool,
    local_policy: bool,
) -> Choice:
    """What `node`, which is in `zone` (its ``topology.kubernetes.io/zone``), uses of `endpoints`, given which
    traffic policies the service ever applies.

    Ready endpoints if there are any; otherwise those that are terminating and still serve, decided
    for either policy by itself (KEP-1669). Hints choose among the ready ones for the Cluster policy alone.
    """
    cluster: tuple[ProxyEndpoint, ...] = ()
    local: tuple[ProxyEndpoint, ...] = ()
    exist = any(e.ready or e.draining for e in endpoints)
    if cluster_policy:
        cluster = _near([e for e in endpoints if e.ready], node, zone) or _draining(endpoints)
    if not local_policy:
        return Choice(cluster, (), cluster, exist)
    here = [e for e in endpoints if e.node == node]
    local = tuple(e for e in here if e.ready) or _draining(here)
    if not cluster_policy:
        return Choice((), local, local, exist)
    known = {e.address for e in cluster}
    extra = tuple(e for e in local if e.address not in known)
    reachable = tuple(sorted(cluster + extra)) if extra else cluster
    return Choice(cluster, local, reachable, exist)


def _draining(endpoints: Sequence[ProxyEndpoint]) -> tuple[ProxyEndpoint, ...]:
    return tuple(e for e in endpoints if e.draining)


def _near(ready: Sequence[ProxyEndpoint], node: str, zone: str) -> tuple[ProxyEndpoint, ...]:
    """Those of the `ready` endpoints that are meant for this node; else for its zone; else all. A hint counts
    only if every one of them has one (topologyModeFromHints)."""
    if all(e.nodes for e in ready):
        mine = tuple(e for e in ready if node in e.nodes)
        if mine:
            return mine
    if all(e.zones for e in ready):
        mine = tuple(e for e in ready if zone in e.zones)
        if mine:
            return mine
    return tuple(ready)
