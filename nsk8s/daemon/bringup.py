"""What `up` asks of the objects: apply all that the files hold, remove what they no longer hold, and tell
when everything is ready. Pure; `server` streams it to the client."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from nsk8s.api import cluster as clusters
from nsk8s.api.kinds import Resource
from nsk8s.api.topology import Topology
from nsk8s.api.types import Obj, Pod
from nsk8s.api.views import view
from nsk8s.cluster import dns, jobs, jobstate
from nsk8s.cluster.control import Control
from nsk8s.cluster.ownership import controller_of
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.store import Key, Store, key_of
from nsk8s.errors import ApiError

CLUSTERS = "clusters.nsk8s.dev"

FIRST = ("Namespace", "CustomResourceDefinition", "ServiceAccount")
"""Kinds that others need to be there already, whatever the order of the files."""


MAKERS = {
    "deployments.apps": ("updatedReplicas", "replicas"),
    "replicasets.apps": ("replicas", "replicas"),
    "replicationcontrollers": ("replicas", "replicas"),
    "daemonsets.apps": ("updatedNumberScheduled", "currentNumberScheduled"),
    "statefulsets.apps": ("updatedReplicas", "replicas"),
}
"""What makes pods that are waited for, and where its status counts those with the newest template, and
all."""


REPLICATED = ("Pod", "Deployment", "ReplicaSet", "ReplicationController", "StatefulSet")
"""Kinds that say themselves how many pods there will be (one, if they say nothing)."""


def former(store: Store, name: str) -> Topology | None:
    """What the last `up` made the cluster; None if there was none."""
    stored = store.get(CLUSTERS, "", name)
    return clusters.resolve(stored) if stored is not None else None


def prepare(
    store: Store, topology: Topology, before: Topology | None, objects: Iterable[Obj], now: float
) -> None:
    """Make what stands before all that the user brings (`objects`): cluster DNS.

    A new cluster begins with its control plane alone, as kubeadm begins it: the DNS pods are bound to that
    node before any worker has joined. All or nothing: an `ApiError` leaves the store as it was.
    """
    if before is not None and (before.dns, before.service_cidr) == (topology.dns, topology.service_cidr):
        return
    masters = tuple(node for node in topology.nodes if node.role == "control-plane")
    early = replace(topology, nodes=masters) if before is None else topology
    registry = Registry(store, early)
    try:
        if before is None and topology.dns.replicas:
            control = Control(store, registry, early)
            control.settle(now)
            dns.install(registry, store, topology, before, objects)
            control.settle(now)
        else:
            dns.install(registry, store, topology, before, objects)
    except ApiError:
        store.rollback()
        raise


def expected(objects: Iterable[Obj]) -> int:
    """About how many pods a new cluster with these objects will have at first."""
    specs = (obj.get("spec") for obj in objects if obj.get("kind") in REPLICATED)
    numbers = (spec.get("replicas", 1) for spec in specs if isinstance(spec, dict))
    return sum(number for number in numbers if isinstance(number, int) and number > 0)


class Applied(Struct, frozen=True):
    """What became of one object, in kubectl's words: created, configured, unchanged or deleted."""

    resource: Resource
    key: Key
    verdict: str

    @property
    def object(self) -> str:
        """As kubectl prints it: ``deployment.apps/web``."""
        group = self.resource.group
        return f"{self.resource.singular}{'.' if group else ''}{group}/{self.key.name}"


def apply_all(
    registry: Registry, store: Store, objects: Iterable[Obj], previous: Sequence[Key] = ()
) -> list[Applied]:
    """Apply `objects`, then delete those of `previous` (what the last `up` applied) that are not among
    them. All or nothing: an `ApiError` leaves the store as it was."""
    done = []
    kept = set()
    try:
        for obj in sorted(objects, key=lambda o: o.get("kind") not in FIRST):
            stored, verdict = registry.apply(obj)
            resource = registry.kinds.by_kind[stored["apiVersion"], stored["kind"]]
            key = key_of(resource.name, stored)
            kept.add(key)
            done.append(Applied(resource, key, verdict))
        for key in previous:
            if key not in kept and store.get(*key) is not None:
                resource = registry.kinds.by_name[key.resource]
                registry.delete(*key)
                done.append(Applied(resource, key, "deleted"))
    except ApiError:
        store.rollback()
        raise
    return done


