"""The control plane's process: wires the loop to the kernel, the containers and the API.

Everything that decides or writes happens in the asyncio thread, in `turn`; what takes time (the kernel,
processes, probes) happens elsewhere and comes back as events for the next turn.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import random
import time
import uuid
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

from nsk8s.api import cluster as clusters
from nsk8s.api.kinds import BY_NAME
from nsk8s.api.topology import Topology
from nsk8s.api.types import Obj, Pod
from nsk8s.apiserver.authentication import Authenticator
from nsk8s.apiserver.authorization import Authorizer
from nsk8s.apiserver.reviews import Reviews
from nsk8s.apiserver.server import ApiServer
from nsk8s.apiserver.streams import handlers
from nsk8s.apiserver.tokens import Tokens
from nsk8s.cluster import definitions
from nsk8s.cluster.lifecycle import (
    Command,
    CreateSandbox,
    Event,
    RemoveSandbox,
    SandboxCreated,
    SandboxDied,
    SandboxFailed,
    SandboxRemoved,
    StopContainer,
)
from nsk8s.cluster.policy import CLUSTER_POLICIES, POLICIES
from nsk8s.cluster.store import Change, Key, Store, key_of
from nsk8s.daemon.access import Access
from nsk8s.daemon.bringup import CLUSTERS, Applied, Readiness, apply_all, expected, former, prepare, readiness
from nsk8s.daemon.hardware import system
from nsk8s.daemon.journal import SqliteJournal
from nsk8s.daemon.launch import READY, tell
from nsk8s.daemon.loop import Loop
from nsk8s.daemon.network import Network, Plan, Share, portions
from nsk8s.daemon.pki import Keys
from nsk8s.daemon.places import Places
from nsk8s.daemon.podaccess import KubeletServer
from nsk8s.daemon.policies import PolicyAnswers
from nsk8s.daemon.proxies import Proxies
from nsk8s.daemon.rehearsal import difference, rehearse
from nsk8s.daemon.runs import Runs
from nsk8s.daemon.runtime import Runtime
from nsk8s.daemon.surroundings import Surroundings
from nsk8s.daemon.targets import Targets
from nsk8s.daemon.volumes import Volumes
from nsk8s.dataplane.compiler import pod_namespace
from nsk8s.errors import ApiError, NsK8sError
from nsk8s.kernel import holder as holders
from nsk8s.kernel.conntrack import Frontends
from nsk8s.kernel.forked import ForkServer
from nsk8s.kernel.machine import Machine
from nsk8s.kernel.processes import Inside
from nsk8s.paths import ClusterPaths

log = logging.getLogger("nsk8s")

NETWORKED = {
    "pods",
    "services",
    "endpointslices.discovery.k8s.io",
    "nodes",
    "namespaces",
    POLICIES,
    CLUSTER_POLICIES,
}
"""Resources whose changes may change the network."""

NODE_INTERVAL = 5.0
"""Seconds between two looks at the nodes' kernel state (flanneld re-ensures its own every few seconds)."""
FULL_INTERVAL = 30.0
"""Seconds between two looks at everything (kube-proxy's syncPeriod)."""
PROGRESS_INTERVAL = 0.1
"""Seconds between two looks at how far `up` has come; one takes 10 ms with 1,000 pods."""
PATIENCE = 60.0
"""Seconds that somebody is kept waiting for the network to be what the objects say."""
RETRY_INTERVAL = 1.0
"""Seconds until what the kernel has refused is tried again."""

SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""k8s.io/apimachinery/pkg/util/rand: no vowels, so that no words appear."""


def new_store(paths: ClusterPaths) -> Store:
    """The cluster's store, with the world's own novelty."""
    source = random.Random(uuid.uuid4().int)
    return Store(
        SqliteJournal(paths.journal),
        uid=lambda: _uid(source.getrandbits(128)),
        suffix=lambda: "".join(source.choices(SUFFIX_LETTERS, k=5)),
        now=lambda: _stamp(int(time.time())),
    )


def _uid(bits: int) -> str:
    """A random UUID (RFC 9562, version 4), a third as long in the making as uuid.UUID's."""
    digits = f"{bits:032x}"
    variant = "89ab"[bits >> 62 & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


@functools.lru_cache(maxsize=1)
def _stamp(second: int) -> str:
    """A time as RFC 3339; many objects are made within the same second."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Found(NamedTuple):
    """What runs already: the pods (UIDs) that have a sandbox, and the ids of containers by pod and name."""

    sandboxes: Set[str]
    containers: Mapping[tuple[str, str], str]


class Daemon:
    """One cluster's control plane."""

    def __init__(self, paths: ClusterPaths, store: Store, machine: Machine, loaded: ForkServer) -> None:
        self.paths = paths
        self.store = store
        self.network = Network(machine)
        self.keys = Keys(paths)
        self.tokens = Tokens(store, self.keys.signing_key)
        surroundings = Surroundings(store, self.keys, self.tokens)
        self.volumes = Volumes(paths.volumes, store, surroundings.token)
        self.runs = Runs()
        self.places = Places(machine, surroundings, self.volumes, self.runs)
        self.runtime = Runtime(paths, loaded, self.network, self.post, self.runs, self.places)
        self.proxies = Proxies(machine, self.runtime.servers)
        definitions.bootstrap(store)
        self.loop = Loop(store, self._topology(), system())
        self.api = ApiServer(store, self.loop.registry, self.turn)
        authenticator, authorizer = Authenticator(self.tokens.user), Authorizer(store)
        self.api.check, self.api.granting = authorizer.check, authorizer.granting
        Reviews(store, authorizer, self.tokens).serve(self.api)
        self.access = Access(
            paths,
            self.keys,
            self.api,
            self.network,
            lambda http: authorizer.impersonated(authenticator.identify(http), http),
        )
        self.root_ca = ""
        self._events: list[Event] = []
        self._creating: dict[str, str] = {}
        self._removing: dict[str, str] = {}
        self._stopping: list[Command] = []
        self._frontends: Frontends = {}
        self._kernel = asyncio.Lock()
        self._dirty = asyncio.Event()
        self._idle = asyncio.Event()
        self._turned = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- deciding -----------------------------------------------------------------------------------

    async def turn(self) -> None:
        """Let everybody finish what has been asked so far, and make it durable."""
        self._turn()

    def post(self, event: Event) -> None:
        """Something has happened; the next turn takes it in."""
        if not self._events:
            asyncio.get_running_loop().call_soon(self._turn)
        self._events.append(event)

    def _turn(self) -> None:
        events, self._events = self._events, []
        commands, changes = self.loop.turn(time.time(), events)
        if any(change.key.resource in NETWORKED for change in changes):
            self._touch()
        self.volumes.refresh(changes)
        self._dispatch(commands)
        self._rearm()
        self._announce(changes)

    def _touch(self) -> None:
        self._idle.clear()
        self._dirty.set()

    def _announce(self, changes: Iterable[Change]) -> None:
        self.api.notify(changes)
        turned, self._turned = self._turned, asyncio.Event()
        turned.set()

    def _rearm(self) -> None:
        if self._timer:
            self._timer.cancel()
        wake = self.loop.wake()
        if wake is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, wake - time.time()), self._turn)

    def _dispatch(self, commands: list[Command]) -> None:
        rest = []
        for command in commands:
            match command:
                case CreateSandbox():
                    self._creating[command.pod] = pod_namespace(command.namespace, command.name)
                    self._touch()
                case RemoveSandbox():
                    self._removing[command.pod] = pod_namespace(command.namespace, command.name)
                    self._touch()
                case StopContainer() if command.grace > 0:
                    # Once no rule sends anybody there any more: a server that handles SIGTERM well
                    # would not be missed either, and a stand-in ends at once.
                    self._stopping.append(command)
                    self._touch()
                case _:
                    rest.append(command)
        self.runtime.dispatch(rest)

    async def make_keys(self) -> None:
        """Make the keys of a new cluster, beside other work."""
        await asyncio.to_thread(self.keys.make)
        self.trust(self.keys.authority().certificate.decode())
        self._turn()

    def trust(self, root_ca: str) -> None:
        """Let pods know the API server by this certificate (PEM)."""
        self.root_ca = root_ca
        self.loop.control.trust(root_ca)

    # --- acting -------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """What the kernel should hold now."""
        tags, shares = {}, {}
        for pod in self.loop.kubelet.wanted():
            name = pod_namespace(pod.metadata.namespace, pod.metadata.name)
            if pod.spec.hostNetwork:
                shares[name] = Share(pod.spec.nodeName, pod.metadata.uid)
            else:
                tags[name] = pod.metadata.uid
        return Plan(self.loop.desired(), tags, shares, self.loop.own)

    async def follow(self) -> None:
        """Keep the kernel at the plan, for ever."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            creating, self._creating = self._creating, {}
            removing, self._removing = self._removing, {}
            stopping, self._stopping = self._stopping, []
            self.runtime.leave(removing)
            try:
                async with self._kernel:
                    async for pods in self.network.reach(self.plan()):
                        await self._open()  # pods may ask the API server, which stands on a node
                        for pod in pods:
                            if creating.pop(pod, None) is not None:
                                self.post(SandboxCreated(pod))
            except NsK8sError as error:
                log.error("%s", error)
                for pod in creating:
                    self.post(SandboxFailed(pod, error.message))
                self._removing = removing | self._removing
                asyncio.get_running_loop().call_later(RETRY_INTERVAL, self._touch)
                continue
            finally:
                self.runtime.dispatch(stopping)
            frontends = self.loop.udp_frontends()
            if frontends != self._frontends:
                self._frontends = frontends
                await self.network.forget_udp(frontends)
            await self._open()
            for pod in creating:
                self.post(SandboxCreated(pod))
            self.volumes.remove(removing)
            for pod in removing:
                self.post(SandboxRemoved(pod))
            await self._proxies()
            if self._events:  # what is told here may ask for more, or for nothing
                await self._turned.wait()
            if not self._dirty.is_set():  # what came after that turn is for the next one to weigh
                self.network.machine.stock(0)
                self._idle.set()
                self._announce(())

    async def _open(self) -> None:
        """Let the API listen where it should, now that the nodes are there."""
        try:
            await self.access.open(self.loop.topology)
        except NsK8sError as error:
            log.error("%s", error)
            asyncio.get_running_loop().call_later(RETRY_INTERVAL, self._touch)

    async def _proxies(self) -> None:
        """Let kube-proxy listen on the nodes, and tell what is so by now."""
        try:
            await self.proxies.listen(self.loop.proxy_listeners())
        except NsK8sError as error:
            log.error("%s", error)
            asyncio.get_running_loop().call_later(RETRY_INTERVAL, self._touch)

    async def watch(self) -> None:
        """Look from time to time whether the kernel still holds what it should."""
        looks = 0
        while True:
            await asyncio.sleep(NODE_INTERVAL)
            looks += 1
            everything = looks % round(FULL_INTERVAL / NODE_INTERVAL) == 0
            plan = self.plan()
            names = [n for n in plan.states if everything or n not in plan.tags]
            try:
                for number, portion in enumerate(portions(names, plan.states)):
                    await self.compare(portion, thorough=number == 0)
                if everything:
                    self.loop.alive()
                    self._turn()
            except NsK8sError as error:
                log.error("%s", error)
            await self._open()
            await self._proxies()

    async def compare(self, names: Collection[str] | None = None, *, thorough: bool = True) -> int:
        """Repair what the kernel no longer holds of the plan, in some namespaces or in all; returns how many
        operations it took. `thorough` as in `Network.compare`."""
        async with self._kernel:  # a plan that is older than the kernel's state would undo what is new
            operations = 0
            while True:
                plan = self.plan()
                wanted = plan.states if names is None else names
                found = await self.network.compare(plan, wanted, thorough=thorough)
                operations += len(found.died) + found.operations
                if not found.died:
                    return operations
                for pod in found.died:
                    self.post(SandboxDied(pod))
                self._turn()

    async def look(self) -> Found:
        """What runs already."""
        async with self._kernel:  # what is just being made is not there yet
            existing = await self.network.in_kernel(self.network.machine.sandboxes)
        containers = await self.runtime.running()
        running = {pod for pod, _ in containers}
        # What nothing runs in and has no interface is what an earlier control plane left half made.
        complete = (one for one in existing.values() if one.tag in running or one.wired())
        return Found({sandbox.tag for sandbox in complete if sandbox.tag}, containers)

    def adopt(self, found: Found) -> None:
        """Take over what runs: after a restart, and when the topology has changed."""
        topology = self.loop.topology
        self.runtime.catalogue = topology.images
        self.volumes.adopt()
        if topology.dns.replicas:
            self.runtime.warm_dns()
        self._dispatch(self.loop.adopt(found.sandboxes, found.containers, time.time()))
        self._touch()
        self._turn()

    # --- what only nsk8s serves ---------------------------------------------------------------------

    async def up(self, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """`POST /nsk8s/v1/up`: make the cluster what the files say; tells of objects applied, progress,
        and the end, as JSON lines."""
        cluster, objects = body["cluster"], body["objects"]
        topology = clusters.resolve(cluster)
        if body.get("dryRun"):
            stored = [(r, obj) for r in self.store.resources() for obj in self.store.list(r)]
            after = rehearse(topology, objects, (self.store.revision, stored), self._previous())
            for line in difference(self.loop.desired(), after, self.paths.cluster):
                yield {"command": line}
            return
        with making_much():
            async for told in self._up(cluster, topology, objects, float(body.get("wait", 0))):
                yield told

    async def _up(
        self, cluster: Obj, topology: Topology, objects: list[Obj], wait: float
    ) -> AsyncIterator[dict[str, Any]]:
        applied = await self._apply(cluster, topology, objects)
        for one in applied:
            yield {"applied": {"object": one.object, "verdict": one.verdict}}
        changed = any(one.verdict != "unchanged" for one in applied)
        operations = 0 if changed else await self.compare()
        deadline = time.monotonic() + wait
        turned, state = self._turned, readiness(self.store)
        while not self._settled(state) and time.monotonic() < deadline:
            soonest = time.monotonic() + PROGRESS_INTERVAL
            yield {"progress": {"ready": state.ready, "total": state.total}}
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    turned = await self._advanced(turned, soonest)
            except TimeoutError:
                break
            state = readiness(self.store)
        await self.access.opened()
        waiting = state.waiting if wait else ()
        yield {"done": {**self._counts(), "changed": changed, "operations": operations, "waiting": waiting}}

    async def _advanced(self, turned: asyncio.Event, soonest: float) -> asyncio.Event:
        """Wait for the turn `turned`, which may be over already, and for more of them until `soonest`, unless
        all that was asked for is done; returns the next one."""
        while True:
            await turned.wait()
            turned = self._turned
            if self._idle.is_set() or time.monotonic() >= soonest:
                return turned

    def _settled(self, state: Readiness) -> bool:
        return state.over and self._idle.is_set()

    async def _apply(self, cluster: Obj, topology: Topology, objects: list[Obj]) -> list[Applied]:
        """Apply the Cluster document and the objects, all or nothing."""
        name = self.paths.cluster
        # Nothing may come between what follows: no other request, no turn of the old loop, no Ctrl-C.
        found = None
        if self._differs(cluster):
            if topology.dns.replicas:
                self.runtime.warm_dns()  # beside all that follows
            found = await self.look()
            if not found.sandboxes:
                self.network.machine.stock(len(topology.nodes) + expected(objects))
        old = self.store.get(CLUSTERS, "", name)
        previous = self._previous()
        meta = {**cluster["metadata"], "name": name}
        loop = self.loop
        if found is not None:
            prepare(self.store, topology, former(self.store, name), objects, time.time())
            if old is None:
                self.store.create(CLUSTERS, {**cluster, "metadata": meta})
            else:
                self.store.update(CLUSTERS, {**old, "spec": cluster.get("spec")})
            loop = Loop(self.store, topology, system())
            loop.control.trust(self.root_ca)
            loop.control.settle(time.time())  # namespaces and nodes first
        applied = apply_all(loop.registry, self.store, objects, previous)
        verdicts = {"created", "unchanged", "configured"}
        keys = [list(one.key) for one in applied if one.verdict in verdicts]
        stored = self.store.find(CLUSTERS, "", name)
        self.store.update(CLUSTERS, {**stored, "status": {"applied": keys}}, generation=False)
        if found is not None:
            self.loop = loop
            self.api.registry = loop.registry
            self.adopt(found)
            verdict = "created" if old is None else "configured"
            applied.insert(0, Applied(BY_NAME[CLUSTERS], key_of(CLUSTERS, stored), verdict))
        else:
            self._turn()
        return applied

    def _previous(self) -> list[Key]:
        """What the last `up` applied."""
        stored = self.store.get(CLUSTERS, "", self.paths.cluster) or {}
        return [Key(*key) for key in stored.get("status", {}).get("applied", ())]

    def _differs(self, cluster: Obj) -> bool:
        stored = self.store.get(CLUSTERS, "", self.paths.cluster)
        return stored is None or stored.get("spec") != cluster.get("spec")

    def here(self) -> Inside | None:
        """The control-plane node, where the API server stands."""
        for node in self.loop.topology.nodes:
            if node.role == "control-plane":
                return Inside(pid=self.network.machine.pid(node.name))
        return None

    def pod(self, namespace: str, name: str) -> Pod:
        """A pod as it is now. Raises `ApiError` 404."""
        self.store.find("pods", namespace, name)
        found = self.store.view(Key("pods", namespace, name))
        assert isinstance(found, Pod)
        return found

    def _topology(self) -> Topology:
        return former(self.store, self.paths.cluster) or Topology(self.paths.cluster, ())

    def _counts(self) -> dict[str, int]:
        return {r: self.store.count(r) for r in ("nodes", "pods", "services")}

    async def describe(self, _query: Obj) -> Obj:
        """`GET /nsk8s/v1/cluster`: what `nsk8s ls` shows."""
        stored = self.store.get(CLUSTERS, "", self.paths.cluster)
        created = stored["metadata"]["creationTimestamp"] if stored else None
        return {**self._counts(), "created": created}

    async def settled(self, _query: Obj) -> Obj:
        """`GET /nsk8s/v1/settled`: answers once the kernel holds what the objects ask for, as of now."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._idle.wait()
        except TimeoutError:
            why = f"the network has not settled within {PATIENCE:g} s; see {self.paths.daemon_log}"
            raise ApiError(504, "Timeout", why) from None
        return {"revision": self.store.revision}

    # --- living -------------------------------------------------------------------------------------

    def spawn(self, name: str, work: Coroutine[None, None, None]) -> None:
        """Run a coroutine for as long as the daemon lives; if it fails, the daemon ends (and the next
        command starts it again)."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.critical(
                "%s failed; the next command starts the control plane again", task.get_name(), exc_info=error
            )
            os._exit(1)


def collect_seldom() -> None:
    """Let what is there be, and look for garbage cycles seldom: the objects of a cluster stay."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()


