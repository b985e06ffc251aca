"""The same requests always lead to the same objects: nothing depends on the order of a set."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
from tests.unit.cluster.test_daemonsets import daemon_set
from tests.unit.cluster.test_jobs import job
from tests.unit.cluster.test_statefulsets import stateful_set
from tests.unit.cluster.worlds import World, deployment, pod, service
world = World()
sets = daemon_set("agent"), stateful_set("db", 2), job("once", completions=3, parallelism=2)
for obj in (deployment("web", 3), pod("a", {"app": "web"}), service("web"), *sets):
    world.create(obj)
world.finish()
world.registry.delete("deployments.apps", "default", "web", propagation="Foreground")
world.settle()
world.finish()
for change in world.store.pending():
    print(change)
"""


def test_the_history_of_a_cluster_is_the_same_whatever_the_hashes() -> None:
    told = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(1, 6)
    }
    assert len(told) == 1
