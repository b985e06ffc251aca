from __future__ import annotations

import pytest
from msgspec.structs import replace

from nsk8s.api.topology import ClientTopology, NodeTopology, Topology
from nsk8s.api.types import ContainerPort
from nsk8s.dataplane.compiler import ClusterView, Compiler
from nsk8s.linux.values import Address, FdbEntry, Link, Neighbour, Peer, Route, Vxlan
from tests.flows.views import TOPOLOGY, compiled, pod, rules, service, view

WEB = service("web", "10.96.0.10", "10.244.1.2")
LOCAL = service("local", "10.96.0.11", "10.244.1.2", node_port=30080, external="Local")


def test_names_come_in_order() -> None:
    names = list(compiled(pods=(pod("a", "10.244.1.2"), pod("h", "10.244.2.2", host_network=True))))
    assert names == ["fabric", "n1", "n2", "external", "default.a"]


def test_pod() -> None:
    states = compiled(pods=(pod("a", "10.244.1.2"),))
    state = states["default.a"]
    (eth0,) = state.links
    outer = states["n1"].links[-1]
    assert (eth0.name, eth0.mtu, eth0.mac, eth0.index) == ("eth0", 1450, "0a:58:0a:f4:01:02", 2)
    assert eth0.conf == (("arp_notify", 1),)
    assert eth0.peer == Peer("n1", outer.name)
    assert (outer.peer, outer.master, outer.hairpin, outer.mtu, outer.index) == (
        None,
        "cni0",
        True,
        1450,
        102,
    )
    assert state.addresses == {Address("eth0", "10.244.1.2/24")}
    assert state.routes == {
        Route("default", "eth0", via="10.244.1.1"),
        Route("10.244.0.0/16", "eth0", via="10.244.1.1"),
    }
    assert state.hostname == "a"
    assert state.neighbours == frozenset()


def test_a_long_pod_name_gives_a_host_name_of_63_characters() -> None:
    name = "x" * 62 + ".y"
    assert compiled(pods=(pod(name, "10.244.1.2"),))[f"default.{name}"].hostname == "x" * 62


def test_node() -> None:
    state = compiled()["n1"]
    eth0, cni0, tunnel = state.links
    assert (eth0.mtu, eth0.mac, eth0.peer) == (1500, "02:42:ac:12:00:0b", Peer("fabric", "n1"))
    assert (cni0.kind, cni0.mtu, cni0.mac) == ("bridge", 1450, "0a:58:0a:f4:01:01")
    assert tunnel == Link(
        "flannel.1", "vxlan", 1450, mac="0e:f1:0a:f4:01:00", vxlan=Vxlan(1, 8472, "172.18.0.11", "eth0")
    )
    assert state.addresses == {
        Address("eth0", "172.18.0.11/24"),
        Address("cni0", "10.244.1.1/24"),
        Address("flannel.1", "10.244.1.0/32"),
    }
    assert state.routes == {
        Route("default", "eth0", via="172.18.0.1"),
        Route("10.244.2.0/24", "flannel.1", via="10.244.2.0", onlink=True),
    }
    assert state.neighbours == {Neighbour("flannel.1", "10.244.2.0", "0e:f1:0a:f4:02:00")}
    assert state.fdb == {FdbEntry("flannel.1", "0e:f1:0a:f4:02:00", "172.18.0.12")}
    assert {(s.key, s.value) for s in state.sysctls} == {
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.conf.all.route_localnet", "1"),
        ("net.ipv4.conf.all.rp_filter", "2"),
        ("net.bridge.bridge-nf-call-iptables", "1"),
    }


def test_fabric_and_client() -> None:
    states = compiled()
    bridge, *ports = states["fabric"].links
    assert (bridge.name, bridge.kind, bridge.mtu) == ("br0", "bridge", 1500)
    assert [port.name for port in ports] == ["n1", "n2", "external"]
    assert all(port.master == "br0" and not port.hairpin and port.mac for port in ports)
    assert states["fabric"].addresses == {Address("br0", "172.18.0.1/24")}
    assert {(s.key, s.value) for s in states["fabric"].sysctls} == {
        ("net.ipv4.ip_forward", "0"),
        ("net.bridge.bridge-nf-call-iptables", "0"),
    }
    client = states["external"]
    assert client.links[0].peer == Peer("fabric", "external")
    assert client.routes == {Route("default", "eth0", via="172.18.0.1")}


def test_every_inner_end_finds_its_outer_end() -> None:
    states = compiled(pods=(pod("a", "10.244.1.2"), pod("b", "10.244.2.2")))
    inner = [link for state in states.values() for link in state.links if link.peer]
    assert len(inner) == 5
    for link in inner:
        assert link.peer
        assert [e.kind for e in states[link.peer.namespace].links if e.name == link.peer.name] == ["veth"]


