"""The laws of diff and apply, on machines that have little, much or nothing in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import reduce

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nsk8s.linux.state import Reading, apply, diff, ours, reading
from nsk8s.linux.values import Link, NamespaceState, Neighbour, Op, Route, Value, Vxlan
from tests.properties.machines import machines

Machine = Mapping[str, NamespaceState]
EXAMPLES = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def unordered(machine: Machine) -> dict[str, NamespaceState]:
    """Links by name: their order is how they were made, not what they are."""
    return {
        name: replace(state, links=tuple(sorted(state.links, key=lambda link: link.name)))
        for name, state in machine.items()
    }


@given(machines(), machines())
@EXAMPLES
def test_applying_the_difference_gives_the_desired_machine(actual: Machine, desired: Machine) -> None:
    assert unordered(reduce(apply, diff(actual, desired), actual)) == unordered(desired)


@given(machines())
@EXAMPLES
def test_nothing_is_to_be_done_for_what_is_there(machine: Machine) -> None:
    copy = {name: replace(state) for name, state in machine.items()}
    assert diff(machine, machine) == diff(machine, copy) == ()


@given(machines())
@EXAMPLES
def test_from_nothing_and_to_nothing(machine: Machine) -> None:
    assert unordered(reduce(apply, diff({}, machine), {})) == unordered(machine)
    assert {op.verb for op in diff({}, machine)} <= {"add"}
    assert reduce(apply, diff(machine, {}), machine) == {}


@given(machines(), st.data())
@EXAMPLES
def test_any_damage_is_repaired(desired: Machine, data: st.DataObject) -> None:
    """What somebody deletes takes along what depends on it, as in the kernel."""
    damaged = desired
    for _ in range(data.draw(st.integers(1, 3))):
        if victims := list(deletable(damaged)):
            damaged = apply(damaged, data.draw(st.sampled_from(victims)))
    assert unordered(reduce(apply, diff(damaged, desired), damaged)) == unordered(desired)


def deletable(machine: Machine) -> Iterator[Op]:
    for name, state in machine.items():
        values: list[Value] = [*state.links, *state.addresses, *state.routes, *state.neighbours, *state.fdb]
        yield from (Op("delete", name, value) for value in sorted(values, key=repr))


@given(machines(), machines())
@EXAMPLES
def test_what_others_made_is_left_alone(desired: Machine, others: Machine) -> None:
    """Foreign values stay; our own are found among them whatever the order, and nothing is left to do."""
    for name, state in desired.items():
        other = others.get(name, NamespaceState(name))
        held = {link.name: link for link in (*other.links, *state.links)}
        foreign = [link for link in held.values() if link.kind == "veth" and link not in state.links]
        tunnels = {link.name for link in state.links if link.kind == "vxlan"}
        seen = replace(
            state,
            links=(*(replace(link, master="") for link in foreign), *reversed(state.links)),
            addresses=state.addresses | other.addresses,
            routes=state.routes | {route for route in other.routes if route.dev not in tunnels},
            sysctls=state.sysctls | {s for s in other.sysctls if s.key not in keys(state)},
            hostname=state.hostname or "foreign",
        )
        seen = replace(
            seen,
            addresses=frozenset(v for v in seen.addresses if v in state.addresses or v.dev not in tunnels),
        )
        assert ours(seen, state) == state


def keys(state: NamespaceState) -> set[str]:
    return {sysctl.key for sysctl in state.sysctls}


@given(machines(), machines())
@EXAMPLES
def test_what_we_made_before_is_deleted(before: Machine, desired: Machine) -> None:
    for name in before.keys() & desired.keys():
        seen = ours(before[name], desired[name], before[name])
        assert seen.routes == before[name].routes
        assert {link.name for link in seen.links} == {link.name for link in before[name].links}


@given(machines(), machines(), machines())
@EXAMPLES
def test_what_need_not_be_read_would_not_be_ours(actual: Machine, desired: Machine, before: Machine) -> None:
    for name, state in desired.items():
        held, last = actual.get(name, NamespaceState(name)), before.get(name, state)
        wanted = reading(state, last)
        asked = {(one.dev, one.address) for one in wanted.neighbours or ()}
        read = replace(
            held,
            neighbours=held.neighbours
            if wanted.neighbours is None
            else frozenset(one for one in held.neighbours if (one.dev, one.address) in asked),
            routes=frozenset(r for r in held.routes if r.family == 4 or wanted.routes6),
        )
        assert ours(read, state, last) == ours(held, state, last)


def test_only_what_somebody_wants_is_read() -> None:
    pod = NamespaceState("p", routes=frozenset({Route("default", "eth0", "10.244.1.1")}))
    assert reading(pod, pod) == Reading(frozenset(), routes6=False)
    both = replace(pod, routes=pod.routes | {Route("default", "eth0", "fd00::1")})
    assert reading(both, pod) == reading(pod, both) == Reading(frozenset(), routes6=True)
    gateways = [Neighbour("eth0", f"10.244.1.{n}", "02:00:00:00:00:01") for n in (1, 2)]
    one, other = (replace(pod, neighbours=frozenset({gateway})) for gateway in gateways)
    assert reading(one, other) == Reading(frozenset(gateways), routes6=False)
    tunnel = Link("flannel.1", "vxlan", 1450, vxlan=Vxlan(1, 8472, "172.18.0.2", "eth0"))
    assert reading(replace(pod, links=(tunnel,)), pod) == Reading()
