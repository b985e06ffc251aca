"""CustomResourceDefinitions (apiextensions-apiserver's `pkg/apis/apiextensions/validation`)."""

from __future__ import annotations

import re
from typing import Any

from nsk8s.api import jsonpath, names
from nsk8s.api.findings import Findings
from nsk8s.api.rules.rule import Rule
from nsk8s.api.types import Obj, ObjectMeta, Struct

COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
SELECTABLE = 8
"""The most fields that a version can be selected by."""
_is_plain_path = re.compile(r"(\.[A-Za-z_][A-Za-z0-9_]*)+").fullmatch
APPROVAL = "api-approved.kubernetes.io"
"""Annotation without which nobody may define kinds in a group of Kubernetes' own (KEP-1111)."""
PROTECTED = (".k8s.io", ".kubernetes.io")


class Names(Struct, frozen=True):
    """How a kind is called."""

    plural: str = ""
    singular: str = ""
    kind: str = ""
    listKind: str = ""
    shortNames: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


class ScalePaths(Struct, frozen=True):
    """Where the numbers of the subresource scale are."""

    specReplicasPath: str = ""
    statusReplicasPath: str = ""
    labelSelectorPath: str = ""


class Subresources(Struct, frozen=True):
    """The parts of an object."""

    status: dict[str, Any] | None = None
    scale: ScalePaths | None = None


class Validation(Struct, frozen=True):
    """The schema of a version."""

    openAPIV3Schema: dict[str, Any] | None = None


class PrinterColumn(Struct, frozen=True):
    """A column of ``kubectl get``."""

    name: str = ""
    type: str = ""
    format: str = ""
    description: str = ""
    priority: int = 0
    jsonPath: str = ""


class SelectableField(Struct, frozen=True):
    """A field that objects can be selected by."""

    jsonPath: str = ""


class Version(Struct, frozen=True):
    """A version of the kind."""

    name: str = ""
    served: bool = False
    storage: bool = False
    deprecated: bool = False
    deprecationWarning: str | None = None
    schema: Validation | None = None
    subresources: Subresources | None = None
    additionalPrinterColumns: tuple[PrinterColumn, ...] = ()
    selectableFields: tuple[SelectableField, ...] = ()


class Conversion(Struct, frozen=True):
    """How one version becomes another."""

    strategy: str = "None"


class Spec(Struct, frozen=True):
    """What a definition defines."""

    group: str = ""
    names: Names = Names()
    scope: str = ""
    versions: tuple[Version, ...] = ()
    conversion: Conversion = Conversion()


class Definition(Struct, frozen=True):
    """A CustomResourceDefinition."""

    metadata: ObjectMeta = ObjectMeta()
    spec: Spec = Spec()


def definition(view: Definition, findings: Findings) -> None:
    """A CustomResourceDefinition."""
    spec, name = view.spec, view.metadata.name
    wanted = f"{spec.names.plural}.{spec.group}"
    if name != wanted:
        findings.invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group', f'"{wanted}"')
    _group(spec.group, view, findings)
    if not spec.scope:
        findings.required("spec.scope")
    else:
        findings.one_of("spec.scope", spec.scope, ("Cluster", "Namespaced"))
    _names(spec.names, findings)
    _versions(spec.versions, findings)
    if spec.conversion.strategy == "Webhook":
        findings.add(
            "spec.conversion.strategy",
            'Unsupported value: "Webhook": supported values: "None"',
            "nsk8s calls no webhooks: objects of all versions differ in their apiVersion only",
        )
    else:
        findings.one_of("spec.conversion.strategy", spec.conversion.strategy, ("None",))


def immutable(before: Obj, after: Obj, findings: Findings) -> None:
    """What stays once the names are accepted."""
    status = before.get("status") or {}
    if not any(c["type"] == "Established" and c["status"] == "True" for c in status.get("conditions") or ()):
        return
    old, new = before["spec"], after["spec"]
    for path, was, is_ in (
        ("spec.scope", old["scope"], new["scope"]),
        ("spec.names.kind", old["names"]["kind"], new["names"]["kind"]),
        ("spec.group", old["group"], new["group"]),
        ("spec.names.plural", old["names"]["plural"], new["names"]["plural"]),
    ):
        if was != is_:
            findings.invalid(path, is_, "field is immutable")
    versions = [version["name"] for version in new["versions"]]
    for i, stored in enumerate(status.get("storedVersions") or ()):
        if stored not in versions:
            findings.invalid(f"status.storedVersions[{i}]", stored, "must appear in spec.versions")


