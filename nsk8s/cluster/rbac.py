"""Role-based access control: who may do what, by Roles, ClusterRoles and their bindings.

Evaluation is kube-apiserver's RBAC authorizer (pkg/apis/rbac/v1/evaluation_helpers.go, pkg/registry/rbac/
validation): rules only ever allow. Bindings are kept by subject, so that a request costs what is bound to its
user and groups and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from nsk8s.api.types import Obj
from nsk8s.cluster.store import Change, Cursor, Key, Store, key_of

API_GROUP = "rbac.authorization.k8s.io"
ROLES = f"roles.{API_GROUP}"
CLUSTER_ROLES = f"clusterroles.{API_GROUP}"
ROLE_BINDINGS = f"rolebindings.{API_GROUP}"
CLUSTER_ROLE_BINDINGS = f"clusterrolebindings.{API_GROUP}"
KINDS = (ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS)

MASTERS = "system:masters"
"""The group that may do everything, whatever the roles say."""
SERVICE_ACCOUNT = "system:serviceaccount:"
"""How the user name of a service account begins; then ``NAMESPACE:NAME``."""


class Attributes(Struct, frozen=True):
    """What somebody wants: a `verb` on a resource, or on a `path` that is none (then `resource` is empty).
    `namespace` is empty for cluster-scoped objects and for all namespaces."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def combined(self) -> str:
        """``pods/log``."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


class Rule(Struct, frozen=True):
    """A PolicyRule."""

    verbs: frozenset[str]
    groups: frozenset[str]
    resources: frozenset[str]
    names: frozenset[str]
    paths: frozenset[str]

    @classmethod
    def of(cls, rule: Mapping[str, Any]) -> Rule:
        """From an object's rule."""
        fields = ("verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs")
        return cls(*(_words(rule.get(field)) for field in fields))

    def allows(self, wanted: Attributes) -> bool:
        """Whether this rule alone allows it."""
        if not _in(wanted.verb, self.verbs):
            return False
        if not wanted.resource:
            return self.covers_path(wanted.path)
        return (
            _in(wanted.group, self.groups)
            and self.covers_resource(wanted.combined, wanted.subresource)
            and (not self.names or wanted.name in self.names)
        )

    def covers_resource(self, combined: str, subresource: str) -> bool:
        """Whether ``resources`` names a resource: itself, ``*``, or ``*/SUBRESOURCE``. (``pods/*`` names
        nothing, as in kube-apiserver.)"""
        return _in(combined, self.resources) or (bool(subresource) and f"*/{subresource}" in self.resources)

    def covers_path(self, path: str) -> bool:
        """Whether ``nonResourceURLs`` names a path: itself, ``*``, or a beginning with ``*`` after it."""
        if _in(path, self.paths):
            return True
        return any(known.endswith("*") and path.startswith(known.rstrip("*")) for known in self.paths)


def _words(value: object) -> frozenset[str]:
    """A list of strings; what is none grants nothing."""
    return (
        frozenset(word for word in value if isinstance(word, str)) if isinstance(value, list) else frozenset()
    )


def _in(value: str, values: frozenset[str]) -> bool:
    return value in values or "*" in values


class Binding(Struct, frozen=True):
    """A role bound to one subject; `says` is for people."""

    role: Key
    says: str


