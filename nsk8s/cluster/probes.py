"""Startup, liveness and readiness probes: when to probe a container, and what the answers mean.

The counters and timers of the kubelet's prober (pkg/kubelet/prober/worker.go), without its start-up
jitter: the first probe comes `initialDelaySeconds` after the container's start, then one each period. A
tick that finds the last probe still under way is skipped until that is answered.
"""

from __future__ import annotations

from msgspec import Struct

from nsk8s.api.types import Container, ExecAction, GRPCAction, HTTPGetAction, Probe, TCPSocketAction
from nsk8s.cluster.lifecycle import ProbeKind

KINDS: tuple[ProbeKind, ...] = ("startup", "liveness", "readiness")


class ProbeWorker(Struct):
    """One probe of one run of a container. `result` is what the probe has established; until it has,
    alive but not started and not ready. Times are seconds."""

    kind: ProbeKind
    probe: Probe
    action: ExecAction | HTTPGetAction | TCPSocketAction | GRPCAction
    ip: str
    port: int
    result: bool
    due: float | None = None
    busy: bool = False
    stale: bool = False
    last: bool | None = None
    streak: int = 0

    def enable(self, now: float, started: float) -> None:
        """Probe from now on; the container runs since `started`."""
        self.due = max(now, started + self.probe.initialDelaySeconds)

    def disable(self) -> None:
        """Probe no more; an answer that is still under way no longer counts."""
        self.due = None

    def wake(self) -> float | None:
        """When the next probe is due; None while one is under way, or none will be."""
        return None if self.busy else self.due

    def fire(self, now: float) -> bool:
        """Whether to probe now; counts it as begun."""
        if self.busy or self.due is None or self.due > now:
            return False
        self.busy = True
        self.due += self.probe.periodSeconds
        if self.due <= now:
            self.due = now + self.probe.periodSeconds
        return True

    def finish(self, ok: bool) -> bool:
        """Take an answer; whether that establishes something new. The answer to a probe of the
        container's previous run says nothing about this one."""
        self.busy = False
        if self.stale:
            self.stale = False
            return False
        if self.due is None:
            return False
        self.streak = self.streak + 1 if ok is self.last else 1
        self.last = ok
        threshold = self.probe.successThreshold if ok else self.probe.failureThreshold
        if self.streak < threshold or (ok is self.result and self.kind != "startup"):
            return False
        self.result = ok
        return True


def workers(container: Container, ip: str, before: tuple[ProbeWorker, ...] = ()) -> tuple[ProbeWorker, ...]:
    """The probes of a run of `container` in a pod with address `ip`; `before` are those of its previous
    run. A probe of an unknown kind, or of a port name that the container does not have, never runs: upstream
    throws such results away."""
    found = []
    under_way = {worker.kind for worker in before if worker.busy}
    for kind in KINDS:
        probe = _probe(container, kind)
        if probe is None:
            continue
        action = probe.exec or probe.httpGet or probe.tcpSocket or probe.grpc
        if action is None:
            continue
        host, port = ip, 0
        if not isinstance(action, ExecAction):
            resolved = port_of(container, action.port)
            if resolved is None:
                continue
            host = ip if isinstance(action, GRPCAction) else action.host or ip
            port = resolved
        busy = kind in under_way
        found.append(ProbeWorker(kind, probe, action, host, port, kind == "liveness", busy=busy, stale=busy))
    return tuple(found)


def awaits(container: Container, kind: ProbeKind) -> bool:
    """Whether `container` has a probe of `kind` that nsk8s knows how to run."""
    probe = _probe(container, kind)
    return probe is not None and bool(probe.exec or probe.httpGet or probe.tcpSocket or probe.grpc)


def _probe(container: Container, kind: ProbeKind) -> Probe | None:
    match kind:
        case "startup":
            return container.startupProbe
        case "liveness":
            return container.livenessProbe
        case "readiness":
            return container.readinessProbe


def port_of(container: Container, port: int | str) -> int | None:
    """The number of a port, which may be named as the container names it; None if it has none of that
    name."""
    if isinstance(port, int):
        return port
    if port.isdigit():
        return int(port)
    return next((p.containerPort for p in container.ports if p.name == port), None)
