"""What somebody breaks in the kernel comes back by itself, and what somebody has added stays.

Nodes, clients and the fabric are looked at every 5 seconds, everything else every 30; `up` looks at once.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from nsk8s.kernel import forked
from nsk8s.observe.packets import Frame
from nsk8s.workloads import standins
from tests.conftest import MakeLab
from tests.lab import Lab
from tests.netns.processes_of import Processes, kill, stopped
from tests.netns.standing import CLUSTER, OBJECTS, SLEEP, containers, stream, until
from tests.netns.traffic import Traffic

pytestmark = pytest.mark.netns

NODES = 5.0
EVERYTHING = 30.0
"""Seconds from one look to the next, as nsk8s.daemon.server has them."""
SLACK = 5.0
"""What a look and its repair may take on a busy machine."""


@pytest.fixture(scope="module")
def lab(shared_cluster: MakeLab) -> Lab:
    return shared_cluster(stream(CLUSTER, *OBJECTS))


def whole(lab: Lab) -> dict[str, str]:
    """All that the kernel holds of the cluster's network, in words that do not depend on how often it was
    made: links, addresses, routes, neighbours, FDB and rules of every namespace."""
    found = {}
    for name in Processes(lab.name).sandboxes():
        text = [
            lab.inside(name, "ip", "-4", "-o", "addr"),
            *sorted(_link(link) for link in json.loads(lab.inside(name, "ip", "-j", "link"))),
            lab.inside(name, "ip", "-4", "route"),
            _sorted(lab.inside(name, "ip", "-4", "neigh", "show", "nud", "permanent")),
            _sorted(lab.inside(name, "bridge", "fdb", "show"), having=" dst "),
            re.sub(r"\[\d+:\d+\]|#.*", "", lab.inside(name, "iptables-save")),
        ]
        found[name] = re.sub(r"@\S+|^\d+: ", "", "\n".join(text), flags=re.MULTILINE)
    return found


def _link(link: dict[str, Any]) -> str:
    return " ".join(str(link.get(key)) for key in ("ifname", "address", "mtu", "master")) + (
        " up" if "UP" in link["flags"] else " down"
    )


def _sorted(text: str, having: str = "") -> str:
    return "\n".join(sorted(line for line in text.splitlines() if having in line))


@functools.cache  # nobody may be asked while the control plane is stopped
def pod_on(lab: Lab, node: str) -> str:
    """The namespace of a pod of the web service on `node`."""
    return next(
        f"default.{name}"
        for name, obj in lab.pods().items()
        if name.startswith("web-") and obj["spec"]["nodeName"] == node
    )


def port_of(lab: Lab, namespace: str, node: str) -> str:
    """The bridge port of a pod."""
    index = json.loads(lab.inside(namespace, "ip", "-j", "link", "show", "dev", "eth0"))[0]["link_index"]
    links = json.loads(lab.inside(node, "ip", "-j", "link", "show", "master", "cni0"))
    return next(str(link["ifname"]) for link in links if link["ifindex"] == index)


def first(lab: Lab, namespace: str, *argv: str, having: str = "") -> list[str]:
    """The words of the first line that has `having`."""
    return next(line for line in lab.inside(namespace, *argv).splitlines() if having in line).split()


def lose_route(lab: Lab) -> None:
    """A node's way to the other node's pods."""
    lab.inside("n1", "ip", "route", "del", *first(lab, "n1", "ip", "route", having="flannel.1")[:3])


def lose_fdb_entry(lab: Lab) -> None:
    """Where the other VTEP is."""
    words = first(lab, "n1", "bridge", "fdb", "show", "dev", "flannel.1", having="dst")
    lab.inside(
        "n1", "bridge", "fdb", "del", words[0], "dev", "flannel.1", "dst", words[words.index("dst") + 1]
    )


def lose_neighbour(lab: Lab) -> None:
    """The other VTEP's MAC."""
    words = first(lab, "n1", "ip", "neigh", "show", "dev", "flannel.1", having="PERMANENT")
    lab.inside("n1", "ip", "neigh", "del", words[0], "dev", "flannel.1")


