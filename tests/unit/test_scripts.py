"""The scripts: they parse, they run, and repeating an installation costs nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from benchmarks import cluster

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(p for p in [*(ROOT / "scripts").iterdir(), ROOT / ".ci/run"] if p.is_file() and not p.suffix)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_is_executable_and_parses(script: Path) -> None:
    assert os.access(script, os.X_OK)
    interpreter = script.read_text().partition("\n")[0]
    if interpreter == "#!/usr/bin/env bash":
        done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "set -euo pipefail" in script.read_text()
    else:
        assert interpreter == "#!/usr/bin/env python3"
        compile(script.read_text(), script, "exec")


def test_installing_again_does_nothing() -> None:
    stamp = ROOT / ".venv/installed-dev"
    if not stamp.exists():
        pytest.skip("this tree was not set up by scripts/install --dev")
    before = stamp.stat().st_mtime_ns
    done = subprocess.run(
        [ROOT / "scripts/install", "--dev"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "installing" not in done.stderr
    assert stamp.stat().st_mtime_ns == before


def test_install_refuses_what_it_does_not_know() -> None:
    done = subprocess.run([ROOT / "scripts/install", "--nonsense"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage" in done.stderr


def test_the_benchs_cluster_has_the_promised_shape(tmp_path: Path) -> None:
    size = cluster.grid(tmp_path, 1000)
    text = Path(size.files[0]).read_text()
    assert size.nodes == 10
    assert text.count("kind: Deployment") == 100
    assert text.count("replicas: 10\n") == 100
    assert text.count("kind: Service") == 100


def test_the_two_halves_of_the_suite_are_the_whole() -> None:
    lines = (ROOT / "scripts/test").read_text().splitlines()
    halves = [line for line in lines if line.startswith(("first=", "second="))]
    show = 'printf "%s\\n" "${first[@]}"; echo; printf "%s\\n" "${second[@]}"'
    script = "\n".join([*halves, show])
    told = subprocess.run(
        ["bash", "-euc", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    named = [[ROOT / word for word in half.split()] for half in told.split("\n\n")]
    assert len(named) == 2
    for file in (ROOT / "tests").rglob("test_*.py"):
        where = [half for half in named if file in half or any(path in file.parents for path in half)]
        assert len(where) == 1, f"{file} runs {len(where)} times"
