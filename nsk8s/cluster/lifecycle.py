"""The words between the kubelet's decisions and those who act on them.

Commands are what the kubelet wants done (imperative), events what has happened (past tense). Both are
values; neither does anything. A sandbox is a pod's namespaces, held by its pause process (the term is
the CRI's); `pod` is always the pod's UID, `namespace`/`name` are for people. Times are in seconds.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from nsk8s.api.types import Container, ExecAction, GRPCAction, HTTPGetAction, Pod, TCPSocketAction

ProbeKind = Literal["startup", "liveness", "readiness"]


class CreateSandbox(Struct, frozen=True):
    """Make the pod's namespaces and wire them to its node; answered by `SandboxCreated` or
    `SandboxFailed`. For hostNetwork pods the network is the node's."""

    pod: str
    namespace: str
    name: str
    view: Pod


class RemoveSandbox(Struct, frozen=True):
    """End everything in the pod and let its namespaces go; answered by `SandboxRemoved`."""

    pod: str
    namespace: str
    name: str


class StartContainer(Struct, frozen=True):
    """Run a container in its pod's namespaces, and its postStart hook; answered by `ContainerStarted` when
    that is over, later `ContainerExited`. `attempt` counts restarts from 0."""

    pod: str
    namespace: str
    name: str
    container: Container
    attempt: int
    view: Pod


class StopContainer(Struct, frozen=True):
    """End a container: SIGTERM, and SIGKILL after `grace` seconds (0: SIGKILL at once); answered by
    `ContainerExited`. `spec` and `view` are there if it has a preStop hook, which runs first, within the
    grace; `HookFailed` tells if it does not succeed."""

    pod: str
    container: str
    grace: int
    spec: Container | None = None
    view: Pod | None = None


class RunProbe(Struct, frozen=True):
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


class SandboxCreated(Struct, frozen=True):
    """The pod's namespaces exist and are wired."""

    pod: str


class SandboxFailed(Struct, frozen=True):
    """They could not be made; `why` is for people."""

    pod: str
    why: str


class SandboxRemoved(Struct, frozen=True):
    """Nothing of the pod is left."""

    pod: str


class SandboxDied(Struct, frozen=True):
    """The pause process ended though nobody asked it to."""

    pod: str


class ContainerStarted(Struct, frozen=True):
    """`id` identifies the running container across restarts of the control plane; `says` is what
    `describe` shows of how it runs (stand-in or real process)."""

    pod: str
    container: str
    id: str
    says: str


class ContainerExited(Struct, frozen=True):
    """`exit_code` as a shell shows it (128+n for signal n). `reason` is Completed, Error, ContainerCannotRun
    or ContainerStatusUnknown."""

    pod: str
    container: str
    exit_code: int
    reason: str
    message: str = ""


class HookFailed(Struct, frozen=True):
    """A container's hook did not succeed. After a failed PostStart the container is to be ended."""

    pod: str
    container: str
    hook: Literal["PostStart", "PreStop"]


class ProbeFinished(Struct, frozen=True):
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
