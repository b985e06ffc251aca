"""What kube-proxy tells on its own ports."""

from __future__ import annotations

from msgspec.structs import replace

from nsk8s.api.topology import KubeProxy
from nsk8s.dataplane.compiler import Compiler
from nsk8s.dataplane.proxyports import Listener
from tests.flows.spelled import DUAL, spelled
from tests.flows.tables import Table
from tests.flows.views import TOPOLOGY, service, view

LB = service(
    *("lb", "10.96.0.30", "10.244.1.5", "10.244.1.6 terminating", "10.244.1.7 unready"),
    external="Local",
    health=31000,
)
PLAIN = service("web", "10.96.0.31", "10.244.1.5", ingress=("172.18.255.201",))
HEALTHZ, METRICS = Listener("", 10256, ("healthz",)), Listener("127.0.0.1", 10249, ("metrics", "iptables"))


def test_each_node_counts_its_own_ready_endpoints() -> None:
    compiler = Compiler(TOPOLOGY)
    compiler.compile(view(LB, PLAIN))
    assert compiler.proxy_listeners() == {
        "n1": (HEALTHZ, METRICS, Listener("", 31000, ("service", "default", "lb", 1))),
        "n2": (HEALTHZ, METRICS, Listener("", 31000, ("service", "default", "lb", 0))),
    }
    compiler.compile(view(PLAIN))
    assert compiler.proxy_listeners() == {"n1": (HEALTHZ, METRICS), "n2": (HEALTHZ, METRICS)}


def test_health_checks_are_answered_where_node_ports_are() -> None:
    compiler = Compiler(replace(TOPOLOGY, kube_proxy=KubeProxy(node_port_addresses=("primary",))))
    compiler.compile(view(LB))
    assert [one[0].address for one in (found[2:] for found in compiler.proxy_listeners().values())] == [
        "172.18.0.11",
        "172.18.0.12",
    ]


def test_without_kube_proxy_nobody_listens() -> None:
    compiler = Compiler(replace(TOPOLOGY, proxy_mode="none"))
    compiler.compile(view(LB))
    assert compiler.proxy_listeners() == {}


def test_a_service_of_the_secondary_family_is_told_of_as_well() -> None:
    compiler = Compiler(DUAL)
    in_six = spelled(Table("six", (LB,), ()), 6).services[0]
    compiler.compile(view(in_six))
    assert compiler.proxy_listeners()["n1"][2:] == (Listener("", 31000, ("service", "default", "lb", 1)),)
    compiler.compile(view(LB))
    assert compiler.proxy_listeners()["n1"][2:] == (Listener("", 31000, ("service", "default", "lb", 1)),)
