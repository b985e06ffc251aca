"""What a request may say in an object's metadata, and what stays as it is (apimachinery's
`ValidateObjectMetaUpdate`, and what `rest.BeforeCreate` and `BeforeUpdate` put right before it)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nsk8s.api.findings import Findings
from nsk8s.errors import Problem

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""Annotation with what the last client-side ``kubectl apply`` said."""

SERVER_FIELDS = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
)
"""Fields that are the server's."""

WITHOUT_GENERATION = frozenset(
    (
        "apiservices.apiregistration.k8s.io",
        "clusterrolebindings.rbac.authorization.k8s.io",
        "clusterroles.rbac.authorization.k8s.io",
        "configmaps",
        "controllerrevisions.apps",
        "csinodes.storage.k8s.io",
        "endpoints",
        "events",
        "horizontalpodautoscalers.autoscaling",
        "ipaddresses.networking.k8s.io",
        "leases.coordination.k8s.io",
        "limitranges",
        "namespaces",
        "nodes",
        "persistentvolumeclaims",
        "persistentvolumes",
        "podtemplates",
        "priorityclasses.scheduling.k8s.io",
        "resourcequotas",
        "rolebindings.rbac.authorization.k8s.io",
        "roles.rbac.authorization.k8s.io",
        "secrets",
        "serviceaccounts",
        "services",
        "volumeattachments.storage.k8s.io",
    )
)
"""Kinds whose specs nobody numbers: their strategies (pkg/registry) leave metadata.generation alone."""

Meta = dict[str, Any]


def wanted(meta: Mapping[str, Any]) -> Meta:
    """What a client says of an object that is new: all but the server's fields."""
    return {name: value for name, value in meta.items() if name not in SERVER_FIELDS}


def changed(meta: Mapping[str, Any], stored: Mapping[str, Any]) -> tuple[Meta, list[Problem]]:
    """The metadata of an object that is replaced, its resourceVersion as it was given, and what may not
    be. A client that leaves out what is the server's means no harm; one that changes it is refused."""
    found = wanted(meta)
    for field in SERVER_FIELDS:
        if field in stored:
            found[field] = stored[field]
    if meta.get("resourceVersion"):
        found["resourceVersion"] = meta["resourceVersion"]
    findings = Findings()
    deleting = stored.get("deletionTimestamp")
    if deleting:
        new = set(meta.get("finalizers") or ()) - set(stored.get("finalizers") or ())
        if new:
            listed = ", ".join(f'"{one}"' for one in sorted(new))
            findings.forbidden(
                "metadata.finalizers",
                "no new finalizers can be added if the object is being deleted, found new finalizers "
                f"[]string{{{listed}}}",
            )
    immutable = ["uid"]
    if not deleting:
        immutable.append("deletionTimestamp")
    if "deletionGracePeriodSeconds" in meta:
        immutable.append("deletionGracePeriodSeconds")
    for field in immutable:
        given = meta.get(field)
        if given not in (None, "") and given != stored.get(field):
            findings.invalid(f"metadata.{field}", given, "field is immutable")
    return found, findings.problems
