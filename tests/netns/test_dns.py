"""Cluster DNS by real dig and by packets: checklist rows 66 to 72, and what of 42 and 99 is about names."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.message
import dns.rcode
import pytest
import yaml

from nsk8s.observe.packets import Frame
from nsk8s.paths import ClusterPaths
from tests.conftest import MakeLab
from tests.lab import Lab
from tests.netns.podlab import Api, Obj, Pods, container, pod, ready, service
from tests.netns.processes_of import Processes, kill

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(shutil.which("dig") is None, reason="needs dig: scripts/install --dev"),
]

DNS = "10.96.0.10"
ZONE = "default.svc.cluster.local"
OUTSIDE = "172.18.0.5"
"""The client's address, behind three nodes."""
CLUSTER: Obj = {
    "apiVersion": "nsk8s.dev/v1",
    "kind": "Cluster",
    "metadata": {"name": "dns"},
    "spec": {
        "nodes": [{"name": "master", "role": "control-plane"}, {"name": "w1"}, {"name": "w2"}],
        "clients": [{"name": "external"}],
        "dns": {"upstreams": [OUTSIDE]},
    },
}
SLEEPER = container("c", "sleep", "86400")
HEADLESS: Obj = {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"name": "sql", "port": 5432}]}
PORTS = [{"name": "sql", "containerPort": 5432}]


def named(name: str, **spec: object) -> Obj:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def many(count: int) -> Obj:
    """A slice that somebody wrote by hand."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "many-1", "labels": {"kubernetes.io/service-name": "many"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [f"10.9.{n >> 8}.{n & 255}"]} for n in range(1, count + 1)],
        "ports": [{"name": "x", "port": 1}],
    }


OBJECTS: list[Obj] = [
    pod("client", SLEEPER, nodeName="w1"),
    pod("web", {"name": "c", "image": "jwilder/whoami", "ports": [{"name": "http", "containerPort": 8000}]}),
    named("web", selector={"app": "web"}, ports=[{"name": "http", "port": 80, "targetPort": "http"}]),
    {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db"},
        "spec": {
            "replicas": 3,
            "serviceName": "db",
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "c", "image": "example/db", "ports": PORTS}],
                },
            },
        },
    },
    named("db", **HEADLESS),
    named("inside", type="ExternalName", externalName=f"web.{ZONE}"),
    named("outside", type="ExternalName", externalName="host.example.com"),
    named("many", clusterIP="None", ports=[{"name": "x", "port": 1}]),
    many(90),
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
    pod("default", SLEEPER, dnsPolicy="Default"),
    pod(
        "own",
        SLEEPER,
        dnsPolicy="None",
        dnsConfig={
            "nameservers": ["192.0.2.1"],
            "searches": ["a.b"],
            "options": [{"name": "ndots", "value": "2"}],
        },
    ),
    pod(
        "more",
        SLEEPER,
        dnsConfig={"nameservers": ["192.0.2.1"], "searches": ["a.b"], "options": [{"name": "edns0"}]},
    ),
    pod("node", SLEEPER, hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet"),
    pod("nodes-own", SLEEPER, hostNetwork=True),
]


@pytest.fixture(scope="module")
def lab(shared_cluster: MakeLab) -> Lab:
    return shared_cluster(yaml.safe_dump_all([CLUSTER, *OBJECTS]))


@pytest.fixture(scope="module")
def pods(lab: Lab) -> Pods:
    return Pods(lab)


@pytest.fixture
def upstream(lab: Lab) -> Iterator[None]:
    """A DNS server outside the cluster, that knows example.com."""
    root = Path(__file__).parents[2]
    argv = ["nsenter", f"--net={lab.netns('external')}", sys.executable, "-m", "tests.netns.upstream"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=root) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline() == "ready\n"
            yield
        finally:
            server.kill()


def dig(lab: Lab, *words: str, where: str = "default.client") -> str:
    """What dig prints, in some namespace, of the cluster's DNS."""
    return lab.inside(where, "dig", f"@{DNS}", "+time=5", "+tries=2", *words)


def short(lab: Lab, *words: str) -> list[str]:
    """The data of the answer section."""
    return dig(lab, "+short", *words).split("\n")[:-1]


def status(text: str) -> str:
    found = re.search(r"status: (\w+)", text)
    assert found, text
    return found[1]


def flags(text: str) -> list[str]:
    found = re.search(r";; flags: ([a-z ]+);", text)
    assert found, text
    return found[1].split()


