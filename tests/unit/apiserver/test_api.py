"""The API as its clients see it: over a unix socket, by `nsk8s.client`."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsk8s.client import Client
from nsk8s.errors import ApiError
from nsk8s.paths import ClusterPaths
from tests.unit.apiserver.served import Served, served
from tests.unit.cluster.worlds import deployment, pod

PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


@pytest.fixture
def api(state: Path) -> Iterator[Served]:
    with served(ClusterPaths("t")) as found:
        yield found


def test_only_its_owner_can_open_the_socket(api: Served) -> None:
    assert stat.S_IMODE(api.paths.socket.stat().st_mode) & 0o077 == 0


def test_create_get_list_delete(api: Served) -> None:
    client = api.client
    turns = api.turns
    made = client.post(PODS, pod("a", {"app": "x"}))
    assert api.turns == turns + 1
    assert made["metadata"]["uid"]
    assert client.get(f"{PODS}/a")["spec"]["nodeName"] in ("w1", "w2")  # the turn came before the answer
    client.post(PODS, pod("b", {"app": "y"}))
    listing = client.get(PODS)
    assert listing["kind"] == "PodList"
    assert [item["metadata"]["name"] for item in listing["items"]] == ["a", "b"]
    assert int(listing["metadata"]["resourceVersion"]) == api.world.store.revision
    gone = client.request("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 0})
    assert (gone["status"], gone["details"]["uid"]) == ("Success", made["metadata"]["uid"])
    going = client.request("DELETE", f"{PODS}/b")
    assert going["metadata"]["deletionGracePeriodSeconds"] == 30


def test_selectors(api: Served) -> None:
    for name, app in (("a", "x"), ("b", "y"), ("c", "x")):
        api.client.post(PODS, pod(name, {"app": app}))

    def names(query: str) -> list[str]:
        return [item["metadata"]["name"] for item in api.client.get(f"/api/v1/pods?{query}")["items"]]

    assert names("labelSelector=app%3Dx") == ["a", "c"]
    assert names("labelSelector=app+notin+(x)") == ["b"]
    assert names("fieldSelector=metadata.name%3Db") == ["b"]
    node = api.client.get(f"{PODS}/a")["spec"]["nodeName"]
    assert "a" in names(f"fieldSelector=spec.nodeName%3D{node},status.phase%3DPending")
    with pytest.raises(ApiError, match="field") as refused:
        names("fieldSelector=spec.bogus%3D1")
    assert refused.value.code == 400


def test_patches(api: Served) -> None:
    api.client.post(PODS, pod("a", {"app": "x", "old": "1"}))
    address = f"{PODS}/a"
    merged = api.client.request(
        "PATCH", address, {"metadata": {"labels": {"old": None, "new": "2"}}}, content_type=MERGE
    )
    assert merged["metadata"]["labels"] == {"app": "x", "new": "2"}
    patch = [{"op": "replace", "path": "/metadata/labels/app", "value": "z"}]
    json = api.client.request("PATCH", address, patch, content_type="application/json-patch+json")
    assert json["metadata"]["labels"]["app"] == "z"
    with pytest.raises(ApiError) as refused:
        api.client.request("PATCH", address, {}, content_type="text/plain")
    assert (refused.value.code, refused.value.reason) == (415, "UnsupportedMediaType")


def test_apply_twice_changes_nothing(api: Served) -> None:
    address = f"{DEPLOYMENTS}/web"
    applying = f"{address}?fieldManager=me"
    first = api.client.request("PATCH", applying, deployment("web"), content_type=APPLY)
    before = api.client.get(address)["metadata"]["resourceVersion"]
    again = api.client.request("PATCH", applying, deployment("web"), content_type=APPLY)
    assert first["metadata"]["name"] == "web"
    assert again["metadata"]["resourceVersion"] == before


def test_scale(api: Served) -> None:
    api.client.post(DEPLOYMENTS, deployment("web", 1))
    scaled = api.client.request(
        "PATCH", f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": 3}}, content_type=MERGE
    )
    assert (scaled["kind"], scaled["spec"]["replicas"]) == ("Scale", 3)
    assert len(api.client.get(PODS)["items"]) == 3


def test_deleting_a_collection(api: Served) -> None:
    for name, app in (("a", "x"), ("b", "y")):
        api.client.post(PODS, pod(name, {"app": app}))
    api.client.request("DELETE", f"{PODS}?labelSelector=app%3Dx&gracePeriodSeconds=0")
    assert [p["metadata"]["name"] for p in api.client.get(PODS)["items"]] == ["b"]


# --- errors -----------------------------------------------------------------------------------------


def test_errors_come_back_as_they_were(api: Served) -> None:
    with pytest.raises(ApiError, match='pods "nobody" not found') as missing:
        api.client.get(f"{PODS}/nobody")
    assert (missing.value.code, missing.value.reason, missing.value.name) == (404, "NotFound", "nobody")
    api.client.post(PODS, pod("a"))
    with pytest.raises(ApiError) as twice:
        api.client.post(PODS, pod("a"))
    assert (twice.value.code, twice.value.reason) == (409, "AlreadyExists")
    with pytest.raises(ApiError) as invalid:
        api.client.post(PODS, pod("b", containers=[]))
    assert (invalid.value.code, invalid.value.reason) == (422, "Invalid")
    assert invalid.value.causes[0].path.startswith("spec.containers")
    stale = {**api.client.get(f"{PODS}/a")}
    stale["metadata"] = {**stale["metadata"], "resourceVersion": "1", "labels": {"a": "b"}}
    with pytest.raises(ApiError) as conflict:
        api.client.put(f"{PODS}/a", stale)
    assert (conflict.value.code, conflict.value.reason) == (409, "Conflict")
    with pytest.raises(ApiError) as nowhere:
        api.client.get("/apis/nowhere/v1/things")
    assert nowhere.value.code == 404


def test_what_is_refused_leaves_nothing_behind(api: Served) -> None:
    before = api.world.store.revision
    with pytest.raises(ApiError):
        api.client.post(PODS, pod("a", containers=[]))
    assert api.world.store.revision == before
    assert not api.world.store.pending()


def raw(api: Served, request: bytes) -> bytes:
    """The answer to a request as it stands on the wire."""
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(20)
        wire.connect(str(api.paths.socket))
        wire.sendall(request)
        return wire.recv(65536)


def test_a_malformed_body_is_a_bad_request(api: Served) -> None:
    head = f"POST {PODS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n"
    answer = raw(api, head.encode() + b"{oops")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"reason":"BadRequest"' in answer


# --- watching ---------------------------------------------------------------------------------------


def test_a_watch_goes_on_from_a_revision(api: Served) -> None:
    revision = api.client.get(PODS)["metadata"]["resourceVersion"]
    api.client.post(PODS, pod("a", {"app": "x"}))
    query = f"watch=true&resourceVersion={revision}&labelSelector=app%3Dx"
    events = Client(api.paths).watch(f"{PODS}?{query}")
    first = next(events)
    assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "a")
    seen = next(events)
    assert seen["type"] == "MODIFIED"  # it was bound to a node
    api.client.request("PATCH", f"{PODS}/a", {"metadata": {"labels": {"app": "y"}}}, content_type=MERGE)
    assert next(events)["type"] == "DELETED"  # it has left the selection
    api.client.request("PATCH", f"{PODS}/a", {"metadata": {"labels": {"app": "x"}}}, content_type=MERGE)
    assert next(events)["type"] == "ADDED"
    api.client.request("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 0})
    last = next(events)
    assert last["type"] == "DELETED"
    assert int(last["object"]["metadata"]["resourceVersion"]) == api.world.store.revision


def test_a_watch_without_a_revision_begins_with_what_there_is(api: Served) -> None:
    api.client.post(PODS, pod("a"))
    events = Client(api.paths).watch(f"{PODS}?watch=1&timeoutSeconds=1")
    assert [event["object"]["metadata"]["name"] for event in events] == ["a"]


def test_a_watch_of_a_forgotten_revision_expires(api: Served) -> None:
    def churn() -> None:
        for number in range(17_000):
            obj = api.world.store.find("namespaces", "", "default")
            meta = {**obj["metadata"], "annotations": {"n": str(number)}}
            api.world.store.update("namespaces", {**obj, "metadata": meta})
            if number % 1000 == 0:
                api.world.store.commit()

    api.within(churn)
    with pytest.raises(ApiError, match="too old resource version") as expired:
        next(Client(api.paths).watch(f"{PODS}?watch=true&resourceVersion=1"))
    assert (expired.value.code, expired.value.reason) == (410, "Expired")


def test_a_watch_as_a_table(api: Served) -> None:
    table = api.client.get(PODS, accept=TABLE)
    revision = table["metadata"]["resourceVersion"]
    api.client.post(PODS, pod("a"))
    events = Client(api.paths).watch(f"{PODS}?watch=true&resourceVersion={revision}", accept=TABLE)
    assert next(events)["object"]["rows"][0]["cells"][:3] == ["a", "0/1", "Pending"]


# --- tables, discovery, our own routes ----------------------------------------------------------------


def test_tables_have_kubectls_columns(api: Served) -> None:
    def columns(path: str) -> list[tuple[str, int]]:
        table = api.client.get(path, accept=TABLE)
        assert table["kind"] == "Table"
        return [(c["name"].upper(), c.get("priority", 0)) for c in table["columnDefinitions"]]

    assert [n for n, p in columns(PODS) if not p] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    wide = [n for n, p in columns(PODS) if p]
    assert wide == ["IP", "NODE", "NOMINATED NODE", "READINESS GATES"]
    assert [n for n, p in columns("/api/v1/services") if not p] == [
        *("NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE")
    ]
    assert [n for n, p in columns(DEPLOYMENTS) if not p] == [
        *("NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE")
    ]
    assert [n for n, p in columns("/api/v1/nodes") if not p] == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    assert columns("/api/v1/serviceaccounts")[0] == ("NAME", 0)


def test_a_nodes_row(api: Served) -> None:
    table = api.client.get("/api/v1/nodes", accept=TABLE)
    cells = {row["cells"][0]: row["cells"] for row in table["rows"]}
    assert cells["master"][1:3] == ["Ready", "control-plane"]
    assert cells["w1"][1:3] == ["Ready", "<none>"]
    assert table["rows"][0]["object"]["metadata"]["name"] == "master"


def test_discovery(api: Served) -> None:
    assert api.client.get("/api")["versions"] == ["v1"]
    assert "apps" in [group["name"] for group in api.client.get("/apis")["groups"]]
    core = {r["name"]: r for r in api.client.get("/api/v1")["resources"]}
    assert core["pods"]["shortNames"] == ["po"]
    assert core["pods"]["namespaced"]
    apps = {r["name"] for r in api.client.get("/apis/apps/v1")["resources"]}
    assert {"deployments", "deployments/scale", "deployments/status"} <= apps
    assert api.client.get("/version")["gitVersion"].startswith("v1.")
    assert b"\r\n\r\nok" in raw(api, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")


def test_routes_of_our_own(api: Served) -> None:
    assert api.client.get("/nsk8s/v1/echo?a=1&b=2") == {"query": {"a": "1", "b": "2"}}
    assert list(api.client.stream("POST", "/nsk8s/v1/count", {"to": 3})) == [{"number": n} for n in range(3)]
    lines = api.client.stream("POST", "/nsk8s/v1/count", {"to": 1, "fail": True})
    assert next(lines) == {"number": 0}
    with pytest.raises(ApiError, match="too far"):
        next(lines)


def test_a_list_comes_in_parts(api: Served) -> None:
    for name in ("a", "b", "c", "d", "e"):
        api.client.post(PODS, pod(name))
    found, token, left = [], "", []
    while True:
        part = api.client.get(f"{PODS}?limit=2&continue={token}")
        found += [item["metadata"]["name"] for item in part["items"]]
        left.append(part["metadata"].get("remainingItemCount", 0))
        token = part["metadata"].get("continue", "")
        if not token:
            break
    assert found == ["a", "b", "c", "d", "e"]
    assert left == [3, 1, 0]
    with pytest.raises(ApiError) as refused:
        api.client.get(f"{PODS}?limit=2&continue=nonsense")
    assert refused.value.code == 400


def test_metadata_alone(api: Served) -> None:
    api.client.post(PODS, pod("a"))
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
    found = api.client.get(PODS, accept=accept)
    assert (found["kind"], found["apiVersion"]) == ("PartialObjectMetadataList", "meta.k8s.io/v1")
    assert [set(item) for item in found["items"]] == [{"kind", "apiVersion", "metadata"}]
