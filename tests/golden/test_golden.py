"""Runs the golden files beside it: clusters in, the text of their namespaces out.

A golden file is prose with two kinds of fenced blocks. ``yaml`` blocks together are one cluster: a Cluster
document, and objects as they are once the control plane has done its part (pods with a node and an
address, EndpointSlices). A block marked ``text NAMESPACE`` is the whole text of that namespace (with
``~ REGEX`` after it: only the lines in which the expression is found).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from nsk8s.api.topology import ClientTopology, NodeTopology, Topology
from nsk8s.api.types import EndpointSlice, Pod, Service
from nsk8s.api.views import view
from nsk8s.dataplane.compiler import ClusterView, Compiler
from nsk8s.linux.text import render
from nsk8s.linux.values import NamespaceState

FILES = sorted(Path(__file__).parent.glob("*.md"))
YAML = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEXT = re.compile(r"^```text (?P<namespace>\S+)(?: ~ (?P<only>.*))?\n(?P<body>(?:.*\n)*?)```$", re.MULTILINE)


def topology(cluster: dict[str, Any]) -> Topology:
    """A Cluster document that leaves no address to be chosen."""
    spec = cluster["spec"]

    def pair(text: str) -> tuple[str, ...]:
        return tuple(text.split(","))

    nodes = [
        NodeTopology(node["name"], node.get("role", "worker"), pair(node["address"]), pair(node["podCIDR"]))
        for node in spec["nodes"]
    ]
    clients = [ClientTopology(client["name"], pair(client["address"])) for client in spec.get("clients", [])]
    return Topology(
        cluster["metadata"]["name"],
        tuple(nodes),
        tuple(clients),
        pod_cidrs=pair(spec["podCIDR"]),
        service_cidrs=pair(spec.get("serviceCIDR", "10.96.0.0/16")),
        node_cidrs=pair(spec["nodeCIDR"]),
        host_access=spec.get("hostAccess", False),
        proxy_mode=spec.get("proxyMode", "iptables"),
    )


def states(text: str) -> dict[str, NamespaceState]:
    """What the cluster of a golden file compiles to."""
    documents = [doc for block in YAML.findall(text) for doc in yaml.safe_load_all(block) if doc]
    (cluster,) = (doc for doc in documents if doc["kind"] == "Cluster")
    objects = [view(doc) for doc in documents if doc["kind"] != "Cluster"]
    return Compiler(topology(cluster)).compile(
        ClusterView(
            [each for each in objects if isinstance(each, Pod)],
            [each for each in objects if isinstance(each, Service)],
            [each for each in objects if isinstance(each, EndpointSlice)],
        )
    )


def written(text: str) -> str:
    """The golden file as it should be."""
    compiled = states(text)

    def block(found: re.Match[str]) -> str:
        lines = render(compiled[found["namespace"]]).splitlines()
        if found["only"]:
            lines = [line for line in lines if re.search(found["only"], line)]
        head = found.group(0).partition("\n")[0]
        return "\n".join((head, *lines, "```"))

    return TEXT.sub(block, text)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    assert TEXT.search(text), "a golden file without expectations proves nothing"
    if request.config.getoption("--update", default=False):
        path.write_text(written(text))
    else:
        assert written(text).splitlines() == text.splitlines()
