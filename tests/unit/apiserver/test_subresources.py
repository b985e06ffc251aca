"""Evictions, bindings, ephemeral containers and finalizers over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nsk8s.api.types import Obj
from nsk8s.errors import ApiError
from nsk8s.paths import ClusterPaths
from tests.unit.apiserver.served import Served, served
from tests.unit.cluster.worlds import deployment, pod

PODS = "/api/v1/namespaces/default/pods"
STRATEGIC = "application/strategic-merge-patch+json"


@pytest.fixture
def api(state: Path) -> Iterator[Served]:
    with served(ClusterPaths("t")) as found:
        yield found


def eviction(name: str, **options: object) -> Obj:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "default"}}
    return {**body, "deleteOptions": options} if options else body


def test_an_eviction_is_a_deletion(api: Served) -> None:
    api.client.post(PODS, pod("a"))
    answer = api.client.post(f"{PODS}/a/eviction", eviction("a", gracePeriodSeconds=4))
    assert (answer["kind"], answer["status"], answer["code"]) == ("Status", "Success", 201)
    assert api.client.get(f"{PODS}/a")["metadata"]["deletionGracePeriodSeconds"] == 4


def test_a_rehearsed_eviction_deletes_nothing(api: Served) -> None:
    api.client.post(PODS, pod("a"))
    api.client.post(f"{PODS}/a/eviction", eviction("a", dryRun=["All"]))
    api.client.post(f"{PODS}/a/eviction?dryRun=All", eviction("a"))
    assert "deletionTimestamp" not in api.client.get(f"{PODS}/a")["metadata"]


def test_preconditions_and_names_are_checked(api: Served) -> None:
    api.client.post(PODS, pod("a"))
    for body, code in (
        (eviction("b"), 400),
        (eviction("a", preconditions={"uid": "another"}), 409),
        (eviction("a", gracePeriodSeconds="soon"), 422),
    ):
        with pytest.raises(ApiError) as told:
            api.client.post(f"{PODS}/a/eviction", body)
        assert told.value.code == code
    with pytest.raises(ApiError) as told:
        api.client.get(f"{PODS}/a/eviction")
    assert told.value.code == 405


def test_a_budgets_refusal_names_its_cause(api: Served) -> None:
    api.client.post("/apis/apps/v1/namespaces/default/deployments", deployment("web", 1))
    api.within(api.world.make_ready)
    pdb = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    }
    api.client.post("/apis/policy/v1/namespaces/default/poddisruptionbudgets", pdb)
    (name,) = (item["metadata"]["name"] for item in api.client.get(PODS)["items"])
    with pytest.raises(ApiError) as told:
        api.client.post(f"{PODS}/{name}/eviction", eviction(name))
    assert (told.value.code, told.value.reason) == (429, "TooManyRequests")


@pytest.mark.parametrize("path", [f"{PODS}/a/binding", "/api/v1/namespaces/default/bindings"])
def test_a_scheduler_binds(api: Served, path: str) -> None:
    api.client.post(PODS, pod("a", schedulerName="mine"))
    binding = {"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "w2"}}
    assert api.client.post(path, binding)["status"] == "Success"
    assert api.client.get(f"{PODS}/a")["spec"]["nodeName"] == "w2"
    with pytest.raises(ApiError) as told:
        api.client.post(path, binding)
    assert told.value.code == 409


def test_ephemeral_containers_by_patch_and_by_put(api: Served) -> None:
    api.client.post(PODS, pod("a"))
    path = f"{PODS}/a/ephemeralcontainers"
    patch = {"spec": {"ephemeralContainers": [{"name": "d", "image": "busybox"}]}}
    found = api.client.request("PATCH", path, patch, content_type=STRATEGIC)
    assert [c["name"] for c in found["spec"]["ephemeralContainers"]] == ["d"]
    found = api.client.get(path)
    found["spec"]["ephemeralContainers"].append({"name": "e", "image": "busybox"})
    found["spec"]["nodeName"] = "elsewhere"
    found = api.client.request("PUT", path, found)
    assert [c["name"] for c in found["spec"]["ephemeralContainers"]] == ["d", "e"]
    assert found["spec"]["nodeName"] != "elsewhere"


def test_a_namespace_is_finalized(api: Served) -> None:
    api.client.post("/api/v1/namespaces", {"metadata": {"name": "lab"}})
    finalize = "/api/v1/namespaces/lab/finalize"
    body = {"metadata": {"name": "lab"}, "spec": {"finalizers": ["kubernetes", "example.com/x"]}}
    assert api.client.request("PUT", finalize, body)["spec"] == body["spec"]
    going = api.client.request("DELETE", "/api/v1/namespaces/lab")
    assert going["status"]["phase"] == "Terminating"
    assert api.client.get("/api/v1/namespaces/lab")["spec"]["finalizers"] == ["example.com/x"]
    with pytest.raises(ApiError) as told:
        api.client.request("PUT", finalize, {**body, "spec": {"finalizers": 7}})
    assert told.value.code == 400
    api.client.request("PUT", finalize, {**body, "spec": {}})
    with pytest.raises(ApiError) as told:
        api.client.get("/api/v1/namespaces/lab")
    assert told.value.code == 404
