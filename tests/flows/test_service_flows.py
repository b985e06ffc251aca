"""What becomes of packets to services, from whom, on which node: kube-proxy's promises as tables."""

from __future__ import annotations

import pytest

from nsk8s.api.types import ContainerPort
from tests.flows.views import Backed, compiled, pod, service
from tests.flows.walk import Walker

POD, BACKEND, NODE, LOOPBACK, CLIENT = "10.244.1.9", "10.244.1.2", "172.18.0.11", "127.0.0.1", "172.18.0.200"
N1 = "172.18.0.11"
LOCAL, REMOTE = "10.244.1.2:8080", "10.244.2.2:8080"
BOTH = {LOCAL, REMOTE}
BOTH_MASQ = {f"{LOCAL} masq", f"{REMOTE} masq"}
EVERYWHERE = ("10.244.1.2", "10.244.2.2")

CLUSTER_IP = service("web", "10.96.0.10", *EVERYWHERE, node_port=30080, external_ips=("203.0.113.9",))
AFFINE = service("web", "10.96.0.10", *EVERYWHERE, node_port=30080, affinity="ClientIP")
EXTERNAL_LOCAL = service(
    "web", "10.96.0.10", *EVERYWHERE, node_port=30080, external_ips=("203.0.113.9",), external="Local"
)
EXTERNAL_LOCAL_FAR = service(
    "web", "10.96.0.10", "10.244.2.2", node_port=30080, external_ips=("203.0.113.9",), external="Local"
)
INTERNAL_LOCAL = service("web", "10.96.0.10", *EVERYWHERE, node_port=30080, internal="Local")
INTERNAL_LOCAL_FAR = service("web", "10.96.0.10", "10.244.2.2", node_port=30080, internal="Local")
BOTH_LOCAL_FAR = service(
    "web", "10.96.0.10", "10.244.2.2", node_port=30080, internal="Local", external="Local"
)
NOBODY = service("web", "10.96.0.10", node_port=30080, external_ips=("203.0.113.9",))
NOBODY_LOCAL = service(
    "web", "10.96.0.10", node_port=30080, external_ips=("203.0.113.9",), internal="Local", external="Local"
)

VIP, EXTERNAL_IP = ("10.96.0.10", 80), ("203.0.113.9", 80)
NODE_PORT, LOCALHOST_PORT = (N1, 30080), ("127.0.0.1", 30080)
To = tuple[str, int]


