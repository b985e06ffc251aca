"""Network policies where more than a table of pods is asked: changes while the cluster runs, services, nodes,
what is on the wire, and the commands that tell of it.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nsk8s.cluster.policy import Party, decide, pod_party
from nsk8s.kernel import namespaces
from nsk8s.observe.connections import Attempt, attempt
from nsk8s.observe.packets import Frame
from tests import policies
from tests.conftest import MakeLab
from tests.netns.policylab import PATIENCE, SILENCE, Cell, Obj, PolicyLab, standing
from tests.netns.processes_of import Processes, kill
from tests.policies import labels, policy

pytestmark = pytest.mark.netns

DENY = policy("deny", {}, types=["Ingress"])
MUTE = policy("mute", {}, types=["Egress"])
FROM_B = policy("from-b", {}, types=["Ingress"], ingress=[{"from": [{"podSelector": labels(pod="b")}]}])


@pytest.fixture(scope="module")
def lab(shared_cluster: MakeLab) -> PolicyLab:
    return standing(shared_cluster)


def reaches(
    lab: PolicyLab, source: str, address: str, port: int, wanted: bool, protocol: str = "TCP"
) -> None:
    """A connection from a namespace (``x/a``, ``external``, ``n1``) is made, or is not answered."""
    one = Attempt(lab.lab.netns(source.replace("/", ".")), address, port, protocol)  # type: ignore[arg-type]
    (outcome,) = attempt([one], PATIENCE if wanted else SILENCE)
    assert outcome == ("reached" if wanted else "timeout"), f"{source} -> {address}:{port}: {outcome}"


def _address(lab: PolicyLab, namespace: str) -> str:
    """The address of a node or client on the underlay."""
    said = json.loads(lab.lab.inside(namespace, "ip", "-j", "-4", "addr", "show", "dev", "eth0"))
    return str(said[0]["addr_info"][0]["local"])


def everything_of(*names: str) -> list[Cell]:
    """The cells about some pods."""
    return [cell for cell in policies.CELLS if cell[0] in names or cell[1] in names]


def service(name: str, selector: Obj, port: int, target: int, **spec: object) -> Obj:
    meta = {"name": name, "namespace": "x"}
    ports = [{"port": port, "targetPort": target}]
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": meta,
        "spec": {"selector": selector, "ports": ports, **spec},
    }  # fmt: skip


# --- changes ----------------------------------------------------------------------------------------


def test_row_78_a_policy_that_changes_is_in_force_at_once(lab: PolicyLab) -> None:
    cells = everything_of("x/a")
    with lab.applied([FROM_B]):
        assert lab.differences(cells) == []
        spec = {**FROM_B["spec"], "ingress": [{"from": [{"namespaceSelector": labels(ns="y")}]}]}
        lab.put({**FROM_B, "spec": spec})
        assert lab.differences(cells) == []
        assert lab.predicted([("y/a", "x/a", "TCP", 80), ("x/b", "x/a", "TCP", 80)]) == {
            ("y/a", "x/a", "TCP", 80): True,
            ("x/b", "x/a", "TCP", 80): False,
        }
    lab.settle()
    assert lab.differences(cells) == []


def test_row_78_labels_of_pods_and_of_namespaces_count_as_they_are_now(lab: PolicyLab) -> None:
    by_label = policy(
        "by-label",
        {},
        types=["Ingress"],
        ingress=[{"from": [{"namespaceSelector": labels(team="red"), "podSelector": labels(pod="b")}]}],
    )
    cells = everything_of("x/a")
    with lab.applied([by_label]):
        assert lab.differences(cells) == []
        try:
            lab.api.merge("/api/v1/namespaces/z", {"metadata": {"labels": {"team": "red"}}})
            lab.settle()
            assert lab.predicted([("z/b", "x/a", "TCP", 80)]) == {("z/b", "x/a", "TCP", 80): True}
            assert lab.differences(cells) == []
            lab.api.merge("/api/v1/namespaces/z/pods/c", {"metadata": {"labels": {"pod": "b"}}})
            lab.settle()
            assert lab.predicted([("z/c", "x/a", "TCP", 80)]) == {("z/c", "x/a", "TCP", 80): True}
            assert lab.differences(cells) == []
            lab.api.merge("/api/v1/namespaces/x/pods/a", {"metadata": {"labels": {"pod": "q"}}})
            lab.settle()
            assert lab.differences(cells) == []
        finally:
            lab.api.merge("/api/v1/namespaces/x/pods/a", {"metadata": {"labels": {"pod": "a"}}})
            lab.api.merge("/api/v1/namespaces/z/pods/c", {"metadata": {"labels": {"pod": "c"}}})
            lab.api.merge("/api/v1/namespaces/z", {"metadata": {"labels": {"team": None}}})


def test_row_78_a_new_pod_is_isolated_before_its_first_packet(lab: PolicyLab) -> None:
    """It speaks as soon as it lives, to a pod on its own node and to one on the other; nothing arrives."""
    addresses = lab.addresses()

    def first(frame: Frame) -> bool:
        return frame.kind == "udp" and frame.dport == 7000

    targets = [addresses["y/b"], addresses["x/b"]]
    script = f"""
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    for ip in {targets}:
        s.sendto(b"first", (ip, 7000))
    time.sleep(0.01)