def address(pods: Pods, name: str) -> str:
    return pods.ip(name)


def names_asked(frames: list[Frame]) -> list[str]:
    """Name and type of the questions among some packets, in order."""
    asked = []
    for frame in frames:
        question = dns.message.from_wire(frame.payload).question[0]
        asked.append(f"{question.name} {dns.rdatatype.to_text(question.rdtype)}")
    return asked


def until(holds: Callable[[], object], what: str, lab: Lab, deadline: float = 20) -> None:
    end = time.monotonic() + deadline
    while not holds():
        assert time.monotonic() < end, f"not within {deadline:g} s: {what}{lab.log()}"
        time.sleep(0.02)  # nothing announces it


# --- records ------------------------------------------------------------------------------------------


def test_row_66_a_service_has_its_address_for_30_seconds(lab: Lab, pods: Pods) -> None:
    ip = pods.client.get("/api/v1/namespaces/default/services/web")["spec"]["clusterIP"]
    text = dig(lab, "+noall", "+answer", f"Web.{ZONE}")
    assert text.split() == [f"Web.{ZONE}.", "30", "IN", "A", ip], "the letters as they were asked"
    whole = dig(lab, f"web.{ZONE}")
    assert (status(whole), flags(whole)) == ("NOERROR", ["qr", "aa", "rd"])
    assert "recursion requested but not available" in whole
    none = dig(lab, f"web.{ZONE}", "AAAA")
    assert (status(none), "ANSWER: 0" in none) == ("NOERROR", True)
    assert re.search(
        r"^cluster\.local\.\s+30\s+IN\s+SOA\s+ns\.dns\.cluster\.local\. hostmaster\.", none, re.M
    )


def test_row_67_a_headless_service_has_its_pods_in_any_order(lab: Lab, pods: Pods) -> None:
    wanted = {f"db-{n}": pods.until_ready(f"db-{n}")["status"]["podIP"] for n in range(3)}
    until(lambda: sorted(short(lab, f"db.{ZONE}")) == sorted(wanted.values()), "three addresses", lab)
    orders = {tuple(short(lab, f"db.{ZONE}")) for _ in range(20)}
    assert len(orders) > 1, "the order changes"
    for name, ip in wanted.items():
        assert short(lab, f"{name}.db.{ZONE}") == [ip]
        assert short(lab, "-x", ip) == [f"{name}.db.{ZONE}."]


def test_row_67_and_99_a_name_follows_its_pod(lab: Lab, pods: Pods) -> None:
    before = pods.until_ready("db-1")
    pods.delete("db-1")
    after = pods.until(
        "db-1", lambda p: p["metadata"]["uid"] != before["metadata"]["uid"] and ready(p), "anew"
    )
    ip = after["status"]["podIP"]
    until(lambda: short(lab, f"db-1.db.{ZONE}") == [ip], "the new address", lab)
    assert ip in short(lab, f"db.{ZONE}")


def test_row_42_and_67_who_is_not_ready_has_a_name_only_where_that_is_published(lab: Lab, pods: Pods) -> None:
    never = {"exec": {"command": ["false"]}, "periodSeconds": 1}
    pods.apply(
        pod("shy", {**SLEEPER, "readinessProbe": never}, hostname="shy", subdomain="early"),
        named(
            "early",
            clusterIP="None",
            selector={"app": "shy"},
            publishNotReadyAddresses=True,
            ports=[{"port": 1}],
        ),
        named("late", clusterIP="None", selector={"app": "shy"}, ports=[{"port": 1}]),
    )
    ip = pods.until("shy", lambda p: p["status"].get("podIP"), "an address")["status"]["podIP"]
    until(lambda: short(lab, f"early.{ZONE}") == [ip], "published", lab)
    assert short(lab, f"shy.early.{ZONE}") == [ip]
    assert status(dig(lab, f"late.{ZONE}")) == "NXDOMAIN"
    pods.delete("shy")  # `up` would wait for it


