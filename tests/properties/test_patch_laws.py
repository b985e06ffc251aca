"""Laws of patches, of sets of fields and of server-side apply, over random pods."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from nsk8s.api.defaults import without_nulls
from nsk8s.api.types import Obj
from nsk8s.cluster import fieldset, managedfields, serverside
from nsk8s.cluster.patch import Json, difference, merge
from nsk8s.cluster.strategic import strategic, three_way
from nsk8s.cluster.structure import structure_of

FOUND = structure_of("v1", "Pod")
assert FOUND is not None
POD = FOUND

words = st.sampled_from(["x", "y", "z"])
names = st.sampled_from(["a", "b", "c"])
texts = st.dictionaries(names, words, max_size=3)


def listed(items: st.SearchStrategy[Obj], key: str) -> st.SearchStrategy[list[Obj]]:
    return st.lists(items, max_size=3, unique_by=lambda item: str(item[key]))


def some(**fields: st.SearchStrategy[Json]) -> st.SearchStrategy[Obj]:
    return st.fixed_dictionaries({}, optional=fields)


def named(key: str = "name", **fields: st.SearchStrategy[Json]) -> st.SearchStrategy[Obj]:
    return st.fixed_dictionaries({key: names}, optional=fields)


PORTS = listed(
    st.fixed_dictionaries(
        {"containerPort": st.sampled_from([53, 80])},
        optional={"name": words, "protocol": st.sampled_from(["TCP", "UDP"])},
    ),
    "containerPort",
)
CONTAINERS = listed(
    named(
        image=words,
        env=listed(named(value=words), "name"),
        ports=PORTS,
        args=st.lists(words, max_size=2),
        resources=some(limits=texts),
    ),
    "name",
)
META = some(
    labels=texts,
    annotations=texts,
    finalizers=st.lists(words, max_size=3, unique=True),
    ownerReferences=listed(named("uid", name=words), "uid"),
)
SPEC = some(
    containers=CONTAINERS,
    initContainers=CONTAINERS,
    nodeSelector=texts,
    tolerations=st.lists(some(key=words, effect=words), max_size=2),
    volumes=listed(named(emptyDir=st.just({}), hostPath=some(path=words)), "name"),
    dnsPolicy=words,
)
PODS = st.builds(
    lambda meta, spec: {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", **meta},
        "spec": spec,
    },
    META,
    SPEC,
)
FIELDS = PODS.map(lambda pod: fieldset.of(pod, POD))
"""Random sets of fields."""


# --- patches ----------------------------------------------------------------------------------------


@given(PODS, PODS)
def test_a_difference_makes_the_one_of_the_other(before: Obj, after: Obj) -> None:
    assert merge(before, difference(before, after)) == after


@given(PODS)
def test_what_is_there_already_changes_nothing(pod: Obj) -> None:
    assert strategic(pod, pod, POD) == pod
    assert strategic(pod, {}, POD) == pod
    assert three_way(pod, pod, pod, POD) == pod
    assert three_way({}, pod, pod, POD) == pod


@given(PODS, PODS)
def test_an_apply_to_what_the_last_one_made_gives_what_is_wanted(original: Obj, modified: Obj) -> None:
    found = three_way(original, modified, original, POD)
    assert pruned(found) == pruned(modified)


@given(PODS, PODS, PODS)
def test_an_apply_done_twice_changes_nothing_more(original: Obj, modified: Obj, current: Obj) -> None:
    once = three_way(original, modified, current, POD)
    assert three_way(modified, modified, once, POD) == once
    assert contains(once, modified)


def pruned(value: Json) -> Json:
    """Without what is empty: a list or map that loses its last entry may stay, empty."""
    if isinstance(value, dict):
        kept = {name: pruned(item) for name, item in value.items()}
        return {name: item for name, item in kept.items() if item not in ({}, [])}
    return [pruned(item) for item in value] if isinstance(value, list) else value


def contains(whole: Json, part: Json) -> bool:
    """Whether all of `part` is in `whole`; items of lists in any order, among others."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(item in ({}, []) or contains(whole.get(name), item) for name, item in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return all(any(contains(one, item) for one in whole) for item in part)
    return bool(whole == part)


# --- sets of fields ---------------------------------------------------------------------------------


@given(FIELDS, FIELDS)
def test_sets_are_sets(one: fieldset.Fields, other: fieldset.Fields) -> None:
    members, others = set(fieldset.paths(one)), set(fieldset.paths(other))
    assert set(fieldset.paths(fieldset.union(one, other))) == members | others
    assert set(fieldset.paths(fieldset.intersection(one, other))) == members & others
    assert set(fieldset.paths(fieldset.difference(one, other))) == members - others


