"""The flow tables by real packets: what the walker says of the rules is what becomes of connections.

One cluster for each proxy mode and family holds the services of all tables at once, each under its own
addresses:

    n1  near near-too (servers), asks      n2  far far-too (servers)      external, blocked
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

import pytest
import yaml

from tests.conftest import labs
from tests.flows import spelled, tables
from tests.flows.moved import manifests, moved
from tests.flows.tables import Flow, Table
from tests.netns.scenario import Obj, Scenario, pod

pytestmark = pytest.mark.netns

CASES = [(mode, family) for family in (4, 6) for mode in ("iptables", "nftables")]
PLAYED = (
    *(tables.CLUSTER_IP, tables.NO_ENDPOINTS, tables.LOAD_BALANCER, tables.HEALTH_CHECK),
    *tables.EXTERNAL_POLICY,
    *(t for t in tables.INTERNAL_POLICY if t.name in ("internal-local-none-here", "internal-local-one-here")),
    *(t for t in tables.ENDING if t.name == "ending-local-here-all-end"),
    *(t for t in tables.MASQUERADE if t.name in ("masquerade-default", "masquerade-localhost-default")),
)
"""One table for each promise; all under the default options, with which nobody but kube-proxy masquerades."""
PLACES = {
    tables.POD: "default.asks",
    tables.NEAR: "default.near",
    tables.NODE: "n1",
    tables.LOCALHOST: "n1",
    tables.CLIENT: "external",
    tables.BLOCKED: "blocked",
}
"""Where packets with these source addresses come from. A load balancer's own address is nobody's here."""
PODS = {
    tables.NEAR: "near",
    tables.NEAR_TOO: "near-too",
    tables.POD: "asks",
    tables.FAR: "far",
    tables.FAR_TOO: "far-too",
}
"""Whose addresses the tables mean; the cluster gives them others."""

ASK = """
import concurrent.futures, http.client, json, socket, sys
SILENCE, DEADLINE, TIMES = 1.0, 30.0, 60

def once(flow):
    wait = SILENCE if flow["silent"] else DEADLINE
    if flow["protocol"] == "udp":
        family = socket.AF_INET6 if ":" in flow["to"] else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.settimeout(wait)
            asking.connect((flow["to"], flow["port"]))
            asking.send(b"hello")
            return {"answer": asking.recv(100).decode()}
    connection = http.client.HTTPConnection(flow["to"], flow["port"], timeout=wait)
    connection.request("GET", "/")
    told = json.loads(connection.getresponse().read())
    connection.close()
    return told

def play(flow):
    seen = set()
    for _ in range(TIMES):
        try:
            told = once(flow)
        except ConnectionRefusedError:
            return ["refused"]
        except OSError as error:
            return ["silence" if isinstance(error, TimeoutError) else error.strerror]
        if "client" not in told:
            return ["answered"]
        seen.add(f"{told['ip']}|:{told['port']}|{told['client']}")
        if len(seen) == flow["wanted"]:
            break
    return sorted(seen)

