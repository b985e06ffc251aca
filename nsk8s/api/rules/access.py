"""Roles and their bindings (`pkg/apis/rbac/validation`)."""

from __future__ import annotations

from nsk8s.api import names
from nsk8s.api.findings import Findings
from nsk8s.api.rules.rule import AnyObject, Rule, frozen
from nsk8s.api.types import Obj, Struct

GROUP = "rbac.authorization.k8s.io"


class PolicyRule(Struct, frozen=True):
    """A PolicyRule."""

    verbs: tuple[str, ...] = ()
    apiGroups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    resourceNames: tuple[str, ...] = ()
    nonResourceURLs: tuple[str, ...] = ()


class Role(AnyObject, frozen=True):
    """A Role."""

    rules: tuple[PolicyRule, ...] = ()


class ClusterRole(Role, frozen=True):
    """A ClusterRole."""


class RoleRef(Struct, frozen=True):
    """A RoleRef."""

    apiGroup: str = GROUP
    kind: str = ""
    name: str = ""


class Subject(Struct, frozen=True):
    """A Subject."""

    kind: str = ""
    name: str = ""
    namespace: str = ""
    apiGroup: str | None = None


class RoleBinding(AnyObject, frozen=True):
    """A RoleBinding."""

    roleRef: RoleRef = RoleRef()
    subjects: tuple[Subject, ...] = ()


class ClusterRoleBinding(RoleBinding, frozen=True):
    """A ClusterRoleBinding."""


def _role(view: Role, findings: Findings) -> None:
    for i, rule in enumerate(view.rules):
        at = f"rules[{i}]"
        if not rule.verbs:
            findings.required(f"{at}.verbs", "verbs must contain at least one value")
        if rule.nonResourceURLs:
            urls = list(rule.nonResourceURLs)
            if not isinstance(view, ClusterRole):
                why = "namespaced rules cannot apply to non-resource URLs"
                findings.invalid(f"{at}.nonResourceURLs", urls, why)
            if rule.apiGroups or rule.resources or rule.resourceNames:
                why = "rules cannot apply to both regular resources and non-resource URLs"
                findings.invalid(f"{at}.nonResourceURLs", urls, why)
            continue
        if not rule.apiGroups:
            why = "resource rules must supply at least one api group"
            findings.required(f"{at}.apiGroups", why, 'the core group is ""')
        if not rule.resources:
            findings.required(f"{at}.resources", "resource rules must supply at least one resource")


def _binding(view: RoleBinding, findings: Findings) -> None:
    cluster = isinstance(view, ClusterRoleBinding)
    role = view.roleRef
    findings.one_of("roleRef.apiGroup", role.apiGroup, (GROUP,))
    findings.one_of("roleRef.kind", role.kind, ("ClusterRole",) if cluster else ("Role", "ClusterRole"))
    if not role.name:
        findings.required("roleRef.name")
    elif wrong := names.path_segment(role.name):
        findings.invalid("roleRef.name", role.name, wrong)
    for i, subject in enumerate(view.subjects):
        _subject(subject, f"subjects[{i}]", findings, cluster=cluster)


def _subject(subject: Subject, at: str, findings: Findings, *, cluster: bool) -> None:
    if not subject.name:
        findings.required(f"{at}.name")
    if subject.kind == "ServiceAccount":
        if subject.name:
            findings.name(f"{at}.name", subject.name, names.subdomain(subject.name))
        if subject.apiGroup:
            findings.one_of(f"{at}.apiGroup", subject.apiGroup, ("",))
        if cluster and not subject.namespace:
            findings.required(f"{at}.namespace")
    elif subject.kind in ("User", "Group"):
        if not subject.name:
            findings.invalid(f"{at}.name", "", f"{subject.kind.lower()} name cannot be empty")
        if subject.apiGroup is not None:
            findings.one_of(f"{at}.apiGroup", subject.apiGroup, (GROUP,))
    else:
        findings.one_of(f"{at}.kind", subject.kind, ("ServiceAccount", "User", "Group"))


def _binding_update(old: Obj, new: Obj, findings: Findings) -> None:
    frozen(old, new, "roleRef", findings, "cannot change roleRef")


RULES: dict[str, Rule] = {
    "Role": Rule(Role, _role, names.path_segment),
    "ClusterRole": Rule(ClusterRole, _role, names.path_segment),
    "RoleBinding": Rule(RoleBinding, _binding, names.path_segment, _binding_update),
    "ClusterRoleBinding": Rule(ClusterRoleBinding, _binding, names.path_segment, _binding_update),
}
