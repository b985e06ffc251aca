"""The order in which things come, change and go leaves nothing behind in the policy tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from nsk8s.cluster.policy import World
from nsk8s.dataplane.policy import PolicyRules
from nsk8s.linux.nftables import Tables, apply, transaction
from tests import policies
from tests.flows.test_policy_flows import ADDRESSES, CASES, NODES, tables, views

NAMES = sorted(CASES)
T = TypeVar("T")


def final(cases: Sequence[str]) -> World:
    objects = [*policies.world(NODES)]
    for i, case in enumerate(cases):
        for obj in CASES[case](ADDRESSES):
            meta = {**obj["metadata"], "name": f"{obj['metadata']['name']}-{i}"}
            objects.append({**obj, "metadata": meta})
    return views(objects)


def other_labels(pod: Any) -> Any:  # noqa: ANN401  # a view
    meta = msgspec.structs.replace(pod.metadata, labels={"pod": "b", "tier": "x"})
    return msgspec.structs.replace(pod, metadata=meta)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_order_of_arrival_ends_in_the_same_tables(data: st.DataObject) -> None:
    cases = data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5))
    world = final(cases)
    wanted = tables(PolicyRules(NODES, (4,)), world)
    rules = PolicyRules(NODES, (4,))
    held: dict[str, Tables] = {node: {} for node in NODES}
    steps = data.draw(st.integers(1, 6))
    for step in range(steps + 1):
        now = world
        if step < steps:  # some are not there yet, some are otherwise
            some: Callable[[Sequence[Any]], list[Any]] = lambda all_: data.draw(  # noqa: E731
                st.lists(st.sampled_from(all_), unique_by=id) if all_ else st.just([])
            )
            pods = [other_labels(p) if data.draw(st.booleans()) else p for p in some(world.pods)]
            labels = {
                name: data.draw(st.sampled_from([{}, {"ns": "y"}, given_]))
                for name, given_ in world.namespaces.items()
            }
            now = World(labels, pods, some(world.policies), some(world.cluster_policies))
        made = tables(rules, now)
        for node in NODES:
            held[node] = apply(held[node], transaction(held[node], made[node]))
            assert held[node] == made[node]
    assert held == wanted


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5), st.randoms())
def test_the_order_of_objects_is_no_matter(cases: list[str], chance: Any) -> None:  # noqa: ANN401  # hypothesis'
    world = final(cases)

    def mixed(part: Sequence[T]) -> list[T]:
        return chance.sample(list(part), len(part))  # type: ignore[no-any-return]

    namespaces = dict(mixed(list(world.namespaces.items())))
    shuffled = World(namespaces, mixed(world.pods), mixed(world.policies), mixed(world.cluster_policies))
    assert tables(PolicyRules(NODES, (4,)), shuffled) == tables(PolicyRules(NODES, (4,)), world)


def test_what_nothing_has_changed_is_the_same_object() -> None:
    world = final(["default deny both", "egress to pod b anywhere"])
    rules = PolicyRules(NODES, (4, 6))
    first = tables(rules, world)
    again = tables(rules, World(world.namespaces, list(world.pods), list(world.policies)))
    assert all(first[node] is again[node] for node in NODES)


def test_a_pod_that_comes_changes_its_own_elements_alone() -> None:
    world = final(["default deny both", "ingress from pod b anywhere", "ingress from all pods here"])
    rules = PolicyRules(NODES, (4,))
    before = tables(rules, World(world.namespaces, world.pods[:-1], world.policies))
    after = tables(rules, world)
    address = world.pods[-1].status.podIP
    for node in NODES:
        commands = transaction(before[node], after[node])
        assert all(type(command.object).__name__ == "Elements" for command in commands), commands
        for command in commands:
            assert all(address in key for key in command.object.elements)  # type: ignore[union-attr]
