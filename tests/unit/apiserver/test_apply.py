"""Server-side apply and field managers over HTTP: statuses, codes and words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nsk8s.api.types import Obj
from nsk8s.errors import ApiError
from nsk8s.paths import ClusterPaths
from tests.unit.apiserver.served import Served, served

MAP = "/api/v1/namespaces/default/configmaps/c"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"


@pytest.fixture
def api(state: Path) -> Iterator[Served]:
    with served(ClusterPaths("t")) as found:
        yield found


def config_map(**data: Any) -> Obj:  # noqa: ANN401  # of any type, for the wrong ones too
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}


def apply(api: Served, body: Obj, query: str) -> Obj:
    return api.client.request("PATCH", f"{MAP}?{query}", body, content_type=APPLY)


def managers(obj: Obj) -> set[tuple[str, str]]:
    return {(one["manager"], one["operation"]) for one in obj["metadata"].get("managedFields", ())}


def test_an_apply_creates_merges_and_conflicts(api: Served) -> None:
    made = apply(api, config_map(a="1"), "fieldManager=one")
    assert managers(made) == {("one", "Apply")}
    merged = apply(api, config_map(b="1"), "fieldManager=two")
    assert merged["data"] == {"a": "1", "b": "1"}
    with pytest.raises(ApiError) as refused:
        apply(api, config_map(a="2"), "fieldManager=two&force=false")
    error = refused.value
    assert (error.code, error.reason) == (409, "Conflict")
    assert error.message == 'Apply failed with 1 conflict: conflict with "one": .data.a'
    assert [(cause.path, cause.what) for cause in error.causes] == [(".data.a", 'conflict with "one"')]
    forced = apply(api, config_map(a="2"), "fieldManager=two&force=true")
    assert forced["data"] == {"a": "2"}
    assert managers(forced) == {("two", "Apply")}


def test_a_rehearsed_apply_leaves_nothing(api: Served) -> None:
    assert apply(api, config_map(a="1"), "fieldManager=one&dryRun=All")["data"] == {"a": "1"}
    with pytest.raises(ApiError, match=r'^configmaps "c" not found$'):
        api.client.get(MAP)


def test_writers_are_known_by_their_manager_or_agent(api: Served) -> None:
    made = api.client.post("/api/v1/namespaces/default/configmaps?fieldManager=me", config_map(a="1"))
    assert managers(made) == {("me", "Update")}
    labelled = api.client.request("PATCH", MAP, {"metadata": {"labels": {"a": "b"}}}, content_type=MERGE)
    assert managers(labelled) == {("me", "Update"), ("nsk8s", "Update")}
    path = f"{MAP}?fieldManager=you"
    changed = api.client.request("PATCH", path, {"data": {"a": "2"}}, content_type=MERGE)
    assert ("you", "Update") in managers(changed)
    again = api.client.request("PATCH", path, {"data": {"a": "2"}}, content_type=MERGE)
    assert again == changed


@pytest.mark.parametrize(
    ("query", "kind", "what"),
    [
        ("", APPLY, "fieldManager: Required value: is required for apply patch"),
        ("force=true", MERGE, "force: Forbidden: may not be specified for non-apply patch"),
        ("fieldManager=" + 129 * "x", MERGE, "fieldManager: Too long: may not be more than 128 bytes"),
        (
            "fieldManager=a%07",
            MERGE,
            'fieldManager: Invalid value: "a\\u0007": should only contain printable characters',
        ),
    ],
)
def test_options_that_make_no_sense(api: Served, query: str, kind: str, what: str) -> None:
    api.client.post("/api/v1/namespaces/default/configmaps", config_map(a="1"))
    with pytest.raises(ApiError) as refused:
        api.client.request("PATCH", f"{MAP}?{query}", config_map(a="2"), content_type=kind)
    assert refused.value.code == 422
    assert refused.value.message == f'PatchOptions.meta.k8s.io "" is invalid: {what}'


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (
            {**config_map(), "metadata": {"name": "c", "managedFields": []}},
            400,
            "metadata.managedFields must be nil",
        ),
        (
            {**config_map(), "metadata": {"name": "d"}},
            400,
            "the name of the object (d) does not match the name on the URL (c)",
        ),
        (
            {**config_map(), "dada": {}},
            500,
            "failed to create typed patch object (default/c; /v1, Kind=ConfigMap): .dada: field not declared "
            "in schema",
        ),
        (
            {**config_map(), "metadata": {"name": "c", "uid": "x"}},
            409,
            'Operation cannot be fulfilled on configmaps "c": uid mismatch: the provided object specified '
            "uid x, and no existing object was found",
        ),
        (
            {**config_map(), "metadata": {"name": "c", "resourceVersion": "5"}},
            500,
            "resourceVersion should not be set on objects to be created",
        ),
    ],
)
def test_what_is_not_applied(api: Served, body: Obj, code: int, words: str) -> None:
    with pytest.raises(ApiError) as refused:
        apply(api, body, "fieldManager=me")
    assert (refused.value.code, refused.value.message) == (code, words)


def test_the_command_lines_apply_is_kubectls_client_side_one(api: Served) -> None:
    for said, verdict in ((config_map(a="1"), "created"), (config_map(b="1"), "configured")):
        answer = api.client.post("/nsk8s/v1/apply", said)
        assert answer["verdict"] == verdict
    found = api.client.get(MAP)
    assert found["data"] == {"b": "1"}
    assert managers(found) == {("nsk8s", "Update")}
    assert "kubectl.kubernetes.io/last-applied-configuration" in found["metadata"]["annotations"]
    assert api.client.post("/nsk8s/v1/apply", config_map(b="1"))["verdict"] == "unchanged"
    with pytest.raises(ApiError, match="is invalid"):
        api.client.post("/nsk8s/v1/apply", {**config_map(), "metadata": {"name": "NO"}})
