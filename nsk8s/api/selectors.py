"""Selecting objects by labels and by fields.

`parse` reads the grammar of ``kubectl -l`` (apimachinery's `labels.Parse`): ``a=b,c!=d,e in (f,g),!h,i``;
`fields` that of ``--field-selector``; `matches` evaluates the LabelSelector of a spec. Texts that make no
sense raise `ApiError` 400 BadRequest, as the API server answers them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nsk8s.api import names
from nsk8s.api.types import LabelSelector, Obj, Requirement
from nsk8s.errors import ApiError

OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
"""Of a LabelSelector; `parse` knows Gt and Lt as well."""

_NUMBER = re.compile(r"-?[0-9]+").fullmatch
_TOKEN = re.compile(r"\s*(==|!=|[=!(),<>]|[^\s=!(),<>]+)")


def holds(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    """Whether `labels` meet one requirement. An absent key meets NotIn and DoesNotExist only."""
    value = labels.get(requirement.key)
    wanted = requirement.values or ()
    match requirement.operator:
        case "In":
            return value in wanted
        case "NotIn":
            return value not in wanted
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" if value is not None and _NUMBER(value):
            return (
                int(value) > int(wanted[0]) if requirement.operator == "Gt" else int(value) < int(wanted[0])
            )
    return False


def matches(selector: LabelSelector | None, labels: Mapping[str, str]) -> bool:
    """Whether a spec's selector selects `labels`. None selects nothing, an empty one everything."""
    if selector is None:
        return False
    return all(labels.get(k) == v for k, v in (selector.matchLabels or {}).items()) and all(
        holds(requirement, labels) for requirement in selector.matchExpressions or ()
    )


@dataclass(frozen=True, slots=True)
class Selector:
    """A parsed ``-l``: all of its requirements must hold; none select everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Whether it selects an object with these labels."""
        return all(holds(requirement, labels or {}) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(map(_text, self.requirements))


def _text(r: Requirement) -> str:
    values = r.values or ()
    match r.operator:
        case "Exists":
            return r.key
        case "DoesNotExist":
            return f"!{r.key}"
        case "Gt" | "Lt":
            return f"{r.key}{'>' if r.operator == 'Gt' else '<'}{values[0]}"
    if len(values) == 1:
        return f"{r.key}{'=' if r.operator == 'In' else '!='}{values[0]}"
    return f"{r.key} {'in' if r.operator == 'In' else 'notin'} ({','.join(values)})"


def parse(text: str) -> Selector:
    """The selector that `text` means. Raises `ApiError` 400."""
    return _Parser(text).selector()


def _refused(text: str, why: str) -> ApiError:
    return ApiError(400, "BadRequest", f'unable to parse requirement: {why} (in selector "{text}")')


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _TOKEN.findall(text)
        self.position = 0

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self.position += 1
        return token

    def selector(self) -> Selector:
        found: list[Requirement] = []
        while self.peek():
            found.append(self.requirement())
            if (token := self.next()) and token != ",":
                raise _refused(self.text, f"found '{token}', expected: ',' or the end")
            if token == "," and not self.peek():
                raise _refused(self.text, "found the end, expected: a key after ','")
        return Selector(tuple(found))

    def requirement(self) -> Requirement:
        if self.peek() == "!":
            self.next()
            return Requirement(self.key(), "DoesNotExist")
        key = self.key()
        match self.peek():
            case "" | ",":
                return Requirement(key, "Exists")
            case "=" | "==" | "!=" as operator:
                self.next()
                return Requirement(key, "NotIn" if operator == "!=" else "In", (self.value(),))
            case "<" | ">" as operator:
                self.next()
                value = self.value()
                if not _NUMBER(value):
                    raise _refused(self.text, f"for '{operator}' the value must be an integer, not '{value}'")
                return Requirement(key, "Gt" if operator == ">" else "Lt", (value,))
            case "in" | "notin" as operator:
                self.next()
                return Requirement(key, "In" if operator == "in" else "NotIn", self.values())
            case token:
                raise _refused(
                    self.text, f"found '{token}', expected: in, notin, =, ==, !=, >, <, ',' or the end"
                )

    def key(self) -> str:
        key = self.next()
        if wrong := names.label_key("" if key in ("=", "==", "!=", "(", ")", ",", "<", ">", "!") else key):
            raise _refused(self.text, f"key '{key}': {wrong}")
        return key

    def value(self) -> str:
        if self.peek() in ("", ","):
            return ""  # "a=" asks for the empty value
        value = self.next()
        if wrong := names.label_value(value):
            raise _refused(self.text, f"value '{value}': {wrong}")
        return value

    def values(self) -> tuple[str, ...]:
        if (token := self.next()) != "(":
            raise _refused(self.text, f"found '{token}', expected: '('")
        found = [self._listed()]
        while (token := self.next()) == ",":
            found.append(self._listed())
        if token != ")":
            raise _refused(self.text, f"found '{token}', expected: ',' or ')'")
        return tuple(dict.fromkeys(found))

    def _listed(self) -> str:
        return "" if self.peek() in (",", ")") else self.value()


# --- by field ---------------------------------------------------------------------------------------

FIELDS: Mapping[str, tuple[str, ...]] = {
    "pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    "nodes": ("spec.unschedulable",),
    "namespaces": ("status.phase",),
    "services": ("spec.clusterIP", "spec.type"),
    "secrets": ("type",),
    "replicasets.apps": ("status.replicas",),
    "events": (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
}
"""What can be selected by, by group-resource, beside metadata.name and metadata.namespace."""


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """A parsed ``--field-selector``: (path, equal, value) terms, all of which must hold."""

    terms: tuple[tuple[str, bool, str], ...] = ()

    def matches(self, obj: Obj) -> bool:
        """Whether it selects `obj`. An absent field counts as empty."""
        return all((_field(obj, path) == value) is equal for path, equal, value in self.terms)


def _field(obj: Obj, path: str) -> str:
    value: object = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        # booleans that are left out are false
        return "false" if path in ("spec.unschedulable", "spec.hostNetwork") else ""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def fields(text: str, resource: str = "") -> FieldSelector:
    """The field selector that `text` means: ``spec.nodeName=w1,status.phase!=Running``; a backslash
    escapes a comma, an equals sign or itself. With `resource` (a group-resource) given, fields that
    Kubernetes cannot select by are refused. Raises `ApiError` 400."""
    terms = []
    for term in re.findall(r"(?:\\.|[^,\\])+", text, re.DOTALL):
        found = re.fullmatch(r"\s*([^=!\\\s]+)\s*(==|!=|=)((?:\\[\\,=]|[^\\=])*)", term, re.DOTALL)
        if found is None:
            raise ApiError(400, "BadRequest", f"invalid selector: '{text}'; can't understand '{term}'")
        path, operator, value = found.groups()
        known = ("metadata.name", "metadata.namespace", *FIELDS.get(resource, ()))
        if resource and path not in known:
            raise ApiError(
                400,
                "BadRequest",
                f'"{path}" is not a known field selector: only {", ".join(f"{k!r}" for k in known)}',
            )
        terms.append((path, operator != "!=", re.sub(r"\\(.)", r"\1", value).strip()))
    return FieldSelector(tuple(terms))
