"""kube-proxy's options, changed on a standing cluster, by what becomes of packets.

One cluster of both families for each proxy mode:

w1  a1 client      w2  b1      external
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from nsk8s.api.families import Family
from nsk8s.observe.packets import Frame, send
from tests.conftest import labs
from tests.lab import Lab
from tests.netns.scenario import DUAL_STACK, Obj, Scenario, dual_stack, pod, port, seen, service

pytestmark = pytest.mark.netns

in_every_mode = pytest.mark.parametrize("cluster", ["iptables", "nftables"], indirect=True)
in_iptables = pytest.mark.parametrize("cluster", ["iptables"], indirect=True)
in_both_families = pytest.mark.parametrize("family", [4, 6])

OBJECTS = dual_stack(
    [
        pod("a1", "w1"),
        pod("b1", "w2"),
        pod("client", "w1", ports=()),
        service("a1", {"app": "a1"}, port(80, 8080), type="NodePort"),
        service("a1-local", {"app": "a1"}, port(80, 8080), type="NodePort", externalTrafficPolicy="Local"),
        service("b1", {"app": "b1"}, port(80, 8080), type="NodePort"),
        service("b1-local", {"app": "b1"}, port(80, 8080), type="NodePort", externalTrafficPolicy="Local"),
    ]
)


class Configured:
    """The cluster in one proxy mode, and a word to configure its kube-proxies anew."""

    def __init__(self, lab: Lab, mode: str) -> None:
        self.lab = lab
        self.mode = mode
        self._options: dict[str, Any] = {}

    def with_options(self, family: Family, **options: Any) -> Scenario:  # noqa: ANN401 (the user's YAML)
        """The cluster once all nodes have these options, spoken of in a family."""
        if options != self._options:
            self.lab.write(topology(self.mode, options))
            self.lab.up()
            self._options = options
        return Scenario(self.lab, self.mode, family)


def topology(mode: str, options: dict[str, Any]) -> str:
    spec = {
        "nodes": [{"name": "w1"}, {"name": "w2"}],
        "clients": [{"name": "external"}],
        "proxyMode": mode,
        "kubeProxy": options,
        **DUAL_STACK,
    }
    cluster: Obj = {"apiVersion": "nsk8s.dev/v1", "kind": "Cluster", "metadata": {"name": "x"}, "spec": spec}
    return yaml.safe_dump_all([cluster, *OBJECTS])


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configured]:
    with labs(f"options-{request.param}", tmp_path_factory.mktemp("options")) as make:
        yield Configured(make(topology(request.param, {})), request.param)


def client_seen(lab: Scenario, source: str, ip: str, number: int = 80) -> str:
    """Whom the server takes for its client: what it says, and what the packet says that reaches it."""
    with lab.capture("default.a1", "eth0") as a1, lab.capture("default.b1", "eth0") as b1:
        told = lab.ask(source, ip, number)
        arrived = {"a1": a1, "b1": b1}[told["pod"]].wait_for(lambda p: p.dport == 8080 and p.flags == "S")
    assert told["client"] == arrived.src
    return arrived.src


def saved(lab: Scenario, node: str) -> str:
    """The rules of the mode and family."""
    if lab.mode == "nftables":
        return lab.out(node, "nft", "list", "table", "ip6" if lab.family == 6 else "ip", "kube-proxy")
    return lab.out(node, f"{lab.iptables}-save", "-t", "nat")


@in_both_families
@in_every_mode
def test_row_39_masquerade_all_hides_pods_from_services_behind_a_clusterip(
    cluster: Configured, family: Family
) -> None:
    lab = cluster.with_options(family, **{cluster.mode: {"masqueradeAll": True}})
    assert client_seen(lab, "default.client", lab.cluster_ip("b1")) == lab.vtep("w1")
    assert client_seen(lab, "default.client", lab.cluster_ip("a1")) == lab.bridge("w1")


PODS = {4: "10.244.0.0/16", 6: "fd00:10:244::/56"}


@in_both_families
@pytest.mark.parametrize(
    ("options", "iptables", "nftables"),
    [
        ({}, "! -s {pods} -d {ip} -p tcp", "saddr != {pods}"),
        ({"detectLocalMode": "NodeCIDR"}, "! -s {subnet} -d {ip} -p tcp", "saddr != {subnet}"),
        (
            {"detectLocalMode": "BridgeInterface", "detectLocal": {"bridgeInterface": "cni0"}},
            "-d {ip} ! -i cni0 -p tcp",
            'iifname != "cni0"',
        ),
        (
            {"detectLocalMode": "InterfaceNamePrefix", "detectLocal": {"interfaceNamePrefix": "cni"}},
            "-d {ip} ! -i cni+ -p tcp",
            'iifname != "cni*"',
        ),
    ],
    ids=("ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"),
)
@in_every_mode
def test_row_40_detect_local_mode(
    cluster: Configured, options: dict[str, Any], iptables: str, nftables: str, family: Family
) -> None:
    lab = cluster.with_options(family, **options)
    near, far, itself = lab.cluster_ip("a1"), lab.cluster_ip("b1"), lab.ip("client")
    rule = {"iptables": iptables, "nftables": f"daddr @cluster-ips .*{nftables} "}[lab.mode]
    wanted = rule.format(pods=PODS[family], subnet=lab.pod_cidr("w1"), ip=f"{near}/{lab.bits}")
    assert re.search(wanted.replace("+", r"\+").replace('*"', r'\*"'), saved(lab, "w1"))
    assert client_seen(lab, "default.client", near) == client_seen(lab, "default.client", far) == itself
    assert client_seen(lab, "w1", near) == lab.bridge("w1")
    # Pods are short-circuited past externalTrafficPolicy Local, and only they keep their address.
    assert client_seen(lab, "default.client", lab.node_ip("w1"), lab.node_port("b1-local")) == itself
    assert lab.http_fails("external", lab.node_ip("w1"), lab.node_port("b1-local")) == "timeout"


@in_both_families
@in_every_mode
def test_row_40_without_any_way_to_detect(cluster: Configured, family: Family) -> None:
    lab = cluster.with_options(family, clusterCIDR="")
    node, itself = lab.node_ip("w1"), lab.ip("client")
    assert client_seen(lab, "w1", lab.cluster_ip("a1")) == node
    assert client_seen(lab, "default.client", node, lab.node_port("a1-local")) == itself
    assert lab.http_fails("default.client", node, lab.node_port("b1-local")) == "timeout"


@in_both_families
@in_every_mode
def test_row_52_node_port_addresses(cluster: Configured, family: Family) -> None:
    lab = cluster.with_options(family, nodePortAddresses=["primary"])
    number, primary, other = lab.node_port("a1"), lab.node_ip("w1"), lab.bridge("w1")
    loopback = "127.0.0.1" if family == 4 else "::1"
    lab.run("external", "ip", "route", "add", f"{other}/{lab.bits}", "via", primary)
    try:
        assert client_seen(lab, "external", primary, number) == lab.bridge("w1")
        assert lab.http_fails("external", other, number) == "refused"
        assert lab.http_fails("w1", loopback, number) == "refused"
        assert taking_node_ports(lab) == {primary}

        # A family of which no network is given takes them everywhere, so there is one of each.
        networks = [Scenario(cluster.lab, cluster.mode, kind).pod_cidr("w1") for kind in (4, 6)]
        lab = cluster.with_options(family, nodePortAddresses=[*networks, "127.0.0.0/8"])
        assert client_seen(lab, "external", other, number) == lab.bridge("w1")
        assert lab.http_fails("external", primary, number) == "refused"
        local = (cluster.mode, family) == ("iptables", 4)
        assert taking_node_ports(lab) == {other, lab.vtep("w1"), *([loopback] * local)}
        if local:
            assert client_seen(lab, "w1", loopback, number) == lab.bridge("w1")
        else:
            assert lab.http_fails("w1", loopback, number) == "refused"
    finally:
        lab.run("external", "ip", "route", "del", f"{other}/{lab.bits}")


def taking_node_ports(lab: Scenario) -> set[str]:
    """The addresses that take nodePorts on w1, as its rules say."""
    if lab.mode == "nftables":
        elements = saved(lab, "w1").partition("set nodeport-ips {")[2].partition("elements = {")[2]
        return set(elements.partition("}")[0].replace(",", " ").split())
    tails = [line for line in saved(lab, "w1").splitlines() if line.endswith("-j KUBE-NODEPORTS")]
    return {line.partition("-A KUBE-SERVICES -d ")[2].partition("/")[0] for line in tails}


@in_iptables
def test_nodeports_on_localhost_can_be_switched_off(cluster: Configured) -> None:
    lab = cluster.with_options(4, iptables={"localhostNodePorts": False})
    assert lab.http_fails("w1", "127.0.0.1", lab.node_port("a1")) == "refused"
    assert client_seen(lab, "w1", lab.node_ip("w1"), lab.node_port("a1")) == lab.bridge("w1")
    assert lab.out("w1", "sysctl", "-n", "net.ipv4.conf.all.route_localnet").strip() == "0"


STRAY = b"a segment from another time"


@in_both_families
@pytest.mark.parametrize("liberal", [False, True])
@in_iptables
def test_row_47_out_of_window_segments(cluster: Configured, liberal: bool, family: Family) -> None:
    """A segment that connection tracking does not believe would reach the client untranslated, from an
    address it never spoke to, and be answered with a reset: it is dropped. A liberal one translates it."""
    lab = cluster.with_options(family, conntrack={"tcpBeLiberal": liberal})
    ip = lab.cluster_ip("b1")
    with (
        lab.capture("default.client", "eth0") as packets,
        lab.socket("default.client", socket.SOCK_STREAM) as client,
    ):
        client.settimeout(20)
        client.connect((ip, 80))
        ask(client)
        heard = packets.wait_for(lambda p: p.src == ip and p.payload)
        send(lab.lab.netns("default.b1"), "eth0", [out_of_window(lab, heard)])
        if liberal:
            assert packets.wait_for(lambda p: STRAY in p.payload).src == ip
        else:
            ask(client)  # later packets of the same way have come: the stray one never will
            assert not seen(packets, lambda p: STRAY in p.payload)
        ask(client)
        assert not seen(packets, lambda p: "R" in p.flags)
    invalid = "-m conntrack --ctstate INVALID -j DROP" in lab.out(
        "w1", f"{lab.iptables}-save", "-t", "filter"
    )
    assert invalid is not liberal


def ask(client: socket.socket) -> None:
    """One request over a connection that stays."""
    client.sendall(b"GET / HTTP/1.1\r\nHost: b1\r\n\r\n")
    head, _, body = client.recv(65536).partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    while len(body) < length:
        more = client.recv(65536)
        assert more, "the connection ended"
        body += more
    assert json.loads(body)["pod"] == "b1"


def out_of_window(lab: Scenario, heard: Frame) -> bytes:
    """What the server might have sent an hour ago, as it leaves the server; `heard` is one of its segments as
    the client got it."""
    from scapy.layers.inet import IP, TCP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether

    known = Ether(heard.raw)[TCP]
    ends = Ether(src=lab.mac("default.b1", "eth0"), dst=lab.mac("w2", "cni0"))
    segment = TCP(
        sport=8080, dport=known.dport, seq=(known.seq + (1 << 30)) % (1 << 32), ack=known.ack, flags="PA"
    )
    layer = IPv6 if lab.family == 6 else IP
    return bytes(ends / layer(src=lab.ip("b1"), dst=lab.ip("client")) / segment / STRAY)
