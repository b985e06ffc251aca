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
