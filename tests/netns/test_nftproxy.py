"""kube-proxy's nftables mode in the kernel, and no kube-proxy at all: rows 50 and 54 to 57."""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import yaml

from nsk8s.api.families import NAMES
from nsk8s.linux import nfttext
from nsk8s.linux.nftables import Hook, Table
from tests.conftest import MakeLab
from tests.netns.processes_of import Processes, stopped
from tests.netns.scenario import B1, NFTABLES, Scenario, port, refusal, seen, service

pytestmark = pytest.mark.netns

in_both_families = pytest.mark.parametrize("lab", NFTABLES, indirect=True)


def proxy(lab: Scenario) -> tuple[str, str]:
    """Which table it is."""
    return "ip6" if lab.family == 6 else "ip", "kube-proxy"


def table(lab: Scenario, node: str) -> Table:
    return nfttext.parse(lab.out(node, "nft", "list", "table", *proxy(lab)))[proxy(lab)]


@in_both_families
def test_row_54_and_57_the_table_has_kube_proxys_shape(lab: Scenario) -> None:
    ip, address = ("ip6", "ipv6_addr") if lab.family == 6 else ("ip", "ipv4_addr")
    held = table(lab, "w1")
    assert held.comment == "rules for kube-proxy"
    assert {name: chain.hook for name, chain in held.chains.items() if chain.hook} == {
        "filter-prerouting-pre-dnat": Hook("filter", "prerouting", -110),
        "filter-output-pre-dnat": Hook("filter", "output", -110),
        "filter-input": Hook("filter", "input", 0),
        "filter-forward": Hook("filter", "forward", 0),
        "filter-output": Hook("filter", "output", 0),
        "nat-prerouting": Hook("nat", "prerouting", -100),
        "nat-output": Hook("nat", "output", -100),
        "nat-postrouting": Hook("nat", "postrouting", 100),
    }
    triple = f"{address} . inet_proto . inet_service"
    assert {name: (s.key, s.data) for name, s in held.sets.items() if not name.startswith("affinity-")} == {
        "cluster-ips": (address, ""),
        "nodeport-ips": (address, ""),
        "hairpin-connections": (f"{address} . {triple}", ""),
        "service-ips": (triple, "verdict"),
        "service-nodeports": ("inet_proto . inet_service", "verdict"),
        "firewall-ips": (triple, "verdict"),
        "no-endpoint-services": (triple, "verdict"),
        "no-endpoint-nodeports": ("inet_proto . inet_service", "verdict"),
    }
    assert held.chains["masquerading"].rules == (
        "meta mark & 0x00004000 != 0x00000000 meta mark set meta mark ^ 0x00004000 masquerade fully-random",
        f"ct status dnat {ip} saddr . {ip} daddr . meta l4proto . th dport @hairpin-connections"
        " masquerade fully-random",
    )
    assert list(held.sets["nodeport-ips"].elements) == [lab.node_ip("w1")]
    goto = held.sets["service-ips"].elements[f"{lab.cluster_ip('web')} . tcp . 80"].value
    assert re.fullmatch(r"goto service-[A-Z2-7]{8}-default/web/tcp/", goto)
    (rule,) = held.chains[goto.removeprefix("goto ")].rules
    targets = ", ".join(
        f"{i} : {lab.ip(p)} . 8080" for i, p in enumerate(sorted(("a1", "a2", "b1"), key=lab.ip))
    )
    assert rule == f"meta l4proto tcp dnat {ip} to numgen random mod 3 map {{ {targets} }}"
    hairpins = {f"{lab.ip(p)} . {lab.ip(p)} . tcp . 8080" for p in ("a1", "a2")}
    assert hairpins <= held.sets["hairpin-connections"].elements.keys()
    assert not any(lab.ip("b1") in key for key in held.sets["hairpin-connections"].elements)


@pytest.mark.parametrize("lab", NFTABLES[:1], indirect=True)
def test_of_iptables_there_are_only_the_chains_of_others(lab: Scenario) -> None:
    chains = set(re.findall(r"^:(KUBE-\S+)", lab.out("w1", "iptables-save"), re.MULTILINE))
    assert chains == {"KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT"}
    assert ":FLANNEL-POSTRTG " in lab.out("w1", "iptables-save", "-t", "nat")