"""
    new = policies.pod("x/new", "n1")
    new["spec"]["containers"] = [{"name": "c", "image": "busybox", "command": ["python3", "-c", script]}]
    with lab.applied([MUTE]):
        with (
            lab.lab.capture("y.b", "eth0", first) as near,
            lab.lab.capture("x.b", "eth0", first) as far,
            lab.lab.capture("n1", "cni0", first) as sent,
        ):
            lab.put(new)
            for target in targets:  # it does speak
                sent.wait_for(lambda frame, target=target: first(frame) and frame.dst == target, 30)  # type: ignore[misc]
            reaches(lab, "y/a", addresses["y/b"], 80, wanted=True)  # and others are heard meanwhile
            assert near.look() == []
            assert far.look() == []
        lab.delete(new)


def test_row_78_a_namespace_that_goes_takes_its_policies_along(lab: PolicyLab) -> None:
    gone: Obj = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "short", "labels": {"ns": "x"}},
    }
    lab.put(gone)
    only = policy("only", {}, types=["Ingress"], ingress=[{"from": [{"namespaceSelector": labels(ns="x")}]}])
    with lab.applied([only]):
        assert lab.differences(everything_of("x/a")) == []
        with lab.applied([policy("deny", {}, namespace="short")]):
            pass
    lab.delete(gone)
    lab.settle()
    for node in ("n1", "n2"):
        assert "nsk8s-policy" not in lab.lab.inside(node, "nft", "list", "tables")


# --- services ---------------------------------------------------------------------------------------


def test_row_79_policies_are_about_the_pod_behind_a_service(lab: PolicyLab) -> None:
    """Service port 8000 leads to 80: a rule about 80 lets it through, not one about 8000 or its address."""
    made = service("shop", labels(pod="b")["matchLabels"], 8000, 80)
    lab.put(made)
    address = lab.api.get("/api/v1/namespaces/x/services/shop")["spec"]["clusterIP"]
    b = [{"podSelector": labels(pod="b")}]
    try:
        for rules, wanted in (
            ([{"to": b, "ports": [{"port": 80}]}], True),
            ([{"to": b, "ports": [{"port": 8000}]}], False),
            ([{"to": [{"ipBlock": {"cidr": f"{address}/32"}}]}], False),
            ([{"to": b}], True),
        ):
            with lab.applied([policy("out", labels(pod="a"), types=["Egress"], egress=rules)]):
                lab.lab.up()  # the endpoints are there
                reaches(lab, "x/a", address, 8000, wanted)
    finally:
        lab.delete(made)


def test_row_82_from_outside_through_a_nodeport(lab: PolicyLab) -> None:
    """x/b is on n2. On n2 its visitor is known by his own address; who comes by n1 has become n1, unless the
    traffic policy is Local, which n1 then does not serve."""
    shown = service("shown", {"pod": "b"}, 8000, 80, type="NodePort")
    lab.put(shown)
    lab.lab.up()
    port = lab.api.get("/api/v1/namespaces/x/services/shown")["spec"]["ports"][0]["nodePort"]
    node = {n: _address(lab, n) for n in ("n1", "n2", "external")}
    tunnel = lab.api.get("/api/v1/nodes/n1")["spec"]["podCIDR"].partition("/")[0]
    try:
        client = policy(
            "client",
            {},
            types=["Ingress"],
            ingress=[{"from": [{"ipBlock": {"cidr": f"{node['external']}/32"}}]}],
        )
        with lab.applied([client]):
            reaches(lab, "external", node["n2"], port, wanted=True)
            reaches(lab, "external", node["n1"], port, wanted=False)
        with lab.applied(
            [
                policy(
                    "by-n1",
                    {},
                    types=["Ingress"],
                    ingress=[{"from": [{"ipBlock": {"cidr": f"{tunnel}/32"}}]}],
                )
            ]
        ):
            reaches(lab, "external", node["n1"], port, wanted=True)
            reaches(lab, "external", node["n2"], port, wanted=False)
        lab.api.merge("/api/v1/namespaces/x/services/shown", {"spec": {"externalTrafficPolicy": "Local"}})
        with lab.applied([client]):
            reaches(lab, "external", node["n2"], port, wanted=True)
        with lab.applied([DENY]):
            reaches(lab, "external", node["n2"], port, wanted=False)
    finally:
        lab.delete(shown)


def test_row_83_a_pod_reaches_its_own_address_but_through_a_service_as_the_policy_says(
    lab: PolicyLab,
) -> None:
    own = service("own", {"pod": "a"}, 8000, 80)
    lab.put(own)
    lab.lab.up()
    address = lab.api.get("/api/v1/namespaces/x/services/own")["spec"]["clusterIP"]
    a = lab.addresses()["x/a"]
    try:
        reaches(lab, "x/a", address, 8000, wanted=True)
        with lab.applied([DENY, MUTE]):
            reaches(lab, "x/a", a, 80, wanted=True)
            reaches(lab, "x/a", address, 8000, wanted=False)
    finally:
        lab.delete(own)


# --- nodes ------------------------------------------------------------------------------------------


def test_row_80_a_node_reaches_its_own_pods_and_probes_succeed_whatever_is_denied(lab: PolicyLab) -> None:
    probe = {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1, "failureThreshold": 1}
    probed = policies.pod("x/probed", "n1")
    probed["spec"]["containers"][0]["readinessProbe"] = probe
    with lab.applied([DENY, MUTE]):
        lab.put(probed)
        lab.lab.up()  # returns when every pod is ready, the probed one too
        addresses = lab.addresses()
        reaches(lab, "n1", addresses["x/probed"], 80, wanted=True)
        reaches(lab, "n1", addresses["x/b"], 80, wanted=False)  # on n2
        reaches(lab, "y/b", addresses["x/probed"], 80, wanted=False)
        lab.delete(probed)


def test_row_86_a_pod_on_its_nodes_network_is_the_node(lab: PolicyLab) -> None:
    """As a client it reaches the node's pods under any policy, others by the address of its tunnel; policies
    that select it do nothing to it."""
    host = policies.pod("x/host", "n1", hostNetwork=True)
    host["spec"]["containers"][0]["ports"] = [{"containerPort": 8088}]
    lab.put(host)
    lab.lab.up()
    addresses, tunnel = lab.addresses(), lab.api.get("/api/v1/nodes/n1")["spec"]["podCIDR"].partition("/")[0]
    try:
        with lab.applied([DENY]):
            reaches(lab, "n1", addresses["x/a"], 80, wanted=True)
            reaches(lab, "n1", addresses["x/b"], 80, wanted=False)
            reaches(lab, "y/a", addresses["x/host"], 8088, wanted=True)
        with lab.applied(
            [
                FROM_B,
                policy(
                    "tunnel",
                    {},
                    types=["Ingress"],
                    ingress=[{"from": [{"ipBlock": {"cidr": f"{tunnel}/32"}}]}],
                ),
            ]
        ):
            reaches(lab, "n1", addresses["x/b"], 80, wanted=True)
        world = lab.world()
        seen = Party("node n1", tunnel, "n1")
        x_b = next(pod_party(p) for p in world.pods if p.metadata.name == "b" and p.metadata.namespace == "x")
        assert decide(world, seen, x_b, "TCP", 80).allowed  # no policy now
    finally:
        lab.delete(host)


# --- on the wire ------------------------------------------------------------------------------------


@contextmanager
def connected(lab: PolicyLab, source: str, address: str, port: int) -> Iterator[socket.socket]:
    """A connection that stays."""
    with namespaces.inside(lab.lab.netns(source.replace("/", ".")), "net"):
        opened = socket.socket()
    opened.settimeout(20)
    with opened:
        opened.connect((address, port))
        yield opened


def asked(opened: socket.socket) -> bytes:
    """What is answered to a request on a connection that is kept."""
    opened.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = b""
    while not answer.rstrip().endswith(b"}"):  # the body, which may come by itself
        piece = opened.recv(65536)
        assert piece, f"the connection ended after {answer!r}"
        answer += piece
    return answer


def test_row_81_replies_pass_and_established_connections_outlive_a_policy(lab: PolicyLab) -> None:
    addresses = lab.addresses()
    with connected(lab, "y/a", addresses["x/a"], 80) as kept:
        assert asked(kept).startswith(b"HTTP/1.1 200")
        with lab.applied([DENY, MUTE]):  # x/a may neither be reached nor speak; its answers pass
            assert asked(kept).startswith(b"HTTP/1.1 200")
            reaches(lab, "y/a", addresses["x/a"], 80, wanted=False)
    only_out = policy("out", labels(pod="a"), types=["Ingress", "Egress"], egress=[{}])
    with lab.applied([only_out]):
        reaches(lab, "x/a", addresses["y/a"], 80, wanted=True)
        reaches(lab, "x/a", addresses["y/a"], 80, wanted=True, protocol="UDP")
        reaches(lab, "y/a", addresses["x/a"], 80, wanted=False)


@pytest.mark.parametrize(("source", "where"), [("x/c", "the bridge"), ("y/a", "two nodes")])
def test_row_84_and_85_what_is_denied_is_dropped_in_silence(lab: PolicyLab, source: str, where: str) -> None:
    """Over the node's bridge and from the other node: SYN after SYN on the client's wire, no answer of any
    kind, nothing on the server's."""
    target = lab.addresses()["x/a"]
    with (
        lab.applied([DENY]),
        lab.lab.capture(
            source.replace("/", "."), "eth0", lambda f: target in (f.src, f.dst) or f.kind == "icmp"
        ) as client,
        lab.lab.capture("x.a", "eth0", lambda f: f.kind in ("tcp", "icmp")) as server,
    ):
        one = Attempt(lab.lab.netns(source.replace("/", ".")), target, 80)
        assert attempt([one], 1.5) == ["timeout"]
        sent = [f for f in client.look() if f.kind != "arp"]
        assert len(sent) >= 2  # the first and one more after a second
        assert {(f.kind, f.flags, f.outgoing) for f in sent} == {("tcp", "S", True)}
        assert server.look() == []


