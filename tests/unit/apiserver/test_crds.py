"""CustomResourceDefinitions: kinds that come, change and go while the cluster runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nsk8s.api.types import Obj
from nsk8s.cluster.definitions import CLEANUP, CRDS
from nsk8s.errors import ApiError
from nsk8s.paths import ClusterPaths
from tests.unit.apiserver.served import Served, served
from tests.unit.cluster.worlds import World

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "/apis/stable.example.com"
CRONTABS = f"{GROUP}/v1/namespaces/default/crontabs"
NAME = "crontabs.stable.example.com"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
MERGE = "application/merge-patch+json"


@pytest.fixture
def api(state: Path) -> Iterator[Served]:
    with served(ClusterPaths("t")) as found:
        yield found


def version(name: str = "v1", *, storage: bool = True, **more: Any) -> Obj:  # noqa: ANN401  # any field
    schema: Obj = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": schema},
        **more,
    }


def definition(plural: str = "crontabs", kind: str = "CronTab", *versions: Obj, **spec: Any) -> Obj:  # noqa: ANN401  # any field
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.stable.example.com"},
        "spec": {
            "group": "stable.example.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, "shortNames": [plural[0] + "t"]},
            "versions": list(versions) or [version()],
            **spec,
        },
    }


def crontab(name: str, kind: str = "CronTab", **spec: Any) -> Obj:  # noqa: ANN401  # any field
    return {
        "apiVersion": "stable.example.com/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def conditions(crd: Obj) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in crd["status"]["conditions"]}


def refused(
    api: Served, method: str, path: str, body: Obj, content_type: str = "application/json"
) -> ApiError:
    with pytest.raises(ApiError) as found:
        api.client.request(method, path, body, content_type=content_type)
    return found.value


# --- the definition ---------------------------------------------------------------------------------


def test_a_definition_is_established_before_it_is_answered(api: Served) -> None:
    api.client.post(DEFINITIONS, definition())
    crd = api.client.get(f"{DEFINITIONS}/{NAME}")
    assert conditions(crd) == {
        "NamesAccepted": ("True", "NoConflicts"),
        "Established": ("True", "InitialNamesAccepted"),
    }
    names = {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "listKind": "CronTabList"}
    assert crd["spec"]["names"] == {**names, "shortNames": ["ct"]}
    assert crd["status"]["acceptedNames"] == crd["spec"]["names"]
    assert crd["status"]["storedVersions"] == ["v1"]
    assert crd["spec"]["conversion"] == {"strategy": "None"}
    assert crd["metadata"]["finalizers"] == [CLEANUP]


def test_discovery_knows_it_at_once_and_no_longer(api: Served) -> None:
    before = api.client.get("/apis")
    names = {"plural": "crontabs", "kind": "CronTab", "singular": "cron", "shortNames": ["ct"],
             "categories": ["all"], "listKind": "Crons"}  # fmt: skip
    parts = {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}}
    api.client.post(DEFINITIONS, definition("crontabs", "CronTab", version(subresources=parts), names=names))
    rows = {row["name"]: row for row in api.client.get(f"{GROUP}/v1")["resources"]}
    assert set(rows) == {"crontabs", "crontabs/status", "crontabs/scale"}
    row = rows["crontabs"]
    assert (row["singularName"], row["shortNames"], row["categories"]) == ("cron", ["ct"], ["all"])
    assert rows["crontabs/scale"]["group"] == "autoscaling"
    assert api.client.get(CRONTABS)["kind"] == "Crons"
    api.client.request("DELETE", f"{DEFINITIONS}/{NAME}")
    assert api.client.get("/apis") == before
    assert refused(api, "GET", CRONTABS, {}).code == 404


def test_names_belong_to_who_came_first(api: Served) -> None:
    api.client.post(DEFINITIONS, definition())
    api.client.post(DEFINITIONS, definition("crons", "CronTab", names={"plural": "crons", "kind": "CronTab"}))
    second = api.client.get(f"{DEFINITIONS}/crons.stable.example.com")
    assert conditions(second) == {
        "NamesAccepted": ("False", "ListKindConflict"),
        "Established": ("False", "NotAccepted"),
    }
    assert second["status"]["conditions"][0]["message"] == '"CronTabList" is already in use'
    assert refused(api, "GET", f"{GROUP}/v1/crons", {}).code == 404
    api.client.request("DELETE", f"{DEFINITIONS}/{NAME}")
    second = api.client.get(f"{DEFINITIONS}/crons.stable.example.com")
    assert conditions(second)["Established"] == ("True", "InitialNamesAccepted")
    assert api.client.get(f"{GROUP}/v1/crons")["items"] == []


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"metadata": {"name": "x"}},
         'metadata.name: Invalid value: "x": must be spec.names.plural+"."+spec.group'),
        ({"scope": "Galaxy"},
         'spec.scope: Unsupported value: "Galaxy": supported values: "Cluster", "Namespaced"'),
        ({"versions": []}, "spec.versions: Required value"),
        ({"versions": [version(), version("v2")]},
         'spec.versions: Invalid value: []string{"v1", "v2"}: must have exactly one version marked as '
         "storage version"),
        ({"versions": [version(), version(storage=False)]},
         'spec.versions: Invalid value: "v1": must contain unique version names'),
        ({"versions": [version(schema={})]},
         "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"),
        ({"versions": [version(additionalPrinterColumns=[{"name": "A", "type": "text", "jsonPath": ".a"}])]},
         'spec.versions[0].additionalPrinterColumns[0].type: Invalid value: "text": must be one of '
         "boolean,date,integer,number,string"),
        ({"conversion": {"strategy": "Webhook"}},
         'spec.conversion.strategy: Unsupported value: "Webhook": supported values: "None"'),
    ],
)  # fmt: skip
def test_what_a_definition_cannot_be(api: Served, change: Obj, wanted: str) -> None:
    wrong = definition()
    wrong["metadata"] = change.pop("metadata", wrong["metadata"])
    wrong["spec"] |= change
    error = refused(api, "POST", DEFINITIONS, wrong)
    assert (error.code, error.reason) == (422, "Invalid")
    assert wanted in error.message
    assert api.client.get(DEFINITIONS)["items"] == []


def test_groups_of_kubernetes_are_protected(api: Served) -> None:
    wrong = definition(group="gateway.networking.k8s.io")
    wrong["metadata"] = {"name": "crontabs.gateway.networking.k8s.io"}
    assert (
        "protected groups must have approval annotation" in refused(api, "POST", DEFINITIONS, wrong).message
    )
    approved = {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/2466"}
    api.client.post(DEFINITIONS, {**wrong, "metadata": {**wrong["metadata"], "annotations": approved}})


def test_what_stays_once_names_are_accepted(api: Served) -> None:
    api.client.post(DEFINITIONS, definition())
    error = refused(api, "PATCH", f"{DEFINITIONS}/{NAME}", {"spec": {"scope": "Cluster"}}, MERGE)
    assert 'spec.scope: Invalid value: "Cluster": field is immutable' in error.message


# --- its objects ------------------------------------------------------------------------------------


def test_objects_are_stored_watched_and_deleted(api: Served) -> None:
    api.client.post(DEFINITIONS, definition())
    made = api.client.post(CRONTABS, crontab("a", cronSpec="* * * * *", odd={"deep": [1, None]}))
    assert made["spec"] == {"cronSpec": "* * * * *", "odd": {"deep": [1, None]}}
    changed = api.client.request("PATCH", f"{CRONTABS}/a", {"spec": {"n": 2}}, content_type=MERGE)
    assert changed["metadata"]["generation"] == 2
    watch = api.client.watch(f"{CRONTABS}?watch=true&resourceVersion=0")
    assert next(watch)["object"]["spec"]["n"] == 2
    gone = api.client.request("DELETE", f"{CRONTABS}/a")
    assert (gone["status"], gone["details"]["group"]) == ("Success", "stable.example.com")
    assert next(watch)["type"] == "DELETED"
    assert refused(api, "GET", f"{CRONTABS}/a", {}).message == f'{NAME} "a" not found'


def test_versions_differ_in_their_api_version(api: Served) -> None:
    old = version("v1beta1", storage=False, deprecated=True)
    api.client.post(DEFINITIONS, definition("crontabs", "CronTab", version(), old))
    beta = CRONTABS.replace("/v1/", "/v1beta1/")
    made = api.client.post(beta, {**crontab("a", n=1), "apiVersion": "stable.example.com/v1beta1"})
    assert made["apiVersion"] == "stable.example.com/v1beta1"
    assert api.client.get(f"{CRONTABS}/a")["apiVersion"] == "stable.example.com/v1"
    assert api.client.get(beta)["items"][0]["apiVersion"] == "stable.example.com/v1beta1"
    changed = api.client.request("PATCH", f"{beta}/a", {"spec": {"n": 2}}, content_type=MERGE)
    assert (changed["apiVersion"], changed["spec"]) == ("stable.example.com/v1beta1", {"n": 2})
    watches = [api.client.watch(f"{path}?watch=true&resourceVersion=0") for path in (CRONTABS, beta)]
    assert [next(watch)["object"]["apiVersion"] for watch in watches] == [
        "stable.example.com/v1",
        "stable.example.com/v1beta1",
    ]
    api.client.request("PATCH", f"{CRONTABS}/a", {"spec": {"n": 3}}, content_type=MERGE)
    assert [next(watch)["object"]["apiVersion"] for watch in watches] == [
        "stable.example.com/v1",
        "stable.example.com/v1beta1",
    ]


def test_a_new_version_to_store_in(api: Served) -> None:
    api.client.post(DEFINITIONS, definition())
    api.client.post(CRONTABS, crontab("a", n=1))
    versions = [version(storage=False), version("v2")]
    crd = api.client.request(
        "PATCH", f"{DEFINITIONS}/{NAME}", {"spec": {"versions": versions}}, content_type=MERGE
    )
    crd = api.client.get(f"{DEFINITIONS}/{NAME}")
    assert crd["status"]["storedVersions"] == ["v1", "v2"]
    assert api.client.get(f"{CRONTABS}/a")["apiVersion"] == "stable.example.com/v1"
    assert api.client.get(f"{CRONTABS}/a".replace("/v1/", "/v2/"))["apiVersion"] == "stable.example.com/v2"
    assert api.client.get(GROUP)["preferredVersion"]["version"] == "v2"
    without = {"spec": {"versions": [version("v2")]}}
    error = refused(api, "PATCH", f"{DEFINITIONS}/{NAME}", without, MERGE)
    assert 'status.storedVersions[0]: Invalid value: "v1": must appear in spec.versions' in error.message


def test_status_is_a_part_of_its_own_only_if_it_is_defined(api: Served) -> None:
    api.client.post(DEFINITIONS, definition())
    made = api.client.post(CRONTABS, {**crontab("a"), "status": {"n": 1}})
    assert made["status"] == {"n": 1}
    assert refused(api, "GET", f"{CRONTABS}/a/status", {}).code == 404
    parts = {"spec": {"versions": [version(subresources={"status": {}})]}}
    api.client.request("PATCH", f"{DEFINITIONS}/{NAME}", parts, content_type=MERGE)
    made = api.client.post(CRONTABS, {**crontab("b"), "status": {"n": 1}})
    assert "status" not in made
    told = api.client.request("PATCH", f"{CRONTABS}/b/status", {"status": {"n": 2}}, content_type=MERGE)
    assert told["status"] == {"n": 2}
    kept = api.client.request(
        "PATCH", f"{CRONTABS}/b", {"status": {"n": 3}, "spec": {"m": 1}}, content_type=MERGE
    )
    assert (kept["status"], kept["spec"]) == ({"n": 2}, {"m": 1})


def test_scale_is_where_the_definition_says(api: Served) -> None:
    scale = {
        "specReplicasPath": ".spec.size.count",
        "statusReplicasPath": ".status.count",
        "labelSelectorPath": ".status.selector",
    }
    api.client.post(DEFINITIONS, definition("crontabs", "CronTab", version(subresources={"scale": scale})))
    api.client.post(CRONTABS, {**crontab("a", size={"kind": "x"}), "status": {"count": 2, "selector": "a=b"}})
    found = api.client.get(f"{CRONTABS}/a/scale")
    assert (found["kind"], found["spec"]) == ("Scale", {"replicas": 0})
    assert found["status"] == {"replicas": 2, "selector": "a=b"}
    replicas = {"spec": {"replicas": 5}}
    scaled = api.client.request("PATCH", f"{CRONTABS}/a/scale", replicas, content_type=MERGE)
    assert scaled["spec"] == {"replicas": 5}
    assert api.client.get(f"{CRONTABS}/a")["spec"] == {"size": {"kind": "x", "count": 5}}


def test_printer_columns(api: Served) -> None:
    columns: list[Obj] = [
        {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec", "description": "When it runs"},
        {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
        {"name": "N", "type": "integer", "jsonPath": ".spec.n", "priority": 1},
        {"name": "Hosts", "type": "string", "jsonPath": ".spec.hosts"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]
    api.client.post(DEFINITIONS, definition("crontabs", "CronTab", version(additionalPrinterColumns=columns)))
    ready = {"conditions": [{"type": "Other", "status": "?"}, {"type": "Ready", "status": "True"}]}
    api.client.post(CRONTABS, {**crontab("a", cronSpec="*", n=3, hosts=["x", "y"]), "status": ready})
    api.client.post(CRONTABS, crontab("b", n="three"))
    table = api.client.get(CRONTABS, accept=TABLE)
    assert [(c["name"], c["type"], c["priority"]) for c in table["columnDefinitions"]] == [
        ("Name", "string", 0),
        *[(c["name"], c["type"], c.get("priority", 0)) for c in columns],
    ]
    assert [row["cells"][:-1] for row in table["rows"]] == [
        ["a", "*", "True", 3, '["x","y"]'],
        ["b", None, None, None, None],
    ]


# --- ends -------------------------------------------------------------------------------------------


def test_a_definition_takes_its_objects_with_it(api: Served) -> None:
    api.client.post(DEFINITIONS, definition())
    api.client.post(CRONTABS, crontab("a"))
    held = crontab("held")
    held["metadata"]["finalizers"] = ["example.com/wait"]
    api.client.post(CRONTABS, held)
    going = api.client.request("DELETE", f"{DEFINITIONS}/{NAME}")
    assert going["metadata"]["deletionTimestamp"]
    assert [item["metadata"]["name"] for item in api.client.get(CRONTABS)["items"]] == ["held"]
    assert conditions(api.client.get(f"{DEFINITIONS}/{NAME}"))["Terminating"][0] == "True"
    assert refused(api, "POST", CRONTABS, crontab("new")).code == 405
    api.client.request("PATCH", f"{CRONTABS}/held", {"metadata": {"finalizers": None}}, content_type=MERGE)
    assert api.client.get(DEFINITIONS)["items"] == []
    assert api.world.store.count(NAME) == 0


def test_namespaces_take_custom_objects_with_them(api: Served) -> None:
    api.client.post(DEFINITIONS, definition())
    api.client.post("/api/v1/namespaces", {"metadata": {"name": "shop"}})
    elsewhere = CRONTABS.replace("/default/", "/shop/")
    a = crontab("a")
    a["metadata"]["namespace"] = "shop"
    api.client.post(elsewhere, a)
    api.client.request("DELETE", "/api/v1/namespaces/shop")
    assert api.world.store.count(NAME) == 0
    assert refused(api, "GET", "/api/v1/namespaces/shop", {}).code == 404


def test_owners_of_custom_kinds(api: Served) -> None:
    api.client.post(DEFINITIONS, definition())
    owner = api.client.post(CRONTABS, crontab("a"))
    reference = {
        "apiVersion": "stable.example.com/v1",
        "kind": "CronTab",
        "name": "a",
        "uid": owner["metadata"]["uid"],
    }
    api.client.post(
        "/api/v1/namespaces/default/configmaps",
        {"metadata": {"name": "owned", "ownerReferences": [reference]}},
    )
    api.client.request("DELETE", f"{CRONTABS}/a")
    assert refused(api, "GET", "/api/v1/namespaces/default/configmaps/owned", {}).code == 404


def test_a_kind_may_be_called_as_a_built_in_one(api: Served) -> None:
    """Knative's Service is none of ours, whatever it looks like."""
    api.client.post(
        DEFINITIONS, definition("services", "Service", names={"plural": "services", "kind": "Service"})
    )
    service = crontab("x", "Service", ports="none", clusterIP=7)
    assert api.client.post(f"{GROUP}/v1/namespaces/default/services", service)["spec"]["clusterIP"] == 7
    changed = {"spec": {"clusterIP": 8}}
    path = f"{GROUP}/v1/namespaces/default/services/x"
    assert api.client.request("PATCH", path, changed, content_type=MERGE)["spec"]["clusterIP"] == 8


