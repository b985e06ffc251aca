"""Keeps the containers: starts and ends them, runs their hooks and probes, adopts what runs.

What a container runtime is to a kubelet. Stand-ins live in the stand-in server, real commands are processes
in the pod's namespaces; both survive this process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import lru_cache
from typing import Any

from msgspec.structs import replace

from nsk8s.api.types import Container
from nsk8s.cluster.lifecycle import (
    Command,
    ContainerExited,
    ContainerStarted,
    Event,
    HookFailed,
    RunProbe,
    StartContainer,
    StopContainer,
)
from nsk8s.daemon import hooks, prober
from nsk8s.daemon.commandrunner import CommandRunner
from nsk8s.daemon.network import Network
from nsk8s.daemon.places import Places
from nsk8s.daemon.runs import Key, Run, Runs, container_id
from nsk8s.daemon.shims import Shims
from nsk8s.dataplane.compiler import pod_namespace
from nsk8s.errors import KernelError, NsK8sError
from nsk8s.kernel import processes
from nsk8s.kernel.forked import ForkServer
from nsk8s.kernel.processes import CannotRun
from nsk8s.paths import ClusterPaths, log_file
from nsk8s.workloads import images, podfiles
from nsk8s.workloads.standins import Servers, StandIn

log = logging.getLogger("nsk8s")

Start = tuple[StartContainer, images.Workload]


class Runtime:
    """The containers of one cluster. `post` takes what happens to them; `catalogue` is the user's images."""

    def __init__(
        self,
        paths: ClusterPaths,
        forks: ForkServer,
        network: Network,
        post: Callable[[Event], None],
        runs: Runs,
        places: Places,
    ) -> None:
        self._paths = paths
        self._logs = os.fspath(paths.logs)
        self._network = network
        self._post = post
        self._runs = runs
        self._shims = Shims(paths, network, runs, places, post)
        self._commands = CommandRunner(network, runs, places, self._workload)
        self._tasks: set[asyncio.Task[None]] = set()
        self.servers = Servers(paths, forks, self._lost)
        self.catalogue: Mapping[str, Mapping[str, Any]] = {}

    def dispatch(self, commands: Iterable[Command]) -> None:
        """Begin to carry out commands; what comes of them arrives as events."""
        serve: list[Start] = []
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
                        self._shims.end(run, command.grace)
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
            run = self._runs.forget(key)
            assert run is not None
            if run.process is None:
                standins.append(key)
            else:
                self._shims.leave(run.process)
        if standins:
            self._spawn(self.servers.stop(standins))

    async def running(self) -> dict[Key, str]:
        """Ids of the containers that run: those we know of, and those that an earlier control plane left."""
        await self._shims.adopt()
        if not self._paths.standins.exists():  # nobody has served yet: no need to wait for it
            self.warm()
        else:
            for pod, container, attempt in await self.servers.start():
                self._runs.setdefault((pod, container), Run(attempt))
        attempts = {**self._shims.starting, **{key: run.attempt for key, run in self._runs.items()}}
        return {key: container_id(*key, attempt) for key, attempt in attempts.items()}

    def warm(self) -> None:
        """Start the stand-in server now, beside other work; it will be needed."""
        self._spawn(self._warm())

    async def _warm(self) -> None:
        await self.servers.start()

    def warm_dns(self) -> None:
        """Start the DNS server now; it learns the cluster's objects while its pods are being made."""
        self._spawn(self._warm_dns())

    async def _warm_dns(self) -> None:
        await self.servers.start_dns()

    def _workload(self, container: Container) -> images.Workload:
        """What a container runs; programs in its volumes count as being there."""
        mounted = tuple(f"{mount.mountPath.rstrip('/')}/" for mount in container.volumeMounts)
        return images.resolve(container, self.catalogue, lambda p: p.startswith(mounted) or _installed(p))

    # --- starting and ending ------------------------------------------------------------------------

    async def _start(self, command: StartContainer, workload: images.Workload) -> None:
        """Start a real process."""
        try:
            run = await self._shims.start(command, workload.command)
        except CannotRun as error:
            self._failed(command, workload, error.code, "ContainerCannotRun", error.message)
        else:
            self._started(run, command, workload)

    async def _serve(self, starts: list[Start]) -> None:
        """Start stand-ins."""
        wanted = []
        refused: dict[Key, str] = {}
        for command, workload in starts:
            key = command.pod, command.container.name
            self._runs[key] = Run(command.attempt)
            try:
                wanted.append(self._standin(command, workload))
            except KernelError as error:  # its sandbox has just died; the others shall run
                refused[key] = error.message
        try:
            refused |= await self.servers.serve(wanted)
        except (OSError, NsK8sError) as error:
            refused |= {one.key: str(error) for one in wanted}
        for command, workload in starts:
            key = command.pod, command.container.name
            if key in refused:
                self._runs.forget(key)
                self._failed(command, workload, 1, "Error", refused[key])
            else:
                self._started(self._runs.get(key), command, workload)

    def _standin(self, command: StartContainer, workload: images.Workload) -> StandIn:
        """What the stand-in server is told. Raises KernelError if there is no sandbox."""
        pod = command.view
        return StandIn(
            pod=command.pod,
            container=command.container.name,
            attempt=command.attempt,
            pid=self._network.machine.pid(pod_namespace(command.namespace, command.name)),
            behaviour=workload.behaviour,
            ports=workload.ports,
            name=command.name,
            namespace=command.namespace,
            node=pod.spec.nodeName,
            hostname=podfiles.hostname(pod),
            ip=pod.status.podIP,
            secondary=next(iter(pod.status.ips[1:]), ""),
            log=log_file(self._logs, command.pod, command.container.name, command.attempt),
            image=command.container.image,
            options=workload.options,
        )

    def _started(self, run: Run | None, command: StartContainer, workload: images.Workload) -> None:
        """A container runs, unless it has ended already: say so, after its postStart hook if it has one."""
        if run is None or command.container.lifecycle.postStart is None:
            self._post(_told(command, workload))
        else:
            run.hook = self._spawn(self._post_start(run, command, workload))

    def _failed(
        self, command: StartContainer, workload: images.Workload, code: int, reason: str, why: str
    ) -> None:
        self._post(_told(command, workload))
        self._post(ContainerExited(command.pod, command.container.name, code, reason, why))

    def _lost(self, key: Key, why: str) -> None:
        """The stand-in server died, and its successor could not take this one over."""
        if self._runs.forget(key):
            self._post(ContainerExited(*key, 137, "Error", why))

    async def _withdraw(self, stops: list[StopContainer]) -> None:
        """End stand-ins."""
        keys = [(command.pod, command.container) for command in stops]
        await self.servers.stop(keys)
        for key in keys:
            known = self._runs.forget(key)
            # Servers end on SIGTERM with 0; what did not run any more has ended unseen.
            self._post(
                ContainerExited(*key, 0 if known else 137, "Completed" if known else "ContainerStatusUnknown")
            )

    # --- hooks and probes ---------------------------------------------------------------------------

    async def _pre_stop(self, command: StopContainer, run: Run) -> None:
        """The preStop hook, and what is left of the grace for the container to end."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert command.spec is not None
        assert command.view is not None
        handler = command.spec.lifecycle.preStop
        if handler is not None and not await hooks.perform(
            handler, command.view, command.spec, self._commands, command.grace
        ):
            self._post(HookFailed(command.pod, command.container, "PreStop"))
        run.hook = None
        left = max(hooks.MINIMUM_GRACE, round(command.grace - (loop.time() - began)))
        if self._runs.get((command.pod, command.container)) is run:
            self.dispatch([replace(command, grace=left, spec=None)])

    async def _post_start(self, run: Run, command: StartContainer, workload: images.Workload) -> None:
        """The postStart hook; until it is over the container has not started."""
        container = command.container
        handler = container.lifecycle.postStart
        done = handler is None or await hooks.perform(handler, command.view, container, self._commands, None)
        run.hook = None
        self._post(_told(command, workload))
        if not done:
            self._post(HookFailed(command.pod, container.name, "PostStart"))

    async def _probe(self, command: RunProbe) -> None:
        self._post(await prober.run_probe(command, self._commands))

    # --- tasks --------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a container could not be handled", exc_info=error)


def _told(command: StartContainer, workload: images.Workload) -> ContainerStarted:
    """What is told of a container once it has started."""
    key = command.pod, command.container.name
    return ContainerStarted(*key, container_id(*key, command.attempt), workload.says)


@lru_cache(maxsize=1024)
def _installed(program: str) -> bool:
    """Whether there is such a program on this machine."""
    return shutil.which(program, path=processes.PATH) is not None
