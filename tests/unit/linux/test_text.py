from __future__ import annotations

from dataclasses import replace

import pytest

from nsk8s.linux.text import commands, parse, render
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
    Value,
    Verb,
    VethPair,
    Vxlan,
)

MAC = "02:00:00:00:00:01"
ETH0 = Link("eth0", "veth", 1450, MAC, peer=Peer("w1", "veth1"), conf=(("arp_notify", 1),), why="Pod a/b")
VETH1 = Link("veth1", "veth", 1450, master="cni0", hairpin=True)
VXLAN = Link("flannel.1", "vxlan", 1450, MAC, up=False, vxlan=Vxlan(1, 8472, "172.18.0.2", "eth0"))

STATE = NamespaceState(
    "w1",
    "w1",
    (ETH0, Link("cni0", "bridge", 1450, MAC), VXLAN, VETH1),
    addresses=frozenset({Address("eth0", "10.0.0.10/24"), Address("eth0", "10.0.0.9/24", why="Node w1")}),
    routes=frozenset(
        {
            Route("default", "eth0", "10.0.0.1"),
            Route("10.1.0.0/24", "flannel.1", "10.1.0.0", onlink=True),
            Route("10.2.0.0/24", "cni0", src="10.0.0.9", why="Node w2"),
        }
    ),
    neighbours=frozenset({Neighbour("flannel.1", "10.1.0.0", MAC)}),
    fdb=frozenset({FdbEntry("flannel.1", MAC, "172.18.0.3")}),
    sysctls=frozenset({Sysctl("net.ipv4.ip_local_port_range", "1024 65535")}),
    rules=Ruleset({"filter": {"KUBE-A": Chain("KUBE-A", ('-m comment --comment "a  # b" -j DROP',))}}),
)

TEXT = """\
netns w1 hostname w1
link eth0 type veth mtu 1450 address 02:00:00:00:00:01 peer w1/veth1 conf.arp_notify 1 up  # Pod a/b
link cni0 type bridge mtu 1450 address 02:00:00:00:00:01 up
link flannel.1 type vxlan mtu 1450 address 02:00:00:00:00:01 id 1 dstport 8472 local 172.18.0.2 dev eth0 \
nolearning down
link veth1 type veth mtu 1450 master cni0 hairpin on up
address 10.0.0.9/24 dev eth0  # Node w1
address 10.0.0.10/24 dev eth0
route 10.1.0.0/24 via 10.1.0.0 dev flannel.1 onlink
route 10.2.0.0/24 dev cni0 src 10.0.0.9  # Node w2
route default via 10.0.0.1 dev eth0
neigh 10.1.0.0 dev flannel.1 lladdr 02:00:00:00:00:01 nud permanent
fdb 02:00:00:00:00:01 dev flannel.1 dst 172.18.0.3 self permanent
sysctl net.ipv4.ip_local_port_range = 1024 65535
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-A - [0:0]
-A KUBE-A -m comment --comment "a  # b" -j DROP
COMMIT
"""


def test_a_state_is_written_and_read() -> None:
    assert render(STATE, why=True) == TEXT
    assert parse(TEXT) == parse(render(STATE)) == STATE
    assert "Pod a/b" not in render(STATE)


DUAL = NamespaceState(
    "w1",
    links=(Link("flannel-v6.1", "vxlan", 1430, MAC, vxlan=Vxlan(1, 8472, "fd00::2", "eth0")),),
    addresses=frozenset({Address("eth0", "fd00::2/64"), Address("eth0", "10.0.0.10/24")}),
    routes=frozenset(
        {
            Route("default", "eth0", "10.0.0.1"),
            Route("default", "eth0", "fd00::1"),
            Route("fd00:1::/64", "flannel-v6.1", "fd00:1::", onlink=True),
        }
    ),
    neighbours=frozenset({Neighbour("flannel-v6.1", "fd00:1::", MAC)}),
    fdb=frozenset({FdbEntry("flannel-v6.1", MAC, "fd00::3")}),
    rules=Ruleset({"nat": {"KUBE-A": Chain("KUBE-A", ("-s 10.0.0.1/32 -j RETURN",))}}),
    rules6=Ruleset({"nat": {"KUBE-A": Chain("KUBE-A", ("-s fd00::2/128 -j RETURN",))}}),
)

