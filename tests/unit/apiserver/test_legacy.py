"""Old versions, and other views of the same stored objects."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from nsk8s.api import manifest
from nsk8s.api.conversions import convert
from nsk8s.api.kinds import LEGACY, VIEWS, Resource, kinds_of
from nsk8s.api.openapi import schema_of
from nsk8s.api.types import Obj
from nsk8s.errors import ApiError, ManifestError
from nsk8s.paths import ClusterPaths
from tests.unit.apiserver.served import DEADLINE, Served, served
from tests.unit.cluster.worlds import three_nodes

OLD = "/apis/extensions/v1beta1/namespaces/default/ingresses"
NEW = "/apis/networking.k8s.io/v1/namespaces/default/ingresses"
HPA = "/apis/autoscaling/{}/namespaces/default/horizontalpodautoscalers"
MERGE = "application/merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
KINDS = kinds_of(legacy=True)

TUTORIAL = """\
apiVersion: extensions/v1beta1
kind: Ingress
metadata:
  name: nginx-ingress
spec:
  backend: {serviceName: fallback, servicePort: http}
  rules:
  - host: tomcat.demo.com
    http:
      paths:
      - path: /
        backend:
          serviceName: tomcat-service
          servicePort: 80
"""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NSK8S_STATE", str(tmp_path_factory.mktemp("legacy")))
        with served(ClusterPaths("t"), replace(three_nodes(), legacy_apis=True)) as found:
            yield found


def ingress(name: str, port: int | str = 80) -> Obj:
    paths = [{"path": "/", "backend": {"serviceName": "web", "servicePort": port}}]
    return {
        "apiVersion": "extensions/v1beta1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"rules": [{"host": "example.com", "http": {"paths": paths}}]},
    }


def up(obj: Obj) -> Obj:
    """As it is stored."""
    return convert(obj, KINDS.storage_of(KINDS.by_kind[obj["apiVersion"], obj["kind"]]))


def down(obj: Obj, api_version: str) -> Obj:
    return convert(obj, KINDS.by_kind[api_version, obj["kind"]])


def warnings(api: Served, method: str, path: str, body: object = None) -> list[str]:
    connection = http.client.HTTPConnection("x", timeout=DEADLINE)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(api.paths.socket))
    raw = None if body is None else json.dumps(body)
    connection.request(method, path, raw, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.headers.get_all("Warning") or []


# --- served -----------------------------------------------------------------------------------------


def test_an_old_ingress_is_a_new_one(api: Served) -> None:
    made = api.client.post(OLD, ingress("a"))
    assert made["apiVersion"] == "extensions/v1beta1"
    assert made["spec"]["rules"][0]["http"]["paths"][0]["backend"] == {
        "serviceName": "web",
        "servicePort": 80,
    }
    stored = api.client.get(f"{NEW}/a")
    assert stored["apiVersion"] == "networking.k8s.io/v1"
    assert stored["spec"]["rules"][0]["http"]["paths"] == [
        {
            "path": "/",
            "pathType": "ImplementationSpecific",
            "backend": {"service": {"name": "web", "port": {"number": 80}}},
        }
    ]
    listing = api.client.get("/apis/networking.k8s.io/v1beta1/ingresses")
    assert listing["apiVersion"] == "networking.k8s.io/v1beta1"
    assert {item["apiVersion"] for item in listing["items"]} == {"networking.k8s.io/v1beta1"}


def test_patches_are_for_the_version_they_name(api: Served) -> None:
    api.client.post(OLD, ingress("patched"))
    backend = {"spec": {"backend": {"serviceName": "other", "servicePort": "http"}}}
    api.client.request("PATCH", f"{OLD}/patched", backend, content_type=MERGE)
    stored = api.client.get(f"{NEW}/patched")
    assert stored["spec"]["defaultBackend"] == {"service": {"name": "other", "port": {"name": "http"}}}
    old = api.client.get(f"{OLD}/patched")
    old["spec"]["backend"]["servicePort"] = 8080
    api.client.put(f"{OLD}/patched", old)
    assert api.client.get(f"{NEW}/patched")["spec"]["defaultBackend"]["service"]["port"] == {"number": 8080}
    assert api.client.request("DELETE", f"{OLD}/patched")["status"] == "Success"


def test_watches_and_tables_of_views(api: Served) -> None:
    watches = [api.client.watch(f"{path}?watch=true&fieldSelector=metadata.name%3Dw") for path in (OLD, NEW)]
    api.client.post(NEW, up(ingress("w")))
    events = [next(watch) for watch in watches]
    assert [event["object"]["apiVersion"] for event in events] == [
        "extensions/v1beta1",
        "networking.k8s.io/v1",
    ]
    tables = [api.client.get(f"{path}?fieldSelector=metadata.name%3Dw", accept=TABLE) for path in (OLD, NEW)]
    assert tables[0]["rows"][0]["cells"] == tables[1]["rows"][0]["cells"]


def test_who_asks_for_them_is_warned(api: Served) -> None:
    told = (
        '299 - "extensions/v1beta1 Ingress is deprecated in v1.14+, unavailable in v1.22+; '
        'use networking.k8s.io/v1 Ingress"'
    )
    assert warnings(api, "POST", OLD, ingress("warned")) == [told]
    assert warnings(api, "GET", OLD) == [told]
    assert warnings(api, "GET", f"{OLD}/warned") == [told]
    assert warnings(api, "GET", NEW) == []
    assert warnings(api, "GET", "/api/v1/endpoints") == [
        '299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"'
    ]


def test_old_groups_come_last_and_have_no_short_names(api: Served) -> None:
    groups = [group["name"] for group in api.client.get("/apis")["groups"]]
    assert groups.index("extensions") > groups.index("networking.k8s.io")
    rows = api.client.get("/apis/extensions/v1beta1")["resources"]
    assert {"ingresses", "ingresses/status", "deployments", "deployments/scale", "networkpolicies"} <= {
        row["name"] for row in rows
    }
    assert not any(row.get("shortNames") or row.get("categories") for row in rows)
    preferred = {g["name"]: g["preferredVersion"]["version"] for g in api.client.get("/apis")["groups"]}
    assert (preferred["apps"], preferred["policy"], preferred["batch"]) == ("v1", "v1", "v1")


def test_without_them_there_are_none(state: Path) -> None:
    with served(ClusterPaths("t")) as modern:
        with pytest.raises(ApiError) as refused:
            modern.client.get(OLD)
        assert refused.value.code == 404
        assert refused.value.message == "the server could not find the requested resource"
        assert "extensions" not in [group["name"] for group in modern.client.get("/apis")["groups"]]


def test_an_old_deployment_runs(api: Served) -> None:
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "nginx"}]},
    }
    body: Obj = {"metadata": {"name": "web"}, "spec": {"replicas": 2, "template": template}}
    api.client.post("/apis/extensions/v1beta1/namespaces/default/deployments", body)
    stored = api.client.get("/apis/apps/v1/namespaces/default/deployments/web")
    assert stored["spec"]["selector"] == {"matchLabels": {"app": "web"}}
    assert stored["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 1}
    assert len(api.client.get("/api/v1/pods?labelSelector=app%3Dweb")["items"]) == 2
    scale = api.client.get("/apis/apps/v1beta2/namespaces/default/deployments/web/scale")
    assert (scale["apiVersion"], scale["spec"]) == ("autoscaling/v1", {"replicas": 2})


# --- views that every cluster has -------------------------------------------------------------------


def test_events_in_both_versions(api: Served) -> None:
    core: Obj = {
        "metadata": {"name": "e.1", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": "a", "namespace": "default"},
        "reason": "Started",
        "message": "Started container c",
        "source": {"component": "kubelet"},
        "type": "Normal",
        "count": 3,
        "firstTimestamp": "2026-11-23T20:33:00Z",
        "lastTimestamp": "2026-11-23T20:34:00Z",
    }
    api.client.post("/api/v1/namespaces/default/events", core)
    found = api.client.get("/apis/events.k8s.io/v1/namespaces/default/events/e.1")
    assert found["apiVersion"] == "events.k8s.io/v1"
    assert (found["regarding"]["name"], found["note"]) == ("a", "Started container c")
    assert (found["deprecatedCount"], found["deprecatedSource"]) == (3, {"component": "kubelet"})
    new: Obj = {
        "metadata": {"name": "e.2", "namespace": "default"},
        "eventTime": "2026-11-23T20:33:00.000000Z",
        "reportingController": "example.com/controller",
        "reportingInstance": "controller-0",
        "action": "Binding",
        "reason": "Scheduled",
        "regarding": {"kind": "Pod", "name": "b", "namespace": "default"},
        "note": "Assigned",
        "type": "Normal",
    }
    api.client.post("/apis/events.k8s.io/v1/namespaces/default/events", new)
    stored = api.client.get("/api/v1/namespaces/default/events/e.2")
    assert (stored["reportingComponent"], stored["message"]) == ("example.com/controller", "Assigned")
    selected = api.client.get("/api/v1/events?fieldSelector=involvedObject.name%3Db")["items"]
    assert "e.2" in [item["metadata"]["name"] for item in selected]


def test_autoscalers_in_both_versions(api: Served) -> None:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    body: Obj = {
        "metadata": {"name": "web"},
        "spec": {"scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 80},
    }
    made = api.client.post(HPA.format("v1"), body)
    assert made["spec"]["targetCPUUtilizationPercentage"] == 80
    stored = api.client.get(HPA.format("v2") + "/web")
    assert stored["spec"]["metrics"] == [
        {
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
        }
    ]


# --- conversions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", [*LEGACY, *VIEWS], ids=lambda r: f"{r.api_version}-{r.kind}")
@pytest.mark.parametrize(
    "body", [{}, {"spec": None}, {"spec": []}, {"spec": {"rules": 1, "metrics": None, "selector": {}}},
             {"spec": {"rules": [None, {"http": {"paths": ["x", {"backend": 7}]}}], "template": "x"}},
             {"metadata": None, "status": 3}]
)  # fmt: skip
def test_what_is_malformed_is_converted_without_complaint(view: Resource, body: Obj) -> None:
    obj = {"apiVersion": view.api_version, "kind": view.kind, **body}
    stored = up(obj)
    assert stored["apiVersion"] == KINDS.storage_of(view).api_version
    assert down(stored, view.api_version)["apiVersion"] == view.api_version


def test_conversions_change_nothing_in_place() -> None:
    obj = ingress("a")
    before = json.dumps(obj)
    stored = up(obj)
    after = json.dumps(stored)
    down(stored, "extensions/v1beta1")
    assert (json.dumps(obj), json.dumps(stored)) == (before, after)
    assert convert(stored, KINDS.by_kind["networking.k8s.io/v1", "Ingress"]) is stored


METRICS = [
    {"type": "Resource",
     "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
    {"type": "ContainerResource",
     "containerResource": {"name": "cpu", "container": "c",
                           "target": {"type": "Utilization", "averageUtilization": 5}}},
    {"type": "Pods",
     "pods": {"metric": {"name": "rps", "selector": {"matchLabels": {"a": "b"}}},
              "target": {"type": "AverageValue", "averageValue": "1k"}}},
    {"type": "Object",
     "object": {"describedObject": {"kind": "Ingress", "name": "i"}, "metric": {"name": "rps"},
                "target": {"type": "Value", "value": "2k"}}},
    {"type": "Object",
     "object": {"describedObject": {"kind": "Ingress", "name": "i"}, "metric": {"name": "rps"},
                "target": {"type": "AverageValue", "averageValue": "3"}}},
    {"type": "External",
     "external": {"metric": {"name": "queue", "selector": {"matchLabels": {"q": "x"}}},
                  "target": {"type": "AverageValue", "averageValue": "30"}}},
]  # fmt: skip


def test_no_metric_is_lost_in_the_old_version() -> None:
    cpu = {"type": "Utilization", "averageUtilization": 50}
    first = {"type": "Resource", "resource": {"name": "cpu", "target": cpu}}
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 60}}
    obj: Obj = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "a", "annotations": {"x": "y"}},
        "spec": {"maxReplicas": 3, "metrics": [first, *METRICS], "behavior": behavior},
        "status": {"currentReplicas": 1, "conditions": [{"type": "AbleToScale", "status": "True"}]},
    }
    old = down(obj, "autoscaling/v1")
    assert old["spec"] == {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}
    told = json.loads(old["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"])
    assert told[0] == {"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}}
    assert up(old) == obj


def test_an_empty_selector_of_an_old_budget_takes_no_pods() -> None:
    old: Obj = {"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget", "spec": {"selector": {}}}
    stored = up(old)
    assert stored["spec"]["selector"]["matchExpressions"][0]["operator"] == "Exists"
    assert down(stored, "policy/v1beta1") == old


# --- files ------------------------------------------------------------------------------------------


def test_files_of_old(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(TUTORIAL)
    with pytest.raises(ManifestError) as refused:
        manifest.read([str(file)])
    (problem,) = refused.value.problems
    assert problem.what == 'no matches for kind "Ingress" in version "extensions/v1beta1"'
    assert problem.hint is not None
    assert "legacyAPIs: true" in problem.hint
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(
        "apiVersion: nsk8s.dev/v1\nkind: Cluster\nmetadata: {name: t}\n"
        "spec: {legacyAPIs: true, kubernetesVersion: v1.19.16}\n"
    )
    found = manifest.read([str(cluster), str(file)])
    assert found.topology is not None
    assert (found.topology.legacy_apis, found.topology.kubernetes_version) == (True, "v1.19.16")
    (document,) = found.objects
    assert document.obj["apiVersion"] == "networking.k8s.io/v1"
    assert document.obj["spec"]["defaultBackend"]["service"] == {"name": "fallback", "port": {"name": "http"}}
    assert manifest.read([str(file)], lambda: KINDS).objects[0].obj == document.obj


def test_files_with_a_definition_and_its_objects(tmp_path: Path) -> None:
    file = tmp_path / "crd.yaml"
    file.write_text(
        "apiVersion: example.com/v1\nkind: Cat\nmetadata: {name: tom}\nspec: {lives: 9}\n---\n"
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n"
        "metadata: {name: cats.example.com}\n"
        "spec:\n  group: example.com\n  scope: Namespaced\n  names: {plural: cats, kind: Cat}\n"
        "  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]\n"
    )
    found = manifest.read([str(file)])
    assert [found.resource(d.obj).plural for d in found.objects] == ["cats", "customresourcedefinitions"]
    assert found.ignored == ("Cat",)


@pytest.mark.parametrize("version", ["1", "2.0", "1.33.0.1", "latest", "1.x"])
def test_versions_that_kubernetes_never_had(tmp_path: Path, version: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        f"apiVersion: nsk8s.dev/v1\nkind: Cluster\nmetadata: {{name: t}}\n"
        f'spec: {{kubernetesVersion: "{version}"}}\n'
    )
    with pytest.raises(ManifestError, match="kubernetesVersion"):
        manifest.read([str(file)])


# --- schemas ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", LEGACY, ids=lambda r: f"{r.api_version}-{r.kind}")
def test_old_kinds_have_schemas(old: Resource) -> None:
    schema = schema_of(old.api_version, old.kind)
    listed = schema_of(old.api_version, old.list_kind)
    assert schema is not None
    assert listed is not None
    items = listed.properties["items"].items
    assert items is not None
    assert items.name == schema.name
    assert "metadata" in schema.properties


def test_old_ingresses_have_their_own_fields() -> None:
    for group in ("extensions", "networking.k8s.io"):
        schema = schema_of(f"{group}/v1beta1", "Ingress")
        assert schema is not None
        assert set(schema.properties["spec"].properties) == {"backend", "ingressClassName", "rules", "tls"}


def test_they_are_told_only_where_they_are_served(api: Served) -> None:
    paths = api.client.get("/openapi/v3")["paths"]
    document = api.client.get(paths["apis/extensions/v1beta1"]["serverRelativeURL"])
    assert "io.k8s.api.extensions.v1beta1.Ingress" in document["components"]["schemas"]
    document = api.client.get(paths["apis/networking.k8s.io/v1"]["serverRelativeURL"])
    assert not any(".extensions." in name for name in document["components"]["schemas"])
