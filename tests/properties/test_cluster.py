"""Laws of the control plane, whatever comes and in whatever order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from nsk8s.api.types import Obj
from nsk8s.cluster.ipam import AddressesExhausted, Ipam, room
from nsk8s.cluster.patch import Json
from nsk8s.cluster.store import Key, Store, key_of
from tests.unit.cluster.test_daemonsets import daemon_set
from tests.unit.cluster.test_jobs import job
from tests.unit.cluster.test_statefulsets import stateful_set
from tests.unit.cluster.worlds import World, deployment, new_store, pod, service, three_nodes

NAMES = st.sampled_from("abcd")
LABELS = st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from("12"), max_size=2)
STEPS = st.lists(
    st.tuples(st.sampled_from(["create", "update", "delete", "commit", "rollback"]), NAMES, LABELS),
    max_size=40,
)


def recomputed(store: Store) -> tuple[dict[Any, set[str]], dict[str, set[Key]]]:
    labels: dict[Any, set[str]] = {}
    owned: dict[str, set[Key]] = {}
    for obj in store.list("pods"):
        meta = obj["metadata"]
        for item in (meta.get("labels") or {}).items():
            labels.setdefault(item, set()).add(meta["name"])
        for ref in meta.get("ownerReferences") or ():
            owned.setdefault(ref["uid"], set()).add(key_of("pods", obj))
    return labels, owned


@given(STEPS)
def test_indexes_equal_a_recomputation(steps: list[tuple[str, str, dict[str, str]]]) -> None:
    store = new_store()
    committed: list[Obj] = []
    for verb, name, labels in steps:
        refs = [{"uid": uid} for uid in labels.values()]
        meta = {"name": name, "namespace": "default", "labels": labels, "ownerReferences": refs}
        obj = {"kind": "Pod", "metadata": meta}
        exists = store.get("pods", "default", name) is not None
        if verb == "create" and not exists:
            store.create("pods", obj)
        elif verb == "update" and exists:
            store.update("pods", obj)
        elif verb == "delete" and exists:
            store.delete("pods", "default", name)
        elif verb == "commit":
            store.commit()
            committed = list(store.list("pods"))
        elif verb == "rollback":
            store.rollback()
            assert list(store.list("pods")) == committed
        by_label, by_owner = recomputed(store)
        for item in itertools.product("xy", "12"):
            found = [o["metadata"]["name"] for o in store.select("pods", "default", dict([item]))]
            assert found == sorted(by_label.get(item, ()))
        for uid in "12":
            assert set(store.owned(uid)) == by_owner.get(uid, set())
    assert [c.revision for c in store.pending()] == sorted({c.revision for c in store.pending()})


@given(st.lists(st.tuples(st.sampled_from(["w1", "w2"]), st.booleans(), st.integers(0, 9)), max_size=60))
def test_no_address_is_given_twice(steps: list[tuple[str, bool, int]]) -> None:
    cidrs = {"w1": "10.244.1.0/29", "w2": "10.244.2.0/28"}
    ipam = Ipam(three_nodes(**{n: {"pod_cidrs": (c,)} for n, c in cidrs.items()}), ())
    held: dict[str, list[str]] = {"w1": [], "w2": []}
    for node, allocate, which in steps:
        if allocate:
            try:
                (ip,) = ipam.allocate(node)
            except AddressesExhausted:
                assert len(held[node]) == room((cidrs[node],))
                continue
            assert ip not in held[node]
            assert not ip.endswith((".0", ".1", ".7" if node == "w1" else ".15"))
            held[node].append(ip)
        elif held[node]:
            ipam.release(node, [held[node].pop(which % len(held[node]))])


def essence(world: World) -> list[tuple[str, str, str]]:
    """All objects but for what depends on the order of arrival: names made up, UIDs, revisions."""
    hidden = {
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "name",
        "generateName",
        "clusterIP",
        "clusterIPs",
    }
    hidden |= {
        "ownerReferences",
        "addresses",
        "nodeName",
        "notReadyAddresses",
        "endpoints",
        "nodePort",
        "podIP",
        "podIPs",
        "controller-uid",
        "batch.kubernetes.io/controller-uid",
    }

    def stripped(value: Json) -> str:
        if isinstance(value, dict):
            return str(sorted((k, stripped(v)) for k, v in value.items() if k not in hidden))
        if isinstance(value, list):
            return str([stripped(v) for v in value])
        return str(value)

    def counted(obj: Obj) -> object:
        pieces = obj.get("endpoints"), obj.get("subsets")
        ready = sum(e["conditions"]["ready"] for e in pieces[0] or ())
        return ready, sum(len(s.get("addresses", ())) for s in pieces[1] or ())

    return sorted(
        (r, stripped(o), str(counted(o)))
        for r in world.store.resources()
        if r != "events"  # they tell the way, not where it has led
        for o in world.store.list(r)
    )


OBJECTS: list[Callable[[], Obj]] = [
    lambda: deployment("a", 3),
    lambda: deployment("b", 2, minReadySeconds=0),
    lambda: service("a"),
    lambda: service("b", type="NodePort", ports=[{"port": 80, "nodePort": 30001}]),
    lambda: service("none"),
    lambda: pod("solo", {"app": "a"}),
    lambda: pod("never", nodeSelector={"no": "where"}),
    lambda: daemon_set("c"),
    lambda: stateful_set("d", 2),
    lambda: job("e", completions=2, parallelism=2),
    lambda: service("c", trafficDistribution="PreferSameNode"),
]


@settings(max_examples=25, deadline=None)
@given(st.permutations(OBJECTS), st.lists(st.booleans(), min_size=len(OBJECTS), max_size=len(OBJECTS)))
def test_the_order_of_arrival_does_not_matter(order: list[Callable[[], Obj]], waits: list[bool]) -> None:
    def played(makers: list[Callable[[], Obj]], pauses: list[bool]) -> list[tuple[str, str, str]]:
        world = World()
        for make, wait in zip(makers, pauses, strict=True):
            world.registry.create(make())
            if wait:
                world.finish()
        world.settle()
        world.finish()
        return essence(world)

    assert played(order, waits) == played(OBJECTS, [True] * len(OBJECTS))


@settings(max_examples=60, deadline=None)
@given(
    replicas=st.integers(1, 6),
    surge=st.integers(0, 3),
    unavailable=st.integers(0, 3),
    seed=st.integers(0, 2**32),
    changes=st.lists(st.integers(0, 30), max_size=3),
)
def test_a_rolling_update_keeps_its_bounds(
    replicas: int, surge: int, unavailable: int, seed: int, changes: list[int]
) -> None:
    """Pods become ready and end at any time; new versions come in between. At no time are there more pods
    than surge allows, nor does the controller itself take a pod away that availability needs."""
    if surge == 0 and unavailable == 0:
        unavailable = 1
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
    dice = random.Random(seed)
    world = World()
    world.apply(deployment("d", replicas, image="v0", strategy=strategy))
    world.make_ready()
    floor = replicas - min(unavailable, replicas)

    def available() -> int:
        return sum(p.ready for p in world.active())

    def check(before: int) -> None:
        assert len(world.active()) <= replicas + surge
        assert available() >= min(before, floor)

    for step in range(40):
        if step in changes:
            before = available()
            world.apply(deployment("d", replicas, image=f"v{step + 1}", strategy=strategy))
            check(before)
        for each in world.pods():
            roll = dice.random()
            if each.metadata.deletionTimestamp:
                if roll < 0.3:
                    world.store.delete("pods", "default", each.metadata.name)
            elif roll < 0.3:
                world.status(each, ready=dice.random() < 0.8)
        before = available()
        world.settle(1)
        check(before)
    world.finish()
    assert len(world.active()) == replicas
    assert len({p.spec.containers[0].image for p in world.active()}) == 1


@settings(max_examples=40, deadline=None)
@given(
    parallel=st.booleans(),
    seed=st.integers(0, 2**32),
    changes=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=4),
)
def test_a_stateful_set_never_skips_an_ordinal(
    parallel: bool, seed: int, changes: list[tuple[int, int]]
) -> None:
    """Pods become ready, fail and end at any time; the set is scaled and renewed in between. In order, no
    ordinal is made before all below it are there; in the end there is exactly what was asked for."""
    dice = random.Random(seed)
    policy = {"podManagementPolicy": "Parallel" if parallel else "OrderedReady"}
    world = World()
    world.apply(stateful_set("s", 3, "v", **policy))
    wanted, image = 3, "v"
    plan = dict(changes)
    for step in range(30):
        before = {p.metadata.name for p in world.pods()}
        if step in plan:
            wanted, image = plan[step], f"v{step}"
            world.apply(stateful_set("s", wanted, image, **policy))
        for each in world.pods():
            roll = dice.random()
            if each.metadata.deletionTimestamp:
                if roll < 0.3:
                    world.store.delete("pods", "default", each.metadata.name)
            elif roll < 0.3:
                world.status(each, ready=dice.random() < 0.8)
            elif roll < 0.35 and each.spec.nodeName:
                world.registry.delete("pods", "default", each.metadata.name)
        world.settle(1)
        made = {p.metadata.name for p in world.pods()} - before
        for name in () if parallel else made:
            ordinal = int(name.removeprefix("s-"))
            assert {f"s-{i}" for i in range(ordinal)} <= {p.metadata.name for p in world.pods()}
    world.finish()
    assert sorted(p.metadata.name for p in world.pods()) == [f"s-{i}" for i in range(wanted)]
    assert {p.spec.containers[0].image for p in world.pods()} <= {image}


@settings(max_examples=40, deadline=None)
@given(
    completions=st.integers(1, 6),
    parallelism=st.integers(1, 4),
    indexed=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_a_job_counts_every_pod_once(completions: int, parallelism: int, indexed: bool, seed: int) -> None:
    """Pods succeed, fail and are deleted at any time, before or after they were counted."""
    dice = random.Random(seed)
    world = World()
    world.tick()
    mode = "Indexed" if indexed else "NonIndexed"
    spec: Any = {"completions": completions, "parallelism": parallelism, "completionMode": mode}
    world.create(job("j", backoffLimit=1000, **spec))
    status: dict[str, Any] = {}
    for _ in range(400):
        status = world.get("jobs.batch", "j")["status"]
        active = world.active()
        assert len(active) <= parallelism
        assert status.get("succeeded", 0) + len(active) <= completions
        if any(c["type"] == "Complete" for c in status.get("conditions", ())):
            break
        for each in world.pods():
            roll = dice.random()
            if each.terminal or each.metadata.deletionTimestamp:
                if roll < 0.5:
                    world.registry.delete("pods", "default", each.metadata.name, grace=0)
            elif roll < 0.4:
                world.status(each, ready=False, phase="Succeeded")
            elif roll < 0.5:
                world.status(each, ready=False, phase="Failed")
            elif roll < 0.55:
                world.registry.delete("pods", "default", each.metadata.name)
        world.settle(dice.choice((1, 700)))
    else:
        raise AssertionError(f"it never ends: {status}")
    assert status["succeeded"] == completions
