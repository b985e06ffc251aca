from __future__ import annotations

import copy
from typing import Any

import pytest

from nsk8s.api.defaults import default, without_nulls
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
