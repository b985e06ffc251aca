"""One container of a pod, over all of its runs: its state, its restarts, its probes.

Back-off as the kubelet's (kuberuntime_manager.go, doBackOff): the first restart is immediate, the
next waits 10 s, then twice as long each time up to five minutes; a run of more than ten minutes starts the
count anew.
"""

from __future__ import annotations

from typing import Any, Literal

from nsk8s.api.types import Container
from nsk8s.cluster import probes
from nsk8s.cluster.lifecycle import ProbeKind
from nsk8s.cluster.probes import ProbeWorker

FIRST_BACKOFF = 10.0
MAX_BACKOFF = 300.0

Role = Literal["init", "sidecar", "app", "ephemeral"]
"""A sidecar is an init container with restartPolicy Always (KEP-753); an ephemeral container is added to a
running pod to look at it, runs once, and counts for nothing (KEP-277)."""


class ContainerRun:
    """The present run of a container, and what is left of the earlier ones.

    `phase`: ``waiting`` (never run in this sandbox), ``starting`` (asked for), ``running``, ``exited``.
    `terminated` and `before` are the last two ends, as ContainerStateTerminated. `attempt` is the
    number of the latest run, -1 before the first; `untold` until the event of its start is recorded;
    `unwelcome` if its postStart hook has failed; `why` it cannot be started, while it lacks something.
    """

    __slots__ = (
        "attempt",
        "backoff",
        "backoff_since",
        "before",
        "id",
        "phase",
        "probes",
        "renewed",
        "restart_at",
        "role",
        "says",
        "since",
        "spec",
        "started_at",
        "stop_asked",
        "terminated",
        "untold",
        "unwelcome",
        "why",
    )

    def __init__(self, spec: Container, role: Role) -> None:
        self.spec = spec
        self.role = role
        self.phase: Literal["waiting", "starting", "running", "exited"] = "waiting"
        self.attempt = -1
        self.id = ""
        self.says = ""
        self.since = 0.0
        self.started_at = ""
        self.terminated: dict[str, Any] | None = None
        self.before: dict[str, Any] | None = None
        self.stop_asked: int | None = None
        self.renewed = False
        self.untold = False
        self.unwelcome = False
        self.why = ""
        self.backoff = 0.0
        self.backoff_since = 0.0
        self.restart_at = 0.0
        self.probes: tuple[ProbeWorker, ...] = ()

    # --- what it is -----------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Runs, or is about to."""
        return self.phase in ("starting", "running")

    @property
    def succeeded(self) -> bool:
        """Ended with exit code 0."""
        return self.phase == "exited" and self.terminated is not None and self.terminated["exitCode"] == 0

    @property
    def started(self) -> bool:
        """Runs, and its startup probe (if any) has succeeded."""
        if self.phase != "running":
            return False
        if not self.probes:
            return not probes.awaits(self.spec, "startup")
        startup = self.probe("startup")
        return startup.result if startup else not probes.awaits(self.spec, "startup")

    @property
    def ready(self) -> bool:
        """Started, and its readiness probe (if any) succeeds."""
        if not self.started:
            return False
        readiness = self.probe("readiness")
        return readiness.result if readiness else not probes.awaits(self.spec, "readiness")

    def probe(self, kind: ProbeKind) -> ProbeWorker | None:
        """Its probe of a kind."""
        return next((p for p in self.probes if p.kind == kind), None)

    # --- what happens to it ---------------------------------------------------------------------------

    def starting(self, now: float) -> None:
        """It has been asked to run (again)."""
        if self.terminated is not None:
            self.backoff = min(self.backoff * 2, MAX_BACKOFF) if self.backoff else FIRST_BACKOFF
            self.backoff_since = now
        self.attempt += 1
        self.phase = "starting"
        self.stop_asked = None
        self.renewed = False
        self.unwelcome = False

    def refused(self, why: str) -> None:
        """It cannot be started for what it lacks; it waits until `why` is empty again."""
        self.phase = "waiting" if self.terminated is None else "exited"
        self.attempt -= 1
        self.why = why

    def running(self, container_id: str, says: str, ip: str, now: float, stamp: str) -> None:
        """It runs; `stamp` is the time now as RFC 3339."""
        self.phase = "running"
        self.id = container_id
        self.says = says
        self.untold = True
        self.since = now
        self.started_at = stamp
        if self.spec.startupProbe or self.spec.livenessProbe or self.spec.readinessProbe:
            self.probes = probes.workers(self.spec, ip, self.probes)
        self.enable(now)

    def enable(self, now: float) -> None:
        """Begin the probes whose time has come: the others wait for the startup probe."""
        for worker in self.probes:
            if worker.due is None and (worker.kind == "startup") is not self.started:
                worker.enable(now, self.since)

    def exited(self, code: int, reason: str, message: str, now: float, stamp: str) -> None:
        """It has ended."""
        self.before = self.terminated
        self.terminated = {
            "exitCode": code,
            "reason": reason,
            "startedAt": self.started_at or stamp,
            "finishedAt": stamp,
        }
        if self.id:
            self.terminated["containerID"] = f"nsk8s://{self.id}"
        if message:
            self.terminated["message"] = message
        self.phase = "exited"
        for worker in self.probes:
            worker.disable()
        if self.backoff and now - self.backoff_since > 2 * MAX_BACKOFF:
            self.backoff = 0.0
        self.restart_at = now + self.backoff

    def again(self) -> None:
        """Its sandbox is another: run anew, whatever it was."""
        self.phase = "waiting"
        self.restart_at = 0.0
