"""Services at the edge of the cluster, by their packets: load balancers, nodePorts from everywhere, paths
from and to nodes and machines outside.

One cluster of its own for each proxy mode:

    master  control plane      w1  a1 client      w2  b1      external, other
"""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import yaml

from nsk8s.observe.packets import send
from tests.conftest import labs
from tests.netns.processes_of import Processes, kill
from tests.netns.scenario import Obj, Scenario, pod, port, seen, service

pytestmark = pytest.mark.netns

MODES = ("iptables", "nftables")
LB, LB_LOCAL, LB_FOR_SOME, LB_PROXY = (f"203.0.113.{n}" for n in (20, 21, 22, 23))
LB_ON_LINK = "172.18.0.240"
"""On the underlay, where clients ask for it by ARP."""
SAVED = {"iptables": "iptables-save -t nat", "nftables": "nft list table ip kube-proxy"}
"""What prints a mode's rules."""
SPREAD = {"group": "web"}
CLUSTER: Obj = {
    "apiVersion": "nsk8s.dev/v1",
    "kind": "Cluster",
    "metadata": {"name": "edges"},
    "spec": {
        "nodes": [{"name": "master", "role": "control-plane"}, {"name": "w1"}, {"name": "w2"}],
        "clients": [{"name": "external"}, {"name": "other"}],
        "dns": {"replicas": 0},
    },
}


def balanced(name: str, **spec: object) -> Obj:
    """A load balancer over all servers; who gives it its address comes later."""
    return service(name, SPREAD, port(80, 8080), type="LoadBalancer", **spec)


