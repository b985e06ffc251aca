"""Which pods the selectors of network policies select, kept from call to call.

A pod is looked at again when it or its namespace has changed, by the selectors alone that its labels may
matter to; a selector when it is new. Equal selectors are one, whoever wrote them.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from msgspec import Struct, field

from nsk8s.api.types import Labels, LabelSelector, Pod

PodKey = tuple[str, str]
"""Namespace and name."""
Named = tuple[str, str]
"""The name of a container's port, and its protocol."""


class Term(NamedTuple):
    """One requirement: the label `key`, an operator of LabelSelector, the values it is about."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()


class Scope(NamedTuple):
    """Pods that are meant: those of `namespace`, or (empty) of the namespaces whose labels meet
    `namespaces`; of these the ones whose own labels meet `pods`."""

    namespace: str
    namespaces: tuple[Term, ...]
    pods: tuple[Term, ...]

    @property
    def name(self) -> str:
        """A short name, derived from all of it."""
        return _name(self)

    def __str__(self) -> str:
        of = f"namespace {self.namespace}" if self.namespace else f"namespaces {_said(self.namespaces)}"
        return f"{of}, pods {_said(self.pods)}"


@lru_cache(1 << 14)
def _name(scope: Scope) -> str:
    said = [[*term[:2], *sorted(term.values)] for part in scope[1:] for term in (*part, Term("", ""))]
    return short(repr((scope.namespace, said)))


def short(text: str) -> str:
    """Eight characters for a text, as kube-proxy makes them."""
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:8]


def terms(selector: LabelSelector | None) -> tuple[Term, ...]:
    """A selector's requirements in a fixed order; none mean everything."""
    if selector is None:
        return ()
    found = [Term(key, "In", frozenset((value,))) for key, value in (selector.matchLabels or {}).items()]
    found += [Term(r.key, r.operator, frozenset(r.values or ())) for r in selector.matchExpressions or ()]
    return tuple(sorted(set(found), key=lambda term: (term.key, term.operator, sorted(term.values))))


def met(wanted: tuple[Term, ...], labels: Mapping[str, str]) -> bool:
    """Whether labels meet all requirements."""
    for key, operator, values in wanted:
        value = labels.get(key)
        if operator == "In":
            good = value in values
        elif operator == "NotIn":
            good = value not in values
        else:
            good = (value is not None) is (operator == "Exists")
        if not good:
            return False
    return True


def _said(wanted: tuple[Term, ...]) -> str:
    words = []
    for key, operator, values in wanted:
        match operator:
            case "In" if len(values) == 1:
                words.append(f"{key}={next(iter(values))}")
            case "In" | "NotIn":
                words.append(f"{key} {operator.lower()} ({','.join(sorted(values))})")
            case _:
                words.append(key if operator == "Exists" else f"!{key}")
    return " ".join(words) or "all"


class Member(Struct, eq=False):
    """A pod, the scopes that it is in, and the ports of its containers by their names."""

    pod: Pod
    addresses: tuple[str, ...]
    ports: Mapping[Named, tuple[int, ...]]
    scopes: frozenset[Scope] = frozenset()

    @property
    def key(self) -> PodKey:
        """Namespace and name of the pod."""
        return self.pod.metadata.namespace, self.pod.metadata.name


class Changes(Struct):
    """What a refresh has found to be different: the nodes whose pods are others, the members of scopes, the
    ports with a name; and by node the scopes that its pods have entered or left."""

    nodes: set[str] = field(default_factory=set)
    scopes: set[Scope] = field(default_factory=set)
    ports: set[Named] = field(default_factory=set)
    moved: dict[str, set[Scope]] = field(default_factory=dict)


