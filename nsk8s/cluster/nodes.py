"""Node objects: what kubelets and flanneld say about themselves, from the topology.

Labels, annotations, taints and cordons that users change stay as users want them: only what the topology
says differently from last time is changed, and what it said last is kept in an annotation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from nsk8s.api.families import of_family
from nsk8s.api.topology import NodeTopology, Topology
from nsk8s.api.types import Obj
from nsk8s.cluster.events import Recorder
from nsk8s.cluster.heartbeats import beat, stopped
from nsk8s.cluster.ipam import room
from nsk8s.cluster.nodehealth import readiness
from nsk8s.cluster.patch import difference, merge
from nsk8s.cluster.store import Change, Key, Store

KUBELET_VERSION = "v1.33.0+nsk8s"
LAST_TOPOLOGY = "nsk8s.dev/last-topology"
"""Annotation with what the topology said of the node last time."""

BRIDGE_PORTS = 1000
"""Pods that fit on a node's bridge (the kernel's BR_MAX_PORTS is 1024; some are kept for the node)."""


CAPACITY = ("cpu", "ephemeral-storage", "memory")
"""What the machine may have, besides fields of status.nodeInfo. Every node has all of it: nothing is
divided."""


class Nodes:
    """Keeps one Node for each node of the topology, and no pod on a node that is gone."""

    informers = frozenset({"nodes", "pods"})

    def __init__(self, store: Store, topology: Topology, system: Mapping[str, str]) -> None:
        self._store = store
        self._topology = topology
        self._system = system
        self._kubelet = Recorder(store, "kubelet")
        self._controller = Recorder(store, "node-controller")

    def bootstrap(self) -> None:
        """Make the nodes what the topology says; remove those it no longer has."""
        wanted = {node.name for node in self._topology.nodes}
        for node in self._topology.nodes:
            self._register(node)
        for obj in self._store.list("nodes"):
            if obj["metadata"]["name"] not in wanted:
                self._store.delete("nodes", "", obj["metadata"]["name"])

    def touched(self, change: Change) -> Iterable[Key]:
        """Nodes that were deleted or whose kubelet was started, and pods bound to no node that exists."""
        if change.key.resource == "nodes":
            if change.type == "DELETED":
                yield change.key
                for pod in self._store.list("pods"):
                    if pod["spec"].get("nodeName") == change.key.name:
                        yield Key("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])
            elif change.old is not None and stopped(change.old) and not stopped(change.new):
                yield change.key
        elif change.key.resource == "pods" and change.type != "DELETED":
            node = change.new["spec"].get("nodeName")
            if node and self._store.get("nodes", "", node) is None:
                yield change.key

    def sync(self, key: Key, now: float) -> float | None:
        """Register a node again that somebody deleted, or whose kubelet is back; delete a pod whose node is
        gone (podgc)."""
        if key.resource == "nodes":
            if any(node.name == key.name for node in self._topology.nodes):
                self._register(self._topology.node(key.name))
            return None
        pod = self._store.get(*key)
        if pod is not None and self._store.get("nodes", "", pod["spec"].get("nodeName", "")) is None:
            self._store.delete(*key)
        return None

    def _register(self, node: NodeTopology) -> None:
        spoken = _spoken(node, self._system.get("architecture", "amd64"))
        said = json.dumps(spoken, sort_keys=True, separators=(",", ":"))
        old = self._store.get("nodes", "", node.name)
        if old is None:
            meta = spoken["metadata"]
            meta = {**meta, "annotations": {**meta["annotations"], LAST_TOPOLOGY: said}}
            made = self._store.create("nodes", {**spoken, "metadata": meta, "status": self._status(node, {})})
            self._welcome(made)
            return
        before = (old["metadata"].get("annotations") or {}).get(LAST_TOPOLOGY, "{}")
        new = old
        if before != said:
            new = merge(old, difference(json.loads(before), spoken))
            new = merge(new, {"metadata": {"annotations": {LAST_TOPOLOGY: said}}})
        if stopped(new):
            self._store.update("nodes", new)
            return
        new = self._store.update("nodes", {**new, "status": self._status(node, old.get("status") or {})})
        if readiness(old) != "True":
            self._ready(new)

    def _welcome(self, node: Obj) -> None:
        """A kubelet knows its Node by the name only, the node controller by its uid."""
        name = node["metadata"]["name"]
        itself = {**node, "metadata": {**node["metadata"], "uid": name}}
        self._kubelet.event(itself, "Normal", "Starting", "Starting kubelet.", host=name)
        self._ready(node)
        registered = f"Node {name} event: Registered Node {name} in Controller"
        self._controller.event(node, "Normal", "RegisteredNode", registered)
        beat(self._store, (name,))

    def _ready(self, node: Obj) -> None:
        name = node["metadata"]["name"]
        itself = {**node, "metadata": {**node["metadata"], "uid": name}}
        what = f"Node {name} status is now: NodeReady"
        self._kubelet.event(itself, "Normal", "NodeReady", what, host=name)

    def _status(self, node: NodeTopology, old: Mapping[str, Any]) -> Obj:
        before = {c.get("type"): c for c in old.get("conditions") or ()}
        capacity = {name: self._system[name] for name in CAPACITY if name in self._system}
        capacity["pods"] = str(min(BRIDGE_PORTS, room(node.pod_cidrs)))
        conditions = [
            (
                "MemoryPressure",
                "False",
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
            ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ]
        return {
            "addresses": [
                *({"type": "InternalIP", "address": address} for address in node.addresses),
                {"type": "Hostname", "address": node.name},
            ],
            "allocatable": capacity,
            "capacity": capacity,
            "conditions": [
                {
                    "type": type_,
                    "status": status,
                    "reason": reason,
                    "message": message,
                    **_times(before.pop(type_, {}), status, self._store.now()),
                }
                for type_, status, reason, message in conditions
            ]
            + list(before.values()),  # what others say of the node stays theirs
            "nodeInfo": {
                "architecture": "amd64",
                "bootID": "",
                "containerRuntimeVersion": "nsk8s",
                "kernelVersion": "",
                "kubeProxyVersion": "",
                "kubeletVersion": KUBELET_VERSION,
                "machineID": "",
                "operatingSystem": "linux",
                "osImage": "nsk8s",
                "systemUUID": "",
                **{field: value for field, value in self._system.items() if field not in CAPACITY},
            },
        }


def _times(old: Mapping[str, Any], status: str, now: str) -> dict[str, str]:
    """When a condition was last confirmed, and when it last changed; both stay if it is what it was."""
    fields = ("lastHeartbeatTime", "lastTransitionTime")
    return {field: (old.get(field) if old.get("status") == status else None) or now for field in fields}


def _flannel(node: NodeTopology) -> dict[str, str]:
    """What flanneld tells its peers of the node (pkg/subnet/kube annotations.go)."""
    said = {"backend-type": "vxlan", "kube-subnet-manager": "true"}
    if address := of_family(node.addresses, 4):
        said |= {"backend-data": '{"VNI":1}', "public-ip": address}
    if address := of_family(node.addresses, 6):
        said |= {"backend-v6-data": '{"VNI":1}', "public-ipv6": address}
    return {f"flannel.alpha.coreos.com/{name}": value for name, value in sorted(said.items())}


def _spoken(node: NodeTopology, architecture: str) -> Obj:
    """What the topology says of a node, as a Node."""
    labels = {
        "kubernetes.io/arch": architecture,
        "kubernetes.io/hostname": node.name,
        "kubernetes.io/os": "linux",
        **node.labels,
    }
    if node.role == "control-plane":
        labels["node-role.kubernetes.io/control-plane"] = ""
        labels["node.kubernetes.io/exclude-from-external-load-balancers"] = ""
    spec: Obj = {"podCIDR": node.pod_cidr, "podCIDRs": list(node.pod_cidrs)}
    if node.taints:
        spec["taints"] = [
            {"key": t.key, **({"value": t.value} if t.value else {}), "effect": t.effect} for t in node.taints
        ]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name,
            "labels": labels,
            "annotations": {
                **_flannel(node),
                "node.alpha.kubernetes.io/ttl": "0",
            },
        },
        "spec": spec,
    }