OBJECTS: list[Obj] = [
    pod("a1", "w1", labels=SPREAD),
    pod("b1", "w2", labels=SPREAD),
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
OBJECTS[1]["metadata"]["labels"] = {**SPREAD, "app": "b1-only"}


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """The proxy mode."""
    return str(request.param)


@pytest.fixture(scope="module")
def lab(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    """The cluster in one proxy mode; its load balancers have their addresses."""
    cluster = {**CLUSTER, "spec": {**CLUSTER["spec"], "proxyMode": mode}}
    with labs(f"edges-{mode}", tmp_path_factory.mktemp("edges")) as make:
        lab = Scenario(make(yaml.safe_dump_all([cluster, *OBJECTS])))
        ranges = [f"{lab.node_ip(name)}/32" for name in ("external", "w1")]
        lab.apply(balanced("lb-for-some", loadBalancerSourceRanges=ranges))
        lab.balance("lb", {"ip": LB})
        lab.balance("lb-local", {"ip": LB_LOCAL, "ipMode": "VIP"})
        lab.balance("lb-for-some", {"ip": LB_FOR_SOME})
        lab.balance("lb-proxy", {"ip": LB_PROXY, "ipMode": "Proxy"}, {"hostname": "lb.example.com"})
        yield lab


@contextmanager
def routed(lab: Scenario, namespace: str, destination: str, node: str) -> Iterator[None]:
    """A static route by way of a node, as a router outside the cluster would have it."""
    lab.run(namespace, "ip", "route", "add", destination, "via", lab.node_ip(node))
    try:
        yield
    finally:
        lab.run(namespace, "ip", "route", "del", destination)


def answers(lab: Scenario, source: str, ip: str, number: int, count: int = 16) -> dict[str, set[str]]:
    """Which pods answer `count` requests, and whom they take for their client."""
    found: dict[str, set[str]] = {}
    program = (
        "import http.client, sys\n"
        "for _ in range(int(sys.argv[3])):\n"
        "    c = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=20)\n"
        "    c.request('GET', '/'); print(c.getresponse().read().decode().replace('\\n', '')); c.close()\n"
    )
    for line in lab.out(source, "python3", "-c", program, ip, str(number), str(count)).splitlines():
        one = json.loads(line)
        found.setdefault(one["pod"], set()).add(one["client"])
    return found


def bridge(lab: Scenario, node: str) -> str:
    return lab.pod_cidr(node).replace(".0/24", ".1")


def vtep(lab: Scenario, node: str) -> str:
    return lab.pod_cidr(node).partition("/")[0]


# --- pods and nodes -----------------------------------------------------------------------------------


def test_row_7_a_pod_is_its_node_to_the_outside_with_source_ports_drawn_by_lot(lab: Scenario) -> None:
    outside = lab.node_ip("external")
    asked = range(40000, 40012)
    with lab.capture("external", "eth0") as packets:
        for number in asked:
            with lab.socket("default.client", socket.SOCK_STREAM) as client:
                client.bind(("0.0.0.0", number))
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
            assert "nodeEligible" in lab.out("default.client", "curl", "-sS", *health(lab, node))
            arrived = [p for p in packets.look() if p.dport == 10256 and p.interface in ("cni0", "eth0")]
        assert {p.src for p in arrived} == {source}, node


def health(lab: Scenario, node: str) -> tuple[str, ...]:
    return "--max-time", "20", f"http://{lab.node_ip(node)}:10256/healthz"


def test_row_19_clusterip_from_outside_by_a_static_route(lab: Scenario) -> None:
    ip = lab.cluster_ip("cluster-ip")
    with routed(lab, "external", "10.96.0.0/16", "w1"):
        assert answers(lab, "external", ip, 80) == {"a1": {bridge(lab, "w1")}, "b1": {vtep(lab, "w1")}}


def test_row_22_an_undefined_port_of_a_clusterip(lab: Scenario, mode: str) -> None:
    """nftables refuses it. In the iptables mode nobody answers for the ClusterIP: the packet goes to the
    node's default gateway with the node's address, as in a real cluster; here that is the end, for no route
    leads off the machine."""
    ip = lab.cluster_ip("cluster-ip")
    if mode == "nftables":
        assert lab.http_fails("default.client", ip, 81) == "refused"
        return
    with lab.capture("w1", "eth0") as packets:
        assert lab.http_fails("default.client", ip, 81) != ""
        gone = packets.wait_for(lambda p: p.dst == ip and p.dport == 81 and p.outgoing)
    assert gone.src == lab.node_ip("w1")


# --- nodePorts ------------------------------------------------------------------------------------------


def test_row_29_nodeports_on_localhost_and_nobody_else_on_it(lab: Scenario, mode: str) -> None:
    number = lab.node_port("lb")
    if mode == "nftables":  # they are not there
        assert lab.http_fails("w1", "127.0.0.1", number) == "refused"
        assert lab.out("w1", "sysctl", "-n", "net.ipv4.conf.all.route_localnet").strip() == "0"
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


def test_row_38_affinity_on_a_nodeport_is_per_client_and_node(lab: Scenario, mode: str) -> None:
    number = lab.node_port("sticky")
    chosen = {}
    for client in ("external", "other"):
        for node in ("w1", "w2"):
            found = answers(lab, client, lab.node_ip(node), number)
            assert len(found) == 1, "a client changes its endpoint"
            chosen[client, node] = found
    for client, node in chosen:  # and it stays where it was while others come and go
        assert answers(lab, client, lab.node_ip(node), number, 4) == chosen[client, node]
        remembered = {
            "iptables": ("cat /proc/net/xt_recent/KUBE-SEP-*", "src={} "),
            "nftables": ("nft list table ip kube-proxy", "{} expires "),
        }
        command, said = remembered[mode]
        assert said.format(lab.node_ip(client)) in lab.out(node, "sh", "-c", command)


# --- load balancers ---------------------------------------------------------------------------------------


def test_a_load_balancers_address_is_captured_on_every_node(lab: Scenario) -> None:
    for node in ("w1", "w2"):
        with routed(lab, "external", f"{LB}/32", node):
            found = answers(lab, "external", LB, 80)
        far = {"a1": "w2", "b1": "w1"}
        assert found == {
            name: {vtep(lab, node) if far[name] == node else bridge(lab, node)} for name in ("a1", "b1")
        }


def test_row_32_a_load_balancers_address_is_captured_where_arp_leads(lab: Scenario, mode: str) -> None:
    """On the clients' own link, the node that answers ARP for the address (here because it is on its
    loopback) gets the packets, and its rules lead them on."""
    lab.balance("lb", {"ip": LB}, {"ip": LB_ON_LINK})
    lab.until(lambda: LB_ON_LINK in lab.out("w2", "sh", "-c", SAVED[mode]), "w2 captures the address", 30)
    lab.run("w2", "ip", "address", "add", f"{LB_ON_LINK}/32", "dev", "lo")
    try:
        before = counted(lab, "w2", "lb")
        with lab.capture("external", "eth0") as packets:
            found = answers(lab, "external", LB_ON_LINK, 80)
            reply = packets.wait_for(lambda p: p.src == LB_ON_LINK and p.kind == "tcp")
        assert found == {"a1": {vtep(lab, "w2")}, "b1": {bridge(lab, "w2")}}
        assert reply.smac == lab.mac("w2", "eth0")
        assert mode == "nftables" or counted(lab, "w2", "lb") > before
    finally:
        lab.run("w2", "ip", "address", "del", f"{LB_ON_LINK}/32", "dev", "lo")


def counted(lab: Scenario, node: str, name: str) -> int:
    """How many connections from outside the rules of a service have led on."""
    lines = lab.out(node, "iptables-save", "-c", "-t", "nat").splitlines()
    own = [line for line in lines if f"masquerade traffic for default/{name} external" in line]
    return sum(int(line[1:].partition(":")[0]) for line in own)


def test_row_30_a_pod_reaches_all_endpoints_of_a_local_load_balancer_as_itself(lab: Scenario) -> None:
    itself = {lab.ip("client")}
    assert answers(lab, "default.client", LB_LOCAL, 80) == {"a1": itself, "b1": itself}
    by_node_port = answers(lab, "default.client", lab.node_ip("w1"), lab.node_port("lb-local"))
    assert by_node_port == {"a1": itself, "b1": itself}


def test_row_31_a_node_reaches_all_endpoints_of_a_local_load_balancer_masqueraded(lab: Scenario) -> None:
    assert answers(lab, "w1", LB_LOCAL, 80) == {"a1": {bridge(lab, "w1")}, "b1": {vtep(lab, "w1")}}


def test_from_outside_a_local_load_balancer_keeps_the_client_and_the_node(lab: Scenario) -> None:
    for node, local in (("w1", "a1"), ("w2", "b1")):
        with routed(lab, "external", f"{LB_LOCAL}/32", node):
            assert answers(lab, "external", LB_LOCAL, 80, 6) == {local: {lab.node_ip("external")}}


def test_row_33_source_ranges(lab: Scenario) -> None:
    with routed(lab, "external", f"{LB_FOR_SOME}/32", "w1"):
        assert set(answers(lab, "external", LB_FOR_SOME, 80)) == {"a1", "b1"}
    with routed(lab, "other", f"{LB_FOR_SOME}/32", "w1"), lab.capture("other", "eth0") as packets:
        assert lab.http_fails("other", LB_FOR_SOME, 80) == "timeout"
        assert not seen(packets, lambda p: p.src in (LB_FOR_SOME, lab.node_ip("w1")) and p.kind != "arp")
    assert lab.http_fails("default.client", LB_FOR_SOME, 80) == "timeout"  # ranges hold for pods too
    assert set(answers(lab, "other", lab.node_ip("w1"), lab.node_port("lb-for-some"))) == {"a1", "b1"}
    # w1's address is in a range, w2's is not.
    assert set(answers(lab, "w1", LB_FOR_SOME, 80)) == {"a1", "b1"}
    assert lab.http_fails("w2", LB_FOR_SOME, 80) == "timeout"
    # Where the address is the node's own, the node speaks from it: it may.
    lab.run("w1", "ip", "address", "add", f"{LB_FOR_SOME}/32", "dev", "lo")
    try:
        assert set(answers(lab, "w1", LB_FOR_SOME, 80)) == {"a1", "b1"}
    finally:
        lab.run("w1", "ip", "address", "del", f"{LB_FOR_SOME}/32", "dev", "lo")


def test_row_34_an_address_of_mode_proxy_is_left_to_the_load_balancer(lab: Scenario) -> None:
    with lab.capture("w1", "eth0") as packets:
        assert lab.http_fails("default.client", LB_PROXY, 80) != ""
        packets.wait_for(lambda p: p.dst == LB_PROXY and p.dport == 80 and p.outgoing)
    assert LB_PROXY not in lab.out("w1", "iptables-save") + lab.out("w1", "nft", "list", "ruleset")


def test_row_44_health_check_node_port(lab: Scenario, mode: str) -> None:
    def asked(source: str, node: str, name: str = "lb-local") -> tuple[str, dict[str, str], Obj]:
        number = lab.get("service", name)["spec"]["healthCheckNodePort"]
        url = f"http://{lab.node_ip(node)}:{number}/any/path"
        head, _, body = (
            lab.out(source, "curl", "-sSi", "--max-time", "20", url).replace("\r", "").partition("\n\n")
        )
        status, *lines = head.split("\n")
        return status, dict(line.split(": ", 1) for line in lines), json.loads(body)

    status, headers, body = asked("external", "w1", "b1-local")
    assert status == "HTTP/1.1 503 Service Unavailable"
    assert headers["X-Load-Balancing-Endpoint-Weight"] == "0"
    status, headers, body = asked("external", "w2", "b1-local")
    assert status == "HTTP/1.1 200 OK"
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Load-Balancing-Endpoint-Weight"] == "1"
    identity = {"namespace": "default", "name": "b1-local"}
    assert body == {"service": identity, "localEndpoints": 1, "serviceProxyHealthy": True}
    number = lab.get("service", "lb-local")["spec"]["healthCheckNodePort"]
    said = '-m comment --comment "default/lb-local health check node port"'
    rule = f"-A KUBE-NODEPORTS -p tcp {said} -m tcp --dport {number} -j ACCEPT"
    assert (rule in lab.out("master", "iptables-save", "-t", "filter")) is (mode == "iptables")

    # One more endpoint, one that is not ready, none any more; and it is told without a control plane, and by
    # the next stand-in server.
    lab.apply(pod("a2", "w1", labels=SPREAD))
    lab.until(lambda: asked("external", "w1")[2]["localEndpoints"] == 2, "w1 has two endpoints", 30)
    lab.delete("pod", "a2")
    lab.apply(pod("a3", "w1", labels=SPREAD, readinessProbe={"exec": {"command": ["false"]}}))
    lab.until(lambda: asked("external", "w1")[2]["localEndpoints"] == 1, "w1 has one endpoint", 30)
    processes = Processes(lab.lab.name)
    kill(processes.daemon())
    assert asked("other", "w1")[2]["localEndpoints"] == 1
    lab.delete("pod", "a3")  # a new control plane
    kill(processes.standins())
    lab.until(lambda: answered(lab, number), "the next stand-in server tells it", 30)
    assert asked("other", "w1")[2]["localEndpoints"] == 1


def answered(lab: Scenario, number: int) -> bool:
    return not lab.http_fails("external", lab.node_ip("w1"), number)