@given(FIELDS)
def test_sets_can_be_read_back(fields: fieldset.Fields) -> None:
    assert fieldset.read(fields) == fields
    assert fieldset.difference(fields, fields) == {}
    assert fieldset.union(fields, {}) == fields == fieldset.intersection(fields, fields)


@given(PODS, PODS)
def test_a_comparison_backwards_finds_what_came_gone(old: Obj, new: Obj) -> None:
    gone, come = fieldset.compare(old, new, POD)
    lost, found = fieldset.compare(new, old, POD)
    changed, back = set(fieldset.paths(come)), set(fieldset.paths(found))
    assert set(fieldset.paths(gone)) <= back
    assert set(fieldset.paths(lost)) <= changed
    assert fieldset.compare(old, old, POD) == ({}, {})


# --- server-side apply ------------------------------------------------------------------------------


class Live:
    """An object, and who owns its fields."""

    def __init__(self) -> None:
        self.obj: Obj = {"apiVersion": "v1", "kind": "Pod"}
        self.seconds = 0

    def apply(self, config: Obj, manager: str, *, force: bool = True) -> Obj:
        self.seconds += 1
        writer = managedfields.Writer(manager, "v1", "", f"2026-11-23T20:33:{self.seconds:02}Z")
        new, managed = serverside.apply(self.obj, config, POD, writer, force=force)
        new = without_nulls(new)
        meta = {**new["metadata"], "managedFields": managedfields.encode(managed)}
        if not meta["managedFields"]:
            del meta["managedFields"]
        self.obj = {**new, "metadata": meta}
        return self.obj

    def owned(self, manager: str) -> fieldset.Fields:
        entries = managedfields.decode(self.obj["metadata"].get("managedFields"))
        return next((entry.fields for who, entry in entries.items() if who.manager == manager), {})


@given(PODS, PODS)
def test_a_forced_apply_succeeds_and_its_manager_owns_all_of_it(first: Obj, second: Obj) -> None:
    live = Live()
    live.apply(first, "one")
    assert contains(live.apply(second, "two"), second)
    wanted = fieldset.difference(fieldset.of(second, POD), managedfields.OWNERLESS)
    assert live.owned("two") == wanted


@given(PODS, PODS)
def test_applied_twice_is_applied_once(first: Obj, second: Obj) -> None:
    live = Live()
    live.apply(first, "one")
    once = live.apply(second, "two")
    again = live.apply(second, "two", force=False)
    assert managedfields.same(once["metadata"].get("managedFields"), again["metadata"].get("managedFields"))
    assert again["spec"] == once["spec"]


def with_limits(limits: Obj) -> Obj:
    """A pod whose init container has these."""
    container = {"name": "b", "image": "x", "resources": {"limits": limits}}
    spec = {"containers": [], "initContainers": [container]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": spec,
    }


@given(PODS, PODS)
@example(with_limits({"a": "x"}), with_limits({}))
def test_a_manager_who_applies_nothing_leaves_nothing_of_its_own(config: Obj, others: Obj) -> None:
    """What it leaves somebody else has too, or it is around that: a map whose last item is removed goes as
    well (structured-merge-diff makes it null in typed/remove.go; the newest keeps it), and leaves the one
    around it empty."""
    live = Live()
    live.apply(others, "other")
    before = live.owned("other")
    live.apply(config, "me")
    bare = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}, "spec": {}}
    live.apply(bare, "me")
    shared = fieldset.difference(before, live.owned("other"))
    mine = fieldset.difference(fieldset.of(live.obj, POD), fieldset.of(others, POD))
    mine = fieldset.difference(mine, managedfields.OWNERLESS)
    around = {path[:length] for path in fieldset.paths(before) for length in range(1, len(path))}
    assert (
        set(fieldset.paths(mine))
        <= {("f:metadata", "f:managedFields"), ("f:spec",)} | set(fieldset.paths(shared)) | around
    )


@given(
    st.dictionaries(st.sampled_from(["a", "b"]), words), st.dictionaries(st.sampled_from(["c", "d"]), words)
)
def test_managers_of_different_fields_do_not_meet(left: Obj, right: Obj) -> None:
    def config(labels: Obj) -> Obj:
        meta = {"name": "p", "namespace": "default", "labels": labels}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"dnsPolicy": "x"}}

    one, other = Live(), Live()
    one.apply(config(left), "l", force=False)
    one.apply(config(right), "r", force=False)
    other.apply(config(right), "r", force=False)
    other.apply(config(left), "l", force=False)
    assert one.obj["metadata"].get("labels") == other.obj["metadata"].get("labels")
    assert [one.owned(who) for who in "lr"] == [other.owned(who) for who in "lr"]