def _group(group: str, view: Definition, findings: Findings) -> None:
    if not group:
        findings.required("spec.group")
    elif wrong := names.subdomain(group):
        findings.invalid("spec.group", group, wrong)
    elif "." not in group:
        findings.invalid("spec.group", group, "should be a domain with at least one dot")
    elif f".{group}".endswith(PROTECTED) and APPROVAL not in view.metadata.annotations:
        findings.required(
            f"metadata.annotations[{APPROVAL}]",
            "protected groups must have approval annotation "
            '"api-approved.kubernetes.io", see https://github.com/kubernetes/enhancements/pull/1111',
        )


def _names(given: Names, findings: Findings) -> None:
    for path, value in (("plural", given.plural), ("kind", given.kind)):
        if not value:
            findings.required(f"spec.names.{path}")
    words = [("plural", given.plural), ("singular", given.singular)]
    words += [(f"shortNames[{i}]", word) for i, word in enumerate(given.shortNames)]
    words += [(f"categories[{i}]", word) for i, word in enumerate(given.categories)]
    for path, value in words:
        if value and (wrong := names.label_1035(value)):
            findings.invalid(f"spec.names.{path}", value, wrong)
    for path, value in (("kind", given.kind), ("listKind", given.listKind)):
        if value and (wrong := names.label_1035(value.lower())):
            why = f"may have mixed case, but should otherwise match: {wrong}"
            findings.invalid(f"spec.names.{path}", value, why)
    if given.kind and given.kind == given.listKind:
        findings.invalid("spec.names.listKind", given.listKind, "kind and listKind may not be the same")


def _versions(versions: tuple[Version, ...], findings: Findings) -> None:
    if not versions:
        findings.required("spec.versions")
        return
    seen: set[str] = set()
    for i, version in enumerate(versions):
        path = f"spec.versions[{i}]"
        if wrong := names.label_1035(version.name):
            findings.invalid(f"{path}.name", version.name, wrong)
        if version.name in seen:
            findings.invalid("spec.versions", version.name, "must contain unique version names")
        seen.add(version.name)
        schema = version.schema.openAPIV3Schema if version.schema else None
        if schema is None:
            findings.required(f"{path}.schema.openAPIV3Schema", "schemas are required")
        elif schema.get("type") != "object":
            at = f"{path}.schema.openAPIV3Schema.type"
            if schema.get("type"):
                findings.invalid(at, schema["type"], "must be object at the root")
            else:
                findings.required(at, "must not be empty at the root")
        _subresources(version.subresources or Subresources(), f"{path}.subresources", findings)
        for j, column in enumerate(version.additionalPrinterColumns):
            _column(column, f"{path}.additionalPrinterColumns[{j}]", findings)
        if len(version.selectableFields) > SELECTABLE:
            what = f"Too many: {len(version.selectableFields)}: must have at most {SELECTABLE} items"
            findings.add(f"{path}.selectableFields", what)
        for j, field in enumerate(version.selectableFields):
            at = f"{path}.selectableFields[{j}].jsonPath"
            if not field.jsonPath:
                findings.required(at)
            elif not _is_plain_path(field.jsonPath):
                findings.invalid(
                    at, field.jsonPath, "must be a simple path of field names, such as .spec.color"
                )
    if sum(version.storage for version in versions) != 1:
        listed = [version.name for version in versions]
        findings.invalid("spec.versions", listed, "must have exactly one version marked as storage version")


def _subresources(given: Subresources, path: str, findings: Findings) -> None:
    if given.scale is None:
        return
    for field, begin in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
        value = getattr(given.scale, field)
        if not value:
            findings.required(f"{path}.scale.{field}")
        elif not value.startswith(begin) or "[" in value:
            findings.invalid(
                f"{path}.scale.{field}", value, f"should be a json path under {begin.rstrip('.')}"
            )


def _column(column: PrinterColumn, path: str, findings: Findings) -> None:
    if not column.name:
        findings.required(f"{path}.name")
    if not column.type:
        findings.required(f"{path}.type", f"must be one of {','.join(COLUMN_TYPES)}")
    elif column.type not in COLUMN_TYPES:
        findings.invalid(f"{path}.type", column.type, f"must be one of {','.join(COLUMN_TYPES)}")
    if column.format and column.format not in COLUMN_FORMATS:
        findings.invalid(f"{path}.format", column.format, f"must be one of {','.join(COLUMN_FORMATS)}")
    if not column.jsonPath:
        findings.required(f"{path}.jsonPath")
        return
    try:
        jsonpath.parse(column.jsonPath)
    except ValueError as error:
        findings.invalid(f"{path}.jsonPath", column.jsonPath, str(error))


RULES: dict[str, Rule] = {"CustomResourceDefinition": Rule(Definition, definition, update=immutable)}
