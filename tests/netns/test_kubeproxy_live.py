"""kube-proxy's and flannel's rules as they stand in the kernel: rows 12 to 16, 49, 50, 53, 61."""

from __future__ import annotations

import re

import pytest

from nsk8s.observe.packets import Frame, Witness
from tests.netns.processes_of import Processes, stopped
from tests.netns.scenario import EVERY, IPTABLES, Scenario, by_hand, seen

pytestmark = pytest.mark.netns

in_both_families = pytest.mark.parametrize("lab", IPTABLES, indirect=True)


def rules(lab: Scenario, node: str, table: str, chain: str) -> list[str]:
    lines = lab.out(node, f"{lab.iptables}-save", "-t", table).splitlines()
    prefix = f"-A {chain} "
    return [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]


def targets(lines: list[str]) -> list[str]:
    return [line.rpartition("-j ")[2] for line in lines]


def test_row_12_the_static_chains_and_rules(lab: Scenario) -> None:
    assert rules(lab, "w1", "nat", "KUBE-MARK-MASQ") == ["-j MARK --set-xmark 0x4000/0x4000"]
    assert rules(lab, "w1", "nat", "KUBE-POSTROUTING") == [
        "-m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-j MARK --set-xmark 0x4000/0x0",
        '-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully',
    ]
    assert rules(lab, "w1", "filter", "KUBE-FORWARD") == [
        "-m conntrack --ctstate INVALID -j DROP",
        '-m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT',
        '-m comment --comment "kubernetes forwarding conntrack rule" '
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    ]
    assert rules(lab, "w1", "nat", "KUBE-SERVICES")[-1] == (
        '-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" '
        "-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
    )
    for table in ("mangle", "nat", "filter"):
        assert ":KUBE-PROXY-CANARY " in lab.out("w1", "iptables-save", "-t", table)


def test_row_13_the_order_of_the_jumps(lab: Scenario) -> None:
    assert targets(rules(lab, "w1", "filter", "INPUT")) == [
        "KUBE-PROXY-FIREWALL",
        "KUBE-NODEPORTS",
        "KUBE-EXTERNAL-SERVICES",
        "KUBE-FIREWALL",
    ]
    assert targets(rules(lab, "w1", "filter", "FORWARD")) == [
        "KUBE-PROXY-FIREWALL",
        "KUBE-FORWARD",
        "KUBE-SERVICES",
        "KUBE-EXTERNAL-SERVICES",
        "FLANNEL-FWD",
    ]
    assert targets(rules(lab, "w1", "filter", "OUTPUT")) == [
        "KUBE-PROXY-FIREWALL",
        "KUBE-SERVICES",
        "KUBE-FIREWALL",
    ]
    post = targets(rules(lab, "w1", "nat", "POSTROUTING"))
    assert post.index("KUBE-POSTROUTING") < post.index("FLANNEL-POSTRTG")


def test_row_14_names_are_the_hashes_of_what_they_stand_for(lab: Scenario) -> None:
    lab.run(
        "w1", "iptables", "-n", "-t", "nat", "-L", "KUBE-SVC-NPX46M4PTMTKRN6Y"
    )  # default/kubernetes:https tcp


@pytest.mark.parametrize("count", range(2, 11))
def test_row_15_and_16_probabilities_and_the_order_of_endpoints(lab: Scenario, count: int) -> None:
    known = {
        2: "0.50000000000", 3: "0.33333333349", 4: "0.25000000000", 5: "0.20000000019", 6: "0.16666666651",
        7: "0.14285714272", 8: "0.12500000000", 9: "0.11111111101", 10: "0.10000000009",
    }  # fmt: skip
    addresses = ["10.9.2.2", "10.9.2.22", *(f"10.9.3.{i}" for i in range(1, 9))][:count]
    lab.apply(*by_hand("spread", addresses, 80))
    try:
        lab.until(
            lambda: (
                len(re.findall(r'"default/spread -> ', lab.out("w1", "iptables-save", "-t", "nat"))) == count
            ),
            f"{count} endpoints have their rules",
        )
        chain = next(
            line for line in rules(lab, "w1", "nat", "KUBE-SERVICES") if '"default/spread cluster IP"' in line
        ).rpartition("-j ")[2]
        lines = [line for line in rules(lab, "w1", "nat", chain) if "->" in line]
        chances = [match[1] for line in lines if (match := re.search(r"--probability (\S+)", line))]
        assert chances == [known[left] for left in range(count, 1, -1)]
        order = [match[1] for line in lines if (match := re.search(r"-> (\S+):80\"", line))]
        assert order == sorted(addresses, key=lambda ip: f"{ip}:80")
    finally:
        lab.delete("service", "spread")


