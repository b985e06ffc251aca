"""Selecting objects by labels and by fields.

`parse` reads the grammar of ``kubectl -l`` (apimachinery's `labels.Parse`): ``a=b,c!=d,e in (f,g),!h,i``;
`fields` that of ``--field-selector``; `matches` evaluates the LabelSelector of a spec. Texts that make no
sense raise `ApiError` 400 BadRequest, as the API server answers them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

from nsk8s.api import names
from nsk8s.api.findings import shown
from nsk8s.api.types import LabelSelector, Obj, Requirement
from nsk8s.errors import ApiError

OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
"""Of a LabelSelector; `parse` knows Gt and Lt as well."""

_NUMBER = re.compile(r"-?[0-9]+").fullmatch
_TOKEN = re.compile(r"[ \t\r\n]*(==|!=|[=!(),<>]|[^ \t\r\n=!(),<>]+)")
_SYMBOLS = ("==", "!=", "=", "!", "(", ")", ",", "<", ">")
_OPERATORS = {"in": "In", "=": "In", "==": "In", "notin": "NotIn", "!=": "NotIn", ">": "Gt", "<": "Lt"}


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


class Selector(Struct, frozen=True):
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


def _refused(why: str) -> ApiError:
    return ApiError(400, "BadRequest", why)


def _invalid(path: str, value: str, wrong: str) -> ApiError:
    return _refused(f"unable to parse requirement: {path}: Invalid value: {shown(value)}: {wrong}")


class _Parser:
    """Recursive descent, in the steps of apimachinery's labels.Parser, so that it finds the same mistakes."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = _TOKEN.findall(text)
        self.position = 0

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self.position += 1
        return token

    def selector(self) -> Selector:
        found: list[Requirement] = []
        while token := self.peek():
            if token in _SYMBOLS and token != "!":
                raise _refused(f"found '{token}', expected: !, identifier, or 'end of string'")
            found.append(self.requirement())
            if (token := self.next()) not in (",", ""):
                raise _refused(f"found '{token}', expected: ',' or 'end of string'")
            after = self.peek()
            if token == "," and (not after or (after in _SYMBOLS and after != "!")):
                raise _refused(f"found '{after}', expected: identifier after ','")
        return Selector(tuple(found))

    def requirement(self) -> Requirement:
        absent = self.peek() == "!"
        if absent:
            self.next()
        key = self.identifier()
        if wrong := names.label_key(key):
            raise _invalid("<nil>", key, wrong)
        if self.peek() in ("", ","):
            return Requirement(key, "DoesNotExist" if absent else "Exists")
        if absent:
            return Requirement(key, "DoesNotExist")
        match operator := self.next():
            case "in" | "notin":
                values = self.values()
            case "=" | "==" | "!=" | "<" | ">":
                values = [self.value()]
            case _:
                raise _refused(
                    f"unable to parse requirement: found '{operator}', expected: in, notin, =, ==, !=, gt, lt"
                )
        for i, value in enumerate(values):
            if operator in "<>" and not _NUMBER(value):
                why = "for 'Gt', 'Lt' operators, the value must be an integer"
                raise _invalid(f"values[{i}]", value, why)
            if wrong := names.label_value(value):
                raise _invalid(f"values[{i}][{key}]", value, wrong)
        return Requirement(key, _OPERATORS[operator], tuple(values))

    def identifier(self) -> str:
        token = self.next()
        if not token or token in _SYMBOLS:
            raise _refused(f"unable to parse requirement: found '{token}', expected: identifier")
        return token

    def value(self) -> str:
        """What stands behind a sign: ``a=`` asks for the empty value."""
        return "" if self.peek() in ("", ",") else self.identifier()

    def values(self) -> list[str]:
        if (token := self.next()) != "(":
            raise _refused(f"unable to parse requirement: found '{token}' expected: '('")
        found = [self._listed()]
        while (token := self.next()) == ",":
            found.append(self._listed())
        if token != ")":
            raise _refused(f"unable to parse requirement: found '{token}', expected: ',' or ')'")
        return sorted(set(found))

    def _listed(self) -> str:
        return "" if self.peek() in (",", ")") else self.identifier()


# --- by field ---------------------------------------------------------------------------------------

_OF_EVENTS = tuple(
    f"involvedObject.{field}"
    for field in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
)


def _regarding(label: str) -> str:
    """As events.k8s.io/v1 calls it."""
    return label.replace("involvedObject", "regarding")