DUAL_TEXT = """\
netns w1
link flannel-v6.1 type vxlan mtu 1430 address 02:00:00:00:00:01 id 1 dstport 8472 local fd00::2 dev eth0 \
nolearning up
address 10.0.0.10/24 dev eth0
address fd00::2/64 dev eth0
route default via 10.0.0.1 dev eth0
route default via fd00::1 dev eth0
route fd00:1::/64 via fd00:1:: dev flannel-v6.1 onlink
neigh fd00:1:: dev flannel-v6.1 lladdr 02:00:00:00:00:01 nud permanent
fdb 02:00:00:00:00:01 dev flannel-v6.1 dst fd00::3 self permanent
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-A - [0:0]
-A KUBE-A -s 10.0.0.1/32 -j RETURN
COMMIT
ip6tables
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-A - [0:0]
-A KUBE-A -s fd00::2/128 -j RETURN
COMMIT
"""


def test_both_families_are_written_and_read() -> None:
    assert render(DUAL) == DUAL_TEXT
    assert parse(DUAL_TEXT) == DUAL
    for state in (replace(DUAL, rules=Ruleset()), replace(DUAL, rules6=Ruleset())):
        assert parse(render(state)) == state


def test_the_hosts_own_namespace_has_no_name() -> None:
    state = NamespaceState("", links=(Link("veth1", "veth", 1500, peer=Peer("fabric", "host")),))
    assert parse(render(state)) == state


@pytest.mark.parametrize(
    "line", ["link eth0", "address 10.0.0.1/24", "fdb x dev y", "rule 7", "link e type tap mtu 1 up", "hello"]
)
def test_a_line_that_cannot_be_read_is_named(line: str) -> None:
    with pytest.raises(ValueError, match=f"{line!r} cannot be read"):
        parse(f"netns w1\n{line}\n")


IN = "ip -n article.w1"
ADDRESS, ROUTE = Address("eth0", "10.0.0.9/24"), Route("10.1.0.0/24", "eth0", "10.0.0.1", src="10.0.0.9")
NEIGHBOUR, FDB = Neighbour("eth0", "10.0.0.1", MAC), FdbEntry("flannel.1", MAC, "172.18.0.3")


