"""The world of the policy truth tables on a real cluster: policies come by the API, packets are tried."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import yaml

from nsk8s.api.defaults import default
from nsk8s.api.families import Family, of_family
from nsk8s.api.policytypes import ClusterNetworkPolicy, NetworkPolicy
from nsk8s.api.types import Namespace, Pod
from nsk8s.api.views import view
from nsk8s.cluster.policy import World, decide, pod_party
from nsk8s.observe.connections import Attempt, Outcome, attempt
from nsk8s.paths import ClusterPaths
from tests import policies
from tests.conftest import MakeLab
from tests.lab import Lab
from tests.netns.podlab import Api

Obj = dict[str, Any]
Cell = tuple[str, str, str, int]
"""Source, target, protocol, port."""

NODES = ("n1", "n2")
CLUSTER: Obj = {
    "apiVersion": "nsk8s.dev/v1",
    "kind": "Cluster",
    "metadata": {"name": "policies"},
    "spec": {"nodes": [{"name": name} for name in NODES], "clients": [{"name": "external"}]},
}
SILENCE = 0.2
"""Seconds without an answer that make a cell denied; one that should have answered is asked again."""
PATIENCE = 5.0
"""Seconds that it has then."""
TIERED = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies"


def standing(make: MakeLab, family: Family = 4, **spec: object) -> PolicyLab:
    """The world, up and ready, spoken of by its addresses of a family; `spec` adds to the cluster's. It comes
    as JSON, for in YAML a namespace called y is a boolean to Kubernetes and none to who writes it."""
    lab = make(yaml.safe_dump({**CLUSTER, "spec": {**CLUSTER["spec"], **spec}}))
    lab.nsk8s("apply", "-f", "-", stdin="\n---\n".join(map(json.dumps, policies.world(NODES))))
    lab.up()
    return PolicyLab(lab, family)


class PolicyLab:
    """A cluster with the world in it."""

    def __init__(self, lab: Lab, family: Family = 4) -> None:
        self.lab = lab
        self._family = family
        self.api = Api(ClusterPaths(lab.name))

    def objects(self, path: str) -> list[Obj]:
        """All of a kind, as whole objects."""
        listing = self.api.get(path)
        kind = listing["kind"].removesuffix("List")
        return [{"apiVersion": listing["apiVersion"], "kind": kind, **item} for item in listing["items"]]

    def pods(self) -> list[Pod]:
        """The pods of the world and of the test."""
        views = (view(obj) for obj in self.objects("/api/v1/pods"))
        return [
            pod for pod in views if isinstance(pod, Pod) and pod.metadata.namespace in policies.NAMESPACES
        ]

    def addresses(self) -> dict[str, str]:
        """Addresses of pods by ``namespace/name``."""
        return {
            f"{p.metadata.namespace}/{p.metadata.name}": of_family(p.status.ips, self._family)
            for p in self.pods()
        }

    def world(self) -> World:
        """What the API has, as the model takes it."""
        paths = ("/api/v1/namespaces", "/apis/networking.k8s.io/v1/networkpolicies", TIERED)
        views = [view(default(obj)) for path in paths for obj in self.objects(path)]
        return World(
            {v.metadata.name: v.metadata.labels for v in views if isinstance(v, Namespace)},
            self.pods(),
            [v for v in views if isinstance(v, NetworkPolicy)],
            [v for v in views if isinstance(v, ClusterNetworkPolicy)],
        )

    def put(self, obj: Obj) -> None:
        """Create an object, or replace it, and wait until that is in force."""
        path, name = _place(obj)
        there = any(one["metadata"]["name"] == name for one in self.api.get(path)["items"])
        if there:
            revision = self.api.get(f"{path}/{name}")["metadata"]["resourceVersion"]
            obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": revision}}
            self.api.ask("PUT", f"{path}/{name}", obj)
        else:
            self.api.ask("POST", path, obj)
        self.settle()

    def delete(self, obj: Obj) -> None:
        """Delete an object."""
        path, name = _place(obj)
        self.api.ask("DELETE", f"{path}/{name}")
        self.settle()

    def settle(self) -> None:
        """Return when the kernel holds what the objects ask for."""
        self.api.get("/nsk8s/v1/settled")

    @contextmanager
    def applied(self, objects: Iterable[Obj]) -> Iterator[None]:
        """With these policies in force, while the block runs."""
        done = []
        try:
            for obj in objects:
                self.api.ask("POST", _place(obj)[0], obj)
                done.append(obj)
            self.settle()
            yield
        finally:
            for obj in done:
                path, name = _place(obj)
                self.api.ask("DELETE", f"{path}/{name}")

    def tried(self, cells: Sequence[Cell], addresses: dict[str, str], timeout: float) -> list[Outcome]:
        """How connections between pods end."""
        return attempt(
            [
                Attempt(self.lab.netns(source.replace("/", ".")), addresses[target], port, protocol)  # type: ignore[arg-type]
                for source, target, protocol, port in cells
            ],
            timeout,
        )

    def predicted(self, cells: Sequence[Cell]) -> dict[Cell, bool]:
        """What the model says of the objects that the API has now."""
        world = self.world()
        parties = {
            f"{p.metadata.namespace}/{p.metadata.name}": pod_party(p, of_family(p.status.ips, self._family))
            for p in world.pods
        }
        return {
            cell: decide(world, parties[cell[0]], parties[cell[1]], cell[2], cell[3]).allowed
            for cell in cells
        }

    def differences(self, cells: Sequence[Cell] = policies.CELLS) -> list[str]:
        """The cells in which packets do not do what the model says."""
        wanted, addresses = self.predicted(cells), self.addresses()
        outcomes = dict(zip(cells, self.tried(cells, addresses, SILENCE), strict=True))
        silent = [cell for cell in cells if wanted[cell] and outcomes[cell] != "reached"]
        outcomes |= zip(silent, self.tried(silent, addresses, PATIENCE), strict=True)
        expected = {cell: "reached" if allowed else "timeout" for cell, allowed in wanted.items()}
        return [
            f"{source} -> {target} {protocol} {port}: {outcomes[cell]}, not {expected[cell]}"
            for cell in cells
            for source, target, protocol, port in [cell]
            if outcomes[cell] != expected[cell]
        ]


def _place(obj: Obj) -> tuple[str, str]:
    meta = obj["metadata"]
    match obj["kind"]:
        case "ClusterNetworkPolicy":
            path = TIERED
        case "NetworkPolicy":
            path = f"/apis/networking.k8s.io/v1/namespaces/{meta['namespace']}/networkpolicies"
        case "Namespace":
            path = "/api/v1/namespaces"
        case kind:
            path = f"/api/v1/namespaces/{meta['namespace']}/{kind.lower()}s"
    return path, meta["name"]
