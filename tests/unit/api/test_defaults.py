from __future__ import annotations

import copy
from typing import Any

import pytest

from nsk8s.api.defaults import default, without_nulls
from nsk8s.api.kinds import RESOURCES, Resource
from nsk8s.api.types import Obj
from nsk8s.api.validation import validate

POD: Obj = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "creationTimestamp": None},
    "spec": {
        "containers": [
            {
                "name": "web",
                "image": "nginx:1.27",
                "ports": [{"containerPort": 80, "name": None}],
                "livenessProbe": {"httpGet": {"port": 80}},
            }
        ],
        "custom": {"kept": True},
    },
}
SERVICE: Obj = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "x"},
    "spec": {
        "type": "NodePort",
        "sessionAffinity": "ClientIP",
        "ports": [{"port": 80}, {"port": 1, "targetPort": "a"}],
    },
}
DEPLOYMENT: Obj = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        },
    },
}


@pytest.mark.parametrize("obj", [POD, SERVICE, DEPLOYMENT])
def test_pure_and_idempotent(obj: Obj) -> None:
    before = copy.deepcopy(obj)
    stored = default(obj)
    assert obj == before
    assert default(stored) == stored
    assert stored != obj


def test_pod() -> None:
    stored = default(POD)
    assert stored["metadata"] == {"name": "web", "namespace": "default"}
    spec = stored["spec"]
    assert list(spec)[:2] == ["containers", "custom"]  # the user's fields stay first
    assert (spec["restartPolicy"], spec["dnsPolicy"]) == ("Always", "ClusterFirst")
    assert (spec["terminationGracePeriodSeconds"], spec["serviceAccountName"]) == (30, "default")
    assert [t["key"] for t in spec["tolerations"]] == [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ]
    (container,) = spec["containers"]
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert container["livenessProbe"] == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert validate(stored) == []


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("host:5000/nginx", "Always"),
        ("host:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:00", "IfNotPresent"),
    ],
)
def test_pull_policy(image: str, policy: str) -> None:
    pod = {**POD, "spec": {"containers": [{"name": "a", "image": image}]}}
    assert default(pod)["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_on_the_nodes_network_ports_are_the_nodes() -> None:
    pod = {**POD, "spec": {**POD["spec"], "hostNetwork": True}}
    assert default(pod)["spec"]["containers"][0]["ports"] == [
        {"containerPort": 80, "hostPort": 80, "protocol": "TCP"}
    ]


def test_tolerations_of_ones_own_stand() -> None:
    own = {"operator": "Exists"}
    pod = {**POD, "spec": {**POD["spec"], "tolerations": [own]}}
    assert default(pod)["spec"]["tolerations"] == [own]


def test_service() -> None:
    spec = default(SERVICE)["spec"]
    assert spec["ports"] == [
        {"port": 80, "protocol": "TCP", "targetPort": 80},
        {"port": 1, "targetPort": "a", "protocol": "TCP"},
    ]
    assert spec["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}
    assert (spec["externalTrafficPolicy"], spec["internalTrafficPolicy"]) == ("Cluster", "Cluster")
    plain = default({**SERVICE, "spec": {"ports": [{"port": 80}]}})["spec"]
    assert (plain["type"], plain["sessionAffinity"]) == ("ClusterIP", "None")
    assert "externalTrafficPolicy" not in plain


def test_deployment() -> None:
    spec = default(DEPLOYMENT)["spec"]
    assert (spec["replicas"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (1, 10, 600)
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
    }
    assert spec["template"]["spec"]["restartPolicy"] == "Always"
    assert "tolerations" not in spec["template"]["spec"]
    recreate = default({**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "strategy": {"type": "Recreate"}}})
    assert recreate["spec"]["strategy"] == {"type": "Recreate"}


def test_a_namespace_carries_its_name() -> None:
    stored = default(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": {"a": "b"}}}
    )
    assert stored["metadata"] == {"name": "x", "labels": {"a": "b", "kubernetes.io/metadata.name": "x"}}


def test_kinds_that_are_not_acted_on_lose_their_nulls_only() -> None:
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c"},
        "data": {"a": None, "b": "c"},
    }
    assert default(config) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": "default"},
        "data": {"b": "c"},
    }


def test_without_nulls_copies_nothing_it_need_not() -> None:
    clean: dict[str, Any] = {"a": [{"b": 1}], "c": {"d": [[1, None]]}}
    assert without_nulls(clean) is clean
    assert without_nulls({"a": [1, {"b": None}, {"c": None}], "d": None}) == {"a": [1, {}, {}]}


@pytest.mark.parametrize("spec", [None, [], 3, {"containers": 3}, {"containers": [3, {"ports": 4}]}])
@pytest.mark.parametrize("kind", ["Pod", "Service", "Deployment", "ReplicaSet", "EndpointSlice", "Endpoints"])
def test_values_of_a_wrong_type_are_left_alone(kind: str, spec: object) -> None:
    version = {"Deployment": "apps/v1", "ReplicaSet": "apps/v1", "EndpointSlice": "discovery.k8s.io/v1"}
    obj = {"apiVersion": version.get(kind, "v1"), "kind": kind, "metadata": {"name": "a"}, "spec": spec}
    default(obj | {"ports": spec, "subsets": spec})
    default(obj | {"spec": {"template": {"spec": spec}, "strategy": spec, "ports": spec}})


def of(kind: str, version: str = "v1", **fields: Any) -> Obj:  # noqa: ANN401  # any JSON
    """What a manifest becomes, without what identifies it."""
    stored = default({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, **fields})
    return {k: v for k, v in stored.items() if k not in ("apiVersion", "kind", "metadata")}


TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}}


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (
            of("Secret", stringData={"a": "b"}, data={"a": "x", "c": "Zg=="}),
            {"data": {"a": "Yg==", "c": "Zg=="}},
        ),
        (of("Secret", type="kubernetes.io/tls"), {"type": "kubernetes.io/tls"}),
        (of("PersistentVolumeClaim", spec={}), {"spec": {"volumeMode": "Filesystem"}}),
        (of("PersistentVolume", spec={"hostPath": {"path": "/"}}), {"status": {"phase": "Pending"}}),
        (
            of("StorageClass", "storage.k8s.io/v1", provisioner="p"),
            {"provisioner": "p", "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"},
        ),
        (
            of("NetworkPolicy", "networking.k8s.io/v1", spec={"egress": [{"ports": [{"port": 53}]}]}),
            {"spec": {"egress": [{"ports": [{"port": 53}]}], "policyTypes": ["Ingress", "Egress"]}},
        ),
        (of("NetworkPolicy", "networking.k8s.io/v1", spec={}), {"spec": {"policyTypes": ["Ingress"]}}),
        (
            of(
                "RoleBinding",
                "rbac.authorization.k8s.io/v1",
                roleRef={"kind": "Role"},
                subjects=[{"kind": "User"}, {"kind": "ServiceAccount"}],
            ),
            {
                "roleRef": {"kind": "Role", "apiGroup": "rbac.authorization.k8s.io"},
                "subjects": [
                    {"kind": "User", "apiGroup": "rbac.authorization.k8s.io"},
                    {"kind": "ServiceAccount"},
                ],
            },
        ),
        (
            of("PriorityClass", "scheduling.k8s.io/v1", value=3),
            {"value": 3, "preemptionPolicy": "PreemptLowerPriority"},
        ),
        (
            of("Service", spec={"sessionAffinityConfig": {"clientIP": {}}, "type": "ExternalName"}),
            {"spec": {"type": "ExternalName", "sessionAffinity": "None"}},
        ),
    ],
)
def test_other_kinds(stored: Obj, expected: Obj) -> None:
    assert {key: stored[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("kind", "version", "spec", "expected"),
    [
        (
            "DaemonSet",
            "apps/v1",
            {},
            {
                "updateStrategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
                },
                "revisionHistoryLimit": 10,
            },
        ),
        (
            "StatefulSet",
            "apps/v1",
            {"updateStrategy": {"type": "OnDelete"}},
            {
                "updateStrategy": {"type": "OnDelete"},
                "replicas": 1,
                "podManagementPolicy": "OrderedReady",
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            },
        ),
        (
            "Job",
            "batch/v1",
            {},
            {
                "completions": 1,
                "parallelism": 1,
                "backoffLimit": 6,
                "completionMode": "NonIndexed",
                "suspend": False,
            },
        ),
        ("CronJob", "batch/v1", {}, {"concurrencyPolicy": "Allow", "successfulJobsHistoryLimit": 3}),
        ("ReplicationController", "v1", {}, {"replicas": 1, "selector": {"a": "b"}}),
    ],
)
def test_workloads(kind: str, version: str, spec: Obj, expected: Obj) -> None:
    given = {"template": TEMPLATE, "jobTemplate": {"spec": {"template": TEMPLATE}}, **spec}
    stored = of(kind, version, spec=given)["spec"]
    assert {key: stored[key] for key in expected} == expected
    filled = stored["jobTemplate"]["spec"] if kind == "CronJob" else stored
    assert filled["template"]["spec"]["dnsPolicy"] == "ClusterFirst"


def test_a_job_with_parallelism_only_is_a_work_queue_and_takes_its_template_labels() -> None:
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
    stored = default(job | {"spec": {"parallelism": 2, "template": TEMPLATE}})
    assert "completions" not in stored["spec"]
    assert stored["metadata"]["labels"] == {"a": "b"}


def test_autoscaler() -> None:
    spec = of("HorizontalPodAutoscaler", "autoscaling/v2", spec={"behavior": {"scaleUp": {"policies": []}}})[
        "spec"
    ]
    assert spec["minReplicas"] == 1
    assert spec["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 80}
    assert spec["behavior"]["scaleUp"]["policies"] == []
    assert spec["behavior"]["scaleDown"]["policies"][0]["type"] == "Percent"


def test_volumes_and_what_is_limited() -> None:
    container = {"name": "a", "resources": {"limits": {"cpu": "1"}, "requests": {"memory": "1Gi"}}}
    volumes = [{"name": "a"}, {"name": "b", "secret": {}}, {"name": "c", "hostPath": {"path": "/"}}]
    projected = {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
    spec = of("Pod", spec={"containers": [container], "volumes": [*volumes, projected]})["spec"]
    assert spec["containers"][0]["resources"]["requests"] == {"memory": "1Gi", "cpu": "1"}
    assert [list(volume)[1] for volume in spec["volumes"]] == ["emptyDir", "secret", "hostPath", "projected"]
    assert spec["volumes"][1]["secret"] == {"defaultMode": 420}
    assert spec["volumes"][3]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] == 3600
    assert (spec["priority"], spec["preemptionPolicy"]) == (0, "PreemptLowerPriority")


@pytest.mark.parametrize("resource", [r for r in RESOURCES if not r.virtual], ids=lambda r: r.name)
def test_fields_of_a_wrong_type_are_left_for_validation(resource: Resource) -> None:
    wrong: list[Any] = ["x", 3, [], [1], {}, {"template": 1, "metadata": []}, [{}]]
    for value in wrong:
        fields = dict.fromkeys(
            ("spec", "data", "stringData", "subjects", "roleRef", "webhooks", "ports"), value
        )
        obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": value, **fields}
        before = copy.deepcopy(obj)
        stored = default(obj)
        assert obj == before
        assert default(stored) == stored
