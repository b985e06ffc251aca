"""The real kubectls of this machine, each with a home of its own: nothing may touch the user's ~/.kube.

The one on PATH, every ``kubectl.1.NN`` beside it or on PATH, and those that NSK8S_KUBECTLS names (paths
with colons between them).
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

DEADLINE = 90.0


@functools.cache
def found() -> tuple[str, ...]:
    """Paths, the oldest version first."""
    named = [word for word in os.environ.get("NSK8S_KUBECTLS", "").split(":") if word]
    places = [Path(word) for word in os.environ.get("PATH", "").split(":") if word]
    on_path = shutil.which("kubectl")
    if on_path:
        named.append(on_path)
        places.append(Path(on_path).resolve().parent)
    for place in places:
        named += map(str, sorted(place.glob("kubectl.1.[0-9][0-9]")))
    return tuple(sorted(dict.fromkeys(named), key=lambda path: (version(path), path)))


@functools.cache
def version(path: str) -> int:
    """The minor version; of a dispatcher, its own."""
    done = subprocess.run([path, "version", "--client", "-o", "json"], capture_output=True, text=True)
    minor = json.loads(done.stdout)["clientVersion"]["minor"]
    return int(re.sub(r"\D", "", minor))


def label(path: str) -> str:
    """How a kubectl is called in the name of a test."""
    return Path(path).name if re.search(r"\d$", path) else f"{Path(path).name}-1.{version(path)}"


class Kubectl:
    """One kubectl, on one cluster, in one namespace."""

    def __init__(self, path: str, home: Path, kubeconfig: str, namespace: str = "default") -> None:
        self.path = path
        self.minor = version(path)
        self.home = home
        self.namespace = namespace
        self.kubeconfig = home / "kubeconfig"
        home.mkdir(parents=True, exist_ok=True)
        self.kubeconfig.write_text(kubeconfig)
        self.kubeconfig.chmod(0o600)

    def argv(self, *words: str) -> list[str]:
        """The command line, for tests that start it themselves."""
        return [self.path, "--kubeconfig", str(self.kubeconfig), "-n", self.namespace, *words]

    def environ(self, **more: str) -> dict[str, str]:
        """An environment with a home of its own, where kubectl keeps its cache."""
        kept = {key: value for key, value in os.environ.items() if key not in ("KUBECONFIG", "KUBE_EDITOR")}
        return {**kept, "HOME": str(self.home), **more}

    def run(
        self,
        *words: str,
        rc: int | None = 0,
        stdin: str = "",
        env: dict[str, str] | None = None,
        deadline: float = DEADLINE,
    ) -> subprocess.CompletedProcess[str]:
        """Run it; fails the test if it ends with another exit code than `rc` (None: with any)."""
        done = subprocess.run(
            self.argv(*words),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=deadline,
            env=self.environ(**env or {}),
        )
        said = f"{Path(self.path).name} {' '.join(words)}: exit code {done.returncode}"
        assert rc is None or done.returncode == rc, f"{said}\n{done.stdout}{done.stderr}"
        return done

    def __call__(self, *words: str, stdin: str = "") -> str:
        """What a command that goes well prints."""
        return self.run(*words, stdin=stdin).stdout

    def fails(self, *words: str, stdin: str = "", rc: int = 1) -> str:
        """What a command that goes wrong says."""
        return self.run(*words, stdin=stdin, rc=rc).stderr

    def popen(self, words: Sequence[str], **more: object) -> subprocess.Popen[bytes]:
        """Start it in the background."""
        return subprocess.Popen(self.argv(*words), env=self.environ(), **more)  # type: ignore[call-overload,no-any-return]  # Popen's own arguments
