"""The real iptables gives back, to the byte, the rules it was given."""

from __future__ import annotations

import re
import subprocess

import pytest

from nsk8s.api.topology import KubeProxy
from nsk8s.api.types import ContainerPort
from nsk8s.linux.iptables import render
from tests.flows.spelled import DUAL, spelled
from tests.flows.tables import Table
from tests.flows.views import Backed, compiled, pod, service

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
    service(
        "lb",
        "10.96.0.18",
        TEN[1],
        node_port=30084,
        ingress=("198.51.100.20",),
        external="Local",
        health=30085,
    ),
    service(
        *("some", "10.96.0.19", *TEN[:2]),
        ingress=("198.51.100.21", "198.51.100.22"),
        source_ranges=("203.0.113.0/25", "172.18.0.11/32", "0.0.0.0/0"),
    ),
)
OPTIONS = {
    "default": KubeProxy(),
    "masquerade-all": KubeProxy(masquerade_all=True, node_port_addresses=("primary",), tcp_be_liberal=True),
    "bridge": KubeProxy(
        detect_local_mode="BridgeInterface", bridge_interface="cni0", localhost_node_ports=False
    ),
    "prefix": KubeProxy(detect_local_mode="InterfaceNamePrefix", interface_name_prefix="veth"),
    "untold": KubeProxy(cluster_cidr="", node_port_addresses=("127.0.0.0/8", "10.244.0.0/16")),
}
SERVICES_IN_SIX = tuple(
    service(
        *(f"six{number}", f"10.96.0.{30 + number}", *TEN[:number]),
        node_port=30000 + number,
        ingress=(f"198.51.100.{30 + number}",),
        source_ranges=("172.18.0.11/32",) if number == 2 else (),
        external="Local" if number == 1 else "Cluster",
        affinity="ClientIP" if number == 3 else "None",
    )
    for number in range(4)
)
PORTS = (
    ContainerPort(containerPort=80, hostPort=8080),
    ContainerPort(containerPort=81, hostPort=8081, hostIP="172.18.0.11"),
    ContainerPort(containerPort=53, hostPort=5353, protocol="UDP"),
)


def plain(saved: str) -> list[str]:
    """Without the comments that hold the time and the version; they are not rules."""
    return [re.sub(r"\[\d+:\d+\]", "[0:0]", line) for line in saved.splitlines() if line and line[0] != "#"]


@pytest.mark.parametrize("program", ["iptables", "ip6tables"])
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("node", ["n1", "n2"])
def test_rules_survive_the_kernel(node: str, name: str, program: str) -> None:
    services: tuple[Backed, ...] = SERVICES
    if program == "ip6tables":
        services = spelled(Table("six", SERVICES_IN_SIX, ()), 6).services
    held = (pod("p", "10.244.1.2", *PORTS),) if program == "iptables" else ()
    state = compiled(*services, pods=held, options=OPTIONS[name], cluster=DUAL)[node]
    text = render(state.rules if program == "iptables" else state.rules6)
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", f"{program}-restore --noflush && {program}-save"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert plain(done.stdout) == plain(text)
