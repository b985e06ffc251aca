"""How soon network policies are in force, and what they cost a cluster that comes up.

    sudo scripts/bench policy [--pods 1000] [--policies 100] [--changes 10] [--json FILE]

A cluster of ten nodes with a hundred services, with and without as many policies as there are deployments:
each isolates ten pods in both directions, lets in the next deployment, every tenth also the pods of some
namespaces, and lets out to everybody's port.

What is measured
  up          `nsk8s up` until every pod is ready, without policies and with them
  unchanged   the same again, which compares the kernel's state and finds nothing to do
  change      one object is changed by the API (a policy, a pod's label, a namespace's label), and a pod
              connects to another one that this concerns again and again: from before the request is sent
              until the first connection does what the change asks for. `allow` lets it through, `deny` shuts
              it out (then the time is that of the first attempt that nobody answers). `pod: allow` is a pod
              that is created and connects to another one whose policy lets it in, `pod: settled` the same
              pod until every node's kernel holds all its rules, those of its service among them.

Medians and maxima; the connections are real ones, from inside the pod's namespace.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.beginning import arguments, begin
from benchmarks.cluster import CLUSTER, Size, grid
from benchmarks.machine import LIMIT, NSK8S, aligned, command, keep, seconds, settle, world
from nsk8s.observe.connections import Attempt, attempt

Obj = dict[str, Any]
MERGE = "application/merge-patch+json"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
PODS = "/api/v1/namespaces/default/pods"
ALLOW, DENY = 0.01, 0.05
"""Seconds within which a connection is made (it takes less than a thousandth; if not, the next attempt
tells), or is none."""
PATIENCE = 20.0


class Api:
    """The control plane's socket, with a connection that is kept."""

    def __init__(self) -> None:
        self._connection = http.client.HTTPConnection("localhost")
        self._connection.sock = socket.socket(socket.AF_UNIX)
        self._connection.sock.connect(f"/run/nsk8s/{CLUSTER}/api.sock")

    def ask(self, method: str, path: str, body: Obj | None = None, kind: str = "application/json") -> Obj:
        """One request; ends the bench if it is refused."""
        data = None if body is None else json.dumps(body)
        self._connection.request(method, path, data, {"Content-Type": kind})
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            sys.exit(f"bench: {method} {path}: {answer.status} {text[:300]!r}")
        found: Obj = json.loads(text)
        return found


