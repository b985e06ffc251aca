from __future__ import annotations

import pytest
from msgspec.structs import replace

from nsk8s.api.types import ObjectMeta, Pod, PodIP, PodSpec, PodStatus
from nsk8s.cluster.ipam import AddressesExhausted, Ipam, room
from tests.unit.cluster.worlds import three_nodes


def running(ip: str, created: str, node: str = "w1", *, host_network: bool = False, phase: str = "") -> Pod:
    return Pod(
        ObjectMeta(name=ip, creationTimestamp=created),
        PodSpec(nodeName=node, hostNetwork=host_network),
        PodStatus(podIP=ip, phase=phase),
    )


def test_addresses_go_round() -> None:
    ipam = Ipam(three_nodes(w1={"pod_cidrs": ("10.244.1.0/29",)}), ())
    first = [ipam.allocate("w1") for _ in range(4)]
    assert first == [("10.244.1.2",), ("10.244.1.3",), ("10.244.1.4",), ("10.244.1.5",)]
    ipam.release("w1", ["10.244.1.3"])
    ipam.release("w1", ["10.244.1.3"])
    assert [ipam.allocate("w1"), ipam.allocate("w1")] == [("10.244.1.6",), ("10.244.1.3",)]
    assert ipam.allocate("w2") == ("10.244.2.2",)


def test_exhaustion_names_the_network_and_the_node() -> None:
    ipam = Ipam(three_nodes(w1={"pod_cidrs": ("10.244.1.0/30",)}), ())
    ipam.allocate("w1")
    with pytest.raises(AddressesExhausted, match=r"node w1: .*10\.244\.1\.0/30"):
        ipam.allocate("w1")


def test_a_restart_goes_on_after_the_newest_pod() -> None:
    pods = [
        running("10.244.1.9", "2026-01-02T00:00:00Z"),
        running("10.244.1.10", "2026-01-01T00:00:00Z"),
        running("172.18.0.3", "2026-01-03T00:00:00Z", host_network=True),
        running("10.244.1.11", "2026-01-04T00:00:00Z", phase="Succeeded"),
        running("10.244.7.7", "2026-01-05T00:00:00Z", node="gone"),
    ]
    ipam = Ipam(three_nodes(), pods)
    assert [ipam.allocate("w1"), ipam.allocate("w1")] == [("10.244.1.11",), ("10.244.1.12",)]


def test_each_family_has_its_own_round() -> None:
    subnets = ("10.244.1.0/24", "fd00:244:1::/64")
    held = running("10.244.1.9", "2026-01-02T00:00:00Z")
    both = (PodIP("10.244.1.9"), PodIP("fd00:244:1::4"))
    ipam = Ipam(three_nodes(w1={"pod_cidrs": subnets}), [replace(held, status=PodStatus("", podIPs=both))])
    assert ipam.allocate("w1") == ("10.244.1.10", "fd00:244:1::5")
    ipam.release("w1", ("fd00:244:1::4",))
    assert ipam.allocate("w1") == ("10.244.1.11", "fd00:244:1::6")
    assert room(("10.0.0.0/30", "fd00::/64")) == 1


def test_room() -> None:
    assert [room((cidr,)) for cidr in ("10.0.0.0/24", "10.0.0.0/30", "10.0.0.0/32")] == [253, 1, 0]