def lose_address(lab: Lab) -> None:
    """The bridge's, which is the pods' gateway."""
    words = first(lab, "n1", "ip", "-4", "-o", "addr", "show", "dev", "cni0")
    lab.inside("n1", "ip", "addr", "del", words[3], "dev", "cni0")


def lose_bridge_port(lab: Lab) -> None:
    """A pod's veth pair, at its node's end."""
    lab.inside("n1", "ip", "link", "del", port_of(lab, pod_on(lab, "n1"), "n1"))


def lose_pods_interface(lab: Lab) -> None:
    """A pod's veth pair, at its own end."""
    lab.inside(pod_on(lab, "n2"), "ip", "link", "del", "eth0")


def lose_nodes_interface(lab: Lab) -> None:
    """A node's eth0: with it go flannel.1 and all that hangs on them."""
    lab.inside("n2", "ip", "link", "del", "eth0")


def lose_bridge(lab: Lab) -> None:
    """cni0, and every pod's place on it."""
    lab.inside("n2", "ip", "link", "del", "cni0")


def lose_tunnel(lab: Lab) -> None:
    """flannel.1."""
    lab.inside("n1", "ip", "link", "del", "flannel.1")


def lose_link_state(lab: Lab) -> None:
    """An interface that is down loses its routes."""
    lab.inside("n1", "ip", "link", "set", "flannel.1", "down")


def lose_nat_table(lab: Lab) -> None:
    """iptables -t nat -F."""
    lab.inside("n1", "iptables", "-t", "nat", "-F")


def lose_jump(lab: Lab) -> None:
    """The jump to KUBE-SERVICES."""
    rule = first(lab, "n2", "iptables-save", "-t", "nat", having="-A PREROUTING")
    assert "KUBE-SERVICES" in rule
    number = 1 + [
        "KUBE-SERVICES" in line
        for line in lab.inside("n2", "iptables", "-t", "nat", "-S", "PREROUTING").splitlines()[1:]
    ].index(True)
    lab.inside("n2", "iptables", "-t", "nat", "-D", "PREROUTING", str(number))


def lose_pods_route(lab: Lab) -> None:
    """A pod's default route."""
    lab.inside(pod_on(lab, "n1"), "ip", "route", "del", "default")


def lose_pods_address(lab: Lab) -> None:
    """A pod's address."""
    lab.inside(pod_on(lab, "n2"), "ip", "addr", "flush", "dev", "eth0")


def lose_client(lab: Lab) -> None:
    """The outside machine's cable."""
    lab.inside("outside", "ip", "link", "del", "eth0")


def lose_fabric(lab: Lab) -> None:
    """A node's port at the switch."""
    lab.inside("fabric", "ip", "link", "del", "n1")


AT_NODES: tuple[Callable[[Lab], None], ...] = (
    lose_route,
    lose_fdb_entry,
    lose_neighbour,
    lose_address,
    lose_bridge_port,
    lose_pods_interface,
    lose_nodes_interface,
    lose_bridge,
    lose_tunnel,
    lose_link_state,
    lose_nat_table,
    lose_jump,
    lose_client,
    lose_fabric,
)
IN_PODS: tuple[Callable[[Lab], None], ...] = (lose_pods_route, lose_pods_address)


def serves(lab: Lab) -> None:
    """A request through the ClusterIP and one through the NodePort arrive, at either node."""
    web = lab.get("service", "web")[0]["spec"]
    nodes = {one["metadata"]["name"]: one["status"]["addresses"][0]["address"] for one in lab.get("nodes")}
    for name in ("n1", "n2"):
        with lab.capture(pod_on(lab, name), "eth0", to_port_8080) as server:
            ways = [
                Traffic(lab, "default.client", web["clusterIP"], 80),
                Traffic(lab, "outside", nodes[name], 30080),
            ]
            for way in ways:
                with way:
                    server.wait_for(to_port_8080)
                assert not way.failures


