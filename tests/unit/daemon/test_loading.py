"""The control plane's code is loaded ahead where it is sure to be needed; the process goes if it is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nsk8s.daemon.loading import Loading, foreseen
from nsk8s.paths import ClusterPaths


@pytest.mark.parametrize(
    "words", ["", "down", "get pods", "up --help", "up -h", "up a.yaml --dry-run", "apply -f up"]
)
def test_nothing_is_loaded_that_nobody_may_need(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("NSK8S_STATE", "/nonexistent")
    assert foreseen(words.split()) is None


def test_nothing_is_loaded_without_root_or_beside_another_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NSK8S_STATE", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert foreseen(["up", "a.yaml"]) is None
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (tmp_path / "other").mkdir()
    assert foreseen(["up", "a.yaml"]) is None


def test_what_nobody_has_told_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("NSK8S_STATE", str(tmp_path / "none"))
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    others = children.read_text().split()
    loading = foreseen(["up", "a.yaml"])
    assert isinstance(loading, Loading)
    assert len(children.read_text().split()) == len(others) + 1
    loading.close()
    assert children.read_text().split() == others
    loading.close()


def test_what_a_ctrl_c_found_waited_for_already_ends_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NSK8S_STATE", str(tmp_path))
    loading = Loading()
    waitid = os.waitid
    said, told = os.pipe()

    def interrupted(*which: int) -> None:
        waitid(*which)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "waitid", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loading.tell(ClusterPaths("nobody"), told, told)
    os.close(told)
    loading.close()
    with open(said) as pipe:
        assert "cluster 'nobody' has no holder" in pipe.read()