@in_both_families
def test_row_49_a_change_leaves_other_services_counters_alone(lab: Scenario) -> None:
    chain = next(
        line for line in rules(lab, "w1", "nat", "KUBE-SERVICES") if '"default/only-b1 cluster IP"' in line
    ).rpartition("-j ")[2]
    lab.http("default.client", lab.cluster_ip("only-b1"), 80)

    def counters() -> str:
        saved = lab.out("w1", f"{lab.iptables}-save", "-c", "-t", "nat")
        return "\n".join(line for line in saved.splitlines() if f"-A {chain} " in line)

    before = counters()
    assert re.search(r"^\[[1-9]", before, re.MULTILINE), "the service's chain has counted a packet"
    lab.apply(*by_hand("newcomer", ["fd00:9::9" if lab.family == 6 else "10.9.9.9"], 80))
    try:
        lab.until(
            lambda: "default/newcomer" in lab.out("w1", f"{lab.iptables}-save", "-t", "nat"),
            "the new service",
        )
        assert counters() == before
    finally:
        lab.delete("service", "newcomer")
    lab.until(
        lambda: "default/newcomer" not in lab.out("w1", f"{lab.iptables}-save", "-t", "nat"), "it is gone"
    )
    assert counters() == before


@in_both_families
def test_row_50_a_flushed_nat_table_is_restored(lab: Scenario) -> None:
    before = lab.out("w1", f"{lab.iptables}-save", "-t", "nat").splitlines()
    address = lab.cluster_ip("only-b1")
    with stopped(Processes(lab.lab.name).daemon()):  # or its next look may come before curl's
        lab.run("w1", lab.iptables, "-t", "nat", "-F")
        with lab.capture("w1", "eth0") as uplink:
            assert lab.http_fails("default.client", address, 80) == "timeout"
            assert seen(uplink, lambda p: p.dst == address and p.outgoing), "nobody translates it"
    lab.until(
        lambda: lab.http_fails("default.client", address, 80) == "",
        "the rules are back",
        30,
    )
    after = lab.out("w1", f"{lab.iptables}-save", "-t", "nat").splitlines()
    assert [line for line in after if line.startswith("-A")] == [
        line for line in before if line.startswith("-A")
    ]


@pytest.mark.parametrize("lab", EVERY, indirect=True)
def test_row_53_nodeports_work_where_the_host_drops_what_it_forwards(lab: Scenario) -> None:
    """Flannel accepts what pods send and get. Without it kube-proxy's rule for what it has marked does; the
    nftables mode has none, for its table could not overrule another's verdict."""
    ip, number, source = lab.node_ip("w1"), lab.node_port("only-b1-np"), lab.vtep("w1")
    before = lab.out("w1", f"{lab.iptables}-save", "-t", "filter")
    with stopped(Processes(lab.lab.name).daemon()), lab.capture("default.b1", "eth0") as server:
        lab.run("w1", lab.iptables, "-P", "FORWARD", "DROP")
        try:
            assert "b1" in lab.http("external", ip, number)
            lab.run("w1", lab.iptables, "-F", "FLANNEL-FWD")
            passed = len(requests(server))
            fails = lab.http_fails("external", ip, number)
            assert fails == ("timeout" if lab.mode == "nftables" else "")
            assert len(requests(server)) - passed == (0 if lab.mode == "nftables" else 1)
            assert {p.src for p in requests(server)} == {source}
        finally:
            lab.run("w1", "sh", "-c", f"{lab.iptables}-restore <<'EOF'\n{before}\nEOF\n")


def requests(server: Witness) -> list[Frame]:
    """The connections that have begun at a server."""
    return [p for p in server.look() if p.dport == 8080 and p.flags == "S"]


def test_row_61_flannels_rules(lab: Scenario) -> None:
    own, net = lab.pod_cidr("w1"), "10.244.0.0/16"
    comment = '-m comment --comment "flanneld masq"'
    assert rules(lab, "w1", "nat", "FLANNEL-POSTRTG") == [
        f"-m mark --mark 0x4000/0x4000 {comment} -j RETURN",
        f"-s {own} -d {net} {comment} -j RETURN",
        f"-s {net} -d {own} {comment} -j RETURN",
        f"! -s {net} -d {own} {comment} -j RETURN",
        f"-s {net} ! -d 224.0.0.0/4 {comment} -j MASQUERADE --random-fully",
        f"! -s {net} -d {net} {comment} -j MASQUERADE --random-fully",
    ]
    forward = '-m comment --comment "flanneld forward" -j ACCEPT'
    assert rules(lab, "w1", "filter", "FLANNEL-FWD") == [f"-s {net} {forward}", f"-d {net} {forward}"]