def to_port_8080(frame: Frame) -> bool:
    return frame.dport == 8080


@pytest.mark.parametrize("lose", [*AT_NODES, *IN_PODS])
def test_up_repairs_it_at_once(lab: Lab, lose: Callable[[Lab], None]) -> None:
    before = whole(lab)
    for node in ("n1", "n2"):
        pod_on(lab, node)
    with stopped(Processes(lab.name).daemon()):
        lose(lab)
        assert whole(lab) != before
    lab.up()
    assert whole(lab) == before
    serves(lab)


def test_up_says_that_it_has_repaired_something(lab: Lab) -> None:
    def says() -> bool:  # unless the look that comes every 5 seconds was faster
        lose_route(lab)
        return "(what had been undone is repaired)" in lab.up().stdout

    until(lab, says, "up says so")
    assert "unchanged" in lab.up().stdout


def test_a_node_whose_last_pod_has_gone_needs_no_repair(cluster: MakeLab) -> None:
    """Its bridge has no port any more, and keeps its MTU nevertheless."""
    alone = {**CLUSTER, "spec": {**CLUSTER["spec"], "dns": {"replicas": 0}}}
    lab = cluster(stream(alone, *OBJECTS))
    assert lab.inside("n1", "ip", "link", "show", "master", "cni0")
    lab.write(stream(alone))
    lab.up()
    until(lab, lambda: not lab.inside("n1", "ip", "link", "show", "master", "cni0"), "the ports have gone")
    assert json.loads(lab.inside("n1", "ip", "-j", "link", "show", "cni0"))[0]["mtu"] == 1450
    assert "unchanged" in lab.up().stdout


def test_control_plane_that_comes_back_repairs_what_was_lost(lab: Lab) -> None:
    before = whole(lab)
    kill(Processes(lab.name).daemon())
    for lose in (
        lose_route,
        lose_fdb_entry,
        lose_bridge_port,
        lose_nat_table,
        lose_jump,
        lose_pods_interface,
    ):
        lose(lab)
    assert whole(lab) != before
    lab.nsk8s("get", "pods")
    until(lab, lambda: whole(lab) == before, "all is as it was", NODES)
    serves(lab)


def test_it_comes_back_by_itself(lab: Lab) -> None:
    before = whole(lab)
    for lose in (lose_route, lose_fdb_entry, lose_neighbour, lose_bridge_port, lose_nat_table, lose_jump):
        lose(lab)
    lab.inside(pod_on(lab, "n2"), "ip", "route", "del", "default")
    inside_pods = {name for name in before if name.startswith("default.")}
    begun = time.monotonic()
    until(
        lab,
        lambda: not {name for name, text in whole(lab).items() if text != before[name]} - inside_pods,
        "the nodes are as they were",
        NODES + SLACK,
    )
    until(lab, lambda: whole(lab) == before, "all is as it was", EVERYTHING + SLACK)
    assert time.monotonic() - begun < EVERYTHING + SLACK
    serves(lab)


FOREIGN = (
    ("ip", "link", "add", "mine", "type", "bridge"),
    ("ip", "addr", "add", "203.0.113.7/32", "dev", "eth0"),
    ("ip", "route", "add", "198.51.100.0/24", "dev", "cni0"),
    ("ip", "neigh", "add", "172.18.0.99", "lladdr", "02:00:00:00:00:99", "dev", "eth0"),
    ("iptables", "-t", "nat", "-A", "PREROUTING", "-d", "192.0.2.1", "-j", "ACCEPT"),
    ("iptables", "-A", "INPUT", "-s", "192.0.2.2", "-j", "DROP"),
    ("iptables", "-N", "MY-CHAIN"),
    ("iptables", "-A", "MY-CHAIN", "-j", "RETURN"),
)


