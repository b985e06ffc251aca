"""kube-proxy's nftables mode: names, and what one service port writes; the whole is in tests/golden."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from nsk8s.dataplane.endpoints import Choice, ProxyEndpoint
from nsk8s.dataplane.kubeproxy import Frontend
from nsk8s.dataplane.nftproxy import NodeTable, named, port_rules, static
from nsk8s.dataplane.proxyoptions import LocalTraffic, NodeProxy
from nsk8s.linux.nftables import PLAIN, Element, Table

NODE = NodeProxy(
    "n1", "172.18.0.2", LocalTraffic("10.244.0.0/16"), node_ports=("172.18.0.2",), localhost=False
)
FRONT = Frontend("ns1/svc1:p80", "tcp", "10.96.0.41", 80, 0, (), False, False, 0)
SERVICE = "service-ULMVA6XW-ns1/svc1/tcp/p80"


def endpoint(ip: str, port: int = 80, node: str = "n1") -> ProxyEndpoint:
    address = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
    return ProxyEndpoint(address, ip, node, ready=True, serving=True, terminating=False)


def everywhere(*endpoints: ProxyEndpoint) -> Choice:
    return Choice(endpoints, (), endpoints, bool(endpoints))


def chains(front: Frontend, choice: Choice, node: NodeProxy = NODE) -> dict[str, tuple[str, ...]]:
    return {chain.name: chain.rules for chain in port_rules(front, choice, node).chains}


def test_names_are_those_of_kube_proxy() -> None:
    assert named("ns1/svc1/tcp/p80") == "ULMVA6XW-ns1/svc1/tcp/p80"
    assert named("ns1/svc1/tcp/p80__10.180.0.1/80") == "5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80"
    long = named("x" * 300)
    assert len(long) == 240
    assert long.endswith("xxx...")


def test_one_endpoint_needs_no_lot_and_several_draw() -> None:
    one, two = endpoint("10.180.0.1"), endpoint("10.180.0.2", 8080)
    assert chains(FRONT, everywhere(one)) == {SERVICE: ("meta l4proto tcp dnat to 10.180.0.1:80",)}
    drawn = "numgen random mod 2 map { 0 : 10.180.0.1 . 80, 1 : 10.180.0.2 . 8080 }"
    assert chains(FRONT, everywhere(one, two)) == {SERVICE: (f"meta l4proto tcp dnat ip to {drawn}",)}


def test_ipv6() -> None:
    front = FRONT._replace(cluster_ip="fd00:10:96::41", affinity=60)
    found = port_rules(front, everywhere(endpoint("fd00::1")), NODE)
    end = named("ns1/svc1/tcp/p80__fd00..1/80")
    assert {chain.name: chain.rules for chain in found.chains} == {
        SERVICE: (
            f"ip6 saddr @affinity-{end} goto endpoint-{end}",
            f"numgen random mod 1 vmap {{ 0 : goto endpoint-{end} }}",
        ),
        f"endpoint-{end}": (
            f"update @affinity-{end} {{ ip6 saddr }}",
            "meta l4proto tcp dnat to [fd00::1]:80",
        ),
    }
    assert [(one.key, one.flags, one.timeout) for one in found.affinity] == [
        ("ipv6_addr", ("dynamic", "timeout"), 60)
    ]
    assert found.hairpins == {"n1": ("fd00::1 . fd00::1 . tcp . 80",)}
    two = everywhere(endpoint("fd00::1"), endpoint("fd00::2"))
    (rule,) = chains(front._replace(affinity=0), two)[SERVICE]
    assert (
        rule == "meta l4proto tcp dnat ip6 to numgen random mod 2 map { 0 : fd00::1 . 80, 1 : fd00::2 . 80 }"
    )


@pytest.mark.parametrize(
    ("choice", "verdict"),
    [
        (everywhere(), "goto reject-chain"),
        (Choice((endpoint("10.180.0.1"),), (), (endpoint("10.180.0.1"),), exist=True), "drop"),
    ],
)
def test_without_endpoints_it_refuses_and_with_none_here_it_drops(choice: Choice, verdict: str) -> None:
    front = FRONT._replace(
        internal_local=True, external_local=True, node_port=3001, external_ips=("192.0.2.1",)
    )
    elements = port_rules(front, choice, NODE).elements
    nowhere = Element(verdict, "ns1/svc1:p80")
    assert {e for e in elements if e[0].startswith("no-endpoint")} == {
        ("no-endpoint-services", "10.96.0.41 . tcp . 80", nowhere),
        ("no-endpoint-services", "192.0.2.1 . tcp . 80", nowhere),
        ("no-endpoint-nodeports", "tcp . 3001", nowhere),
    }
    assert ("cluster-ips", "10.96.0.41", PLAIN) in elements
    assert ("service-ips" in {e[0] for e in elements}) is choice.exist  # what is short-circuited may pass


def test_who_may_reach_a_load_balancer() -> None:
    front = FRONT._replace(
        load_balancer_ips=("192.0.2.7",), source_ranges=("203.0.113.0/25", "203.0.113.128/25", "10.0.0.7/32")
    )
    firewall = "firewall-ULMVA6XW-ns1/svc1/tcp/p80"
    found = chains(front, everywhere(endpoint("10.180.0.1")))
    assert found[firewall] == ("ip saddr != { 10.0.0.7, 203.0.113.0/24 } drop",)
    near = front._replace(source_ranges=("172.18.0.0/24",))
    found = chains(near, everywhere(endpoint("10.180.0.1")))
    assert found[firewall] == ("ip saddr != { 172.18.0.0/24, 192.0.2.7 } drop",)


@pytest.mark.parametrize(
    ("node", "first"),
    [
        (NODE, "ip daddr @cluster-ips ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x00004000"),
        (NODE._replace(masquerade_all=True), "ip daddr @cluster-ips meta mark set meta mark | 0x00004000"),
        (
            NODE._replace(local=LocalTraffic(interface="veth+")),
            'ip daddr @cluster-ips iifname != "veth*" meta mark set meta mark | 0x00004000',
        ),
        (NODE._replace(local=LocalTraffic()), "ip daddr . meta l4proto . th dport vmap @service-ips"),
    ],
)
def test_who_is_masqueraded(node: NodeProxy, first: str) -> None:
    assert static(node, 4, ("10.96.0.0/16",)).chains["services"].rules[0].partition(" comment")[0] == first


def test_all_addresses_of_a_node_take_nodeports_if_told_so() -> None:
    found = static(NODE._replace(node_ports=None), 6, ("fd00:10:96::/112",))
    assert "nodeport-ips" not in found.sets
    assert found.chains["services"].rules[-1] == (
        "fib daddr type local ip6 daddr != ::1 meta l4proto . th dport vmap @service-nodeports"
    )
    assert found.chains["cluster-ips-check"].rules[-1].startswith("ip6 daddr fd00:10:96::/112 drop")


def test_services_are_put_in_and_taken_out_without_a_trace() -> None:
    node = NodeTable(NODE, 4, ("10.96.0.0/16",))
    empty = node.table()
    web = (port_rules(FRONT, everywhere(endpoint("10.180.0.1")), NODE),)
    other_front = FRONT._replace(name="ns1/other:p80", cluster_ip="10.96.0.42", affinity=60)
    other = (port_rules(other_front, everywhere(endpoint("10.180.0.1")), NODE),)
    node.exchange("web", web)
    alone = node.table()
    node.exchange("other", other)
    both = node.table()
    assert len(both.sets["hairpin-connections"].elements) == 1  # the same endpoint serves both
    assert len(both.sets) == len(alone.sets) + 1
    node.exchange("other", ())
    assert node.table() == alone
    assert node.table() is node.table()
    node.exchange("web", ())
    assert node.table() == replace(empty)
    again = NodeTable(NODE, 4, ("10.96.0.0/16",))
    again.exchange("other", other)
    again.exchange("web", web)
    assert again.table() == both


def test_what_a_change_does_not_touch_stays_the_same_object() -> None:
    node = NodeTable(NODE, 4, ())
    node.exchange("web", (port_rules(FRONT, everywhere(endpoint("10.180.0.1")), NODE),))
    before = node.table()
    node.exchange(
        "web", (port_rules(FRONT, everywhere(endpoint("10.180.0.1"), endpoint("10.180.0.2")), NODE),)
    )
    after: Table = node.table()
    assert {name for name in after.sets if after.sets[name] is not before.sets[name]} == {
        "hairpin-connections"
    }
    assert {name for name in after.chains if after.chains[name] is not before.chains[name]} == {SERVICE}


def test_two_who_want_one_key_get_the_same_whoever_came_first() -> None:
    fronts = [FRONT._replace(name=f"ns1/{name}:p80", external_ips=("192.0.2.1",)) for name in ("a", "b")]
    rules = [(port_rules(front, everywhere(endpoint("10.180.0.1")), NODE),) for front in fronts]
    one, other = NodeTable(NODE, 4, ()), NodeTable(NODE, 4, ())
    for number in (0, 1):
        one.exchange(number, rules[number])
        other.exchange(1 - number, rules[1 - number])
    assert one.table() == other.table()
    one.exchange(0, ())
    value = one.table().sets["service-ips"].elements["192.0.2.1 . tcp . 80"].value
    assert value == f"goto external-{named('ns1/b/tcp/p80')}"
