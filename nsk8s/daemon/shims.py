"""Containers that are real processes: starts them, watches for their end, ends and adopts them.

What containerd's shims do. The processes survive this one; their monitors are what is watched.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from msgspec.structs import replace

from nsk8s.api.expansion import expanded
from nsk8s.api.types import Container
from nsk8s.cluster.lifecycle import ContainerExited, StartContainer
from nsk8s.cluster.variables import Missing
from nsk8s.daemon.network import Network
from nsk8s.daemon.places import Places
from nsk8s.daemon.runs import Key, Run, Runs
from nsk8s.errors import NsK8sError
from nsk8s.kernel import processes
from nsk8s.kernel.processes import CannotRun
from nsk8s.kernel.stdio import Input
from nsk8s.paths import ClusterPaths

log = logging.getLogger("nsk8s")

SPAWNERS = min(4, os.cpu_count() or 1)
"""Threads that start containers. Most of the 8 ms that one takes are bubblewrap's."""


class Shims:
    """The real processes among the `runs` of one cluster; `exited` is told of their end. `starting` are those
    on their way: which attempt."""

    def __init__(
        self,
        paths: ClusterPaths,
        network: Network,
        runs: Runs,
        places: Places,
        exited: Callable[[ContainerExited], None],
    ) -> None:
        self._paths = paths
        self._network = network
        self._runs = runs
        self._places = places
        self._exited = exited
        self._spawners = [ThreadPoolExecutor(1, f"spawn-{n}") for n in range(SPAWNERS)]
        self.starting: dict[Key, int] = {}

    async def start(self, order: StartContainer, command: tuple[str, ...]) -> Run:
        """Run `command` as a container. Raises CannotRun."""
        key = order.pod, order.container.name
        self.starting[key] = order.attempt
        try:
            place = self._places.new(order.view, order.container)
            env = place.env
            if order.container.tty:
                place = replace(place, env={"TERM": "xterm", **env})
            start = partial(
                processes.spawn,
                place,
                expanded(command, place.env),
                mark=f"{order.pod}/{order.container.name}/{order.attempt}",
                log=self._paths.log(*key, order.attempt),
                stdin=_input(order.container),
                pause=self._paths.pause,
            )
            process = await asyncio.get_running_loop().run_in_executor(self._spawner(order.pod), start)
        except CannotRun:
            raise
        except (NsK8sError, Missing) as error:
            log.error("%s", error)
            raise CannotRun(128, str(error)) from error
        finally:
            del self.starting[key]
        run = Run(order.attempt, process, env=env)
        self._watch(key, run)
        return run

    async def adopt(self) -> None:
        """Watch what an earlier control plane has started."""
        for mark, process in (await self._network.in_kernel(processes.running)).items():
            pod, container, number = mark.split("/")
            known = self._runs.get((pod, container))
            mine = known is not None and known.process is not None and known.process.pid == process.pid
            if mine or (pod, container) in self.starting:
                process.close()
                continue
            self._watch((pod, container), Run(int(number), process))

    def end(self, run: Run, grace: int) -> None:
        """SIGTERM, and SIGKILL after the grace period; PID 1 of a PID namespace only gets what it handles."""
        assert run.process is not None
        if grace <= 0:
            run.process.signal(signal.SIGKILL)
            return
        run.process.signal(signal.SIGTERM)
        if run.killer is None:
            kill = partial(run.process.signal, signal.SIGKILL)
            run.killer = asyncio.get_running_loop().call_later(grace, kill)

    def leave(self, process: processes.Running) -> None:
        """Watch it no more: it ends with its sandbox."""
        self._look_away(process)
        process.exit_code()
        process.close()

    def _spawner(self, pod: str) -> ThreadPoolExecutor:
        """The thread that starts this pod's containers, one after the other as a kubelet does. Not the
        kernel's thread: rules must not wait for hundreds of programs to start."""
        return self._spawners[hash(pod) % len(self._spawners)]

    def _watch(self, key: Key, run: Run) -> None:
        process = run.process
        assert process is not None
        self._runs[key] = run
        asyncio.get_running_loop().add_reader(process.monitor, self._ended, key, run, process)
        if process.input is Input.TERMINAL and process.keeper is not None:
            asyncio.get_running_loop().add_reader(process.keeper.end, self._show, process)

    def _show(self, process: processes.Running) -> None:
        """A terminal's output into the log."""
        try:
            process.copy()
        except EOFError:
            self._look_away_from_terminal(process)

    def _look_away(self, process: processes.Running) -> None:
        asyncio.get_running_loop().remove_reader(process.monitor)
        self._look_away_from_terminal(process)

    def _look_away_from_terminal(self, process: processes.Running) -> None:
        if process.keeper is not None and process.keeper.end >= 0:
            asyncio.get_running_loop().remove_reader(process.keeper.end)

    def _ended(self, key: Key, run: Run, process: processes.Running) -> None:
        self._look_away(process)
        code = process.exit_code()
        if process.input is Input.TERMINAL and process.keeper is not None:
            with suppress(EOFError):
                while process.copy():
                    pass
        process.close()
        run.finish()
        if self._runs.get(key) is run:
            del self._runs[key]
        if code is None:
            self._exited(ContainerExited(*key, 137, "ContainerStatusUnknown"))
        else:
            self._exited(ContainerExited(*key, code, "Completed" if code == 0 else "Error"))


def _input(container: Container) -> Input:
    if container.tty:
        return Input.TERMINAL
    if not container.stdin:
        return Input.EMPTY
    return Input.ONCE if container.stdinOnce else Input.ENDLESS
