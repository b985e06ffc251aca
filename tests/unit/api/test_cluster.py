from __future__ import annotations

from typing import Any

import pytest

from nsk8s.api import cluster
from nsk8s.api.topology import DnsTopology, KubeProxy, Topology
from nsk8s.errors import ManifestError

PODS = "10.244.0.0/16,fd00:10:244::/56"


def document(**spec: Any) -> dict[str, Any]:  # noqa: ANN401 - the user's YAML
    return {"apiVersion": "nsk8s.dev/v1", "kind": "Cluster", "metadata": {"name": "lab"}, "spec": spec}


def problems(**spec: Any) -> list[str]:  # noqa: ANN401
    topology, found = cluster.read(document(**spec))
    assert (topology is None) == bool(found)
    return [str(problem) for problem in found]


def test_everything_in_spec_has_a_default() -> None:
    bare = {"apiVersion": "nsk8s.dev/v1", "kind": "Cluster", "metadata": {"name": "lab"}}
    topology = cluster.resolve(bare)
    assert [(n.name, n.role, n.address, n.pod_cidr, n.taints) for n in topology.nodes] == [
        ("n1", "control-plane", "172.18.0.2", "10.244.0.0/24", ())
    ]
    assert (topology.pod_cidr, topology.service_cidr, topology.node_cidr) == (
        "10.244.0.0/16",
        "10.96.0.0/16",
        "172.18.0.0/24",
    )
    assert topology == cluster.resolve(document(nodes=[{"name": "n1"}], podCIDR=None))


def test_the_articles_cluster() -> None:
    topology = cluster.resolve(
        document(
            podCIDR="192.168.0.0/16",
            nodes=[
                {"name": "master", "role": "control-plane"},
                {
                    "name": "w1",
                    "address": "172.18.0.61",
                    "podCIDR": "192.168.14.0/24",
                    "labels": {"zone": "a"},
                },
                {"name": "w2", "podCIDR": "192.168.0.0/24", "taints": []},
            ],
            clients=[{"name": "external"}],
            hostAccess=True,
            images={"repo/x*": {"command": ["serve"]}},
        )
    )
    assert [(n.name, n.role, n.address, n.pod_cidr) for n in topology.nodes] == [
        ("master", "control-plane", "172.18.0.2", "192.168.1.0/24"),
        ("w1", "worker", "172.18.0.61", "192.168.14.0/24"),
        ("w2", "worker", "172.18.0.3", "192.168.0.0/24"),
    ]
    assert topology.clients[0].address == "172.18.0.4"
    assert topology.nodes[1].labels == {"zone": "a"}
    assert topology.nodes[0].taints == (cluster.CONTROL_PLANE_TAINT,)
    assert topology.images == {"repo/x*": {"command": ["serve"]}}


@pytest.mark.parametrize(
    ("nodes", "roles", "tainted"),
    [
        ([{}, {}], ["control-plane", "worker"], [False, False]),
        ([{"role": "control-plane"}], ["control-plane"], [False]),
        ([{"role": "control-plane"}, {}], ["control-plane", "worker"], [True, False]),
        ([{"role": "control-plane", "taints": []}, {}], ["control-plane", "worker"], [False, False]),
        ([{"role": "control-plane"}, {"role": "control-plane"}], ["control-plane"] * 2, [False, False]),
        ([{"role": "worker"}, {}], ["worker", "control-plane"], [False, False]),
    ],
)
def test_roles(nodes: list[dict[str, Any]], roles: list[str], tainted: list[bool]) -> None:
    topology = cluster.resolve(document(nodes=[{"name": f"n{i}", **n} for i, n in enumerate(nodes)]))
    assert [n.role for n in topology.nodes] == roles
    assert [bool(n.taints) for n in topology.nodes] == tainted


