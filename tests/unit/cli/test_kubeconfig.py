"""The user's own kubeconfig, in a HOME of the test's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import yaml

from nsk8s.cli import kubeconfig
from nsk8s.cli.main import run
from nsk8s.daemon.pki import Keys
from nsk8s.paths import ClusterPaths

OTHERS = """\
apiVersion: v1
kind: Config
preferences: {colors: true}
clusters:
- {name: prod, cluster: {server: "https://prod:6443", insecure-skip-tls-verify: yes}}
contexts:
- {name: prod, context: {cluster: prod, user: jane, namespace: "017"}}
users:
- name: jane
  user:
    auth-provider: {name: gcp, config: {expiry: 2020-01-01T00:00:00Z, token: 1e3}}
current-context: prod
extensions: []
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return tmp_path


@pytest.fixture
def cluster(home: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterPaths:
    paths = ClusterPaths("c")
    paths.directory.mkdir(parents=True)
    Keys(paths).kubeconfig(20001)
    monkeypatch.setattr(kubeconfig, "_running", lambda _name: paths)
    return paths


def merged(file: Path) -> dict[str, object]:
    found = yaml.safe_load(file.read_text())
    assert isinstance(found, dict)
    return found


def test_without_merge_it_is_printed_and_nothing_is_written(
    cluster: ClusterPaths, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["kubeconfig"]) == 0
    assert capfd.readouterr().out == cluster.kubeconfig.read_text()
    assert not (home / ".kube").exists()


def test_the_first_merge_makes_the_file(cluster: ClusterPaths, home: Path) -> None:
    assert run(["kubeconfig", "--merge"]) == 0
    file = home / ".kube" / "config"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    wanted = merged(cluster.kubeconfig)
    assert merged(file) == {key: value for key, value in wanted.items() if key != "preferences"}
    assert [entry.name for entry in file.parent.iterdir()] == ["config"]


def test_everything_else_stays(cluster: ClusterPaths, home: Path) -> None:
    file = home / ".kube" / "config"
    file.parent.mkdir()
    file.write_text(OTHERS)
    file.chmod(0o644)
    before = kubeconfig._parsed(OTHERS, file)
    for _ in range(2):
        assert run(["kubeconfig", "--merge"]) == 0
        after = kubeconfig._parsed(file.read_text(), file)
        assert [entry["name"] for entry in after["contexts"]] == ["prod", "nsk8s-c"]
        assert after["current-context"] == "nsk8s-c"
        for section in kubeconfig.SECTIONS:
            assert after[section][:1] == before[section]
        assert after["preferences"] == {"colors": True}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert kubeconfig.forget("c") == file
    assert kubeconfig._parsed(file.read_text(), file) == {**before, "current-context": ""}
    assert kubeconfig.forget("c") is None


def test_kubeconfig_names_the_file(
    cluster: ClusterPaths, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", f"{home}/mine:{home}/other")
    assert run(["kubeconfig", "--merge"]) == 0
    assert merged(home / "mine")["current-context"] == "nsk8s-c"
    assert [entry.name for entry in home.iterdir() if entry.name in ("mine", "other", ".kube")] == ["mine"]


def test_a_link_stays_a_link(cluster: ClusterPaths, home: Path) -> None:
    (home / ".kube").mkdir()
    (home / "real").write_text(OTHERS)
    (home / ".kube" / "config").symlink_to(home / "real")
    assert run(["kubeconfig", "--merge"]) == 0
    assert (home / ".kube" / "config").is_symlink()
    assert "nsk8s-c" in (home / "real").read_text()


@pytest.mark.parametrize("content", ["a: [", "- a\n", "clusters: {}\n", "a: 1\n---\nb: 2\n", "x"])
def test_what_is_no_kubeconfig_is_left_alone(
    cluster: ClusterPaths, home: Path, content: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = home / ".kube" / "config"
    file.parent.mkdir()
    file.write_text(content)
    assert run(["kubeconfig", "--merge"]) == 1
    assert "is not a kubeconfig" in capfd.readouterr().err
    assert file.read_text() == content
    assert [entry.name for entry in file.parent.iterdir()] == ["config"]


def test_a_file_that_is_locked_is_left_alone(
    cluster: ClusterPaths, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (home / ".kube").mkdir()
    (home / ".kube" / "config").write_text(OTHERS)
    (home / ".kube" / "config.lock").touch()
    assert run(["kubeconfig", "--merge"]) == 1
    assert "is being changed by somebody else" in capfd.readouterr().err
    assert (home / ".kube" / "config").read_text() == OTHERS


def test_to_forget_a_cluster_that_nobody_merged_changes_nothing(home: Path) -> None:
    assert kubeconfig.forget("c") is None
    assert not (home / ".kube").exists()


def test_kubectl_gets_its_words_as_they_are(
    cluster: ClusterPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "kubectl"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    seen: list[object] = []

    def execve(path: str, argv: list[str], env: dict[str, str]) -> None:
        seen.extend([path, argv, env["KUBECONFIG"]])

    monkeypatch.setattr(os, "execve", execve)
    words = ["-n", "x", "exec", "-it", "p", "--help", "--", "ls", "--", "-l"]
    assert run(["kubectl", *words]) == 0
    assert seen == [os.fspath(program), ["kubectl", *words], os.fspath(cluster.kubeconfig)]


def test_without_kubectl_it_says_how_to_get_one(
    cluster: ClusterPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    assert run(["kubectl", "get", "pods"]) == 1
    assert "apt install kubernetes-client" in capfd.readouterr().err
