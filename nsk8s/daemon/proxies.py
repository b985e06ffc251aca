"""Lets kube-proxy listen on the nodes: its health, its mode, and the health checks of services."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress

from nsk8s.dataplane.proxyports import Listener
from nsk8s.errors import KernelError
from nsk8s.kernel.machine import Machine
from nsk8s.workloads.kubeproxy import Place, Tells
from nsk8s.workloads.standins import Servers

log = logging.getLogger("nsk8s")


class Proxies:
    """kube-proxy's own ports on all nodes of one cluster, served by its stand-in server."""

    def __init__(self, machine: Machine, servers: Servers) -> None:
        self._machine = machine
        self._servers = servers
        self._places: dict[Place, Tells] = {}
        self._refused: dict[Place, str] = {}

    async def listen(self, listeners: Mapping[str, Iterable[Listener]]) -> None:
        """Listen on the nodes (by name) and tell what is to be told; asks again only for what has changed
        or was refused. Raises `HostError`, `Timeout`."""
        places: dict[Place, Tells] = {}
        for node, wanted in listeners.items():
            with suppress(KernelError):  # a node that is not there is made anew at the next look
                pid = self._machine.pid(node)
                places |= {(pid, one.address, one.port): one.tells for one in wanted}
        if places == self._places and not self._refused:
            return
        refused = await self._servers.listen(places)
        for place in refused.keys() - self._refused.keys():
            log.warning("kube-proxy cannot %s", refused[place])
        self._places, self._refused = places, refused
