"""Server-side apply of a Scale: who owns the replicas, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nsk8s.api.types import Obj
from nsk8s.errors import ApiError
from nsk8s.paths import ClusterPaths
from tests.unit.apiserver.served import Served, served
from tests.unit.apiserver.test_crds import CRONTABS, DEFINITIONS, crontab, definition, version
from tests.unit.cluster.worlds import deployment

DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
WEB = f"{DEPLOYMENTS}/web"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
REPLICAS: Obj = {"f:spec": {"f:replicas": {}}}


@pytest.fixture
def api(state: Path) -> Iterator[Served]:
    with served(ClusterPaths("t")) as found:
        yield found


@pytest.fixture
def web(api: Served) -> Served:
    """A deployment of two replicas, which its creator owns."""
    api.client.post(f"{DEPLOYMENTS}?fieldManager=creator", deployment("web", 2))
    return api


def scale(replicas: object, **meta: object) -> Obj:
    return {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {"name": "web", **meta},
        "spec": {"replicas": replicas},
    }


def apply(api: Served, body: Obj, query: str, path: str = WEB) -> Obj:
    return api.client.request("PATCH", f"{path}/scale?{query}", body, content_type=APPLY)


def entries(obj: Obj) -> dict[tuple[str, str, str], Obj]:
    return {
        (one["manager"], one["operation"], one.get("subresource", "")): one
        for one in obj["metadata"].get("managedFields", ())
    }


def test_an_applied_scale_takes_the_replicas_over(web: Served) -> None:
    answer = apply(web, scale(5), "fieldManager=me&force=true")
    assert (answer["kind"], answer["spec"]) == ("Scale", {"replicas": 5})
    assert "managedFields" not in answer["metadata"]
    found = web.client.get(WEB)
    assert (found["spec"]["replicas"], found["metadata"]["generation"]) == (5, 2)
    owners = entries(found)
    mine = owners["me", "Apply", "scale"]
    assert (mine["apiVersion"], mine["fieldsV1"]) == ("apps/v1", REPLICAS)
    assert "time" not in mine
    creators = owners["creator", "Update", ""]
    assert "f:replicas" not in creators["fieldsV1"]["f:spec"]
    assert "f:template" in creators["fieldsV1"]["f:spec"]
    again = apply(web, scale(5), "fieldManager=me")
    assert again["metadata"]["resourceVersion"] == found["metadata"]["resourceVersion"]


def test_what_others_own_is_not_scaled_without_force(web: Served) -> None:
    with pytest.raises(ApiError) as refused:
        apply(web, scale(5), "fieldManager=me")
    assert (refused.value.code, refused.value.reason) == (409, "Conflict")
    words = 'Apply failed with 1 conflict: conflict with "creator" using autoscaling/v1: .spec.replicas'
    assert refused.value.message == words
    assert web.client.get(WEB)["spec"]["replicas"] == 2
    apply(web, scale(2), "fieldManager=me")  # to agree is no conflict
    owners = entries(web.client.get(WEB))
    assert owners["me", "Apply", "scale"]["fieldsV1"] == REPLICAS
    assert "f:replicas" in owners["creator", "Update", ""]["fieldsV1"]["f:spec"]
    main = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 3}}
    with pytest.raises(ApiError) as refused:
        web.client.request("PATCH", f"{WEB}?fieldManager=other", main, content_type=APPLY)
    assert {cause.what for cause in refused.value.causes} == {
        'conflict with "me" with subresource "scale"',
        'conflict with "creator" using apps/v1',
    }


def test_who_scales_otherwise_takes_them_back(web: Served) -> None:
    apply(web, scale(5), "fieldManager=me&force=true")
    web.client.request(
        "PATCH", f"{WEB}/scale?fieldManager=you", {"spec": {"replicas": 1}}, content_type=MERGE
    )
    owners = entries(web.client.get(WEB))
    assert ("me", "Apply", "scale") not in owners
    assert owners["you", "Update", "scale"]["fieldsV1"] == REPLICAS


def test_who_knows_an_older_revision_does_not_scale(web: Served) -> None:
    known = web.client.get(f"{WEB}/scale")
    known["spec"]["replicas"] = 3
    assert web.client.request("PUT", f"{WEB}/scale", known)["spec"]["replicas"] == 3
    known["spec"]["replicas"] = 4
    patch = {key: known[key] for key in ("metadata", "spec")}
    for method, body, kind in (("PUT", known, "application/json"), ("PATCH", patch, MERGE)):
        with pytest.raises(ApiError, match="the object has been modified") as refused:
            web.client.request(method, f"{WEB}/scale", body, content_type=kind)
        assert refused.value.code == 409
    assert web.client.get(WEB)["spec"]["replicas"] == 3


def test_a_rehearsed_scale_leaves_nothing(web: Served) -> None:
    assert apply(web, scale(5), "fieldManager=me&force=true&dryRun=All")["spec"]["replicas"] == 5
    assert web.client.get(WEB)["spec"]["replicas"] == 2


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (
            {**scale(5), "apiVersion": "apps/v1", "kind": "Deployment"},
            400,
            "Incorrect version specified in apply patch. Specified patch version: apps/v1, expected: "
            "autoscaling/v1",
        ),
        (scale(5, managedFields=[]), 400, "metadata.managedFields must be nil"),
        (
            scale(5, name="other"),
            400,
            "the name of the object (other) does not match the name on the URL (web)",
        ),
        (
            scale(5, resourceVersion="1"),
            409,
            'Operation cannot be fulfilled on deployments.apps "web": the object has been modified; please '
            "apply your changes to the latest version and try again",
        ),
        (
            scale(-1),
            422,
            'Scale "web" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0',
        ),
        (
            {**scale(5), "spec": {"size": 5}},
            500,
            "failed to create typed patch object (default/web; autoscaling/v1, Kind=Scale): .spec.size: "
            "field not declared in schema",
        ),
    ],
)
def test_what_is_no_scale_is_refused(web: Served, body: Obj, code: int, words: str) -> None:
    with pytest.raises(ApiError) as refused:
        apply(web, body, "fieldManager=me&force=true")
    assert (refused.value.code, refused.value.message) == (code, words)
    assert web.client.get(WEB)["spec"]["replicas"] == 2


def test_nothing_that_is_not_there_is_scaled(api: Served) -> None:
    with pytest.raises(ApiError) as refused:
        apply(api, scale(5), "fieldManager=me")
    assert (refused.value.code, refused.value.message) == (404, 'deployments.apps "web" not found')


def test_a_custom_resource_has_its_replicas_elsewhere(api: Served) -> None:
    part = {"specReplicasPath": ".spec.size.count", "statusReplicasPath": ".status.count"}
    api.client.post(DEFINITIONS, definition("crontabs", "CronTab", version(subresources={"scale": part})))
    api.client.post(f"{CRONTABS}?fieldManager=creator", crontab("a", size={"kind": "x", "count": 1}))
    body = scale(3, name="a")
    with pytest.raises(ApiError, match=r'conflict with "creator" using autoscaling/v1: \.spec\.replicas$'):
        apply(api, body, "fieldManager=me", f"{CRONTABS}/a")
    assert apply(api, body, "fieldManager=me&force=true", f"{CRONTABS}/a")["spec"] == {"replicas": 3}
    found = api.client.get(f"{CRONTABS}/a")
    assert found["spec"]["size"] == {"kind": "x", "count": 3}
    owners = entries(found)
    assert owners["me", "Apply", "scale"]["apiVersion"] == found["apiVersion"]
    assert owners["me", "Apply", "scale"]["fieldsV1"] == {"f:spec": {"f:size": {"f:count": {}}}}
    assert "f:count" not in owners["creator", "Update", ""]["fieldsV1"]["f:spec"]["f:size"]