flows = json.load(sys.stdin)
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    json.dump(list(pool.map(play, flows)), sys.stdout)
"""


def server(name: str, node: str) -> Obj:
    ports = tuple((f"p{n}", n) for n in (8080, 8443, 5353))
    return pod(name, node, ports=ports, udp=5300)


def topology(mode: str, family: int) -> Obj:
    cluster = spelled.topology(family)
    spec = {
        "nodes": [
            {"name": node.name, "address": list(node.addresses), "podCIDR": list(node.pod_cidrs)}
            for node in cluster.nodes
        ],
        "clients": [
            {"name": name, "address": [address, spelled.six(address)][: len(cluster.families)]}
            for name, address in (("external", tables.CLIENT), ("blocked", tables.BLOCKED))
        ],
        "podCIDR": list(cluster.pod_cidrs),
        "serviceCIDR": list(cluster.service_cidrs),
        "nodeCIDR": list(cluster.node_cidrs),
        "proxyMode": mode,
        "dns": {"replicas": 0},
    }
    return {"apiVersion": "nsk8s.dev/v1", "kind": "Cluster", "metadata": {"name": "flows"}, "spec": spec}


Found = dict[str, dict[str, set[str]]]
"""What became of every flow of every table, by the names of both."""


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def played(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, int, Found]]:
    """The proxy mode, the family, and what became of the flows there."""
    mode, family = request.param
    here = [table for table in PLAYED if mode in table.modes and family in table.families]
    numbered = [moved(table, n) for n, table in enumerate(here, 1)]
    objects = [obj for table in numbered for obj in manifests(spelled.spelled(table, family))]
    pods = [server("near", "n1"), server("near-too", "n1"), pod("asks", "n1", ports=())]
    pods += [server("far", "n2"), server("far-too", "n2")]
    with labs(f"flows-{mode}-{family}", tmp_path_factory.mktemp("flows")) as make:
        lab = Scenario(make(yaml.safe_dump_all([topology(mode, family), *pods])))
        real = addresses(lab, family)
        lab.apply(*yaml.safe_load_all(renamed(yaml.safe_dump_all(objects), real)))
        for obj in objects:
            if obj.get("status"):
                lab.balance(obj["metadata"]["name"], *obj["status"]["loadBalancer"]["ingress"])
        # The clients' static routes have n1 send them redirects, whose rate limit starves all other ICMP to
        # them, REJECT's too: so is the kernel, but not what the tables are about.
        lab.run("n1", "sysctl", "-q", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
        networks = ("10.96.0.0/16", "198.51.0.0/16", "10.244.1.0/24")
        if family == 6:
            networks = ("fd00:96::/108", "fd00:51::/32", "fd00:244:1::/64")
        via = tables.NODE if family == 4 else spelled.six(tables.NODE)
        for client in ("external", "blocked"):
            for network in networks:
                lab.run(client, "ip", "route", "add", network, "via", via)
        yield (
            mode,
            family,
            results(lab, numbered, mode, family, {ip: address for address, ip in real.items()}),
        )


def addresses(lab: Scenario, family: int) -> dict[str, str]:
    """What the cluster really gave to those whom the tables know by these addresses."""
    found = {}
    for address, name in PODS.items():
        ips = [each["ip"] for each in lab.get("pod", name)["status"]["podIPs"]]
        found[address] = ips[0]
        if family == 6:
            found[spelled.six(address)] = ips[1]
    return found


def renamed(text: str, names: Mapping[str, str]) -> str:
    """`text` with all addresses that have another one replaced at once."""
    return re.sub(r"[0-9a-f.:]*[0-9a-f]", lambda found: names.get(found[0], found[0]), text)


def results(lab: Scenario, numbered: list[Table], mode: str, family: int, names: Mapping[str, str]) -> Found:
    """Ask everything there is to ask, all from one place at once; `names` says what the tables call a pod's
    address. Servers tell their IPv4 address whoever asks."""
    asked: dict[str, list[tuple[Table, Flow, Flow]]] = {}
    for table in numbered:
        for flow, real in zip(table.flows, spelled.spelled(table, family).flows, strict=True):
            if flow.source in PLACES:
                asked.setdefault(PLACES[flow.source], []).append((table, flow, real))
    found: Found = {}
    for place, flows in asked.items():
        said = lab.lab.ask(place, ASK, json.dumps([question(real, mode) for _, _, real in flows]))
        for (table, flow, real), answer in zip(flows, json.loads(said), strict=True):
            told = ["|".join(renamed(word, names) for word in each.split("|")) for each in answer]
            found.setdefault(table.name, {})[flow.what] = outcome(real, told)
    return found


def question(flow: Flow, mode: str) -> dict[str, object]:
    what = flow.becomes_in(mode)
    return {
        "protocol": flow.protocol,
        "to": flow.to,
        "port": flow.port,
        "wanted": len(what.split()),
        "silent": what in ("", "DROP"),
    }


def outcome(flow: Flow, answer: list[str]) -> set[str]:
    """An answer in the words of `wanted`."""
    found = set()
    for each in answer:
        server, port, client = each.split("|") if "|" in each else (each, "", "")
        endpoint = server + port
        masq = " masq" if client and client != flow.source else ""
        found.add(f"{endpoint}{masq}")
    return found


def wanted(flow: Flow, mode: str) -> list[set[str]]:
    """The ways in which a flow may show that all is well."""
    what = flow.becomes_in(mode)
    if what == "DROP":
        return [{"silence"}]
    if what == "REJECT":
        return [{"refused"}]
    if what == "ACCEPT":
        return [{"answered"}]
    if what == "":
        # Nobody's: where a machine has the address it refuses or answers for itself; else nobody does.
        return [{"silence"}, {"refused"}, {"No route to host"}, {"Network is unreachable"}, {"answered"}]
    if flow.protocol == "udp":
        return [{"answered"}]
    masq = " masq" if flow.masq else ""
    return [{f"{endpoint}{masq}" for endpoint in what.split()}]


@pytest.mark.parametrize("table", PLAYED, ids=lambda table: str(table.name))
def test_flows(table: Table, played: tuple[str, int, Found]) -> None:
    mode, family, everything = played
    if mode not in table.modes or family not in table.families:
        pytest.skip(f"the table is not about {mode} in IPv{family}")
    found = everything[table.name]
    asked = [flow for flow in table.flows if flow.source in PLACES]
    assert len(asked) >= len(table.flows) - 1
    wrong = [
        f"{flow.what}: {sorted(found[flow.what])}, not {flow.becomes_in(mode) or 'nothing'}, masq={flow.masq}"
        for flow in asked
        if found[flow.what] not in wanted(flow, mode)
    ]
    assert not wrong
