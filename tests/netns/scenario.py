"""The standing cluster of the checklist tests: who is in it, and how the tests speak of it.

master  control plane, no pods          w1  a1 a2 client n1          w2  b1 n2          external
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import yaml

from nsk8s.api.families import BITS, NAMES, Family, family, of_family
from nsk8s.api.kinds import RESOURCES
from nsk8s.client import Client
from nsk8s.errors import ClusterGone
from nsk8s.kernel import namespaces
from nsk8s.observe.packets import Frame, Witness
from nsk8s.paths import ClusterPaths
from tests.lab import Lab

Obj = dict[str, Any]

IMAGE = "example/echo:1"
"""No known image: a stand-in answers with JSON of what it saw on its TCP ports, and echoes UDP."""


def pod(
    name: str,
    node: str,
    *,
    labels: dict[str, str] | None = None,
    ports: tuple[tuple[str, int], ...] = (("http", 8080),),
    udp: int = 0,
    command: list[str] | None = None,
    host_network: bool = False,
    host_port: int = 0,
    **container: object,
) -> Obj:
    """A pod on a node of choice."""
    listed: list[Obj] = [{"name": n, "containerPort": p} for n, p in ports]
    if udp:
        listed.append({"name": "udp", "containerPort": udp, "protocol": "UDP"})
    if host_port:
        listed[0]["hostPort"] = host_port
    one: Obj = {"name": "c", "image": IMAGE, "ports": listed, **container}
    if command:
        one["command"] = command
    spec: Obj = {"nodeName": node, "containers": [one], "terminationGracePeriodSeconds": 1}
    if host_network:
        spec["hostNetwork"] = True
    meta: Obj = {"name": name, "labels": labels or {"app": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def service(name: str, selector: dict[str, str] | None, *ports: Obj, **spec: object) -> Obj:
    """A service; `spec` adds to its spec."""
    whole: Obj = {"ports": list(ports), **spec}
    if selector:
        whole["selector"] = selector
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": whole}


def port(number: int, target: int | str, **more: object) -> Obj:
    """A service port."""
    return {"port": number, "targetPort": target, **more}


def by_hand(name: str, addresses: list[str], number: int) -> list[Obj]:
    """A service without a selector, of the family of its endpoints, and these."""
    subsets = [{"addresses": [{"ip": ip} for ip in addresses], "ports": [{"port": number}]}]
    endpoints = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name}, "subsets": subsets}
    return [service(name, None, port(number, number), ipFamilies=[NAMES[family(addresses[0])]]), endpoints]


CLUSTER: Obj = {
    "apiVersion": "nsk8s.dev/v1",
    "kind": "Cluster",
    "metadata": {"name": "scenario"},
    "spec": {
        "nodes": [{"name": "master", "role": "control-plane"}, {"name": "w1"}, {"name": "w2"}],
        "clients": [{"name": "external"}],
    },
}


DUAL_STACK: Obj = {"podCIDR": "10.244.0.0/16,fd00:10:244::/56"}
"""In a cluster's spec: both families, the other networks with their defaults."""


IPTABLES, NFTABLES = ("iptables_lab", "ipv6_lab"), ("nftables_lab", "ipv6_nftables_lab")
"""The standing clusters of a proxy mode, in IPv4 and in IPv6: `parametrize("lab", ..., indirect=True)`."""
EVERY = IPTABLES + NFTABLES


def cluster_in(mode: str, **spec: object) -> Obj:
    """The same cluster in a proxy mode; `spec` adds to its spec."""
    return {**CLUSTER, "spec": {**CLUSTER["spec"], "proxyMode": mode, **spec}}


def dual_stack(objects: list[Obj]) -> list[Obj]:
    """The same objects, services with an address of each family."""
    return [
        {**one, "spec": {**one["spec"], "ipFamilyPolicy": "PreferDualStack"}}
        if one["kind"] == "Service"
        else one
        for one in objects
    ]


WEB, B1 = {"group": "web"}, {"app": "b1"}
OBJECTS: list[Obj] = [
    pod("a1", "w1", labels={"app": "a1", **WEB}, ports=(("http", 8080), ("admin", 8081))),
    pod("a2", "w1", labels={"app": "a2", **WEB}),
    pod("b1", "w2", labels={"app": "b1", **WEB}, ports=(("http", 8080), ("admin", 8081)), udp=9090),
    pod("n1", "w1", labels={"group": "named"}, ports=(("web", 8001),)),
    pod("n2", "w2", labels={"group": "named"}, ports=(("web", 8002),)),
    pod("client", "w1", ports=()),
    service("web", WEB, port(80, "http")),
    service("web-np", WEB, port(80, "http"), type="NodePort"),
    service("only-b1", B1, port(80, 8080)),
    service("only-b1-np", B1, port(80, 8080), type="NodePort"),
    service("only-b1-local", B1, port(80, 8080), type="NodePort", externalTrafficPolicy="Local"),
    service("only-b1-itp", B1, port(80, 8080), internalTrafficPolicy="Local"),
    service("by-external-ip", B1, port(80, 8080), externalIPs=["203.0.113.10", "2001:db8::10"]),
    service("nobody", {"app": "nobody"}, port(80, 80, name="tcp"), port(53, 53, name="udp", protocol="UDP")),
    service("by-name", {"group": "named"}, port(80, "web")),
    service("multi", B1, port(80, "http", name="http"), port(8443, "admin", name="admin")),
    service("both", B1, port(5000, 8080, name="tcp"), port(5000, 9090, name="udp", protocol="UDP")),
    service("sticky", WEB, port(80, "http"), sessionAffinity="ClientIP"),
    service(
        "sticky-short",
        WEB,
        port(80, "http"),
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 1}},
    ),
]