def test_row_68_srv_ptr_external_names_and_pods(lab: Lab, pods: Pods, upstream: None) -> None:
    ip = pods.client.get("/api/v1/namespaces/default/services/web")["spec"]["clusterIP"]
    service = dig(lab, f"_http._tcp.web.{ZONE}", "SRV")
    assert re.search(rf"^_http\._tcp\.web\.{ZONE}\. 30 IN\s+SRV\s+0 100 80 web\.{ZONE}\.$", service, re.M)
    assert re.search(rf"ADDITIONAL SECTION:\n(;.*\n)*web\.{ZONE}\. 30\s+IN\s+A\s+{ip}$", service, re.M)
    assert len(short(lab, f"_sql._tcp.db.{ZONE}", "SRV")) == 3
    assert short(lab, "-x", ip) == [f"web.{ZONE}."]
    assert short(lab, f"inside.{ZONE}") == [f"web.{ZONE}.", ip]
    assert short(lab, f"outside.{ZONE}", "CNAME") == ["host.example.com."]
    assert short(lab, f"outside.{ZONE}") == ["host.example.com.", "192.0.2.7"]
    assert short(lab, "10-244-1-2.default.pod.cluster.local") == ["10.244.1.2"]
    assert short(lab, "dns-version.cluster.local", "TXT") == ['"1.1.0"']


# --- how pods ask -------------------------------------------------------------------------------------


def test_row_69_the_search_list_and_ndots_show_in_the_number_of_questions(
    lab: Lab, pods: Pods, upstream: None
) -> None:
    def questions(*words: str) -> list[str]:
        def asks(frame: Frame) -> bool:
            return frame.kind == "udp" and frame.dport == 53 and frame.outgoing

        with lab.capture("default.client", "eth0", asks) as wire:
            pods.run("client", "getent", "ahostsv4", *words)
            return names_asked(wire.look())

    assert questions("web") == [f"web.{ZONE}. A"]
    assert questions("kube-dns.kube-system") == [
        f"kube-dns.kube-system.{ZONE}. A",
        "kube-dns.kube-system.svc.cluster.local. A",
    ]
    search = (ZONE, "svc.cluster.local", "cluster.local")
    outside = [f"host.example.com.{domain}. A" for domain in search]
    assert questions("host.example.com") == [*outside, "host.example.com. A"], "fewer than five dots"
    assert questions("host.example.com.") == ["host.example.com. A"], "absolute"
    assert "I'm web" in pods.sh("client", f"curl -sS http://web.{ZONE}/")
    assert "I'm web" in pods.run("client", "curl", "-sS", "http://web/")


def test_row_70_resolv_conf_says_what_the_policy_and_the_config_say(pods: Pods) -> None:
    first = f"search {ZONE} svc.cluster.local cluster.local"

    def lines(name: str) -> list[str]:
        return pods.run(name, "cat", "/etc/resolv.conf").splitlines()

    assert lines("client") == lines("node") == [first, f"nameserver {DNS}", "options ndots:5"]
    assert (
        lines("default")
        == lines("nodes-own")
        == ["# dnsPolicy Default: the nodes have no resolver of their own"]
    )
    assert lines("own") == ["search a.b", "nameserver 192.0.2.1", "options ndots:2"]
    assert lines("more") == [
        f"{first} a.b",
        f"nameserver {DNS}",
        "nameserver 192.0.2.1",
        "options ndots:5 edns0",
    ]
    assert pods.run("node", "getent", "ahostsv4", "web").split()[2] == f"web.{ZONE}"


def test_row_71_a_question_goes_through_the_service_to_a_dns_pod(lab: Lab) -> None:
    servers = {
        p["status"]["podIP"]: n for n, p in lab.pods("-n", "kube-system", "-l", "k8s-app=kube-dns").items()
    }
    assert len(servers) == 2

    def dns_only(frame: Frame) -> bool:
        return frame.kind == "udp" and 53 in (frame.sport, frame.dport)

    with (
        lab.capture("default.client", "eth0", dns_only) as client,
        lab.capture("w1", "cni0", dns_only) as node,
    ):
        assert short(lab, f"web.{ZONE}")
        asked, answered = client.wait_for(lambda f: f.outgoing), client.wait_for(lambda f: f.sport == 53)
        assert (asked.dst, answered.src) == (DNS, DNS)
        assert node.wait_for(lambda f: f.sport == 53).src == DNS, "translated back before the pod sees it"
    chains = lab.inside("w1", "iptables-save", "-t", "nat")
    for ip in servers:
        assert f'--comment "kube-system/kube-dns:dns" -m udp -j DNAT --to-destination {ip}:53' in chains
    seen: set[str] = set()
    for ip, name in servers.items():
        with lab.capture(f"kube-system.{name}", "eth0", dns_only) as server:
            until(
                lambda server=server: short(lab, f"web.{ZONE}") and server.look(),  # type: ignore[misc]
                f"a question arrives at {name}",
                lab,
            )
            seen |= {frame.dst for frame in server.look() if frame.dport == 53}
            assert ip in seen
    assert seen == set(servers)


