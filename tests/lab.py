"""A real cluster for a test, driven as a user would: each step is the command line in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from nsk8s import paths
from nsk8s.observe.packets import Frame, Witness

DEADLINE = 120.0


class Lab:
    """One cluster called `name`; `directory` holds its topology file and whatever else the test writes."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.topology = directory / "topology.yaml"

    def write(self, topology: str) -> None:
        """Keep `topology` (a YAML stream) as this lab's file, with the lab's own name for its cluster."""
        documents = [d for d in yaml.safe_load_all(topology) if d]
        for document in documents:
            if document.get("kind") == "Cluster":
                document.setdefault("metadata", {})["name"] = self.name
        self.topology.write_text(yaml.safe_dump_all(documents, sort_keys=False))

    def nsk8s(
        self, *words: str, check: bool = True, stdin: str = "", timeout: float = DEADLINE
    ) -> subprocess.CompletedProcess[str]:
        """Run ``nsk8s WORDS`` on this cluster; fails the test if it fails, unless `check` is False."""
        done = subprocess.run(
            self.argv(*words),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environ(),
        )
        if check and done.returncode:
            said = done.stdout + done.stderr + self.log()
            raise AssertionError(f"nsk8s {' '.join(words)}: exit code {done.returncode}\n{said}")
        return done

    def argv(self, *words: str) -> list[str]:
        """The command line, for tests that start it themselves."""
        return [sys.executable, "-m", "nsk8s", *words]

    def environ(self) -> dict[str, str]:
        """The environment in which commands mean this cluster."""
        return {**os.environ, "NSK8S_CLUSTER": self.name, "NO_COLOR": "1"}

    def up(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """``nsk8s up`` of this lab's file."""
        return self.nsk8s("up", str(self.topology), *words, check=check)

    def down(self) -> None:
        """``nsk8s down``; nothing to do if the cluster is not there."""
        if paths.ClusterPaths(self.name).directory.exists():
            self.nsk8s("down", self.name)

    def run(self, target: str, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in a pod (``default/web`` or ``web``), a node (``node/w1``) or a client."""
        return self.nsk8s("exec", target, "--", *argv, check=check)

    def get(self, *words: str) -> list[dict[str, Any]]:
        """The objects that ``nsk8s get WORDS`` shows."""
        found = json.loads(self.nsk8s("get", *words, "-o", "json").stdout)
        items: list[dict[str, Any]] = found["items"] if found["kind"].endswith("List") else [found]
        return items

    def pods(self, *words: str) -> dict[str, dict[str, Any]]:
        """The pods by name."""
        return {pod["metadata"]["name"]: pod for pod in self.get("pods", *words)}

    def netns(self, namespace: str) -> Path:
        """Where ip-netns(8) finds a namespace of this cluster (``w1``, ``default.web``, ``fabric``)."""
        return paths.NETNS_DIR / f"{self.name}.{namespace}"

    def inside(self, namespace: str, *argv: str) -> str:
        """What a program of the host prints in the network namespace, as by ``ip netns exec``."""
        done = subprocess.run(
            ["nsenter", f"--net={self.netns(namespace)}", *argv],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert done.returncode == 0, f"{' '.join(argv)} in {namespace}: {done.stdout}{done.stderr}"
        return done.stdout

    def ask(self, namespace: str, program: str, given: str, *words: str) -> str:
        """What a Python program prints in the network namespace, given that as its standard input."""
        argv = ["nsenter", f"--net={self.netns(namespace)}", sys.executable, "-c", program, *words]
        done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=DEADLINE)
        assert done.returncode == 0, f"{namespace}: {done.stdout}{done.stderr}{self.log()}"
        return done.stdout

    def capture(
        self, namespace: str, interface: str = "", keep: Callable[[Frame], bool] = lambda _: True
    ) -> Witness:
        """Watch an interface of a namespace (all of them if none is named) from now on."""
        return Witness(self.netns(namespace), interface, keep)

    def log(self) -> str:
        """What the control plane wrote last, for the message of a failed test."""
        try:
            lines: Sequence[str] = paths.ClusterPaths(self.name).daemon_log.read_text().splitlines()[-30:]
        except OSError:
            return ""
        return "\n--- daemon.log\n" + "\n".join(lines) if lines else ""
