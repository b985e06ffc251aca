"""Services by their packets: rows 11, 17 to 28 and 35 to 37 of the README's table.

The servers answer with the client address they saw, so each test says who the server thinks it talked
to, and the capture on the server's side proves it.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from functools import partial
from ipaddress import ip_address

import pytest

from tests.netns.processes_of import Processes, stopped
from tests.netns.scenario import EVERY, Scenario, refusal, seen

pytestmark = [pytest.mark.netns, pytest.mark.parametrize("lab", EVERY, indirect=True)]


def client_seen(lab: Scenario, source: str, ip: str, port: int) -> dict[str, str]:
    """What the server answers to a GET from `source`: pod, client, ..."""
    answer: dict[str, str] = json.loads(lab.http(source, ip, port))
    return answer


def chi_square(counts: Counter[str], expected: float) -> float:
    return sum((n - expected) ** 2 / expected for n in counts.values())


def test_row_17_clusterip_spreads_evenly_over_three_endpoints(lab: Scenario) -> None:
    total = 3000
    counts = Counter(lab.many_http("default.client", lab.cluster_ip("web"), 80, total, field="pod"))
    assert set(counts) == {"a1", "a2", "b1"}
    assert chi_square(counts, total / 3) < 13.82, counts  # chi-square, 2 degrees of freedom, p = 0.001


def test_pod_to_clusterip_keeps_the_pods_address(lab: Scenario) -> None:
    with lab.capture("default.b1", "eth0") as server:
        answer = client_seen(lab, "default.client", lab.cluster_ip("only-b1"), 80)
        assert server.wait_for(lambda p: p.dport == 8080).src == lab.ip("client")
    assert answer["client"] == lab.ip("client")


def test_row_18_clusterip_from_a_node_is_masqueraded(lab: Scenario) -> None:
    with lab.capture("default.b1", "eth0") as server:
        answer = client_seen(lab, "w1", lab.cluster_ip("only-b1"), 80)
        assert server.wait_for(lambda p: p.dport == 8080).src == lab.vtep("w1")
    assert answer["client"] == lab.vtep("w1")


def test_row_19_clusterip_from_outside_by_a_static_route_is_masqueraded(lab: Scenario) -> None:
    ip = lab.cluster_ip("only-b1")
    lab.run("external", "ip", "route", "add", f"{ip}/{lab.bits}", "via", lab.node_ip("w1"))
    try:
        with lab.capture("default.b1", "eth0") as server:
            answer = client_seen(lab, "external", ip, 80)
            assert server.wait_for(lambda p: p.dport == 8080).src == lab.vtep("w1")
        assert answer["client"] == lab.vtep("w1")
    finally:
        lab.run("external", "ip", "route", "del", f"{ip}/{lab.bits}")


def test_outside_reaches_neither_clusterips_nor_pods(lab: Scenario) -> None:
    for ip, port in ((lab.cluster_ip("web"), 80), (lab.ip("a1"), 8080)):
        assert lab.http_fails("external", ip, port) == "timeout"


def test_row_11_and_20_a_pod_reaches_itself_through_its_service_masqueraded(lab: Scenario) -> None:
    with lab.capture("default.b1", "eth0") as both:
        answer = client_seen(lab, "default.b1", lab.cluster_ip("only-b1"), 80)
        assert both.wait_for(lambda p: p.dport == 8080).src == lab.bridge("w2")
    assert answer == answer | {"pod": "b1", "client": lab.bridge("w2")}
    port, ip = lab.port_of("b1"), lab.cluster_ip("only-b1")
    assert "hairpin on" in lab.out("w2", "bridge", "-d", "link", "show", "dev", port)
    with stopped(Processes(lab.lab.name).daemon()):  # or its next look may come before curl's
        lab.run("w2", "bridge", "link", "set", "dev", port, "hairpin", "off")
        assert lab.http_fails("default.b1", ip, 80) == "timeout"
    lab.until(lambda: lab.http_fails("default.b1", ip, 80) == "", "hairpin is repaired")


def test_row_21_a_service_without_endpoints_refuses_at_once(lab: Scenario) -> None:
    ip = lab.cluster_ip("nobody")
    for source in ("default.client", "w1"):
        begun = time.monotonic()
        assert lab.http_fails(source, ip, 80) == "refused"
        assert time.monotonic() - begun < (1 if lab.family == 4 else 3)  # see `http_fails`
    with lab.capture("default.client", "eth0") as packets:
        assert lab.udp_fails("default.client", ip, 53) == "refused"
        said = packets.wait_for(lambda p: p.kind.startswith("icmp") and refusal(p))
    if lab.family == 4:
        assert "dest-unreach port-unreachable" in said.summary
    else:
        assert said.raw[54:56] == b"\x01\x04"  # destination unreachable: port unreachable (RFC 4443, 3.1)


def test_row_22_a_port_that_the_service_does_not_have_times_out_or_is_refused_by_nft(lab: Scenario) -> None:
    fails = {"iptables": "timeout", "nftables": "refused"}[lab.mode]
    assert lab.http_fails("default.client", lab.cluster_ip("web"), 81) == fails


def test_row_23_target_ports_by_name_differ_from_pod_to_pod(lab: Scenario) -> None:
    ip = lab.cluster_ip("by-name")
    seen = {
        (answer["pod"], int(answer["port"]))
        for answer in (client_seen(lab, "default.client", ip, 80) for _ in range(40))
    }
    assert seen == {("n1", 8001), ("n2", 8002)}


def test_row_24_one_port_number_for_tcp_and_udp(lab: Scenario) -> None:
    ip = lab.cluster_ip("both")
    assert client_seen(lab, "default.client", ip, 5000)["pod"] == "b1"
    with lab.capture("default.b1", "eth0") as udp:
        assert lab.udp("default.client", ip, 5000, "hello") == "hello"
        assert udp.wait_for(lambda p: p.kind == "udp" and p.dport == 9090).src == lab.ip("client")


def test_row_25_several_ports_have_chains_of_their_own(lab: Scenario) -> None:
    ip = lab.cluster_ip("multi")
    assert int(client_seen(lab, "default.client", ip, 80)["port"]) == 8080
    assert int(client_seen(lab, "default.client", ip, 8443)["port"]) == 8081
    if lab.mode == "iptables":
        saved = lab.out("w1", f"{lab.iptables}-save", "-t", "nat")
        leads = r'"default/multi:{} cluster IP".* -j (KUBE-SVC-\w{{16}})'
    else:
        saved = lab.out(
            "w1", "nft", "list", "map", "ip6" if lab.family == 6 else "ip", "kube-proxy", "service-ips"
        )
        leads = r" : goto (service-\w{{8}}-default/multi/tcp/{})\b"
    chains = {found[1] for name in ("http", "admin") if (found := re.search(leads.format(name), saved))}
    assert len(chains) == 2


def test_row_26_a_nodeport_answers_on_every_node_and_every_local_address_but_of_nft_the_primary_one(
    lab: Scenario,
) -> None:
    port = lab.node_port("web-np")
    for node in ("master", "w1", "w2"):
        assert client_seen(lab, "external", lab.node_ip(node), port)["pod"] in {"a1", "a2", "b1"}
    second, words = lab.second_ip()
    lab.run("w1", "ip", "address", "add", *words)
    try:
        if lab.mode == "iptables":
            assert client_seen(lab, "external", second, port)["pod"] in {"a1", "a2", "b1"}
        else:
            assert lab.http_fails("external", second, port) == "refused"
    finally:
        lab.run("w1", "ip", "address", "del", words[0], "dev", "eth0")


def test_row_27_nodeport_with_policy_cluster_hides_the_client_and_returns_by_the_same_node(
    lab: Scenario,
) -> None:
    port = lab.node_port("only-b1-np")
    with lab.capture("default.b1", "eth0") as server, lab.capture("external", "eth0") as outside:
        answer = client_seen(lab, "external", lab.node_ip("w1"), port)
        assert server.wait_for(lambda p: p.dport == 8080).src == lab.vtep("w1")
        reply = outside.wait_for(lambda p: p.sport == port)
    assert answer["client"] == lab.vtep("w1")
    assert reply.src == lab.node_ip("w1")
    assert reply.smac == lab.mac("w1", "eth0")


def test_row_28_nodeport_with_policy_local_keeps_the_client_and_drops_elsewhere(lab: Scenario) -> None:
    port = lab.node_port("only-b1-local")
    with lab.capture("default.b1", "eth0") as server:
        answer = client_seen(lab, "external", lab.node_ip("w2"), port)
        assert server.wait_for(lambda p: p.dport == 8080).src == lab.node_ip("external")
    assert answer["client"] == lab.node_ip("external")
    with lab.capture("external", "eth0") as outside:
        assert lab.http_fails("external", lab.node_ip("w1"), port) == "timeout"
        assert not seen(outside, refusal)


def test_nodeport_with_policy_local_from_inside_goes_to_all_endpoints(lab: Scenario) -> None:
    port = lab.node_port("only-b1-local")
    answer = client_seen(lab, "default.client", lab.node_ip("w1"), port)
    assert answer == answer | {"pod": "b1", "client": lab.ip("client")}  # short-circuited, not masqueraded
    answer = client_seen(lab, "w1", lab.node_ip("w1"), port)
    assert answer == answer | {"pod": "b1", "client": lab.vtep("w1")}
    if (lab.mode, lab.family) == ("iptables", 4):
        answer = client_seen(lab, "w1", "127.0.0.1", port)
        assert answer == answer | {"pod": "b1", "client": lab.vtep("w1")}
    else:  # no nodePorts there; in the iptables mode the rule that drops them for want of endpoints is met
        loopback = "127.0.0.1" if lab.family == 4 else "::1"
        fails = {"iptables": "timeout", "nftables": "refused"}[lab.mode]
        assert lab.http_fails("w1", loopback, port) == fails


def test_row_35_external_ips(lab: Scenario) -> None:
    ip = "203.0.113.10" if lab.family == 4 else "2001:db8::10"
    lab.run("external", "ip", "route", "add", f"{ip}/{lab.bits}", "via", lab.node_ip("w1"))
    try:
        with lab.capture("default.b1", "eth0") as server:
            answer = client_seen(lab, "external", ip, 80)
            assert server.wait_for(lambda p: p.dport == 8080).src == lab.vtep("w1")
        assert answer["pod"] == "b1"
    finally:
        lab.run("external", "ip", "route", "del", f"{ip}/{lab.bits}")


def test_row_36_internal_policy_local_uses_only_this_nodes_endpoints(lab: Scenario) -> None:
    ip = lab.cluster_ip("only-b1-itp")
    assert client_seen(lab, "default.b1", ip, 80)["pod"] == "b1"
    with lab.capture("default.client", "eth0") as packets:
        assert lab.http_fails("default.client", ip, 80) == "timeout"  # the client is on w1, b1 on w2
        assert not seen(packets, refusal)


def test_row_37_affinity_keeps_a_client_on_one_endpoint_until_it_times_out(lab: Scenario) -> None:
    ip = lab.cluster_ip("sticky")
    first = lab.many_http("default.client", ip, 80, 50, field="pod")
    assert len(set(first)) == 1
    if lab.mode == "iptables":
        recent = lab.out("w1", "sh", "-c", "grep -l . /proc/net/xt_recent/KUBE-SEP-*").split()
        written = ip_address(lab.ip("client")).exploded
        assert any(f"src={written} " in lab.out("w1", "cat", name) for name in recent)
    else:
        ends = f"__{lab.ip(first[0]).replace(':', '.')}/8080"
        held = lab.out("w1", "nft", "list", "sets", "ip6" if lab.family == 6 else "ip").split("\n\tset ")
        assert any(f"{lab.ip('client')} expires" in one for one in held if ends in one.partition(" {")[0])
    others = {lab.many_http(f"default.{pod}", ip, 80, 3, field="pod")[0] for pod in ("a1", "a2", "n1", "n2")}
    assert others  # each client has a place of its own; the next test sees it change
    seen_pods: set[str] = set()
    for _ in range(12):
        timed_out = time.monotonic() + 1.1  # the service's timeoutSeconds, and a little
        lab.until(partial(_passed, timed_out), "the affinity times out")
        seen_pods |= set(lab.many_http("default.client", lab.cluster_ip("sticky-short"), 80, 2, field="pod"))
        if len(seen_pods) > 1:
            break
    assert len(seen_pods) > 1, "after its timeout an affinity never led anywhere else"


def _passed(moment: float) -> bool:
    return time.monotonic() > moment
