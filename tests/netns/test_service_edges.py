"""Services at the edge of the cluster, by their packets: load balancers, nodePorts from everywhere, paths
from and to nodes and machines outside.

One cluster of both families for each proxy mode, spoken of in either family:

    master  control plane      w1  a1 client      w2  b1      external, other
"""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import NamedTuple

import pytest
import yaml

from nsk8s.api.families import NAMES, Family
from nsk8s.observe.packets import send
from tests.conftest import labs
from tests.netns.processes_of import Processes, kill
from tests.netns.scenario import DUAL_STACK, Obj, Scenario, dual_stack, pod, port, refusal, seen, service, url

pytestmark = pytest.mark.netns

FAMILIES: tuple[Family, ...] = (4, 6)


class Balancers(NamedTuple):
    """The addresses of the load balancers; `on_link` is on the underlay, where clients ask for it by ARP or
    NDP."""

    lb: str
    local: str
    for_some: str
    proxy: str
    on_link: str


LB = {
    4: Balancers("203.0.113.20", "203.0.113.21", "203.0.113.22", "203.0.113.23", "172.18.0.240"),
    6: Balancers("2001:db8::20", "2001:db8::21", "2001:db8::22", "2001:db8::23", "fc00:f853:ccd:e793::240"),
}
SPREAD = {"group": "web"}
CLUSTER: Obj = {
    "apiVersion": "nsk8s.dev/v1",
    "kind": "Cluster",
    "metadata": {"name": "edges"},
    "spec": {
        "nodes": [{"name": "master", "role": "control-plane"}, {"name": "w1"}, {"name": "w2"}],
        "clients": [{"name": "external"}, {"name": "other"}],
        "dns": {"replicas": 0},
        **DUAL_STACK,
    },
}


def balanced(name: str, **spec: object) -> Obj:
    """A load balancer over all servers; who gives it its address comes later."""
    return service(name, SPREAD, port(80, 8080), type="LoadBalancer", **spec)


OBJECTS: list[Obj] = dual_stack(
    [
        pod("a1", "w1", labels=SPREAD),
        pod("b1", "w2", labels={**SPREAD, "app": "b1-only"}),
        pod("client", "w1", ports=()),
        balanced("lb"),
        balanced("lb-local", externalTrafficPolicy="Local"),
        balanced("lb-proxy"),
        service(
            "b1-local", {"app": "b1-only"}, port(80, 8080), type="LoadBalancer", externalTrafficPolicy="Local"
        ),
        service("sticky", SPREAD, port(80, 8080), type="NodePort", sessionAffinity="ClientIP"),
        service("cluster-ip", SPREAD, port(80, 8080)),
    ]
)


@pytest.fixture(scope="module", params=("iptables", "nftables"))
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Family, Scenario]]:
    """The cluster in one proxy mode, spoken of in each family; its load balancers have their addresses."""
    mode = str(request.param)
    cluster = {**CLUSTER, "spec": {**CLUSTER["spec"], "proxyMode": mode}}
    with labs(f"edges-{mode}", tmp_path_factory.mktemp("edges")) as make:
        made = make(yaml.safe_dump_all([cluster, *OBJECTS]))
        found = {family: Scenario(made, mode, family) for family in FAMILIES}
        ranges = [f"{lab.node_ip(name)}/{lab.bits}" for lab in found.values() for name in ("external", "w1")]
        lab = found[4]
        lab.apply(*dual_stack([balanced("lb-for-some", loadBalancerSourceRanges=ranges)]))
        lab.balance("lb", *({"ip": ips.lb} for ips in LB.values()))
        lab.balance("lb-local", *({"ip": ips.local, "ipMode": "VIP"} for ips in LB.values()))
        lab.balance("lb-for-some", *({"ip": ips.for_some} for ips in LB.values()))
        proxies = [{"ip": ips.proxy, "ipMode": "Proxy"} for ips in LB.values()]
        lab.balance("lb-proxy", *proxies, {"hostname": "lb.example.com"})
        yield found


