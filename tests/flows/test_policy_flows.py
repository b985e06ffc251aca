"""What the policy rules do to a packet, against what the policies mean, in every cell of the truth table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from nsk8s.api.defaults import default
from nsk8s.api.families import Family
from nsk8s.api.policytypes import ClusterNetworkPolicy, NetworkPolicy
from nsk8s.api.types import Namespace, Obj, Pod
from nsk8s.api.views import view
from nsk8s.cluster.policy import World, decide, pod_party
from nsk8s.dataplane.policy import PolicyRules
from nsk8s.linux.nftables import Tables
from tests import policies
from tests.flows.policy_walk import Packet, passes

NODES = ("n1", "n2")
ADDRESSES = {name: f"10.244.{i % 2}.{i + 2}" for i, name in enumerate(policies.PODS)}
IPV6 = {name: f"fd00:10:244:{i % 2 + 1}::{i + 2:x}" for i, name in enumerate(policies.PODS)}
BY_FAMILY: dict[Family, dict[str, str]] = {4: ADDRESSES, 6: IPV6}


NODE_ADDRESS = "172.18.0.2"
"""Of a pod on its node's network."""


def views(objects: Sequence[Obj]) -> World:
    """The objects as the control plane sees them, the pods with their addresses."""
    found = []
    for obj in objects:
        if obj["kind"] == "Pod":
            name = f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
            ips = [ADDRESSES[name], IPV6[name]] if name in ADDRESSES else [NODE_ADDRESS]
            obj = {**obj, "status": {"podIP": ips[0], "podIPs": [{"ip": ip} for ip in ips]}}
        found.append(view(default(obj)))
    return World(
        {v.metadata.name: v.metadata.labels for v in found if isinstance(v, Namespace)},
        [v for v in found if isinstance(v, Pod)],
        [v for v in found if isinstance(v, NetworkPolicy)],
        [v for v in found if isinstance(v, ClusterNetworkPolicy)],
    )


def tables(rules: PolicyRules, world: World) -> Mapping[str, Tables]:
    return rules.tables(world.policies, world.cluster_policies, world.namespaces, world.pods)


def predicted(
    world: World, addresses: Mapping[str, str] = ADDRESSES
) -> dict[tuple[str, str, str, int], bool]:
    """The truth table that the objects mean."""
    names = {f"{p.metadata.namespace}/{p.metadata.name}": p for p in world.pods}
    parties = {name: pod_party(p, addresses[name]) for name, p in names.items()}
    return {
        (source, target, protocol, port): decide(
            world, parties[source], parties[target], protocol, port
        ).allowed
        for source, target, protocol, port in policies.CELLS
    }


def walked(
    world: World, held: Mapping[str, Tables], addresses: Mapping[str, str]
) -> dict[tuple[str, str, str, int], bool]:
    """The truth table that the rules make. A pod's packets to itself meet no rule."""
    nodes = {f"{p.metadata.namespace}/{p.metadata.name}": p.spec.nodeName for p in world.pods}
    return {
        (source, target, protocol, port): source == target
        or all(
            passes(held[node], Packet(addresses[source], addresses[target], protocol.lower(), port))
            for node in {nodes[source], nodes[target]}
        )
        for source, target, protocol, port in policies.CELLS
    }


CASES = {**policies.cases(), **policies.cluster_cases()}


@pytest.mark.parametrize("family", BY_FAMILY)
@pytest.mark.parametrize("case", CASES)
def test_rules_do_what_policies_mean(case: str, family: Family) -> None:
    addresses = BY_FAMILY[family]
    world = views([*policies.world(NODES), *CASES[case](addresses)])
    held = tables(PolicyRules(NODES, (4,) if family == 4 else (4, 6)), world)
    wanted, found = predicted(world, addresses), walked(world, held, addresses)
    assert {cell: allowed for cell, allowed in found.items() if wanted[cell] != allowed} == {}


def test_there_are_150_distinct_policies_that_deny_something_or_nothing() -> None:
    made = {repr(case(ADDRESSES)) for case in policies.cases().values()}
    assert len(made) == len(policies.cases())
    assert len(made) >= 150
    worlds = (views([*policies.world(NODES), *case(ADDRESSES)]) for case in policies.cases().values())
    shares = [sum(predicted(world).values()) / len(policies.CELLS) for world in worlds]
    assert 0 < shares.count(1.0) < 20
    assert min(shares) < 0.7
