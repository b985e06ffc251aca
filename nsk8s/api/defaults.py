"""What an API server fills in before it stores an object.

The values of Kubernetes' `pkg/apis/*/v1/defaults.go`, and of the admission plugins that every cluster
has (DefaultTolerationSeconds, ServiceAccount without its volume), for the kinds that nsk8s acts on. A null
counts as absent and is dropped. The user's fields stay as they are and where they are; defaults follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nsk8s.api.kinds import BY_KIND
from nsk8s.api.types import Obj

SESSION_AFFINITY_SECONDS = 10800
"""Three hours."""


def default(obj: Obj) -> Obj:
    """`obj` as it is stored, with a namespace if its kind has one. Pure: `obj` is not changed, though the
    result may share parts of it. Fields of a wrong type are left for `validation` to find."""
    obj = without_nulls(obj)
    resource = BY_KIND.get((str(obj.get("apiVersion")), str(obj.get("kind"))))
    if resource is None:
        return obj
    if resource.namespaced and isinstance(meta := obj.get("metadata"), dict) and not meta.get("namespace"):
        obj = {**obj, "metadata": {**meta, "namespace": "default"}}
    fill = _KINDS.get(resource.kind)
    return obj if fill is None else fill(obj)


def without_nulls(obj: Obj) -> Obj:
    """`obj` without the null members of its mappings; the very same object if it has none."""
    new: Obj | None = None
    for key, item in obj.items():
        kept = _kept(item)
        if kept is not item or item is None:
            new = dict(obj) if new is None else new
            if item is None:
                del new[key]
            else:
                new[key] = kept
    return obj if new is None else new


def _kept(value: object) -> object:
    if type(value) is dict:
        return without_nulls(value)
    if type(value) is list:
        for position, item in enumerate(value):
            if (type(item) is dict or type(item) is list) and (kept := _kept(item)) is not item:
                return [*value[:position], kept, *map(_kept, value[position + 1 :])]
    return value


def _filled(value: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`value` with those of `defaults` that it lacks behind its own."""
    new = dict(value)
    for key, item in defaults.items():
        if key not in new:
            new[key] = item
    return new


def _each(value: object, fill: Callable[[dict[str, Any]], dict[str, Any]]) -> object:
    """A list with every mapping in it filled."""
    return [fill(v) if type(v) is dict else v for v in value] if type(value) is list else value


# --- pods -------------------------------------------------------------------------------------------


def _pod(obj: Obj) -> Obj:
    spec = obj.get("spec")
    if type(spec) is not dict:
        return obj
    if spec.get("hostNetwork") is True:
        spec = {**spec, "containers": _each(spec.get("containers"), _host_ports)}
    spec = _pod_spec(spec)
    account = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    spec = _filled(
        spec, {"enableServiceLinks": True, "serviceAccount": account, "serviceAccountName": account}
    )
    return {**obj, "spec": _with_tolerations(spec)}


def _with_tolerations(spec: dict[str, Any]) -> dict[str, Any]:
    """Pods stay five minutes on a node that is lost, unless they say otherwise."""
    own = spec.get("tolerations", [])
    if type(own) is not list:
        return spec
    added = [
        {"effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": 300}
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
        if not any(
            type(t) is dict and t.get("key", key) == key and t.get("effect", "NoExecute") == "NoExecute"
            for t in own
        )
    ]
    return {**spec, "tolerations": [*own, *added]} if added else spec


def _pod_spec(spec: dict[str, Any]) -> dict[str, Any]:
    new = _filled(
        spec,
        {
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "securityContext": {},
            "schedulerName": "default-scheduler",
        },
    )
    for field in ("initContainers", "containers"):
        if field in new:
            new[field] = _each(new[field], _container)
    return new


def _container(container: dict[str, Any]) -> dict[str, Any]:
    new = _filled(
        container,
        {
            "imagePullPolicy": _pull_policy(container.get("image")),
            "resources": {},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
        },
    )
    if "ports" in new:
        new["ports"] = _each(new["ports"], _protocol)
    for field in ("readinessProbe", "livenessProbe", "startupProbe"):
        if type(new.get(field)) is dict:
            new[field] = _probe(new[field])
    return new


def _pull_policy(image: object) -> str:
    """Always for ``:latest`` and for no tag, as nobody knows what that is tomorrow."""
    if type(image) is not str or "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "IfNotPresent" if tag and tag != "latest" else "Always"


def _protocol(port: dict[str, Any]) -> dict[str, Any]:
    return port if "protocol" in port else {**port, "protocol": "TCP"}


