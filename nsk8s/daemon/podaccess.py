"""Ways into pods: programs beside their containers, the containers' own streams, their ports and logs.

What a kubelet and the container runtime behind it do for the API server, in their words.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from nsk8s.api.types import Container, ContainerStatus, Pod
from nsk8s.apiserver.streams.access import LogOptions, NotRunning, Process
from nsk8s.daemon.places import Places
from nsk8s.daemon.podlogs import PodLogs
from nsk8s.daemon.runs import Run, Runs
from nsk8s.dataplane.compiler import pod_namespace
from nsk8s.errors import ApiError, NsK8sError, in_words
from nsk8s.kernel import attended, namespaces, pipes, processes
from nsk8s.kernel.confinement import PRIVATE
from nsk8s.kernel.pipes import Sink
from nsk8s.kernel.processes import CannotRun, Inside
from nsk8s.kernel.stdio import Input
from nsk8s.paths import ClusterPaths

REFUSED = "OCI runtime exec failed: exec failed: unable to start container process: {}: unknown\r\n"
"""What runc says of a program that it cannot run."""
PIECE = 64 * 1024


class KubeletServer:
    """`streams.access.PodAccess` of one cluster. `find` gives a pod by namespace and name or raises
    `ApiError` 404; `here` is the place of the API server in the cluster, None while it has none."""

    def __init__(
        self,
        paths: ClusterPaths,
        runs: Runs,
        places: Places,
        find: Callable[[str, str], Pod],
        here: Callable[[], Inside | None],
    ) -> None:
        self._paths = paths
        self._runs = runs
        self._places = places
        self._find = find
        self._here = here
        self.pod_logs = PodLogs(paths.logs)

    # --- processes ------------------------------------------------------------------------------------

    def exec(
        self,
        namespace: str,
        pod: str,
        container: str,
        command: Sequence[str],
        *,
        stdin: bool,
        tty: bool,
    ) -> Callable[[], Process]:
        """As `PodAccess.exec`."""
        found = self._hosted(namespace, pod)
        spec = container_of(found, container)

        def start() -> Process:
            self._running(found, spec)
            place = self._places.beside(found, spec)
            if tty:
                place = replace(place, env={"TERM": "xterm", **place.env})
            try:
                _check(place, command[0])
            except CannotRun as error:
                return Refused(error)
            return attended.attend(place, command, stdin=stdin, tty=tty)

        self._running(found, spec)
        return start

    def attach(
        self, namespace: str, pod: str, container: str, *, stdin: bool, tty: bool
    ) -> Callable[[], Process]:
        """As `PodAccess.attach`."""
        found = self._hosted(namespace, pod)
        spec = container_of(found, container)
        self._running(found, spec)

        def start() -> Process:
            run = self._running(found, spec)
            return Attached(self.pod_logs, self._log(found, spec, run.attempt), run, stdin=stdin)

        return start

    def _running(self, pod: Pod, container: Container) -> Run:
        run = self._runs.get((pod.metadata.uid, container.name))
        if run is None:
            raise NotRunning(f'container not found ("{container.name}")')
        return run

    def _hosted(self, namespace: str, name: str) -> Pod:
        pod = self._find(namespace, name)
        if not pod.spec.nodeName:
            raise ApiError(400, "BadRequest", f"pod {name} does not have a host assigned")
        return pod

    # --- ports ----------------------------------------------------------------------------------------

    def forwards(self, namespace: str, pod: str) -> None:
        """As `PodAccess.forwards`."""
        found = self._hosted(namespace, pod)
        if found.status.phase != "Running":
            raise NotRunning(
                f"unable to forward port because pod is not running. Current status={found.status.phase}"
            )

    async def dial(self, namespace: str, pod: str, port: int) -> Connection:
        """As `PodAccess.dial`: containerd's way, IPv4 first."""
        found = self._hosted(namespace, pod)
        place = self._places.beside(found)
        try:
            try:
                return await _connect(place, socket.AF_INET, "127.0.0.1", port)
            except ConnectionRefusedError as first:
                try:
                    return await _connect(place, socket.AF_INET6, "::1", port)
                except OSError as second:
                    raise OSError(
                        f"IPv4: dial tcp4 127.0.0.1:{port}: connect: {in_words(first)} "
                        f"IPv6 dial tcp6 [::1]:{port}: connect: {in_words(second)}"
                    ) from second
        except OSError as error:
            uid = found.metadata.uid
            netns = f"/var/run/netns/{self._paths.cluster}.{pod_namespace(namespace, pod)}"
            raise NsK8sError(
                f"error forwarding port {port} to pod {uid}, uid : failed to execute portforward in "
                f'network namespace "{netns}": failed to connect to localhost:{port} inside namespace '
                f'"{uid}", {error}'
            ) from error

    def open_socket(self, family: int) -> socket.socket:
        """As `PodAccess.open_socket`."""
        here = self._here()
        if here is None:
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        return _socket(here, family)

    # --- logs -----------------------------------------------------------------------------------------

    def logs(self, namespace: str, pod: str, options: LogOptions) -> AsyncIterator[bytes]:
        """As `PodAccess.logs`."""
        found = self._find(namespace, pod)
        spec = container_of(found, options.container)
        if not found.spec.nodeName:
            return _nothing()
        run = self._runs.get((found.metadata.uid, spec.name))
        attempt = _attempt(found, spec, run, previous=options.previous)
        over = asyncio.Event()
        if run is None or run.attempt != attempt:
            over.set()
        else:
            over = run.over
        return self.pod_logs.read(self._log(found, spec, attempt), options, over)

    def _log(self, pod: Pod, container: Container, attempt: int) -> Path:
        return self._paths.log(pod.metadata.uid, container.name, attempt)


