"""A small cluster without a kernel: a store with counted novelty, a registry, and all controllers."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from nsk8s.api.topology import NodeTopology, Topology
from nsk8s.api.types import Obj, Pod, Taint
from nsk8s.cluster.control import Control
from nsk8s.cluster.patch import Json
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.store import Cursor, Journal, Key, NoJournal, Store

LETTERS = "bcdfghjklmnpqrstvwxz2456789"
NOW = "2026-11-23T20:33:00Z"


def new_store(journal: Journal | None = None) -> Store:
    count = itertools.count(1)

    def suffix() -> str:
        number = next(count)
        return "".join(LETTERS[number // 27**place % 27] for place in range(5))

    return Store(journal or NoJournal(), uid=lambda: f"uid-{next(count)}", suffix=suffix, now=lambda: NOW)


def three_nodes(**nodes: Json) -> Topology:
    """A tainted master and two workers; `nodes` overrides fields of one of them."""
    taint = Taint("node-role.kubernetes.io/control-plane", "", "NoSchedule")
    fields: dict[str, dict[str, Any]] = {
        "master": {"role": "control-plane", "taints": (taint,)},
        "w1": {"role": "worker"},
        "w2": {"role": "worker"},
    }
    return Topology(
        "test",
        tuple(
            NodeTopology(
                **{
                    "name": name,
                    "addresses": (f"172.18.0.{i + 2}",),
                    "pod_cidrs": (f"10.244.{i}.0/24",),
                    **given,
                    **nodes.get(name, {}),
                }
            )
            for i, (name, given) in enumerate(fields.items())
        ),
    )


def dual_stack(**nodes: Json) -> Topology:
    """The same with both families."""
    topology = three_nodes(**nodes)
    return replace(
        topology,
        nodes=tuple(
            replace(
                node,
                addresses=(*node.addresses, f"fd00:18::{i + 2}"),
                pod_cidrs=(*node.pod_cidrs, f"fd00:244:{i}::/64"),
            )
            for i, node in enumerate(topology.nodes)
        ),
        pod_cidrs=(*topology.pod_cidrs, "fd00:244::/56"),
        service_cidrs=(*topology.service_cidrs, "fd00:96::/112"),
        node_cidrs=(*topology.node_cidrs, "fd00:18::/64"),
    )


class World:
    """Everything that decides, and a kubelet that is played by the test."""

    def __init__(self, topology: Topology | None = None, store: Store | None = None) -> None:
        self.topology = topology or three_nodes()
        self.store = store or new_store()
        self.registry = Registry(self.store, self.topology)
        self.control = Control(self.store, self.registry, self.topology)
        self.now = 1_000.0
        self._addresses = itertools.count(2)
        self._seen = Cursor(self.store)
        self.settle()

    def settle(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.control.settle(self.now)
        for change in self._seen.read() or ():
            for controller in self.control._controllers:
                if controller.informers is not None and change.key.resource not in controller.informers:
                    concerned = list(controller.touched(change))
                    assert not concerned, f"{type(controller).__name__} is not shown {change.key}"

    def tick(self) -> None:
        """From now on the store's clock moves with `now`."""
        start = self.now

        def moved() -> str:
            at = datetime.fromisoformat(NOW) + timedelta(seconds=int(self.now - start))
            return at.strftime("%Y-%m-%dT%H:%M:%SZ")

        self.store.now = moved

    def create(self, obj: Obj) -> Obj:
        made = self.registry.create(obj)
        self.settle()
        return made

    def apply(self, obj: Obj) -> str:
        _, verdict = self.registry.apply(obj)
        self.settle()
        return verdict

    def get(self, resource: str, name: str, namespace: str = "default") -> Obj:
        return self.store.find(resource, namespace, name)

    def names(self, resource: str, namespace: str = "default") -> list[str]:
        return [obj["metadata"]["name"] for obj in self.store.list(resource, namespace)]

    def pods(self) -> list[Pod]:
        return [pod for pod in self.store.views("pods") if isinstance(pod, Pod)]

    def active(self) -> list[Pod]:
        return [pod for pod in self.pods() if not pod.metadata.deletionTimestamp and not pod.terminal]

    def status(self, pod: Pod, *, ready: bool, phase: str = "Running", ip: str = "") -> None:
        """What a kubelet writes of a pod."""
        obj = self.store.find("pods", pod.metadata.namespace, pod.metadata.name)
        old = obj.get("status") or {}
        address = ip or old.get("podIP") or f"10.244.9.{next(self._addresses)}"
        others = [c for c in old.get("conditions") or () if c["type"] != "Ready"]
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": NOW}
        ips = address.split(",")
        status = {**old, "phase": phase, "podIP": ips[0], "conditions": [*others, condition]}
        if len(ips) > 1:
            status["podIPs"] = [{"ip": each} for each in ips]
        self.registry.update_status({**obj, "status": status})

    def make_ready(self) -> None:
        """All bound pods that are not yet become ready; one settle for all of them."""
        for pod in self.active():
            if pod.spec.nodeName and not pod.ready:
                self.status(pod, ready=True)
        self.settle()

    def reap(self) -> None:
        """All pods that are being deleted are gone."""
        for pod in self.pods():
            if pod.metadata.deletionTimestamp:
                self.store.delete("pods", pod.metadata.namespace, pod.metadata.name)
        self.settle()

    def finish(self) -> None:
        """Play the kubelets until nothing happens any more."""
        before = -1
        while before != self.store.revision:
            before = self.store.revision
            self.make_ready()
            self.reap()

    def view(self, name: str, namespace: str = "default") -> Pod:
        found = self.store.view(Key("pods", namespace, name))
        assert isinstance(found, Pod)
        return found


def pod(name: str, labels: dict[str, str] | None = None, **spec: Json) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **({"labels": labels} if labels else {})},
        "spec": {"containers": [{"name": "c", "image": "nginx"}], **spec},
    }


def deployment(name: str, replicas: int = 3, image: str = "nginx", **spec: Json) -> Obj:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
            **spec,
        },
    }


def service(name: str, **spec: Json) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}], **spec},
    }