def _host_ports(container: dict[str, Any]) -> dict[str, Any]:
    """On the node's own network a container's ports are the node's."""

    def fill(port: dict[str, Any]) -> dict[str, Any]:
        return (
            {**port, "hostPort": port["containerPort"]}
            if not port.get("hostPort") and "containerPort" in port
            else port
        )

    return {**container, "ports": _each(container["ports"], fill)} if "ports" in container else container


def _probe(probe: dict[str, Any]) -> dict[str, Any]:
    new = _filled(
        probe, {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    )
    if type(new.get("httpGet")) is dict:
        new["httpGet"] = _filled(new["httpGet"], {"path": "/", "scheme": "HTTP"})
    return new


def _template(spec: dict[str, Any]) -> dict[str, Any]:
    """`spec` with its pod template filled."""
    template = spec.get("template")
    if type(template) is not dict or type(template.get("spec")) is not dict:
        return spec
    return {**spec, "template": {**template, "spec": _pod_spec(template["spec"])}}


# --- workload controllers ---------------------------------------------------------------------------


def _deployment(obj: Obj) -> Obj:
    if type(obj.get("spec")) is not dict:
        return obj
    spec = _filled(
        _template(obj["spec"]),
        {"replicas": 1, "strategy": {}, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600},
    )
    if type(spec["strategy"]) is dict:
        strategy = _filled(spec["strategy"], {"type": "RollingUpdate"})
        if strategy["type"] == "RollingUpdate":
            rolling = strategy.get("rollingUpdate", {})
            if type(rolling) is dict:
                rolling = _filled(rolling, {"maxSurge": "25%", "maxUnavailable": "25%"})
            strategy["rollingUpdate"] = rolling
        spec["strategy"] = strategy
    return {**obj, "spec": spec}


def _replicaset(obj: Obj) -> Obj:
    if type(obj.get("spec")) is not dict:
        return obj
    return {**obj, "spec": _filled(_template(obj["spec"]), {"replicas": 1})}


# --- services and endpoints -------------------------------------------------------------------------


def _service(obj: Obj) -> Obj:
    spec = obj.get("spec", {})
    if type(spec) is not dict:
        return obj
    spec = _filled(spec, {"type": "ClusterIP", "sessionAffinity": "None"})
    if spec["sessionAffinity"] == "ClientIP":
        given = spec.get("sessionAffinityConfig", {})
        if type(given) is dict and type(given.get("clientIP", {})) is dict:
            client = _filled(given.get("clientIP", {}), {"timeoutSeconds": SESSION_AFFINITY_SECONDS})
            spec["sessionAffinityConfig"] = {**given, "clientIP": client}
    if "ports" in spec:
        spec["ports"] = _each(spec["ports"], _service_port)
    if spec["type"] != "ExternalName":
        spec = _filled(
            spec,
            {"internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"},
        )
    if spec["type"] in ("NodePort", "LoadBalancer"):
        spec = _filled(spec, {"externalTrafficPolicy": "Cluster"})
    if spec["type"] == "LoadBalancer":
        spec = _filled(spec, {"allocateLoadBalancerNodePorts": True})
    return {**obj, "spec": spec}


def _service_port(port: dict[str, Any]) -> dict[str, Any]:
    new = _protocol(port)
    if not new.get("targetPort") and "port" in new:
        new = {**new, "targetPort": new["port"]}
    return new


def _endpoints(obj: Obj) -> Obj:
    if type(obj.get("subsets")) is not list:
        return obj

    def fill(subset: dict[str, Any]) -> dict[str, Any]:
        return {**subset, "ports": _each(subset["ports"], _protocol)} if "ports" in subset else subset

    return {**obj, "subsets": _each(obj["subsets"], fill)}


def _endpoint_slice(obj: Obj) -> Obj:
    def fill(port: dict[str, Any]) -> dict[str, Any]:
        return _filled(port, {"name": "", "protocol": "TCP"})

    return {**obj, "ports": _each(obj["ports"], fill)} if "ports" in obj else obj


def _namespace(obj: Obj) -> Obj:
    """Every namespace carries its name as a label, for the namespaceSelectors of policies."""
    meta = obj.get("metadata")
    if type(meta) is not dict or type(meta.get("labels", {})) is not dict or "name" not in meta:
        return obj
    labels = {**meta.get("labels", {}), "kubernetes.io/metadata.name": meta["name"]}
    return {**obj, "metadata": {**meta, "labels": labels}}


_KINDS: Mapping[str, Callable[[Obj], Obj]] = {
    "Pod": _pod,
    "Deployment": _deployment,
    "ReplicaSet": _replicaset,
    "Service": _service,
    "Endpoints": _endpoints,
    "EndpointSlice": _endpoint_slice,
    "Namespace": _namespace,
}
