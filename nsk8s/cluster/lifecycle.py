"""The words between the kubelet's decisions and those who act on them.

Commands are what the kubelet wants done (imperative), events what has happened (past tense). Both are
values; neither does anything. A sandbox is a pod's namespaces, held by its pause process (the term is
the CRI's); `pod` is always the pod's UID, `namespace`/`name` are for people. Times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nsk8s.api.types import Container, ExecAction, GRPCAction, HTTPGetAction, Pod, TCPSocketAction

ProbeKind = Literal["startup", "liveness", "readiness"]


@dataclass(frozen=True, slots=True)
class CreateSandbox:
    """Make the pod's namespaces and wire them to its node; answered by `SandboxCreated` or
    `SandboxFailed`. For hostNetwork pods the network is the node's."""

    pod: str
    namespace: str
    name: str
    view: Pod


@dataclass(frozen=True, slots=True)
class RemoveSandbox:
    """End everything in the pod and let its namespaces go; answered by `SandboxRemoved`."""

    pod: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Run a container in its pod's namespaces, and its postStart hook; answered by `ContainerStarted` when
    that is over, later `ContainerExited`. `attempt` counts restarts from 0."""

    pod: str
    namespace: str
    name: str
    container: Container
    attempt: int
    view: Pod


@dataclass(frozen=True, slots=True)
class StopContainer:
    """End a container: SIGTERM, and SIGKILL after `grace` seconds (0: SIGKILL at once); answered by
    `ContainerExited`. `spec` and `view` are there if it has a preStop hook, which runs first, within the
    grace; `HookFailed` tells if it does not succeed."""

    pod: str
    container: str
    grace: int
    spec: Container | None = None
    view: Pod | None = None


@dataclass(frozen=True, slots=True)
class RunProbe:
    """Probe a container from its node, once; answered by `ProbeFinished` within `timeout`. `ip` and
    numeric ports are resolved already."""

    pod: str
    container: str
    kind: ProbeKind
    action: ExecAction | HTTPGetAction | TCPSocketAction | GRPCAction
    ip: str
    port: int
    timeout: int
    view: Pod


Command = CreateSandbox | RemoveSandbox | StartContainer | StopContainer | RunProbe


@dataclass(frozen=True, slots=True)
class SandboxCreated:
    """The pod's namespaces exist and are wired."""

    pod: str


@dataclass(frozen=True, slots=True)
class SandboxFailed:
    """They could not be made; `why` is for people."""

    pod: str
    why: str


@dataclass(frozen=True, slots=True)
class SandboxRemoved:
    """Nothing of the pod is left."""

    pod: str


@dataclass(frozen=True, slots=True)
class SandboxDied:
    """The pause process ended though nobody asked it to."""

    pod: str


@dataclass(frozen=True, slots=True)
class ContainerStarted:
    """`id` identifies the running container across restarts of the control plane; `says` is what
    `describe` shows of how it runs (stand-in or real process)."""

    pod: str
    container: str
    id: str
    says: str


@dataclass(frozen=True, slots=True)
class ContainerExited:
    """`exit_code` as a shell shows it (128+n for signal n). `reason` is Completed, Error, ContainerCannotRun
    or ContainerStatusUnknown."""

    pod: str
    container: str
    exit_code: int
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class HookFailed:
    """A container's hook did not succeed. After a failed PostStart the container is to be ended."""

    pod: str
    container: str
    hook: Literal["PostStart", "PreStop"]


@dataclass(frozen=True, slots=True)
class ProbeFinished:
    """One probe's result; `output` is for people."""

    pod: str
    container: str
    kind: ProbeKind
    ok: bool
    output: str


Event = (
    SandboxCreated
    | SandboxFailed
    | SandboxRemoved
    | SandboxDied
    | ContainerStarted
    | ContainerExited
    | HookFailed
    | ProbeFinished
)
