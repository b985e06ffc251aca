"""The control plane may be killed at any moment: packets flow, nothing acknowledged is lost, nothing is
made twice."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nsk8s.client import Client
from nsk8s.errors import ClusterGone
from nsk8s.kernel import wiring
from nsk8s.paths import ClusterPaths
from tests.conftest import MakeLab, unique_name
from tests.lab import Lab
from tests.netns.processes_of import Processes, kill, stopped
from tests.netns.standing import CLUSTER, OBJECTS, SLEEP, bridge_ports, containers, deployment, stream, until
from tests.netns.traffic import Traffic

pytestmark = pytest.mark.netns

KILLS = 10


class Writer(threading.Thread):
    """Creates ConfigMaps one after the other, and remembers the answers."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(daemon=True)
        self._client = Client(ClusterPaths(lab.name))
        self.acknowledged: dict[str, int] = {}
        self.enough = threading.Event()
        self._number = 0

    def run(self) -> None:
        while not self.enough.is_set():
            self._number += 1
            name = f"made-{self._number}"
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
            try:
                made = self._client.post("/api/v1/namespaces/default/configmaps", body)
            except ClusterGone:
                self.enough.wait(0.01)  # until a command has started the control plane again
                continue
            self.acknowledged[name] = int(made["metadata"]["resourceVersion"])
        self._client.close()


@contextmanager
def api(lab: Lab) -> Iterator[Client]:
    """The control plane as it runs now."""
    client = Client(ClusterPaths(lab.name))
    try:
        yield client
    finally:
        client.close()


def scale(lab: Lab, replicas: int) -> None:
    """Another number of pods for the deployment that nobody asks; returns when that is acknowledged."""
    path = "/apis/apps/v1/namespaces/default/deployments/churn/scale"
    body = {"spec": {"replicas": replicas}}
    with api(lab) as client:
        client.request("PATCH", path, body, content_type="application/merge-patch+json")


def test_control_plane_is_killed_ten_times_under_load(cluster: MakeLab) -> None:
    lab = cluster(stream(CLUSTER, *OBJECTS))
    processes = Processes(lab.name)
    fixed = ("web", "client", "real", "agent")
    before = containers(lab, *fixed)
    program, standins = processes.programs(*SLEEP), processes.standins()
    ports = {node: bridge_ports(lab, node) for node in ("n1", "n2")}
    assert len(program) == 1
    web = lab.get("service", "web")[0]["spec"]
    node_ip = lab.get("node", "n2")[0]["status"]["addresses"][0]["address"]
    writer = Writer(lab)
    versions: list[int] = []
    with (
        Traffic(lab, "default.client", web["clusterIP"], 80) as inside,
        Traffic(lab, "outside", node_ip, 30080) as outside,
    ):
        writer.start()
        for number in range(KILLS):
            replicas = 7 if number % 2 == 0 else 2
            held = processes.sandboxes()
            scale(lab, replicas)
            if number % 3:  # in the middle of it, or at once
                until(lab, lambda held=held: processes.sandboxes() != held, "pods come or go")  # type: ignore[misc]
            kill(processes.daemon())
            made = dict(writer.acknowledged)
            lab.nsk8s("get", "pods")
            with api(lab) as client:
                listed = client.get("/api/v1/namespaces/default/configmaps")
            assert made.keys() <= {one["metadata"]["name"] for one in listed["items"]}
            versions += [max(made.values(), default=0), int(listed["metadata"]["resourceVersion"])]
            assert lab.get("deployment", "churn")[0]["spec"]["replicas"] == replicas
        scale(lab, 4)
        lab.up()
        writer.enough.set()
        writer.join(10)
    assert writer.acknowledged
    assert not inside.failures
    assert not outside.failures
    assert sum(inside.answered.values()) > 100
    assert sum(outside.answered.values()) > 100
    assert set(inside.answered) == set(outside.answered) == {n for n in before if n.startswith("web")}
    made_in_order = list(writer.acknowledged.values())
    assert made_in_order == sorted(set(made_in_order)), "resource versions only grow"
    assert versions == sorted(versions)
    kept = {one["metadata"]["name"] for one in lab.get("configmaps")}
    assert set(writer.acknowledged) <= kept, "every acknowledged object is there"
    assert containers(lab, *fixed) == before
    assert processes.programs(*SLEEP) == program
    assert processes.standins() == standins
    for node, kept_ports in ports.items():
        staying = {name for name in kept_ports if name in bridge_ports(lab, node)}
        assert {n: bridge_ports(lab, node)[n] for n in staying} == {n: kept_ports[n] for n in staying}
    pods = [f"{pod['metadata']['namespace']}.{pod['metadata']['name']}" for pod in lab.get("pods", "-A")]
    assert processes.sandboxes() == sorted(["fabric", "n1", "n2", "outside", *pods]), "nothing is there twice"
    assert processes.count("nsk8s.daemon") == 1
    ports_now = [*bridge_ports(lab, "n1"), *bridge_ports(lab, "n2")]
    assert len(ports_now) == len(pods) - 1, "one for each pod but the one in its node's network"


def half_made(processes: Processes) -> list[str]:
    """The pods whose namespaces are there and have no interface but lo (after two lines of headings)."""
    held = {words[1]: pid for pid, words in processes.all().items() if words[0] == "nsk8s:pause"}
    pods = [name for name in held if "." in name]
    return [name for name in pods if len(Path(f"/proc/{held[name]}/net/dev").read_text().splitlines()) == 3]


def test_control_plane_is_killed_while_pods_are_half_made(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    lab = Lab(unique_name(request.node.name), tmp_path)
    lab.write(stream(CLUSTER, deployment("many", 150)))
    processes = Processes(lab.name)
    try:
        argv = lab.argv("up", str(lab.topology))
        with subprocess.Popen(argv, env=lab.environ(), stderr=subprocess.PIPE) as begun:
            until(lab, lambda: bool(processes.programs(wiring.COMM)), "there is who wires the pods")
            (wirer,) = processes.programs(wiring.COMM)
            with stopped(wirer):  # else it is too fast for anybody who looks
                until(lab, lambda: bool(half_made(processes)), "pods wait to be wired")
                kill(processes.daemon())
                kill(wirer)
            begun.communicate(timeout=60)
        assert half_made(processes)
        lab.up()
        names = [f"default.{name}" for name in lab.pods()]
        assert len(names) == 150
        for name in names:
            links = [line.split() for line in lab.inside(name, "ip", "-brief", "link").splitlines()]
            assert [link[0].partition("@")[0] for link in links] == ["lo", "eth0"]
            assert all("LOWER_UP" in link[3] for link in links), links
        assert [one for one in processes.sandboxes() if "many" in one] == sorted(names)
    finally:
        lab.down()