class Refused:
    """A program that cannot be run, as a process that says so."""

    stdin = None
    stdout = None

    def __init__(self, error: CannotRun) -> None:
        self._code = error.code
        self.stderr = _Words(REFUSED.format(error.message).encode())

    def resize(self, width: int, height: int) -> None:
        """It has no terminal."""

    async def wait(self) -> int:
        """126 or 127."""
        return self._code

    def kill(self) -> None:
        """It does not run."""


class _Words:
    def __init__(self, text: bytes) -> None:
        self._text = text

    async def read(self) -> bytes:
        text, self._text = self._text, b""
        return text


class Attached:
    """A container's own program: what it writes from now on, and its standard input."""

    stderr = None

    def __init__(self, logs: PodLogs, log: Path, run: Run, *, stdin: bool) -> None:
        self._run = run
        self._following = logs.follow(log, logs.size(log), run.over)
        into = run.process.stdin() if stdin and run.process is not None else None
        self.stdin = Speaking(into, run.process) if into is not None and run.process is not None else None
        self.stdout = self

    async def read(self) -> bytes:
        """Its output."""
        return await anext(self._following, b"")

    def resize(self, width: int, height: int) -> None:
        """Its terminal's window has another size."""
        process = self._run.process
        if process is not None and process.input is Input.TERMINAL and process.keeper is not None:
            with suppress(OSError):
                pipes.resize(process.keeper.end, width, height)

    async def wait(self) -> int:
        """0, once it has ended: how is told by the pod's status."""
        await self._run.over.wait()
        return 0

    def kill(self) -> None:
        """Leave it alone."""
        if self.stdin is not None:
            self.stdin.close()


class Speaking(Sink):
    """A container's standard input; one that ends when somebody has spoken to it does so when closed."""

    def __init__(self, fd: int, process: processes.Running) -> None:
        super().__init__(fd)
        self._process = process

    def close(self) -> None:
        """Speak no more."""
        super().close()
        self._process.hang_up()


class Connection:
    """A TCP connection; owns the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    async def read(self) -> bytes:
        """Some bytes; b"" at the end. Raises ConnectionError."""
        return await asyncio.get_running_loop().sock_recv(self._socket, PIECE)

    async def write(self, data: bytes) -> None:
        """All of it. Raises ConnectionError."""
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    def finish(self) -> None:
        """FIN."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Be done with it."""
        self._socket.close()


def container_of(pod: Pod, name: str) -> Container:
    """The container called `name`, or the only one. Raises `ApiError` 400 (pkg/registry/core/pod,
    validateContainer)."""
    spec = pod.spec
    if name:
        for container in (*spec.containers, *spec.initContainers, *spec.ephemeralContainers):
            if container.name == name:
                return container
        raise ApiError(400, "BadRequest", f"container {name} is not valid for pod {pod.metadata.name}")
    if len(spec.containers) == 1:
        return spec.containers[0]

    def names(containers: Sequence[Container]) -> str:
        return " ".join(container.name for container in containers)

    text = f"a container name must be specified for pod {pod.metadata.name}"
    text += f", choose one of: [{names(spec.containers)}]"
    if spec.initContainers:
        text += f" or one of the init containers: [{names(spec.initContainers)}]"
    if spec.ephemeralContainers:
        text += f" or one of the ephemeral containers: [{names(spec.ephemeralContainers)}]"
    raise ApiError(400, "BadRequest", text)


def status_of(pod: Pod, container: str) -> ContainerStatus | None:
    """What the pod's status says of a container."""
    status = pod.status
    for one in (
        *status.containerStatuses,
        *status.initContainerStatuses,
        *status.ephemeralContainerStatuses,
    ):
        if one.name == container:
            return one
    return None


def _attempt(pod: Pod, container: Container, run: Run | None, *, previous: bool) -> int:
    """Which run's log is meant. Raises `ApiError` 400 (kubelet, validateContainerLogStatus)."""
    status = status_of(pod, container.name)
    what = f'container "{container.name}" in pod "{pod.metadata.name}"'
    attempt = run.attempt if run else status.restartCount if status else 0
    if previous:
        if attempt < 1:
            raise ApiError(400, "BadRequest", f"previous terminated {what} not found")
        return attempt - 1
    if run is not None:
        return attempt
    if status is None:
        raise ApiError(400, "BadRequest", f"{what} is not available")
    waiting = status.state.get("waiting")
    if waiting is not None and "terminated" not in status.lastState:
        raise ApiError(
            400, "BadRequest", f"{what} is waiting to start: {waiting.get('reason') or 'no logs yet'}"
        )
    return attempt


def _check(place: Inside, program: str) -> None:
    """Raises CannotRun for what is certain not to run. In the directories that are private to a container
    we cannot look for it from outside."""
    path = os.path.join(place.workdir or "/", program) if "/" in program else ""
    private_to_it = any(path.startswith(f"{private}/") for private in PRIVATE)
    if not private_to_it and not processes.mounted(place, program):
        processes.find(program, place.env.get("PATH", processes.PATH), place.workdir or "/")


async def _connect(place: Inside, family: socket.AddressFamily, address: str, port: int) -> Connection:
    """A connection from within a network namespace."""
    sock = _socket(place, family)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return Connection(sock)


def _socket(place: Inside, family: int) -> socket.socket:
    """A socket in a network namespace: it stays where it was made."""
    with namespaces.inside(place.namespace("net"), "net"):
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.setblocking(False)
    return sock


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
