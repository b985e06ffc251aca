"""A cluster to be hurt, and how tests look at what must survive.

n1, n2, a machine outside; stand-ins behind a service, a real process, a pod in its node's network.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import yaml

from tests.lab import Lab
from tests.netns.scenario import Obj, pod, port, service

CLUSTER: Obj = {
    "apiVersion": "nsk8s.dev/v1",
    "kind": "Cluster",
    "metadata": {"name": "x"},
    "spec": {"nodes": [{"name": "n1"}, {"name": "n2"}], "clients": [{"name": "outside"}]},
}
SLEEP = ("sleep", "86400")


def deployment(name: str, replicas: int) -> Obj:
    """Stand-ins on port 8080."""
    labels = {"app": name}
    container = {"name": "c", "image": "example/echo:1", "ports": [{"name": "http", "containerPort": 8080}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
        },
    }


OBJECTS: list[Obj] = [
    deployment("web", 3),
    deployment("churn", 2),
    pod("client", "n1", ports=()),
    pod("real", "n2", ports=(), command=list(SLEEP)),
    pod("agent", "n1", ports=(("http", 9000),), host_network=True),
    service("web", {"app": "web"}, port(80, "http", nodePort=30080), type="NodePort"),
    service("churn", {"app": "churn"}, port(80, "http")),
]


def stream(*objects: Obj) -> str:
    """Objects as a YAML file."""
    return yaml.safe_dump_all(objects)


def until(lab: Lab, condition: Callable[[], bool], what: str, deadline: float = 20) -> None:
    """Wait until `condition` holds."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, f"not within {deadline:g} s: {what}{lab.log()}"


def containers(lab: Lab, *names: str) -> dict[str, tuple[str, int]]:
    """Container id and number of restarts of the pods whose name begins with one of `names`."""
    return {
        name: (status["containerID"], status["restartCount"])
        for name, obj in lab.pods().items()
        if name.startswith(names)
        for status in obj["status"]["containerStatuses"]
    }


def bridge_ports(lab: Lab, node: str) -> dict[str, int]:
    """The ports of a node's bridge, and their ifindex: another one is another interface."""
    links = json.loads(lab.inside(node, "ip", "-j", "link", "show", "master", "cni0"))
    return {link["ifname"]: link["ifindex"] for link in links}