# --- the commands -----------------------------------------------------------------------------------


def test_verdict_and_matrix_tell_what_packets_do(lab: PolicyLab) -> None:
    with lab.applied([FROM_B]):
        said = lab.lab.nsk8s("policy", "verdict", "y/a", "x/a:80/TCP", check=False)
        assert said.returncode == 1
        assert said.stdout.splitlines()[0].startswith("denied: pod y/a (")
        assert "no rule of NetworkPolicy x/from-b allows it" in said.stdout
        said = lab.lab.nsk8s("policy", "verdict", "x/b", "x/a:serve-80-tcp")
        assert said.stdout.splitlines()[0].startswith("allowed: pod x/b (")
        assert "spec.ingress[0].from[0]" in said.stdout
        table = json.loads(
            lab.lab.nsk8s("policy", "matrix", "-A", "--port", "80", "--probe", "-o", "json").stdout
        )
        assert table["reached"] == table["allowed"]
        assert len(table["pods"]) >= 9
        last = lab.lab.nsk8s("policy", "matrix", "-n", "x").stdout.splitlines()[-1]
        assert last == "5 allowed, 4 denied"  # each reaches itself; b reaches a and c
        nobody = lab.lab.nsk8s("policy", "matrix", "--probe")
        assert (nobody.stdout, nobody.stderr) == ("", "No resources found in default namespace.\n")