class Rbac:
    """The roles and bindings of one store, as they are now."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cursor = Cursor(store)
        self._bound: dict[tuple[str, str], dict[str, dict[Key, Binding]]] = {}
        self._rules: dict[Key, tuple[Rule, ...]] = {}

    def allowed(self, user: str, groups: Iterable[str], wanted: Attributes) -> tuple[bool, str]:
        """Whether `user`, being in `groups`, may do what is `wanted`, and why (or what is broken)."""
        groups = tuple(groups)
        if MASTERS in groups:
            return True, ""
        missing = []
        for binding, rules in self._bindings(user, groups, wanted.namespace):
            if rules is None:
                missing.append(_missing(binding))
            elif any(rule.allows(wanted) for rule in rules):
                return True, f"RBAC: allowed by {binding.says}"
        return False, f"RBAC: {_list(missing)}" if missing else ""

    def rules_for(self, user: str, groups: Iterable[str], namespace: str) -> tuple[list[Rule], str]:
        """Every rule that holds for a user in a namespace ("" for what is cluster-wide), and what is
        broken."""
        groups = tuple(groups)
        found = [EVERYTHING, EVERY_PATH] if MASTERS in groups else []
        missing = []
        for binding, rules in self._bindings(user, groups, namespace):
            if rules is None:
                missing.append(_missing(binding))
            else:
                found += [rule for rule in rules if rule not in found]
        return found, _list(missing) if missing else ""

    def rules_of(self, role: Key) -> tuple[Rule, ...] | None:
        """The rules of a role; None if there is no such role."""
        self._refresh()
        return self._compiled(role)

    def _bindings(
        self, user: str, groups: tuple[str, ...], namespace: str
    ) -> Iterator[tuple[Binding, tuple[Rule, ...] | None]]:
        self._refresh()
        subjects = [("User", user), *(("Group", group) for group in groups)]
        for where in ("", namespace) if namespace else ("",):
            for subject in subjects:
                for binding in self._bound.get(subject, _NOTHING).get(where, _NO_BINDINGS).values():
                    yield binding, self._compiled(binding.role)

    def _compiled(self, role: Key) -> tuple[Rule, ...] | None:
        found = self._rules.get(role)
        if found is None:
            obj = self._store.get(*role)
            if obj is None:
                return None
            found = self._rules[role] = tuple(Rule.of(rule) for rule in _mappings(obj.get("rules")))
        return found

    def _refresh(self) -> None:
        changes = self._cursor.read()
        if changes is None:
            self._bound, self._rules = {}, {}
            for resource in (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS):
                for obj in self._store.list(resource):
                    self._bind(key_of(resource, obj), obj)
            return
        for change in changes:
            if change.key.resource in KINDS:
                self._follow(change)

    def _follow(self, change: Change) -> None:
        if change.key.resource in (ROLES, CLUSTER_ROLES):
            self._rules.pop(change.key, None)
            return
        if change.old is not None:
            for subject in _subjects(change.key, change.old):
                self._bound[subject][change.key.namespace].pop(change.key, None)
        if change.type != "DELETED":
            self._bind(change.key, change.new)

    def _bind(self, key: Key, binding: Obj) -> None:
        reference = next(iter(_mappings([binding.get("roleRef")])), {})
        kind, name = str(reference.get("kind", "")), str(reference.get("name", ""))
        role = Key(ROLES, key.namespace, name) if kind == "Role" else Key(CLUSTER_ROLES, "", name)
        scope = (
            f'RoleBinding "{key.name}/{key.namespace}"'
            if key.namespace
            else f'ClusterRoleBinding "{key.name}"'
        )
        for subject, shown in _subjects(key, binding).items():
            found = Binding(role, f'{scope} of {kind} "{name}" to {shown}')
            self._bound.setdefault(subject, {}).setdefault(key.namespace, {})[key] = found


EVERYTHING = Rule.of({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})
EVERY_PATH = Rule.of({"verbs": ["*"], "nonResourceURLs": ["*"]})
_NOTHING: Mapping[str, dict[Key, Binding]] = {}
_NO_BINDINGS: Mapping[Key, Binding] = {}


def _subjects(key: Key, binding: Obj) -> dict[tuple[str, str], str]:
    """Who is bound: ("User" or "Group", name), and how that is said."""
    found: dict[tuple[str, str], str] = {}
    for subject in _mappings(binding.get("subjects")):
        kind, name = str(subject.get("kind", "")), str(subject.get("name", ""))
        if kind in ("User", "Group"):
            found[kind, name] = f'{kind} "{name}"'
        elif kind == "ServiceAccount":
            namespace = str(subject.get("namespace") or key.namespace)
            if namespace:
                found["User", f"{SERVICE_ACCOUNT}{namespace}:{name}"] = f'{kind} "{name}/{namespace}"'
    return found


def _mappings(value: object) -> list[Obj]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _missing(binding: Binding) -> str:
    kind = "clusterrole" if binding.role.resource == CLUSTER_ROLES else "role"
    return f'{kind}.{API_GROUP} "{binding.role.name}" not found'


def _list(errors: Sequence[str]) -> str:
    """Several errors as Go's aggregate shows them."""
    unique = list(dict.fromkeys(errors))
    return unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]"


# --- granting what one does not have ----------------------------------------------------------------


def uncovered(owned: Sequence[Rule], granted: Iterable[Rule]) -> list[Rule]:
    """The parts of `granted` that no rule of `owned` allows, each about one verb and one resource (with one
    name) or path (component-helpers' validation.Covers)."""
    return [part for rule in granted for part in _parts(rule) if not any(_covers(own, part) for own in owned)]


def _parts(rule: Rule) -> Iterator[Rule]:
    none: frozenset[str] = frozenset()
    for verb in sorted(rule.verbs):
        for group in sorted(rule.groups):
            for resource in sorted(rule.resources):
                for name in sorted(rule.names) or ("",):
                    names = frozenset((name,)) if name else none
                    yield Rule(frozenset((verb,)), frozenset((group,)), frozenset((resource,)), names, none)
        for path in sorted(rule.paths):
            yield Rule(frozenset((verb,)), none, none, none, frozenset((path,)))


def _covers(own: Rule, part: Rule) -> bool:
    if not all(_in(verb, own.verbs) for verb in part.verbs):
        return False
    if part.paths:
        return all(own.covers_path(path) for path in part.paths)
    return (
        all(_in(group, own.groups) for group in part.groups)
        and all(own.covers_resource(word, word.partition("/")[2]) for word in part.resources)
        and (not own.names or (bool(part.names) and part.names <= own.names))
    )


def compact(rules: Iterable[Rule]) -> list[str]:
    """Rules as a refusal shows them; those about the same thing are one, with all their verbs
    (rbac/v1helpers.CompactString)."""
    verbs: dict[tuple[frozenset[str], ...], set[str]] = {}
    for rule in rules:
        verbs.setdefault((rule.groups, rule.resources, rule.names, rule.paths), set()).update(rule.verbs)
    found = []
    for (groups, resources, names, paths), words in verbs.items():
        fields = {
            "APIGroups": groups,
            "Resources": resources,
            "ResourceNames": names,
            "NonResourceURLs": paths,
            "Verbs": frozenset(words),
        }
        texts = [f"{field}:[{_quoted(values)}]" for field, values in fields.items() if values]
        found.append("{" + ", ".join(texts) + "}")
    return sorted(found)


def _quoted(words: Iterable[str]) -> str:
    return " ".join(f'"{word}"' for word in sorted(words))
