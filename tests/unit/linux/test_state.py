from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce

import pytest

from nsk8s.linux.state import apply, diff, ours
from nsk8s.linux.text import commands
from nsk8s.linux.values import (
    Address,
    Chain,
    FdbEntry,
    Link,
    Namespace,
    NamespaceState,
    Neighbour,
    Op,
    Peer,
    Restore,
    Route,
    Ruleset,
    Sysctl,
    VethPair,
    Vxlan,
)

UPLINK = Link("eth0", "veth", 1500, "02:00:00:00:00:01", peer=Peer("fabric", "w1"))
CNI0 = Link("cni0", "bridge", 1450, "02:00:00:00:00:02")
FLANNEL = Link("flannel.1", "vxlan", 1450, "02:00:00:00:00:03", vxlan=Vxlan(1, 8472, "172.18.0.2", "eth0"))
PORT = Link("vetha", "veth", 1450, "02:00:00:00:00:04", master="cni0", hairpin=True)
RULES = Ruleset({"nat": {"KUBE-A": Chain("KUBE-A", ("-j RETURN",))}})

FABRIC = NamespaceState(
    "fabric",
    links=(Link("br0", "bridge", 1500), Link("w1", "veth", 1500, master="br0")),
    addresses=frozenset({Address("br0", "172.18.0.1/24")}),
)
W1 = NamespaceState(
    "w1",
    "w1",
    (UPLINK, CNI0, FLANNEL, PORT),
    addresses=frozenset(
        {
            Address("eth0", "172.18.0.2/24"),
            Address("cni0", "10.244.1.1/24"),
            Address("flannel.1", "10.244.1.0/32"),
        }
    ),
    routes=frozenset(
        {
            Route("default", "eth0", "172.18.0.1"),
            Route("10.244.2.0/24", "flannel.1", "10.244.2.0", onlink=True),
        }
    ),
    neighbours=frozenset({Neighbour("flannel.1", "10.244.2.0", "02:00:00:00:00:09")}),
    fdb=frozenset({FdbEntry("flannel.1", "02:00:00:00:00:09", "172.18.0.3")}),
    sysctls=frozenset({Sysctl("net.ipv4.ip_forward", "1")}),
    rules=RULES,
)
POD = NamespaceState(
    "default.a",
    "a",
    (Link("eth0", "veth", 1450, "02:00:00:00:00:05", peer=Peer("w1", "vetha")),),
    addresses=frozenset({Address("eth0", "10.244.1.2/24")}),
    routes=frozenset({Route("default", "eth0", "10.244.1.1")}),
)
MACHINE = {state.name: state for state in (FABRIC, W1, POD)}


def said(actual: Mapping[str, NamespaceState], desired: Mapping[str, NamespaceState]) -> list[str]:
    """The difference as commands, one a line, without what every link has."""
    return [line for op in diff(actual, desired) for line in commands(op)]


def test_from_nothing_everything_is_made_in_order() -> None:
    ops = diff({}, MACHINE)
    assert [(op.verb, op.namespace, type(op.value).__name__) for op in ops] == [
        ("add", "fabric", "Namespace"),
        ("add", "fabric", "Link"),
        ("add", "fabric", "Address"),
        ("add", "w1", "Namespace"),
        ("add", "w1", "Sysctl"),
        ("add", "w1", "VethPair"),
        ("add", "w1", "Link"),
        ("add", "w1", "Link"),
        ("add", "w1", "Address"),
        ("add", "w1", "Address"),
        ("add", "w1", "Address"),
        ("add", "w1", "Route"),
        ("add", "w1", "Route"),
        ("add", "w1", "Neighbour"),
        ("add", "w1", "FdbEntry"),
        ("add", "w1", "Restore"),
        ("add", "default.a", "Namespace"),
        ("add", "default.a", "VethPair"),
        ("add", "default.a", "Address"),
        ("add", "default.a", "Route"),
    ]
    assert ops[5] == Op("add", "w1", VethPair(UPLINK, FABRIC.links[1]))
    assert ops[15] == Op("add", "w1", Restore("*nat\n:KUBE-A - [0:0]\n-A KUBE-A -j RETURN\nCOMMIT\n"))


def test_a_namespace_goes_with_all_it_holds_and_the_far_ends_of_its_links() -> None:
    without = {"fabric": FABRIC, "w1": replace(W1, links=W1.links[:-1])}
    assert diff(MACHINE, without) == (Op("delete", "default.a", Namespace("default.a")),)
    assert apply(MACHINE, diff(MACHINE, without)[0]) == without


