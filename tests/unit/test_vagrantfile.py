"""The Vagrantfile is valid, with no provider and with the settings of one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    shutil.which("vagrant") is None,
    reason="needs vagrant: apt-get install vagrant (where the release has it)",
)


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_is_valid_for_any_provider(tmp_path: Path, arch: str) -> None:
    done = validate(tmp_path, "--ignore-provider", NSK8S_VM_ARCH=arch)
    assert done.returncode == 0, done.stdout + done.stderr


def test_virtualbox_settings_are_valid(tmp_path: Path) -> None:
    fake_virtualbox(tmp_path)
    done = validate(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_setting_would_be_seen(tmp_path: Path) -> None:
    fake_virtualbox(tmp_path)
    text = (ROOT / "Vagrantfile").read_text().replace("vm.cpus = cpus", "vm.nonsense = cpus", 1)
    done = validate(tmp_path, text=text)
    assert done.returncode != 0
    assert "nonsense" in done.stdout + done.stderr


def fake_virtualbox(directory: Path) -> None:
    """A VBoxManage that only knows its version, which is all that validation asks."""
    program = directory / "VBoxManage"
    program.write_text('#!/bin/sh\ncase "$1" in --version) echo 6.1.40r154048 ;; esac\n')
    program.chmod(0o755)


def validate(
    directory: Path, *words: str, text: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """``vagrant validate`` of a copy, with a home and a state of its own."""
    project = directory / "project"
    project.mkdir()
    (project / "Vagrantfile").write_text(text or (ROOT / "Vagrantfile").read_text())
    env = {
        **os.environ,
        "PATH": f"{directory}:{os.environ['PATH']}",
        "VAGRANT_HOME": str(directory / "home"),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        **environment,
    }
    return subprocess.run(
        ["vagrant", "validate", *words], cwd=project, env=env, capture_output=True, text=True, timeout=120
    )
