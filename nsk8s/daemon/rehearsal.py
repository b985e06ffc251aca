"""A change played through without a kernel: every command is answered by its success.

What `up --dry-run` shows: the same loop, on a copy of the objects, and the difference between the compiled
networks before and after as commands a person could type.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from nsk8s.api.topology import Topology
from nsk8s.api.types import Obj
from nsk8s.cluster import definitions
from nsk8s.cluster.lifecycle import (
    Command,
    ContainerExited,
    ContainerStarted,
    CreateSandbox,
    Event,
    ProbeFinished,
    RemoveSandbox,
    RunProbe,
    SandboxCreated,
    SandboxRemoved,
    StartContainer,
)
from nsk8s.cluster.store import Change, Key, Store
from nsk8s.daemon.bringup import apply_all, former, prepare
from nsk8s.daemon.loop import Loop
from nsk8s.linux.state import diff
from nsk8s.linux.text import commands
from nsk8s.linux.values import NamespaceState

TURNS = 10_000
"""A rehearsal that is not over by then has containers that never become ready."""


class Snapshot:
    """A journal that starts from given objects and forgets what is written to it."""

    def __init__(self, revision: int, objects: Iterable[tuple[str, Obj]]) -> None:
        self._revision = revision
        self._objects = objects

    def load(self) -> tuple[int, Iterable[tuple[str, Obj]]]:
        """What was given."""
        return self._revision, self._objects

    def write(self, revision: int, changes: Sequence[Change], encoded: Callable[[Obj], bytes]) -> None:
        """Forget."""


def answer(command: Command) -> list[Event]:
    """What happens when `command` goes well."""
    match command:
        case CreateSandbox():
            return [SandboxCreated(command.pod)]
        case RemoveSandbox():
            return [SandboxRemoved(command.pod)]
        case StartContainer():
            started = ContainerStarted(command.pod, command.container.name, "rehearsal", "")
            if command.container in command.view.spec.initContainers and (
                command.container.restartPolicy != "Always"
            ):
                return [started, ContainerExited(command.pod, command.container.name, 0, "Completed")]
            return [started]
        case RunProbe():
            return [ProbeFinished(command.pod, command.container, command.kind, True, "")]
        case _:
            return [ContainerExited(command.pod, command.container, 0, "Completed")]


def play(loop: Loop) -> None:
    """Run `loop` until every pod that can be ready is."""
    now = 0.0
    todo, _ = loop.turn(now)
    for _turn in range(TURNS):
        if todo:
            todo, _ = loop.turn(now, [event for command in todo for event in answer(command)])
            continue
        waiting = [p for p in loop.kubelet.wanted() if not (p.ready or p.terminal)]
        wake = loop.wake()
        if not waiting or wake is None:
            return
        now = max(now, wake)
        todo, _ = loop.turn(now)


def novelty() -> tuple[Callable[[], str], Callable[[], str]]:
    """Reproducible sources of UIDs and name suffixes."""
    counter = itertools.count(1)
    return (lambda: f"00000000-0000-4000-8000-{next(counter):012x}"), (
        lambda: "".join("bcdfghjklmnpqrstvwxz2456789"[(next(counter) // 27**i) % 27] for i in range(5))
    )


def rehearse(
    topology: Topology,
    objects: Iterable[Obj],
    stored: tuple[int, Iterable[tuple[str, Obj]]] = (0, ()),
    previous: Sequence[Key] = (),
) -> dict[str, NamespaceState]:
    """The network in which `objects` end, applied on top of what is `stored` (of which `previous` came from
    the files of the last `up`). Raises what `up` would."""
    uid, suffix = novelty()
    store = Store(Snapshot(*stored), uid=uid, suffix=suffix, now=lambda: "2000-01-01T00:00:00Z")
    definitions.bootstrap(store)
    objects = list(objects)
    prepare(store, topology, former(store, topology.name), objects, 0.0)
    loop = Loop(store, topology)
    containers = {
        (pod.metadata.uid, status.name): status.containerID
        for pod in loop.pods()
        for status in (*pod.status.containerStatuses, *pod.status.initContainerStatuses)
        if "running" in status.state
    }
    loop.adopt({pod.metadata.uid for pod in loop.pods() if pod.status.podIP}, containers, 0.0)
    loop.turn(0.0)
    apply_all(loop.registry, store, objects, previous)
    play(loop)
    return loop.desired()


def commands_for(topology: Topology, objects: Iterable[Obj]) -> list[str]:
    """What `up` would do for a cluster that does not exist yet, as commands."""
    return difference({}, rehearse(topology, objects), topology.name)


def difference(
    before: dict[str, NamespaceState], after: dict[str, NamespaceState], cluster: str
) -> list[str]:
    """What turns one network into the other, as commands a person could type."""
    return [line for op in diff(before, after) for line in commands(op, f"{cluster}.")]