def test_row_71_who_drops_packets_to_the_dns_pods_has_no_names(lab: Lab) -> None:
    rule = ["FORWARD", "-p", "udp", "--dport", "53", "-j", "DROP"]
    lab.inside("w1", "iptables", "-I", *rule)
    try:
        done = subprocess.run(
            [
                "nsenter",
                f"--net={lab.netns('default.client')}",
                "dig",
                f"@{DNS}",
                "+time=1",
                "+tries=1",
                f"web.{ZONE}",
            ],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert "timed out" in done.stdout
    finally:
        lab.inside("w1", "iptables", "-D", *rule)


# --- beyond the zone ----------------------------------------------------------------------------------


def test_row_72_other_names_are_asked_of_the_upstream_from_the_dns_pod(lab: Lab, upstream: None) -> None:
    with lab.capture("external", "eth0", lambda f: f.dport == 53) as wire:
        assert short(lab, "host.example.com") == ["192.0.2.7"]
        asked = wire.wait_for(lambda f: f.kind == "udp")
        assert names_asked([asked]) == ["host.example.com. A"]
        assert asked.src == "172.18.0.2", "masqueraded by the node of the DNS pods"
    assert status(dig(lab, "none.example.com")) == "NXDOMAIN"
    assert status(dig(lab, "host.example.com", "AAAA")) == "NOERROR"
    assert short(lab, "-x", "192.0.2.7") == ["host.example.com."]


def test_row_72_what_is_too_big_for_udp_comes_by_tcp(lab: Lab, upstream: None) -> None:
    cut = dig(lab, "+ignore", "big.example.com", "TXT")
    assert "tc" in flags(cut)
    with lab.capture("external", "eth0", lambda f: f.dport == 53 and "S" in f.flags) as wire:
        assert len(short(lab, "big.example.com", "TXT")) == 20, "dig asks again by TCP, and so do we"
        wire.wait_for(lambda f: f.kind == "tcp")
    own = dig(lab, "+ignore", "+noedns", f"many.{ZONE}")
    assert "tc" in flags(own)
    assert len(short(lab, "+ignore", "+noedns", f"many.{ZONE}")) < 90
    assert len(short(lab, f"many.{ZONE}")) == len(short(lab, "+tcp", f"many.{ZONE}")) == 90


def test_row_72_no_such_name_is_told_from_no_such_record(lab: Lab) -> None:
    for name, kind, wanted in (
        (f"none.{ZONE}", "A", "NXDOMAIN"),
        ("web.nowhere.svc.cluster.local", "A", "NXDOMAIN"),
        (f"web.{ZONE}", "MX", "NOERROR"),
        ("shop.svc.cluster.local", "A", "NOERROR"),
    ):
        text = dig(lab, name, kind)
        assert (status(text), "ANSWER: 0" in text) == (wanted, True), text
        assert "\tSOA\t" in text


def test_row_72_an_upstream_that_is_silent_is_a_failure_and_without_any_it_is_refused(
    lab: Lab, pods: Pods
) -> None:
    assert status(dig(lab, "host.example.com")) == "SERVFAIL", "its port is closed"
    path = "/api/v1/namespaces/kube-system/configmaps/coredns"
    before = pods.client.get(path)["data"]["Corefile"]
    try:
        pods.client.merge(path, {"data": {"Corefile": before.replace("forward", "# forward")}})
        until(lambda: status(dig(lab, "host.example.com")) == "REFUSED", "nobody to ask", lab)
        with lab.capture("master", "eth0", lambda f: 53 in (f.sport, f.dport)) as wire:
            assert status(lab.inside("master", "dig", f"@{DNS}", "host.example.com")) == "REFUSED"
            assert not wire.look(), "nothing leaves the node of the DNS pods"
    finally:
        pods.client.merge(path, {"data": {"Corefile": before}})


# --- what happens to it -------------------------------------------------------------------------------


def test_names_follow_their_services_and_outlive_the_control_plane(lab: Lab, pods: Pods) -> None:
    pods.apply(service("new", {"app": "web"}, 80, "http"))
    until(lambda: short(lab, f"new.{ZONE}"), "a new service", lab)
    kill(Processes(lab.name).daemon())
    assert short(lab, f"new.{ZONE}"), "answers while nobody is in control"
    pods.lab.nsk8s("delete", "service", "new")  # which brings the control plane back
    until(lambda: status(dig(lab, f"new.{ZONE}")) == "NXDOMAIN", "gone again", lab)


def test_a_dns_pod_that_goes_comes_back_and_scaling_is_the_users(lab: Lab, pods: Pods) -> None:
    system = ("-n", "kube-system", "-l", "k8s-app=kube-dns")
    gone = sorted(lab.pods(*system))[0]
    lab.nsk8s("delete", "pod", "-n", "kube-system", gone, "--now")
    until(lambda: sum(map(ready, lab.pods(*system).values())) == 2, "two again", lab)
    lab.nsk8s("scale", "-n", "kube-system", "deployment", "coredns", "--replicas=1")
    until(lambda: len(lab.pods(*system)) == 1, "one", lab)
    lab.up()
    assert len(lab.pods(*system)) == 1, "what the user has scaled stays so"
    until(lambda: short(lab, f"web.{ZONE}"), "answers", lab)


def test_without_replicas_there_is_nothing_and_with_them_again_all(lab: Lab) -> None:
    api = Api(ClusterPaths(lab.name))
    whole = lab.topology.read_text()
    try:
        lab.topology.write_text(
            whole.replace("dns:\n    upstreams:", "dns:\n    replicas: 0\n    upstreams:")
        )
        lab.up()
        assert "kube-dns" not in lab.nsk8s("get", "services", "-A").stdout
        assert not lab.pods("-n", "kube-system", "-l", "k8s-app=kube-dns")
    finally:
        lab.topology.write_text(whole)
        lab.up()
    assert api.get("/api/v1/namespaces/kube-system/services/kube-dns")["spec"]["clusterIP"] == DNS
    until(lambda: short(lab, f"web.{ZONE}"), "answers", lab)


# --- other modes and families -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "pod_cidr", "server"),
    [
        ("nftables", "10.244.0.0/16,fd00:10:244::/56", DNS),
        ("iptables", "fd00:10:244::/56", "fd00:10:96::a"),
        ("nftables", "fd00:10:244::/56", "fd00:10:96::a"),
    ],
)
def test_row_66_and_68_and_71_on_other_modes_and_families(
    cluster: MakeLab, mode: str, pod_cidr: str, server: str
) -> None:
    spec = {"nodes": [{"name": "n1"}, {"name": "n2"}], "podCIDR": pod_cidr, "proxyMode": mode}
    both = {"ipFamilyPolicy": "PreferDualStack", "selector": {"app": "web"}}
    lab = cluster(
        yaml.safe_dump_all(
            [
                {**CLUSTER, "spec": spec},
                pod("client", SLEEPER, nodeName="n2"),
                pod("web", {"name": "c", "image": "jwilder/whoami"}, nodeName="n1"),
                named("web", **both, ports=[{"name": "http", "port": 8000}]),
                named("bare", **both, clusterIP="None", ports=[{"name": "http", "port": 8000}]),
            ]
        )
    )
    api = Api(ClusterPaths(lab.name))
    web = api.get("/api/v1/namespaces/default/services/web")["spec"]["clusterIPs"]
    own = [ip["ip"] for ip in api.get("/api/v1/namespaces/default/pods/web")["status"]["podIPs"]]
    assert len(web) == len(own) == len(pod_cidr.split(","))
    assert f"nameserver {server}\n" in lab.run("client", "cat", "/etc/resolv.conf").stdout

    def ask(*words: str) -> list[str]:
        argv = ("dig", f"@{server}", "+short", "+time=5", "+tries=2", *words)
        return lab.inside("default.client", *argv).split()

    for name, addresses in ((f"web.{ZONE}", web), (f"bare.{ZONE}", own)):
        until(lambda name=name: ask(name, "AAAA"), f"{name} has an address", lab)  # type: ignore[misc]
        for address in addresses:
            assert ask(name, "AAAA" if ":" in address else "A") == [address]
            assert ask("+tcp", name, "AAAA" if ":" in address else "A") == [address]
    for address in web:
        assert ask("-x", address) == [f"web.{ZONE}."]
    assert "I'm web" in lab.run("client", "curl", "-sS", "http://web:8000/").stdout