class Selections:
    """The members of scopes."""

    def __init__(self) -> None:
        self.members: dict[PodKey, Member] = {}
        self.of_scope: dict[Scope, dict[PodKey, Member]] = {}
        self.of_name: dict[Named, dict[PodKey, Member]] = {}
        self._by_label: dict[tuple[str, str, str], dict[Scope, None]] = {}
        self._namespaces: dict[str, Labels] = {}

    def refresh(
        self, scopes: Iterable[Scope], namespaces: Mapping[str, Labels], pods: Iterable[Pod]
    ) -> Changes:
        """Take in what is wanted (`scopes`) and what there is; tells what is different from last time."""
        changes = Changes()
        wanted = set(scopes)
        for scope in self.of_scope.keys() - wanted:
            self._unfile(scope)
            changes.scopes.add(scope)
        fresh = frozenset(wanted - self.of_scope.keys())
        for scope in fresh:
            self.of_scope[scope] = {}
            self._by_label.setdefault(_place(scope), {})[scope] = None
        turned = {
            name: fresh.union(self._turned(self._namespaces.get(name, {}), namespaces.get(name, {})))
            for name in namespaces.keys() | self._namespaces.keys()
            if namespaces.get(name) != self._namespaces.get(name)
        }
        self._namespaces = dict(namespaces)
        there: dict[PodKey, Pod] = {(p.metadata.namespace, p.metadata.name): p for p in pods}
        for key in [key for key in self.members if key not in there]:
            self._leave(self.members.pop(key), changes)
        for key, pod in there.items():
            member = self.members.get(key)
            if member is None or member.pod is not pod:
                if member is not None:
                    self._leave(member, changes)
                member = self.members[key] = Member(pod, pod.status.ips, _ports(pod))
                self._move(member, self._scopes(member), changes)
                changes.nodes.add(pod.spec.nodeName)
                self._name(member, changes)
            elif asked := turned.get(key[0], fresh):
                held = (scope for scope in asked if self._holds(scope, pod))
                self._move(member, (member.scopes - asked).union(held), changes)
        return changes

    def _unfile(self, scope: Scope) -> None:
        for member in self.of_scope.pop(scope).values():
            member.scopes -= {scope}
        place = _place(scope)
        del self._by_label[place][scope]
        if not self._by_label[place]:
            del self._by_label[place]

    def _scopes(self, member: Member) -> frozenset[Scope]:
        meta = member.pod.metadata
        return frozenset(
            scope
            for space in (meta.namespace, "")
            for label, value in (("", ""), *meta.labels.items())
            for scope in self._by_label.get((space, label, value), ())
            if self._holds(scope, member.pod)
        )

    def _holds(self, scope: Scope, pod: Pod) -> bool:
        meta = pod.metadata
        if scope.namespace:
            there = scope.namespace == meta.namespace
        else:
            there = met(scope.namespaces, self._namespaces.get(meta.namespace, {}))
        return there and met(scope.pods, meta.labels)

    def _turned(self, before: Labels, now: Labels) -> Iterator[Scope]:
        """The scopes that a namespace meets with one of two sets of labels only."""
        for scope in self.of_scope:
            if not scope.namespace and met(scope.namespaces, before) != met(scope.namespaces, now):
                yield scope

    def _move(self, member: Member, scopes: frozenset[Scope], changes: Changes) -> None:
        left, entered = member.scopes - scopes, scopes - member.scopes
        if not left and not entered:
            return
        for scope in left:
            del self.of_scope[scope][member.key]
        for scope in entered:
            self.of_scope[scope][member.key] = member
        member.scopes = scopes
        changes.scopes |= left | entered
        changes.moved.setdefault(member.pod.spec.nodeName, set()).update(left, entered)

    def _leave(self, member: Member, changes: Changes) -> None:
        self._move(member, frozenset(), changes)
        changes.nodes.add(member.pod.spec.nodeName)
        for name in member.ports:
            del self.of_name[name][member.key]
            changes.ports.add(name)
            if not self.of_name[name]:
                del self.of_name[name]

    def _name(self, member: Member, changes: Changes) -> None:
        for name in member.ports:
            self.of_name.setdefault(name, {})[member.key] = member
            changes.ports.add(name)


def _place(scope: Scope) -> tuple[str, str, str]:
    """Under which label of the pods a scope is filed: one that it asks for, if there is one."""
    for key, operator, values in scope.pods:
        if operator == "In" and len(values) == 1:
            return scope.namespace, key, next(iter(values))
    return scope.namespace, "", ""


def _ports(pod: Pod) -> Mapping[Named, tuple[int, ...]]:
    """The named ports of containers and of sidecars."""
    found: dict[Named, tuple[int, ...]] = {}
    for container in (*pod.spec.containers, *pod.spec.initContainers):
        if container in pod.spec.initContainers and container.restartPolicy != "Always":
            continue
        for port in container.ports:
            if port.name:
                name = (port.name, port.protocol)
                found[name] = (*found.get(name, ()), port.containerPort)
    return found


def rows(members: Mapping[PodKey, Member], wanted: int) -> Iterator[tuple[str, Member]]:
    """The addresses of one family, with whose they are, in the order of the pods."""
    for _, member in sorted(members.items()):
        for address in member.addresses:
            if (6 if ":" in address else 4) == wanted:
                yield address, member
