"""What the API server refuses of the kinds that nsk8s stores, in its words."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from nsk8s.api import fieldpath
from nsk8s.api.defaults import default
from nsk8s.api.kinds import RESOURCES
from nsk8s.api.quantities import quantity
from nsk8s.api.types import Obj
from nsk8s.api.validation import validate, validate_update

POD_TEMPLATE = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}
ONCE = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
SET = {"selector": {"matchLabels": {"app": "web"}}, "template": POD_TEMPLATE}
BACKEND = {"service": {"name": "web", "port": {"number": 80}}}
BINDING = {
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
    "subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": "b"}],
}
VALID: dict[str, Obj] = {
    "Ingress": {
        "spec": {
            "ingressClassName": "nginx",
            "rules": [
                {
                    "host": "a.example.com",
                    "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": BACKEND}]},
                }
            ],
            "tls": [{"hosts": ["*.example.com"], "secretName": "tls"}],
        }
    },
    "IngressClass": {"spec": {"controller": "k8s.io/ingress-nginx"}},
    "NetworkPolicy": {
        "spec": {
            "podSelector": {},
            "ingress": [
                {
                    "from": [
                        {"podSelector": {"matchLabels": {"a": "b"}}, "namespaceSelector": {}},
                        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
                    ],
                    "ports": [{"port": 80, "endPort": 90}, {"port": "http", "protocol": "UDP"}],
                }
            ],
            "policyTypes": ["Ingress", "Egress"],
        }
    },
    "ConfigMap": {"data": {"a": "b"}, "binaryData": {"c": "Zg=="}},
    "Secret": {"type": "kubernetes.io/tls", "data": {"tls.crt": "Zg==", "tls.key": "Zg=="}},
    "DaemonSet": {"spec": SET},
    "StatefulSet": {"spec": {**SET, "serviceName": "web"}},
    "ReplicationController": {"spec": {"template": POD_TEMPLATE}},
    "Job": {"spec": {"template": ONCE}},
    "CronJob": {
        "spec": {"schedule": "*/5 0-6 1,15 jan MON-FRI", "jobTemplate": {"spec": {"template": ONCE}}}
    },
    "PodDisruptionBudget": {"spec": {"minAvailable": "50%", "selector": {}}},
    "HorizontalPodAutoscaler": {
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "web"},
            "maxReplicas": 3,
            "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 50}}}
            ],
        }
    },
    "ClusterRole": {"rules": [{"nonResourceURLs": ["/healthz"], "verbs": ["get"]}]},
    "Role": {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
    "RoleBinding": BINDING,
    "ClusterRoleBinding": BINDING,
    "PersistentVolumeClaim": {
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    },
    "PersistentVolume": {
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/"}}
    },
    "StorageClass": {"provisioner": "example.com/p"},
    "ResourceQuota": {"spec": {"hard": {"pods": "4", "limits.cpu": "500m"}}},
    "LimitRange": {"spec": {"limits": [{"type": "Container", "min": {"cpu": "1m"}, "max": {"cpu": "1"}}]}},
    "Lease": {"spec": {"leaseDurationSeconds": 15}},
    "PriorityClass": {"value": 1000},
    "Event": {"involvedObject": {"kind": "Pod", "namespace": "default", "name": "web"}},
    "RuntimeClass": {"handler": "runc"},
    "CSINode": {"spec": {"drivers": [{"name": "d", "nodeID": "n"}]}},
}


def valid(kind: str) -> Obj:
    version = next(r.api_version for r in RESOURCES if r.kind == kind)
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, **copy.deepcopy(VALID[kind])}


def changed(kind: str, path: str, value: object) -> Obj:
    """A valid object with one field set; None leaves the field out."""
    obj = valid(kind)
    *parents, last = fieldpath.segments(path)
    place: Any = obj
    for parent in parents:
        place = place[int(parent)] if isinstance(place, list) else place.setdefault(parent, {})
    if isinstance(place, list):
        place[int(last)] = value
    elif value is None:
        place.pop(last, None)
    else:
        place[last] = value
    return obj


@pytest.mark.parametrize("kind", VALID)
def test_valid_objects_are_valid_as_written_and_as_stored(kind: str) -> None:
    obj = valid(kind)
    assert validate(obj) == []
    stored = default(obj)
    assert validate(stored) == []
    assert validate_update(stored, copy.deepcopy(stored)) == []


PATH = "spec.rules[0].http.paths[0]"


@pytest.mark.parametrize(
    ("kind", "path", "value", "finding"),
    [
        ("Ingress", f"{PATH}.pathType", None, f"{PATH}.pathType: Required value: pathType must be specified"),
        (
            "Ingress",
            f"{PATH}.pathType",
            "Pre",
            f'{PATH}.pathType: Unsupported value: "Pre": supported values: "Exact", '
            '"ImplementationSpecific", "Prefix"',
        ),
        ("Ingress", f"{PATH}.path", "a", f'{PATH}.path: Invalid value: "a": must be an absolute path'),
        ("Ingress", f"{PATH}.path", "/a//b", "must not contain '//'"),
        ("Ingress", f"{PATH}.backend.service.name", None, f"{PATH}.backend.service.name: Required value"),
        (
            "Ingress",
            f"{PATH}.backend.service.port",
            None,
            f"{PATH}.backend: Required value: port name or number is required",
        ),
        (
            "Ingress",
            f"{PATH}.backend.service.port.name",
            "http",
            f'{PATH}.backend: Invalid value: "": cannot set both port name & port number',
        ),
        ("Ingress", f"{PATH}.backend", {}, "resource or service backend is required"),
        ("Ingress", "spec.rules[0].host", "1.2.3.4", "must be a DNS name, not an IP address"),
        ("Ingress", "spec.rules[0].host", "a.*.b", "a wildcard DNS-1123 subdomain must start with '*.'"),
        ("Ingress", "spec.rules", None, "either `defaultBackend` or `rules` must be specified"),
        ("IngressClass", "spec.controller", "nginx", "must be a domain-prefixed path"),
        (
            "NetworkPolicy",
            "spec.ingress[0].ports[0].endPort",
            70,
            "spec.ingress[0].ports[0].endPort: Invalid value: 70: must be greater than or equal to `port`",
        ),
        (
            "NetworkPolicy",
            "spec.ingress[0].ports[1].endPort",
            70,
            "may not be specified when `port` is non-numeric",
        ),
        (
            "NetworkPolicy",
            "spec.ingress[0].ports[1].protocol",
            "ICMP",
            'supported values: "TCP", "UDP", "SCTP"',
        ),
        ("NetworkPolicy", "spec.ingress[0].from[0]", {}, "from[0]: Required value: must specify a peer"),
        (
            "NetworkPolicy",
            "spec.ingress[0].from[1].podSelector",
            {},
            "may not specify both ipBlock and another peer",
        ),
        (
            "NetworkPolicy",
            "spec.ingress[0].from[1].ipBlock.cidr",
            "10.0.0.0",
            'ipBlock.cidr: Invalid value: "10.0.0.0": must be a valid CIDR value',
        ),
        (
            "NetworkPolicy",
            "spec.ingress[0].from[1].ipBlock.except",
            ["11.0.0.0/16"],
            'except[0]: Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`',
        ),
        (
            "NetworkPolicy",
            "spec.ingress[0].from[1].ipBlock.except",
            "10.1.0.0/16",
            "ipBlock.except: cannot unmarshal string",
        ),
        ("NetworkPolicy", "spec.policyTypes[0]", "Both", 'supported values: "Egress", "Ingress"'),
        (
            "ConfigMap",
            "data",
            {"a b": ""},
            'data[a b]: Invalid value: "a b": a valid config key must consist of',
        ),
        ("ConfigMap", "data", {"c": ""}, "duplicate of key present in binaryData"),
        ("ConfigMap", "data", {"a": "x" * 1_100_000}, "Too long: may not be more than 1048576 bytes"),
        ("ConfigMap", "binaryData", {"b": "?"}, "illegal base64 data"),
        ("Secret", "data", {"tls.crt": "Zg=="}, "data[tls.key]: Required value"),
        ("DaemonSet", "spec.selector", None, "spec.selector: Required value"),
        (
            "DaemonSet",
            "spec.template.metadata.labels.app",
            "x",
            "`selector` does not match template `labels`",
        ),
        (
            "DaemonSet",
            "spec.template.metadata.labels.app",
            "x",
            'spec.template.metadata.labels: Invalid value: map[string]string{"app":"x"}:',
        ),
        ("StatefulSet", "spec.podManagementPolicy", "Any", "must be 'OrderedReady' or 'Parallel'"),
        ("StatefulSet", "spec.updateStrategy.type", "Any", "must be 'RollingUpdate' or 'OnDelete'"),
        (
            "StatefulSet",
            "spec.updateStrategy.rollingUpdate.maxUnavailable",
            "0%",
            'spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: "0%": cannot be 0',
        ),
        (
            "StatefulSet",
            "spec.updateStrategy.rollingUpdate.maxUnavailable",
            "101%",
            'Invalid value: "101%": must not be greater than 100%',
        ),
        (
            "StatefulSet",
            "spec.updateStrategy.rollingUpdate.maxUnavailable",
            "two",
            'Invalid value: "two": a valid percent string must be a numeric string',
        ),
        ("ReplicationController", "spec.template", None, "spec.template: Required value"),
        (
            "Job",
            "spec.template.spec.restartPolicy",
            None,
            'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"',
        ),
        (
            "Job",
            "spec.backoffLimit",
            -1,
            "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
        ),
        ("CronJob", "spec.schedule", "", "spec.schedule: Required value"),
        ("CronJob", "spec.timeZone", "Mars/Base", 'Invalid value: "Mars/Base": unknown time zone Mars/Base'),
        (
            "CronJob",
            "spec.schedule",
            "* * *",
            'spec.schedule: Invalid value: "* * *": expected exactly 5 fields, found 3: [* * *]',
        ),
        ("CronJob", "spec.concurrencyPolicy", "No", 'supported values: "Allow", "Forbid", "Replace"'),
        ("CronJob", "metadata.name", "x" * 53, "must be no more than 52 characters"),
        (
            "PodDisruptionBudget",
            "spec.maxUnavailable",
            1,
            "minAvailable and maxUnavailable cannot be both set",
        ),
        ("PodDisruptionBudget", "spec.minAvailable", "101%", "must not be greater than 100%"),
        (
            "HorizontalPodAutoscaler",
            "spec.maxReplicas",
            0,
            "spec.maxReplicas: Invalid value: 0: must be greater than 0",
        ),
        ("HorizontalPodAutoscaler", "spec.minReplicas", 4, "must be greater than or equal to `minReplicas`"),
        (
            "HorizontalPodAutoscaler",
            "spec.scaleTargetRef.name",
            None,
            "spec.scaleTargetRef.name: Required value",
        ),
        ("HorizontalPodAutoscaler", "spec.metrics[0].type", "Pods", "spec.metrics[0].pods: Required value"),
        (
            "Role",
            "rules[0].verbs",
            [],
            "rules[0].verbs: Required value: verbs must contain at least one value",
        ),
        ("Role", "rules[0].nonResourceURLs", ["/a"], "namespaced rules cannot apply to non-resource URLs"),
        ("RoleBinding", "roleRef.kind", "Rolle", 'supported values: "Role", "ClusterRole"'),
        ("RoleBinding", "subjects[0].kind", "Robot", 'supported values: "ServiceAccount", "User", "Group"'),
        ("ClusterRoleBinding", "subjects[0].namespace", None, "subjects[0].namespace: Required value"),
        ("PersistentVolumeClaim", "spec.resources", None, "spec.resources[storage]: Required value"),
        (
            "PersistentVolumeClaim",
            "spec.accessModes",
            [],
            "spec.accessModes: Required value: at least 1 access mode is required",
        ),
        ("StorageClass", "provisioner", None, "provisioner: Required value"),
        (
            "ResourceQuota",
            "spec.hard.pods",
            "-1",
            'spec.hard[pods]: Invalid value: "-1": must be greater than',
        ),
        ("ResourceQuota", "spec.hard.pods", "many", "quantities must match the regular expression"),
        ("LimitRange", "spec.limits[0].min.cpu", "2", "min value 2 is greater than max value 1"),
        ("Lease", "spec.leaseDurationSeconds", 0, "must be greater than 0"),
        (
            "PriorityClass",
            "value",
            2_000_000_000,
            "maximum allowed value of a user defined priority is 1000000000",
        ),
        ("PriorityClass", "metadata.name", "system-x", "metadata.name: Forbidden: priority class names with"),
        ("Event", "involvedObject.namespace", "other", "does not match event.namespace"),
        ("RuntimeClass", "handler", None, "handler: Required value"),
        ("CSINode", "spec.drivers[0].name", None, "spec.drivers[0].name: Required value"),
    ],
)
def test_a_mistake_is_found(kind: str, path: str, value: object, finding: str) -> None:
    obj = changed(kind, path, value)
    for found in ([str(p) for p in validate(obj)], [str(p) for p in validate(default(obj))]):
        assert any(finding in line for line in found), found


@pytest.mark.parametrize(
    ("kind", "path", "value", "finding"),
    [
        ("DaemonSet", "spec.selector.matchLabels.app", "x", "spec.selector: Invalid value"),
        (
            "StatefulSet",
            "spec.serviceName",
            "other",
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', "
            "'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' "
            "and 'minReadySeconds' are forbidden",
        ),
        ("Job", "spec.template.spec.containers[0].image", "j", "field is immutable"),
        ("Job", "spec.completions", 7, "spec.completions: Invalid value: 7: field is immutable"),
        ("Secret", "type", "Opaque", 'type: Invalid value: "Opaque": field is immutable'),
        ("RoleBinding", "roleRef.name", "edit", "cannot change roleRef"),
        (
            "IngressClass",
            "spec.controller",
            "a.b/c",
            'spec.controller: Invalid value: "a.b/c": field is immutable',
        ),
        ("PersistentVolumeClaim", "spec.accessModes", ["ReadWriteMany"], "spec is immutable after creation"),
        (
            "StorageClass",
            "provisioner",
            "other",
            "provisioner: Forbidden: updates to provisioner are forbidden.",
        ),
        ("PriorityClass", "value", 3, "value: Forbidden: may not be changed in an update."),
    ],
)
def test_what_an_update_may_not_touch(kind: str, path: str, value: object, finding: str) -> None:
    found = validate_update(default(valid(kind)), default(changed(kind, path, value)))
    assert [finding in str(problem) for problem in found] == [True]


@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
def test_what_is_immutable_stays(kind: str) -> None:
    old = {**valid(kind), "immutable": True}
    found = validate_update(old, {**valid(kind), "data": {}})
    assert [str(p) for p in found] == [
        "immutable: Forbidden: field is immutable when `immutable` is set",
        "data: Forbidden: field is immutable when `immutable` is set",
    ]


def test_a_stateful_set_can_be_scaled_and_renewed() -> None:
    new = changed("StatefulSet", "spec.template.spec.containers[0].image", "j")
    new["spec"]["replicas"] = 5
    assert validate_update(default(valid("StatefulSet")), default(new)) == []


def test_the_claims_of_a_stateful_set_are_volumes_of_its_pods() -> None:
    mounts = [{"name": "data", "mountPath": "/data"}]
    obj = changed("StatefulSet", "spec.template.spec.containers[0].volumeMounts", mounts)
    assert [p.what for p in validate(obj)] == ['Not found: "data"']
    obj["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "data"}}]
    obj["spec"]["template"]["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}]
    assert validate(obj) == []


def test_a_suspended_job_can_be_changed() -> None:
    old = {**default(changed("Job", "spec.suspend", True)), "status": {}}
    new = copy.deepcopy(old)
    new["spec"]["template"]["spec"]["nodeSelector"] = {"a": "b"}
    assert validate_update(old, new) == []


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("1k", 1000),
        ("1Ki", 1024),
        ("2e3", 2000),
        ("1E", 10**18),
        ("1Ei", 2**60),
        (3, 3),
        (".5k", 500),
    ],
)
def test_quantities(text: object, number: int) -> None:
    assert quantity(text) == number


@pytest.mark.parametrize("text", ["", "k", "1kk", "1 k", None, True, [], "1e"])
def test_what_is_no_quantity(text: object) -> None:
    assert quantity(text) is None
