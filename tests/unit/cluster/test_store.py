from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pytest

from nsk8s.api.types import Obj
from nsk8s.cluster import store as stores
from nsk8s.cluster.store import Change, Cursor, Key, Store
from nsk8s.errors import ApiError
from tests.unit.cluster.worlds import NOW, new_store


def config(name: str, labels: dict[str, str] | None = None, **fields: object) -> Obj:
    meta = {"name": name, "namespace": "default", **({"labels": labels} if labels else {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, **fields}


class Memory:
    """A journal that can fail."""

    def __init__(self) -> None:
        self.written: list[Change] = []
        self.broken = False

    def load(self) -> tuple[int, Iterable[tuple[str, Obj]]]:
        return 7, [("configmaps", config("old", {"a": "b"}))]

    def write(self, revision: int, changes: Sequence[Change], encoded: Callable[[Obj], bytes]) -> None:
        if self.broken:
            raise OSError("disk full")
        self.written += changes


def test_a_new_object_gets_what_the_server_gives() -> None:
    meta = new_store().create("configmaps", config("a"))["metadata"]
    assert meta["uid"]
    assert (meta["resourceVersion"], meta["creationTimestamp"]) == ("1", NOW)
    assert "generation" not in meta


def test_a_generated_name_avoids_those_that_exist() -> None:
    suffixes = iter(["xxxxx", "xxxxx", "yyyyy"])
    store = Store(stores.NoJournal(), uid=lambda: "u", suffix=lambda: next(suffixes), now=lambda: NOW)
    made = [
        store.create("configmaps", {"metadata": {"generateName": "a-", "namespace": "default"}})
        for _ in range(2)
    ]
    assert [obj["metadata"]["name"] for obj in made] == ["a-xxxxx", "a-yyyyy"]


def test_errors_speak_as_the_api_server_does() -> None:
    store = new_store()
    store.create("configmaps", config("a"))
    with pytest.raises(ApiError, match='configmaps "a" already exists') as twice:
        store.create("configmaps", config("a"))
    with pytest.raises(ApiError, match='configmaps "b" not found') as absent:
        store.find("configmaps", "default", "b")
    stale = config("a")
    stale["metadata"]["resourceVersion"] = "99"
    with pytest.raises(ApiError, match="the object has been modified") as conflict:
        store.update("configmaps", stale)
    assert (twice.value.code, absent.value.code, conflict.value.code) == (409, 404, 409)


def test_generation_grows_with_spec_only() -> None:
    store = new_store()
    made = store.create("deployments.apps", config("a", spec={"n": 1}))
    relabelled = store.update("deployments.apps", config("a", {"x": "y"}, spec={"n": 1}))
    respecced = store.update("deployments.apps", config("a", {"x": "y"}, spec={"n": 2}))
    assert [one["metadata"]["generation"] for one in (made, relabelled, respecced)] == [1, 1, 2]


def test_a_kind_whose_specs_nobody_numbers_has_no_generation() -> None:
    store = new_store()
    store.create("services", config("a", spec={"n": 1}))
    changed = store.update("services", config("a", spec={"n": 2}))
    assert "generation" not in changed["metadata"]


def test_an_update_that_changes_nothing_is_none() -> None:
    store = new_store()
    made = store.create("configmaps", config("a"))
    assert store.update("configmaps", config("a")) is made
    assert store.revision == 1


def test_labels_are_found_by_index_after_every_kind_of_change() -> None:
    store = new_store()
    for name in ("b", "a", "c"):
        store.create("configmaps", config(name, {"app": "x", "tier": name}))
    store.update("configmaps", config("c", {"app": "y"}))
    store.delete("configmaps", "default", "b")

    def names(**labels: str) -> list[str]:
        return [o["metadata"]["name"] for o in store.select("configmaps", "default", labels)]

    assert names(app="x") == ["a"]
    assert names(app="y") == ["c"]
    assert names(app="x", tier="b") == []
    assert names() == []


def test_changing_objects_while_listing_them_is_safe() -> None:
    store = new_store()
    for name in "abc":
        store.create("configmaps", config(name, {"app": "x"}))
    for obj in store.list("configmaps"):
        store.delete("configmaps", "default", obj["metadata"]["name"])
    assert store.count("configmaps") == 0
    assert store.resources() == ()


def test_changes_are_read_before_and_after_they_are_committed() -> None:
    store = new_store()
    for name in "abcd":
        store.create("configmaps", config(name))
        if name == "b":
            store.commit()
    assert [c.key.name for c in store.changes(0)] == ["a", "b", "c", "d"]
    assert [c.key.name for c in store.changes(1)] == ["b", "c", "d"]
    assert [c.key.name for c in store.changes(3)] == ["d"]
    assert store.changes(4) == ()
    assert [c.key.name for c in store.since(1)] == ["b"]


def test_a_cursor_reads_each_change_once() -> None:
    store = new_store()
    cursor = Cursor(store)
    assert cursor.read() is None
    store.create("configmaps", config("a"))
    store.commit()
    store.create("configmaps", config("b"))
    assert [c.key.name for c in cursor.read() or ()] == ["a", "b"]
    assert cursor.read() == ()


def test_a_cursor_that_missed_too_much_starts_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "LOG_LENGTH", 2)
    store = new_store()
    cursor = Cursor(store)
    cursor.read()
    for name in "abcde":
        store.create("configmaps", config(name))
        store.commit()
    with pytest.raises(ApiError, match="too old resource version") as expired:
        store.since(1)
    assert expired.value.code == 410
    assert [c.key.name for c in store.since(3)] == ["d", "e"]
    assert cursor.read() is None


def test_a_rollback_leaves_the_store_as_it_was() -> None:
    store = new_store()
    store.create("configmaps", config("kept", {"app": "x"}))
    store.create("configmaps", config("deleted", {"app": "x"}))
    store.commit()
    before = list(store.list("configmaps"))
    cursor = Cursor(store)
    cursor.read()
    store.create("configmaps", config("new", {"app": "x"}))
    store.update("configmaps", config("kept", {"app": "y"}))
    store.update("configmaps", config("kept", {"app": "z"}))
    store.delete("configmaps", "default", "deleted")
    store.rollback()
    assert list(store.list("configmaps")) == before
    assert list(store.select("configmaps", "default", {"app": "x"})) == list(reversed(before))[::-1]
    assert store.pending() == ()
    assert cursor.read() is None
    assert int(store.create("configmaps", config("later"))["metadata"]["resourceVersion"]) == 7


def test_what_the_journal_refuses_stays_pending() -> None:
    journal = Memory()
    store = new_store(journal)
    assert [o["metadata"]["name"] for o in store.select("configmaps", "default", {"a": "b"})] == ["old"]
    store.create("configmaps", config("a"))
    journal.broken = True
    with pytest.raises(OSError, match="disk full"):
        store.commit()
    assert [c.key.name for c in store.pending()] == ["a"]
    journal.broken = False
    store.commit()
    assert [(c.key.name, c.revision) for c in journal.written] == [("a", 8)]


def test_views_follow_their_objects() -> None:
    store = new_store()
    key = Key("pods", "default", "p")
    obj: Obj = {"kind": "Pod", "metadata": {"name": "p", "namespace": "default"}, "spec": {"nodeName": "a"}}
    store.create("pods", obj)
    first = store.view(key)
    assert store.view(key) is first
    store.update("pods", {**obj, "spec": {"nodeName": "b"}})
    assert store.view(key) is not first
    store.delete("pods", "default", "p")
    assert store.view(key) is None