def policies(count: int) -> list[Obj]:
    """The policies of the deployments app0, app1, ..."""
    made = []
    for n in range(count):
        peers: list[Obj] = [{"podSelector": {"matchLabels": {"app": f"app{(n + 1) % count}"}}}]
        if n % 10 == 0:
            peers.append({"namespaceSelector": {"matchLabels": {"team": "red"}}})
        spec = {
            "podSelector": {"matchLabels": {"app": f"app{n}"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": peers, "ports": [{"port": 8000}]}],
            "egress": [{"to": [{"namespaceSelector": {}}], "ports": [{"port": 8000}]}],
        }
        meta = {"name": f"app{n}", "namespace": "default"}
        made.append(
            {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}
        )
    return made


class Watched:
    """A connection tried again and again: from a pod of app2 to one of app0, whom only app1 reaches."""

    def __init__(self, api: Api) -> None:
        def pod(app: str) -> Obj:
            found: Obj = api.ask("GET", f"{PODS}?labelSelector=app%3D{app}")["items"][0]
            return found

        source, target = pod("app2"), pod("app0")
        self.source = str(source["metadata"]["name"])
        self._target = str(target["status"]["podIP"])

    def until(self, allowed: bool, begun: float, source: str = "") -> float:
        """Seconds since `begun` until a connection is made, or the first one is not: of the pod that is
        watched, or of another one, which need not be there yet."""
        where = Path(f"/run/netns/{CLUSTER}.default.{source or self.source}")
        one = Attempt(where, self._target, 8000)
        while time.monotonic() - begun < PATIENCE:
            if not os.path.lexists(where):
                time.sleep(0.001)
                continue
            tried = time.monotonic()
            reached = attempt([one], ALLOW if allowed else DENY) == ["reached"]
            if reached is allowed:
                return (time.monotonic() if allowed else tried) - begun
        sys.exit(f"bench: a change was not in force within {PATIENCE:.0f} s")


def changes(api: Api, times: int) -> dict[str, list[float]]:
    """The seconds of each change, by its kind."""
    watched = Watched(api)
    policy = api.ask("GET", f"{POLICIES}/app0")["spec"]
    extra = {"podSelector": {"matchLabels": {"app": "app2"}}}
    open_ = [{**policy["ingress"][0], "from": [*policy["ingress"][0]["from"], extra]}]
    pod, space = f"{PODS}/{watched.source}", "/api/v1/namespaces/default"
    # A label beside those that the deployment selects by.
    labelled = [{**policy["ingress"][0], "from": [{"podSelector": {"matchLabels": {"vip": "yes"}}}]}]

    def patch(path: str, body: Obj) -> Callable[[], object]:
        return lambda: api.ask("PATCH", path, body, MERGE)

    def label(path: str, key: str, value: str | None) -> Callable[[], object]:
        return patch(path, {"metadata": {"labels": {key: value}}})

    def rules(ingress: list[Obj]) -> Callable[[], object]:
        return patch(f"{POLICIES}/app0", {"spec": {"ingress": ingress}})

    found: dict[str, list[float]] = {}

    def timed(kind: str, allow: Callable[[], object], deny: Callable[[], object]) -> None:
        for _ in range(times):
            for verb, act in (("allow", allow), ("deny", deny)):
                begun = time.monotonic()
                act()
                found.setdefault(f"{kind}: {verb}", []).append(watched.until(verb == "allow", begun))
                api.ask("GET", "/nsk8s/v1/settled")

    timed("policy", rules(open_), rules(policy["ingress"]))
    timed("namespace label", label(space, "team", "red"), label(space, "team", None))
    rules(labelled)()
    timed("pod label", label(pod, "vip", "yes"), label(pod, "vip", None))
    for n in range(times):
        made = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"new{n}", "labels": {"app": "app1", "vip": "yes"}},
            "spec": {"nodeName": f"n{n % 10}", "containers": [{"name": "c", "image": "example/new:1"}]},
        }
        begun = time.monotonic()
        api.ask("POST", PODS, made)
        found.setdefault("pod: allow", []).append(watched.until(allowed=True, begun=begun, source=f"new{n}"))
        api.ask("GET", "/nsk8s/v1/settled")
        found.setdefault("pod: settled", []).append(time.monotonic() - begun)
    return found


def measure(size: Size, file: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Everything, by what it is."""
    found: dict[str, list[float]] = {}
    try:
        for name, files in (("up", size.files), ("up with policies", (*size.files, str(file)))):
            settle(64 + size.pods * 3 // 2)
            found[name] = [seconds(lambda files=files: command(NSK8S, "up", *files))]  # type: ignore[misc]
            found[f"{name}: unchanged"] = [
                seconds(lambda files=files: command(NSK8S, "up", *files))  # type: ignore[misc]
            ]
            if file in map(Path, files):
                found |= changes(Api(), options.changes)
            command(NSK8S, "down", CLUSTER)
    finally:
        subprocess.run([NSK8S, "down", "--all"], capture_output=True, timeout=LIMIT)
    return found


def table(found: dict[str, list[float]]) -> str:
    """One line for each figure, in milliseconds."""
    rows = [["what", "times", "median ms", "max ms"]]
    for name, values in found.items():
        figures = (statistics.median(values), max(values))
        rows.append([name, str(len(values)), *(f"{value * 1000:.0f}" for value in figures)])
    return aligned(rows)


def main() -> None:
    """Read the arguments, measure, print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--policies", type=int, default=100)
    parser.add_argument("--changes", type=int, default=10, help="of each kind")
    options = begin(parser, "policy")
    with world() as directory:
        size = grid(directory, options.pods)
        file = directory / "policies.json"
        file.write_text("\n---\n".join(map(json.dumps, policies(options.policies))))
        found = measure(size, file, options)
        print(table(found))
        keep(options.json, found)


if __name__ == "__main__":
    main()