@pytest.fixture(params=FAMILIES, ids=NAMES.get)
def lab(both: dict[Family, Scenario], request: pytest.FixtureRequest) -> Scenario:
    """The cluster in one proxy mode and family."""
    family: Family = request.param
    return both[family]


@contextmanager
def routed(lab: Scenario, namespace: str, ip: str, node: str) -> Iterator[None]:
    """A static route by way of a node, as a router outside the cluster would have it."""
    destination = f"{ip}/{lab.bits}"
    lab.run(namespace, "ip", "route", "add", destination, "via", lab.node_ip(node))
    try:
        yield
    finally:
        lab.run(namespace, "ip", "route", "del", destination)


def answers(lab: Scenario, source: str, ip: str, number: int, count: int = 16) -> dict[str, set[str]]:
    """Which pods answer `count` requests, and whom they take for their client: what they say, and what the
    packets say that reach them."""
    found: dict[str, set[str]] = {}
    with lab.capture("default.a1", "eth0") as a1, lab.capture("default.b1", "eth0") as b1:
        for _ in range(count):
            one = lab.ask(source, ip, number)
            found.setdefault(one["pod"], set()).add(one["client"])
        for name, witness in (("a1", a1), ("b1", b1)):
            sources = {p.src for p in witness.look() if p.dport == 8080 and p.flags == "S"}
            assert sources == found.get(name, set()), name
    return found


def saved(lab: Scenario, node: str) -> str:
    """The rules of the mode and family."""
    if lab.mode == "nftables":
        return lab.out(node, "nft", "list", "table", "ip6" if lab.family == 6 else "ip", "kube-proxy")
    return lab.out(node, f"{lab.iptables}-save", "-t", "nat")


# --- pods and nodes -----------------------------------------------------------------------------------


def test_row_7_a_pod_is_its_node_to_the_outside_with_source_ports_drawn_by_lot(lab: Scenario) -> None:
    outside = lab.node_ip("external")
    asked = range(40000, 40012)
    with lab.capture("external", "eth0") as packets:
        for number in asked:
            with lab.socket("default.client", socket.SOCK_STREAM) as client:
                client.bind(("", number))
                assert client.connect_ex((outside, 9)) != 0  # nobody listens: refused, which is an answer
        arrived = [p for p in packets.look() if p.kind == "tcp" and p.dport == 9]
    assert {p.src for p in arrived} == {lab.node_ip("w1")}
    ports = [p.sport for p in arrived if p.flags == "S"]
    assert len(ports) == len(asked)
    assert len(set(ports) & set(asked)) < 3, ports
    assert len({later - earlier for earlier, later in itertools.pairwise(ports)}) > 3, ports


def test_row_9_a_pod_reaches_its_own_node_as_itself_and_others_as_its_node(lab: Scenario) -> None:
    """The process on the node is kube-proxy's health server."""
    for node, source in (("w1", lab.ip("client")), ("w2", lab.node_ip("w1"))):
        with lab.capture(node, "") as packets:
            asked = f"{url(lab.node_ip(node), 10256)}healthz"
            assert "nodeEligible" in lab.out("default.client", "curl", "-sS", "--max-time", "20", asked)
            arrived = [p for p in packets.look() if p.dport == 10256 and p.interface in ("cni0", "eth0")]
        assert {p.src for p in arrived} == {source}, node


def test_row_19_clusterip_from_outside_by_a_static_route(lab: Scenario) -> None:
    ip = lab.cluster_ip("cluster-ip")
    with routed(lab, "external", ip, "w1"):
        assert answers(lab, "external", ip, 80) == {"a1": {lab.bridge("w1")}, "b1": {lab.vtep("w1")}}