def test_device_numbers_are_unique_in_a_namespace() -> None:
    states = compiled(pods=tuple(pod(f"p{n}", f"10.244.1.{n}") for n in range(2, 30)))
    for state in states.values():
        numbers = [link.index for link in state.links]
        assert len(set(numbers)) == len(numbers)


def test_host_access_is_one_link() -> None:
    states = Compiler(replace(TOPOLOGY, host_access=True)).compile(ClusterView())
    (link,) = states[""].links
    assert (link.name, link.peer) == ("nsk8s-t", Peer("fabric", "host"))
    assert states[""].addresses == {Address("nsk8s-t", "172.18.0.254/24")}
    assert not states[""].routes
    assert not states[""].sysctls
    assert not states[""].rules.tables
    assert "host" in [port.name for port in states["fabric"].links]


def test_no_host_access_no_host() -> None:
    assert "" not in compiled()


def test_the_same_view_gives_the_same_objects() -> None:
    compiler, same = Compiler(TOPOLOGY), view(WEB, LOCAL, pods=(pod("a", "10.244.1.2"),))
    first, second = compiler.compile(same), compiler.compile(same)
    assert all(first[name] is second[name] for name in first)


def test_a_pod_object_that_only_changed_its_status_changes_nothing() -> None:
    compiler = Compiler(TOPOLOGY)
    first = compiler.compile(view(pods=(pod("a", "10.244.1.2"),)))
    second = compiler.compile(view(pods=(pod("a", "10.244.1.2"),)))
    assert first["default.a"] is second["default.a"]
    assert first["n1"] is second["n1"]


def test_a_pod_again_under_the_same_name_is_another() -> None:
    compiler = Compiler(TOPOLOGY)
    first = compiler.compile(view(pods=(pod("a", "10.244.1.2", uid="1"),)))
    second = compiler.compile(view(pods=(pod("a", "10.244.1.2", uid="2"),)))
    assert first["default.a"] != second["default.a"]


def test_one_more_endpoint_leaves_the_other_chains_as_they_are() -> None:
    compiler = Compiler(TOPOLOGY)
    grown = service("web", "10.96.0.10", "10.244.1.2", "10.244.2.2")
    before = compiler.compile(view(WEB, LOCAL))["n1"].rules.tables["nat"]
    after = compiler.compile(view(grown, LOCAL))["n1"].rules.tables["nat"]
    changed = {name for name in after if after[name] is not before.get(name)}
    new_sep = "KUBE-SEP-" + "".join(
        name[9:] for name in after if name.startswith("KUBE-SEP") and name not in before
    )
    (svc,) = (name for name in changed if name.startswith("KUBE-SVC"))
    assert changed - {"KUBE-SERVICES", "KUBE-NODEPORTS"} == {svc, new_sep}


def test_nodes_share_what_is_alike() -> None:
    states = compiled(WEB)
    one, two = (states[name].rules.tables["nat"] for name in ("n1", "n2"))
    assert {name for name in one if one[name] is not two[name]} == {"FLANNEL-POSTRTG"}


def test_what_a_compiler_remembers_does_not_show() -> None:
    """Any way to the same view ends in the same states."""
    views = [
        view(WEB, pods=(pod("a", "10.244.1.2"),)),
        view(LOCAL, WEB, pods=(pod("b", "10.244.2.2"), pod("a", "10.244.1.2"))),
        view(service("web", "10.96.0.10"), pods=()),
        view(service("web", "10.96.0.10", "10.244.2.2", internal="Local")),
    ]
    for last in views:
        compiler = Compiler(TOPOLOGY)
        for each in views:
            compiler.compile(each)
        assert compiler.compile(last) == Compiler(TOPOLOGY).compile(last)


def test_services_stand_in_the_order_of_their_names() -> None:
    assert compiled(WEB, LOCAL)["n1"] == compiled(LOCAL, WEB)["n1"]


@pytest.mark.parametrize(("count", "permanent"), [(254, False), (255, True)])
def test_neighbours_are_permanent_in_a_crowd(count: int, permanent: bool) -> None:
    pods = tuple(pod(f"p{n}", f"10.244.{1 + n % 2}.{2 + n // 2}") for n in range(count))
    states = compiled(pods=pods)
    assert (
        Neighbour("eth0", "10.244.1.1", "0a:58:0a:f4:01:01") in states["default.p0"].neighbours
    ) is permanent
    assert (Neighbour("cni0", "10.244.1.2", "0a:58:0a:f4:01:02") in states["n1"].neighbours) is permanent
    assert (Neighbour("eth0", "172.18.0.12", "02:42:ac:12:00:0c") in states["n1"].neighbours) is permanent


