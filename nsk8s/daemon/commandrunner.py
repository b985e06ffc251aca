"""Runs commands in containers for the kubelet's own purposes (probes, hooks), and opens sockets on nodes.

Upstream's ContainerCommandRunner (pkg/kubelet/container). A command that asks an application which is a
stand-in is answered by asking that: no such program is there.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from functools import partial

from nsk8s.api.types import Container, Pod
from nsk8s.daemon import probe
from nsk8s.daemon.network import Network
from nsk8s.daemon.places import Places
from nsk8s.daemon.runs import Runs
from nsk8s.kernel import processes
from nsk8s.workloads.commands import Question, question
from nsk8s.workloads.images import Workload


class CommandRunner:
    """Of one cluster; `workload` tells what a container runs."""

    def __init__(
        self, network: Network, runs: Runs, places: Places, workload: Callable[[Container], Workload]
    ) -> None:
        self._network = network
        self._runs = runs
        self._places = places
        self._workload = workload

    async def run(
        self, pod: Pod, container: Container, command: Sequence[str], within: float | None
    ) -> tuple[int, bytes]:
        """Run a command beside a container; exit code and output. Raises TimeoutError after `within`
        seconds."""
        run = self._runs.get((pod.metadata.uid, container.name))
        asked = question(command) if run is not None and run.process is None else None
        if asked is None:
            return await processes.execute(self._places.beside(pod, container), command, timeout=within)
        async with asyncio.timeout(within):
            return await self._ask(pod, container, asked)

    async def _ask(self, pod: Pod, container: Container, asked: Question) -> tuple[int, bytes]:
        ports = [port for kind, port in self._workload(container).ports if kind == "TCP"]
        port = asked.port or next(iter(ports), 0)
        with await self.dial(pod) as opened:
            try:
                await probe.connect(opened, pod.status.podIP, port)
                if asked.grpc:
                    await probe.grpc_health(opened, f"{pod.status.podIP}:{port}", "")
            except probe.Unanswered as error:
                return 1, f"{asked.program}, asked of the stand-in: {error}".encode()
        return 0, f"{asked.program}, asked of the stand-in: port {port} answers".encode()

    async def dial(self, pod: Pod) -> socket.socket:
        """A TCP socket on the pod's node, of the pod's primary family."""
        return await self._network.in_kernel(partial(self._socket, pod.spec.nodeName, pod.status.podIP))

    def _socket(self, node: str, ip: str) -> socket.socket:
        with self._network.machine.enter(node):
            return socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