@contextmanager
def monitored(lab: Scenario, node: str) -> Iterator[subprocess.Popen[bytes]]:
    """``nft monitor`` on a node, which has begun to listen."""
    words = ["ip", "netns", "exec", f"{lab.lab.name}.{node}", "stdbuf", "-oL", "nft", "monitor"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as monitor:
        try:
            said = ""
            end = time.monotonic() + 20
            while "start" not in said:
                assert time.monotonic() < end, f"nft monitor does not listen: {said!r}"
                lab.run(node, "nft", "add table ip start; delete table ip start")
                said += read(monitor)
            yield monitor
        finally:
            monitor.terminate()


def read(monitor: subprocess.Popen[bytes]) -> str:
    """What it has printed."""
    assert monitor.stdout
    said = b""
    while select.select([monitor.stdout], [], [], 0.3)[0]:
        said += os.read(monitor.stdout.fileno(), 65536)
    return said.decode()


@in_both_families
def test_row_55_a_change_touches_only_the_service_that_changes(lab: Scenario) -> None:
    families = [NAMES[lab.family]]
    lab.apply(service("changing", B1, port(80, 8080), ipFamilies=families))
    ip = lab.cluster_ip("changing")
    lab.until(lambda: f"{ip} . tcp . 80" in table(lab, "w1").sets["service-ips"].elements, "it is there")
    with monitored(lab, "w1") as monitor:
        lab.apply(service("changing", {"group": "web"}, port(80, 8080), ipFamilies=families))
        said = ""
        end = time.monotonic() + 20
        while "numgen random mod 3" not in said:
            assert time.monotonic() < end, f"no change seen: {said}"
            said += read(monitor)
    changes = [
        line for line in said.splitlines() if line and not line.startswith("#") and "ip start" not in line
    ]
    assert changes
    touched = f"{' '.join(proxy(lab))} .*-default/changing/tcp/"
    assert all(re.search(touched, line) for line in changes), changes
    lab.delete("service", "changing")
    lab.until(lambda: "default/changing" not in lab.out("w1", "nft", "list", "ruleset"), "it is gone")


@in_both_families
def test_row_56_cluster_ips_refuse_other_ports_and_unallocated_ones_are_silent(lab: Scenario) -> None:
    with lab.capture("default.client", "eth0") as packets:
        for source in ("default.client", "w1"):
            assert lab.http_fails(source, lab.cluster_ip("web"), 81) == "refused"
        assert seen(packets, refusal)
    unallocated = "fd00:10:96::fafa" if lab.family == 6 else "10.96.250.250"
    with lab.capture("default.client", "eth0") as packets, lab.capture("w1", "eth0") as uplink:
        assert lab.http_fails("default.client", unallocated, 80) == "timeout"
        assert seen(packets, lambda p: p.dst == unallocated)
        assert not seen(packets, refusal)
        assert not seen(uplink, lambda p: p.dst == unallocated)


@pytest.mark.parametrize(
    ("lab", "loss"),
    [
        ("nftables_lab", "delete table ip kube-proxy"),
        ("nftables_lab", "flush table ip kube-proxy"),
        ("nftables_lab", "flush ruleset"),
        ("ipv6_nftables_lab", "flush table ip6 kube-proxy"),
    ],
    indirect=["lab"],
)
def test_row_50_a_lost_table_comes_back(lab: Scenario, loss: str) -> None:
    before, rules = table(lab, "w1"), lab.out("w1", f"{lab.iptables}-save", "-t", "nat")
    ip = lab.cluster_ip("only-b1")
    with stopped(Processes(lab.lab.name).daemon()), lab.capture("w1", "eth0") as uplink:
        lab.run("w1", "nft", loss)
        assert lab.http_fails("default.client", ip, 80) != ""
        assert seen(uplink, lambda p: p.dst == ip and p.outgoing), "nobody translates it"
    lab.until(lambda: before == _table_or_none(lab, "w1"), f"after nft {loss}", 40)
    lab.until(
        lambda: _chains(lab.out("w1", f"{lab.iptables}-save", "-t", "nat")) == _chains(rules),
        "and iptables",
        40,
    )
    with lab.capture("default.b1", "eth0") as server:
        lab.http("default.client", ip, 80)
        assert server.wait_for(lambda p: p.dport == 8080).src == lab.ip("client")


def _table_or_none(lab: Scenario, node: str) -> Table | None:
    done = lab.run(node, "nft", "list", "table", *proxy(lab), check=False)
    return nfttext.parse(done.stdout)[proxy(lab)] if done.returncode == 0 else None


def _chains(saved: str) -> set[str]:
    return {line.partition(" [")[0] for line in saved.splitlines() if not line.startswith("#")}


BARE = {
    "apiVersion": "nsk8s.dev/v1",
    "kind": "Cluster",
    "metadata": {"name": "bare"},
    "spec": {"nodes": [{"name": "n1"}], "proxyMode": "none"},
}
THEIRS = (
    ("iptables", "-t", "nat", "-N", "KUBE-SERVICES"),
    ("iptables", "-t", "nat", "-A", "KUBE-SERVICES", "-d", "10.96.0.99/32", "-j", "RETURN"),
    ("iptables", "-t", "nat", "-A", "PREROUTING", "-j", "KUBE-SERVICES"),
    ("nft", "add table ip kube-proxy; add chain ip kube-proxy services"),
)


def test_with_proxy_mode_none_a_kube_proxy_of_ones_own_is_left_alone(cluster: MakeLab) -> None:
    lab = cluster(yaml.safe_dump_all([BARE, service("web", None, port(80, 8080))]))
    assert "KUBE-SERVICES" not in lab.inside("n1", "iptables-save")
    assert ":KUBE-FIREWALL " in lab.inside("n1", "iptables-save", "-t", "filter")
    for words in THEIRS:
        lab.inside("n1", *words)
    theirs = _uncounted(lab.inside("n1", "nft", "list", "ruleset"))
    assert "unchanged" in lab.up().stdout
    lab.nsk8s("expose", "service", "web", "--name", "more", "--port", "81", check=False)
    lab.inside("n1", "iptables", "-t", "filter", "-D", "INPUT", "-j", "KUBE-FIREWALL")
    lab.up()
    assert _uncounted(lab.inside("n1", "nft", "list", "ruleset")) == theirs


def _uncounted(text: str) -> str:
    return re.sub(r"packets \d+ bytes \d+", "", text)
