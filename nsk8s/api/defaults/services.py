"""Services, endpoints, ingresses and network policies (`pkg/apis/{core,discovery,networking}/v1`)."""

from __future__ import annotations

from typing import Any

from nsk8s.api.defaults.fill import Fill, beneath, defaults_of, each, filled, within
from nsk8s.api.defaults.pods import protocol
from nsk8s.api.types import Obj

SESSION_AFFINITY_SECONDS = 10800
"""Three hours."""


def _service(obj: Obj) -> Obj:
    spec = obj.get("spec", {})
    if type(spec) is not dict:
        return obj
    spec = filled(spec, {"type": "ClusterIP", "sessionAffinity": "None"})
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        given = spec.get("sessionAffinityConfig", {})
        if type(given) is dict and type(given.get("clientIP", {})) is dict:
            client = filled(given.get("clientIP", {}), {"timeoutSeconds": SESSION_AFFINITY_SECONDS})
            spec["sessionAffinityConfig"] = {**given, "clientIP": client}
    if "ports" in spec:
        spec["ports"] = each(spec["ports"], _service_port)
    if spec["type"] != "ExternalName":
        spec = filled(
            spec,
            {"internalTrafficPolicy": "Cluster"},
        )
    if spec["type"] in ("NodePort", "LoadBalancer") or (
        spec["type"] == "ClusterIP" and spec.get("externalIPs")
    ):
        spec = filled(spec, {"externalTrafficPolicy": "Cluster"})
    if spec["type"] == "LoadBalancer":
        spec = filled(spec, {"allocateLoadBalancerNodePorts": True})
    return {**obj, "spec": spec}


def _service_port(port: dict[str, Any]) -> dict[str, Any]:
    new = protocol(port)
    if not new.get("targetPort") and "port" in new:
        new = {**new, "targetPort": new["port"]}
    return new


def _endpoints(obj: Obj) -> Obj:
    return beneath(obj, ("subsets", "ports"), protocol)


def _endpoint_slice(obj: Obj) -> Obj:
    return within(obj, "ports", defaults_of({"name": "", "protocol": "TCP"}))


def _ingress_class(obj: Obj) -> Obj:
    return beneath(obj, ("spec", "parameters"), defaults_of({"scope": "Cluster"}))


def _network_policy(obj: Obj) -> Obj:
    """Without policyTypes it is about ingress, and about egress if it has rules for that."""

    def fill(spec: dict[str, Any]) -> dict[str, Any]:
        if spec.get("policyTypes"):
            return spec
        return {**spec, "policyTypes": ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]}

    return within(obj, "spec", fill)


KINDS: dict[str, Fill] = {
    "Service": _service,
    "Endpoints": _endpoints,
    "EndpointSlice": _endpoint_slice,
    "IngressClass": _ingress_class,
    "NetworkPolicy": _network_policy,
}
