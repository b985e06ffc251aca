from __future__ import annotations

import copy
from typing import Any

import pytest

from nsk8s.api import fieldpath, names
from nsk8s.api.defaults import default
from nsk8s.api.types import Obj
from nsk8s.api.validation import validate, validate_status, validate_update
from nsk8s.api.views import VIEWS, view

VALID: dict[str, Obj] = {
    "Pod": {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {
            "initContainers": [{"name": "first", "image": "busybox"}],
            "containers": [
                {
                    "name": "web",
                    "image": "nginx",
                    "env": [{"name": "A.b", "value": "c"}],
                    "ports": [{"containerPort": 80, "name": "http", "hostPort": 8080}],
                    "readinessProbe": {"httpGet": {"port": "http"}},
                },
                {"name": "side", "image": "busybox", "ports": [{"containerPort": 53, "protocol": "UDP"}]},
            ],
            "tolerations": [{"key": "a", "operator": "Exists"}],
        },
    },
    "Deployment": {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "selector": {
                "matchLabels": {"app": "web"},
                "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}],
            },
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "0%"}},
            "template": {
                "metadata": {"labels": {"app": "web", "tier": "a"}},
                "spec": {"containers": [{"name": "web", "image": "nginx"}]},
            },
        },
    },
    "Service": {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {
            "type": "NodePort",
            "clusterIP": "10.96.0.20",
            "selector": {"app": "web"},
            "ports": [
                {"name": "http", "port": 80, "nodePort": 30080, "targetPort": "http"},
                {"name": "dns", "port": 80, "nodePort": 30080, "targetPort": 53, "protocol": "UDP"},
            ],
        },
    },
    "EndpointSlice": {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web"},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.9.8.7"]}],
        "ports": [{"name": "a", "port": 80}, {"port": 81}],
    },
    "Endpoints": {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "web"},
        "subsets": [{"addresses": [{"ip": "10.9.8.7"}], "ports": [{"port": 80}]}],
    },
    "Node": {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "w1"},
        "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]},
    },
    "Namespace": {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}},
    "Role": {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "system:x", "namespace": "y"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    },
}


def changed(kind: str, path: str, value: object) -> Obj:
    """A valid object with one field set; None leaves the field out."""
    obj = copy.deepcopy(VALID[kind])
    *parents, last = fieldpath.segments(path)
    place: Any = obj
    for parent in parents:
        place = place[int(parent)] if isinstance(place, list) else place.setdefault(parent, {})
    if isinstance(place, list):
        place[int(last)] = value
    elif value is None:
        del place[last]
    else:
        place[last] = value
    return obj


