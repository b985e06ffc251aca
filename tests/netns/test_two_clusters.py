"""Two clusters side by side, alike to the last address, and the host's own way into one (row 101)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from nsk8s import paths
from tests.conftest import MakeLab, unique_name
from tests.lab import Lab
from tests.netns.processes_of import Processes, kill
from tests.netns.sandboxes import sandbox
from tests.netns.scenario import Obj
from tests.netns.standing import CLUSTER, OBJECTS, containers, stream, until
from tests.netns.traffic import Traffic

pytestmark = pytest.mark.netns


def service(lab: Lab) -> str:
    """The ClusterIP of web."""
    return str(lab.get("service", "web")[0]["spec"]["clusterIP"])


def node_address(lab: Lab, name: str) -> str:
    """A node's InternalIP."""
    return str(lab.get("node", name)[0]["status"]["addresses"][0]["address"])


def test_row_101_two_clusters_with_the_same_addresses(cluster: MakeLab) -> None:
    one, two = cluster(stream(CLUSTER, *OBJECTS)), cluster(stream(CLUSTER, *OBJECTS))
    assert service(one) == service(two)
    assert node_address(one, "n2") == node_address(two, "n2")
    before = containers(two, "")
    address = node_address(two, "n2")
    with (
        Traffic(two, "default.client", service(two), 80) as inside,
        Traffic(two, "outside", address, 30080) as outside,
        two.capture("fabric", "n2") as fabric,
    ):
        with Traffic(one, "outside", address, 30080) as other:
            request = fabric.wait_for(lambda frame: frame.dport == 30080)
        one.nsk8s("down", one.name)
    assert [*inside.failures, *outside.failures, *other.failures] == []
    pods_of_two = set(two.pods())
    assert set(inside.answered) | set(outside.answered) <= pods_of_two
    assert not set(other.answered) & pods_of_two, "each is answered by its own"
    assert request.dst == address
    assert containers(two, "") == before
    assert not Processes(one.name).all()
    assert not [name for name in os.listdir(paths.NETNS_DIR) if name.startswith(f"{one.name}.")]
    assert "unchanged" in two.up().stdout


def test_commands_ask_which_of_two_clusters_is_meant(cluster: MakeLab) -> None:
    one, two = cluster(stream(CLUSTER)), cluster(stream(CLUSTER))
    env = {k: v for k, v in one.environ().items() if k != "NSK8S_CLUSTER"}
    for words in (["get", "pods"], ["down"]):
        done = subprocess.run(one.argv(*words), env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert one.name in done.stderr
        assert two.name in done.stderr


def test_down_all_takes_down_every_cluster_of_this_state_directory_and_no_other(
    cluster: MakeLab, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = [Lab(unique_name(f"all-{n}"), tmp_path) for n in (1, 2)]
    for lab in mine:
        lab.write(stream(CLUSTER, *OBJECTS[:1]))
        lab.up()
    (paths.root() / "not-a-cluster").write_text("keep me")
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("NSK8S_STATE", str(state.with_name("o")))
        other = cluster(stream(CLUSTER, *OBJECTS))
    said = mine[0].nsk8s("down", "--all").stdout
    assert all(f"cluster {lab.name} is down" in said for lab in mine)
    assert os.listdir(paths.root()) == ["not-a-cluster"]
    assert not any(name.startswith(f"{lab.name}.") for lab in mine for name in os.listdir(paths.NETNS_DIR))
    assert "no cluster runs" in mine[0].nsk8s("down", "--all").stdout
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("NSK8S_STATE", str(state.with_name("o")))
        assert "unchanged" in other.up().stdout
        with Traffic(other, "default.client", service(other), 80) as inside:
            assert inside is not None
        assert not inside.failures
        other.down()


# --- hostAccess ---------------------------------------------------------------------------------------


class HostedLab(Lab):
    """A cluster on a host whose network is that of process `host`."""

    host = 0

    def argv(self, *words: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.host}/ns/net", *super().argv(*words)]

    def on_host(self, *argv: str) -> str:
        """What a program of the host prints."""
        words = ["nsenter", f"--net=/proc/{self.host}/ns/net", *argv]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def network(self) -> tuple[set[str], set[str], str]:
        """The host's links and routes, and its rules."""
        links = {link["ifname"] for link in json.loads(self.on_host("ip", "-j", "link"))}
        routes = set(self.on_host("ip", "-4", "route").splitlines())
        return links, routes, self.on_host("iptables-save")


@pytest.fixture
def hosted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HostedLab]:
    """A cluster with hostAccess that is not up yet, on a host of its own."""
    with sandbox() as host:
        lab = HostedLab(unique_name(request.node.name), tmp_path)
        lab.host = host
        document: Obj = yaml.safe_load(stream(CLUSTER))
        document["spec"]["hostAccess"] = True
        lab.write(stream(document, *OBJECTS))
        yield lab
        lab.down()


def test_host_access_is_one_link_and_one_route_while_the_cluster_is_up(hosted: HostedLab) -> None:
    before = hosted.network()
    hosted.up()
    links, routes, rules = hosted.network()
    added = links - before[0]
    assert len(added) == 1
    link = added.pop()
    assert link.startswith("nsk8s-")
    assert [route.split()[:3] for route in routes - before[1]] == [["172.18.0.0/24", "dev", link]]
    assert rules == before[2]
    address = node_address(hosted, "n2")
    with hosted.capture("n2", "eth0") as node:
        page = hosted.on_host("curl", "-sS", "--max-time", "5", f"http://{address}:30080/")
        request = node.wait_for(lambda frame: frame.dport == 30080)
    assert json.loads(page)["pod"] in hosted.pods()
    assert request.src == hosted.on_host("ip", "-4", "-o", "addr", "show", link).split()[3].split("/")[0]
    assert "1 received" in hosted.on_host("ping", "-c1", "-W2", node_address(hosted, "n1"))

    assert "unchanged" in hosted.up().stdout, "its own route is in nobody's way"
    hosted.on_host("ip", "link", "del", link)
    hosted.up()
    assert hosted.network()[0] - before[0] == {link}
    kill(Processes(hosted.name).daemon())
    elsewhere = subprocess.run(Lab.argv(hosted, "get", "pods"), env=hosted.environ(), capture_output=True)
    assert elsewhere.returncode == 0, "started again from another network"
    assert "unchanged" in hosted.up().stdout
    assert hosted.network()[0] - before[0] == {link}

    hosted.nsk8s("down", hosted.name)
    until(hosted, lambda: hosted.network() == before, "the host is as it was")


def test_host_access_is_switched_off_and_on(hosted: HostedLab) -> None:
    before = hosted.network()
    with_access = hosted.topology.read_text()
    hosted.up()
    hosted.topology.write_text(with_access.replace("hostAccess: true", "hostAccess: false"))
    hosted.up()
    assert hosted.network() == before
    hosted.topology.write_text(with_access)
    hosted.up()
    assert len(hosted.network()[0] - before[0]) == 1


def test_host_access_collides_with_a_route_of_the_host(hosted: HostedLab) -> None:
    hosted.on_host("ip", "link", "add", "lan", "type", "bridge")
    hosted.on_host("ip", "link", "set", "lan", "up")
    hosted.on_host("ip", "route", "add", "172.18.0.0/16", "dev", "lan")
    before = hosted.network()
    done = hosted.up(check=False)
    assert done.returncode == 1
    assert f"{hosted.topology}:" in done.stderr
    assert "collides with this host's own route 172.18.0.0/16 on lan" in done.stderr
    assert hosted.network() == before
    assert not Processes(hosted.name).all()
