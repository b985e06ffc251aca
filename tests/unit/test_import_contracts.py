"""The import laws are enforced: in a copy of the tree, a violation of each contract is seen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]

SEEDS = {
    "words": ("nsk8s/errors.py", "import nsk8s.api.kinds"),
    "api": ("nsk8s/api/kinds.py", "import nsk8s.cluster.store"),
    "cluster": ("nsk8s/cluster/store.py", "import nsk8s.linux.values"),
    "linux": ("nsk8s/linux/values.py", "import nsk8s.api.types"),
    "dataplane": ("nsk8s/dataplane/compiler.py", "import nsk8s.kernel.machine"),
    "kernel": ("nsk8s/kernel/machine.py", "import nsk8s.api.types"),
    "workloads": ("nsk8s/workloads/images.py", "import nsk8s.dataplane.compiler"),
    "observe": ("nsk8s/observe/__init__.py", "import nsk8s.dataplane.compiler"),
    "apiserver": ("nsk8s/apiserver/server.py", "import nsk8s.kernel.machine"),
    "daemon": ("nsk8s/daemon/loop.py", "import nsk8s.client"),
    "client": ("nsk8s/client.py", "import nsk8s.kernel.machine"),
    "cli": ("nsk8s/cli/main.py", "import nsk8s.dataplane.compiler"),
    "pyroute2": ("nsk8s/workloads/images.py", "def lazily() -> None:\n    import pyroute2"),
    "scapy": ("nsk8s/cli/main.py", "import scapy.layers.inet"),
    "pure": ("nsk8s/cluster/store.py", "import time"),
}


def contracts() -> dict[str, str]:
    """The contracts' names by their ids."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {c["id"]: c["name"] for c in config["tool"]["importlinter"]["contracts"]}


def test_every_contract_has_a_seed() -> None:
    assert contracts().keys() == SEEDS.keys()


def test_a_violation_of_each_contract_is_caught(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "nsk8s", tmp_path / "nsk8s", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert "BROKEN" not in lint(tmp_path, 0)
    for file, statement in SEEDS.values():
        with (tmp_path / file).open("a") as module:
            module.write(f"\n\n{statement}\n")
    report = lint(tmp_path, 1)
    assert [name for name in contracts().values() if f"{name} BROKEN" not in report] == []


def lint(tree: Path, expected: int) -> str:
    """What lint-imports says of the tree, on one line."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == expected, done.stdout + done.stderr
    return " ".join(done.stdout.split())