def test_row_22_an_undefined_port_of_a_clusterip(lab: Scenario) -> None:
    """nftables refuses it. In the iptables mode nobody answers for the ClusterIP: the packet goes to the
    node's default gateway with the node's address, as in a real cluster; here that is the end, for no route
    leads off the machine."""
    ip = lab.cluster_ip("cluster-ip")
    if lab.mode == "nftables":
        assert lab.http_fails("default.client", ip, 81) == "refused"
        return
    with lab.capture("w1", "eth0") as packets:
        assert lab.http_fails("default.client", ip, 81) != ""
        gone = packets.wait_for(lambda p: p.dst == ip and p.dport == 81 and p.outgoing)
    assert gone.src == lab.node_ip("w1")


# --- nodePorts ------------------------------------------------------------------------------------------


def test_row_29_nodeports_on_localhost_and_nobody_else_on_it(lab: Scenario) -> None:
    """Only in the iptables mode and for IPv4, which route_localnet is for."""
    number = lab.node_port("lb")
    routed = lab.out("w1", "sysctl", "-n", "net.ipv4.conf.all.route_localnet").strip()
    assert routed == ("1" if lab.mode == "iptables" else "0")
    if (lab.mode, lab.family) != ("iptables", 4):
        loopback = "127.0.0.1" if lab.family == 4 else "::1"
        with lab.capture("w1", "lo") as packets:
            assert lab.http_fails("w1", loopback, number) == "refused"
            packets.wait_for(lambda p: p.src == p.dst == loopback and "R" in p.flags and p.sport == number)
        return
    assert set(answers(lab, "w1", "127.0.0.1", number)) == {"a1", "b1"}
    # A machine outside that sends to the node's loopback meets KUBE-FIREWALL.
    before = dropped(lab, "w1", "KUBE-FIREWALL")
    with lab.capture("w1", "eth0") as packets:
        send(lab.lab.netns("external"), "eth0", [syn(lab, "external", "w1", "127.0.0.1", 10249)])
        packets.wait_for(lambda p: p.dst == "127.0.0.1")
        lab.until(lambda: dropped(lab, "w1", "KUBE-FIREWALL") > before, "KUBE-FIREWALL drops it")
        assert not seen(packets, lambda p: p.sport == 10249)


def dropped(lab: Scenario, node: str, chain: str) -> int:
    """How many packets the rules of a filter chain have dropped."""
    lines = lab.out(node, "iptables-save", "-c", "-t", "filter").splitlines()
    drops = [line for line in lines if f"-A {chain} " in line and line.endswith("-j DROP")]
    assert drops
    return sum(int(line[1:].partition(":")[0]) for line in drops)


def syn(lab: Scenario, source: str, node: str, destination: str, number: int) -> bytes:
    """The first packet of a TCP connection, straight to the node's MAC."""
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether

    ends = Ether(src=lab.mac(source, "eth0"), dst=lab.mac(node, "eth0"))
    return bytes(
        ends / IP(src=lab.node_ip(source), dst=destination) / TCP(sport=40999, dport=number, flags="S")
    )


def test_row_38_affinity_on_a_nodeport_is_per_client_and_node(lab: Scenario) -> None:
    number = lab.node_port("sticky")
    chosen = {}
    for client in ("external", "other"):
        for node in ("w1", "w2"):
            found = answers(lab, client, lab.node_ip(node), number)
            assert len(found) == 1, "a client changes its endpoint"
            chosen[client, node] = found
    for client, node in chosen:  # and it stays where it was while others come and go
        assert answers(lab, client, lab.node_ip(node), number, 4) == chosen[client, node]
        if lab.mode == "iptables":
            held = lab.out(node, "sh", "-c", "cat /proc/net/xt_recent/KUBE-SEP-*")
            assert f"src={ip_address(lab.node_ip(client)).exploded} " in held
        else:
            assert f"{lab.node_ip(client)} expires " in saved(lab, node)


# --- load balancers ---------------------------------------------------------------------------------------


def test_a_load_balancers_address_is_captured_on_every_node(lab: Scenario) -> None:
    ip = LB[lab.family].lb
    for node in ("w1", "w2"):
        with routed(lab, "external", ip, node):
            found = answers(lab, "external", ip, 80)
        far = {"a1": "w2", "b1": "w1"}
        assert found == {
            name: {lab.vtep(node) if far[name] == node else lab.bridge(node)} for name in ("a1", "b1")
        }