def test_what_a_person_has_added_stays(cluster: MakeLab) -> None:
    lab = cluster(stream(CLUSTER, *OBJECTS))
    for words in FOREIGN:
        lab.inside("n1", *words)
    added = whole(lab)["n1"]
    assert "unchanged" in lab.up().stdout
    assert whole(lab)["n1"] == added
    lose_nat_table_of_ours(lab)
    lose_bridge_port(lab)
    assert "repaired" in lab.up().stdout
    lab.nsk8s("scale", "deployment/web", "--replicas=4")
    lab.up()
    kill(Processes(lab.name).daemon())
    lab.up()
    after = whole(lab)["n1"]
    for mine in ("mine", "203.0.113.7/32", "198.51.100.0/24", "172.18.0.99", "192.0.2.1", "192.0.2.2"):
        assert after.count(mine) == added.count(mine) > 0, mine
    assert after.count("MY-CHAIN") == added.count("MY-CHAIN")
    serves(lab)


def lose_nat_table_of_ours(lab: Lab) -> None:
    lab.inside("n1", "iptables", "-t", "nat", "-F", "KUBE-SERVICES")


def restarts(lab: Lab, *names: str) -> dict[str, int]:
    return {name: count for name, (_, count) in containers(lab, *names).items()}


def ready(lab: Lab) -> bool:
    return all(
        any(c["type"] == "Ready" and c["status"] == "True" for c in obj["status"].get("conditions", ()))
        for obj in lab.pods().values()
    )


def test_standin_server_and_control_plane_are_killed_together(lab: Lab) -> None:
    processes = Processes(lab.name)
    before = restarts(lab, "real")
    server = processes.standins()
    kill(processes.daemon())
    kill(server)
    lab.up()
    until(lab, lambda: ready(lab), "all are ready")
    assert restarts(lab, "real") == before
    serves(lab)


@pytest.mark.parametrize("name", ["real", "agent", "web"])
def test_pods_pause_process_is_killed_and_the_pod_runs_again(lab: Lab, name: str) -> None:
    processes = Processes(lab.name)
    full = next(iter(restarts(lab, name)))
    others = {k: v for k, v in containers(lab, "").items() if k != full}
    before = restarts(lab, full)[full]
    held = processes.pause(f"default.{full}")
    kill(held)
    until(lab, lambda: restarts(lab, full)[full] > before and ready(lab), "it runs again", NODES + SLACK + 10)
    assert processes.pause(f"default.{full}") != held
    assert {k: v for k, v in containers(lab, "").items() if k != full} == others
    assert len(processes.programs(*SLEEP)) == 1
    assert "unchanged" in lab.up().stdout
    serves(lab)


def test_nodes_pause_process_is_killed_and_the_node_is_wired_again(lab: Lab) -> None:
    before = whole(lab)
    others = {k: v for k, v in containers(lab, "").items() if k != "agent"}
    agent = restarts(lab, "agent")["agent"]
    kill(Processes(lab.name).pause("n1"))
    until(
        lab,
        lambda: (
            Processes(lab.name).sandboxes() == sorted(before)
            and restarts(lab, "agent")["agent"] > agent
            and ready(lab)
            and whole(lab) == before
        ),
        "the node is there again",
        NODES + SLACK + 10,
    )
    assert {k: v for k, v in containers(lab, "").items() if k != "agent"} == others, "its pods lived on"
    serves(lab)


@pytest.mark.parametrize("forkless", [False, True], ids=["", "and-what-forks-it"])
def test_standin_server_is_killed_and_another_serves_the_same(lab: Lab, *, forkless: bool) -> None:
    processes = Processes(lab.name)
    before = containers(lab, "")
    for pid in [pid for pid, words in processes.all().items() if forkless and words == (forked.COMM,)]:
        kill(pid)
    kill(processes.standins())
    until(lab, lambda: processes.count(standins.COMM) == 1, "another one")
    until(lab, lambda: not lab.run("client", "true", check=False).returncode, "the pods can be entered")
    until(lab, lambda: answers(lab), "it answers")
    assert containers(lab, "") == before
    serves(lab)


def answers(lab: Lab) -> bool:
    ip = lab.get("service", "web")[0]["spec"]["clusterIP"]
    with Traffic(lab, "default.client", ip, 80) as way:
        pass
    return not way.failures
