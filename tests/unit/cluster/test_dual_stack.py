"""Both families: what nodes, pods, services and endpoints say of them."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from nsk8s.api.types import Obj
from nsk8s.cluster.endpoints import SLICES
from nsk8s.errors import ApiError
from tests.unit.cluster.kubelets import Dialogue
from tests.unit.cluster.worlds import World, dual_stack, pod, service, three_nodes

FIRST, FIRST6 = "10.96.1.1", "fd00:96::101"
"""What is given out first: the lowest of the dynamic band."""


def spec(world: World, name: str = "web") -> dict[str, Any]:
    found: dict[str, Any] = world.get("services", name)["spec"]
    fields = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")
    return {field: found.get(field) for field in fields}


def change(world: World, **fields: Any) -> None:  # noqa: ANN401  # of a Service's spec
    world.registry.patch("services", "default", "web", {"spec": fields}, "merge")
    world.settle()


def test_nodes_say_both_of_their_addresses_and_networks() -> None:
    node = World(dual_stack()).get("nodes", "w1", "")
    assert (node["spec"]["podCIDR"], node["spec"]["podCIDRs"]) == (
        "10.244.1.0/24",
        ["10.244.1.0/24", "fd00:244:1::/64"],
    )
    assert node["status"]["addresses"] == [
        {"type": "InternalIP", "address": "172.18.0.3"},
        {"type": "InternalIP", "address": "fd00:18::3"},
        {"type": "Hostname", "address": "w1"},
    ]
    annotations = node["metadata"]["annotations"]
    assert annotations["flannel.alpha.coreos.com/public-ip"] == "172.18.0.3"
    assert annotations["flannel.alpha.coreos.com/public-ipv6"] == "fd00:18::3"
    assert annotations["flannel.alpha.coreos.com/backend-v6-data"] == '{"VNI":1}'


@pytest.mark.parametrize("host_network", [False, True])
def test_a_pod_has_an_address_of_each_family(host_network: bool) -> None:
    d = Dialogue(dual_stack())
    d.create(pod("p", nodeName="w1", hostNetwork=host_network))
    status = d.status()
    expected = ["172.18.0.3", "fd00:18::3"] if host_network else ["10.244.1.2", "fd00:244:1::2"]
    assert status["podIP"] == expected[0]
    assert [each["ip"] for each in status["podIPs"]] == expected
    assert status["hostIP"] == "172.18.0.3"
    assert [each["ip"] for each in status["hostIPs"]] == ["172.18.0.3", "fd00:18::3"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("SingleStack", ["IPv4"], [FIRST])),
        ({"ipFamilies": ["IPv6"]}, ("SingleStack", ["IPv6"], [FIRST6])),
        ({"ipFamilyPolicy": "PreferDualStack"}, ("PreferDualStack", ["IPv4", "IPv6"], [FIRST, FIRST6])),
        ({"ipFamilyPolicy": "RequireDualStack"}, ("RequireDualStack", ["IPv4", "IPv6"], [FIRST, FIRST6])),
        (
            {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]},
            ("PreferDualStack", ["IPv6", "IPv4"], [FIRST6, FIRST]),
        ),
        (
            {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]},
            ("RequireDualStack", ["IPv6", "IPv4"], [FIRST6, FIRST]),
        ),
        ({"clusterIP": "fd00:96::9"}, ("SingleStack", ["IPv6"], ["fd00:96::9"])),
        (
            {"clusterIP": "fd00:96::9", "ipFamilyPolicy": "PreferDualStack"},
            ("PreferDualStack", ["IPv6", "IPv4"], ["fd00:96::9", FIRST]),
        ),
        (
            {
                "clusterIP": "10.96.0.9",
                "clusterIPs": ["10.96.0.9", "fd00:96::9"],
                "ipFamilyPolicy": "RequireDualStack",
            },
            ("RequireDualStack", ["IPv4", "IPv6"], ["10.96.0.9", "fd00:96::9"]),
        ),
        ({"clusterIP": "None"}, ("SingleStack", ["IPv4"], ["None"])),
        ({"clusterIP": "None", "selector": None}, ("RequireDualStack", ["IPv4", "IPv6"], ["None"])),
    ],
)
def test_a_service_gets_the_families_it_asks_for(
    given: dict[str, Any], expected: tuple[str, list[str], list[str]]
) -> None:
    world = World(dual_stack())
    world.create(service("web", **given))
    policy, families, ips = expected
    assert spec(world) == {
        "clusterIP": ips[0],
        "clusterIPs": ips,
        "ipFamilies": families,
        "ipFamilyPolicy": policy,
    }


@pytest.mark.parametrize(
    ("given", "families"),
    [
        ({"ipFamilyPolicy": "PreferDualStack"}, ["IPv4"]),
        ({"clusterIP": "None", "selector": None}, ["IPv4", "IPv6"]),
    ],
)
def test_on_a_cluster_of_one_family(given: dict[str, Any], families: list[str]) -> None:
    world = World()
    world.create(service("web", **given))
    assert spec(world)["ipFamilies"] == families


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (
            {"ipFamilyPolicy": "RequireDualStack"},
            'spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for '
            "dual-stack services",
        ),
        (
            {"ipFamilies": ["IPv6"]},
            'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster',
        ),
        (
            {"clusterIP": "fd00:96::9"},
            'spec.clusterIPs[0]: Invalid value: []string{"fd00:96::9"}: '
            "IPv6 is not configured on this cluster",
        ),
    ],
)
def test_what_a_cluster_of_one_family_cannot_give(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ApiError) as refused:
        World().create(service("web", **given))
    assert why in refused.value.message


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (
            {"ipFamilies": ["IPv4", "IPv6"]},
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or "
            "'PreferDualStack' when multiple IP families are specified",
        ),
        (
            {"ipFamilyPolicy": "Both"},
            'spec.ipFamilyPolicy: Unsupported value: "Both": supported values: "PreferDualStack", '
            '"RequireDualStack", "SingleStack"',
        ),
        ({"ipFamilies": ["IPv5"]}, 'spec.ipFamilies[0]: Unsupported value: "IPv5"'),
        ({"ipFamilies": ["IPv4", "IPv4"]}, 'spec.ipFamilies[1]: Duplicate value: "IPv4"'),
        (
            {"ipFamilies": ["IPv4"], "clusterIP": "fd00:96::9"},
            'spec.clusterIPs[0]: Invalid value: "fd00:96::9": expected an IPv4 value as indicated by '
            "`ipFamilies[0]`",
        ),
        (
            {"clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.9"]},
            "first value must match `clusterIP`",
        ),
        ({"clusterIPs": ["10.96.0.9"]}, "must be empty when `clusterIP` is not specified"),
        (
            {"clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8", "10.96.0.9"]},
            "may specify no more than one IP for each IP family",
        ),
        (
            {"clusterIP": "None", "clusterIPs": ["None", "10.96.0.9"]},
            "'None' must be the first and only value",
        ),
    ],
)
def test_families_that_make_no_sense(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ApiError) as refused:
        World(dual_stack()).create(service("web", **given))
    assert why in refused.value.message


def test_a_second_family_comes_and_goes_and_the_first_stays() -> None:
    world = World(dual_stack())
    world.create(service("web"))
    change(world, ipFamilyPolicy="PreferDualStack")
    assert spec(world)["clusterIPs"] == [FIRST, FIRST6]
    assert spec(world)["ipFamilies"] == ["IPv4", "IPv6"]
    world.create(service("other", ipFamilyPolicy="RequireDualStack"))
    assert spec(world, "other")["clusterIPs"] == ["10.96.1.2", "fd00:96::102"]
    change(world, ipFamilyPolicy="SingleStack")
    assert (spec(world)["clusterIPs"], spec(world)["ipFamilies"]) == ([FIRST], ["IPv4"])
    world.create(service("third", ipFamilies=["IPv6"]))
    assert spec(world, "third")["clusterIP"] == FIRST6
    with pytest.raises(ApiError, match="expected an IPv6 value as indicated by"):
        change(world, ipFamilies=["IPv6"], clusterIP=None, clusterIPs=None)
    with pytest.raises(ApiError, match="may not change once set"):
        change(world, ipFamilies=["IPv6"], clusterIP="fd00:96::77", clusterIPs=["fd00:96::77"])
    change(world, ipFamilyPolicy="RequireDualStack")
    with pytest.raises(ApiError, match="must be 'SingleStack' to release the secondary cluster IP"):
        change(world, ipFamilies=["IPv4"], clusterIPs=[FIRST])


def test_a_cluster_that_loses_a_family_leaves_services_as_they_are() -> None:
    world = World(dual_stack())
    world.create(service("web", ipFamilyPolicy="PreferDualStack"))
    before = spec(world)
    smaller = World(three_nodes(), world.store)
    smaller.registry.patch("services", "default", "web", {"metadata": {"labels": {"a": "b"}}}, "merge")
    assert spec(smaller) == before
    change(smaller, ipFamilyPolicy="SingleStack")
    assert spec(smaller)["clusterIPs"] == [FIRST]


def test_a_node_port_is_one_number_for_both_families() -> None:
    world = World(dual_stack())
    made = world.create(service("web", type="NodePort", ipFamilyPolicy="PreferDualStack"))
    assert [port["nodePort"] for port in made["spec"]["ports"]] == [30086]


def test_the_api_server_is_served_in_the_primary_family_only() -> None:
    for families, ip, name in (
        (slice(None), "10.96.0.1", "IPv4"),
        (slice(None, None, -1), "fd00:96::1", "IPv6"),
    ):
        both = dual_stack()
        topology = replace(
            both,
            pod_cidrs=both.pod_cidrs[families],
            service_cidrs=both.service_cidrs[families],
            nodes=tuple(
                replace(n, addresses=n.addresses[families], pod_cidrs=n.pod_cidrs[families])
                for n in both.nodes
            ),
        )
        world = World(topology)
        assert spec(world, "kubernetes") == {
            "clusterIP": ip,
            "clusterIPs": [ip],
            "ipFamilies": [name],
            "ipFamilyPolicy": "SingleStack",
        }
        (piece,) = slices(world, "kubernetes")
        assert piece["addressType"] == name


def slices(world: World, name: str) -> list[Obj]:
    return list(world.store.select(SLICES, "default", {"kubernetes.io/service-name": name}))


def addresses(world: World) -> dict[str, list[str]]:
    return {
        piece["addressType"]: [ip for endpoint in piece["endpoints"] for ip in endpoint["addresses"]]
        for piece in slices(world, "web")
    }


def test_each_family_has_slices_of_its_own_and_endpoints_are_of_the_first() -> None:
    world = World(dual_stack())
    world.create(service("web", ipFamilyPolicy="PreferDualStack", ipFamilies=["IPv6"]))
    assert addresses(world) == {"IPv4": [], "IPv6": []}
    world.create(pod("p", {"app": "web"}))
    world.status(world.view("p"), ready=True, ip="10.244.1.2,fd00:244:1::2")
    world.settle()
    assert addresses(world) == {"IPv4": ["10.244.1.2"], "IPv6": ["fd00:244:1::2"]}
    (subset,) = world.get("endpoints", "web")["subsets"]
    assert [address["ip"] for address in subset["addresses"]] == ["fd00:244:1::2"]
    change(world, ipFamilyPolicy="SingleStack")
    assert addresses(world) == {"IPv6": ["fd00:244:1::2"]}


def test_endpoints_by_hand_are_mirrored_by_family() -> None:
    world = World(dual_stack())
    world.create(service("web", selector=None))
    hand: Obj = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "web", "namespace": "default"},
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}], "ports": [{"port": 80}]}],
    }
    world.create(hand)
    assert addresses(world) == {"IPv4": ["192.0.2.1"], "IPv6": ["2001:db8::1"]}


def test_a_cluster_of_ipv4_alone_knows_nothing_of_the_other() -> None:
    world = World(three_nodes())
    made = world.create(service("web"))
    assert (made["spec"]["ipFamilies"], made["spec"]["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    assert addresses(world) == {"IPv4": []}