def test_row_32_a_load_balancers_address_is_captured_where_arp_leads(lab: Scenario) -> None:
    """On the clients' own link, the node that answers ARP or NDP for the address (here because it is one of
    its own) gets the packets, and its rules lead them on."""
    ip = LB[lab.family].on_link
    lab.balance("lb", *({"ip": ips.lb} for ips in LB.values()), {"ip": ip})
    lab.until(lambda: ip in saved(lab, "w2"), "w2 captures the address", 30)
    own = (f"{ip}/{lab.bits}", "dev", "eth0")
    lab.run("w2", "ip", "address", "add", *own, "preferred_lft", "0", *(["nodad"] * (lab.family == 6)))
    try:
        before = counted(lab, "w2", "lb")
        with lab.capture("external", "eth0") as packets:
            found = answers(lab, "external", ip, 80)
            reply = packets.wait_for(lambda p: p.src == ip and p.kind == "tcp")
        assert found == {"a1": {lab.vtep("w2")}, "b1": {lab.bridge("w2")}}
        assert reply.smac == lab.mac("w2", "eth0")
        assert lab.mode == "nftables" or counted(lab, "w2", "lb") > before
    finally:
        lab.run("w2", "ip", "address", "del", *own)


def counted(lab: Scenario, node: str, name: str) -> int:
    """How many connections from outside the rules of a service have led on."""
    lines = lab.out(node, f"{lab.iptables}-save", "-c", "-t", "nat").splitlines()
    own = [line for line in lines if f"masquerade traffic for default/{name} external" in line]
    return sum(int(line[1:].partition(":")[0]) for line in own)


def test_row_30_a_pod_reaches_all_endpoints_of_a_local_load_balancer_as_itself(lab: Scenario) -> None:
    itself = {lab.ip("client")}
    assert answers(lab, "default.client", LB[lab.family].local, 80) == {"a1": itself, "b1": itself}
    by_node_port = answers(lab, "default.client", lab.node_ip("w1"), lab.node_port("lb-local"))
    assert by_node_port == {"a1": itself, "b1": itself}


def test_row_31_a_node_reaches_all_endpoints_of_a_local_load_balancer_masqueraded(lab: Scenario) -> None:
    found = answers(lab, "w1", LB[lab.family].local, 80)
    assert found == {"a1": {lab.bridge("w1")}, "b1": {lab.vtep("w1")}}


def test_from_outside_a_local_load_balancer_keeps_the_client_and_the_node(lab: Scenario) -> None:
    ip = LB[lab.family].local
    for node, local in (("w1", "a1"), ("w2", "b1")):
        with routed(lab, "external", ip, node):
            assert answers(lab, "external", ip, 80, 6) == {local: {lab.node_ip("external")}}


def test_row_33_source_ranges(lab: Scenario) -> None:
    ip = LB[lab.family].for_some
    with routed(lab, "external", ip, "w1"):
        assert set(answers(lab, "external", ip, 80)) == {"a1", "b1"}
    with routed(lab, "other", ip, "w1"), lab.capture("other", "eth0") as packets:
        assert lab.http_fails("other", ip, 80) == "timeout"
        assert not seen(packets, refusal)
        assert not seen(packets, lambda p: p.src == ip)
    assert lab.http_fails("default.client", ip, 80) == "timeout"  # ranges hold for pods too
    assert set(answers(lab, "other", lab.node_ip("w1"), lab.node_port("lb-for-some"))) == {"a1", "b1"}
    # w1's address is in a range, w2's is not.
    assert set(answers(lab, "w1", ip, 80)) == {"a1", "b1"}
    assert lab.http_fails("w2", ip, 80) == "timeout"
    # Where the address is the node's own, the node speaks from it: it may.
    lab.run("w1", "ip", "address", "add", f"{ip}/{lab.bits}", "dev", "lo")
    try:
        assert set(answers(lab, "w1", ip, 80)) == {"a1", "b1"}
    finally:
        lab.run("w1", "ip", "address", "del", f"{ip}/{lab.bits}", "dev", "lo")