class Readiness(Struct, frozen=True):
    """How far a cluster is: pods ready of those wanted, those that are not, and what else is `lacking`, in
    words. `over`: no waiting helps, there are only pods left that have failed for good."""

    ready: int
    total: int
    unready: tuple[Obj, ...]
    lacking: tuple[str, ...]
    over: bool

    @property
    def waiting(self) -> tuple[str, ...]:
        """What is still waited for, in words."""
        return (*map(_waits, self.unready), *self.lacking)


def readiness(store: Store) -> Readiness:
    """Whether every pod that somebody asked for is there and ready (or has succeeded)."""
    ready = total = failed = 0
    unready: list[Obj] = []
    lacking: list[str] = []
    for pod in store.list("pods"):
        if pod["metadata"].get("deletionTimestamp"):
            continue
        status: Obj = pod.get("status") or {}
        phase = status.get("phase", "")
        if phase == "Failed":
            owner = controller_of(pod)
            if owner is not None and owner["kind"] == "Job":
                continue  # what this means is the Job's to say
            failed += owner is None
        total += 1
        if phase == "Succeeded" or _is_ready(status):
            ready += 1
        else:
            unready.append(pod)
    for resource in MAKERS:
        for obj in store.list(resource):
            meta = obj["metadata"]
            if controller_of(obj) is not None:
                continue
            missing = _missing(resource, obj)
            if missing:
                total += missing
                kind = obj["kind"].lower()
                lacking.append(f"{kind} {meta['namespace']}/{meta['name']}: {missing} pods to come")
    for job in store.list(jobs.RESOURCE):
        end = jobstate.condition(job.get("status") or {}, "Failed")
        if end is not None:
            total, failed = total + 1, failed + 1
            name = f"{job['metadata']['namespace']}/{job['metadata']['name']}"
            lacking.append(f"job {name}: {end['reason']}: {end['message']}")
    over = failed == len(unready) + len(lacking)
    return Readiness(ready, total, tuple(unready), tuple(lacking), over)


def _missing(resource: str, obj: Obj) -> int:
    """How many up-to-date pods of a controller are not even made yet, or not yet known to be ready."""
    status: dict[str, Any] = obj.get("status") or {}
    daemons = resource == "daemonsets.apps"
    wanted: int = status.get("desiredNumberScheduled", 1) if daemons else obj["spec"].get("replicas", 1)
    if status.get("observedGeneration", 0) < obj["metadata"]["generation"]:
        return wanted
    strategy = obj["spec"].get("updateStrategy") or {}
    partly = strategy.get("type") == "OnDelete" or (strategy.get("rollingUpdate") or {}).get("partition")
    newest, every = MAKERS[resource]
    missing = max(0, wanted - int(status.get(every if partly else newest, 0)))
    if not missing and resource == "deployments.apps":
        return max(0, int(status.get("replicas", 0)) - wanted)
    return missing


def _is_ready(status: Obj) -> bool:
    # Of objects as they are: a view of each revision of each pod would cost more than all the rest.
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())


def _waits(obj: Obj) -> str:
    """One line: a pod and what it waits for."""
    pod = view(obj)
    assert isinstance(pod, Pod)
    return f"pod {pod.metadata.namespace}/{pod.metadata.name}: {_why(pod)}"


def _why(pod: Pod) -> str:
    for status in (*pod.status.initContainerStatuses, *pod.status.containerStatuses):
        waiting = status.state.get("waiting")
        if waiting and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"container {status.name}: {waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
        ended = status.state.get("terminated")
        if ended and ended.get("exitCode") and pod.status.phase == "Failed":
            said = ended.get("message") or f"exit code {ended['exitCode']}"
            return f"Failed: container {status.name}: {ended.get('reason')}: {said}"
    for condition in pod.status.conditions:
        if condition.status == "False" and condition.message:
            return f"{condition.reason}: {condition.message}"
    return pod.status.phase or "not scheduled yet"
