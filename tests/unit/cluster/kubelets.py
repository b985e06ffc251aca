"""A kubelet in a dialogue: the test says what happens, and reads what the kubelet wants done."""

from __future__ import annotations

from collections.abc import Mapping, Set
from datetime import UTC, datetime
from typing import Any

from nsk8s.api.defaults import default
from nsk8s.api.topology import Topology
from nsk8s.api.types import Obj, Pod
from nsk8s.cluster.ipam import Ipam
from nsk8s.cluster.kubelet import Kubelet
from nsk8s.cluster.lifecycle import (
    Command,
    ContainerExited,
    ContainerStarted,
    CreateSandbox,
    Event,
    ProbeFinished,
    ProbeKind,
    RemoveSandbox,
    RunProbe,
    SandboxCreated,
    SandboxDied,
    SandboxFailed,
    SandboxRemoved,
    StartContainer,
    StopContainer,
)
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.store import Store
from tests.unit.cluster.worlds import new_store, three_nodes

BEGIN = 1_000_000_000.0


class Dialogue:
    """One kubelet over a real store. The clock stands still unless `later` moves it; `log` is all
    that was ever asked, in words."""

    def __init__(self, topology: Topology | None = None, store: Store | None = None) -> None:
        self.now = BEGIN
        self.topology = topology or three_nodes()
        self.store = store or new_store()
        self.store.now = self.stamp
        self.registry = Registry(self.store, self.topology)
        self.kubelet = self.new_kubelet()
        self.log: list[str] = []

    def stamp(self) -> str:
        return datetime.fromtimestamp(self.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def new_kubelet(self) -> Kubelet:
        views = [v for v in self.store.views("pods") if isinstance(v, Pod)]
        return Kubelet(self.store, self.topology, Ipam(self.topology, views))

    def restart(
        self, sandboxes: Set[str] = frozenset(), containers: Mapping[tuple[str, str], str] | None = None
    ) -> list[str]:
        """The control plane dies and comes back, finding these."""
        self.kubelet = self.new_kubelet()
        return self._words(self.kubelet.adopt(sandboxes, containers or {}, self.now))

    # --- the user -------------------------------------------------------------------------------------

    def create(self, obj: Obj) -> list[str]:
        """Create a pod that is bound already."""
        obj = default(obj)
        self.store.create("pods", {**obj, "status": {"phase": "Pending"}})
        return self.sync()

    def delete(self, name: str = "p", grace: int | None = None) -> list[str]:
        self.registry.delete("pods", "default", name, grace=grace)
        return self.sync()

    # --- time and the world ---------------------------------------------------------------------------

    def sync(self) -> list[str]:
        return self._words(self.kubelet.sync(self.now))

    def later(self, seconds: float) -> list[str]:
        """Let time pass, waking the kubelet whenever it wishes."""
        until = self.now + seconds
        said: list[str] = []
        while (at := self.kubelet.wake()) is not None and at <= until:
            assert at > self.now, "woken for nothing"
            self.now = at
            said += self.sync()
        self.now = until
        return said + self.sync()

    def tell(self, *events: Event) -> list[str]:
        commands = [c for event in events for c in self.kubelet.handle(event, self.now)]
        return self._words(commands + self.kubelet.sync(self.now))

    def created(self, name: str = "p") -> list[str]:
        return self.tell(SandboxCreated(self.uid(name)))

    def failed(self, why: str = "no space", name: str = "p") -> list[str]:
        return self.tell(SandboxFailed(self.uid(name), why))

    def removed(self, uid: str) -> list[str]:
        return self.tell(SandboxRemoved(uid))

    def died(self, name: str = "p") -> list[str]:
        return self.tell(SandboxDied(self.uid(name)))

    def started(self, container: str = "c", name: str = "p", id_: str = "id0") -> list[str]:
        return self.tell(ContainerStarted(self.uid(name), container, id_, "stand-in: nginx"))

    def exited(self, code: int, container: str = "c", name: str = "p", message: str = "") -> list[str]:
        reason = "Error" if code else "Completed"
        return self.tell(ContainerExited(self.uid(name), container, code, reason, message))

    def probed(self, kind: ProbeKind, ok: bool, container: str = "c", name: str = "p") -> list[str]:
        return self.tell(ProbeFinished(self.uid(name), container, kind, ok, ""))

    # --- what there is --------------------------------------------------------------------------------

    def get(self, name: str = "p") -> Obj:
        return self.store.find("pods", "default", name)

    def exists(self, name: str = "p") -> bool:
        return self.store.get("pods", "default", name) is not None

    def uid(self, name: str = "p") -> str:
        uid: str = self.get(name)["metadata"]["uid"]
        return uid

    def status(self, name: str = "p") -> Obj:
        status: Obj = self.get(name)["status"]
        return status

    def phase(self, name: str = "p") -> str:
        phase: str = self.status(name)["phase"]
        return phase

    def condition(self, type_: str, name: str = "p") -> Obj:
        return next(c for c in self.status(name)["conditions"] if c["type"] == type_)

    def ready(self, name: str = "p") -> bool:
        return bool(self.condition("Ready", name)["status"] == "True")

    def container(self, container: str = "c", name: str = "p") -> Obj:
        status = self.status(name)
        every = [*status.get("initContainerStatuses", ()), *status["containerStatuses"]]
        found: Obj = next(s for s in every if s["name"] == container)
        return found

    def wanted(self) -> list[str]:
        return [pod.metadata.name for pod in self.kubelet.wanted()]

    def _words(self, commands: list[Command]) -> list[str]:
        said = [words(command) for command in commands]
        self.log += said
        return said


def words(command: Command) -> str:
    """A command as tests write it."""
    match command:
        case CreateSandbox():
            return f"create {command.name} {command.view.status.podIP}"
        case RemoveSandbox():
            return f"remove {command.name}"
        case StartContainer():
            return f"start {command.name}/{command.container.name} #{command.attempt}"
        case StopContainer():
            return f"stop {command.container} {command.grace}s"
        case RunProbe():
            return f"{command.kind} {command.container} {command.ip}:{command.port}"


def pod(name: str = "p", node: str = "w1", **spec: Any) -> Obj:  # noqa: ANN401 - JSON
    """A pod with one container `c`, on a node."""
    given = {"containers": [{"name": "c", "image": "nginx"}], "nodeName": node, **spec}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": given,
    }


def container(name: str = "c", **fields: Any) -> Obj:  # noqa: ANN401 - JSON
    return {"name": name, "image": "nginx", **fields}


def running(**spec: Any) -> Dialogue:  # noqa: ANN401 - JSON
    """A dialogue with one pod whose containers all run."""
    d = Dialogue()
    d.create(pod(**spec))
    d.created()
    for c in d.get()["spec"]["containers"]:
        d.started(c["name"])
    return d