def test_row_34_an_address_of_mode_proxy_is_left_to_the_load_balancer(lab: Scenario) -> None:
    ip = LB[lab.family].proxy
    with lab.capture("w1", "eth0") as packets:
        assert lab.http_fails("default.client", ip, 80) != ""
        packets.wait_for(lambda p: p.dst == ip and p.dport == 80 and p.outgoing)
    assert ip not in lab.out("w1", f"{lab.iptables}-save") + lab.out("w1", "nft", "list", "ruleset")


# --- health checks ----------------------------------------------------------------------------------------


def health_port(lab: Scenario, name: str = "lb-local") -> int:
    """A service's healthCheckNodePort."""
    return int(lab.get("service", name)["spec"]["healthCheckNodePort"])


def asked(lab: Scenario, source: str, node: str, number: int) -> tuple[str, dict[str, str], Obj]:
    """What a node says of a service: the status, the headers, the body."""
    where = f"{url(lab.node_ip(node), number)}any/path"
    said = lab.out(source, "curl", "-sSi", "--max-time", "20", where)
    head, _, body = said.replace("\r", "").partition("\n\n")
    status, *lines = head.split("\n")
    return status, dict(line.split(": ", 1) for line in lines), json.loads(body)


def test_row_44_health_check_node_port(lab: Scenario) -> None:
    number, ip = health_port(lab, "b1-local"), lab.node_ip("w2")
    status, headers, body = asked(lab, "external", "w1", number)
    assert status == "HTTP/1.1 503 Service Unavailable"
    assert headers["X-Load-Balancing-Endpoint-Weight"] == "0"
    with lab.capture("external", "eth0") as packets:
        status, headers, body = asked(lab, "external", "w2", number)
        heard = packets.wait_for(lambda p: p.sport == number and p.payload)
    assert (heard.src, heard.dst, heard.smac) == (ip, lab.node_ip("external"), lab.mac("w2", "eth0"))
    assert status == "HTTP/1.1 200 OK"
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Load-Balancing-Endpoint-Weight"] == "1"
    identity = {"namespace": "default", "name": "b1-local"}
    assert body == {"service": identity, "localEndpoints": 1, "serviceProxyHealthy": True}
    said = '-m comment --comment "default/b1-local health check node port"'
    rule = f"-A KUBE-NODEPORTS -p tcp {said} -m tcp --dport {number} -j ACCEPT"
    held = lab.out("master", f"{lab.iptables}-save", "-t", "filter")
    assert (rule in held) is (lab.mode == "iptables")


def test_row_44_a_health_check_follows_the_endpoints_and_outlives_the_control_plane(
    both: dict[Family, Scenario],
) -> None:
    """One more endpoint, one that is not ready, none any more; and it is told without a control plane, and by
    the next stand-in server."""
    lab = both[4]
    number = health_port(lab)

    def told(source: str, count: int) -> bool:
        return all(asked(each, source, "w1", number)[2]["localEndpoints"] == count for each in both.values())

    lab.apply(pod("a2", "w1", labels=SPREAD))
    lab.until(lambda: told("external", 2), "w1 has two endpoints", 30)
    lab.delete("pod", "a2")
    lab.apply(pod("a3", "w1", labels=SPREAD, readinessProbe={"exec": {"command": ["false"]}}))
    lab.until(lambda: told("external", 1), "w1 has one endpoint", 30)
    processes = Processes(lab.lab.name)
    kill(processes.daemon())
    assert told("other", 1)
    lab.delete("pod", "a3")  # a new control plane
    kill(processes.standins())
    lab.until(
        lambda: all(answered(each, number) for each in both.values()), "the next stand-in server tells it", 30
    )
    assert told("other", 1)


def answered(lab: Scenario, number: int) -> bool:
    return not lab.http_fails("external", lab.node_ip("w1"), number)
