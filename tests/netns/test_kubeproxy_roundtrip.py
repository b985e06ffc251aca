"""The real iptables gives back, to the byte, the rules it was given."""

from __future__ import annotations

import re
import subprocess

import pytest

from nsk8s.api.types import ContainerPort
from nsk8s.linux.iptables import render
from tests.flows.views import compiled, pod, service

pytestmark = pytest.mark.netns

TEN = tuple(f"10.244.{1 + n % 2}.{n + 2}" for n in range(10))
SERVICES = (
    service("web", "10.96.0.10", *TEN),
    service("np", "10.96.0.11", *TEN[:3], node_port=30080, port_name=""),
    service("sticky", "10.96.0.12", *TEN[:2], node_port=30081, external="Local", affinity="ClientIP"),
    service("far", "10.96.0.13", TEN[1], node_port=30082, external="Local", internal="Local"),
    service("nobody", "10.96.0.14", node_port=30083, external_ips=("203.0.113.9",)),
    service("outside", "10.96.0.15", TEN[0], external_ips=("203.0.113.10",)),
    service("dns", "10.96.0.16", *TEN[:2], protocol="UDP"),
    service("signal", "10.96.0.17", *TEN[:2], protocol="SCTP"),
)
PORTS = (
    ContainerPort(containerPort=80, hostPort=8080),
    ContainerPort(containerPort=81, hostPort=8081, hostIP="172.18.0.11"),
    ContainerPort(containerPort=53, hostPort=5353, protocol="UDP"),
)


def plain(saved: str) -> list[str]:
    """Without the comments that hold the time and the version; they are not rules."""
    return [re.sub(r"\[\d+:\d+\]", "[0:0]", line) for line in saved.splitlines() if line and line[0] != "#"]


@pytest.mark.parametrize("node", ["n1", "n2"])
def test_rules_survive_the_kernel(node: str) -> None:
    text = render(compiled(*SERVICES, pods=(pod("p", "10.244.1.2", *PORTS),))[node].rules)
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", "iptables-restore --noflush && iptables-save"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert plain(done.stdout) == plain(text)
