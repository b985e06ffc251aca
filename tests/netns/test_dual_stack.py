"""Both families side by side on the wire: checklist rows 57 and 58, neighbour discovery, hostPorts."""

from __future__ import annotations

import json
import shutil
from functools import partial

import pytest

from nsk8s.observe.packets import Frame
from tests.netns.scenario import Obj, Scenario, pod, port, seen, service, url

pytestmark = pytest.mark.netns

in_both_modes = pytest.mark.parametrize("lab", ["ipv6_lab", "ipv6_nftables_lab"], indirect=True)

FAMILIES = {4: "IPv4", 6: "IPv6"}


def saved(lab: Scenario, table: str) -> list[str]:
    return lab.out("w1", f"{lab.iptables}-save", "-t", table).splitlines()


def rules(lab: Scenario, table: str, chain: str) -> list[str]:
    start = f"-A {chain} "
    return [line.removeprefix(start) for line in saved(lab, table) if line.startswith(start)]


def test_row_57_the_rules_of_ip6tables(ipv6_lab: Scenario) -> None:
    lab = ipv6_lab
    assert [line.rpartition("-j ")[2] for line in rules(lab, "filter", "INPUT")] == [
        "KUBE-PROXY-FIREWALL",
        "KUBE-NODEPORTS",
        "KUBE-EXTERNAL-SERVICES",
    ]  # and no KUBE-FIREWALL: nothing but ::1 is loopback's
    assert not any("127.0.0" in line or "KUBE-FIREWALL" in line for line in saved(lab, "filter"))
    *_, tail = rules(lab, "nat", "KUBE-SERVICES")
    assert tail.startswith('! -d ::1/128 -m comment --comment "kubernetes service nodeports; ')
    assert tail.endswith(" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS")
    ip = lab.cluster_ip("only-b1")
    chain = next(line for line in rules(lab, "nat", "KUBE-SERVICES") if line.startswith(f"-d {ip}/128 "))
    masquerade, balance = rules(lab, "nat", chain.rpartition("-j ")[2])
    assert masquerade.startswith(f"! -s fd00:10:244::/56 -d {ip}/128 -p tcp ")
    assert f'"default/only-b1 -> [{lab.ip("b1")}]:8080"' in balance
    hairpin, dnat = rules(lab, "nat", balance.rpartition("-j ")[2])
    assert hairpin == f'-s {lab.ip("b1")}/128 -m comment --comment "default/only-b1" -j KUBE-MARK-MASQ'
    assert dnat.endswith(f"-m tcp -j DNAT --to-destination [{lab.ip('b1')}]:8080")
    refused = [line for line in rules(lab, "filter", "KUBE-SERVICES") if "default/nobody:udp" in line]
    assert [line.rpartition("-j ")[2] for line in refused] == ["REJECT --reject-with icmp6-port-unreachable"]
    own = lab.pod_cidr("w1")
    comment = '-m comment --comment "flanneld masq" '
    flannel = [line.replace(comment, "") for line in rules(lab, "nat", "FLANNEL-POSTRTG")]
    assert flannel == [
        "-m mark --mark 0x4000/0x4000 -j RETURN",
        f"-s {own} -d fd00:10:244::/56 -j RETURN",
        f"-s fd00:10:244::/56 -d {own} -j RETURN",
        f"! -s fd00:10:244::/56 -d {own} -j RETURN",
        "-s fd00:10:244::/56 ! -d ff00::/8 -j MASQUERADE --random-fully",
        "! -s fd00:10:244::/56 -d fd00:10:244::/56 -j MASQUERADE --random-fully",
    ]  # fmt: skip


def fails(lab: Scenario, ip: str, number: int, how: str) -> bool:
    """Whether the client's GET fails in that way."""
    return lab.http_fails("default.client", ip, number) == how


def dual(families: list[str]) -> Obj:
    return service(
        "order",
        {"app": "b1"},
        port(80, 8080),
        type="NodePort",
        ipFamilyPolicy="RequireDualStack",
        ipFamilies=families,
    )


@pytest.mark.parametrize("first", [4, 6])
@in_both_modes
def test_row_58_a_service_of_both_families_answers_on_both_addresses_in_their_order(
    lab: Scenario, first: int
) -> None:
    order = [first, 10 - first]
    lab.apply(dual([FAMILIES[each] for each in order]))
    try:
        spec = lab.get("service", "order")["spec"]
        assert spec["ipFamilies"] == [FAMILIES[each] for each in order]
        assert spec["clusterIP"] == spec["clusterIPs"][0]
        assert [6 if ":" in ip else 4 for ip in spec["clusterIPs"]] == order
        number = spec["ports"][0]["nodePort"]
        pods = [each["ip"] for each in lab.get("pod", "b1")["status"]["podIPs"]]
        clients = [each["ip"] for each in lab.get("pod", "client")["status"]["podIPs"]]
        nodes = [each["address"] for each in lab.get("node", "w2")["status"]["addresses"][:2]]
        for ip in spec["clusterIPs"]:
            lab.until(partial(fails, lab, ip, 80, ""), f"{ip} answers")
            with lab.capture("default.b1", "eth0") as server:
                answer = json.loads(lab.out("default.client", "curl", "-sS", "-m5", url(ip, 80)))
                asked = server.wait_for(lambda p: p.dport == 8080)
            number_of = 1 if ":" in ip else 0
            assert (answer["client"], asked.src, asked.dst) == (
                clients[number_of],
                clients[number_of],
                pods[number_of],
            )
        for ip in nodes:
            answer = json.loads(lab.out("external", "curl", "-sS", "-m5", url(ip, number)))
            assert answer["pod"] == "b1"
    finally:
        lab.delete("service", "order")


