"""Where the API listens beside its unix socket: on the host's loopback interface, and on the control-plane
nodes, in their network namespaces, at every address of both families as a real one does (its
``--bind-address`` is 0.0.0.0, which Go takes for both).

The port on the host follows from the cluster's name, so that a cluster made again is found where it was
(kubectl keeps what it has learned of a server by address); it is written down, and another one is taken
only if that is somebody else's.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import zlib
from collections.abc import Iterable
from contextlib import suppress
from functools import partial

from nsk8s.api.topology import Topology
from nsk8s.apiserver.connections import Listener
from nsk8s.apiserver.server import ApiServer, Identify
from nsk8s.cluster.services import API_PORT
from nsk8s.daemon.network import Network
from nsk8s.daemon.pki import Keys, server_names, write
from nsk8s.errors import HostError, KernelError, NsK8sError
from nsk8s.kernel.listening import listening
from nsk8s.paths import ClusterPaths

log = logging.getLogger("nsk8s")

PORTS = range(20000, 30000)
"""Ports of API servers on the host: below the ephemeral ports, away from NodePorts."""


class Access:
    """The doors of one cluster's API; `identify` knows who comes in."""

    def __init__(
        self, paths: ClusterPaths, keys: Keys, api: ApiServer, network: Network, identify: Identify
    ) -> None:
        self._paths = paths
        self._keys = keys
        self._api = api
        self._network = network
        self._identify = identify
        self._names: tuple[str, ...] = ()
        self._tls: ssl.SSLContext | None = None
        self._host: Listener | None = None
        self._nodes: dict[int, Listener] = {}  # by network namespace, as the kernel numbers it
        self._tried = asyncio.Event()
        self._failure: NsK8sError | None = None

    async def opened(self) -> None:
        """Wait until `open` was tried once: the API listens, and the kubeconfig is there. Raises what
        `open` raised."""
        await self._tried.wait()
        if self._failure is not None:
            raise self._failure

    async def open(self, topology: Topology) -> None:
        """Listen wherever a cluster of this shape does, and nowhere else. Does nothing where nothing
        has changed. Raises `HostError` and `KernelError`."""
        if not topology.nodes:
            return
        self._failure = None
        try:
            await self.open_host(topology)
            await self._on_nodes([node.name for node in topology.nodes if node.role == "control-plane"])
        except NsK8sError as error:
            self._failure = error
            raise
        finally:
            self._tried.set()

    async def open_host(self, topology: Topology) -> None:
        """Listen on the host, as a server with the names of a cluster of this shape, and write the
        kubeconfig. Raises `HostError`."""
        names = server_names(topology)
        try:
            if names != self._names:
                await self._close()
                self._tls = await asyncio.to_thread(self._keys.server, names)
                self._names = names
            if self._host is None:
                opened = loopback(self._paths)
                await asyncio.to_thread(self._keys.kubeconfig, opened.getsockname()[1])
                self._host = await self._api.serve(opened, self._identify, self._tls)
        except OSError as error:
            raise HostError(f"the API cannot listen on this host: {error}") from error

    async def _on_nodes(self, names: Iterable[str]) -> None:
        sockets = await self._network.in_kernel(partial(self._sockets, tuple(names)))
        for namespace in [namespace for namespace in self._nodes if namespace not in sockets]:
            await self._nodes.pop(namespace).close()
        for namespace, opened in sockets.items():
            if opened is not None:
                self._nodes[namespace] = await self._api.serve(opened, self._identify, self._tls)

    def _sockets(self, names: tuple[str, ...]) -> dict[int, socket.socket | None]:
        """In the kernel's thread: the networks of the nodes of these names, and new sockets for those that
        nobody listens in."""
        machine = self._network.machine
        found: dict[int, socket.socket | None] = {}
        for name in names:
            try:
                namespace = machine.network(name)
            except KernelError:  # not there yet, or not any more: whoever makes it opens it
                continue
            found[namespace] = None
            if namespace not in self._nodes:
                try:
                    with machine.enter(name):
                        found[namespace] = listening("", API_PORT)
                except OSError as error:  # the next look at the node tries again
                    log.error("the API cannot listen on node %s: %s", name, error)
        return found

    async def _close(self) -> None:
        for listener in (self._host, *self._nodes.values()):
            if listener is not None:
                await listener.close()
        self._host, self._nodes = None, {}


def loopback(paths: ClusterPaths) -> socket.socket:
    """A listening socket at the cluster's port of the host's loopback interface, which is written down."""
    first = PORTS[zlib.crc32(paths.cluster.encode()) % len(PORTS)]
    with suppress(FileNotFoundError, ValueError):  # of a new cluster there is none yet
        first = int(paths.port.read_text())
    for port in [first, *(port for port in PORTS if port > first), *(port for port in PORTS if port < first)]:
        try:
            opened = listening("127.0.0.1", port)
        except OSError:
            continue
        write(paths.port, f"{port}\n".encode())
        return opened
    raise HostError("no port is free on 127.0.0.1", hint=f"the API uses one of {PORTS[0]}-{PORTS[-1]}")