FIELDS: Mapping[str, tuple[str, ...]] = {
    "pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ),
    "nodes": ("spec.unschedulable",),
    "namespaces": ("status.phase",),
    "services": ("spec.clusterIP", "spec.type"),
    "secrets": ("type",),
    "replicationcontrollers": ("status.replicas",),
    "replicasets.apps": ("status.replicas",),
    "jobs.batch": ("status.successful",),
    "certificatesigningrequests.certificates.k8s.io": ("spec.signerName",),
    "events": (*_OF_EVENTS, "reason", "reportingComponent", "source", "type"),
    "events.events.k8s.io": (
        *map(_regarding, _OF_EVENTS),
        *("reason", "reportingController", "type"),
    ),
}
"""What can be selected by, by group-resource, beside metadata.name and metadata.namespace (upstream:
AddFieldLabelConversionFunc)."""

_WHERE: Mapping[str, tuple[str, ...]] = {
    "status.podIPs": ("status.podIP",),
    "status.successful": ("status.succeeded",),
    "source": ("source.component", "deprecatedSource.component", "reportingComponent", "reportingController"),
    "reportingComponent": ("reportingComponent", "reportingController"),
    **{label: (label, _regarding(label)) for label in _OF_EVENTS},
    **{_regarding(label): (_regarding(label), label) for label in _OF_EVENTS},
    "reportingController": ("reportingController", "reportingComponent"),
}
"""Where to look for a field whose label is not its path; the first that is there counts. Events are looked
at in either of their versions."""
_ABSENT: Mapping[str, str] = {
    "spec.unschedulable": "false",
    "spec.hostNetwork": "false",
    "status.replicas": "0",
    "status.successful": "0",
}
"""What a field is that has been left out, if not empty."""


class FieldSelector(Struct, frozen=True):
    """A parsed ``--field-selector``: (path, equal, value) terms, all of which must hold."""

    terms: tuple[tuple[str, bool, str], ...] = ()

    def matches(self, obj: Obj) -> bool:
        """Whether it selects `obj`. An absent field counts as empty."""
        return all((_field(obj, path) == value) is equal for path, equal, value in self.terms)


def _field(obj: Obj, label: str) -> str:
    for path in _WHERE.get(label, (label,)):
        value: object = obj
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, bool):
            return "true" if value else "false"
        if value is not None and value != "":
            return str(value)
    return _ABSENT.get(label, "")


def fields(text: str, resource: str = "", selectable: tuple[str, ...] | None = None) -> FieldSelector:
    """The field selector that `text` means: ``spec.nodeName=w1,status.phase!=Running``; a backslash
    escapes a comma, an equals sign or itself. With `resource` (a group-resource) given, fields that
    Kubernetes cannot select by are refused; those of a custom resource are `selectable`, because its
    definition says so (KEP-4358). Raises `ApiError` 400."""
    terms = []
    for term in filter(None, re.findall(r"(?:\\.|[^,\\]|\\$)*", text, re.DOTALL)):
        found = re.match(r"(.*?)(!=|==|=)", term, re.DOTALL)
        if found is None:
            raise _refused(f"invalid selector: '{text}'; can't understand '{term}'")
        label, operator = found.groups()
        if resource:
            _check_label(label, resource, selectable)
        terms.append((label, operator != "!=", _unescaped(term[found.end() :])))
    return FieldSelector(tuple(terms))


def _check_label(label: str, resource: str, selectable: tuple[str, ...] | None) -> None:
    own = FIELDS.get(resource) if selectable is None else selectable
    if label in ("metadata.name", "metadata.namespace", *(own or ())):
        return
    if resource == "jobs.batch":
        raise _refused(f"field label {shown(label)} not supported for batchv1.Job")
    if own is not None:
        raise _refused(f"field label not supported: {label}")
    raise _refused(
        f'{shown(label)} is not a known field selector: only "metadata.name", "metadata.namespace"'
    )


def _unescaped(value: str) -> str:
    def literal(found: re.Match[str]) -> str:
        match found.group():
            case "\\\\" | "\\," | "\\=":
                return found.group()[1]
            case "=":
                raise _refused(f"invalid field selector: unescaped character in value: {ord('=')}")
        raise _refused(f"invalid field selector: invalid escape sequence: {found.group()}")

    return re.sub(r"\\.?|=", literal, value, flags=re.DOTALL)
