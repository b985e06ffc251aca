"""What stands before the user's objects: cluster DNS, made once as kubeadm makes it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from nsk8s.api.topology import DnsTopology, Topology
from nsk8s.api.types import Obj
from nsk8s.cluster.store import Key, Store
from nsk8s.daemon.bringup import prepare
from nsk8s.daemon.rehearsal import rehearse
from nsk8s.errors import ApiError
from tests.unit.cluster.worlds import World, new_store, three_nodes

DEPLOYMENT = Key("deployments.apps", "kube-system", "coredns")
SERVICE = Key("services", "kube-system", "kube-dns")
CONFIG = Key("configmaps", "kube-system", "coredns")
THREE = three_nodes()
OWN: Obj = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "kube-dns", "namespace": "kube-system"},
    "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 53, "protocol": "UDP"}]},
}


def told(replicas: int = 2, *upstreams: str, **more: Any) -> Topology:  # noqa: ANN401
    return replace(THREE, dns=DnsTopology(replicas, upstreams), **more)


def made(topology: Topology = THREE) -> Store:
    """A cluster at its beginning."""
    store = new_store()
    prepare(store, topology, None, (), 0.0)
    store.commit()
    return store


def corefile(store: Store) -> str:
    return str(store.find(*CONFIG)["data"]["Corefile"])


def test_a_cluster_begins_with_dns_on_its_control_plane() -> None:
    world = World(store=made())
    world.settle()
    pods = list(world.store.list("pods", "kube-system"))
    assert [pod["spec"]["nodeName"] for pod in pods] == ["master", "master"]
    assert {pod["spec"]["dnsPolicy"] for pod in pods} == {"Default"}
    spec = world.store.find(*SERVICE)["spec"]
    assert spec["clusterIP"] == "10.96.0.10"
    assert [(p["name"], p["port"], p["protocol"]) for p in spec["ports"]] == [
        ("dns", 53, "UDP"),
        ("dns-tcp", 53, "TCP"),
        ("metrics", 9153, "TCP"),
    ]


def test_no_replicas_no_dns() -> None:
    store = made(told(0))
    assert store.get(*SERVICE) is None
    assert store.get(*DEPLOYMENT) is None


def test_what_the_user_changes_or_deletes_stays_so() -> None:
    store = made()
    before = store.find(*DEPLOYMENT)
    store.update("deployments.apps", {**before, "spec": {**before["spec"], "replicas": 5}})
    store.delete(*SERVICE)
    prepare(store, THREE, THREE, (), 0.0)
    prepare(store, told(2, "172.18.0.9"), THREE, (), 0.0)
    assert store.find(*DEPLOYMENT)["spec"]["replicas"] == 5
    assert store.get(*SERVICE) is None


def test_his_own_objects_are_left_to_him() -> None:
    store = new_store()
    prepare(store, THREE, None, (OWN,), 0.0)
    assert store.get(*SERVICE) is None
    assert store.get(*DEPLOYMENT) is not None


def test_another_spec_changes_what_it_says() -> None:
    store = made()
    assert "forward" not in corefile(store).partition("\n")[2]
    assert corefile(store).splitlines()[1] == "cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {"
    prepare(store, told(3, "172.18.0.9"), THREE, (), 0.0)
    assert store.find(*DEPLOYMENT)["spec"]["replicas"] == 3
    assert "    forward . 172.18.0.9 {\n" in corefile(store)
    prepare(store, told(0), told(3, "172.18.0.9"), (), 0.0)
    assert [store.get(*key) for key in (SERVICE, CONFIG)] == [None, None]
    prepare(store, told(1), told(0), (), 0.0)
    assert store.find(*DEPLOYMENT)["spec"]["replicas"] == 1


def test_another_service_network_moves_it() -> None:
    store = made()
    prepare(store, replace(THREE, service_cidrs=("10.97.0.0/16",)), THREE, (), 0.0)
    assert store.find(*SERVICE)["spec"]["clusterIPs"] == ["10.97.0.10"]


def test_an_address_that_is_taken_refuses_all() -> None:
    store = made(told(0))
    world = World(store=store)
    world.registry.create({**OWN, "metadata": {"name": "squatter", "namespace": "default"}})
    store.commit()
    with pytest.raises(ApiError, match="provided IP is already allocated"):
        prepare(store, told(2), told(0), (), 0.0)
    assert store.get(*DEPLOYMENT) is None
    assert store.get(*CONFIG) is None


def test_a_rehearsal_has_it_too() -> None:
    assert sorted(name for name in rehearse(THREE, ()) if "." in name) == [
        name for name in sorted(rehearse(THREE, ())) if name.startswith("kube-system.coredns-")
    ]
    assert len(rehearse(THREE, ())) == len(rehearse(told(0), ())) + 2
