"""One pod as its node's kubelet runs it: which command comes next.

The decisions of kuberuntime's computePodActions: init containers one after the other, sidecars before
what follows them, then all containers at once; restarts as the restartPolicy says; graceful deletion. A
worker decides and remembers, it writes nothing: `podstatus` puts into words where it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from nsk8s.api.types import Container, Obj, Pod
from nsk8s.cluster.containers import ContainerRun
from nsk8s.cluster.lifecycle import (
    Command,
    ContainerExited,
    ContainerStarted,
    HookFailed,
    ProbeFinished,
    RemoveSandbox,
    RunProbe,
    StartContainer,
    StopContainer,
)

GRACE = 30
"""terminationGracePeriodSeconds of a pod that says nothing."""
PATIENCE = 5.0
"""Seconds after the grace period in which a container's end must have been reported."""

Sandbox = Literal["none", "creating", "ready", "removing"]


class PodWorker:
    """A pod that is bound to a node. `view` is the pod as it was when its sandbox was made, with its
    address; `obj` the newest object seen; `unwell` says that its node is not ready, and so neither is it;
    `why` tells people what the pod is waiting for, if anything."""

    __slots__ = (
        "apps",
        "commands",
        "deadline",
        "ephemeral",
        "force_at",
        "gone",
        "grace",
        "initialized",
        "inits",
        "ips",
        "name",
        "namespace",
        "obj",
        "restarted",
        "retry_at",
        "sandbox",
        "tries",
        "uid",
        "unwell",
        "view",
        "why",
    )

    def __init__(self, obj: Obj, view: Pod) -> None:
        self.obj = obj
        self.view = view
        self.uid = view.metadata.uid
        self.namespace = view.metadata.namespace
        self.name = view.metadata.name
        self.ips: tuple[str, ...] = ()
        self.sandbox: Sandbox = "none"
        self.inits = tuple(
            ContainerRun(c, "sidecar" if c.restartPolicy == "Always" else "init")
            for c in view.spec.initContainers
        )
        self.apps = tuple(ContainerRun(c, "app") for c in view.spec.containers)
        self.ephemeral = tuple(ContainerRun(c, "ephemeral") for c in view.spec.ephemeralContainers)
        self.initialized = not self.inits
        self.restarted = False
        self.gone = False
        self.grace: int | None = None
        self.deadline: float | None = None
        self.force_at: float | None = None
        self.retry_at: float | None = None
        self.tries = 0
        self.why = ""
        self.unwell = False
        self.commands: list[Command] = []

    # --- where it stands ------------------------------------------------------------------------------

    @property
    def ip(self) -> str:
        """Its address of the primary family; empty before it has any."""
        return self.ips[0] if self.ips else ""

    @property
    def deleting(self) -> bool:
        """It has been told to go."""
        return self.gone or self.grace is not None

    @property
    def wanted(self) -> bool:
        """Its sandbox should exist."""
        return self.sandbox in ("creating", "ready")

    @property
    def init_failed(self) -> bool:
        """An init container has failed that will not run again."""
        return self.view.spec.restartPolicy == "Never" and any(
            run.role == "init" and run.phase == "exited" and not run.succeeded for run in self.inits
        )

    @property
    def done(self) -> bool:
        """No container runs, and none will ever again: the pod has succeeded or failed."""
        if any(run.live for run in (*self.inits, *self.apps)):
            return False
        return self.init_failed or (self.initialized and not any(self.restarts(run) for run in self.apps))

    def runs(self) -> Iterator[ContainerRun]:
        """All containers, init containers first and ephemeral ones last."""
        yield from self.inits
        yield from self.apps
        yield from self.ephemeral

    def run(self, name: str) -> ContainerRun | None:
        """The container called `name`."""
        return next((run for run in self.runs() if run.spec.name == name), None)

    def restarts(self, run: ContainerRun) -> bool:
        """Whether a container that does not run will be started."""
        if run.phase == "waiting" or run.renewed or run.role == "sidecar":
            return True
        if run.phase != "exited" or run.role == "ephemeral":
            return False
        match self.view.spec.restartPolicy:
            case "Always":
                return run.role == "app" or not run.succeeded
            case "OnFailure":
                return not run.succeeded
        return False

    def wake(self, now: float) -> float | None:
        """When, after `now`, `advance` has something to do though nothing happens; None: never. What was
        due by now and has not been done waits for an event."""
        times: list[float] = []
        if self.retry_at is not None:
            times.append(self.retry_at)
        if self.sandbox == "ready":
            if self.force_at is not None:
                times.append(self.force_at)
            for run in self.runs():
                if run.phase == "exited" and run.restart_at and not self.deleting and self.restarts(run):
                    times.append(run.restart_at)
                elif run.probes and run.phase == "running":
                    times += [at for p in run.probes if (at := p.wake()) is not None]
        return min((at for at in times if at > now), default=None)

    # --- what happens to it ---------------------------------------------------------------------------

    def started(self, event: ContainerStarted, now: float, stamp: str) -> None:
        """A container runs."""
        run = self.run(event.container)
        if run is None or not run.live:
            return
        if run.phase == "running":  # adopted while its start was under way
            run.id, run.says = event.id, event.says
        else:
            run.running(event.id, event.says, self.ip, now, stamp)

    def exited(self, event: ContainerExited, now: float, stamp: str) -> None:
        """A container has ended."""
        run = self.run(event.container)
        if run is not None and run.live:
            run.exited(event.exit_code, event.reason, event.message, now, stamp)

    def hook_failed(self, event: HookFailed) -> None:
        """A hook did not succeed: a container that could not be greeted is ended (kuberuntime_container.go,
        startContainer)."""
        run = self.run(event.container)
        if event.hook == "PostStart" and run is not None and run.phase == "running":
            run.unwelcome = True
            self._stop(run, self._own_grace())

    def probed(self, event: ProbeFinished, now: float) -> None:
        """A probe was answered."""
        run = self.run(event.container)
        worker = run.probe(event.kind) if run else None
        if run is None or worker is None or not worker.finish(event.ok):
            return
        if event.kind == "readiness" or run.phase != "running":
            return
        if event.ok:
            if event.kind == "startup":
                worker.disable()
                run.enable(now)
            return
        worker.disable()  # on hold until the container runs again
        grace = worker.probe.terminationGracePeriodSeconds
        self._stop(run, self._own_grace() if grace is None else grace)

    def died(self, now: float, stamp: str) -> None:
        """The sandbox has gone by itself, and every container with it. All run again in the next one,
        init containers too, unless the pod must not restart (upstream: a changed sandbox)."""
        for run in self.runs():
            if run.live:
                run.exited(137, "Error", "the pod's sandbox has ended", now, stamp)
        if self._restartable():
            for run in self.runs():
                if run.role in ("init", "sidecar") or self.restarts(run):
                    run.again()
            self.initialized = not self.inits
            self.restarted = True

    def renew(self, view: Pod) -> None:
        """The pod's spec has changed: containers with another image run anew, new ephemeral ones are to be
        started."""
        by_name: dict[str, Container] = {
            c.name: c for c in (*view.spec.initContainers, *view.spec.containers)
        }
        self.view = view
        for run in self.runs():
            spec = by_name.get(run.spec.name, run.spec)
            if spec.image != run.spec.image and run.role != "init" and run.live:
                run.renewed = True
            run.spec = spec
        known = {run.spec.name for run in self.ephemeral}
        added = [c for c in view.spec.ephemeralContainers if c.name not in known]
        self.ephemeral += tuple(ContainerRun(c, "ephemeral") for c in added)

    def delete(self, grace: int, now: float) -> None:
        """End within `grace` seconds; a second, shorter one counts."""
        if self.grace is not None and grace >= self.grace:
            return
        self.grace = grace
        self.deadline = now + grace
        self.force_at = self.deadline + PATIENCE
        for run in self.runs():
            for worker in run.probes:
                if worker.kind != "readiness":
                    worker.disable()

    # --- what to do next ------------------------------------------------------------------------------

    def advance(self, now: float) -> None:
        """Put into `commands` what is to be done now. Asked twice, it says nothing the second time."""
        if self.wanted and (self.gone or (self.deleting and self.sandbox == "creating")):
            self._remove()
        if self.sandbox != "ready":
            return
        if self.deleting:
            self._terminate(now)
        elif self.init_failed:
            self._finish()
        elif self.initialized or self._initialize(now):
            self._run(now)
        if self.wanted and not self.deleting:
            for run in self.ephemeral:
                self._keep(run, now)
        for run in self.runs():
            if run.probes and run.phase == "running":
                self._probe(run, now)

    def _initialize(self, now: float) -> bool:
        """Bring the init containers one step on; whether all are through."""
        for run in self.inits:
            if run.role == "sidecar":
                self._keep(run, now)
                if not run.started:
                    return False
            elif not run.succeeded:
                self._keep(run, now)
                return False
        self.initialized = True
        return True

    def _run(self, now: float) -> None:
        over = True
        for run in self.apps:
            self._keep(run, now)
            over = over and not run.live and not self.restarts(run)
        if over:
            self._finish()
            return
        for run in self.inits:
            if run.role == "sidecar":
                self._keep(run, now)

    def _keep(self, run: ContainerRun, now: float) -> None:
        """Start a container that should run and does not; end one whose spec has changed."""
        if run.live:
            if run.renewed and run.phase == "running":
                self._stop(run, self._own_grace())
        elif self.restarts(run) and run.restart_at <= now and not run.why:
            run.starting(now)
            self.commands.append(
                StartContainer(self.uid, self.namespace, self.name, run.spec, run.attempt, self.view)
            )

    def _finish(self) -> None:
        """End the sidecars of a pod whose work is over, then its sandbox."""
        for run in self.inits:
            if run.role == "sidecar" and run.phase == "running":
                self._stop(run, self._own_grace())
        if self.done:
            self._remove()

    def _terminate(self, now: float) -> None:
        """End the containers, then the sidecars, then the sandbox. One that is only just starting is
        ended as soon as it runs."""
        grace = self.grace or 0
        working = [run for run in self.runs() if run.live and run.role != "sidecar"]
        if not working and self.deadline is not None:
            left = max(0, round(self.deadline - now))
            grace = min(grace, max((run.stop_asked or left for run in self.inits), default=left))
        for run in working or self.inits:
            if run.phase == "running":
                self._stop(run, grace)
        overdue = self.force_at is not None and now >= self.force_at
        if overdue or not any(run.live for run in self.runs()):
            self._remove()

    def _stop(self, run: ContainerRun, grace: int) -> None:
        if run.stop_asked is None or grace < run.stop_asked:
            run.stop_asked = grace
            hook = (run.spec, self.view) if run.spec.lifecycle.preStop and grace > 0 else ()
            self.commands.append(StopContainer(self.uid, run.spec.name, grace, *hook))

    def _remove(self) -> None:
        self.sandbox = "removing"
        self.commands.append(RemoveSandbox(self.uid, self.namespace, self.name))

    def _probe(self, run: ContainerRun, now: float) -> None:
        for p in run.probes:
            if p.fire(now):
                timeout = p.probe.timeoutSeconds
                self.commands.append(
                    RunProbe(self.uid, run.spec.name, p.kind, p.action, p.ip, p.port, timeout, self.view)
                )

    def _own_grace(self) -> int:
        own = self.view.spec.terminationGracePeriodSeconds
        return GRACE if own is None else own

    def _restartable(self) -> bool:
        """Whether a new sandbox would have anything to run (upstream's shouldRestartOnFailure)."""
        return self.view.spec.restartPolicy != "Never" and any(self.restarts(run) for run in self.apps)
