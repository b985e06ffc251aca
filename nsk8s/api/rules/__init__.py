"""What must hold for the objects of each kind, as the API server's `pkg/apis/*/validation` has it.

Every rule takes a typed view, so types are right already, and adds to the `Findings` it is given. The
modules are read when one of their kinds is met first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module

from nsk8s.api.rules.rule import Rule

_MODULES: Mapping[str, Iterable[str]] = {
    "pods": ("Pod", "PodTemplate"),
    "workloads": ("Deployment", "ReplicaSet"),
    "controllers": ("DaemonSet", "StatefulSet", "ReplicationController"),
    "jobs": ("Job", "CronJob"),
    "services": ("Service", "Endpoints", "EndpointSlice"),
    "networking": ("Ingress", "IngressClass", "NetworkPolicy"),
    "configuration": ("ConfigMap", "Secret", "ServiceAccount"),
    "access": ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"),
    "policies": ("PodDisruptionBudget", "HorizontalPodAutoscaler"),
    "storage": ("PersistentVolume", "PersistentVolumeClaim", "StorageClass"),
    "cluster": ("Node", "Namespace", "ResourceQuota", "LimitRange", "Lease", "PriorityClass", "Event"),
    "definitions": ("CustomResourceDefinition",),
}
_MODULE_OF = {kind: module for module, kinds in _MODULES.items() for kind in kinds}


@cache
def rule_of(kind: str) -> Rule | None:
    """The rule of a built-in kind; None if it has none."""
    module = _MODULE_OF.get(kind)
    if module is None:
        return None
    rules: dict[str, Rule] = import_module(f"{__name__}.{module}").RULES
    return rules[kind]
