"""Where programs run: the namespaces, the files and the environment of a container, of a pod without one."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from nsk8s.api.types import Container, Pod
from nsk8s.cluster.variables import Missing
from nsk8s.daemon.runs import Run, Runs
from nsk8s.daemon.surroundings import Surroundings
from nsk8s.daemon.volumes import Volumes
from nsk8s.dataplane.compiler import pod_namespace
from nsk8s.errors import NsK8sError
from nsk8s.kernel.machine import Machine
from nsk8s.kernel.mountpoints import Mount
from nsk8s.kernel.processes import Inside
from nsk8s.workloads import agnhosts, podfiles


class Places:
    """The places of one cluster's pods."""

    def __init__(self, machine: Machine, surroundings: Surroundings, volumes: Volumes, runs: Runs) -> None:
        self._machine = machine
        self._surroundings = surroundings
        self._volumes = volumes
        self._runs = runs

    def beside(self, pod: Pod, container: Container | None = None) -> Inside:
        """Where programs beside a pod's containers run: with the container's own view of the files if it
        is a real process. What its environment or its volumes came from may be gone by now."""
        try:
            return self._place(pod, container)
        except Missing:
            return replace(self._place(pod, None), workdir=container.workingDir if container else "")

    def new(self, pod: Pod, container: Container) -> Inside:
        """Where a container is to be started, with a view of its own of the files. Raises Missing, and
        `NsK8sError` for an ephemeral one whose target does not run."""
        return replace(self._place(pod, container), container=0, target=self._target(pod, container))

    def _target(self, pod: Pod, container: Container) -> int:
        """Among whose processes an ephemeral container shall be; 0 for its own: a stand-in has none."""
        name = container.targetContainerName
        run = self._runs.get((pod.metadata.uid, name))
        if name and run is None:
            raise NsK8sError(f'invalid target container: container "{name}" is not running')
        return run.process.program_pid if run and run.process else 0

    def _place(self, pod: Pod, container: Container | None) -> Inside:
        """Raises Missing."""
        run = self._runs.get((pod.metadata.uid, container.name)) if container else None
        env: Mapping[str, str] = {}
        mounts: tuple[Mount, ...] = ()
        if container is not None:
            env = self._environment(pod, container, run)
            mounts = self._volumes.mounts(pod, container, env)
            if run is not None and run.process is None:
                mounts += self._volumes.scratch(pod, container, run.attempt)
            if agnhosts.is_agnhost(container):
                mounts += (Mount(agnhosts.PATH, agnhosts.program()),)
        return Inside(
            pid=self._machine.pid(pod_namespace(pod.metadata.namespace, pod.metadata.name)),
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
