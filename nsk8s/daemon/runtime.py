"""Keeps the containers: starts and ends them, watches for their end, probes them, adopts what runs.

What a container runtime and its shims are to a kubelet. Stand-ins live in the stand-in server, real
commands are processes in the pod's namespaces; both survive this process.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shutil
import signal
import socket
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from nsk8s.api.expansion import expanded
from nsk8s.api.types import Container, ExecAction, LifecycleHandler, Obj, Pod
from nsk8s.cluster.lifecycle import (
    Command,
    ContainerExited,
    ContainerStarted,
    Event,
    HookFailed,
    ProbeFinished,
    RunProbe,
    StartContainer,
    StopContainer,
)
from nsk8s.cluster.variables import Missing
from nsk8s.daemon import hooks
from nsk8s.daemon.network import Network
from nsk8s.daemon.prober import Unanswered, connect, grpc_health, probe_network
from nsk8s.daemon.surroundings import Surroundings
from nsk8s.daemon.volumes import Volumes
from nsk8s.dataplane.compiler import pod_namespace
from nsk8s.dataplane.proxyports import Listener
from nsk8s.errors import ApiError, KernelError, NsK8sError
from nsk8s.kernel import processes
from nsk8s.kernel.mountpoints import Mount
from nsk8s.kernel.processes import CannotRun, Inside
from nsk8s.kernel.stdio import Input
from nsk8s.paths import ClusterPaths
from nsk8s.workloads import agnhosts, images, podfiles
from nsk8s.workloads.commands import question
from nsk8s.workloads.kubeproxy import Place, Tells
from nsk8s.workloads.standins import Servers, StandIn

log = logging.getLogger("nsk8s")

SPAWNERS = min(4, os.cpu_count() or 1)
"""Threads that start containers. Most of the 8 ms that one takes are bubblewrap's."""

Key = tuple[str, str]
"""Pod UID and container name."""


def container_id(pod: str, container: str, attempt: int) -> str:
    """64 hex digits, as container runtimes name theirs; always the same for the same run."""
    return hashlib.sha256(f"{pod}/{container}/{attempt}".encode()).hexdigest()


