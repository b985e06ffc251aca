"""The kubelets of all nodes in one: brings pods up on their nodes, keeps them running, takes them down.

A pure state machine: changes of pods (`sync`) and events (`handle`) in, commands out, and each pod's
status written to the store, at most once a `sync`. A `PodWorker` decides for one pod; this module gives
it an address, a clock and a voice. Upstream: pkg/kubelet, its pod workers, status manager and probe manager.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence, Set
from ipaddress import ip_address, ip_network

from nsk8s.api.topology import Topology
from nsk8s.api.types import Obj, Pod
from nsk8s.cluster.adoption import restore, seconds
from nsk8s.cluster.heartbeats import stopped
from nsk8s.cluster.ipam import AddressesExhausted, Ipam
from nsk8s.cluster.lifecycle import (
    Command,
    ContainerExited,
    ContainerStarted,
    CreateSandbox,
    Event,
    HookFailed,
    ProbeFinished,
    RemoveSandbox,
    SandboxCreated,
    SandboxDied,
    SandboxFailed,
    SandboxRemoved,
    StartContainer,
    StopContainer,
)
from nsk8s.cluster.nodehealth import readiness
from nsk8s.cluster.podevents import PodEvents
from nsk8s.cluster.podstatus import status
from nsk8s.cluster.podworker import GRACE, PodWorker
from nsk8s.cluster.store import Change, Cursor, Key, Store
from nsk8s.cluster.variables import lacks
from nsk8s.cluster.volumes import missing

FIRST_RETRY = 1.0
MAX_RETRY = 30.0
"""Seconds until a sandbox that could not be made is tried again; doubles from the first to the last."""


CONTENTS = ("configmaps", "secrets", "persistentvolumeclaims")
"""What pods may have to wait for."""


class Kubelet:
    """All pods that are bound to a node of `topology`. Times are seconds, on the clock of `now`."""

    def __init__(self, store: Store, topology: Topology, ipam: Ipam) -> None:
        self._store = store
        self._ipam = ipam
        self._nodes = {node.name: node for node in topology.nodes}
        self._cursor = Cursor(store)
        self._workers: dict[str, PodWorker] = {}
        self._dirty: dict[str, None] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._held: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._leaving: dict[tuple[str, str], str] = {}
        self._starved: dict[str, dict[str, None]] = {}
        self._awaiting: dict[str, dict[str, None]] = {}
        self._alarms: list[tuple[float, str]] = []
        self._alarm: dict[str, float] = {}
        self._wanted: dict[str, Pod] = {}
        self._shown: tuple[Pod, ...] | None = None
        self._stopped: set[str] = set()
        self._unwell: set[str] = set()
        self._tell = PodEvents(store)

    # --- what it is told ------------------------------------------------------------------------------

    def adopt(
        self, sandboxes: Set[str], containers: Mapping[tuple[str, str], str], now: float
    ) -> list[Command]:
        """Take over from an earlier control plane: the UIDs of the pods whose sandbox exists, and the ids
        of the containers that run. Called once, before anything else. What belongs to no pod is ended."""
        self._cursor.read()
        for node in self._nodes:
            self._hear(node)
        stamp = self._store.now()
        commands: list[Command] = []
        for view in self._store.views("pods"):
            assert isinstance(view, Pod)
            meta = view.metadata
            exists = meta.uid in sandboxes
            obj = self._store.find("pods", meta.namespace, meta.name)
            if not self._runs_here(view):
                continue
            worker = self._new(obj, view)
            restore(worker, exists, containers, now, stamp)
            self._names[meta.namespace, meta.name] = meta.uid
            if worker.ip and not view.terminal and (exists or self._fits(view)):
                self._held[meta.uid] = (view.spec.nodeName, worker.ips)
            if exists and view.terminal:
                self._leaving |= {(view.spec.nodeName, ip): worker.uid for ip in worker.ips}
                worker.sandbox = "removing"
                commands.append(RemoveSandbox(worker.uid, worker.namespace, worker.name))
            elif not view.terminal and not (self._fits(view) if exists else self._never_ran(worker)):
                commands += self._lose(worker, now, stamp)
            self._set_wanted(worker, worker.view)
            self._told_to_go(worker, obj, now)
            self._dirty[worker.uid] = None
        commands += [
            StopContainer(pod, container, 0) for pod, container in containers if pod not in self._workers
        ]
        return commands + self.sync(now)

    def sync(self, now: float) -> list[Command]:
        """Take in the pods' changes since the last call, do what is due by now, and write every status
        that has changed."""
        changes = self._cursor.read()
        if changes is None:
            self._relist(now)
        else:
            for change in changes:
                if change.key.resource == "pods":
                    self._changed(change, now)
                elif change.key.resource == "nodes":
                    self._hear(change.key.name)
                elif change.key.resource in CONTENTS and change.key.namespace in self._awaiting:
                    self._look_again(change.key.namespace)
        while self._alarms and self._alarms[0][0] <= now:
            at, uid = heapq.heappop(self._alarms)
            if self._alarm.get(uid) == at:
                del self._alarm[uid]
                self._dirty[uid] = None
        commands: list[Command] = []
        while self._dirty:
            dirty, self._dirty = self._dirty, {}
            stamp = self._store.now()
            for uid in dirty:
                worker = self._workers.get(uid)
                if worker is not None:
                    self._step(worker, now, stamp, commands)
        return commands

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in what has happened. The status follows with the next `sync`."""
        worker = self._workers.get(event.pod)
        if worker is None:
            return []
        match event:
            case ContainerStarted():
                worker.started(event, now, self._store.now())
            case ContainerExited():
                worker.exited(event, now, self._store.now())
                self._backed_off(worker, event.container)
            case HookFailed():
                self._tell.started(worker)
                self._tell.hook_failed(worker, event)
                worker.hook_failed(event)
            case ProbeFinished():
                self._tell.probed(worker, event)
                worker.probed(event, now)
            case SandboxCreated():
                if worker.sandbox == "creating":
                    worker.sandbox, worker.tries = "ready", 0
            case SandboxFailed():
                self._failed(worker, event.why, now)
            case SandboxRemoved():
                if worker.sandbox == "removing":
                    self._release(worker)
            case SandboxDied():
                if worker.wanted:
                    self._tell.sandbox_died(worker)
                    self._dirty[worker.uid] = None
                    return self._lose(worker, now, self._store.now())
        self._dirty[worker.uid] = None
        if self._still(worker):
            return []
        worker.advance(now)
        return self._said(worker, now)

    # --- what it knows --------------------------------------------------------------------------------

    def wake(self) -> float | None:
        """When a `sync` is due though nothing happens; None: never."""
        while self._alarms and self._alarm.get(self._alarms[0][1]) != self._alarms[0][0]:
            heapq.heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None

    def wanted(self) -> Sequence[Pod]:
        """The pods whose sandbox should exist, with their addresses. A pod is the same value from call to
        call unless its spec, labels or address have changed."""
        if self._shown is None:
            self._shown = tuple(self._wanted.values())
        return self._shown

    # --- changes of pods ------------------------------------------------------------------------------

    def _changed(self, change: Change, now: float) -> None:
        worker = self._workers.get(change.new["metadata"]["uid"])
        if change.type == "DELETED":
            if worker is not None and not worker.gone:
                worker.gone = True
                self._dirty[worker.uid] = None
        elif worker is None or change.new is not worker.obj:
            self._see(change.new, now)

    def _relist(self, now: float) -> None:
        """Changes were missed, or undone: look at every pod."""
        for node in self._nodes:
            self._hear(node)
        for namespace in tuple(self._awaiting):
            self._look_again(namespace)
        there = set()
        for obj in self._store.list("pods"):
            there.add(obj["metadata"]["uid"])
            self._see(obj, now)
        for worker in self._workers.values():
            if worker.uid not in there:
                worker.gone = True
                self._dirty[worker.uid] = None

    def _see(self, obj: Obj, now: float) -> None:
        meta = obj["metadata"]
        uid: str = meta["uid"]
        worker = self._workers.get(uid)
        if worker is None:
            if not obj["spec"].get("nodeName"):
                return
            view = self._store.view(Key("pods", meta["namespace"], meta["name"]))
            if not isinstance(view, Pod) or view.metadata.uid != uid or not self._runs_here(view):
                return
            worker = self._new(obj, view)
        else:
            old, worker.obj = worker.obj, obj
            before = old["metadata"]
            if old["spec"] != obj["spec"] or before.get("labels") != meta.get("labels"):
                self._renew(worker)
            if before.get("deletionTimestamp") == meta.get("deletionTimestamp"):
                self._dirty[uid] = None
                return
        self._told_to_go(worker, obj, now)
        self._dirty[uid] = None

    def _await(self, worker: PodWorker) -> None:
        """The pod lacks something of its namespace."""
        self._awaiting.setdefault(worker.namespace, {})[worker.uid] = None

    def _look_again(self, namespace: str) -> None:
        """What pods of a namespace lack may be there now."""
        for uid in self._awaiting.pop(namespace):
            worker = self._workers.get(uid)
            if worker is not None:
                for run in worker.runs():
                    run.why = ""
                self._dirty[uid] = None

    def _renew(self, worker: PodWorker) -> None:
        view = self._store.view(Key("pods", worker.namespace, worker.name))
        if isinstance(view, Pod) and view.metadata.uid == worker.uid:
            worker.renew(view)
            if worker.uid in self._wanted:
                self._set_wanted(worker, view)

    def _told_to_go(self, worker: PodWorker, obj: Obj, now: float) -> None:
        """A deletion that has begun ends at its deletionTimestamp, whoever began it."""
        meta = obj["metadata"]
        until = meta.get("deletionTimestamp")
        if until:
            left = max(0, round(seconds(until) - seconds(self._store.now())))
            worker.delete(min(left, meta.get("deletionGracePeriodSeconds", GRACE)), now)

    def _new(self, obj: Obj, view: Pod) -> PodWorker:
        worker = self._workers[view.metadata.uid] = PodWorker(obj, view)
        worker.unwell = view.spec.nodeName in self._unwell
        return worker

    def _hear(self, name: str) -> None:
        """Whether the kubelet of a node was stopped, and whether the node is ready."""
        node = self._store.get("nodes", "", name)
        if node is None:
            return
        still, unwell = stopped(node), readiness(node) != "True"
        if (still, unwell) == (name in self._stopped, name in self._unwell):
            return
        (self._stopped.add if still else self._stopped.discard)(name)
        (self._unwell.add if unwell else self._unwell.discard)(name)
        for worker in self._workers.values():
            if worker.view.spec.nodeName == name:
                worker.unwell = unwell
                self._dirty[worker.uid] = None

    def _still(self, worker: PodWorker) -> bool:
        """Nobody looks after the pod: its node's kubelet was stopped. What nobody wants any more goes all the
        same, for its name may be another's by now."""
        return bool(self._stopped) and worker.view.spec.nodeName in self._stopped and not worker.gone

    def _runs_here(self, view: Pod) -> bool:
        return view.spec.nodeName in self._nodes

    # --- one pod, one step ----------------------------------------------------------------------------

    def _step(self, worker: PodWorker, now: float, stamp: str, commands: list[Command]) -> None:
        if self._still(worker):
            return
        if worker.sandbox == "none":
            if worker.deleting:
                self._end(worker)
                return
            phase = (worker.obj.get("status") or {}).get("phase")
            over = phase in ("Succeeded", "Failed") or worker.done
            if not over and (worker.retry_at is None or worker.retry_at <= now):
                created = self._bring_up(worker, stamp)
                if created is not None:
                    commands.append(created)
                    return
        else:
            worker.advance(now)
            commands += self._said(worker, now)
        if not worker.gone and not _about_to_say_more(worker):
            self._write(worker, stamp)
        self._tell.started(worker)
        self._rearm(worker, now)

    def _bring_up(self, worker: PodWorker, stamp: str) -> Command | None:
        """Give the pod an address, say so, and have its sandbox made. While an earlier pod of the same
        name is on its way out it waits: their namespaces would have one name."""
        name = (worker.namespace, worker.name)
        if worker.uid not in self._held:
            worker.ips = ()  # those of its last sandbox may be another pod's by now
        if self._names.get(name, worker.uid) != worker.uid:
            return None
        lacking = next(missing(self._store, worker.view), None)
        if lacking is not None:
            self._await(worker)
            if worker.why != lacking:
                self._tell.failed_mount(worker, lacking)
            worker.why = lacking
            return None
        node = self._nodes[worker.view.spec.nodeName]
        if worker.uid not in self._held:
            try:
                ips = node.addresses if worker.view.spec.hostNetwork else self._allocate(node.name)
            except AddressesExhausted as error:
                if worker.why != error.message:
                    self._tell.sandbox_failed(worker, error.message)
                worker.why = error.message
                self._starved.setdefault(node.name, {})[worker.uid] = None
                return None
            self._held[worker.uid] = (node.name, ips)
            worker.ips = ips
        self._names[name] = worker.uid
        worker.sandbox = "creating"
        worker.why = ""
        worker.retry_at = None
        self._write(worker, stamp)
        view = self._store.view(Key("pods", worker.namespace, worker.name))
        assert isinstance(view, Pod)
        worker.view = view
        self._set_wanted(worker, view)
        return CreateSandbox(worker.uid, worker.namespace, worker.name, view)

    def _allocate(self, node: str) -> tuple[str, ...]:
        """Free addresses. Those of pods that had ended before a restart count as free with the Ipam, though
        their sandboxes may still be on their way out: they stay taken until these are gone."""
        while True:
            ips = self._ipam.allocate(node)
            leavers = {ip: self._leaving.pop((node, ip)) for ip in ips if (node, ip) in self._leaving}
            if not leavers:
                return ips
            for ip, leaver in leavers.items():
                self._held[leaver] = (node, (*self._held.get(leaver, (node, ()))[1], ip))
            self._ipam.release(node, (ip for ip in ips if ip not in leavers))

    def _failed(self, worker: PodWorker, why: str, now: float) -> None:
        if worker.sandbox == "creating":
            worker.sandbox = "none"
            self._tell.sandbox_failed(worker, why)
            worker.why = why
            worker.retry_at = now + min(FIRST_RETRY * 2.0 ** min(worker.tries, 10), MAX_RETRY)
            worker.tries += 1
            self._set_wanted(worker, worker.view)

    def _lose(self, worker: PodWorker, now: float, stamp: str) -> list[Command]:
        """The sandbox is no more, or no longer what it should be: clear away what is left of it. Whether
        there will be another is decided when that is done."""
        worker.died(now, stamp)
        worker.sandbox = "removing"
        self._set_wanted(worker, worker.view)
        return [RemoveSandbox(worker.uid, worker.namespace, worker.name)]

    def _backed_off(self, worker: PodWorker, container: str) -> None:
        run = worker.run(container)
        ended = run is not None and run.phase == "exited" and run.backoff and not worker.deleting
        if ended and run is not None and worker.restarts(run):
            self._tell.backing_off(worker, run)

    def _release(self, worker: PodWorker) -> None:
        """Nothing of the sandbox is left: its address and its name are free for others."""
        worker.sandbox = "none"
        for ip in worker.ips:
            self._leaving.pop((worker.view.spec.nodeName, ip), None)
        held = self._held.pop(worker.uid, None)
        if held is not None and not worker.view.spec.hostNetwork:
            self._ipam.release(*held)
            self._dirty.update(self._starved.pop(held[0], {}))
        name = (worker.namespace, worker.name)
        if self._names.get(name) == worker.uid:
            del self._names[name]
            heir = self._store.get("pods", *name)
            if heir is not None:
                self._dirty[heir["metadata"]["uid"]] = None

    def _end(self, worker: PodWorker) -> None:
        """The pod has no sandbox any more and was told to go: remove the object, unless finalizers still
        hold it."""
        if worker.uid in self._held:
            self._release(worker)
        self._forget(worker)
        obj = self._store.get("pods", worker.namespace, worker.name)
        if obj is None or obj["metadata"]["uid"] != worker.uid:
            return
        meta = obj["metadata"]
        if not meta.get("finalizers"):
            self._store.delete("pods", worker.namespace, worker.name)
        elif meta.get("deletionGracePeriodSeconds"):
            self._store.update("pods", {**obj, "metadata": {**meta, "deletionGracePeriodSeconds": 0}})

    def _forget(self, worker: PodWorker) -> None:
        del self._workers[worker.uid]
        self._alarm.pop(worker.uid, None)
        if self._names.get((worker.namespace, worker.name)) == worker.uid:
            del self._names[worker.namespace, worker.name]

    def _write(self, worker: PodWorker, stamp: str) -> None:
        obj = self._store.get("pods", worker.namespace, worker.name)
        if obj is None or obj["metadata"]["uid"] != worker.uid:
            return
        worker.obj = obj
        old: Obj = obj.get("status") or {}
        hosts = self._nodes[worker.view.spec.nodeName].addresses
        new = {**old, **status(worker, hosts, stamp)}
        if not worker.ip:
            new.pop("podIP", None)
            new.pop("podIPs", None)
        if new != old:
            worker.obj = self._store.update("pods", {**obj, "status": new}, generation=False)

    def _said(self, worker: PodWorker, now: float) -> list[Command]:
        """What the worker wants done."""
        said: list[Command] = []
        for command in worker.commands:
            if isinstance(command, StopContainer) and (run := worker.run(command.container)) is not None:
                self._tell.stopping(worker, run)
            elif isinstance(command, StartContainer) and (
                why := lacks(self._store, command.view, command.container)
            ):
                self._refuse(worker, command.container.name, why)
                continue
            said.append(command)
        worker.commands = []
        if said and worker.sandbox == "removing":
            self._set_wanted(worker, worker.view)
        return said

    def _refuse(self, worker: PodWorker, container: str, why: str) -> None:
        """A container cannot start for what it lacks."""
        run = worker.run(container)
        assert run is not None
        run.refused(why)
        self._await(worker)
        self._tell.refused(worker, run)

    def _set_wanted(self, worker: PodWorker, view: Pod) -> None:
        if worker.wanted:
            self._wanted[worker.uid] = view
        elif self._wanted.pop(worker.uid, None) is None:
            return
        self._shown = None

    def _rearm(self, worker: PodWorker, now: float) -> None:
        at = worker.wake(now)
        if at is None:
            self._alarm.pop(worker.uid, None)
        elif self._alarm.get(worker.uid) != at:
            self._alarm[worker.uid] = at
            heapq.heappush(self._alarms, (at, worker.uid))

    # --- adoption -------------------------------------------------------------------------------------

    def _never_ran(self, worker: PodWorker) -> bool:
        return all(run.attempt < 0 for run in worker.runs())

    def _fits(self, view: Pod) -> bool:
        """Whether a pod's addresses are still ones that its node would give it."""
        node, ips = self._nodes[view.spec.nodeName], view.status.ips
        if view.spec.hostNetwork:
            return ips == node.addresses
        return len(ips) == len(node.pod_cidrs) and all(
            ip_address(ip) in ip_network(cidr) for ip, cidr in zip(ips, node.pod_cidrs, strict=True)
        )


def _about_to_say_more(worker: PodWorker) -> bool:
    """Whether a status would be stale at once: all containers of a new pod are just being started, and
    they are reported together. An end is never held back, nor what init containers have done: a restarted
    control plane must know of it."""
    return (
        worker.sandbox == "ready"
        and not worker.deleting
        and not worker.inits
        and any(run.phase == "starting" for run in worker.apps)
        and all(run.terminated is None for run in worker.apps)
    )