def test_host_ports() -> None:
    ports = (
        ContainerPort(containerPort=80, hostPort=8080),
        ContainerPort(containerPort=53, hostPort=5353, protocol="UDP", hostIP="172.18.0.11"),
    )
    states = compiled(pods=(pod("a", "10.244.1.2", *ports, uid="1"),))
    cid = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    chain = "CNI-DN-d246377ed358f08c11247"
    entry = f'-m comment --comment "dnat name: \\"cbr0\\" id: \\"{cid}\\"" -m multiport --dports'
    assert rules(states["n1"], "nat", "CNI-HOSTPORT-DNAT") == (
        f"-p tcp {entry} 8080 -j {chain}",
        f"-p udp {entry} 5353 -j {chain}",
    )
    assert rules(states["n1"], "nat", chain) == (
        "-s 10.244.1.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK",
        "-s 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK",
        "-p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.244.1.2:80",
        "-s 10.244.1.0/24 -d 172.18.0.11/32 -p udp -m udp --dport 5353 -j CNI-HOSTPORT-SETMARK",
        "-s 127.0.0.1/32 -d 172.18.0.11/32 -p udp -m udp --dport 5353 -j CNI-HOSTPORT-SETMARK",
        "-d 172.18.0.11/32 -p udp -m udp --dport 5353 -j DNAT --to-destination 10.244.1.2:53",
    )
    postrouting = states["n1"].rules.tables["nat"]["POSTROUTING"]
    assert [rule.rpartition(" ")[2] for rule in postrouting.rules] == [
        "CNI-HOSTPORT-MASQ",
        "KUBE-POSTROUTING",
        "FLANNEL-POSTRTG",
    ]
    assert postrouting.top == 2
    assert [rule.rpartition(" ")[2] for rule in rules(states["n1"], "nat", "OUTPUT")] == [
        "KUBE-SERVICES",
        "CNI-HOSTPORT-DNAT",
    ]
    assert "CNI-HOSTPORT-DNAT" not in states["n2"].rules.tables["nat"]


def test_udp_frontends_name_their_serving_backends() -> None:
    compiler = Compiler(TOPOLOGY)
    udp = service(
        "dns",
        "10.96.0.10",
        *("10.244.1.2", "10.244.1.3 terminating", "10.244.2.2 gone"),
        port=53,
        protocol="UDP",
        node_port=30053,
        external_ips=("203.0.113.9",),
    )
    compiler.compile(
        view(udp, service("web", "10.96.0.11", "10.244.1.2"), service("idle", "10.96.0.12", protocol="UDP"))
    )
    serving = {("10.244.1.2", 8080), ("10.244.1.3", 8080)}
    assert compiler.udp_frontends() == {
        ("10.96.0.10", 53): serving,
        ("203.0.113.9", 53): serving,
        ("0.0.0.0", 30053): serving,
        ("10.96.0.12", 80): frozenset(),
    }


def test_flannel_masquerade_order() -> None:
    comment = '-m comment --comment "flanneld masq"'
    assert rules(compiled()["n1"], "nat", "FLANNEL-POSTRTG") == (
        f"-m mark --mark 0x4000/0x4000 {comment} -j RETURN",
        f"-s 10.244.1.0/24 -d 10.244.0.0/16 {comment} -j RETURN",
        f"-s 10.244.0.0/16 -d 10.244.1.0/24 {comment} -j RETURN",
        f"! -s 10.244.0.0/16 -d 10.244.1.0/24 {comment} -j RETURN",
        f"-s 10.244.0.0/16 ! -d 224.0.0.0/4 {comment} -j MASQUERADE --random-fully",
        f"! -s 10.244.0.0/16 -d 10.244.0.0/16 {comment} -j MASQUERADE --random-fully",
    )


def test_a_hundred_nodes_and_a_wide_underlay() -> None:
    nodes = tuple(
        NodeTopology(f"w{n}", "worker", (f"172.18.{n}.1",), (f"10.{n}.0.0/16",)) for n in range(1, 101)
    )
    topology = Topology(
        "big",
        nodes,
        (ClientTopology("c", ("172.18.200.7",)),),
        ("10.0.0.0/8",),
        node_cidrs=("172.18.0.0/16",),
    )
    states = Compiler(topology).compile(ClusterView())
    assert len(states["w7"].fdb) == 99
    assert Address("eth0", "172.18.7.1/16") in states["w7"].addresses
    assert Address("cni0", "10.7.0.1/16") in states["w7"].addresses
    assert len({link.index for link in states["fabric"].links}) == 102
