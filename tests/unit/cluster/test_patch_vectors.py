"""What apimachinery 0.32.3 makes of random patches and applies, recorded from its own `strategicpatch` and
`managedfields.FieldManager`, and replayed.

``vectors/patches.jsonl.xz`` has one case a line: strategic merge patches, three-way merges, and sequences of
server-side applies and updates by several managers with the object, the field sets and the conflicts after
each. The field manager was given objects without Go types (as custom resources are), so nothing stands in
them that was not brought.
"""

from __future__ import annotations

import json
import lzma
from functools import cache
from pathlib import Path

import pytest

from nsk8s.api.defaults import without_nulls
from nsk8s.api.types import Obj
from nsk8s.cluster import managedfields, serverside
from nsk8s.cluster.patch import Json
from nsk8s.cluster.strategic import strategic, three_way
from nsk8s.cluster.structure import Structure, structure_of
from nsk8s.errors import ApiError

VECTORS = Path(__file__).parent / "vectors" / "patches.jsonl.xz"


@cache
def cases(mode: str) -> list[Obj]:
    lines = lzma.decompress(VECTORS.read_bytes()).splitlines()
    return [case for case in map(json.loads, lines) if case["mode"] == mode]


def structure(case: Obj) -> Structure:
    found = structure_of(case["version"], case["kind"])
    assert found is not None
    return found


def test_strategic_merge_patches() -> None:
    for case in cases("patch"):
        found = strategic(case["original"], case["patch"], structure(case))
        assert without_nulls(found) == case["result"], json.dumps(case)


def test_three_way_merges() -> None:
    for case in cases("apply"):
        found = three_way(case["original"], case["modified"], case["current"], structure(case))
        assert without_nulls(found) == case["result"], json.dumps(case)


def test_applies_and_updates_of_several_managers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Structure, "standing", frozenset())
    for case in cases("manage"):
        first = case["steps"][0]["obj"]
        live: Obj = {"apiVersion": first["apiVersion"], "kind": first["kind"]}
        for second, step in enumerate(case["steps"]):
            writer = managedfields.Writer(
                step["manager"], case["version"], "", f"2026-11-23T20:33:{second:02}Z"
            )
            try:
                live = taken(live, step, structure(case), writer)
            except ApiError as error:
                told = sorted(f"{cause.what} {cause.path}" for cause in error.causes)
                assert told == step.get("conflicts"), json.dumps(case)
                continue
            assert "conflicts" not in step, json.dumps(case)
            assert bare(live) == step["object"], json.dumps(case)
            owned = live["metadata"].get("managedFields", [])
            assert sorted_sets(
                [[one["manager"], one["operation"], one["fieldsV1"]] for one in owned]
            ) == sorted_sets(step["managed"]), json.dumps(case)


def taken(live: Obj, step: Obj, of: Structure, writer: managedfields.Writer) -> Obj:
    """The object after one step, as it is stored."""
    if step["op"] == "apply":
        new, managed = serverside.apply(live, step["obj"], of, writer, force=step["force"])
        entries = managedfields.encode(managed)
    else:
        new = step["obj"]
        old = live if "metadata" in live else None
        entries = managedfields.updated(old, new, None, of, writer)
    new = without_nulls(new)
    meta = {**new["metadata"], "uid": "u", "managedFields": entries}
    if not entries:
        del meta["managedFields"]
    return {**new, "metadata": meta}


def bare(obj: Obj) -> Obj:
    meta = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    return {**obj, "metadata": meta}


def sorted_sets(sets: Json) -> Json:
    return sorted(sets, key=lambda one: one[:2])