class Run(Struct):
    """One run of a container: `process` is None for a stand-in; `hook` is the preStop hook that
    runs before it is ended, `env` its environment where it is known; `over` is set when it has ended."""

    attempt: int
    process: processes.Running | None = None
    killer: asyncio.TimerHandle | None = None
    hook: asyncio.Task[None] | None = None
    env: Mapping[str, str] | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Runtime:
    """The containers of one cluster. `post` takes what happens to them, `find` gives a pod by namespace and
    name or raises `ApiError` 404; `dns` tells the address that pods find in their resolv.conf."""

    def __init__(
        self,
        paths: ClusterPaths,
        network: Network,
        post: Callable[[Event], None],
        find: Callable[[str, str], Pod],
        surroundings: Surroundings,
        volumes: Volumes,
    ) -> None:
        self._paths = paths
        self._network = network
        self._post = post
        self._standins = Servers(paths, self._lost)
        self._places: dict[Place, Tells] = {}
        self._refused: dict[Place, str] = {}
        self._runs: dict[Key, Run] = {}
        self._starting: dict[Key, int] = {}  # real processes on their way: which attempt
        self._tasks: set[asyncio.Task[None]] = set()
        self._spawners = [ThreadPoolExecutor(1, f"spawn-{n}") for n in range(SPAWNERS)]
        self._find = find
        self._surroundings = surroundings
        self._volumes = volumes
        self.catalogue: Mapping[str, Mapping[str, Any]] = {}
        self.nodes: Collection[str] = ()
        self.clients: Collection[str] = ()

    def dispatch(self, commands: Iterable[Command]) -> None:
        """Begin to carry out commands; what comes of them arrives as events."""
        serve: list[tuple[StartContainer, images.Workload]] = []
        stop: list[StopContainer] = []
        for command in commands:
            match command:
                case StartContainer():
                    workload = self._workload(command.container)
                    if workload.real:
                        self._spawn(self._start(command, workload))
                    else:
                        serve.append((command, workload))
                case StopContainer():
                    run = self._runs.get((command.pod, command.container))
                    if run is not None and run.hook is not None:
                        run.hook.cancel()  # the new grace is shorter
                    if run is not None and command.spec is not None and command.grace > 0:
                        run.hook = self._spawn(self._pre_stop(command, run))
                    elif run is not None and run.process is not None:
                        self._end(run, command.grace)
                    else:
                        stop.append(command)
                case RunProbe():
                    self._spawn(self._probe(command))
        if serve:
            self._spawn(self._serve(serve))
        if stop:
            self._spawn(self._withdraw(stop))

    def leave(self, pods: Iterable[str]) -> None:
        """Forget everything about pods whose sandboxes are about to go (their processes go with them)."""
        gone = set(pods)
        if not gone:
            return
        standins = []
        for key in [key for key in self._runs if key[0] in gone]:
            run = self._forget(key)
            assert run is not None
            if run.process is None:
                standins.append(key)
            else:
                self._unwatch(run.process)
        if standins:
            self._spawn(self._standins.stop(standins))

    async def running(self) -> dict[Key, str]:
        """Ids of the containers that run: those we know of, and those that an earlier control plane left."""
        found = await self._network.in_kernel(processes.running)
        for mark, process in found.items():
            pod, container, number = mark.split("/")
            known = self._runs.get((pod, container))
            mine = known is not None and known.process is not None and known.process.pid == process.pid
            if mine or (pod, container) in self._starting:
                process.close()
                continue
            self._watch((pod, container), Run(int(number), process))
        if not self._paths.standins.exists():  # nobody has served yet: no need to wait for it
            self.warm()
            return self._ids()
        for pod, container, attempt in await self._standins.start():
            self._runs.setdefault((pod, container), Run(attempt))
        return self._ids()

    def warm(self) -> None:
        """Start the stand-in server now, beside other work; it will be needed."""
        self._spawn(self._warm())

    async def _warm(self) -> None:
        await self._standins.start()

    def warm_dns(self) -> None:
        """Start the DNS server now; it learns the cluster's objects while its pods are being made."""
        self._spawn(self._warm_dns())

    async def _warm_dns(self) -> None:
        await self._standins.start_dns()

    def _ids(self) -> dict[Key, str]:
        attempts = {**self._starting, **{key: run.attempt for key, run in self._runs.items()}}
        return {key: container_id(*key, attempt) for key, attempt in attempts.items()}

    async def let_proxies_listen(self, listeners: Mapping[str, Iterable[Listener]]) -> None:
        """Let kube-proxy listen on the nodes (by name) and tell what it should; asks again only for what has
        changed or was refused. Raises `HostError`, `Timeout`."""
        places: dict[Place, Tells] = {}
        for node, wanted in listeners.items():
            with suppress(KernelError):  # a node that is not there is made anew at the next look
                pid = self._network.machine.pid(node)
                places |= {(pid, one.address, one.port): one.tells for one in wanted}
        if places == self._places and not self._refused:
            return
        refused = await self._standins.listen(places)
        for place in refused.keys() - self._refused.keys():
            log.warning("kube-proxy cannot %s", refused[place])
        self._places, self._refused = places, refused

    def run(self, pod: str, container: str) -> Run | None:
        """The present run of a container of the pod with this UID; None if it does not run."""
        return self._runs.get((pod, container))

    def _forget(self, key: Key) -> Run | None:
        run = self._runs.pop(key, None)
        if run is not None:
            run.over.set()
            if run.hook is not None:
                run.hook.cancel()
        return run

    def place(self, pod: Pod, container: Container | None = None) -> Inside:
        """Where programs beside a pod's containers run: with the container's own view of the files if it
        is a real process. What its environment or its volumes came from may be gone by now."""
        try:
            return self._place(pod, container)
        except Missing:
            return replace(self._place(pod, None), workdir=container.workingDir if container else "")

    def _place(self, pod: Pod, container: Container | None) -> Inside:
        """The same for a container that is to be started. Raises Missing."""
        run = self._runs.get((pod.metadata.uid, container.name)) if container else None
        env: Mapping[str, str] = {}
        mounts: tuple[Mount, ...] = ()
        if container is not None:
            env = self._environment(pod, container, run)
            mounts = self._volumes.mounts(pod, container, env)
            if agnhosts.is_agnhost(container):
                mounts += (Mount(agnhosts.PATH, agnhosts.program()),)
        return Inside(
            pid=self._network.machine.pid(pod_namespace(pod.metadata.namespace, pod.metadata.name)),
            container=run.process.program_pid if run and run.process else 0,
            env=env,
            mounts=mounts,
            workdir=container.workingDir if container else "",
            files={
                **podfiles.files(pod, self._surroundings.dns()),
                **self._surroundings.credentials(pod, container),
            },
        )

    def _environment(self, pod: Pod, container: Container, run: Run | None) -> Mapping[str, str]:
        """A container's environment: that with which it was started, if it is a process. Raises Missing."""
        if run is not None and run.process is not None:
            if run.env is None:  # an earlier control plane has started it
                run.env = run.process.environment()
            if run.env:
                return run.env
        return self._surroundings.environment(pod, container)

    async def target(self, query: Obj) -> Obj:
        """`GET /nsk8s/v1/target`: where `exec` and `capture` find a pod's container (``namespace``,
        ``name``, ``container``), a node or a client (``kind``, ``name``). Raises `ApiError` 404."""
        kind, name = query.get("kind", "pod"), query.get("name", "")
        if kind != "pod":
            known = self.nodes if kind == "node" else self.clients
            if name not in known:
                names = ", ".join(sorted(known)) or "none"
                raise ApiError(
                    404, "NotFound", f'{kind}s "{name}" not found (there is: {names})', kind=kind, name=name
                )
            return {"namespace": name, "pid": self._network.machine.pid(name), "container_pid": 0}
        pod = self._find(query.get("namespace") or "default", name)
        container = _container(pod, query.get("container", ""))
        try:
            place = self.place(pod, container)
        except NsK8sError:  # its sandbox is gone, or not there yet; its logs are
            place = Inside(pid=0, env={}, files={})
        return {
            "namespace": pod_namespace(pod.metadata.namespace, pod.metadata.name),
            "pid": place.pid,
            "container_pid": place.container,
            "container": container.name,
            "running": (pod.metadata.uid, container.name) in self._runs,
            "env": place.env,
            "files": place.files,
            "workdir": place.workdir,
        }

    # --- stand-ins ----------------------------------------------------------------------------------

    async def _serve(self, starts: list[tuple[StartContainer, images.Workload]]) -> None:
        wanted = []
        refused: dict[Key, str] = {}
        for command, workload in starts:
            pod = command.view
            key = command.pod, command.container.name
            self._runs[key] = Run(command.attempt)
            try:
                pid = self._network.machine.pid(pod_namespace(command.namespace, command.name))
            except KernelError as error:  # its sandbox has just died; the others shall run
                refused[key] = error.message
                continue
            wanted.append(
                StandIn(
                    pod=command.pod,
                    container=command.container.name,
                    attempt=command.attempt,
                    pid=pid,
                    behaviour=workload.behaviour,
                    ports=workload.ports,
                    name=command.name,
                    namespace=command.namespace,
                    node=pod.spec.nodeName,
                    hostname=podfiles.hostname(pod),
                    ip=pod.status.podIP,
                    secondary=next(iter(pod.status.ips[1:]), ""),
                    log=os.fspath(self._paths.log(command.pod, command.container.name, command.attempt)),
                    image=command.container.image,
                    options=workload.options,
                )
            )
        try:
            refused |= await self._standins.serve(wanted)
        except (OSError, NsK8sError) as error:
            refused |= {(w.pod, w.container): str(error) for w in wanted}
        for command, workload in starts:
            key = command.pod, command.container.name
            why = refused.get(key)
            started = ContainerStarted(*key, container_id(*key, command.attempt), workload.says)
            run = self._runs.get(key)
            if why is not None or run is None:
                self._post(started)
            else:
                self._started(run, command.view, command.container, started)
            if why is not None:
                self._forget(key)
                self._post(ContainerExited(*key, 1, "Error", why))

    def _lost(self, key: Key, why: str) -> None:
        """The stand-in server died, and its successor could not take this one over."""
        if self._forget(key):
            self._post(ContainerExited(*key, 137, "Error", why))

    async def _withdraw(self, stops: list[StopContainer]) -> None:
        keys = [(command.pod, command.container) for command in stops]
        await self._standins.stop(keys)
        for key in keys:
            known = self._forget(key)
            # Servers end on SIGTERM with 0; what did not run any more has ended unseen.
            self._post(
                ContainerExited(*key, 0 if known else 137, "Completed" if known else "ContainerStatusUnknown")
            )

    # --- real processes -----------------------------------------------------------------------------

    async def _start(self, command: StartContainer, workload: images.Workload) -> None:
        pod, container = command.view, command.container
        key = command.pod, container.name
        started = ContainerStarted(*key, container_id(*key, command.attempt), workload.says)
        self._starting[key] = command.attempt
        try:
            place = replace(self._place(pod, container), container=0)  # with a view of its own of the files
            env = place.env
            if container.tty:
                place = replace(place, env={"TERM": "xterm", **place.env})
            start = partial(
                processes.spawn,
                place,
                expanded(workload.command, place.env),
                mark=f"{command.pod}/{container.name}/{command.attempt}",
                log=self._paths.log(*key, command.attempt),
                stdin=_input(container),
                pause=self._paths.pause,
            )
            process = await asyncio.get_running_loop().run_in_executor(self._spawner(command.pod), start)
        except CannotRun as error:
            self._post(started)
            self._post(ContainerExited(*key, error.code, "ContainerCannotRun", error.message))
            return
        except (NsK8sError, Missing) as error:
            log.error("%s", error)
            self._post(started)
            self._post(ContainerExited(*key, 128, "ContainerCannotRun", str(error)))
            return
        finally:
            del self._starting[key]
        run = Run(command.attempt, process, env=env)
        self._watch(key, run)
        self._started(run, pod, container, started)

    def _spawner(self, pod: str) -> ThreadPoolExecutor:
        """The thread that starts this pod's containers, one after the other as a kubelet does. Not the
        kernel's thread: rules must not wait for hundreds of programs to start."""
        return self._spawners[hash(pod) % len(self._spawners)]

    def _watch(self, key: Key, run: Run) -> None:
        assert run.process is not None
        self._runs[key] = run
        asyncio.get_running_loop().add_reader(run.process.monitor, self._ended, key, run)
        if run.process.input is Input.TERMINAL and run.process.keeper is not None:
            asyncio.get_running_loop().add_reader(run.process.keeper.end, self._show, run.process)

    def _show(self, process: processes.Running) -> None:
        """A terminal's output into the log."""
        try:
            process.copy()
        except EOFError:
            self._look_away(process)

    def _look_away(self, process: processes.Running) -> None:
        if process.keeper is not None and process.keeper.end >= 0:
            asyncio.get_running_loop().remove_reader(process.keeper.end)

    def _unwatch(self, process: processes.Running) -> None:
        asyncio.get_running_loop().remove_reader(process.monitor)
        self._look_away(process)
        process.exit_code()
        process.close()

    def _ended(self, key: Key, run: Run) -> None:
        process = run.process
        assert process is not None
        asyncio.get_running_loop().remove_reader(process.monitor)
        self._look_away(process)
        code = process.exit_code()
        if process.input is Input.TERMINAL and process.keeper is not None:
            with suppress(EOFError):
                while process.copy():
                    pass
        process.close()
        if run.killer:
            run.killer.cancel()
        run.over.set()
        if run.hook is not None:
            run.hook.cancel()
        if self._runs.get(key) is run:
            del self._runs[key]
        if code is None:
            self._post(ContainerExited(*key, 137, "ContainerStatusUnknown"))
        else:
            self._post(ContainerExited(*key, code, "Completed" if code == 0 else "Error"))

    def _end(self, run: Run, grace: int) -> None:
        """SIGTERM, and SIGKILL after the grace period; PID 1 of a PID namespace only gets what it handles."""
        assert run.process is not None
        if grace <= 0:
            run.process.signal(signal.SIGKILL)
            return
        run.process.signal(signal.SIGTERM)
        if run.killer is None:
            kill = partial(run.process.signal, signal.SIGKILL)
            run.killer = asyncio.get_running_loop().call_later(grace, kill)

    # --- hooks --------------------------------------------------------------------------------------

    async def _pre_stop(self, command: StopContainer, run: Run) -> None:
        """The preStop hook, and what is left of the grace for the container to end."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert command.spec is not None
        assert command.view is not None
        handler = command.spec.lifecycle.preStop
        if handler is not None and not await self._hook(handler, command.view, command.spec, command.grace):
            self._post(HookFailed(command.pod, command.container, "PreStop"))
        run.hook = None
        left = max(hooks.MINIMUM_GRACE, round(command.grace - (loop.time() - began)))
        if self._runs.get((command.pod, command.container)) is run:
            self.dispatch([replace(command, grace=left, spec=None)])

    async def _greet(self, run: Run, pod: Pod, container: Container, started: ContainerStarted) -> None:
        """The postStart hook; until it is over the container has not started."""
        handler = container.lifecycle.postStart
        done = handler is None or await self._hook(handler, pod, container, None)
        run.hook = None
        self._post(started)
        if not done:
            self._post(HookFailed(started.pod, started.container, "PostStart"))

    def _started(self, run: Run, pod: Pod, container: Container, started: ContainerStarted) -> None:
        """A container runs: say so, after its postStart hook if it has one."""
        if container.lifecycle.postStart is None:
            self._post(started)
        else:
            run.hook = self._spawn(self._greet(run, pod, container, started))

    async def _hook(
        self, handler: LifecycleHandler, pod: Pod, container: Container, within: float | None
    ) -> bool:
        execute = partial(self._execute, pod, container)
        return await hooks.perform(handler, pod, container, execute, self._dial, within)

    def _workload(self, container: Container) -> images.Workload:
        """What a container runs; programs in its volumes count as being there."""
        mounted = tuple(f"{mount.mountPath.rstrip('/')}/" for mount in container.volumeMounts)
        return images.resolve(container, self.catalogue, lambda p: p.startswith(mounted) or _installed(p))

    async def _execute(
        self, pod: Pod, container: Container, command: Sequence[str], limit: float | None = None
    ) -> tuple[int, bytes]:
        """Run a command beside a container; exit code and output. One that asks an application which is a
        stand-in is answered by asking that. Raises TimeoutError after `limit`
        seconds."""
        run = self._runs.get((pod.metadata.uid, container.name))
        asked = question(command) if run is not None and run.process is None else None
        if asked is None:
            return await processes.execute(self.place(pod, container), command, timeout=limit)
        ports = [port for kind, port in self._workload(container).ports if kind == "TCP"]
        port = asked.port or next(iter(ports), 0)
        async with asyncio.timeout(limit):
            with await self._dial(pod) as opened:
                opened.setblocking(False)
                try:
                    await connect(opened, pod.status.podIP, port)
                    if asked.grpc:
                        await grpc_health(opened, f"{pod.status.podIP}:{port}", "")
                except Unanswered as error:
                    return 1, f"{asked.program}, asked of the stand-in: {error}".encode()
        return 0, f"{asked.program}, asked of the stand-in: port {port} answers".encode()

    async def _dial(self, pod: Pod) -> socket.socket:
        """A socket on the pod's node, of the pod's primary family."""
        return await self._network.in_kernel(partial(self._socket, pod.spec.nodeName, pod.status.podIP))

    # --- probes -------------------------------------------------------------------------------------

    async def _probe(self, command: RunProbe) -> None:
        finished = partial(ProbeFinished, command.pod, command.container, command.kind)
        try:
            if isinstance(command.action, ExecAction):
                container = next(
                    c
                    for c in (*command.view.spec.containers, *command.view.spec.initContainers)
                    if c.name == command.container
                )
                code, output = await self._execute(
                    command.view, container, command.action.command, command.timeout
                )
                result = finished(code == 0, output.decode(errors="replace"))
            else:
                opened = await self._dial(command.view)
                result = await probe_network(command, opened)
        except TimeoutError:
            result = finished(False, f"command timed out after {command.timeout} s")
        except (OSError, NsK8sError) as error:
            result = finished(False, str(error))
        self._post(result)

    def _socket(self, node: str, ip: str) -> socket.socket:
        with self._network.machine.enter(node):
            return socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a container could not be handled", exc_info=error)


@lru_cache(maxsize=1024)
def _installed(program: str) -> bool:
    """Whether there is such a program on this machine."""
    return shutil.which(program, path=processes.PATH) is not None


def _input(container: Container) -> Input:
    if container.tty:
        return Input.TERMINAL
    if not container.stdin:
        return Input.EMPTY
    return Input.ONCE if container.stdinOnce else Input.ENDLESS


def _container(pod: Pod, name: str) -> Container:
    """The container called `name`, or the first one. Raises `ApiError` 400 in kubectl's words."""
    containers = (*pod.spec.containers, *pod.spec.initContainers, *pod.spec.ephemeralContainers)
    if not name:
        return containers[0]
    for container in containers:
        if container.name == name:
            return container
    names = ", ".join(c.name for c in containers)
    raise ApiError(
        400, "BadRequest", f"container {name} is not valid for pod {pod.metadata.name} (it has: {names})"
    )
