"""What the real kubectl prints of a world, recorded: ``python -m tests.unit.cli.kubectl`` asks it again.

The world is served on a unix socket; for the recording, a relay lets kubectl reach it over TCP. Each block of
a recording is a command line, what it printed, its exit code, and (after ``!``) its standard error.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from nsk8s.api.types import Obj
from nsk8s.apiserver import tables
from nsk8s.paths import ClusterPaths
from tests.unit.apiserver.served import Served, served
from tests.unit.cluster.worlds import deployment, pod, service

HERE = Path(__file__).parent
NOW = datetime(2026, 11, 23, 21, 40, tzinfo=UTC)
"""When the tables are looked at; everything was made at 20:33:00Z."""

PORTS = [{"containerPort": 80}, {"containerPort": 443}, {"containerPort": 53, "protocol": "UDP"}]
WEB_PORTS = [{"port": 80, "nodePort": 30080, "name": "h"}, {"port": 443, "name": "s", "targetPort": "tls"}]
FULL = {
    "name": "c",
    "image": "example/app:1",
    "command": ["sh", "-c"],
    "args": ["sleep 1\nsleep 2"],
    "ports": [{"containerPort": 8080, "hostPort": 80, "name": "http"}],
    "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "two\nlines"}, {"name": "EMPTY"}],
    "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 2},
    "livenessProbe": {"tcpSocket": {"port": 8080}, "initialDelaySeconds": 5},
    "startupProbe": {"exec": {"command": ["cat", "/tmp/up"]}},
    "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}, "requests": {"cpu": "100m"}},
}
UNREADY = {"name": "c", "ready": False, "image": "nginx", "imageID": "", "restartCount": 0}


class Told(NamedTuple):
    """What a command printed."""

    code: int
    out: str
    err: str


def _state(**state: object) -> Obj:
    return {"podIP": "10.244.1.7", "containerStatuses": [{**UNREADY, **state}], "phase": "Running"}


OBJECTS: list[Obj] = [
    pod("fresh"),
    {**pod("plain", {"app": "plain"}), "spec": {"containers": [{"name": "c", "image": "nginx"}]}},
    pod("crashing", {"app": "crashing", "tier": "back"}),
    pod("restarted"),
    pod("done", restartPolicy="Never"),
    pod("failed", restartPolicy="Never"),
    pod("bare"),
    pod("waits", initContainers=[{"name": "i", "image": "busybox"}, {"name": "j", "image": "busybox"}]),
    pod("many", {"app": "many"}, containers=[{"name": "c", "image": "nginx", "ports": PORTS}]),
    pod(
        "probed",
        containers=[FULL],
        tolerations=[{"operator": "Exists"}],
        nodeSelector={"kubernetes.io/os": "linux"},
    ),
    deployment("full", 1, minReadySeconds=3),
    pod("nowhere", nodeSelector={"disk": "ssd"}),
    deployment("web", 2),
    service("web", type="NodePort", ports=WEB_PORTS),
    service("headless", clusterIP="None"),
    service("outside", externalIPs=["203.0.113.1", "203.0.113.2"]),
    service("alone", selector=None),
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "yes\nno\n"}},
]
CRON_TABS: Obj = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "crontabs.stable.example.com"},
    "spec": {
        "group": "stable.example.com",
        "scope": "Namespaced",
        "names": {
            "plural": "crontabs",
            "singular": "crontab",
            "kind": "CronTab",
            "shortNames": ["ct"],
            "categories": ["all"],
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                        },
                    }
                },
                "additionalPrinterColumns": [
                    {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"}
                ],
            }
        ],
    },
}
OBJECTS += [
    CRON_TABS,
    {
        "apiVersion": "stable.example.com/v1",
        "kind": "CronTab",
        "metadata": {"name": "nightly", "namespace": "default", "labels": {"app": "cron"}},
        "spec": {"cronSpec": "0 3 * * *"},
    },
]
OBJECTS[9]["metadata"]["annotations"] = {"note": "short", "long": "x" * 200, "lines": "a\nb"}
OBJECTS[10]["spec"]["template"]["spec"] = {
    "containers": [FULL],
    "initContainers": [{"name": "i", "image": "busybox"}],
}

STATUSES: dict[str, Obj] = {
    "plain": _state(ready=True, started=True, state={"running": {"startedAt": "2026-11-23T20:33:05Z"}}),
    "crashing": _state(restartCount=4, state={"waiting": {"reason": "CrashLoopBackOff"}}),
    "restarted": _state(
        ready=True,
        restartCount=2,
        state={"running": {"startedAt": "2026-11-23T21:30:00Z"}},
        lastState={"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": "2026-11-23T21:29:58Z"}},
    ),
    "done": {**_state(state={"terminated": {"exitCode": 0, "reason": "Completed"}}), "phase": "Succeeded"},
    "failed": {**_state(state={"terminated": {"exitCode": 3, "reason": "Error"}}), "phase": "Failed"},
    "waits": {
        "phase": "Pending",
        "initContainerStatuses": [
            {**UNREADY, "name": "i", "state": {"running": {}}},
            {**UNREADY, "name": "j", "state": {"waiting": {"reason": "PodInitializing"}}},
        ],
    },
}  # fmt: skip


@contextmanager
def world() -> Iterator[Served]:
    """The world that all recordings are about."""
    then, tables.now = tables.now, lambda: NOW
    try:
        with served(ClusterPaths("t")) as found:
            for obj in OBJECTS:
                found.within(lambda obj=obj: found.world.registry.create(obj))  # type: ignore[misc]  # bound now
            found.within(lambda: _set(found))
            yield found
    finally:
        tables.now = then


def _set(found: Served) -> None:
    for name, status in STATUSES.items():
        old = found.world.get("pods", name)
        found.world.registry.update_status({**old, "status": {**(old.get("status") or {}), **status}})
    for one in found.world.active():
        if one.metadata.name.startswith(("web-", "many")) and one.spec.nodeName:
            found.world.status(one, ready=True)
    found.world.settle()
    for event in found.world.store.list("events"):  # kubectl's clock runs on: what is told, and not when
        untimed = {**event, "eventTime": None, "firstTimestamp": None, "lastTimestamp": None}
        found.world.store.update("events", untimed)


def blocks(name: str) -> list[tuple[str, Told]]:
    """The recording in a file: command lines, and what kubectl printed."""
    found = []
    for block in re.split(r"^\$ ", (HERE / name).read_text(), flags=re.MULTILINE)[1:]:
        command, _, rest = block.partition("\n")
        lines = rest.splitlines(keepends=True)
        code = int(lines.pop().removeprefix("? "))
        err = "".join(line.removeprefix("! ") for line in lines if line.startswith("! "))
        out = "".join(line for line in lines if not line.startswith("! "))
        found.append((command, Told(code, out, err)))
    return found


def record(commands: list[str], ask: Callable[[list[str]], Told]) -> str:
    """The text of a recording."""
    text = ""
    for command in commands:
        code, out, err = ask(shlex.split(command))
        told = "".join(f"! {line}\n" for line in err.splitlines())
        text += f"$ {command}\n{out}{told}? {code}\n"
    return text


@contextmanager
def relayed(path: Path) -> Iterator[int]:
    """A TCP port of this machine's loopback that leads to a unix socket."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=_accept, args=(door, path), daemon=True).start()
        yield door.getsockname()[1]


