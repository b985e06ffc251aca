"""The CustomResourceDefinitions that every cluster begins with, as a cluster's installer would apply them.

`CLUSTER_NETWORK_POLICY` is the standard channel of network-policy-api v0.2.0
(policy.networking.k8s.io/v1alpha2), with all that it checks: pods, namespaces and networks as peers, ports by
number and range. Its experimental fields (nodes, domainNames, destinationNamedPort) are no part of that.
"""

from __future__ import annotations

from typing import Any

from nsk8s.api.openapi import Schema, structural
from nsk8s.api.types import Obj

Properties = dict[str, Any]


def _object(properties: Properties, *required: str, **more: object) -> Obj:
    needed = {"required": list(required)} if required else {}
    return {"type": "object", "properties": properties, **needed, **more}


def _list(items: Obj, least: int | None, most: int | None, **more: object) -> Obj:
    bounds = {"minItems": least, "maxItems": most}
    return {
        "type": "array",
        "items": items,
        **{k: v for k, v in bounds.items() if v is not None},
        **more,
    }


def _one_of(properties: Properties) -> Obj:
    """An object with exactly one of its fields."""
    return _object(properties, minProperties=1, maxProperties=1)


def _checked(schema: Obj, rule: str, message: str) -> Obj:
    return {**schema, "x-kubernetes-validations": [{"rule": rule, "message": message}]}


_TEXT: Obj = {"type": "string"}
_ATOMIC = {"x-kubernetes-list-type": "atomic"}
_PORT_NUMBER: Obj = {"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535}
_SELECTOR: Obj = _object(
    {
        "matchLabels": {"type": "object", "additionalProperties": _TEXT},
        "matchExpressions": _list(
            _object(
                {"key": _TEXT, "operator": _TEXT, "values": _list(_TEXT, None, None, **_ATOMIC)},
                "key",
                "operator",
            ),
            None,
            None,
            **_ATOMIC,
        ),
    },
    **{"x-kubernetes-map-type": "atomic"},
)
_PODS = _object({"namespaceSelector": _SELECTOR, "podSelector": _SELECTOR}, "podSelector")
_CIDR = _checked({"type": "string", "maxLength": 43}, "isCIDR(self)", "Invalid CIDR format provided")
_NETWORKS = _list(_CIDR, 1, 25, **{"x-kubernetes-list-type": "set"})
_RANGE = _checked(
    _object({"start": _PORT_NUMBER, "end": _PORT_NUMBER}, "start", "end"),
    "self.start < self.end",
    "Start port must be less than End port",
)
_PORT = _object({"destinationPort": _one_of({"number": _PORT_NUMBER, "range": _RANGE})}, minProperties=1)


def _rules(side: str, peer: Properties) -> Obj:
    rule = _object(
        {
            "name": {"type": "string", "maxLength": 100},
            "action": {"type": "string", "enum": ["Accept", "Deny", "Pass"]},
            side: _list(_one_of(peer), 1, 25),
            "protocols": _list(_one_of({"tcp": _PORT, "udp": _PORT, "sctp": _PORT}), 1, 25),
        },
        "action",
        side,
    )
    return _list(rule, None, 25)


_PEER: Properties = {"namespaces": _SELECTOR, "pods": _PODS}
_SPEC = _object(
    {
        "tier": {"type": "string", "enum": ["Admin", "Baseline"]},
        "priority": {"type": "integer", "format": "int32", "minimum": 0, "maximum": 1000},
        "subject": _one_of(_PEER),
        "ingress": _rules("from", _PEER),
        "egress": _rules("to", {**_PEER, "networks": _NETWORKS}),
    },
    "priority",
    "subject",
    "tier",
)
_CONDITION = _object(
    {
        "type": {**_TEXT, "maxLength": 316},
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        "lastTransitionTime": {"type": "string", "format": "date-time"},
        "reason": {"type": "string", "minLength": 1, "maxLength": 1024},
        "message": {"type": "string", "maxLength": 32768},
    },
    *("lastTransitionTime", "message", "reason", "status", "type"),
)
_CONDITIONS = _list(
    _CONDITION, None, None, **{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
)
_SCHEMA = _object(
    {
        "apiVersion": _TEXT,
        "kind": _TEXT,
        "metadata": {"type": "object"},
        "spec": _SPEC,
        "status": _object({"conditions": _CONDITIONS}, "conditions"),
    },
    "metadata",
    "spec",
)

CLUSTER_NETWORK_POLICY: Obj = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "clusternetworkpolicies.policy.networking.k8s.io",
        "annotations": {
            "api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/network-policy-api/pull/300",
            "policy.networking.k8s.io/bundle-version": "v0.2.0",
            "policy.networking.k8s.io/channel": "standard",
        },
    },
    "spec": {
        "group": "policy.networking.k8s.io",
        "names": {
            "kind": "ClusterNetworkPolicy",
            "listKind": "ClusterNetworkPolicyList",
            "plural": "clusternetworkpolicies",
            "shortNames": ["cnp"],
            "singular": "clusternetworkpolicy",
        },
        "scope": "Cluster",
        "versions": [
            {
                "name": "v1alpha2",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": _SCHEMA},
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": "Tier", "type": "string", "jsonPath": ".spec.tier"},
                    {"name": "Priority", "type": "string", "jsonPath": ".spec.priority"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
            }
        ],
    },
}
BUNDLED: tuple[Obj, ...] = (CLUSTER_NETWORK_POLICY,)


def schema_of(name: str) -> Schema | None:
    """The schema of the custom resource `name`, if its definition is one of these."""
    for crd in BUNDLED:
        if crd["metadata"]["name"] == name:
            return structural(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    return None