@in_both_modes
def test_row_58_a_second_address_comes_and_goes(lab: Scenario) -> None:
    single = service("grows", {"app": "b1"}, port(80, 8080), ipFamilyPolicy="SingleStack")
    lab.apply(single)
    try:
        (first,) = lab.get("service", "grows")["spec"]["clusterIPs"]
        lab.apply({**single, "spec": {**single["spec"], "ipFamilyPolicy": "PreferDualStack"}})
        both = lab.get("service", "grows")["spec"]["clusterIPs"]
        assert both[0] == first
        lab.until(lambda: lab.http_fails("default.client", both[1], 80) == "", "the second one answers")
        lab.apply(single)
        assert lab.get("service", "grows")["spec"]["clusterIPs"] == [first]
        lab.until(lambda: lab.http_fails("default.client", both[1], 80) != "", "the second one is gone")
        assert lab.http_fails("default.client", first, 80) == ""
    finally:
        lab.delete("service", "grows")


def solicitation(frame: Frame) -> bool:
    return "ICMPv6ND_NS" in frame.summary


def test_neighbours_are_asked_for_by_ndp(ipv6_lab: Scenario) -> None:
    lab = ipv6_lab
    gateway, own = lab.bridge("w1"), lab.ip("a1")
    lab.run("default.a1", "ip", "-6", "neigh", "flush", "dev", "eth0")
    with lab.capture("default.a1", "eth0") as packets:
        lab.run("default.a1", "ping", "-c1", "-W5", lab.ip("b1"))
        asked = packets.wait_for(lambda p: solicitation(p) and p.src == own)
        answer = packets.wait_for(lambda p: "ICMPv6ND_NA" in p.summary and p.src == gateway)
    assert asked.ttl == answer.ttl == 255
    assert asked.dst.startswith("ff02::1:ff")  # the solicited-node address of the gateway
    assert answer.smac == lab.mac("w1", "cni0")


def test_a_new_pod_neither_probes_its_addresses_nor_looks_for_routers(ipv6_lab: Scenario) -> None:
    lab = ipv6_lab
    with lab.capture("w1", "cni0") as packets:
        lab.apply(pod("late6", "w1"))
        try:
            lab.run("default.client", "ping", "-c1", "-W5", lab.ready_ip("late6"))
            assert not seen(packets, lambda p: "ICMPv6ND_RS" in p.summary)
            assert not seen(packets, lambda p: solicitation(p) and p.src == "::")
        finally:
            lab.delete("pod", "late6")


def test_row_59_a_host_port_is_there_in_both_families(ipv6_lab: Scenario) -> None:
    lab = ipv6_lab
    lab.apply(pod("ported", "w2", host_port=18086))
    try:
        own = lab.ready_ip("ported")
        ip = lab.node_ip("w2")
        lab.until(lambda: lab.http_fails("external", ip, 18086) == "", "the port is forwarded")
        answer = json.loads(lab.http("external", ip, 18086))
        assert (answer["pod"], answer["client"]) == ("ported", lab.node_ip("external"))
        hairpin = json.loads(lab.http("default.ported", ip, 18086))
        assert (hairpin["pod"], hairpin["client"]) == ("ported", lab.bridge("w2"))
        assert f"--to-destination [{own}]:8080" in lab.out("w2", "ip6tables-save", "-t", "nat")
    finally:
        lab.delete("pod", "ported")


@pytest.mark.skipif(shutil.which("dig") is None, reason="needs dig: scripts/install --dev")
def test_row_66_names_have_addresses_of_the_families_their_services_have(ipv6_lab: Scenario) -> None:
    lab = ipv6_lab
    dns = json.loads(lab.lab.nsk8s("get", "service", "kube-dns", "-n", "kube-system", "-o", "json").stdout)

    def dig(kind: str) -> list[str]:
        words = ["+short", "+time=5", "+tries=2", kind, "only-b1.default.svc.cluster.local"]
        return lab.out("default.client", "dig", f"@{dns['spec']['clusterIP']}", *words).split()

    ips = lab.get("service", "only-b1")["spec"]["clusterIPs"]
    assert dns["spec"]["ipFamilies"] == ["IPv4"]
    assert [dig("A"), dig("AAAA")] == [[ips[0]], [ips[1]]]


@in_both_modes
def test_row_73_a_policy_is_about_both_families(lab: Scenario) -> None:
    addresses = [each["ip"] for each in lab.get("pod", "b1")["status"]["podIPs"]]
    policy: Obj = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "only-a1"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "b1"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "a1"}}}]}],
        },
    }
    lab.apply(policy)
    try:
        for ip in addresses:
            lab.until(partial(fails, lab, ip, 8080, "timeout"), f"{ip} is closed")
            assert lab.http_fails("default.a1", ip, 8080) == ""
            assert lab.http_fails("w2", ip, 8080) == ""  # its own node always may
        assert lab.http_fails("default.a1", lab.cluster_ip("only-b1"), 80) == ""
    finally:
        lab.delete("networkpolicy", "only-a1")
    lab.until(lambda: lab.http_fails("default.client", addresses[1], 8080) == "", "it is open again")