WRONG_VOLUMES: list[tuple[Obj, str]] = [
    ({"configMap": {}}, "spec.volumes[0].configMap.name: Required value"),
    ({"secret": {}}, "spec.volumes[0].secret.secretName: Required value"),
    (
        {"configMap": {"name": "a"}, "secret": {"secretName": "b"}},
        "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",
    ),
    (
        {"configMap": {"name": "a", "defaultMode": 0o1777}},
        "defaultMode: Invalid value: 1023: must be a number between 0 and 0777 (octal), both inclusive",
    ),
    (
        {"configMap": {"name": "a", "items": [{"key": "k", "path": "../x"}]}},
        "items[0].path: Invalid value: \"../x\": must not contain '..'",
    ),
    (
        {"secret": {"secretName": "a", "items": [{"key": "k", "path": "/x"}]}},
        'items[0].path: Invalid value: "/x": must be a relative path',
    ),
    (
        {"projected": {"sources": [{"secret": {"name": "a", "items": [{"key": "k", "path": "..x"}]}}]}},
        "sources[0].secret.items[0].path: Invalid value: \"..x\": must not start with '..'",
    ),
    ({"downwardAPI": {"items": [{"path": "x"}]}}, "one of fieldRef and resourceFieldRef is required"),
    (
        {"downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "status.podIP"}}]}},
        'fieldRef.fieldPath: Unsupported value: "status.podIP"',
    ),
    ({"hostPath": {"path": "/a/../b"}}, "hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"),
    ({"persistentVolumeClaim": {}}, "persistentVolumeClaim.claimName: Required value"),
]
WRONG_VARIABLES: list[tuple[Obj, str]] = [
    ({"value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, "`value` is not empty"),
    ({"valueFrom": {}}, "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`"),
    (
        {"valueFrom": {"secretKeyRef": {"name": "a"}}},
        "env[0].valueFrom.secretKeyRef.key: Required value",
    ),
    (
        {"valueFrom": {"configMapKeyRef": {"name": "a", "key": "b/c"}}},
        'configMapKeyRef.key: Invalid value: "b/c"',
    ),
    (
        {"valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}},
        'fieldPath: Unsupported value: "metadata.labels": supported values: "metadata.name"',
    ),
    (
        {"valueFrom": {"fieldRef": {"fieldPath": "spec.nothing"}}},
        "error converting fieldPath: field label not supported: spec.nothing",
    ),
    ({"valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}, 'Unsupported value: "limits.gpu"'),
    (
        {
            "valueFrom": {
                "secretKeyRef": {"name": "a", "key": "b"},
                "fieldRef": {"fieldPath": "metadata.name"},
            }
        },
        "may not have more than one field specified at a time",
    ),
]


@pytest.mark.parametrize("kind", VALID)
def test_valid_objects_are_valid_as_written_and_as_stored(kind: str) -> None:
    obj = VALID[kind]
    before = copy.deepcopy(obj)
    assert validate(obj) == []
    assert validate(default(obj)) == []
    assert obj == before
    if kind in VIEWS:
        view(default(obj))


@pytest.mark.parametrize(
    ("kind", "path", "value", "finding"),
    [
        ("Pod", "kind", "Pot", 'kind: no matches for kind "Pot" in version "v1"; did you mean "Pod" (v1)?'),
        (
            "Pod",
            "apiVersion",
            "apps/v1",
            'apiVersion: no matches for kind "Pod" in version "apps/v1"; Pod is in v1',
        ),
        ("Pod", "apiVersion", None, "apiVersion: Required value"),
        ("Pod", "kind", 3, "kind: must be a string"),
        ("Pod", "metadata", [], "metadata: cannot unmarshal array [] into a field of type mapping"),
        ("Pod", "metadata.name", None, "metadata.name: Required value: name or generateName is required"),
        (
            "Pod",
            "metadata.name",
            "Web",
            'metadata.name: Invalid value: "Web": a lowercase RFC 1123 subdomain must',
        ),
        ("Pod", "metadata.name", "a" * 254, "must be no more than 253 characters"),
        ("Pod", "metadata.namespace", "a.b", "metadata.namespace: Invalid value"),
        (
            "Pod",
            "metadata.labels",
            {"a": "b c"},
            'metadata.labels[a]: Invalid value: "b c": a valid label must be',
        ),
        ("Pod", "metadata.labels", {"a/b/c": "d"}, "metadata.labels[a/b/c]: Invalid value"),
        (
            "Pod",
            "metadata.labels",
            {"a": 1},
            "metadata.labels[a]: cannot unmarshal number 1 into a field of type string",
        ),
        ("Pod", "metadata.annotations", {"a": "x" * 300_000}, "metadata.annotations: Too long"),
        (
            "Pod",
            "metadata.ownerReferences",
            [{"kind": "A", "name": "b", "uid": "c"}],
            "metadata.ownerReferences[0].apiVersion: Required",
        ),
        ("Pod", "spec", None, "spec.containers: Required value"),
        ("Pod", "spec.containers", [], "spec.containers: Required value"),
        (
            "Pod",
            "spec.containers",
            {"name": "a"},
            'spec.containers: cannot unmarshal object {"name":"a"} into a field of type list; begin',
        ),
        ("Pod", "spec.containers[0].name", None, "spec.containers[0].name: Required value"),
        ("Pod", "spec.containers[0].name", "a.b", "spec.containers[0].name: Invalid value"),
        ("Pod", "spec.containers[0].name", "side", 'spec.containers[1].name: Duplicate value: "side"'),
        ("Pod", "spec.containers[0].name", "first", 'spec.containers[0].name: Duplicate value: "first"'),
        ("Pod", "spec.containers[0].image", None, "spec.containers[0].image: Required value"),
        (
            "Pod",
            "spec.containers[0].ports[0].containerPort",
            0,
            "spec.containers[0].ports[0].containerPort: Required value",
        ),
        (
            "Pod",
            "spec.containers[0].ports[0].containerPort",
            65536,
            "Invalid value: 65536: must be between 1 and 65535, inclusive",
        ),
        ("Pod", "spec.containers[0].ports[0].containerPort", "80", "type integer; write it without quotes"),
        (
            "Pod",
            "spec.containers[0].ports[0].protocol",
            "tcp",
            'Unsupported value: "tcp": supported values: "TCP", "UDP", "SCTP"; did you mean "TCP"?',
        ),
        ("Pod", "spec.containers[0].ports[0].name", "a_name", "must contain only alpha-numeric characters"),
        ("Pod", "spec.containers[0].ports[0].name", "80", "must contain at least one letter"),
        (
            "Pod",
            "spec.containers[0].ports[0].hostIP",
            "x",
            "spec.containers[0].ports[0].hostIP: Invalid value",
        ),
        (
            "Pod",
            "spec.containers[1].ports",
            [{"containerPort": 1, "hostPort": 8080}],
            "spec.containers[1].ports[0].hostPort: Duplicate value",
        ),
        ("Pod", "spec.hostNetwork", True, "must match `containerPort` when `hostNetwork` is true"),
        ("Pod", "spec.containers[0].env[0].name", "a=b", "printable ASCII characters other than '='"),
        (
            "Pod",
            "spec.containers[0].env[0].value",
            8080,
            "env[0].value: cannot unmarshal number 8080 into a field of type string; put it in quotes",
        ),
        ("Pod", "spec.containers[0].readinessProbe", {}, "must specify a handler type"),
        (
            "Pod",
            "spec.containers[0].readinessProbe.tcpSocket",
            {"port": 1},
            "may not specify more than 1 handler type",
        ),
        ("Pod", "spec.containers[0].readinessProbe.httpGet.port", 0, "httpGet.port: Invalid value: 0"),
        (
            "Pod",
            "spec.containers[0].livenessProbe",
            {"exec": {"command": ["a"]}, "successThreshold": 2},
            "successThreshold: Invalid value: 2: must be 1",
        ),
        ("Pod", "spec.containers[0].restartPolicy", "Always", "may not be set for non-init containers"),
        ("Pod", "spec.initContainers[0].restartPolicy", "Never", 'supported values: "Always"'),
        (
            "Pod",
            "spec.initContainers[0].readinessProbe",
            {"tcpSocket": {"port": 1}},
            "may not be set for init containers",
        ),
        (
            "Pod",
            "spec.containers[0].volumeMounts",
            [{"name": "data", "mountPath": "/data"}],
            'spec.containers[0].volumeMounts[0].name: Not found: "data"',
        ),
        ("Pod", "spec.volumes", [{"name": "a"}, {"name": "a"}], 'spec.volumes[1].name: Duplicate value: "a"'),
        *(("Pod", "spec.volumes", [{"name": "v", **volume}], text) for volume, text in WRONG_VOLUMES),
        *(
            ("Pod", "spec.containers[0].env", [{"name": "A", **variable}], text)
            for variable, text in WRONG_VARIABLES
        ),
        ("Pod", "spec.containers[0].envFrom", [{}], "must specify one of: `configMapRef` or `secretRef`"),
        ("Pod", "spec.containers[0].envFrom", [{"secretRef": {}}], "envFrom[0].secretRef.name: Required"),
        *(
            ("Pod", "spec.containers[0].lifecycle", lifecycle, text)
            for lifecycle, text in (
                ({"preStop": {}}, "lifecycle.preStop: Required value: must specify a handler type"),
                (
                    {"preStop": {"sleep": {"seconds": 31}}},
                    "preStop.sleep: Invalid value: 31: must be non-negative and less than "
                    "terminationGracePeriodSeconds (30)",
                ),
                (
                    {"postStart": {"exec": {"command": ["a"]}, "httpGet": {"port": 1}}},
                    "may not specify more than 1 handler type",
                ),
            )
        ),
        (
            "Pod",
            "spec.initContainers[0].lifecycle",
            {"preStop": {"exec": {"command": ["a"]}}},
            "may not be set for init containers without restartPolicy=Always",
        ),
        (
            "Pod",
            "spec.containers[0].resources",
            {"limits": {"cpu": "1"}, "requests": {"cpu": "1500m"}},
            'resources.requests: Invalid value: "1500m": must be less than or equal to cpu limit of 1',
        ),
        (
            "Pod",
            "spec.containers[0].resources",
            {"limits": {"cpu": "many"}},
            "quantities must match the regular expression",
        ),
        ("Pod", "spec.restartPolicy", "Sometimes", 'spec.restartPolicy: Unsupported value: "Sometimes"'),
        ("Pod", "spec.dnsPolicy", "clusterFirst", 'did you mean "ClusterFirst"?'),
        ("Pod", "spec.dnsPolicy", "None", "spec.dnsConfig: Required value: must provide `dnsConfig` when"),
        ("Pod", "spec.dnsConfig.nameservers", ["1.1.1.1"] * 4, "must not have more than 3 nameservers"),
        ("Pod", "spec.dnsConfig.nameservers", ["dns"], "spec.dnsConfig.nameservers[0]: Invalid value"),
        ("Pod", "spec.dnsConfig.searches", ["a"] * 33, "must not have more than 32 search paths"),
        ("Pod", "spec.dnsConfig.searches", ["a" * 250] * 9, "more than 2048 characters (including spaces)"),
        ("Pod", "spec.dnsConfig.searches", ["-a"], "spec.dnsConfig.searches[0]: Invalid value"),
        ("Pod", "spec.dnsConfig.options", [{"value": "1"}], "spec.dnsConfig.options[0]: Required value"),
        ("Pod", "spec.terminationGracePeriodSeconds", -1, "must be greater than or equal to 0"),
        ("Pod", "spec.hostname", "A", "spec.hostname: Invalid value"),
        ("Pod", "spec.nodeSelector", {"a b": ""}, "spec.nodeSelector[a b]: Invalid value"),
        ("Pod", "spec.tolerations[0].operator", "Is", "spec.tolerations[0].operator: Unsupported value"),
        ("Pod", "spec.tolerations[0].value", "x", "value must be empty when `operator` is 'Exists'"),
        ("Pod", "spec.tolerations[0]", {}, "operator must be Exists when `key` is empty"),
        (
            "Pod",
            "spec.hostAliases",
            [{"ip": "::x"}],
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        (
            "Deployment",
            "spec.replicas",
            -1,
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        ("Deployment", "spec.replicas", "three", 'spec.replicas: cannot unmarshal string "three"'),
        ("Deployment", "spec.replicas", True, "spec.replicas: cannot unmarshal boolean true"),
        (
            "Deployment",
            "spec.selector",
            {},
            "spec.selector: Required value: empty selector is invalid for deployment",
        ),
        (
            "Deployment",
            "spec.template.metadata.labels",
            {"app": "x", "tier": "a"},
            "`selector` does not match template `labels`; add app: web to the template",
        ),
        (
            "Deployment",
            "spec.template.metadata.labels.tier",
            "z",
            "`selector` does not match template `labels`",
        ),
        (
            "Deployment",
            "spec.selector.matchExpressions[0].operator",
            "in",
            'not a valid selector operator; did you mean "In"?',
        ),
        (
            "Deployment",
            "spec.selector.matchExpressions[0].values",
            [],
            "must be specified when `operator` is 'In' or 'NotIn'",
        ),
        (
            "Deployment",
            "spec.selector.matchExpressions[0].operator",
            "Exists",
            "may not be specified when `operator` is 'Exists'",
        ),
        ("Deployment", "spec.strategy.type", "Rolling", 'did you mean "RollingUpdate"?'),
        (
            "Deployment",
            "spec.strategy.type",
            "Recreate",
            "may not be specified when strategy `type` is 'Recreate'",
        ),
        ("Deployment", "spec.strategy.rollingUpdate.maxSurge", 0, "may not be 0 when `maxSurge` is 0"),
        ("Deployment", "spec.strategy.rollingUpdate.maxSurge", "1", "a valid percent string"),
        ("Deployment", "spec.strategy.rollingUpdate.maxUnavailable", "101%", "must not be greater than 100%"),
        (
            "Deployment",
            "spec.template.spec.containers",
            None,
            "spec.template.spec.containers: Required value",
        ),
        (
            "Deployment",
            "spec.template.spec.restartPolicy",
            "Never",
            'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
        ),
        (
            "Service",
            "metadata.name",
            "1st",
            'metadata.name: Invalid value: "1st": a DNS-1035 label must consist',
        ),
        ("Service", "spec.trafficDistribution", "Near", 'supported values: "PreferClose", "PreferSameNode"'),
        ("Service", "spec.type", "nodeport", 'did you mean "NodePort"?'),
        (
            "Service",
            "spec.type",
            "ClusterIP",
            "nodePort: Forbidden: may not be used when `type` is 'ClusterIP'; set spec.type: NodePort",
        ),
        ("Service", "spec.ports", [], "spec.ports: Required value"),
        ("Service", "spec.ports[0].name", None, "spec.ports[0].name: Required value"),
        ("Service", "spec.ports[0].name", "dns", 'spec.ports[1].name: Duplicate value: "dns"'),
        ("Service", "spec.ports[0].port", 0, "spec.ports[0].port: Invalid value: 0"),
        ("Service", "spec.ports[0].port", "http", 'spec.ports[0].port: cannot unmarshal string "http"'),
        ("Service", "spec.ports[0].targetPort", "80", "write the number without quotes"),
        ("Service", "spec.ports[0].targetPort", 70000, "spec.ports[0].targetPort: Invalid value: 70000"),
        (
            "Service",
            "spec.ports[0].nodePort",
            20,
            "spec.ports[0].nodePort: Invalid value: 20: provided port is not in the valid range. "
            "The range of valid ports is 30000-32767",
        ),
        (
            "Service",
            "spec.ports[1].protocol",
            "TCP",
            'spec.ports[1]: Duplicate value: {"protocol":"TCP","port":80}',
        ),
        ("Service", "spec.clusterIP", "10.96", "spec.clusterIP: Invalid value"),
        ("Service", "spec.clusterIP", "None", "may not be set to 'None' for NodePort services"),
        (
            "Service",
            "spec.externalIPs",
            ["127.0.0.1"],
            'spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range',
        ),
        ("Service", "spec.sessionAffinity", "Client", 'did you mean "ClientIP"?'),
        (
            "Service",
            "spec.sessionAffinityConfig",
            {"clientIP": {"timeoutSeconds": 5}},
            "must not be set when session affinity is None",
        ),
        ("Service", "spec.externalTrafficPolicy", "Locl", 'did you mean "Local"?'),
        ("Service", "spec.selector", {"a": "b c"}, "spec.selector[a]: Invalid value"),
        (
            "Service",
            "spec.loadBalancerSourceRanges",
            ["10.0.0.0/8"],
            "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
        (
            "Service",
            "spec.allocateLoadBalancerNodePorts",
            False,
            "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
        (
            "Service",
            "spec.loadBalancerClass",
            "example.com/lb",
            "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
        (
            "Service",
            "spec.healthCheckNodePort",
            31000,
            "31000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ),
        ("EndpointSlice", "addressType", "IP", "addressType: Unsupported value"),
        ("EndpointSlice", "endpoints[0].addresses", [], "must contain at least 1 address"),
        (
            "EndpointSlice",
            "endpoints[0].addresses",
            ["300.1.1.1"],
            "endpoints[0].addresses[0]: Invalid value",
        ),
        ("EndpointSlice", "ports[0].name", None, "ports[1].name: Required value"),
        ("Endpoints", "subsets[0].addresses", [], "must specify `addresses` or `notReadyAddresses`"),
        ("Endpoints", "subsets[0].addresses[0].ip", "169.254.1.1", "may not be in the link-local range"),
        ("Endpoints", "subsets[0].ports[0].port", 0, "subsets[0].ports[0].port: Invalid value: 0"),
        ("Node", "spec.taints[0].effect", "Never", "spec.taints[0].effect: Unsupported value"),
        ("Namespace", "metadata.name", "a.b", "metadata.name: Invalid value"),
        ("Namespace", "metadata.namespace", "x", "metadata.namespace: Forbidden: not allowed on this type"),
        ("Role", "metadata.name", "a/b", "may not contain '/'"),
    ],
)
def test_a_mistake_is_found(kind: str, path: str, value: object, finding: str) -> None:
    found = [str(problem) for problem in validate(changed(kind, path, value))]
    assert any(finding in line for line in found), found


def test_only_what_is_wrong_is_found() -> None:
    assert len(validate(changed("Pod", "spec.containers[0].image", 5))) == 1
    assert len(validate(changed("Deployment", "spec.template.metadata.labels.app", 5))) == 1


def test_a_wrong_type_hides_nothing_else() -> None:
    obj = changed("Deployment", "spec.replicas", "3")
    obj["spec"]["template"]["spec"]["containers"][0].pop("image")
    obj["spec"]["minReadySeconds"] = []
    assert {p.path for p in validate(obj)} == {
        "spec.replicas",
        "spec.minReadySeconds",
        "spec.template.spec.containers[0].image",
    }


def test_a_misspelt_field_is_named() -> None:
    obj = changed("Pod", "spec.containers", None)
    obj["spec"]["continers"] = []
    assert [p.hint for p in validate(obj)] == ['is "continers" meant to be it?']


def test_nulls_count_as_absent() -> None:
    obj = changed("Pod", "metadata.name", "web")
    obj["metadata"] |= {"creationTimestamp": None, "labels": None}
    obj["status"] = None
    assert validate(obj) == []


def test_a_headless_and_an_external_name_service_need_no_ports() -> None:
    base = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}}
    assert validate(base | {"spec": {"clusterIP": "None"}}) == []
    assert validate(base | {"spec": {"type": "ExternalName", "externalName": "example.com"}}) == []
    assert [p.path for p in validate(base | {"spec": {"type": "ExternalName"}})] == ["spec.externalName"]


@pytest.mark.parametrize("kind", VALID)
def test_an_update_that_changes_nothing_is_allowed(kind: str) -> None:
    stored = default(VALID[kind])
    assert validate_update(stored, copy.deepcopy(stored)) == []


@pytest.mark.parametrize(
    ("kind", "path", "value", "finding"),
    [
        ("Pod", "metadata.name", "other", 'metadata.name: Invalid value: "other": field is immutable'),
        (
            "Pod",
            "spec.containers[0].name",
            "other",
            "spec: Forbidden: pod updates may not change fields other than",
        ),
        ("Pod", "spec.nodeSelector", {"a": "b"}, "spec: Forbidden"),
        ("Pod", "spec.nodeSelector", {"a": "b"}, '+ nodeSelector: {"a":"b"}'),
        (
            "Pod",
            "spec.tolerations",
            [],
            "spec.tolerations: Forbidden: existing toleration can not be modified",
        ),
        (
            "Pod",
            "spec.containers",
            [{"name": "web", "image": "nginx"}],
            "spec.containers: Forbidden: pod updates may not add or remove containers",
        ),
        (
            "Service",
            "spec.clusterIP",
            "10.96.0.21",
            'spec.clusterIPs[0]: Invalid value: []string{"10.96.0.21"}: may not change once set',
        ),
        ("Deployment", "spec.selector.matchLabels.app", "other", "spec.selector: Invalid value"),
        ("EndpointSlice", "addressType", "IPv6", 'addressType: Invalid value: "IPv6": field is immutable'),
    ],
)
def test_what_an_update_may_not_touch(kind: str, path: str, value: object, finding: str) -> None:
    old, new = default(VALID[kind]), default(changed(kind, path, value))
    if value == []:
        new["spec"]["tolerations"] = []
    found = [str(problem) for problem in validate_update(old, new)]
    assert len(found) == 1
    assert finding in found[0]


def test_what_an_update_of_a_pod_may_touch() -> None:
    old = default(VALID["Pod"])
    new = default(changed("Pod", "spec.containers[0].image", "httpd:2"))
    new["spec"]["tolerations"].append({"key": "b", "operator": "Exists"})
    new["spec"]["activeDeadlineSeconds"] = 5
    assert validate_update(old, new) == []


def test_a_service_may_stop_having_a_cluster_ip() -> None:
    new = default(VALID["Service"] | {"spec": {"type": "ExternalName", "externalName": "a.b"}})
    assert validate_update(default(VALID["Service"]), new) == []


def test_the_podcidr_of_a_node_stays() -> None:
    old, new = (changed("Node", "spec.podCIDR", cidr) for cidr in ("10.0.0.0/24", "10.0.1.0/24"))
    assert [p.path for p in validate_update(old, new)] == ["spec.podCIDR"]
    assert validate_update(VALID["Node"], new) == []


def test_names() -> None:
    assert names.nearest("deploymnet", ["Deployment", "Pod"]) == "Deployment"
    assert names.nearest("xyzzy", ["Deployment", "Pod"]) == ""
    assert names.repaired("My_App!") == "my-app"
    assert names.repaired("???") == ""
    assert "hyphen" in names.port_name("-a") and "consecutive" in names.port_name("a--b")  # noqa: PT018


LB = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}


@pytest.mark.parametrize(
    ("spec", "finding"),
    [
        (
            {**LB, "loadBalancerSourceRanges": [" 10.0.0.1/8 ", "fd00::/8", "10.0.0.1", "10.0.0.0/33"]},
            [
                f'spec.LoadBalancerSourceRanges[{i}]: Invalid value: "{cidr}": must be a valid CIDR value,'
                for i, cidr in ((2, "10.0.0.1"), (3, "10.0.0.0/33"))
            ],
        ),
        ({**LB, "loadBalancerClass": "a b"}, ["spec.loadBalancerClass: Invalid value"]),
        (
            {**LB, "healthCheckNodePort": 70000},
            [
                "spec.healthCheckNodePort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ],
        ),
        ({**LB, "clusterIP": "None"}, ["may not be set to 'None' for LoadBalancer services"]),
        (
            {"externalTrafficPolicy": "Cluster"},
            ['externalTrafficPolicy: Invalid value: "Cluster": may only be set for externally-accessible'],
        ),
        ({"externalTrafficPolicy": "Local", "externalIPs": ["203.0.113.7"]}, []),
        ({"externalIPs": ["127.0.0.1"]}, ["may not be in the loopback range (127.0.0.0/8, ::1/128)"]),
    ],
)
def test_services_to_the_outside(spec: dict[str, Any], finding: list[str]) -> None:
    meta = {"name": "x"}
    obj = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"port": 80}], **spec}}
    found = [str(problem) for problem in validate(default(obj))]
    assert len(found) == len(finding), found
    for one, wanted in zip(found, finding, strict=True):
        assert wanted in one


def test_a_load_balancer_keeps_its_class_and_its_health_check_port() -> None:
    def balancer(**spec: object) -> Obj:
        spec = {**LB, "ports": [{"port": 80}], "healthCheckNodePort": 31000, **spec}
        return default({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": spec})

    assert [str(p) for p in validate_update(balancer(), balancer(healthCheckNodePort=31001))] == [
        "spec.healthCheckNodePort: Forbidden: field is immutable"
    ]
    changed = validate_update(balancer(loadBalancerClass="a/b"), balancer(loadBalancerClass="a/c"))
    assert [str(p) for p in changed] == [
        'spec.loadBalancerClass: Invalid value: "a/c": may not change once set'
    ]
    assert validate_update(balancer(), balancer(externalTrafficPolicy="Cluster")) == []


@pytest.mark.parametrize(
    ("kind", "ingress", "finding"),
    [
        ("LoadBalancer", {"ip": "203.0.113.7"}, ""),
        ("LoadBalancer", {"ip": "203.0.113.7", "ipMode": "Proxy"}, ""),
        ("LoadBalancer", {"hostname": "lb.example.com"}, ""),
        (
            "LoadBalancer",
            {"ip": "203.0.113"},
            'ingress[0].ip: Invalid value: "203.0.113": must be a valid IP',
        ),
        (
            "LoadBalancer",
            {"ip": "203.0.113.7", "ipMode": "Vip"},
            'ingress[0].ipMode: Unsupported value: "Vip": supported values: "Proxy", "VIP"',
        ),
        (
            "LoadBalancer",
            {"hostname": "a", "ipMode": "VIP"},
            "ingress[0].ipMode: Forbidden: may not be specified when `ip` is not set",
        ),
        (
            "LoadBalancer",
            {"hostname": "203.0.113.7"},
            "ingress[0].hostname: Invalid value",
        ),
        (
            "NodePort",
            {"ip": "203.0.113.7"},
            "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'",
        ),
    ],
)
def test_the_status_of_a_load_balancer(kind: str, ingress: dict[str, str], finding: str) -> None:
    obj = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x"},
        "spec": {"type": kind, "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": [ingress]}},
    }
    found = [str(problem) for problem in validate_status(default(obj))]
    assert len(found) == bool(finding), found
    assert all(finding in one for one in found)
