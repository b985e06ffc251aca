"""`nsk8s` prints what kubectl prints: recordings of the real one (see `kubectl.py`), replayed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsk8s.cli import lifecycle
from nsk8s.cli.main import run
from nsk8s.daemon import launch
from nsk8s.paths import ClusterPaths
from tests.unit.cli.kubectl import HERE, blocks, world


@pytest.fixture
def _standing(state: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(lifecycle, "need_root", lambda: None)
    monkeypatch.setattr(launch, "choose", lambda _: ClusterPaths("t"))
    monkeypatch.setattr(launch, "ensure", lambda _: False)
    with world():
        yield


@pytest.mark.usefixtures("_standing")
@pytest.mark.parametrize("recording", sorted(p.name for p in HERE.glob("*.kubectl")))
def test_as_kubectl(recording: str, capfd: pytest.CaptureFixture[str]) -> None:
    differences = []
    for command, told in blocks(recording):
        code = run(shlex.split(command))
        out, err = capfd.readouterr()
        err = "".join(line for line in err.splitlines(keepends=True) if not line.startswith("hint: "))
        if (code, out, err) != told:
            differences.append(
                f"$ {command}\n--- kubectl\n{told.out}{told.err}? {told.code}\n"
                f"--- nsk8s\n{out}{err}? {code}\n"
            )
    assert not differences, "\n".join(differences)


@pytest.mark.usefixtures("_standing")
@pytest.mark.parametrize("name", ["", ".", "..", "?x", "#", "../services", "%2e%2e", "a b"])
@pytest.mark.parametrize(
    "command", ["delete pod", "label pod", "expose pod", "scale deploy", "describe pod", "get pod"]
)
def test_what_is_no_name_means_nothing_else(
    command: str, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """An empty one would be the path of all objects, and ``..`` that of their namespace."""
    more = {"label": ["a=b"], "expose": ["--port=80"], "scale": ["--replicas=9"]}
    assert run(["get", "all,ns", "-o", "name"]) == 0
    before = capfd.readouterr().out
    verb, kind = command.split()
    assert run([verb, kind, name, *more.get(verb, [])]) in (1, 2)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(
        "error: " if name in ("", ".", "..", "../services") else "Error from server (NotFound)"
    )
    if not name:
        assert "resource name may not be empty" in err  # kubectl's words
    assert run(["get", "all,ns", "-o", "name"]) == 0
    assert capfd.readouterr().out == before


@pytest.mark.usefixtures("_standing")
@pytest.mark.parametrize(
    "words",
    [
        ["delete", "pod", "plain", ".."],
        ["delete", "pod", "plain", ""],
        ["delete", "pod/plain", "pod/.."],
        ["label", "pod", "plain", "..", "a=b"],
        ["node", "stop", "w1", ""],
        ["node", "stop", "w1", ".."],
    ],
)
def test_one_bad_name_keeps_what_the_others_would_do(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    def world() -> str:
        assert run(["get", "pods,nodes", "-o", "yaml"]) == 0
        return capfd.readouterr().out

    before = world()
    assert run(words) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "resource name" in err
    assert world() == before


@pytest.mark.usefixtures("_standing")
def test_an_empty_namespace_is_the_usual_one(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["get", "pods", "-n", "", "-o", "name"]) == 0
    said = capfd.readouterr().out
    assert run(["get", "pods", "-o", "name"]) == 0
    assert said == capfd.readouterr().out
    assert run(["get", "pods", "-n", ".."]) == 2
    assert "invalid namespace" in capfd.readouterr().err
