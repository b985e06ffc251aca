from __future__ import annotations

import pytest

from nsk8s.api.types import (
    Endpoint,
    EndpointConditions,
    EndpointHints,
    EndpointPort,
    EndpointSlice,
    Hint,
    ObjectMeta,
)
from nsk8s.dataplane.endpoints import ProxyEndpoint, choose, collect, watched
from tests.flows.views import slice_of

HTTP = (EndpointPort(name="http", port=80),)


def test_order_is_that_of_the_text() -> None:
    found = collect([slice_of("web", ("10.244.1.3", "10.244.1.2", "10.244.1.22"), HTTP)])
    assert [e.address for e in found["http", "TCP"]] == ["10.244.1.22:80", "10.244.1.2:80", "10.244.1.3:80"]


def test_an_address_in_two_slices_counts_once() -> None:
    twice = [slice_of("web", ("10.244.1.2",), HTTP, suffix) for suffix in ("a", "b")]
    assert len(collect(twice)["http", "TCP"]) == 1


def test_each_slice_has_its_own_port_numbers() -> None:
    other = slice_of("web", ("10.244.2.2",), (EndpointPort(name="http", port=8080),), "b")
    found = collect([slice_of("web", ("10.244.1.2",), HTTP), other])
    assert [e.address for e in found["http", "TCP"]] == ["10.244.1.2:80", "10.244.2.2:8080"]


def test_ports_without_number_are_skipped_and_without_name_unnamed() -> None:
    ports = (EndpointPort(name="a"), EndpointPort(port=9))
    assert list(collect([slice_of("web", ("10.244.1.2",), ports)])) == [("", "TCP")]


def test_conditions_not_given_mean_ready() -> None:
    (only,) = collect([EndpointSlice(endpoints=(Endpoint(addresses=("10.0.0.1",)),), ports=HTTP)])[
        "http", "TCP"
    ]
    assert (only.ready, only.serving, only.terminating) == (True, True, False)


def test_not_ready_is_kept_for_the_count_but_not_used() -> None:
    conditions = EndpointConditions(ready=False)
    piece = EndpointSlice(endpoints=(Endpoint(addresses=("10.0.0.1",), conditions=conditions),), ports=HTTP)
    found = collect([piece])["http", "TCP"]
    assert len(found) == 1
    assert choose(found, "n1", cluster_policy=True, local_policy=True) == ((), (), (), False)


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        (EndpointSlice(), True),
        (EndpointSlice(addressType="IPv6"), False),
        (EndpointSlice(metadata=ObjectMeta(labels={"service.kubernetes.io/headless": ""})), False),
        (EndpointSlice(metadata=ObjectMeta(labels={"service.kubernetes.io/service-proxy-name": "x"})), False),
    ],
)
def test_watched(piece: EndpointSlice, expected: bool) -> None:
    assert watched(piece) is expected


def test_reachable_joins_both_policies_without_repeats() -> None:
    found = collect([slice_of("web", ("10.244.1.2 terminating", "10.244.2.2"), HTTP)])["http", "TCP"]
    choice = choose(found, "n1", cluster_policy=True, local_policy=True)
    assert [e.ip for e in choice.cluster] == ["10.244.2.2"]
    assert [e.ip for e in choice.local] == ["10.244.1.2"]
    assert [e.ip for e in choice.reachable] == ["10.244.1.2", "10.244.2.2"]
    assert choice.exist


def test_a_local_only_service_reaches_nothing_else() -> None:
    found = collect([slice_of("web", ("10.244.1.2", "10.244.2.2"), HTTP)])["http", "TCP"]
    choice = choose(found, "n2", cluster_policy=False, local_policy=True)
    assert choice.cluster == ()
    assert [e.ip for e in choice.reachable] == ["10.244.2.2"]


def hinted(last: int, node: str, zones: str = "", nodes: str = "", *, state: str = "ready") -> ProxyEndpoint:
    ip = f"10.244.0.{last}"
    ready, ending = state == "ready", state == "draining"
    serving = ready or ending
    return ProxyEndpoint(
        f"{ip}:80", ip, node, ready, serving, ending, tuple(zones.split()), tuple(nodes.split())
    )


NEAR_ZONE = [hinted(1, "n1", "a"), hinted(2, "n2", "a"), hinted(3, "n3", "b")]
NEAR_NODE = [hinted(1, "n1", "a", "n1"), hinted(2, "n2", "a", "n2"), hinted(3, "n3", "b", "n3")]


@pytest.mark.parametrize(
    ("why", "endpoints", "node", "zone", "used"),
    [
        ("its zone", NEAR_ZONE, "n1", "a", [1, 2]),
        ("the other zone", NEAR_ZONE, "n3", "b", [3]),
        ("no endpoint is meant for its zone", NEAR_ZONE, "n4", "c", [1, 2, 3]),
        ("the node is in no zone", NEAR_ZONE, "n4", "", [1, 2, 3]),
        ("its node", NEAR_NODE, "n1", "a", [1]),
        ("none on its node: its zone", NEAR_NODE, "n4", "a", [1, 2]),
        ("none on its node nor in its zone", NEAR_NODE, "n4", "c", [1, 2, 3]),
        ("one has no hint", [*NEAR_ZONE, hinted(4, "n4")], "n1", "a", [1, 2, 3, 4]),
        ("one has no hint for nodes: zones", [*NEAR_NODE, hinted(4, "n4", "a")], "n1", "a", [1, 2, 4]),
        ("unready ones need no hint", [*NEAR_ZONE, hinted(4, "n1", state="unready")], "n1", "a", [1, 2]),
        ("the zone's only one is unready", [NEAR_ZONE[0], hinted(3, "n3", "b", state="x")], "n3", "b", [1]),
        ("none is ready", [hinted(1, "n1", "a", state="draining"), hinted(3, "n3", "b", state="draining")],
         "n1", "a", [1, 3]),
        ("meant for several zones", [hinted(1, "n1", "a c"), hinted(3, "n3", "b c")], "n4", "c", [1, 3]),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) and " " in value else "",
)  # fmt: skip
def test_hints_choose_the_near_ones(
    why: str, endpoints: list[ProxyEndpoint], node: str, zone: str, used: list[int]
) -> None:
    choice = choose(endpoints, node, zone, cluster_policy=True, local_policy=False)
    assert [int(e.ip.rpartition(".")[2]) for e in choice.cluster] == used, why
    assert (choice.reachable, choice.exist) == (choice.cluster, True)


def test_hints_say_nothing_about_the_local_policy() -> None:
    endpoints = [hinted(1, "n1", "b"), hinted(2, "n2", "a")]
    choice = choose(endpoints, "n1", "a", cluster_policy=True, local_policy=True)
    assert [e.ip for e in choice.cluster] == ["10.244.0.2"]
    assert [e.ip for e in choice.local] == ["10.244.0.1"]
    assert [e.ip for e in choice.reachable] == ["10.244.0.1", "10.244.0.2"]


def test_hints_are_read_from_the_slice() -> None:
    hints = EndpointHints(forZones=(Hint("a"), Hint("b")), forNodes=(Hint("n1"),))
    piece = EndpointSlice(endpoints=(Endpoint(addresses=("10.0.0.1",), hints=hints),), ports=HTTP)
    (only,) = collect([piece])["http", "TCP"]
    assert (only.zones, only.nodes) == (("a", "b"), ("n1",))
