"""Pods and nodes on the wire: checklist rows 1, 2, 4, 5, 6, 8 and 10, each with the packets captured."""

from __future__ import annotations

import json

import pytest

from nsk8s.observe.packets import Frame
from tests.netns.processes_of import Processes, stopped
from tests.netns.scenario import IPTABLES, Scenario, pod, seen

pytestmark = pytest.mark.netns

in_both_families = pytest.mark.parametrize("lab", IPTABLES, indirect=True)

VXLAN_PORT = 8472


def is_request(frame: Frame) -> bool:
    """Whether it is a ping."""
    return "echo-request" in frame.summary or "Echo Request" in frame.summary


@in_both_families
def test_row_1_same_node_traffic_stays_on_the_bridge_unchanged(lab: Scenario) -> None:
    a, b = lab.ip("a1"), lab.ip("a2")
    with lab.capture("w1", "cni0") as bridge, lab.capture("w1", "eth0") as uplink:
        with lab.capture("default.a2", "eth0") as inside:
            lab.run("default.a1", "ping", "-c1", "-W2", b)
            request = inside.wait_for(lambda p: p.src == a and is_request(p))
        assert request.ttl == 64
        assert bridge.wait_for(lambda p: is_request(p) and p.src == a and p.dst == b).ttl == 64
        assert not seen(uplink, lambda p: p.inner and p.inner.src == a)
    assert json.loads(lab.http("default.a1", b, 8080))["client"] == a


@in_both_families
def test_row_2_other_node_traffic_is_wrapped_in_vxlan(lab: Scenario) -> None:
    a, b = lab.ip("a1"), lab.ip("b1")
    with lab.capture("w1", "eth0") as uplink, lab.capture("default.b1", "eth0") as inside:
        lab.run("default.a1", "ping", "-c1", "-W2", b)
        outer = uplink.wait_for(lambda p: p.inner and p.inner.src == a and p.inner.dst == b)
        received = inside.wait_for(lambda p: p.src == a and is_request(p))
    assert (outer.src, outer.dst, outer.dport) == (lab.node_ip("w1"), lab.node_ip("w2"), VXLAN_PORT)
    assert outer.vni == 1
    assert outer.inner is not None
    assert (outer.inner.smac, outer.inner.dmac) == (
        lab.mac("w1", lab.tunnel),
        lab.mac("w2", lab.tunnel),
    )
    assert outer.inner.ttl == 63  # the node has routed it once; the other node will do so again
    assert received.ttl == 62


@in_both_families
def test_row_4_each_node_knows_the_others_by_route_neighbour_and_fdb(lab: Scenario) -> None:
    for here, there in (("w1", "w2"), ("w2", "w1"), ("master", "w1")):
        subnet, vtep, mac = (
            lab.pod_cidr(there),
            lab.pod_cidr(there).split("/")[0],
            lab.mac(there, lab.tunnel),
        )
        assert f"{subnet} via {vtep} dev {lab.tunnel} " in lab.out(here, "ip", f"-{lab.family}", "route")
        assert f"{vtep} lladdr {mac} PERMANENT" in lab.out(here, "ip", "neigh", "show", "dev", lab.tunnel)
        fdb = lab.out(here, "bridge", "fdb", "show", "dev", lab.tunnel)
        assert f"{mac} dst {lab.node_ip(there)} self permanent" in fdb


@pytest.mark.parametrize(
    "break_it",
    [
        ("ip", "route", "del", "{cidr}"),
        ("ip", "neigh", "del", "{vtep}", "dev", "{tunnel}"),
        ("bridge", "fdb", "del", "{mac}", "dev", "{tunnel}", "dst", "{node}"),
    ],
    ids=["route", "neighbour", "fdb"],
)
@in_both_families
def test_row_4_without_one_of_the_three_traffic_fails_until_it_is_repaired(
    lab: Scenario, break_it: tuple[str, ...]
) -> None:
    facts = {
        "cidr": lab.pod_cidr("w2"),
        "vtep": lab.pod_cidr("w2").split("/")[0],
        "mac": lab.mac("w2", lab.tunnel),
        "node": lab.node_ip("w2"),
        "tunnel": lab.tunnel,
    }
    ping = ("ping", "-c1", "-W1", lab.ip("b1"))
    with stopped(Processes(lab.lab.name).daemon()):  # or its next look may come before the ping
        lab.run("w1", *(word.format(**facts) for word in break_it))
        assert lab.run("default.a1", *ping, check=False).returncode != 0
    lab.until(
        lambda: lab.run("default.a1", *ping, check=False).returncode == 0,
        "the agent repairs what was deleted",
    )


@in_both_families
def test_row_5_mtu_is_1450_and_larger_packets_are_refused(lab: Scenario) -> None:
    mtu, headers = (1430, 48) if lab.family == 6 else (1450, 28)  # VXLAN takes 20 more over IPv6
    for namespace, device in (("default.a1", "eth0"), ("w1", "cni0"), ("w1", "flannel.1")):
        assert " mtu 1450 " in lab.out(namespace, "ip", "link", "show", device)
    assert f" mtu {mtu} " in lab.out("w1", "ip", "link", "show", lab.tunnel)
    ping = ["ping", "-c1", "-W2", "-M", "do", lab.ip("b1"), "-s"]
    lab.run("default.a1", *ping, str(mtu - headers))
    refused = lab.run("default.a1", *ping, str(mtu - headers + 1), check=False)
    assert refused.returncode != 0
    said = refused.stdout + refused.stderr
    assert f"mtu={mtu}" in said or f"mtu: {mtu}" in said or "too long" in said


@in_both_families
def test_row_6_pods_see_each_others_own_addresses_across_nodes(lab: Scenario) -> None:
    assert json.loads(lab.http("default.a1", lab.ip("b1"), 8080))["client"] == lab.ip("a1")
    assert json.loads(lab.http("default.b1", lab.ip("a1"), 8080))["client"] == lab.ip("b1")


@in_both_families
def test_row_8_a_node_reaches_pods_from_its_bridge_and_from_its_vtep(lab: Scenario) -> None:
    bridge, vtep = lab.bridge("w1"), lab.vtep("w1")
    with lab.capture("default.b1", "eth0") as remote:
        assert json.loads(lab.http("w1", lab.ip("a1"), 8080))["client"] == bridge
        assert json.loads(lab.http("w1", lab.ip("b1"), 8080))["client"] == vtep
        assert remote.wait_for(lambda p: p.dport == 8080).src == vtep


def test_row_10_a_pod_asks_for_its_gateway_and_announces_itself(lab: Scenario) -> None:
    gateway = lab.bridge("w1")
    lab.run("default.a1", "ip", "neigh", "flush", "dev", "eth0")
    with lab.capture("default.a1", "eth0") as packets:
        lab.run("default.a1", "ping", "-c1", "-W2", lab.ip("b1"))
        asked = packets.wait_for(lambda p: "who has" in p.summary and p.dst == gateway)
        answer = packets.wait_for(lambda p: "is at" in p.summary and p.src == gateway)
    assert asked.src == lab.ip("a1")
    assert answer.smac == lab.mac("w1", "cni0")
    with lab.capture("w1", "") as packets:  # on the pod's port: the bridge opens it a moment later
        lab.apply(pod("late", "w1"))
        late = lab.ready_ip("late")
        announced = packets.wait_for(lambda p: p.kind == "arp" and p.src == p.dst == late)
    assert announced.dmac == "ff:ff:ff:ff:ff:ff"
    lab.delete("pod", "late")
