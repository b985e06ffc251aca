"""hostPort and hostNetwork: checklist rows 59 and 60."""

from __future__ import annotations

import hashlib
import json
import re

import pytest

from tests.netns.scenario import Obj, Scenario, pod

pytestmark = pytest.mark.netns


def test_row_59_a_host_port_as_the_portmap_plugin_makes_it(lab: Scenario) -> None:
    lab.apply(pod("hosted", "w2", host_port=18080))
    try:
        ip = lab.ready_ip("hosted")
        uid = lab.get("pod", "hosted")["metadata"]["uid"]
        sandbox = hashlib.sha256(uid.encode()).hexdigest()
        chain = f"CNI-DN-{hashlib.sha512(f'cbr0{sandbox}'.encode()).hexdigest()[:21]}"
        saved = lab.out("w2", "iptables-save", "-t", "nat")
        assert "-A CNI-HOSTPORT-DNAT -p tcp -m comment" in saved
        assert "--dports 18080" in saved
        rules = re.findall(rf"^-A {chain} (.*)$", saved, re.MULTILINE)
        assert [rule.rpartition("-j ")[2] for rule in rules] == [
            "CNI-HOSTPORT-SETMARK",
            "CNI-HOSTPORT-SETMARK",
            f"DNAT --to-destination {ip}:8080",
        ]
        assert "-A CNI-HOSTPORT-SETMARK" in saved
        assert "0x2000/0x2000" in saved
        node = lab.node_ip("w2")
        with lab.capture("default.hosted", "eth0") as server:
            outside = json.loads(lab.http("external", node, 18080))
            assert outside["client"] == lab.node_ip("external")  # the portmap plugin keeps the client
            assert server.wait_for(lambda p: p.dport == 8080).src == lab.node_ip("external")
        assert json.loads(lab.http("w2", "127.0.0.1", 18080))["pod"] == "hosted"
        hairpin = json.loads(lab.http("default.hosted", node, 18080))
        assert hairpin["client"] == re.sub(r"\.0/24$", ".1", lab.pod_cidr("w2"))
        assert lab.http_fails("external", lab.node_ip("w1"), 18080) == "refused"
    finally:
        lab.delete("pod", "hosted", "--force", "--grace-period=0")
    lab.until(lambda: "18080" not in lab.out("w2", "iptables-save", "-t", "nat"), "its rules are gone")


def test_row_59_one_host_port_on_two_addresses_and_for_two_protocols(lab: Scenario) -> None:
    node = lab.node_ip("w2")
    places: dict[str, Obj] = {
        "on-node": {"containerPort": 8080, "hostPort": 18081, "hostIP": node},
        "on-lo": {"containerPort": 8080, "hostPort": 18081, "hostIP": "127.0.0.1"},
        "on-udp": {"containerPort": 9090, "hostPort": 18081, "hostIP": node, "protocol": "UDP"},
    }
    for name, place in places.items():
        one = pod(name, "w2")
        one["spec"]["containers"][0]["ports"] = [place]
        lab.apply(one)
    try:
        for name in places:
            lab.ready_ip(name)
        assert json.loads(lab.http("external", node, 18081))["pod"] == "on-node"
        assert json.loads(lab.http("w2", "127.0.0.1", 18081))["pod"] == "on-lo"
        with lab.capture("default.on-udp", "eth0") as arriving:
            assert lab.udp("external", node, 18081, "hello") == "hello"
            assert arriving.wait_for(lambda p: p.kind == "udp" and p.dport == 9090).src == lab.node_ip(
                "external"
            )
        clash = pod("no-room", "w2", host_port=18081)
        del clash["spec"]["nodeName"]
        clash["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "w2"}
        lab.apply(clash)  # 0.0.0.0 conflicts with every address
        lab.until(
            lambda: "free ports" in json.dumps(lab.get("pod", "no-room").get("status", {})),
            "the scheduler finds no node with the port free",
        )
    finally:
        for name in (*places, "no-room"):
            lab.delete("pod", name, "--force", "--grace-period=0", "--ignore-not-found")


def test_row_60_a_host_network_pod_is_its_node(lab: Scenario) -> None:
    lab.apply(pod("rooted", "w1", ports=(("http", 8088),), host_network=True))
    try:
        assert lab.ready_ip("rooted") == lab.node_ip("w1")
        assert json.loads(lab.http("external", lab.node_ip("w1"), 8088))["pod"] == "rooted"
        listening = lab.out("w1", "ss", "-Hltn", "sport", "=", ":8088")
        assert "8088" in listening
        names = lab.lab.nsk8s(
            "exec", "rooted", "--", "cat", "/proc/sys/kernel/hostname", "/etc/resolv.conf"
        ).stdout
        assert names.splitlines()[0] == "w1"
        assert "ndots" not in names  # dnsPolicy ClusterFirst acts as Default
        clash = pod("clash", "w1", ports=(("http", 8088),), host_network=True)
        lab.apply(clash)
        lab.until(
            lambda: "address already in use" in json.dumps(lab.get("pod", "clash").get("status", {})),
            "the port conflict is real, and said",
        )
    finally:
        lab.delete("pod", "rooted", "--force", "--grace-period=0")
        lab.delete("pod", "clash", "--force", "--grace-period=0", "--ignore-not-found")