@pytest.mark.parametrize(
    ("verb", "value", "expected"),
    [
        ("add", Namespace("w1", "w1"), ["ip netns add article.w1", f"{IN} link set lo up"]),
        ("change", Namespace("w1", "x"), ["# the host name in article.w1 becomes x"]),
        ("delete", Namespace("w1"), ["ip netns del article.w1"]),
        (
            "add",
            Link("cni0", "bridge", 1450),
            [
                f"{IN} link add cni0 type bridge mcast_snooping 0",
                f"{IN} link set cni0 mtu 1450",
                f"{IN} link set cni0 up",
            ],
        ),
        (
            "add",
            VXLAN,
            [
                f"{IN} link add flannel.1 mtu 1450 address {MAC} type vxlan id 1 dstport 8472 "
                "local 172.18.0.2 dev eth0 nolearning"
            ],
        ),
        (
            "change",
            VETH1,
            [
                f"{IN} link set veth1 mtu 1450 master cni0",
                "bridge -n article.w1 link set dev veth1 hairpin on",
                f"{IN} link set veth1 up",
            ],
        ),
        (
            "change",
            Link("flannel.1", "vxlan", 1400, MAC, up=False, conf=(("rp_filter", 0),)),
            [
                f"{IN} link set flannel.1 mtu 1400 address {MAC} nomaster",
                "ip netns exec article.w1 sysctl -w net.ipv4.conf.flannel/1.rp_filter=0",
                f"{IN} link set flannel.1 down",
            ],
        ),
        ("delete", VETH1, [f"{IN} link del veth1"]),
        ("add", ADDRESS, [f"{IN} addr add 10.0.0.9/24 brd + dev eth0"]),
        ("add", Address("eth0", "10.0.0.9/32"), [f"{IN} addr add 10.0.0.9/32 dev eth0"]),
        ("add", Address("eth0", "fd00::2/64"), [f"{IN} addr add fd00::2/64 nodad dev eth0"]),
        ("delete", Address("eth0", "fd00::2/64"), [f"{IN} addr del fd00::2/64 dev eth0"]),
        (
            "add",
            Restore("*nat\n-X KUBE-A\nCOMMIT\n", 6),
            [
                "ip netns exec article.w1 ip6tables-restore --noflush --counters <<'EOF'\n"
                "*nat\n-X KUBE-A\nCOMMIT\nEOF"
            ],
        ),
        ("delete", ADDRESS, [f"{IN} addr del 10.0.0.9/24 dev eth0"]),
        ("add", ROUTE, [f"{IN} route add 10.1.0.0/24 via 10.0.0.1 dev eth0 src 10.0.0.9"]),
        ("change", ROUTE, [f"{IN} route replace 10.1.0.0/24 via 10.0.0.1 dev eth0 src 10.0.0.9"]),
        ("delete", ROUTE, [f"{IN} route del 10.1.0.0/24 via 10.0.0.1 dev eth0 src 10.0.0.9"]),
        ("add", NEIGHBOUR, [f"{IN} neigh add 10.0.0.1 lladdr {MAC} nud permanent dev eth0"]),
        ("delete", NEIGHBOUR, [f"{IN} neigh del 10.0.0.1 dev eth0"]),
        (
            "add",
            FDB,
            [f"bridge -n article.w1 fdb append {MAC} dev flannel.1 dst 172.18.0.3 self permanent"],
        ),
        (
            "change",
            FDB,
            [f"bridge -n article.w1 fdb replace {MAC} dev flannel.1 dst 172.18.0.3 self permanent"],
        ),
        ("delete", FDB, [f"bridge -n article.w1 fdb del {MAC} dev flannel.1 dst 172.18.0.3 self"]),
        (
            "add",
            Sysctl("net.ipv4.ip_local_port_range", "1024 65535"),
            ['ip netns exec article.w1 sysctl -w net.ipv4.ip_local_port_range="1024 65535"'],
        ),
        ("delete", Sysctl("net.ipv4.ip_forward", "1"), ["# net.ipv4.ip_forward stays as it is"]),
        (
            "change",
            Restore("*nat\n-X KUBE-A\nCOMMIT\n"),
            [
                "ip netns exec article.w1 iptables-restore --noflush --counters <<'EOF'\n"
                "*nat\n-X KUBE-A\nCOMMIT\nEOF"
            ],
        ),
    ],
)
def test_commands(verb: Verb, value: Value, expected: list[str]) -> None:
    assert list(commands(Op(verb, "w1", value), "article.")) == expected


def test_commands_for_a_veth_pair_act_in_both_namespaces() -> None:
    pair = VethPair(ETH0, VETH1)
    assert commands(Op("add", "default.b", pair), "article.") == (
        f"ip -n article.default.b link add eth0 mtu 1450 address {MAC} type veth "
        "peer name veth1 mtu 1450 netns article.w1",
        "ip -n article.w1 link set veth1 master cni0",
        "bridge -n article.w1 link set dev veth1 hairpin on",
        "ip -n article.w1 link set veth1 up",
        "ip netns exec article.default.b sysctl -w net.ipv4.conf.eth0.arp_notify=1",
        "ip -n article.default.b link set eth0 up",
    )


def test_commands_on_the_host_name_no_namespace() -> None:
    assert commands(Op("add", "", ADDRESS), "article.") == ("ip addr add 10.0.0.9/24 brd + dev eth0",)
    assert commands(Op("add", "", Sysctl("a.b", "1")), "article.") == ("sysctl -w a.b=1",)
