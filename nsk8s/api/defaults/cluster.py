"""Namespaces, secrets, roles, classes, and what extends the API."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from nsk8s.api.defaults.fill import Fill, beneath, defaults_of, filled, within
from nsk8s.api.types import Obj

RBAC = "rbac.authorization.k8s.io"


def _namespace(obj: Obj) -> Obj:
    """Every namespace carries its name as a label, for the namespaceSelectors of policies."""
    meta = obj.get("metadata")
    if type(meta) is not dict or type(meta.get("labels", {})) is not dict or "name" not in meta:
        return obj
    labels = {**meta.get("labels", {}), "kubernetes.io/metadata.name": meta["name"]}
    return {**obj, "metadata": {**meta, "labels": labels}}


def _secret(obj: Obj) -> Obj:
    """`stringData` is written and never read: it becomes `data`."""
    texts, data = obj.get("stringData"), obj.get("data", {})
    if type(texts) is dict and type(data) is dict and all(type(text) is str for text in texts.values()):
        encoded = {key: b64encode(text.encode()).decode() for key, text in texts.items()}
        obj = {key: value for key, value in obj.items() if key != "stringData"}
        if data or encoded:
            obj["data"] = {**data, **encoded}
    return filled(obj, {"type": "Opaque"}) if obj.get("type") != "" else {**obj, "type": "Opaque"}


def _binding(obj: Obj) -> Obj:
    def subject(one: dict[str, Any]) -> dict[str, Any]:
        return filled(one, {"apiGroup": RBAC}) if one.get("kind") in ("User", "Group") else one

    return within(within(obj, "roleRef", defaults_of({"apiGroup": RBAC})), "subjects", subject)


_WEBHOOK = {
    "failurePolicy": "Fail",
    "matchPolicy": "Equivalent",
    "namespaceSelector": {},
    "objectSelector": {},
    "timeoutSeconds": 10,
}


def _webhooks(more: dict[str, Any]) -> Fill:
    def webhook(one: dict[str, Any]) -> dict[str, Any]:
        return beneath(filled(one, _WEBHOOK | more), ("clientConfig", "service"), defaults_of({"port": 443}))

    return lambda obj: within(obj, "webhooks", webhook)


def _api_service(obj: Obj) -> Obj:
    return beneath(obj, ("spec", "service"), defaults_of({"port": 443}))


_MATCH = {"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}}


def _admission_policy(obj: Obj) -> Obj:
    new = within(obj, "spec", defaults_of({"failurePolicy": "Fail"}))
    return beneath(new, ("spec", "matchConstraints"), defaults_of(_MATCH))


def _admission_binding(obj: Obj) -> Obj:
    return beneath(obj, ("spec", "matchResources"), defaults_of(_MATCH))


def _flow_schema(obj: Obj) -> Obj:
    return within(obj, "spec", defaults_of({"matchingPrecedence": 1000}))


def _priority_level(obj: Obj) -> Obj:
    shares = {"nominalConcurrencyShares": 30, "lendablePercent": 0}
    queues = {"queues": 64, "handSize": 8, "queueLengthLimit": 50}
    new = beneath(obj, ("spec", "limited"), defaults_of(shares))
    return beneath(new, ("spec", "limited", "limitResponse", "queuing"), defaults_of(queues))


KINDS: dict[str, Fill] = {
    "Namespace": _namespace,
    "Secret": _secret,
    "RoleBinding": _binding,
    "ClusterRoleBinding": _binding,
    "PriorityClass": defaults_of({"preemptionPolicy": "PreemptLowerPriority"}),
    "ValidatingWebhookConfiguration": _webhooks({}),
    "MutatingWebhookConfiguration": _webhooks({"reinvocationPolicy": "Never"}),
    "ValidatingAdmissionPolicy": _admission_policy,
    "ValidatingAdmissionPolicyBinding": _admission_binding,
    "APIService": _api_service,
    "FlowSchema": _flow_schema,
    "PriorityLevelConfiguration": _priority_level,
}