# --- without HTTP -----------------------------------------------------------------------------------


def test_kinds_follow_the_store() -> None:
    world = World()
    world.store.commit()
    revision = world.registry.kinds.revision
    world.registry.create(definition())
    assert NAME in world.registry.kinds.by_name  # before any controller has run: one apply may hold both
    world.registry.create(crontab("a"))
    world.store.rollback()
    assert NAME not in world.registry.kinds.by_name
    assert world.registry.kinds.revision > revision
    world.create(definition())
    world.store.commit()
    again = World(store=world.store)
    assert NAME in again.registry.kinds.by_name
    assert again.store.find(CRDS, "", NAME)["status"]["conditions"]


def test_a_status_is_written_once() -> None:
    world = World()
    world.create(definition())
    revision = world.store.revision
    for _ in range(3):
        world.settle(10.0)
    assert world.store.revision == revision


# --- schemas ----------------------------------------------------------------------------------------

CRON: Obj = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["cronSpec"],
            "properties": {
                "cronSpec": {"type": "string", "pattern": r"^(\d+|\*)( (\d+|\*)){4}$"},
                "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "default": 2},
                "mode": {"type": "string", "enum": ["Fast", "Slow"]},
            },
        }
    },
}


def test_schemas_fill_in_and_refuse(api: Served) -> None:
    strict = version(schema={"openAPIV3Schema": CRON})
    api.client.post(DEFINITIONS, definition("crontabs", "CronTab", strict))
    assert api.client.post(CRONTABS, crontab("a", cronSpec="* * * * *"))["spec"]["replicas"] == 2
    for spec, wanted in (
        ({"cronSpec": 5}, "spec.cronSpec: Invalid value"),
        ({"cronSpec": "never"}, "spec.cronSpec: Invalid value"),
        ({"cronSpec": "* * * * *", "replicas": 11}, "spec.replicas: Invalid value: 11"),
        ({"cronSpec": "* * * * *", "mode": "Odd"}, 'spec.mode: Unsupported value: "Odd"'),
        ({}, "spec.cronSpec: Required value"),
    ):
        error = refused(api, "POST", CRONTABS, crontab("b", **spec))
        assert (error.code, error.reason) == (422, "Invalid")
        assert wanted in error.message
    assert [item["metadata"]["name"] for item in api.client.get(CRONTABS)["items"]] == ["a"]


