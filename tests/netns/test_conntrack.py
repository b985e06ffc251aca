"""Stale UDP flows are forgotten in a real connection tracking table, and nothing else is."""

from __future__ import annotations

import pytest

from nsk8s.kernel.machine import Machine
from nsk8s.linux.values import Namespace, Op
from tests.netns.clusters import BareCluster, apply, bare_cluster

pytestmark = pytest.mark.netns

VIP, POD, OLD, CLIENT = "10.96.0.10", "10.244.1.2", "10.244.1.9", "10.244.2.7"
VIP6, POD6, OLD6, CLIENT6 = "fd00:96::10", "fd00:244:1::2", "fd00:244:1::9", "fd00:244:2::7"


def insert(cluster: BareCluster, protocol: str, port: int, source: int, reply: str) -> None:
    client, vip = (CLIENT6, VIP6) if ":" in reply else (CLIENT, VIP)
    words = [*("conntrack", "-I", "-p", protocol, "-t", "600", "-s", client, "-d", vip)]
    words += ["--sport", str(source), "--dport", str(port), "--reply-src", reply, "--reply-dst", client]
    words += ["--reply-port-src", "5353", "--reply-port-dst", str(source)]
    words += ["--state", "ESTABLISHED"] if protocol == "tcp" else []
    done = cluster.run("a", *words)
    assert done.returncode == 0, done.stderr


def entries(cluster: BareCluster) -> set[tuple[str, str]]:
    """(protocol, source port) of every entry."""
    lines = [
        line
        for family in ("ipv4", "ipv6")
        for line in cluster.run("a", "conntrack", "-L", "-f", family).stdout.splitlines()
    ]
    return {(line.split()[0], line.split("sport=")[1].split()[0]) for line in lines}


def test_only_udp_flows_to_what_serves_no_more_are_forgotten() -> None:
    with bare_cluster() as cluster:
        cluster.inside(lambda machine: apply(machine, [Op("add", "a", Namespace("a", "a"))]))
        insert(cluster, "udp", 53, 40001, OLD)
        insert(cluster, "udp", 53, 40002, POD)
        insert(cluster, "udp", 54, 40003, OLD)
        insert(cluster, "udp", 30053, 40004, OLD)
        insert(cluster, "tcp", 53, 40005, OLD)
        assert len(entries(cluster)) == 5

        def forget(machine: Machine) -> int:
            return machine.forget_udp("a", {(VIP, 53): {(POD, 5353)}, ("0.0.0.0", 30053): {(POD, 5353)}})

        assert cluster.inside(forget) == 2
        assert entries(cluster) == {("udp", "40002"), ("udp", "40003"), ("tcp", "40005")}
        assert cluster.inside(forget) == 0


def test_of_ipv6_too() -> None:
    with bare_cluster() as cluster:
        cluster.inside(lambda machine: apply(machine, [Op("add", "a", Namespace("a", "a"))]))
        insert(cluster, "udp", 53, 40001, OLD6)
        insert(cluster, "udp", 53, 40002, POD6)
        insert(cluster, "udp", 30053, 40003, OLD6)
        insert(cluster, "udp", 30053, 40004, OLD)

        def forget(machine: Machine) -> int:
            return machine.forget_udp("a", {(VIP6, 53): {(POD6, 5353)}, ("::", 30053): {(POD6, 5353)}})

        assert cluster.inside(forget) == 2
        assert entries(cluster) == {("udp", "40002"), ("udp", "40004")}
