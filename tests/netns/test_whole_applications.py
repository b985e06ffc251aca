"""Whole applications, by manifests in the shape of public ones, brought up as they are: every pod gets ready,
every service answers, and each kind that nobody acts on is named once."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.conftest import MakeLab
from tests.netns.podlab import CLUSTER, Obj, Pods, ready

pytestmark = pytest.mark.netns

HERE = Path(__file__).parent / "applications"
CONNECT = """
import json, socket, sys
for name, address, port in json.loads(sys.argv[1]):
    try:
        socket.create_connection((address, port), 10).close()
    except OSError as error:
        print(name, address, port, error)
"""


class Application(NamedTuple):
    name: str
    namespace: str
    labels: dict[str, str]  # of a pod that every service answers
    pods: int


APPLICATIONS = [
    Application("shop", "default", {"part-of": "shop"}, 13),
    Application("three-tier", "tiers", {"tier": "logic"}, 6),
    Application("pipeline", "default", {"app": "worker"}, 9),
]


class Standing(NamedTuple):
    application: Application
    objects: list[Obj]
    pods: Pods


def manifest(name: str) -> str:
    if name == "shop":
        return (files("nsk8s") / "examples" / "shop.yaml").read_text()
    return f"{CLUSTER}---\n{(HERE / f'{name}.yaml').read_text()}"


@pytest.fixture(scope="module", params=APPLICATIONS, ids=lambda application: application.name)
def standing(request: pytest.FixtureRequest, shared_cluster: MakeLab) -> Standing:
    application: Application = request.param
    text = manifest(application.name)
    objects = [obj for obj in yaml.safe_load_all(text) if obj]
    return Standing(application, objects, Pods(shared_cluster(text)))


def in_namespace(standing: Standing, resource: str) -> list[Obj]:
    return standing.pods.lab.get(resource, "-n", standing.application.namespace)


def is_job(one: Obj) -> bool:
    owners = one["metadata"].get("ownerReferences") or ()
    return any(owner["kind"] == "Job" for owner in owners)


def test_every_pod_is_ready_or_done(standing: Standing) -> None:
    found = in_namespace(standing, "pods")
    serving = [one for one in found if not is_job(one)]
    assert len(serving) == standing.application.pods
    assert [one["metadata"]["name"] for one in serving if not ready(one)] == []
    assert {one["status"]["phase"] for one in found if is_job(one)} <= {"Succeeded"}
    restarts = {
        status["name"]: status["restartCount"]
        for one in found
        for status in one["status"]["containerStatuses"]
        if status["restartCount"]
    }
    assert restarts == {}


def test_every_service_answers(standing: Standing) -> None:
    services = in_namespace(standing, "services")
    namespace = standing.application.namespace
    named = any(
        s["metadata"]["name"] == "kube-dns" for s in standing.pods.lab.get("services", "-n", "kube-system")
    )
    wanted = []
    for service in services:
        name, spec = service["metadata"]["name"], service["spec"]
        addresses = [name, f"{name}.{namespace}.svc.cluster.local"] if named else [spec["clusterIP"]]
        for port in spec["ports"]:
            wanted += [(name, address, port["port"]) for address in addresses if address != "None"]
    asking = next(
        one["metadata"]["name"]
        for one in in_namespace(standing, "pods")
        if standing.application.labels.items() <= one["metadata"]["labels"].items()
    )
    lab = standing.pods.lab
    program = ["python3", "-c", CONNECT, json.dumps(wanted)]
    assert lab.nsk8s("exec", "-n", namespace, asking, "--", *program).stdout == ""
    assert len(wanted) >= len(services) - 1


def test_each_kind_that_nobody_acts_on_is_named_once(standing: Standing) -> None:
    lab = standing.pods.lab
    said = lab.nsk8s("validate", os.fspath(lab.topology)).stderr
    lines = [line for line in said.splitlines() if line.startswith("stored, and not acted on: ")]
    kinds = lines[0].partition(": ")[2].split(", ") if lines else []
    assert len(lines) <= 1
    assert len(kinds) == len(set(kinds))
    assert set(kinds) <= {obj["kind"] for obj in standing.objects}


def test_a_second_up_changes_nothing(standing: Standing) -> None:
    before = {one["metadata"]["uid"] for one in in_namespace(standing, "pods")}
    standing.pods.lab.up()
    assert {one["metadata"]["uid"] for one in in_namespace(standing, "pods")} == before
