"""Kinds as the real kubectls see them: a served world behind plain HTTP on the loopback interface."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from nsk8s.apiserver.authentication import ADMIN
from nsk8s.paths import ClusterPaths
from tests.netns.kubectls import Kubectl, found, label
from tests.unit.apiserver.served import DEADLINE, served
from tests.unit.apiserver.test_crds import crontab, definition, version
from tests.unit.apiserver.test_legacy import TUTORIAL
from tests.unit.cluster.worlds import three_nodes

WARNING = (
    "Warning: extensions/v1beta1 Ingress is deprecated in v1.14+, unavailable in v1.22+; "
    "use networking.k8s.io/v1 Ingress"
)


@dataclass(frozen=True, slots=True)
class Clusters:
    """Ports of a cluster as it is, and of one with legacyAPIs."""

    plain: int
    legacy: int


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    state = tmp_path_factory.mktemp("kubectl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NSK8S_STATE", str(state))
        old = replace(three_nodes(), legacy_apis=True)
        with served(ClusterPaths("plain")) as plain, served(ClusterPaths("legacy"), old) as legacy:
            ports = []
            closing = []
            for world in (plain, legacy):
                listening = socket.create_server(("127.0.0.1", 0))
                ports.append(listening.getsockname()[1])
                serving = world.server.serve(listening, lambda _: ADMIN)
                listener = asyncio.run_coroutine_threadsafe(serving, world.loop).result(DEADLINE)
                closing.append((world.loop, listener))
            yield Clusters(*ports)
            for loop, listener in closing:
                asyncio.run_coroutine_threadsafe(listener.close(), loop).result(DEADLINE)


@pytest.fixture(params=found() or [""], ids=lambda path: label(path) if path else "none")
def path(request: pytest.FixtureRequest) -> str:
    if not request.param:
        pytest.skip("no kubectl on PATH and none in NSK8S_KUBECTLS")
    return str(request.param)


def kubectl(path: str, home: Path, port: int) -> Kubectl:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
        "current-context": "c",
    }
    return Kubectl(path, home, json.dumps(config))


def test_what_there_is(path: str, tmp_path: Path, clusters: Clusters) -> None:
    run = kubectl(path, tmp_path, clusters.plain)
    rows = [line.split() for line in run("api-resources", "--no-headers").splitlines()]
    assert ["networkpolicies", "netpol", "networking.k8s.io/v1", "true", "NetworkPolicy"] in rows
    assert ["customresourcedefinitions", "crd,crds", "apiextensions.k8s.io/v1", "false"] in [
        r[:4] for r in rows
    ]
    assert ["horizontalpodautoscalers", "hpa", "autoscaling/v2", "true"] in [r[:4] for r in rows]
    versions = run("api-versions").split()
    assert {"v1", "apps/v1", "autoscaling/v1", "autoscaling/v2", "events.k8s.io/v1"} <= set(versions)
    assert not any("beta" in one for one in versions)
    assert "service/kubernetes" in run("get", "all")
    assert "is running at" in run("cluster-info")
    said = run.fails("apply", "-f", "-", stdin=TUTORIAL)
    assert 'no matches for kind "Ingress" in version "extensions/v1beta1"' in said


def test_a_tutorial_of_2019(path: str, tmp_path: Path, clusters: Clusters) -> None:
    run = kubectl(path, tmp_path, clusters.legacy)
    first = run.run("apply", "-f", "-", stdin=TUTORIAL)
    assert first.stdout == "ingress.extensions/nginx-ingress created\n"
    assert first.stderr.strip() == WARNING
    again = run.run("apply", "-f", "-", stdin=TUTORIAL)
    assert again.stdout == "ingress.extensions/nginx-ingress unchanged\n"
    assert again.stderr.strip() == WARNING
    new = run.run("get", "ing", "nginx-ingress", "-o", "jsonpath={.apiVersion}")
    assert (new.stdout, new.stderr) == ("networking.k8s.io/v1", "")
    assert "deleted" in run("delete", "-f", "-", stdin=TUTORIAL)


def test_a_kind_of_ones_own(path: str, tmp_path: Path, clusters: Clusters) -> None:
    run = kubectl(path, tmp_path, clusters.plain)
    scale = {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}
    columns = [{"name": "N", "type": "integer", "jsonPath": ".spec.n"}]
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}}},
    }
    served = version(
        schema={"openAPIV3Schema": schema}, subresources={"scale": scale}, additionalPrinterColumns=columns
    )
    run("apply", "-f", "-", stdin=json.dumps(definition("crontabs", "CronTab", served)))
    run("wait", "--for=condition=Established", "crd/crontabs.stable.example.com", "--timeout=20s")
    one = json.dumps(crontab("a", n=1))
    assert run("apply", "-f", "-", stdin=one) == "crontab.stable.example.com/a created\n"
    assert run("apply", "-f", "-", stdin=one) == "crontab.stable.example.com/a unchanged\n"
    run("scale", "--replicas=4", "ct/a")
    assert run("get", "ct").split() == ["NAME", "N", "a", "4"]
    assert (
        'unknown field "spec.m"' in run.fails("apply", "-f", "-", stdin=json.dumps(crontab("b", m=1)))
        or run.minor < 25
    )  # which checks by itself, in words of its own
    assert "n\t<integer>" in run("explain", "crontab.spec")
    run("delete", "crd", "crontabs.stable.example.com")
    assert run.fails("get", "ct")
