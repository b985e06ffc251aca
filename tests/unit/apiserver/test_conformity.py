"""Clients with typed models (Python, Rust, Java) refuse an object that lacks what its schema requires."""

from __future__ import annotations

from nsk8s.api.conversions import convert
from nsk8s.api.kinds import BUILTIN
from nsk8s.api.types import Obj
from tests.conformity import faults
from tests.unit.cluster.worlds import World, deployment, pod, service


def test_a_cluster_that_works_has_only_whole_objects() -> None:
    world = World()
    world.create(service("web"))
    world.create(deployment("web", 2))
    world.create(pod("alone", nodeName="w1"))
    world.finish()
    stored = world.store.resources()
    assert {"nodes", "pods", "events", "endpointslices.discovery.k8s.io", "replicasets.apps"} <= set(stored)
    wrong = {fault for name in stored for obj in world.store.list(name) for fault in _faults(obj)}
    assert wrong == set()


def test_views_of_whole_objects_are_whole() -> None:
    world = World()
    world.create(deployment("web", 1))
    view = BUILTIN.by_kind["events.k8s.io/v1", "Event"]
    wrong = {fault for obj in world.store.list("events") for fault in faults(convert(obj, view))}
    assert wrong == set()


def _faults(obj: Obj) -> list[str]:
    return faults(obj) if "nsk8s.dev" not in obj["apiVersion"] else []