@pytest.mark.parametrize(
    ("backed", "source", "to", "expected"),
    [
        # Cluster policy: inside the cluster the client keeps its address, from outside it does not.
        (CLUSTER_IP, POD, VIP, BOTH),
        (CLUSTER_IP, BACKEND, VIP, {f"{LOCAL} masq", REMOTE}),
        (CLUSTER_IP, NODE, VIP, BOTH_MASQ),
        (CLUSTER_IP, CLIENT, VIP, BOTH_MASQ),
        (CLUSTER_IP, POD, NODE_PORT, BOTH_MASQ),
        (CLUSTER_IP, NODE, NODE_PORT, BOTH_MASQ),
        (CLUSTER_IP, LOOPBACK, LOCALHOST_PORT, BOTH_MASQ),
        (CLUSTER_IP, CLIENT, NODE_PORT, BOTH_MASQ),
        (CLUSTER_IP, POD, EXTERNAL_IP, BOTH_MASQ),
        (CLUSTER_IP, NODE, EXTERNAL_IP, BOTH_MASQ),
        (CLUSTER_IP, CLIENT, EXTERNAL_IP, BOTH_MASQ),
        # Another port of the same addresses is nobody's: it goes on as it is.
        (CLUSTER_IP, CLIENT, ("10.96.0.10", 81), {""}),
        (CLUSTER_IP, CLIENT, (N1, 30081), {""}),
        # Every node address takes a nodePort; other nodes' addresses are not this node's business.
        (CLUSTER_IP, CLIENT, ("10.244.1.1", 30080), BOTH_MASQ),
        (CLUSTER_IP, CLIENT, ("10.244.1.0", 30080), BOTH_MASQ),
        (CLUSTER_IP, CLIENT, ("172.18.0.12", 30080), {""}),
        # Affinity changes which, not whence.
        (AFFINE, POD, VIP, BOTH),
        (AFFINE, CLIENT, NODE_PORT, BOTH_MASQ),
        # External Local: outsiders reach this node's endpoints and are seen as who they are; pods and the
        # node itself are short-circuited to all of them.
        (EXTERNAL_LOCAL, CLIENT, NODE_PORT, {LOCAL}),
        (EXTERNAL_LOCAL, CLIENT, EXTERNAL_IP, {LOCAL}),
        (EXTERNAL_LOCAL, POD, NODE_PORT, BOTH),
        (EXTERNAL_LOCAL, POD, EXTERNAL_IP, BOTH),
        (EXTERNAL_LOCAL, NODE, NODE_PORT, BOTH_MASQ),
        (EXTERNAL_LOCAL, NODE, EXTERNAL_IP, BOTH_MASQ),
        (EXTERNAL_LOCAL, LOOPBACK, LOCALHOST_PORT, BOTH_MASQ),
        (EXTERNAL_LOCAL, POD, VIP, BOTH),
        (EXTERNAL_LOCAL, CLIENT, VIP, BOTH_MASQ),
        # ... and where this node has none, outsiders meet silence, the others nothing unusual.
        (EXTERNAL_LOCAL_FAR, CLIENT, NODE_PORT, {"DROP"}),
        (EXTERNAL_LOCAL_FAR, CLIENT, EXTERNAL_IP, {"DROP"}),
        (EXTERNAL_LOCAL_FAR, POD, NODE_PORT, {REMOTE}),
        (EXTERNAL_LOCAL_FAR, NODE, NODE_PORT, {f"{REMOTE} masq"}),
        (EXTERNAL_LOCAL_FAR, CLIENT, VIP, {f"{REMOTE} masq"}),
        # Internal Local is about the ClusterIP only.
        (INTERNAL_LOCAL, POD, VIP, {LOCAL}),
        (INTERNAL_LOCAL, CLIENT, NODE_PORT, BOTH_MASQ),
        (INTERNAL_LOCAL_FAR, POD, VIP, {"DROP"}),
        (INTERNAL_LOCAL_FAR, NODE, VIP, {"DROP"}),
        (INTERNAL_LOCAL_FAR, CLIENT, NODE_PORT, {f"{REMOTE} masq"}),
        (BOTH_LOCAL_FAR, POD, VIP, {"DROP"}),
        (BOTH_LOCAL_FAR, CLIENT, NODE_PORT, {"DROP"}),
        (BOTH_LOCAL_FAR, POD, NODE_PORT, {REMOTE}),
        # No endpoint anywhere is refused, not dropped, whatever the policies. (A node's own packets to an
        # external address do not meet the chain that would refuse them.)
        (NOBODY, POD, VIP, {"REJECT"}),
        (NOBODY, NODE, VIP, {"REJECT"}),
        (NOBODY, CLIENT, VIP, {"REJECT"}),
        (NOBODY, POD, NODE_PORT, {"REJECT"}),
        (NOBODY, NODE, NODE_PORT, {"REJECT"}),
        (NOBODY, CLIENT, NODE_PORT, {"REJECT"}),
        (NOBODY, POD, EXTERNAL_IP, {"REJECT"}),
        (NOBODY, NODE, EXTERNAL_IP, {""}),
        (NOBODY, CLIENT, EXTERNAL_IP, {"REJECT"}),
        (NOBODY_LOCAL, POD, VIP, {"REJECT"}),
        (NOBODY_LOCAL, CLIENT, NODE_PORT, {"REJECT"}),
        (NOBODY_LOCAL, CLIENT, EXTERNAL_IP, {"REJECT"}),
    ],
)
def test_service(backed: Backed, source: str, to: To, expected: set[str]) -> None:
    assert Walker(compiled(backed)["n1"]).walk(source, "tcp", *to) == expected


def test_one_port_number_serves_two_protocols_apart() -> None:
    tcp = service("dns-tcp", "10.96.0.10", "10.244.1.3", port=53, target=53, node_port=30053)
    udp = service("dns", "10.96.0.10", "10.244.1.2", port=53, target=5353, protocol="UDP", node_port=30053)
    walker = Walker(compiled(tcp, udp)["n1"])
    assert walker.walk(POD, "tcp", "10.96.0.10", 53) == {"10.244.1.3:53"}
    assert walker.walk(POD, "udp", "10.96.0.10", 53) == {"10.244.1.2:5353"}
    assert walker.walk(CLIENT, "udp", N1, 30053) == {"10.244.1.2:5353 masq"}
    assert walker.walk(POD, "sctp", "10.96.0.10", 53) == {" masq"}  # leaves the cluster, as any stray