def _accept(door: socket.socket, path: Path) -> None:
    while True:
        try:
            near, _ = door.accept()
        except OSError:
            return
        far = socket.socket(socket.AF_UNIX)
        far.connect(str(path))
        for one, other in ((near, far), (far, near)):
            threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(one: socket.socket, other: socket.socket) -> None:
    while piece := one.recv(65536):
        other.sendall(piece)
    other.shutdown(socket.SHUT_WR)


def main() -> None:
    """Record again all that the recordings here hold."""
    for recording in sorted(HERE.glob("*.kubectl")):
        commands = [command for command, _ in blocks(recording.name)]
        with tempfile.TemporaryDirectory(dir="/run") as directory:
            os.environ["NSK8S_STATE"] = directory
            os.environ["HOME"] = directory
            os.environ["KUBECONFIG"] = "/dev/null"
            with world() as found, relayed(found.paths.socket) as port:
                server = f"http://127.0.0.1:{port}"
                recording.write_text(record(commands, lambda words: _kubectl(server, words)))  # noqa: B023
        sys.stdout.write(f"recorded {recording}\n")


def _kubectl(server: str, words: list[str]) -> Told:
    done = subprocess.run(["kubectl", "--server", server, *words], capture_output=True, text=True)
    return Told(done.returncode, done.stdout, done.stderr)


if __name__ == "__main__":
    main()
