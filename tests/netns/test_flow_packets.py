"""The flow tables by real packets: what the walker says of the rules is what becomes of connections.

One cluster for each proxy mode holds the services of all tables at once, each under its own addresses:

    n1  near near-too (servers), asks      n2  far far-too (servers)      external, blocked
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

import pytest
import yaml

from tests.conftest import labs
from tests.flows import tables
from tests.flows.moved import manifests, moved
from tests.flows.tables import Flow, Table
from tests.netns.scenario import Obj, Scenario, pod

pytestmark = pytest.mark.netns

MODES = ("iptables", "nftables")
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
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
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
        seen.add(f"{told['ip']}:{told['port']} {told['client']}")
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


def topology(mode: str) -> Obj:
    spec = {
        "nodes": [
            {"name": "n1", "address": "172.18.0.11", "podCIDR": "10.244.1.0/24"},
            {"name": "n2", "address": "172.18.0.12", "podCIDR": "10.244.2.0/24"},
        ],
        "clients": [
            {"name": "external", "address": tables.CLIENT},
            {"name": "blocked", "address": tables.BLOCKED},
        ],
        "proxyMode": mode,
    }
    return {"apiVersion": "nsk8s.dev/v1", "kind": "Cluster", "metadata": {"name": "flows"}, "spec": spec}


@pytest.fixture(scope="module", params=MODES)
def played(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, dict[str, set[str]]]]:
    """What became of every flow of every table, by the names of both."""
    numbered = [moved(table, n) for n, table in enumerate(PLAYED, 1) if request.param in table.modes]
    objects = [obj for table in numbered for obj in manifests(table)]
    pods = [server("near", "n1"), server("near-too", "n1"), pod("asks", "n1", ports=())]
    pods += [server("far", "n2"), server("far-too", "n2")]
    with labs(f"flows-{request.param}", tmp_path_factory.mktemp("flows")) as make:
        lab = Scenario(make(yaml.safe_dump_all([topology(request.param), *pods])))
        real = {address: lab.ip(name) for address, name in PODS.items()}
        lab.apply(*yaml.safe_load_all(renamed(yaml.safe_dump_all(objects), real)))
        for obj in objects:
            if obj.get("status"):
                lab.balance(obj["metadata"]["name"], *obj["status"]["loadBalancer"]["ingress"])
        # The clients' static routes have n1 send them redirects, whose rate limit starves all other ICMP to
        # them, REJECT's too: so is the kernel, but not what the tables are about.
        for device in ("all", "eth0"):
            lab.run("n1", "sysctl", "-q", f"net.ipv4.conf.{device}.send_redirects=0")
        for client in ("external", "blocked"):
            for network in ("10.96.0.0/16", "198.51.0.0/16", "10.244.1.0/24"):
                lab.run(client, "ip", "route", "add", network, "via", tables.NODE)
        yield results(lab, numbered, request.param, {ip: address for address, ip in real.items()})


def renamed(text: str, names: Mapping[str, str]) -> str:
    """`text` with all addresses that have another one replaced at once."""
    return re.sub(r"\b[0-9]+(\.[0-9]+){3}\b", lambda found: names.get(found[0], found[0]), text)


def results(
    lab: Scenario, numbered: list[Table], mode: str, names: Mapping[str, str]
) -> dict[str, dict[str, set[str]]]:
    """Ask everything there is to ask, all from one place at once; `names` says what the tables call a pod's
    address."""
    asked: dict[str, list[tuple[Table, Flow]]] = {}
    for table in numbered:
        for flow in table.flows:
            if flow.source in PLACES:
                asked.setdefault(PLACES[flow.source], []).append((table, flow))
    found: dict[str, dict[str, set[str]]] = {}
    for place, flows in asked.items():
        said = lab.lab.ask(place, ASK, json.dumps([question(flow, mode) for _, flow in flows]))
        for (table, flow), answer in zip(flows, json.loads(renamed(said, names)), strict=True):
            found.setdefault(table.name, {})[flow.what] = outcome(flow, answer)
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
        endpoint, _, client = each.partition(" ")
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
def test_flows(table: Table, played: dict[str, dict[str, set[str]]], request: pytest.FixtureRequest) -> None:
    mode = request.node.callspec.params["played"]
    if mode not in table.modes:
        pytest.skip(f"the table is not about {mode}")
    found = played[table.name]
    asked = [flow for flow in table.flows if flow.source in PLACES]
    assert len(asked) >= len(table.flows) - 1
    wrong = [
        f"{flow.what}: {sorted(found[flow.what])}, not {flow.becomes_in(mode) or 'nothing'}, masq={flow.masq}"
        for flow in asked
        if found[flow.what] not in wanted(flow, mode)
    ]
    assert not wrong