@pytest.mark.parametrize(
    ("endpoints", "vip", "node_port", "from_pod"),
    [
        # endpoints; client → VIP; client → nodePort (external Local); pod → nodePort
        (("10.244.1.2", "10.244.2.2 terminating"), {f"{LOCAL} masq"}, {LOCAL}, {LOCAL}),
        (("10.244.1.2 terminating", "10.244.2.2"), {f"{REMOTE} masq"}, {LOCAL}, {REMOTE}),
        (("10.244.1.2 terminating", "10.244.2.2 terminating"), BOTH_MASQ, {LOCAL}, BOTH),
        (("10.244.1.2 gone", "10.244.2.2 terminating"), {f"{REMOTE} masq"}, {"DROP"}, {REMOTE}),
        (("10.244.2.2 terminating",), {f"{REMOTE} masq"}, {"DROP"}, {REMOTE}),
        (("10.244.1.2 gone", "10.244.2.2 gone"), {"REJECT"}, {"REJECT"}, {"REJECT"}),
        (("10.244.1.2 unready", "10.244.2.2"), {f"{REMOTE} masq"}, {"DROP"}, {REMOTE}),
        (("10.244.1.2 unready",), {"REJECT"}, {"REJECT"}, {"REJECT"}),
    ],
)
def test_terminating_endpoints_serve_where_no_ready_one_does(
    endpoints: tuple[str, ...], vip: set[str], node_port: set[str], from_pod: set[str]
) -> None:
    backed = service("web", "10.96.0.10", *endpoints, node_port=30080, external="Local")
    walker = Walker(compiled(backed)["n1"])
    assert walker.walk(CLIENT, "tcp", *VIP) == vip
    assert walker.walk(CLIENT, "tcp", *NODE_PORT) == node_port
    assert walker.walk(POD, "tcp", *NODE_PORT) == from_pod


@pytest.mark.parametrize(
    ("source", "to", "expected"),
    [
        (CLIENT, (N1, 8080), {"10.244.1.2:80"}),
        (NODE, (N1, 8080), {"10.244.1.2:80"}),
        (LOOPBACK, ("127.0.0.1", 8080), {"10.244.1.2:80 masq"}),
        (BACKEND, (N1, 8080), {"10.244.1.2:80 masq"}),
        (POD, (N1, 8080), {"10.244.1.2:80 masq"}),
        (CLIENT, (N1, 8081), {"10.244.1.2:81"}),
        (CLIENT, ("10.244.1.1", 8081), {""}),  # 8081 was asked for on one host address only
        (CLIENT, (N1, 80), {""}),
    ],
)
def test_host_port(source: str, to: To, expected: set[str]) -> None:
    server = pod(
        "server",
        BACKEND,
        ContainerPort(containerPort=80, hostPort=8080),
        ContainerPort(containerPort=81, hostPort=8081, hostIP=N1),
    )
    states = compiled(pods=(server,))
    assert Walker(states["n1"]).walk(source, "tcp", *to) == expected
    assert Walker(states["n2"]).walk(CLIENT, "tcp", "172.18.0.12", 8080) == {""}


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        (POD, "10.244.1.2", {""}),
        (POD, "10.244.2.2", {""}),
        ("10.244.2.2", POD, {""}),
        (POD, CLIENT, {" masq"}),
        (POD, "172.18.0.12", {" masq"}),
        (NODE, POD, {""}),
        ("10.244.1.0", "10.244.2.2", {""}),  # the address a node takes towards remote pods
        (NODE, "10.244.2.2", {" masq"}),
        (POD, "224.0.0.251", {""}),
        (CLIENT, LOOPBACK, {"DROP"}),
        (LOOPBACK, LOOPBACK, {""}),
    ],
)
def test_without_services(source: str, destination: str, expected: set[str]) -> None:
    """Pods keep their address inside the cluster; nobody outside reaches a node's loopback."""
    assert Walker(compiled()["n1"]).walk(source, "tcp", destination, 5000) == expected