@pytest.mark.parametrize(
    ("lost", "again"),
    [
        (
            ("w1", CNI0),
            [
                "ip -n w1 link add cni0 address 02:00:00:00:00:02 type bridge mcast_snooping 0",
                "ip -n w1 link set cni0 mtu 1450",
                "ip -n w1 link set cni0 up",
                "ip -n w1 link set vetha mtu 1450 address 02:00:00:00:00:04 master cni0",
                "bridge -n w1 link set dev vetha hairpin on",
                "ip -n w1 link set vetha up",
                "ip -n w1 addr add 10.244.1.1/24 brd + dev cni0",
            ],
        ),
        (
            ("w1", PORT),
            [
                "ip -n default.a link add eth0 mtu 1450 address 02:00:00:00:00:05 type veth "
                "peer name vetha mtu 1450 address 02:00:00:00:00:04 netns w1",
                "ip -n w1 link set vetha master cni0",
                "bridge -n w1 link set dev vetha hairpin on",
                "ip -n w1 link set vetha up",
                "ip -n default.a link set eth0 up",
                "ip -n default.a addr add 10.244.1.2/24 brd + dev eth0",
                "ip -n default.a route add default via 10.244.1.1 dev eth0",
            ],
        ),
        (
            ("fabric", FABRIC.links[1]),  # and with it the node's eth0, and with that flannel.1
            [
                "ip -n w1 link add eth0 mtu 1500 address 02:00:00:00:00:01 type veth "
                "peer name w1 mtu 1500 netns fabric",
                "ip -n fabric link set w1 master br0",
                "ip -n fabric link set w1 up",
                "ip -n w1 link set eth0 up",
                "ip -n w1 link add flannel.1 mtu 1450 address 02:00:00:00:00:03 type vxlan id 1 "
                "dstport 8472 local 172.18.0.2 dev eth0 nolearning",
                "ip -n w1 link set flannel.1 up",
                "ip -n w1 addr add 172.18.0.2/24 brd + dev eth0",
                "ip -n w1 addr add 10.244.1.0/32 dev flannel.1",
                "ip -n w1 route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink",
                "ip -n w1 route add default via 172.18.0.1 dev eth0",
                "ip -n w1 neigh add 10.244.2.0 lladdr 02:00:00:00:00:09 nud permanent dev flannel.1",
                "bridge -n w1 fdb append 02:00:00:00:00:09 dev flannel.1 dst 172.18.0.3 self permanent",
            ],
        ),
    ],
)
def test_what_a_lost_link_took_along_is_made_again(lost: tuple[str, Link], again: list[str]) -> None:
    damaged = apply(MACHINE, Op("delete", *lost))
    assert said(damaged, MACHINE) == again


def test_half_a_pair_is_replaced() -> None:
    half = {**MACHINE, "w1": replace(W1, links=W1.links[:-1])}  # seen while the other end was going
    assert said(half, MACHINE)[0] == "ip -n default.a link del eth0"
    assert "type veth" in said(half, MACHINE)[1]


def test_another_vni_needs_another_link() -> None:
    other = replace(FLANNEL, vxlan=Vxlan(2, 8472, "172.18.0.2", "eth0"))
    desired = {**MACHINE, "w1": replace(W1, links=(UPLINK, CNI0, other, PORT))}
    ops = diff(MACHINE, desired)
    assert ops[0] == Op("delete", "w1", FLANNEL)
    assert [type(op.value) for op in ops[1:]] == [Link, Address, Route, Neighbour, FdbEntry]


def test_another_mac_flushes_the_neighbours() -> None:
    other = replace(FLANNEL, mac="02:00:00:00:00:33")
    desired = {**MACHINE, "w1": replace(W1, links=(UPLINK, CNI0, other, PORT))}
    assert [(op.verb, type(op.value)) for op in diff(MACHINE, desired)] == [
        ("change", Link),
        ("add", Neighbour),
    ]


def test_a_route_or_neighbour_that_differs_is_replaced_not_deleted() -> None:
    changed = replace(
        W1,
        routes=frozenset({Route("default", "eth0", "172.18.0.9"), *(r for r in W1.routes if r.onlink)}),
        neighbours=frozenset({Neighbour("flannel.1", "10.244.2.0", "02:00:00:00:00:77")}),
        fdb=frozenset({FdbEntry("flannel.1", "02:00:00:00:00:09", "172.18.0.77")}),
        sysctls=frozenset({Sysctl("net.ipv4.ip_forward", "0")}),
    )
    assert said(MACHINE, {**MACHINE, "w1": changed}) == [
        "ip netns exec w1 sysctl -w net.ipv4.ip_forward=0",
        "ip -n w1 route replace default via 172.18.0.9 dev eth0",
        "ip -n w1 neigh replace 10.244.2.0 lladdr 02:00:00:00:00:77 nud permanent dev flannel.1",
        "bridge -n w1 fdb replace 02:00:00:00:00:09 dev flannel.1 dst 172.18.0.77 self permanent",
    ]