def test_options_of_kube_proxy() -> None:
    assert cluster.resolve(document()).kube_proxy == KubeProxy()
    given = {
        "iptables": {"masqueradeAll": True, "localhostNodePorts": False},
        "detectLocalMode": "BridgeInterface",
        "detectLocal": {"bridgeInterface": "cni0"},
        "clusterCIDR": "",
        "nodePortAddresses": ["primary"],
        "conntrack": {"tcpBeLiberal": True},
    }
    assert cluster.resolve(document(kubeProxy=given)).kube_proxy == KubeProxy(
        masquerade_all=True,
        localhost_node_ports=False,
        detect_local_mode="BridgeInterface",
        cluster_cidr="",
        bridge_interface="cni0",
        node_port_addresses=("primary",),
        tcp_be_liberal=True,
    )
    # masqueradeAll is that of the mode in use
    assert not cluster.resolve(
        document(kubeProxy={"nftables": {"masqueradeAll": True}})
    ).kube_proxy.masquerade_all


def nodes(*given: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": f"n{i}", **node} for i, node in enumerate(given)]


@pytest.mark.parametrize(
    ("spec", "path", "what"),
    [
        ({"podCDIR": "10.0.0.0/16"}, "spec.podCDIR", 'unknown field; did you mean "podCIDR"?'),
        ({"nodes": [{"name": "a", "rol": "worker"}]}, "spec.nodes[0].rol", 'did you mean "role"?'),
        ({"nodes": [{}]}, "spec.nodes[0].name", "is missing"),
        ({"nodes": []}, "spec.nodes", "must not be empty"),
        ({"nodes": {"name": "a"}}, "spec.nodes", "must be a list, not a mapping"),
        ({"nodes": [{"name": 5}]}, "spec.nodes[0].name", "put it in quotes"),
        ({"nodes": [{"name": "Node_1"}]}, "spec.nodes[0].name", '"node-1" would do'),
        ({"nodes": [{"name": "a.b"}]}, "spec.nodes[0].name", "is not an RFC 1123 label"),
        ({"nodes": [{"name": "fabric"}]}, "spec.nodes[0].name", "the underlay's own namespace"),
        ({"nodes": [{"name": "a"}, {"name": "a"}]}, "spec.nodes[1].name", "Duplicate value"),
        ({"clients": [{"name": "n1"}]}, "spec.clients[0].name", "spec.nodes[0] has that name"),
        ({"nodes": nodes({"role": "worker"})}, "spec.nodes", "no node is the control plane"),
        ({"nodes": nodes({"role": "master"})}, "spec.nodes[0].role", "control-plane, worker"),
        ({"network": "calico"}, "spec.network", "what there is: vxlan; others come later"),
        (
            {"proxyMode": "ipvs"},
            "spec.proxyMode",
            "what there is: iptables, nftables, none; others come later",
        ),
        ({"hostAccess": "yes"}, "spec.hostAccess", "must be true or false"),
        ({"kubeProxy": {"masqueradeAll": True}}, "spec.kubeProxy.masqueradeAll", "unknown field"),
        (
            {"kubeProxy": {"iptables": {"masqueradeAll": "yes"}}},
            "spec.kubeProxy.iptables.masqueradeAll",
            "must be true or false",
        ),
        ({"kubeProxy": {"detectLocalMode": "NodeCidr"}}, "spec.kubeProxy.detectLocalMode", '"NodeCIDR"?'),
        (
            {"kubeProxy": {"detectLocalMode": "BridgeInterface"}},
            "spec.kubeProxy.detectLocal.bridgeInterface",
            "is missing; detectLocalMode BridgeInterface needs it",
        ),
        (
            {
                "kubeProxy": {
                    "detectLocalMode": "InterfaceNamePrefix",
                    "detectLocal": {"bridgeInterface": "cni0"},
                }
            },
            "spec.kubeProxy.detectLocal.interfaceNamePrefix",
            "is missing",
        ),
        ({"kubeProxy": {"clusterCIDR": "10.0.0.1/8"}}, "spec.kubeProxy.clusterCIDR", 'write "10.0.0.0/8"'),
        (
            {"kubeProxy": {"nodePortAddresses": ["172.18.0.0/24", "eth0"]}},
            "spec.kubeProxy.nodePortAddresses[1]",
            "is not a network",
        ),
        (
            {"kubeProxy": {"nodePortAddresses": ["primary", "10.0.0.0/8"]}},
            "spec.kubeProxy.nodePortAddresses[0]",
            "cannot stand beside others",
        ),
        ({"podCIDR": "10.244.0.0"}, "spec.podCIDR", 'add the prefix length: "10.244.0.0/24"?'),
        ({"podCIDR": "10.244.0.0/33"}, "spec.podCIDR", "is not an IPv4 network"),
        ({"podCIDR": "10.300.0.0/16"}, "spec.podCIDR", "is not an IPv4 network"),
        ({"podCIDR": "10.244.1.0/16"}, "spec.podCIDR", 'write "10.244.0.0/16"'),
        ({"podCIDR": "fd00::1/64"}, "spec.podCIDR", 'write "fd00::/64"'),
        ({"podCIDR": "fd00::/129"}, "spec.podCIDR", "is not an IPv6 network"),
        ({"podCIDR": "fe80::/64"}, "spec.podCIDR", "which is reserved"),
        ({"podCIDR": "10.1.0.0/16,10.2.0.0/16"}, "spec.podCIDR", "is of the same family as"),
        ({"podCIDR": ["10.1.0.0/16", "10.2.0.0/16"]}, "spec.podCIDR[1]", "one of each family"),
        ({"podCIDR": ["10.1.0.0/16", 6]}, "spec.podCIDR[1]", "must be a string"),
        ({"podCIDR": []}, "spec.podCIDR", "must not be empty"),
        ({"podCIDR": "10.1.0.0/16,fd01::/56,fd02::/56"}, "spec.podCIDR", "is not a network such as"),
        (
            {"podCIDR": PODS, "serviceCIDR": "10.96.0.0/16"},
            "spec.serviceCIDR",
            "has IPv4, and spec.podCIDR has IPv4 and IPv6",
        ),
        (
            {"podCIDR": PODS, "nodeCIDR": "fd01::/64,172.18.0.0/24"},
            "spec.nodeCIDR",
            "name the same families in the same order",
        ),
        (
            {"podCIDR": PODS, "nodeCIDR": "172.18.0.0/24,fd00:10:244:80::/64"},
            "spec.nodeCIDR",
            "overlaps podCIDR",
        ),
        (
            {"serviceCIDR": "10.96.0.0/16,fd00:10:96::/64"},
            "spec.serviceCIDR",
            "take a prefix from /108 to /124",
        ),
        ({"podCIDR": "10.244.0.0/16,fd00:10:244::/64", "nodes": nodes({}, {})}, "spec.podCIDR", "1 more /64"),
        (
            {"nodes": nodes({"address": "fd00::5"})},
            "spec.nodes[0].address",
            "is IPv6, and the cluster has none",
        ),
        ({"podCIDR": "fd00:10:244::/56", "hostAccess": True}, "spec.hostAccess", "the cluster has none"),
        ({"nodes": nodes({"address": "172.18.0.4,x"})}, "spec.nodes[0].address", "is not an address such as"),
        ({"podCIDR": "127.1.0.0/16"}, "spec.podCIDR", "which is reserved"),
        ({"podCIDR": "10.96.4.0/22"}, "spec.serviceCIDR", 'overlaps podCIDR "10.96.4.0/22"'),
        ({"nodeCIDR": "10.96.4.0/24"}, "spec.nodeCIDR", 'overlaps serviceCIDR "10.96.0.0/16"'),
        ({"serviceCIDR": "10.96.0.0/29"}, "spec.serviceCIDR", "is too small"),
        ({"serviceCIDR": "11.0.0.0/8"}, "spec.serviceCIDR", "is too large"),
        (
            {"podCIDR": "10.1.0.0/23", "nodes": nodes({}, {}, {})},
            "spec.podCIDR",
            "room for 2 more /24, and 3 of 3",
        ),
        ({"podCIDR": "10.1.0.0/25"}, "spec.podCIDR", "too small"),
        ({"nodeCIDR": "10.1.0.0/30"}, "spec.nodeCIDR", "too small: 0 addresses for 1 nodes and clients"),
        (
            {"nodes": nodes({"podCIDR": "10.1.0.0/24"})},
            "spec.nodes[0].podCIDR",
            "outside the cluster's podCIDR",
        ),
        ({"nodes": nodes({"podCIDR": "10.244.0.0/31"})}, "spec.nodes[0].podCIDR", "too small for any pod"),
        (
            {"nodes": nodes({"podCIDR": "10.244.0.0/22"}, {}, {"podCIDR": "10.244.3.0/24"})},
            "spec.nodes[2].podCIDR",
            'overlaps "10.244.0.0/22" of spec.nodes[0]',
        ),
        ({"nodes": nodes({"address": "10.9.9.9"})}, "spec.nodes[0].address", "outside nodeCIDR"),
        ({"nodes": nodes({"address": "172.18.0.1"})}, "spec.nodes[0].address", "the fabric's own address"),
        ({"nodes": nodes({"address": "172.18.0.254"})}, "spec.nodes[0].address", "the host's own address"),
        ({"nodes": nodes({"address": "172.18.0.255"})}, "spec.nodes[0].address", "no host's address"),
        (
            {"nodes": nodes({"address": "172.18.0.9"}, {"address": "172.18.0.9"})},
            "spec.nodes[1].address",
            "Duplicate",
        ),
        ({"nodes": nodes({"labels": {"a b": "c"}})}, "spec.nodes[0].labels[a b]", "name part must consist"),
        ({"nodes": nodes({"labels": {"a": 1}})}, "spec.nodes[0].labels[a]", "put it in quotes"),
        ({"nodes": nodes({"taints": [{"key": "a"}]})}, "spec.nodes[0].taints[0].effect", "is missing"),
        (
            {"nodes": nodes({"taints": [{"key": "a", "effect": "NoSchedul"}]})},
            "spec.nodes[0].taints[0].effect",
            'did you mean "NoSchedule"?',
        ),
        ({"images": {"x": {"cmd": []}}}, "spec.images[x].cmd", "unknown field"),
        ({"images": {"x": {"command": []}}}, "spec.images[x].command", "must not be empty"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(spec: dict[str, Any], path: str, what: str) -> None:
    found = problems(**spec)
    assert len(found) == 1, found
    assert found[0].startswith(f"{path}: ")
    assert what in found[0]


def test_dual_stack() -> None:
    topology = cluster.resolve(
        document(
            podCIDR=PODS,
            nodes=[
                {"name": "a"},
                {"name": "b", "address": ["fc00:f853:ccd:e793::9"], "podCIDR": "fd00:10:244:7::/64"},
                {"name": "c", "address": "172.18.0.9, fc00:f853:ccd:e793::2"},
            ],
            clients=[{"name": "out"}],
        )
    )
    assert topology.families == (4, 6)
    assert topology.service_cidrs == ("10.96.0.0/16", "fd00:10:96::/112")
    assert topology.node_cidrs == ("172.18.0.0/24", "fc00:f853:ccd:e793::/64")
    assert [(n.addresses, n.pod_cidrs) for n in topology.nodes] == [
        (("172.18.0.2", "fc00:f853:ccd:e793::3"), ("10.244.0.0/24", "fd00:10:244::/64")),
        (("172.18.0.3", "fc00:f853:ccd:e793::9"), ("10.244.1.0/24", "fd00:10:244:7::/64")),
        (("172.18.0.9", "fc00:f853:ccd:e793::2"), ("10.244.2.0/24", "fd00:10:244:1::/64")),
    ]
    assert topology.clients[0].addresses == ("172.18.0.4", "fc00:f853:ccd:e793::4")


@pytest.mark.parametrize(
    ("networks", "families"),
    [
        ({}, (4,)),
        ({"serviceCIDR": "fd00:10:96::/112"}, (6,)),
        ({"nodeCIDR": ["fd00:18::/64", "172.18.0.0/24"]}, (6, 4)),
    ],
)
def test_the_networks_that_are_given_say_which_families_there_are(
    networks: dict[str, Any], families: tuple[int, ...]
) -> None:
    topology = cluster.resolve(document(**networks))
    assert topology.families == families
    for addresses in (topology.service_cidrs, topology.node_cidrs, topology.nodes[0].addresses):
        assert tuple(6 if ":" in address else 4 for address in addresses) == families


def test_all_mistakes_at_once() -> None:
    found = problems(
        podCIDR="10.96.0.0/16",
        network="bgp",
        nodez=[],
        nodes=[{"name": "A"}, 3, {"name": "n1", "address": "1.2.3.4"}],
    )
    assert {line.partition(": ")[0] for line in found} == {
        "spec.serviceCIDR",
        "spec.network",
        "spec.nodez",
        "spec.nodes[0].name",
        "spec.nodes[1]",
        "spec.nodes[2].address",
    }


def test_resolve_raises_what_read_found() -> None:
    with pytest.raises(ManifestError, match="unknown field"):
        cluster.resolve(document(nope=1))


def test_a_host_route_that_collides_is_found_only_with_host_access() -> None:
    routes = [("172.18.0.0/16", "docker0"), ("172.18.0.0/24", "nsk8s-lab"), ("10.0.0.0/8", "eth0")]
    found = cluster.collisions(cluster.resolve(document(hostAccess=True)), routes, "nsk8s-lab")
    assert [str(p) for p in found] == [
        "spec.nodeCIDR: 172.18.0.0/24 collides with this host's own route 172.18.0.0/16 on docker0; "
        "choose another nodeCIDR, or set hostAccess: false"
    ]
    assert cluster.collisions(cluster.resolve(document()), routes) == []


def test_a_thousand_nodes_do_not_share_anything() -> None:
    topology: Topology = cluster.resolve(
        document(podCIDR="10.0.0.0/13", nodeCIDR="172.20.0.0/16", nodes=nodes(*({} for _ in range(1000))))
    )
    assert len({n.address for n in topology.nodes}) == len({n.pod_cidr for n in topology.nodes}) == 1000


def test_dns_has_two_pods_and_asks_nobody_else_unless_told() -> None:
    bare = cluster.resolve(document())
    assert bare.dns == DnsTopology(2, ())
    told = cluster.resolve(document(dns={"replicas": 0, "upstreams": ["172.18.0.3"]}))
    assert told.dns == DnsTopology(0, ("172.18.0.3",))


@pytest.mark.parametrize(
    ("dns", "said"),
    [
        ({"upstreams": ["8.8.8.8"]}, 'spec.dns.upstreams[0]: "8.8.8.8" is outside the emulated network'),
        ({"upstreams": ["172.18.0.300"]}, 'spec.dns.upstreams[0]: "172.18.0.300" is not an IP address'),
        ({"upstreams": ["ns1"]}, 'spec.dns.upstreams[0]: "ns1" is not an address such as'),
        ({"upstreams": ["172.18.0.3", "172.18.0.3"]}, 'spec.dns.upstreams[1]: Duplicate value: "172.18.0.3"'),
        ({"upstreams": ["172.18.0.3"] * 16}, "spec.dns.upstreams: must have at most 15 items"),
        ({"replicas": -1}, "spec.dns.replicas: -1 is not between 0 and 100"),
        ({"replicas": True}, "spec.dns.replicas: must be a whole number, not a boolean"),
        ({"replica": 1}, "spec.dns.replica: unknown field"),
        (False, "spec.dns: must be a mapping, not a boolean"),
    ],
)
def test_dns_that_cannot_be(dns: object, said: str) -> None:
    assert problems(dns=dns)[0].startswith(said)
