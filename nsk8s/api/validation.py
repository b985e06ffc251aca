"""What an API server checks before it stores an object.

`validate` looks at one object by itself; `validate_update` at what a change may not touch. Both return
problems with field paths and no positions: `manifest` finds those for files, the API answers with 422.
Kinds without rules of their own are checked by their metadata and what their schemas require.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from nsk8s.api import fieldpath, names
from nsk8s.api.defaults import without_nulls
from nsk8s.api.findings import Findings, below
from nsk8s.api.kinds import BUILTIN, LEGACY, Kinds, Resource
from nsk8s.api.rules import rule_of
from nsk8s.api.rules.rule import Rule
from nsk8s.api.types import Obj, ObjectMeta
from nsk8s.errors import Problem

T = TypeVar("T")

ANNOTATION_BYTES = 256 * 1024
"""The most that all annotations of an object can take."""


_OTHER = Rule()


def validate(obj: Obj, resource: Resource | None = None) -> list[Problem]:
    """Everything that is wrong with an object, defaulted or not; empty if nothing is. `resource` is its
    kind, if that is not a built-in one."""
    findings = Findings()
    resource = resource or known_resource(obj, findings)
    if resource is None:
        return findings.problems
    if resource.kind == "Cluster":
        from nsk8s.api import cluster

        return cluster.read(obj)[1]
    own = None if resource.custom else rule_of(resource.kind)
    rule = own or _OTHER
    view = _view(obj, rule.view, findings)
    if view is None:
        return findings.problems
    wrong = findings.problems
    findings = Findings()
    _metadata(view.metadata, resource, rule, findings)
    if rule.check is not None:
        rule.check(view, findings)
    elif own is None and not resource.custom:
        from nsk8s.api.rules.required import required

        required(without_nulls(obj), findings)
    more = [_with_near_miss(p, obj) for p in findings.problems if not any(_related(p, w) for w in wrong)]
    return wrong + more


def _related(one: Problem, other: Problem) -> bool:
    """Whether a finding may come from nothing but the other's value having been left out."""
    return one.path.startswith(other.path) or other.path.startswith(one.path)


def known_resource(obj: Obj, findings: Findings, known: Kinds = BUILTIN) -> Resource | None:
    """The resource of an object; None with findings if none of the `known` kinds is its."""
    words = []
    for field in ("apiVersion", "kind"):
        value = obj.get(field)
        if isinstance(value, str) and value:
            words.append(value)
        elif value is None or value == "":
            findings.required(field, hint=f"add `{field}:`")
        else:
            findings.add(field, "must be a string")
    if len(words) < 2:
        return None
    version, kind = words
    resource = known.by_kind.get((version, kind))
    if resource is None:
        kinds = {r.kind: r for r in known.stored()}
        if kind in kinds:
            hint = f"{kind} is in {kinds[kind].api_version}"
            if any((r.api_version, r.kind) == (version, kind) for r in LEGACY):
                hint += "; with `legacyAPIs: true` in the Cluster's spec it applies as it is"
            findings.add("apiVersion", f'no matches for kind "{kind}" in version "{version}"', hint)
        else:
            near = names.nearest(kind, kinds)
            hint = f'did you mean "{near}" ({kinds[near].api_version})?' if near else ""
            findings.add("kind", f'no matches for kind "{kind}" in version "{version}"', hint)
    return resource


def _view(obj: Obj, view: type[T], findings: Findings) -> T | None:
    """The typed view of an object, without the values of a wrong type, which are found; None if there is
    no view even so."""
    try:
        return msgspec.convert(obj, view)
    except msgspec.ValidationError:
        pass  # perhaps only for nulls, which count as absent
    obj = without_nulls(obj)
    try:
        return msgspec.convert(obj, view)
    except msgspec.ValidationError:
        from nsk8s.api import shapes

        try:
            return msgspec.convert(shapes.check(obj, view, findings), view)
        except msgspec.ValidationError as error:  # such as a number that no integer of msgspec's can hold
            findings.add("", str(error))
            return None


def _metadata(meta: ObjectMeta, resource: Resource, rule: Rule, findings: Findings) -> None:
    if meta.name:
        findings.name("metadata.name", meta.name, rule.name(meta.name))
    elif not meta.generateName:
        findings.required("metadata.name", "name or generateName is required")
    if meta.namespace:
        if resource.namespaced:
            findings.name("metadata.namespace", meta.namespace, names.label(meta.namespace))
        else:
            findings.forbidden(
                "metadata.namespace", "not allowed on this type", f"{resource.plural} are in no namespace"
            )
    findings.labels("metadata.labels", meta.labels)
    size = 0
    for key, value in meta.annotations.items():
        size += len(key.encode()) + len(value.encode())
        if wrong := names.label_key(key.lower()):
            findings.invalid(below("metadata.annotations", key), key, wrong)
    if size > ANNOTATION_BYTES:
        findings.add("metadata.annotations", f"Too long: may not be more than {ANNOTATION_BYTES} bytes")
    for i, owner in enumerate(meta.ownerReferences):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not getattr(owner, field):
                findings.required(f"metadata.ownerReferences[{i}].{field}")


def _with_near_miss(problem: Problem, obj: Obj) -> Problem:
    """A field that is missing is often there under a name that is almost right."""
    if not problem.what.startswith("Required value"):
        return problem
    parent, _, field = problem.path.rpartition(".")
    there = fieldpath.find(obj, parent)
    if not isinstance(there, dict) or field in there:
        return problem
    near = names.nearest(field, there, cutoff=0.8)
    return Problem(problem.path, problem.what, f'is "{near}" meant to be it?') if near else problem


def validate_update(old: Obj, new: Obj, resource: Resource | None = None) -> list[Problem]:
    """What a change touches that must stay as it is. Both objects are defaulted and valid by themselves;
    `resource` is their kind, if that is not a built-in one."""
    findings = Findings()
    for field in ("name", "namespace", "uid"):
        before, after = old["metadata"].get(field), new["metadata"].get(field)
        if before and after and before != after:
            findings.invalid(f"metadata.{field}", after, "field is immutable")
    if resource is not None and resource.custom:
        return findings.problems
    rule = rule_of(str(new.get("kind")))
    if rule is not None and rule.update is not None:
        rule.update(old, new, findings)
    return findings.problems


def validate_status(obj: Obj) -> list[Problem]:
    """What is wrong with the status of an object of a built-in kind that is valid otherwise."""
    findings = Findings()
    rule = rule_of(str(obj.get("kind")))
    if rule is not None and rule.status is not None:
        view = _view(obj, rule.view, findings)
        if view is not None:
            rule.status(view, findings)
    return findings.problems
