"""What kubectl and client-go learn about the kinds of a cluster."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from nsk8s.api.kinds import BUILTIN, LEGACY, RESOURCES, VIEWS, Kinds, Resource, kinds_of, priority
from nsk8s.apiserver.discovery import Discovery, version_info
from nsk8s.errors import ApiError
from nsk8s.paths import ClusterPaths
from tests.unit.apiserver.served import DEADLINE, Served, served

AGGREGATED = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)
V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
V2BETA1 = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"


def discovery(kinds: Kinds = BUILTIN) -> Discovery:
    return Discovery(lambda: kinds, lambda: "1.33")


def read(path: str, accept: str = "", kinds: Kinds = BUILTIN) -> dict[str, Any]:
    found = discovery(kinds).document(path, accept)
    assert found is not None
    return dict(json.loads(found.body))


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NSK8S_STATE", str(tmp_path_factory.mktemp("discovery")))
        with served(ClusterPaths("t")) as found:
            yield found


def ask(api: Served, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("x", timeout=DEADLINE)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(api.paths.socket))
    connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict(answer.headers), body


# --- the kinds --------------------------------------------------------------------------------------


def test_every_kind_is_there_once() -> None:
    names = [r.name for r in RESOURCES]
    assert len(names) == len(set(names))
    places = [(r.group, r.version, r.plural) for r in (*RESOURCES, *VIEWS, *LEGACY)]
    assert len(places) == len(set(places))


@pytest.mark.parametrize("legacy", [False, True])
def test_every_view_has_a_stored_kind(legacy: bool) -> None:
    kinds = kinds_of(legacy=legacy)
    for r in kinds:
        assert kinds.storage_of(r).stored_as == r.stored_as
        assert r.virtual or kinds.storage_of(r) in kinds.stored()


def test_words_mean_the_stored_version() -> None:
    kinds = kinds_of(legacy=True)
    for word, wanted in (("hpa", "autoscaling/v2"), ("ingress", "networking.k8s.io/v1"), ("ev", "v1"),
                         ("deploy", "apps/v1"), ("ingresses.extensions", "extensions/v1beta1")):  # fmt: skip
        found = kinds.resource_of(word)
        assert found is not None
        assert found.api_version == wanted
    assert kinds.resource_of("nonsense") is None


def test_kinds_come_and_go() -> None:
    kinds = kinds_of(legacy=False)
    before = kinds.revision, list(kinds)
    kinds.add(Resource("crontabs", "CronTab", "example.com", "v2"))
    kinds.add(Resource("crontabs", "CronTab", "example.com", "v1", served=False))
    assert kinds.by_name["crontabs.example.com"].version == "v2"
    assert ("example.com", "v1", "crontabs") not in kinds.by_path
    assert kinds.by_kind["example.com/v1", "CronTab"].served is False
    assert kinds.revision > before[0]
    kinds.remove("crontabs.example.com")
    assert list(kinds) == before[1]


def test_versions_are_preferred_as_upstream_prefers_them() -> None:
    versions = ["foo", "v1alpha1", "v1", "v2beta1", "v10", "v2", "v1beta2", "bar", "v2alpha3"]
    assert sorted(versions, key=priority) == [
        "v10", "v2", "v1", "v2beta1", "v1beta2", "v2alpha3", "v1alpha1", "bar", "foo",
    ]  # fmt: skip


# --- plain lists ------------------------------------------------------------------------------------


def test_lists_hold_subresources_with_kinds_of_their_own() -> None:
    rows = {row["name"]: row for row in read("/api/v1")["resources"]}
    assert rows["pods/eviction"] == {
        "name": "pods/eviction",
        "singularName": "",
        "namespaced": True,
        "group": "policy",
        "version": "v1",
        "kind": "Eviction",
        "verbs": ["create"],
    }
    assert rows["serviceaccounts/token"]["group"] == "authentication.k8s.io"
    assert rows["replicationcontrollers/scale"]["kind"] == "Scale"
    assert rows["pods"]["shortNames"] == ["po"]
    assert rows["pods"]["categories"] == ["all"]
    assert rows["endpoints"]["singularName"] == "endpoints"
    assert rows["componentstatuses"]["verbs"] == ["get", "list"]
    assert "deletecollection" not in rows["namespaces"]["verbs"]
    assert list(rows) == sorted(rows)


def test_groups_with_their_preferred_versions() -> None:
    groups = {group["name"]: group for group in read("/apis")["groups"]}
    assert groups["autoscaling"]["preferredVersion"] == {
        "groupVersion": "autoscaling/v2",
        "version": "v2",
    }
    assert [v["version"] for v in groups["autoscaling"]["versions"]] == ["v2", "v1"]
    assert "extensions" not in groups
    assert read("/apis/apps") == {"kind": "APIGroup", "apiVersion": "v1", **groups["apps"]}
    assert read("/apis/events.k8s.io/v1")["resources"][0]["kind"] == "Event"


@pytest.mark.parametrize("path", ["/apis/none", "/apis/apps/v7", "/apis//v1", "/api/v2", "//", "/apis/a/b/c"])
def test_nothing_else_is_there(path: str) -> None:
    assert discovery().document(path) is None


def test_the_root_lists_paths() -> None:
    assert {"/api/v1", "/apis/apps/v1", "/openapi/v3", "/healthz", "/version"} <= set(read("/")["paths"])


# --- aggregated -------------------------------------------------------------------------------------


def test_aggregated_says_the_same_as_the_lists() -> None:
    for path, groups in (("/api", {"": ["v1"]}), ("/apis", None)):
        items = read(path, AGGREGATED)["items"]
        for item in items:
            group = item["metadata"].get("name", "")
            assert groups is None or group in groups
            for version in item["versions"]:
                below = f"/apis/{group}/{version['version']}" if group else "/api/v1"
                rows = {row["name"]: row for row in read(below)["resources"]}
                said = set()
                for found in version["resources"]:
                    row = rows[found["resource"]]
                    assert found["responseKind"]["kind"] == row["kind"]
                    assert found["verbs"] == row["verbs"]
                    assert found["scope"] == ("Namespaced" if row["namespaced"] else "Cluster")
                    assert found["singularResource"] == row["singularName"]
                    assert found.get("shortNames") == row.get("shortNames")
                    said.add(found["resource"])
                    said |= {f"{found['resource']}/{s['subresource']}" for s in found.get("subresources", ())}
                assert said == set(rows)
                assert version["freshness"] == "Current"


@pytest.mark.parametrize(
    ("accept", "told"),
    [
        (AGGREGATED, V2),
        (f"{V2BETA1},application/json", V2BETA1),
        ("application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList,application/json",
         "application/json"),
        ("application/json", "application/json"),
        ("", "application/json"),
        ("application/vnd.kubernetes.protobuf,*/*", "application/json"),
    ],
)  # fmt: skip
def test_the_form_is_told(api: Served, accept: str, told: str) -> None:
    status, headers, body = ask(api, "/apis", Accept=accept)
    assert (status, headers["Content-Type"].partition(" ")[0]) == (200, told)
    found = json.loads(body)
    assert found["kind"] == ("APIGroupList" if told == "application/json" else "APIGroupDiscoveryList")
    if told != "application/json":
        assert found["apiVersion"] == f"apidiscovery.k8s.io/{'v2beta1' if 'v2beta1' in told else 'v2'}"


def test_what_is_known_is_not_sent_again(api: Served) -> None:
    _, headers, _ = ask(api, "/apis", Accept=AGGREGATED)
    status, again, body = ask(api, "/apis", Accept=AGGREGATED, If_None_Match=headers["ETag"])
    assert (status, body) == (304, b"")
    assert again["ETag"] == headers["ETag"]
    assert ask(api, "/apis", Accept="application/json", If_None_Match=headers["ETag"])[0] == 200


def test_documents_are_encoded_once_until_kinds_change() -> None:
    kinds = kinds_of(legacy=False)
    found = discovery(kinds)
    first = found.document("/apis")
    assert found.document("/apis/") is first
    kinds.add(Resource("crontabs", "CronTab", "example.com"))
    second = found.document("/apis")
    assert second is not None
    assert first is not None
    assert second.etag != first.etag


def test_unknown_paths_are_not_kept_for_ever() -> None:
    found = discovery()
    for number in range(2000):
        assert found.document(f"/apis/none{number}") is None
    assert len(found._documents) < 1000


# --- the version ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "minor", "begin"),
    [("1.33", "33", "v1.33.0+nsk8s."), ("v1.29.4", "29", "v1.29.4+nsk8s."), ("1.20", "20", "v1.20.0+nsk8s.")],
)
def test_the_version(asked: str, minor: str, begin: str) -> None:
    found = version_info(asked)
    assert (found["major"], found["minor"]) == ("1", minor)
    assert found["gitVersion"].startswith(begin)
    assert all(isinstance(value, str) for value in found.values())


def test_anybody_may_ask_for_it(api: Served) -> None:
    assert json.loads(ask(api, "/version")[2])["gitVersion"].startswith("v1.33.")


# --- verbs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/api/v1/namespaces"),
        ("POST", "/api/v1/componentstatuses"),
        ("GET", "/apis/authorization.k8s.io/v1/subjectaccessreviews"),
        ("POST", "/apis/nsk8s.dev/v1/clusters"),
        ("GET", "/api/v1/namespaces/default/pods/a/binding"),
        ("POST", "/api/v1/namespaces/default/services/a/status"),
        ("PUT", "/api/v1/namespaces/default/pods"),
    ],
)
def test_verbs_that_a_resource_has_not(api: Served, method: str, path: str) -> None:
    with pytest.raises(ApiError) as refused:
        api.client.request(method, path, {})
    assert (refused.value.code, refused.value.reason) == (405, "MethodNotAllowed")
    assert refused.value.message == "the server does not allow this method on the requested resource"


def test_collections_of_any_kind_are_deleted(api: Served) -> None:
    classes = "/apis/storage.k8s.io/v1/storageclasses"
    for name, label in (("a", "x"), ("b", "y"), ("c", "x")):
        api.client.post(
            classes, {"metadata": {"name": name, "labels": {"l": label}}, "provisioner": "example.com/none"}
        )
    gone = api.client.request("DELETE", f"{classes}?labelSelector=l%3Dx")
    assert gone["kind"] == "StorageClassList"
    assert [item["metadata"]["name"] for item in gone["items"]] == ["a", "c"]
    assert [item["metadata"]["name"] for item in api.client.get(classes)["items"]] == ["b"]
    assert api.client.get(f"{classes}?fieldSelector=metadata.name%3Da")["items"] == []
