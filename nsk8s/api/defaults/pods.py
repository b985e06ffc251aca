"""Pods and the templates of pods (`pkg/apis/core/v1/defaults.go`)."""

from __future__ import annotations

from typing import Any

from nsk8s.api.defaults.fill import Fill, beneath, defaults_of, each, filled, within
from nsk8s.api.types import Obj

DEFAULT_MODE = 0o644
"""Of the files in volumes of configuration."""
CRITICAL = {"": 0, "system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
"""The priorities of the classes that every cluster has, and of none."""


def _pod(obj: Obj) -> Obj:
    spec = obj.get("spec")
    if type(spec) is not dict:
        return obj
    if spec.get("hostNetwork") is True:
        spec = {**spec, "containers": each(spec.get("containers"), _host_ports)}
    spec = pod_spec(spec)
    for field in ("initContainers", "containers"):
        if any(type(c) is dict and c.get("resources") for c in _listed(spec.get(field))):
            spec = within(spec, field, lambda container: within(container, "resources", _requests))
    account = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    more = {"enableServiceLinks": True, "serviceAccount": account, "serviceAccountName": account}
    priority = CRITICAL.get(spec.get("priorityClassName", ""))
    if priority is not None:
        more |= {"priority": priority, "preemptionPolicy": "PreemptLowerPriority"}
    return {**obj, "spec": _with_tolerations(filled(spec, more))}


def _listed(value: object) -> list[Any]:
    return value if type(value) is list else []


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


def _requests(resources: dict[str, Any]) -> dict[str, Any]:
    """What is limited is requested."""
    limits, requests = resources.get("limits"), resources.get("requests", {})
    if not limits or type(limits) is not dict or type(requests) is not dict:
        return resources
    return {**resources, "requests": filled(requests, limits)}


def pod_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec of a pod or of a template."""
    new = filled(
        spec,
        {
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "securityContext": {},
            "schedulerName": "default-scheduler",
        },
    )
    for field in ("initContainers", "containers", "ephemeralContainers"):
        if field in new:
            new[field] = each(new[field], _container)
    if "volumes" in new:
        new["volumes"] = each(new["volumes"], _volume)
    return new


def template(spec: dict[str, Any]) -> dict[str, Any]:
    """`spec` with its pod template filled."""
    return beneath(spec, ("template", "spec"), pod_spec)


# --- containers -------------------------------------------------------------------------------------


def _container(container: dict[str, Any]) -> dict[str, Any]:
    new = filled(
        container,
        {
            "imagePullPolicy": _pull_policy(container.get("image")),
            "resources": {},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
        },
    )
    if "ports" in new:
        new["ports"] = each(new["ports"], protocol)
    if "env" in new:
        new["env"] = each(new["env"], _variable)
    for field in ("readinessProbe", "livenessProbe", "startupProbe"):
        if type(new.get(field)) is dict:
            new[field] = _probe(new[field])
    if "lifecycle" in new:
        for hook in ("postStart", "preStop"):
            new = beneath(new, ("lifecycle", hook, "httpGet"), _http_get)
    return new


def _pull_policy(image: object) -> str:
    """Always for ``:latest`` and for no tag, as nobody knows what that is tomorrow."""
    if type(image) is not str or "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "IfNotPresent" if tag and tag != "latest" else "Always"


def protocol(port: dict[str, Any]) -> dict[str, Any]:
    """Ports are TCP."""
    return port if "protocol" in port else {**port, "protocol": "TCP"}


def _host_ports(container: dict[str, Any]) -> dict[str, Any]:
    """On the node's own network a container's ports are the node's."""

    def fill(port: dict[str, Any]) -> dict[str, Any]:
        return (
            {**port, "hostPort": port["containerPort"]}
            if not port.get("hostPort") and "containerPort" in port
            else port
        )

    return {**container, "ports": each(container["ports"], fill)} if "ports" in container else container


_http_get = defaults_of({"path": "/", "scheme": "HTTP"})


def _probe(probe: dict[str, Any]) -> dict[str, Any]:
    new = filled(
        probe, {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    )
    return within(within(new, "httpGet", _http_get), "grpc", defaults_of({"service": ""}))


_field_ref = defaults_of({"apiVersion": "v1"})


def _variable(variable: dict[str, Any]) -> dict[str, Any]:
    return beneath(variable, ("valueFrom", "fieldRef"), _field_ref) if "valueFrom" in variable else variable


# --- volumes ----------------------------------------------------------------------------------------


def _volume(volume: dict[str, Any]) -> dict[str, Any]:
    if not any(field != "name" for field in volume):
        return {**volume, "emptyDir": {}}
    for field, fill in _VOLUMES.items():
        if field in volume:
            return within(volume, field, fill)
    return volume


def _files(source: dict[str, Any]) -> dict[str, Any]:
    new = filled(source, {"defaultMode": DEFAULT_MODE})
    return beneath(new, ("items", "fieldRef"), _field_ref)


def _projected(source: dict[str, Any]) -> dict[str, Any]:
    new = filled(source, {"defaultMode": DEFAULT_MODE})
    new = beneath(new, ("sources", "serviceAccountToken"), defaults_of({"expirationSeconds": 3600}))
    return beneath(new, ("sources", "downwardAPI", "items", "fieldRef"), _field_ref)


def _claim(source: dict[str, Any]) -> dict[str, Any]:
    mode = defaults_of({"volumeMode": "Filesystem"})
    return beneath(source, ("volumeClaimTemplate", "spec"), mode)


_VOLUMES: dict[str, Fill] = {
    "secret": _files,
    "configMap": _files,
    "downwardAPI": _files,
    "projected": _projected,
    "hostPath": defaults_of({"type": ""}),
    "ephemeral": _claim,
}

KINDS: dict[str, Fill] = {"Pod": _pod, "PodTemplate": template}