def test_an_address_is_added_before_the_old_one_goes_and_again_if_that_took_it_along() -> None:
    new = Address("cni0", "10.244.1.9/24")
    kept = frozenset(address for address in W1.addresses if address.dev != "cni0")
    desired = {**MACHINE, "w1": replace(W1, addresses=kept | {new})}
    assert diff(MACHINE, desired) == (
        Op("add", "w1", new),
        Op("delete", "w1", Address("cni0", "10.244.1.1/24")),
        Op("add", "w1", new),
    )


def test_what_hangs_on_a_later_namespaces_link_waits_for_it() -> None:
    route = Route("10.244.1.2/32", "vetha")
    desired = {**MACHINE, "w1": replace(W1, routes=W1.routes | {route})}
    ops = diff({}, desired)
    assert ops[-1] == Op("add", "w1", route)
    assert reduce(apply, ops, dict[str, NamespaceState]()).keys() == desired.keys()


def test_a_pair_must_be_desired_at_both_ends() -> None:
    with pytest.raises(ValueError, match=r"default\.a: the other end of eth0, vetha in 'w1', is not desired"):
        diff({}, {"default.a": POD})


def test_a_value_on_a_device_that_nobody_makes_is_an_error() -> None:
    with pytest.raises(ValueError, match="no device"):
        diff({}, {"x": NamespaceState("x", addresses=frozenset({Address("eth9", "10.0.0.1/24")}))})


def test_why_is_no_difference() -> None:
    explained = replace(W1, links=tuple(replace(link, why="because", index=7) for link in W1.links))
    assert diff(MACHINE, {**MACHINE, "w1": explained}) == ()


def seen(**changes: object) -> NamespaceState:
    """W1 as a dump of the kernel shows it."""
    links = tuple(replace(link, conf=(("arp_notify", 0), ("rp_filter", 2))) for link in reversed(W1.links))
    return replace(W1, **{"links": links, **changes})  # type: ignore[arg-type]


def test_ours_is_what_is_desired_when_nothing_was_touched() -> None:
    assert ours(seen(), W1) == W1
    assert ours(seen(), W1).rules is W1.rules


def test_ours_leaves_the_foreign_alone() -> None:
    docker = Link("docker0", "bridge", 1500, "02:00:00:00:00:99")
    port = Link("veth99", "veth", 1500, "02:00:00:00:00:98", master="docker0")
    address = Address("docker0", "172.17.0.1/16")
    other = seen(
        links=(*W1.links, docker, port),
        addresses=W1.addresses | {address},
        sysctls=W1.sysctls | {Sysctl("net.ipv4.tcp_rmem", "1 2 3")},
    )
    assert ours(other, W1) == W1
    before = replace(W1, links=(*W1.links, docker), addresses=W1.addresses | {address})
    assert ours(other, W1, before) == before


def test_ours_is_what_only_we_can_have_made() -> None:
    orphan = Link("vethold", "veth", 1450, "02:00:00:00:00:97", master="cni0")
    entry = FdbEntry("flannel.1", "02:00:00:00:00:08", "172.18.0.8")
    route = Route("10.244.8.0/24", "flannel.1", "10.244.8.0", onlink=True)
    chain = {"KUBE-OLD": Chain("KUBE-OLD"), **RULES.tables["nat"]}
    left = replace(
        W1,
        links=(*W1.links, orphan),
        fdb=W1.fdb | {entry},
        routes=W1.routes | {route},
        rules=Ruleset({"nat": chain}),
    )
    assert ours(left, W1) == left
    assert {op.value for op in diff({**MACHINE, "w1": left}, MACHINE)} == {
        orphan,
        entry,
        route,
        Restore("*nat\n:KUBE-OLD - [0:0]\n-X KUBE-OLD\nCOMMIT\n"),
    }


def test_ours_takes_no_rule_where_we_want_none() -> None:
    """The host itself may be a node of a real cluster."""
    host = NamespaceState("")
    assert ours(replace(host, hostname="laptop", rules=RULES), host) == host