def test_a_schema_may_change(api: Served) -> None:
    api.client.post(DEFINITIONS, definition())
    api.client.post(CRONTABS, crontab("a"))
    versions = {"spec": {"versions": [version(schema={"openAPIV3Schema": CRON})]}}
    api.client.request("PATCH", f"{DEFINITIONS}/{NAME}", versions, content_type=MERGE)
    assert "Required value" in refused(api, "POST", CRONTABS, crontab("b")).message


def test_custom_resources_are_selected_by_the_fields_their_definition_names(api: Served) -> None:
    selectable = version(selectableFields=[{"jsonPath": ".spec.color"}])
    api.client.post(DEFINITIONS, definition("crontabs", "CronTab", selectable))
    for name, color in (("a", "red"), ("b", "blue")):
        api.client.post(CRONTABS, crontab(name, color=color))
    found = api.client.get(f"{CRONTABS}?fieldSelector=spec.color%3Dred")
    assert [obj["metadata"]["name"] for obj in found["items"]] == ["a"]
    with pytest.raises(ApiError, match=r"^field label not supported: spec\.size"):
        api.client.get(f"{CRONTABS}?fieldSelector=spec.size%3D1")
    found = api.client.get("/apis/events.k8s.io/v1/events?fieldSelector=regarding.name%3Dnobody")
    assert found["items"] == []