@pytest.mark.parametrize(
    "words", [("verdict", "y/a", "x/a:65536"), ("matrix", "-A", "--port", "65536", "--probe")]
)
def test_what_is_no_port_is_refused(lab: PolicyLab, words: tuple[str, ...]) -> None:
    said = lab.lab.nsk8s("policy", *words, check=False)
    assert (said.returncode, said.stdout) == (1, "")
    assert "port 65536: must be between 1 and 65535, inclusive" in said.stderr


def test_rules_outlive_the_control_plane_and_come_back_when_somebody_deletes_them(lab: PolicyLab) -> None:
    a = lab.addresses()["x/a"]
    with lab.applied([DENY]):
        before = lab.lab.inside("n1", "nft", "-s", "list", "table", "inet", "nsk8s-policy")
        kill(Processes(lab.lab.name).daemon())
        reaches(lab, "y/b", a, 80, wanted=False)
        lab.lab.up()
        assert lab.lab.inside("n1", "nft", "-s", "list", "table", "inet", "nsk8s-policy") == before
        lab.lab.inside("n1", "nft", "delete", "table", "inet", "nsk8s-policy")
        reaches(lab, "y/b", a, 80, wanted=True)
        lab.lab.up()  # looks, and repairs
        reaches(lab, "y/b", a, 80, wanted=False)
    lab.settle()
    reaches(lab, "y/b", a, 80, wanted=True)
