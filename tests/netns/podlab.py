"""How tests speak of pods that come, run, fail and go: manifests, and waiting by watching the API."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlencode

import yaml

from nsk8s.paths import ClusterPaths
from tests.lab import Lab

Obj = dict[str, Any]
Container = dict[str, Any]

CLUSTER = """
apiVersion: nsk8s.dev/v1
kind: Cluster
metadata: {name: pods}
spec:
  nodes: [{name: master, role: control-plane}, {name: w1, labels: {disk: ssd}}, {name: w2}]
  clients: [{name: external}]
"""
PODS = "/api/v1/namespaces/default/pods"


def container(name: str, *command: str, image: str = "busybox", **more: object) -> Container:
    """A container that runs `command`, or what its image runs if there is none."""
    return {"name": name, "image": image, **({"command": list(command)} if command else {}), **more}


def shell(name: str, script: str, **more: object) -> Container:
    """A container that runs a shell script."""
    return {**container(name, "sh", "-c", script), **more}


def pod(name: str, *containers: Container, labels: dict[str, str] | None = None, **spec: object) -> Obj:
    """A pod that does not cling to life."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, **spec, "containers": list(containers)},
    }


def service(name: str, selector: dict[str, str], port: int, target: int | str) -> Obj:
    """A ClusterIP service with one port."""
    spec = {"selector": selector, "ports": [{"port": port, "targetPort": target}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def state(pod: Obj, name: str, which: str = "state") -> Obj:
    """A container's state in its pod's status; empty if there is none yet."""
    return dict(status_of(pod, name).get(which) or {})


def status_of(pod: Obj, name: str) -> Obj:
    """A container's status; empty if there is none yet."""
    status: Obj = pod.get("status") or {}
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return next((s for s in statuses if s["name"] == name), {})


def waits(pod: Obj, name: str) -> str:
    """Why a container waits; "" if it does not."""
    return str(state(pod, name).get("waiting", {}).get("reason", ""))


def ready(pod: Obj) -> bool:
    """Whether the pod is Ready."""
    return condition(pod, "Ready").get("status") == "True"


def condition(obj: Obj, type_: str) -> Obj:
    """A condition of an object's status; empty if there is none."""
    found = (c for c in (obj.get("status") or {}).get("conditions") or () if c["type"] == type_)
    return next(found, {})


class Api:
    """The control plane's socket, asked as any HTTP client would: a connection for each request."""

    def __init__(self, paths: ClusterPaths) -> None:
        self._socket = os.fspath(paths.socket)

    def ask(self, method: str, path: str, body: object = None, *, kind: str = "application/json") -> Obj:
        """One request; the decoded answer, which must be a success."""
        with self._answer(method, path, body, kind) as answer:
            text = answer.read()
            assert answer.status < 300, f"{method} {path}: {answer.status}\n{text.decode()}"
            found: Obj = json.loads(text)
            return found

    def get(self, path: str) -> Obj:
        """GET."""
        return self.ask("GET", path)

    def merge(self, path: str, patch: Obj) -> Obj:
        """PATCH as JSON Merge Patch."""
        return self.ask("PATCH", path, patch, kind="application/merge-patch+json")

    def lines(self, path: str) -> Generator[Obj]:
        """GET of a stream of JSON lines, until the server or the reader ends it."""
        with self._answer("GET", path, None, "application/json") as answer:
            assert answer.status == 200, answer.read()
            for line in answer:
                yield json.loads(line)

    @contextmanager
    def _answer(self, method: str, path: str, body: object, kind: str) -> Generator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60)
        connection.sock.connect(self._socket)
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": kind, "Connection": "close"})
        with closing(connection), connection.getresponse() as answer:
            yield answer


class Pods:
    """A cluster whose pods are watched."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.client = Api(ClusterPaths(lab.name))

    def apply(self, *objects: Obj) -> str:
        """``nsk8s apply``; what it prints."""
        return self.lab.nsk8s("apply", "-f", "-", stdin=yaml.safe_dump_all(objects)).stdout

    def get(self, name: str) -> Obj:
        """A pod."""
        found: Obj = self.client.get(f"{PODS}/{name}")
        return found

    def ip(self, name: str) -> str:
        """A pod's address."""
        return str(self.get(name)["status"]["podIP"])

    def revision(self, path: str = PODS) -> str:
        """The store's revision now: `events` from there on misses nothing."""
        return str(self.client.get(path)["metadata"]["resourceVersion"])

    def events(
        self, since: str, path: str = PODS, *, name: str = "", deadline: float = 20
    ) -> Generator[tuple[str, Obj]]:
        """What has happened to the objects of `path` since a revision, and what happens next."""
        query = {"watch": "true", "resourceVersion": since, "timeoutSeconds": str(round(deadline))}
        if name:
            query["fieldSelector"] = f"metadata.name={name}"
        for event in self.client.lines(f"{path}?{urlencode(query)}"):
            yield str(event["type"]), event["object"]

    def until(
        self,
        name: str,
        holds: Callable[[Obj], object],
        what: str,
        *,
        path: str = PODS,
        deadline: float = 20,
    ) -> Obj:
        """Wait until an object is so; it, as it then is."""
        listing = self.client.get(f"{path}?{urlencode({'fieldSelector': f'metadata.name={name}'})}")
        last: Obj = {}
        for last in listing["items"]:
            if holds(last):
                return last
        revision = str(listing["metadata"]["resourceVersion"])
        with closing(self.events(revision, path, name=name, deadline=deadline)) as events:
            for _, last in events:
                if holds(last):
                    return last
        shown = yaml.safe_dump(last.get("status"))
        raise AssertionError(f"{name}: not within {deadline:g} s: {what}; status:\n{shown}{self.lab.log()}")

    def until_ready(self, name: str) -> Obj:
        """Wait until a pod is ready."""
        return self.until(name, ready, "ready")

    def until_gone(self, name: str, since: str, deadline: float = 20) -> list[Obj]:
        """Every state of a pod from revision `since` until it is deleted."""
        seen: list[Obj] = []
        with closing(self.events(since, name=name, deadline=deadline)) as events:
            for type_, obj in events:
                seen.append(obj)
                if type_ == "DELETED":
                    return seen
        raise AssertionError(f"pod {name} is still there after {deadline:g} s{self.lab.log()}")

    def delete(self, name: str, *words: str) -> None:
        """``nsk8s delete pod``, without waiting."""
        self.lab.nsk8s("delete", "pod", name, "--wait=false", *words)

    def run(self, name: str, *argv: str, container: str = "") -> str:
        """What a command prints in a pod's container."""
        words = ["-c", container] if container else []
        return self.lab.nsk8s("exec", name, *words, "--", *argv).stdout

    def sh(self, name: str, script: str, container: str = "") -> str:
        """What a shell script prints in a pod's container."""
        return self.run(name, "sh", "-c", script, container=container)

    def logs(self, name: str, *words: str) -> str:
        """``nsk8s logs``."""
        return self.lab.nsk8s("logs", name, *words).stdout

    def fetch(self, namespace: str, url: str, *words: str) -> str:
        """What an HTTP server answers somebody in a namespace (``w1``, ``default.web``, ``external``)."""
        return self.lab.inside(namespace, "curl", "-sS", "--max-time", "5", *words, url)

    def soon(self, holds: Callable[[], object], what: str, deadline: float = 10) -> None:
        """Wait for what the API does not tell (traffic, logs)."""
        end = time.monotonic() + deadline
        while not holds():
            assert time.monotonic() < end, f"not within {deadline:g} s: {what}{self.lab.log()}"
            time.sleep(0.02)  # nothing announces it
