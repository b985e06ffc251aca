"""kube-proxy's options, changed on a standing cluster, by what becomes of packets.

w1  a1 client      w2  b1      external
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from nsk8s.observe.packets import Frame, send
from tests.conftest import labs
from tests.netns.scenario import Obj, Scenario, pod, port, seen, service

pytestmark = pytest.mark.netns

OBJECTS = [
    pod("a1", "w1"),
    pod("b1", "w2"),
    pod("client", "w1", ports=()),
    service("a1", {"app": "a1"}, port(80, 8080), type="NodePort"),
    service("a1-local", {"app": "a1"}, port(80, 8080), type="NodePort", externalTrafficPolicy="Local"),
    service("b1", {"app": "b1"}, port(80, 8080), type="NodePort"),
    service("b1-local", {"app": "b1"}, port(80, 8080), type="NodePort", externalTrafficPolicy="Local"),
]


class Configured:
    """The cluster, and a word to configure its kube-proxies anew."""

    def __init__(self, lab: Scenario) -> None:
        self.lab = lab

    def with_options(self, **options: Any) -> Scenario:  # noqa: ANN401 (the user's YAML)
        """The cluster once all nodes have these options; its connections of before are forgotten."""
        self.lab.lab.write(topology(options))
        self.lab.lab.up()
        return self.lab


def topology(options: dict[str, Any]) -> str:
    spec = {
        "nodes": [{"name": "w1"}, {"name": "w2"}],
        "clients": [{"name": "external"}],
        "kubeProxy": options,
    }
    cluster: Obj = {"apiVersion": "nsk8s.dev/v1", "kind": "Cluster", "metadata": {"name": "x"}, "spec": spec}
    return yaml.safe_dump_all([cluster, *OBJECTS])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configured]:
    with labs("options", tmp_path_factory.mktemp("options")) as make:
        yield Configured(Scenario(make(topology({}))))


def client_seen(lab: Scenario, source: str, ip: str, number: int = 80) -> str:
    """Whom the server takes for its client."""
    told = json.loads(lab.out(source, "curl", "-sS", "--max-time", "20", f"http://{ip}:{number}/"))
    return str(told["client"])


def bridge(lab: Scenario, node: str) -> str:
    return lab.pod_cidr(node).replace(".0/24", ".1")


def vtep(lab: Scenario, node: str) -> str:
    return lab.pod_cidr(node).partition("/")[0]


def test_row_39_masquerade_all_hides_pods_from_services_behind_a_clusterip(cluster: Configured) -> None:
    lab = cluster.with_options(iptables={"masqueradeAll": True})
    with lab.capture("default.b1", "eth0") as server:
        assert client_seen(lab, "default.client", lab.cluster_ip("b1")) == vtep(lab, "w1")
        assert server.wait_for(lambda p: p.dport == 8080).src == vtep(lab, "w1")
    assert client_seen(lab, "default.client", lab.cluster_ip("a1")) == bridge(lab, "w1")


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({}, "! -s 10.244.0.0/16 -d {ip}/32 -p tcp"),
        ({"detectLocalMode": "NodeCIDR"}, "! -s {subnet} -d {ip}/32 -p tcp"),
        (
            {"detectLocalMode": "BridgeInterface", "detectLocal": {"bridgeInterface": "cni0"}},
            "-d {ip}/32 ! -i cni0 -p tcp",
        ),
        (
            {"detectLocalMode": "InterfaceNamePrefix", "detectLocal": {"interfaceNamePrefix": "cni"}},
            "-d {ip}/32 ! -i cni+ -p tcp",
        ),
    ],
    ids=("ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"),
)
def test_row_40_detect_local_mode(cluster: Configured, options: dict[str, Any], rule: str) -> None:
    lab = cluster.with_options(**options)
    near, far, itself = lab.cluster_ip("a1"), lab.cluster_ip("b1"), lab.ip("client")
    saved = lab.out("w1", "iptables-save", "-t", "nat")
    assert rule.format(ip=near, subnet=lab.pod_cidr("w1")) in saved
    assert client_seen(lab, "default.client", near) == client_seen(lab, "default.client", far) == itself
    assert client_seen(lab, "w1", near) == bridge(lab, "w1")
    # Pods are short-circuited past externalTrafficPolicy Local, and only they keep their address.
    assert client_seen(lab, "default.client", lab.node_ip("w1"), lab.node_port("b1-local")) == itself
    assert lab.http_fails("external", lab.node_ip("w1"), lab.node_port("b1-local")) == "timeout"


def test_row_40_without_any_way_to_detect(cluster: Configured) -> None:
    lab = cluster.with_options(clusterCIDR="")
    assert client_seen(lab, "w1", lab.cluster_ip("a1")) == lab.node_ip("w1")
    assert client_seen(lab, "default.client", lab.node_ip("w1"), lab.node_port("a1-local")) == lab.ip(
        "client"
    )
    assert lab.http_fails("default.client", lab.node_ip("w1"), lab.node_port("b1-local")) == "timeout"


def test_row_52_node_port_addresses(cluster: Configured) -> None:
    lab = cluster.with_options(nodePortAddresses=["primary"])
    number, primary, other = lab.node_port("a1"), lab.node_ip("w1"), bridge(lab, "w1")
    lab.run("external", "ip", "route", "add", f"{other}/32", "via", primary)
    try:
        assert client_seen(lab, "external", primary, number) == bridge(lab, "w1")
        assert lab.http_fails("external", other, number) == "refused"
        assert lab.http_fails("w1", "127.0.0.1", number) == "refused"
        saved = lab.out("w1", "iptables-save", "-t", "nat").splitlines()
        tail = [line for line in saved if line.endswith("-j KUBE-NODEPORTS")]
        assert len(tail) == 1
        assert tail[0].startswith(f"-A KUBE-SERVICES -d {primary}/32 -m comment")

        lab = cluster.with_options(nodePortAddresses=[lab.pod_cidr("w1"), "127.0.0.0/8"])
        assert client_seen(lab, "external", other, number) == bridge(lab, "w1")
        assert client_seen(lab, "w1", "127.0.0.1", number) == bridge(lab, "w1")
        assert lab.http_fails("external", primary, number) == "refused"
    finally:
        lab.run("external", "ip", "route", "del", f"{other}/32")


def test_nodeports_on_localhost_can_be_switched_off(cluster: Configured) -> None:
    lab = cluster.with_options(iptables={"localhostNodePorts": False})
    assert lab.http_fails("w1", "127.0.0.1", lab.node_port("a1")) == "refused"
    assert client_seen(lab, "w1", lab.node_ip("w1"), lab.node_port("a1")) == bridge(lab, "w1")
    assert lab.out("w1", "sysctl", "-n", "net.ipv4.conf.all.route_localnet").strip() == "0"


STRAY = b"a segment from another time"


@pytest.mark.parametrize("liberal", [False, True])
def test_row_47_out_of_window_segments(cluster: Configured, liberal: bool) -> None:
    """A segment that connection tracking does not believe would reach the client untranslated, from an
    address it never spoke to, and be answered with a reset: it is dropped. A liberal one translates it."""
    lab = cluster.with_options(conntrack={"tcpBeLiberal": liberal})
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
    invalid = "-m conntrack --ctstate INVALID -j DROP" in lab.out("w1", "iptables-save", "-t", "filter")
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
    from scapy.layers.l2 import Ether

    known = Ether(heard.raw)[TCP]
    ends = Ether(src=lab.mac("default.b1", "eth0"), dst=lab.mac("w2", "cni0"))
    segment = TCP(
        sport=8080, dport=known.dport, seq=(known.seq + (1 << 30)) % (1 << 32), ack=known.ack, flags="PA"
    )
    return bytes(ends / IP(src=lab.ip("b1"), dst=lab.ip("client")) / segment / STRAY)
