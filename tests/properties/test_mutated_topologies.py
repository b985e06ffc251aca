"""Whatever is done to a topology file, reading it succeeds or says what is wrong; it never breaks."""

from __future__ import annotations

import copy
import tempfile
from importlib.resources import files
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nsk8s.api import manifest
from nsk8s.errors import ManifestError, Problem

EXAMPLES = files("nsk8s").joinpath("examples")
SOURCES = [
    EXAMPLES.joinpath(name).read_bytes()
    for name in (
        "minimal.yaml",
        "services.yaml",
        "two-zones.yaml",
        "hostport.yaml",
        "dual-stack.yaml",
        "article/topology.yaml",
    )
]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(
        ["10.244.0.0/16", "10.96.0.0/33", "0.0.0.0/0", "255.255.255.255/32", "1.2.3.4/5/6", "::/0"]
    ),
    st.sampled_from(
        [
            "fabric",
            "n1",
            "None",
            "control-plane",
            "NodePort",
            "v1",
            "Cluster",
            "Pod",
            "List",
            "172.18.0.1",
            "٣",
        ]
    ),
    st.sampled_from(["", "a" * 300]),
    st.just([]),
    st.just({}),
    st.just([None]),
    st.just({"name": None}),
    st.just([[[]]]),
    st.dictionaries(st.sampled_from(["name", "spec", "items", "port", "", "a b"]), st.integers(-1, 99999)),
)
TOKENS = [b"\xff", b"\x00", b"\xef\xbb\xbf", b"\xc2\x85", b"\r", b"\t", b"---\n", b"%YAML 9.9\n"] + [
    token + b" " for token in rb"""&a *a { } [ ] : - ? | > " ' # !!binary !!python/object:os <<:""".split()
]
quick = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


def survives(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(data)
        file.flush()
        problems: tuple[Problem, ...] = ()
        try:
            found = manifest.read([file.name])
            assert found.objects or found.topology
            assert (found.topology is None) == (found.cluster is None)
        except ManifestError as error:
            problems = error.problems
            assert len(problems) > 0
        assert all(p.file == file.name and p.line >= 1 and p.column >= 1 and p.what for p in problems)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # noqa: ANN401 - YAML
    """The path of everything in a document."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, item in inside for place in places(item, (*path, key))]


@quick
@given(st.data())
def test_mutated_structure(data: st.DataObject) -> None:
    documents = [d for d in yaml.safe_load_all(data.draw(st.sampled_from(SOURCES))) if d]
    for _ in range(data.draw(st.integers(1, 4))):
        possible = places(documents)
        if not possible:
            break
        *parents, last = data.draw(st.sampled_from(possible))
        holder: Any = documents
        for step in parents:
            holder = holder[step]
        match data.draw(st.sampled_from(["set", "delete", "copy", "rename", "swap"])):
            case "set":
                holder[last] = copy.deepcopy(data.draw(ODD))
            case "delete":
                del holder[last]
            case "copy" if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[last]))
            case "rename" if isinstance(holder, dict):
                holder[data.draw(st.one_of(st.text(max_size=4), st.integers(), st.just(f"{last}s")))] = (
                    holder.pop(last)
                )
            case _:
                other = data.draw(st.sampled_from(possible))
                value: Any = documents
                for step in other:
                    value = value[step] if isinstance(value, dict | list) else value
                holder[last] = copy.deepcopy(value)
    survives(yaml.safe_dump_all(documents, allow_unicode=True).encode())


@quick
@given(st.data())
def test_mutated_bytes(data: st.DataObject) -> None:
    text = bytearray(data.draw(st.sampled_from(SOURCES)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(text)))
        piece = data.draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=3)))
        text[at : at + data.draw(st.sampled_from([0, 0, 1, 4, 40]))] = piece
    survives(bytes(text))


@quick
@given(st.binary(max_size=60))
def test_any_bytes_at_all(data: bytes) -> None:
    survives(data + b"\na: b\n")