FETCH = """
import http.client, json, sys
ip, port, count, field = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
for _ in range(count):
    connection = http.client.HTTPConnection(ip, port, timeout=5)
    connection.request("GET", "/")
    print(json.loads(connection.getresponse().read())[field])
    connection.close()
"""


class Scenario:
    """The cluster under test. Namespaces are named as on the wire: ``w1``, ``default.a1``, ``external``. All
    addresses are those of one `family`."""

    def __init__(self, lab: Lab, mode: str = "iptables", family: Family = 4) -> None:
        self.lab = lab
        self.mode = mode
        self.family = family

    # --- asking -------------------------------------------------------------------------------------

    def get(self, kind: str, name: str) -> Obj:
        """One object of namespace default or of none, asked for over the socket; where nobody listens there,
        by a command, which brings the control plane back."""
        (resource,) = (each for each in RESOURCES if each.kind.lower() == kind and not each.group)
        where = "namespaces/default/" if resource.namespaced else ""
        client = Client(ClusterPaths(self.lab.name))
        try:
            return client.get(f"/api/v1/{where}{resource.plural}/{name}")
        except ClusterGone:
            found: Obj = json.loads(self.lab.nsk8s("get", kind, name, "-o", "json").stdout)
            return found
        finally:
            client.close()

    def ip(self, name: str) -> str:
        """A pod's address."""
        return of_family([each["ip"] for each in self.get("pod", name)["status"]["podIPs"]], self.family)

    def node_ip(self, name: str) -> str:
        """The address of a node or client on the underlay."""
        shown = self.out(name, "ip", f"-{self.family}", "addr", "show", "dev", "eth0", "scope", "global")
        found = re.search(r"inet6? (\S+)/", shown)
        assert found
        return found[1]

    def second_ip(self) -> tuple[str, list[str]]:
        """One more address for a node, and the words that give it to ``eth0`` after ``ip address add``."""
        if self.family == 6:
            return "fc00:f853:ccd:e793::200", ["fc00:f853:ccd:e793::200/64", "nodad", "dev", "eth0"]
        return "172.18.0.200", ["172.18.0.200/24", "dev", "eth0"]

    def pod_cidr(self, node: str) -> str:
        """A node's pod network."""
        return of_family(self.get("node", node)["spec"]["podCIDRs"], self.family)

    def bridge(self, node: str) -> str:
        """The address of a node's cni0: the first of its pod network."""
        return str(ip_network(self.pod_cidr(node))[1])

    def vtep(self, node: str) -> str:
        """The address of a node's tunnel: the network's own."""
        return str(ip_network(self.pod_cidr(node))[0])

    @property
    def tunnel(self) -> str:
        """The name of the tunnels."""
        return "flannel-v6.1" if self.family == 6 else "flannel.1"

    @property
    def iptables(self) -> str:
        """The program of the family; with ``-save`` that of saving."""
        return "ip6tables" if self.family == 6 else "iptables"

    @property
    def bits(self) -> int:
        """The length of an address."""
        return BITS[self.family]

    def mac(self, namespace: str, device: str) -> str:
        """A device's MAC."""
        return str(json.loads(self.out(namespace, "ip", "-j", "link", "show", "dev", device))[0]["address"])

    def port_of(self, name: str) -> str:
        """The bridge port that a pod hangs on."""
        node = self.get("pod", name)["spec"]["nodeName"]
        index = json.loads(self.out(f"default.{name}", "ip", "-j", "link", "show", "dev", "eth0"))[0][
            "link_index"
        ]
        links = json.loads(self.out(node, "ip", "-j", "link", "show", "type", "veth"))
        return next(str(link["ifname"]) for link in links if link["ifindex"] == index)

    def cluster_ip(self, name: str) -> str:
        """A service's ClusterIP."""
        return of_family(self.get("service", name)["spec"]["clusterIPs"], self.family)

    def node_port(self, name: str) -> int:
        """A service's first nodePort."""
        return int(self.get("service", name)["spec"]["ports"][0]["nodePort"])

    # --- doing --------------------------------------------------------------------------------------

    def apply(self, *objects: Obj) -> None:
        """``nsk8s apply``."""
        self.lab.nsk8s("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def balance(self, service: str, *ingress: Obj) -> None:
        """What a cloud's controller does: write a load balancer's addresses into the service's status."""
        path = f"/api/v1/namespaces/default/services/{service}/status"
        body = {"status": {"loadBalancer": {"ingress": ingress}}}
        client = Client(ClusterPaths(self.lab.name))
        try:
            client.request("PATCH", path, body, content_type="application/merge-patch+json")
        finally:
            client.close()

    def delete(self, kind: str, name: str, *words: str) -> None:
        """``nsk8s delete``, and wait until it is gone."""
        self.lab.nsk8s("delete", kind, name, *words)

    def ready_ip(self, name: str) -> str:
        """Wait until a pod is ready; its address."""

        def ready() -> bool:
            conditions = self.get("pod", name).get("status", {}).get("conditions", ())
            return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

        self.until(ready, f"pod {name} is ready")
        return self.ip(name)

    def run(
        self, namespace: str, *argv: str, check: bool = True, timeout: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the host in a namespace, as ``ip netns exec`` does."""
        words = ["ip", "netns", "exec", f"{self.lab.name}.{namespace}", *argv]
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout)
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done

    def out(self, namespace: str, *argv: str) -> str:
        """What a program prints in a namespace."""
        return self.run(namespace, *argv).stdout

    def until(self, condition: Callable[[], bool], what: str, deadline: float = 15) -> None:
        """Wait until `condition` holds."""
        end = time.monotonic() + deadline
        while not condition():
            assert time.monotonic() < end, f"not within {deadline:g} s: {what}{self.lab.log()}"

    # --- traffic ------------------------------------------------------------------------------------

    def http(self, namespace: str, ip: str, number: int) -> str:
        """The body that a GET from `namespace` gets."""
        return self.out(namespace, "curl", "-sS", "-f", "--max-time", "5", url(ip, number))

    def ask(self, namespace: str, ip: str, number: int) -> Obj:
        """What a stand-in answers to a GET from `namespace`, without a program that would have to start."""
        with namespaces.inside(self.lab.netns(namespace), "net"):
            opened = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
        with opened as client, client.makefile("rb") as heard:
            client.settimeout(5)
            client.connect((ip, number))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            told: Obj = json.loads(heard.read().partition(b"\r\n\r\n")[2])
            return told

    def http_fails(self, namespace: str, ip: str, number: int) -> str:
        """How a GET fails: ``refused``, ``timeout``, or "" if it does not. Over IPv6 an ICMP error that comes
        while connect(2) is still under way counts only when the SYN is sent again, after a second."""
        words = ["curl", "-sS", "-o", "/dev/null", "--max-time", "2" if ":" in ip else "1", url(ip, number)]
        done = self.run(namespace, *words, check=False)
        known = {0: "", 7: "refused", 28: "timeout"}
        return known.get(done.returncode, f"curl exit {done.returncode}: {done.stderr}")

    def many_http(self, namespace: str, ip: str, number: int, count: int, *, field: str) -> list[str]:
        """One field of the answers to `count` GETs, each over its own connection."""
        return self.run(
            namespace, "python3", "-c", FETCH, ip, str(number), str(count), field, timeout=120
        ).stdout.split()

    def socket(self, namespace: str, kind: socket.SocketKind) -> socket.socket:
        """A socket of a namespace; it stays there."""
        with namespaces.inside(self.lab.netns(namespace), "net"):
            return socket.socket(socket.AF_INET6 if self.family == 6 else socket.AF_INET, kind)

    def udp(self, namespace: str, ip: str, number: int, text: str) -> str:
        """What a UDP server answers to `text`."""
        with self.socket(namespace, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.connect((ip, number))
            client.send(text.encode())
            return client.recv(65536).decode()

    def udp_fails(self, namespace: str, ip: str, number: int) -> str:
        """How a datagram fails: ``refused``, ``timeout``, or "" if it is answered."""
        try:
            self.udp(namespace, ip, number, "hello")
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "timeout"
        return ""

    def capture(self, namespace: str, device: str) -> Witness:
        """The packets on a device from now on; a context manager."""
        return self.lab.capture(namespace, device)


def url(ip: str, number: int, scheme: str = "http") -> str:
    """Where an HTTP server is."""
    return f"{scheme}://[{ip}]:{number}/" if ":" in ip else f"{scheme}://{ip}:{number}/"


def refusal(frame: Frame) -> bool:
    """Whether a frame says no: a reset, or an ICMP error."""
    return "R" in frame.flags or "unreach" in frame.summary.lower()


def seen(witness: Witness, predicate: Callable[[Frame], object]) -> bool:
    """Whether a frame like that has passed by now."""
    return any(predicate(frame) for frame in witness.look())
