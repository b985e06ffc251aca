"""Verdicts: who decided, by which rule; the ends that are no pods. The truth tables are in tests/flows."""

from __future__ import annotations

import pytest

from nsk8s.cluster.policy import Party, World, decide, pod_party
from tests import policies
from tests.flows.test_policy_flows import ADDRESSES, NODES, views
from tests.policies import labels, one_way, policy, rule, tiered

NOBODY = Party("address 192.0.2.1", "192.0.2.1")
NODE1, NODE2 = Party("node n1", "10.244.0.0", "n1"), Party("node n2", "10.244.1.0", "n2")


def world(*more: policies.Obj) -> World:
    return views([*policies.world(NODES), *more])


def party(of: World, name: str) -> Party:
    return next(pod_party(p) for p in of.pods if f"{p.metadata.namespace}/{p.metadata.name}" == name)


def test_a_verdict_names_the_policy_the_rule_and_the_peer() -> None:
    found = world(
        policy(
            "two",
            types=["Ingress"],
            ingress=[
                {"from": [{"podSelector": labels(pod="c")}]},
                {"from": [{"podSelector": labels(pod="q")}, {"podSelector": labels(pod="b")}]},
            ],
        )
    )
    said = decide(found, party(found, "x/b"), party(found, "x/a"), "TCP", 80)
    assert (said.allowed, said.by.direction, said.by.why) == (True, "Ingress", "by NetworkPolicy x/two")
    assert (said.by.path, said.by.peer) == ("spec.ingress[1]", "spec.ingress[1].from[1]")
    said = decide(found, party(found, "y/b"), party(found, "x/a"), "TCP", 80)
    assert (said.allowed, said.by.path) == (False, "")
    assert said.by.why == "no rule of NetworkPolicy x/two allows it, and what selects a pod isolates it"
    said = decide(found, party(found, "x/a"), party(found, "y/a"), "TCP", 80)
    assert (said.allowed, said.by.policy) == (True, None)
    assert said.by.why == "no policy isolates pod x/a for egress"


def test_egress_is_asked_first() -> None:
    found = world(policy("out", {}, types=["Egress"]), policy("in", {}, namespace="y", types=["Ingress"]))
    said = decide(found, party(found, "x/a"), party(found, "y/a"), "TCP", 80)
    assert (said.by.direction, said.egress.allowed, said.ingress.allowed) == ("Egress", False, False)


def test_a_pod_and_its_node_always_reach_each_other() -> None:
    found = world(policy("deny", {}, types=["Ingress", "Egress"]))
    a = party(found, "x/a")
    assert a.node == "n1"
    assert decide(found, NODE1, a, "TCP", 80).allowed
    assert decide(found, a, NODE1, "TCP", 10250).allowed
    assert not decide(found, NODE2, a, "TCP", 80).allowed
    assert not decide(found, a, NODE2, "TCP", 10250).allowed
    assert not decide(found, NOBODY, a, "TCP", 80).allowed
    assert decide(found, NODE2, NOBODY, "TCP", 80).allowed


def test_a_pod_reaches_its_own_address_and_itself_through_a_service_as_anybody() -> None:
    found = world(policy("deny", {}, types=["Ingress"]))
    a = party(found, "x/a")
    assert decide(found, a, a, "TCP", 80).allowed
    assert not decide(found, a, a, "TCP", 80, through_service=True).allowed


def test_a_node_is_matched_by_its_address_alone() -> None:
    selected = world(*one_way("ingress", [{"from": [{"namespaceSelector": {}}]}])({}))
    assert not decide(selected, NODE2, party(selected, "x/a"), "TCP", 80).allowed
    by_address = world(*one_way("ingress", [{"from": [{"ipBlock": {"cidr": "10.244.1.0/32"}}]}])({}))
    assert decide(by_address, NODE2, party(by_address, "x/a"), "TCP", 80).allowed


def test_a_pod_on_its_nodes_network_is_the_node() -> None:
    found = world(
        policies.pod("x/h", "n1", hostNetwork=True), policy("deny", {}, types=["Ingress", "Egress"])
    )
    host = party(found, "x/h")
    assert host.pod is None
    assert decide(found, host, party(found, "x/a"), "TCP", 80).allowed
    assert not decide(found, host, party(found, "x/b"), "TCP", 80).allowed  # on the other node
    assert decide(found, party(found, "y/a"), host, "TCP", 80).allowed  # nobody isolates it


@pytest.mark.parametrize(
    ("protocol", "wanted"), [("TCP", False), ("UDP", False), ("SCTP", True), ("ICMP", False)]
)
def test_a_protocol_alone(protocol: str, wanted: bool) -> None:
    found = world(*one_way("ingress", [{"ports": [{"protocol": "SCTP"}]}])({}))
    assert decide(found, party(found, "y/b"), party(found, "x/a"), protocol, 80).allowed is wanted


def test_what_has_no_ports_passes_rules_without_ports() -> None:
    found = world(*one_way("ingress", [{"from": [{"podSelector": {}}]}])({}))
    assert decide(found, party(found, "x/b"), party(found, "x/a"), "ICMP").allowed
    assert not decide(found, party(found, "y/b"), party(found, "x/a"), "ICMP").allowed


def test_a_named_port_is_the_one_of_the_pod_that_is_reached_and_of_no_address() -> None:
    named = [{"port": "serve-80-tcp"}]
    to_pods = world(*one_way("egress", [{"to": [{"namespaceSelector": {}}], "ports": named}])({}))
    assert decide(to_pods, party(to_pods, "x/a"), party(to_pods, "y/a"), "TCP", 80).allowed
    assert not decide(to_pods, party(to_pods, "x/a"), party(to_pods, "y/a"), "TCP", 81).allowed
    to_all = [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": named}]
    to_addresses = world(*one_way("egress", to_all)({}))
    assert not decide(to_addresses, party(to_addresses, "x/a"), party(to_addresses, "y/a"), "TCP", 80).allowed
    assert not decide(to_addresses, party(to_addresses, "x/a"), NOBODY, "TCP", 80).allowed


def test_tiers_and_the_name_of_what_denies() -> None:
    everybody: policies.Obj = {"namespaces": {}}
    found = world(
        tiered("late", "Admin", 9, everybody, ingress=[rule("Accept", "from", everybody)]),
        tiered(
            "early", "Admin", 1, everybody, ingress=[rule("Deny", "from", {"namespaces": labels(ns="y")})]
        ),
    )
    said = decide(found, party(found, "y/a"), party(found, "x/a"), "TCP", 80)
    assert (said.allowed, said.by.why) == (False, "by ClusterNetworkPolicy early (Admin, 1)")
    assert said.by.peer == "spec.ingress[0].from[0]"
    said = decide(found, party(found, "z/a"), party(found, "x/a"), "TCP", 80)
    assert (said.allowed, said.by.why) == (True, "by ClusterNetworkPolicy late (Admin, 9)")


def test_addresses_of_the_other_family_are_in_no_network() -> None:
    found = world(*one_way("egress", [{"to": [{"ipBlock": {"cidr": "::/0"}}]}])({}))
    a = party(found, "x/a")
    assert not decide(found, a, NOBODY, "TCP", 80).allowed
    assert decide(found, a, Party("address 2001:db8::1", "2001:db8::1"), "TCP", 80).allowed


def test_every_pod_has_an_address() -> None:
    assert set(ADDRESSES) == set(policies.PODS)
