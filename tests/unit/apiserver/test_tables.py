"""Rows as a real API server prints them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from nsk8s.api.kinds import BUILTIN, BY_NAME, Resource
from nsk8s.apiserver import tables
from nsk8s.apiserver.printers import printer_for

NOW = datetime.fromisoformat("2026-01-02T00:00:00Z")
META = {"name": "x", "namespace": "n", "creationTimestamp": "2026-01-01T00:00:00Z"}
TEMPLATE = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d"}]},
}
SELECTOR = {
    "matchLabels": {"a": "b"},
    "matchExpressions": [{"key": "A", "operator": "In", "values": ["2", "1"]}],
}
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}}
USED = {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7}}}


def cells(resource: str, **obj: object) -> list[Any]:
    return printer_for(BY_NAME[resource]).row({"metadata": META, **obj}, NOW)


@pytest.mark.parametrize("resource", [r for r in BUILTIN if not r.virtual], ids=lambda r: r.name)
def test_every_kind_has_a_cell_for_each_column_even_of_an_empty_object(resource: Resource) -> None:
    printer = printer_for(resource)
    spec: dict[str, Any] = {"spec": {}} if resource.name == "pods" else {}
    row = printer.row({"metadata": META, **spec}, NOW)
    assert len(row) == len(printer.columns)
    for cell, column in zip(row, printer.columns, strict=True):
        assert column.description
        if column.type == "integer":
            assert type(cell) is int or cell == "<none>"


@pytest.mark.parametrize(
    ("resource", "obj", "row"),
    [
        ("configmaps", {"data": {"a": ""}, "binaryData": {"b": ""}}, ["x", 2, "24h"]),
        ("secrets", {"type": "Opaque", "data": {"a": ""}}, ["x", "Opaque", 1, "24h"]),
        ("serviceaccounts", {}, ["x", 0, "24h"]),
        ("roles.rbac.authorization.k8s.io", {}, ["x", "2026-01-01T00:00:00Z"]),
        ("customresourcedefinitions.apiextensions.k8s.io", {}, ["x", "2026-01-01T00:00:00Z"]),
        (
            "deployments.apps",
            {
                "spec": {"replicas": 2, "selector": SELECTOR, "template": TEMPLATE},
                "status": {"readyReplicas": 1, "updatedReplicas": 2},
            },
            ["x", "1/2", 2, 0, "24h", "c,d", "i,", "A in (1,2),a=b"],
        ),
        (
            "replicasets.apps",
            {"spec": {"replicas": 2, "selector": {}, "template": TEMPLATE}, "status": {"replicas": 1}},
            ["x", 2, 1, 0, "24h", "c,d", "i,", "<none>"],
        ),
        (
            "daemonsets.apps",
            {"spec": {"template": {"spec": {"nodeSelector": {"b": "2", "a": "1"}}}}},
            ["x", 0, 0, 0, 0, 0, "a=1,b=2", "24h", "", "", "<none>"],
        ),
        ("statefulsets.apps", {"spec": {"replicas": 3}}, ["x", "0/3", "24h", "", ""]),
        (
            "jobs.batch",
            {
                "spec": {"completions": 3, "parallelism": 2},
                "status": {
                    "succeeded": 3,
                    "startTime": "2026-01-01T00:00:00Z",
                    "completionTime": "2026-01-01T00:03:05Z",
                    "conditions": [{"type": "Complete", "status": "True"}],
                },
            },
            ["x", "Complete", "3/3", "3m5s", "24h", "", "", "<none>"],
        ),
        (
            "jobs.batch",
            {"spec": {"parallelism": 2}},
            ["x", "Running", "0/1 of 2", "", "24h", "", "", "<none>"],
        ),
        (
            "cronjobs.batch",
            {"spec": {"schedule": "* * * * *", "suspend": False}, "status": {"active": [{}]}},
            ["x", "* * * * *", "<none>", "False", 1, "<none>", "24h", "", "", "<none>"],
        ),
        ("poddisruptionbudgets.policy", {"spec": {"minAvailable": "50%"}}, ["x", "50%", "N/A", 0, "24h"]),
        (
            "horizontalpodautoscalers.autoscaling",
            {
                "spec": {
                    "scaleTargetRef": {"kind": "Deployment", "name": "web"},
                    "maxReplicas": 4,
                    "metrics": [CPU, CPU, CPU],
                },
                "status": {"currentMetrics": [USED]},
            },
            ["x", "Deployment/web", "cpu: 7%/80%, cpu: <unknown>/80% + 1 more...", "<unset>", 4, 0, "24h"],
        ),
        (
            "horizontalpodautoscalers.autoscaling",
            {
                "apiVersion": "autoscaling/v1",
                "spec": {"targetCPUUtilizationPercentage": 50, "minReplicas": 1},
            },
            ["x", "/", "cpu: <unknown>/50%", "1", 0, 0, "24h"],
        ),
        (
            "services",
            {
                "spec": {
                    "type": "LoadBalancer",
                    "clusterIPs": ["10.96.0.9"],
                    "externalIPs": ["9.9.9.9"],
                    "ports": [
                        {"port": 80, "nodePort": 30080, "protocol": "TCP"},
                        {"port": 53, "protocol": "UDP"},
                    ],
                },
                "status": {"loadBalancer": {"ingress": [{"ip": "8.8.8.8"}]}},
            },
            ["x", "LoadBalancer", "10.96.0.9", "8.8.8.8,9.9.9.9", "80:30080/TCP,53/UDP", "24h", "<none>"],
        ),
        (
            "endpoints",
            {
                "subsets": [
                    {"addresses": [{"ip": "1.1.1.1"}, {"ip": "::1"}], "ports": [{"port": 1}, {"port": 2}]},
                ]
            },
            ["x", "1.1.1.1:1,[::1]:1,1.1.1.1:2 + 1 more...", "24h"],
        ),
        (
            "endpointslices.discovery.k8s.io",
            {"addressType": "IPv4", "ports": [{}], "endpoints": [{"addresses": ["1.1.1.1"]}]},
            ["x", "IPv4", "*", "1.1.1.1", "24h"],
        ),
        (
            "ingresses.networking.k8s.io",
            {
                "spec": {
                    "rules": [{"host": "a"}, {}, {"host": "b"}, {"host": "c"}, {"host": "d"}],
                    "tls": [{}],
                },
                "status": {"loadBalancer": {"ingress": [{"hostname": "lb"}, {"hostname": "lb"}]}},
            },
            ["x", "<none>", "a,b,c + 2 more...", "lb", "80, 443", "24h"],
        ),
        ("networkpolicies.networking.k8s.io", {"spec": {"podSelector": {}}}, ["x", "<none>", "24h"]),
        (
            "events",
            {
                "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{c}"},
                "source": {"component": "kubelet", "host": "w1"},
                "type": "Normal",
                "reason": "Started",
                "message": " began \n",
                "firstTimestamp": "2026-01-01T23:00:00Z",
                "lastTimestamp": "2026-01-01T23:59:00Z",
                "count": 3,
            },
            [
                "60s",
                "Normal",
                "Started",
                "pod/web",
                "spec.containers{c}",
                "kubelet, w1",
                "began",
                "60m",
                3,
                "x",
            ],
        ),
        (
            "resourcequotas",
            {"status": {"hard": {"pods": "4", "limits.cpu": "2"}, "used": {"pods": "1"}}},
            ["x", "pods: 1/4", "limits.cpu: 0/2", "24h"],
        ),
        (
            "rolebindings.rbac.authorization.k8s.io",
            {
                "roleRef": {"kind": "Role", "name": "r"},
                "subjects": [
                    {"kind": "User", "name": "u"},
                    {"kind": "ServiceAccount", "namespace": "n", "name": "a"},
                ],
            },
            ["x", "Role/r", "24h", "u", "", "n/a"],
        ),
        (
            "persistentvolumeclaims",
            {
                "spec": {"volumeName": "v", "storageClassName": "s", "volumeMode": "Filesystem"},
                "status": {
                    "phase": "Bound",
                    "capacity": {"storage": "1Gi"},
                    "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
                },
            },
            ["x", "Bound", "v", "1Gi", "RWO,RWX", "s", "<unset>", "24h", "Filesystem"],
        ),
        (
            "certificatesigningrequests.certificates.k8s.io",
            {"spec": {"signerName": "s", "username": "u", "expirationSeconds": 3600}},
            ["x", "24h", "s", "u", "60m", "Pending"],
        ),
        ("apiservices.apiregistration.k8s.io", {"spec": {}}, ["x", "Local", "Unknown", "24h"]),
    ],
)
def test_rows(resource: str, obj: dict[str, Any], row: list[Any]) -> None:
    assert cells(resource, **obj) == row


def test_rows_of_a_node() -> None:
    node = {
        "metadata": {**META, "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "edge"}},
        "spec": {"unschedulable": True},
        "status": {
            "conditions": [{"type": "Ready", "status": "Unknown"}],
            "addresses": [{"type": "InternalIP", "address": "1.1.1.1"}],
            "nodeInfo": {"kubeletVersion": "v1"},
        },
    }
    shown = printer_for(BY_NAME["nodes"]).row(node, NOW)
    assert shown[:7] == ["x", "NotReady,SchedulingDisabled", "edge,worker", "24h", "v1", "1.1.1.1", "<none>"]


def test_a_pod_that_has_ended_is_marked_so() -> None:
    pods = [
        {"metadata": META, "spec": {}, "status": {"phase": p}} for p in ("Running", "Succeeded", "Failed")
    ]
    rows = tables.rows(printer_for(BY_NAME["pods"]), pods, NOW, "None")
    assert [row.get("conditions", [{}])[0].get("reason") for row in rows] == [None, "Succeeded", "Failed"]
    assert [row["object"] for row in rows] == [None] * 3


def test_readiness_gates_and_a_nominated_node() -> None:
    pod = {
        "metadata": META,
        "spec": {"readinessGates": [{"conditionType": "a"}, {"conditionType": "b"}]},
        "status": {"nominatedNodeName": "w", "conditions": [{"type": "a", "status": "True"}]},
    }
    assert printer_for(BY_NAME["pods"]).row(pod, NOW)[-2:] == ["w", "1/2"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "<invalid>"), (-1, "0s"), (119, "119s"), (120, "2m"), (3 * 3600, "3h"), (9 * 365 * 86400, "9y")],
)
def test_ages(seconds: int, words: str) -> None:
    from datetime import timedelta

    from nsk8s.api.age import duration

    assert duration(timedelta(seconds=seconds)) == words


def test_a_row_shows_all_metadata_but_managed_fields() -> None:
    meta = {**META, "labels": {"a": "b"}, "managedFields": [{"manager": "kubectl"}]}
    obj = {"metadata": meta, "kind": "ConfigMap", "apiVersion": "v1"}

    def beside(include: tables.Include) -> object:
        [row] = tables.rows(printer_for(BY_NAME["configmaps"]), [obj], NOW, include)
        return row["object"]

    assert beside("Metadata") == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {**META, "labels": {"a": "b"}},
    }
    assert beside("Object") == obj
    assert beside("None") is None
