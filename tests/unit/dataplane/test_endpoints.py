from __future__ import annotations

import pytest

from nsk8s.api.types import Endpoint, EndpointConditions, EndpointPort, EndpointSlice, ObjectMeta
from nsk8s.dataplane.endpoints import choose, collect, watched
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