@contextmanager
def making_much() -> Iterator[None]:
    """While nearly all that is made stays, nobody looks for garbage cycles in it, nor afterwards."""
    gc.set_threshold(1_000_000, 20, 50)
    try:
        yield
    finally:
        collect_seldom()


async def serve(paths: ClusterPaths, told: int, forks: ForkServer, loaded: ForkServer) -> None:
    """Be the control plane of a cluster; writes to the pipe `told` when it listens. What needs little is
    forked by `forks`, what needs our code by `loaded`."""
    holder = holders.recorded(paths)
    assert holder is not None
    daemon = Daemon(paths, new_store(paths), Machine(paths, holder, forks), loaded)
    daemon.api.route("POST", "/nsk8s/v1/up", daemon.up)
    daemon.api.route("GET", "/nsk8s/v1/cluster", daemon.describe)
    targets = Targets(
        daemon.network.machine, lambda: daemon.loop.topology, daemon.pod, daemon.places, daemon.runs
    )
    daemon.api.route("GET", "/nsk8s/v1/target", targets.target)
    daemon.api.route("GET", "/nsk8s/v1/settled", daemon.settled)
    answers = PolicyAnswers(lambda: daemon.loop, daemon.network.machine)
    daemon.api.route("GET", "/nsk8s/v1/policy/verdict", answers.verdict)
    daemon.api.route("GET", "/nsk8s/v1/policy/matrix", answers.matrix)
    kubelet = KubeletServer(paths, daemon.runs, daemon.places, daemon.pod, daemon.here)
    handlers.install(daemon.api, daemon.store, kubelet)
    if daemon.loop.topology.nodes:
        daemon.trust(daemon.keys.authority().certificate.decode())
        await daemon.access.open_host(daemon.loop.topology)
        daemon.adopt(await daemon.look())
    else:
        daemon.runtime.warm()
        daemon.spawn("keys", daemon.make_keys())
    await daemon.api.listen(paths.socket)
    daemon.spawn("network", daemon.follow())
    daemon.spawn("watch", daemon.watch())
    tell(told, READY)
    collect_seldom()
    await asyncio.Event().wait()
