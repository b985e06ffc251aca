"""The schemas of the built-in kinds, and those made from a CustomResourceDefinition."""

from __future__ import annotations

import pytest

from nsk8s.api import openapi
from nsk8s.api.kinds import BUILTIN
from nsk8s.api.openapi import Schema, definitions, schema_of, structural


def test_every_builtin_kind_has_a_schema() -> None:
    missing = [
        (r.api_version, r.kind)
        for r in BUILTIN
        if r.group != "nsk8s.dev" and schema_of(r.api_version, r.kind) is None
    ]
    assert missing == []


def test_unknown_kinds_have_none() -> None:
    assert schema_of("extensions/v1beta2", "Ingress") is None
    assert schema_of("v1", "Nothing") is None


def test_no_sentences_are_kept() -> None:
    def sentences(value: object) -> bool:
        if isinstance(value, dict):
            own = isinstance(value.get("description"), str)
            return own or any(sentences(below) for below in value.values())
        return isinstance(value, list) and any(sentences(below) for below in value)

    assert not sentences(dict(definitions()))


def test_references_are_resolved_when_looked_at() -> None:
    containers = _pod("spec", "containers")
    assert containers.type == "array"
    assert (containers.patch_strategies, containers.merge_key) == (("merge",), "name")
    assert (containers.list_type, containers.list_map_keys) == ("map", ("name",))
    assert containers.items is not None
    assert containers.items.name == "io.k8s.api.core.v1.Container"
    assert containers.items.required == ("name",)
    ports = containers.items.properties["ports"]
    assert (ports.merge_key, ports.list_map_keys) == ("containerPort", ("containerPort", "protocol"))
    assert ports.items is not None
    protocol = ports.items.properties["protocol"]
    assert (protocol.default, protocol.enum, protocol.go_type) == (
        "TCP",
        ("SCTP", "TCP", "UDP"),
        "v1.Protocol",
    )


def test_what_stands_beside_a_reference_counts() -> None:
    assert _pod("spec", "volumes").patch_strategies == ("merge", "retainKeys")
    deployment = schema_of("apps/v1", "Deployment")
    assert deployment is not None
    strategy = deployment.properties["spec"].properties["strategy"]
    assert strategy.patch_strategies == ("retainKeys",)
    assert strategy.name == "io.k8s.api.apps.v1.DeploymentStrategy"
    assert "rollingUpdate" in strategy.properties


def test_maps_and_scalars() -> None:
    labels = _pod("metadata", "labels")
    assert (labels.type, labels.properties) == ("object", {})
    assert labels.additional is not None
    assert labels.additional.type == "string"
    assert _pod("spec", "nodeSelector").map_type == "atomic"
    resources = _pod("spec", "resources").properties["requests"].additional
    assert resources is not None
    assert (resources.type, resources.format) == ("int-or-string", "quantity")
    service = schema_of("v1", "Service")
    assert service is not None
    ports = service.properties["spec"].properties["ports"].items
    assert ports is not None
    target = ports.properties["targetPort"]
    assert (target.type, target.format) == ("int-or-string", "int-or-string")
    assert _pod("metadata", "uid").go_type == "types.UID"


def test_anything_goes_where_go_has_raw_bytes() -> None:
    revision = schema_of("apps/v1", "ControllerRevision")
    assert revision is not None
    assert revision.properties["data"].preserve_unknown
    crd = schema_of("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    assert crd is not None
    versions = crd.properties["spec"].properties["versions"].items
    assert versions is not None
    schema = versions.properties["schema"].properties["openAPIV3Schema"]
    assert schema.properties["not"].properties["default"].type == ""  # and it is circular


def test_structural_has_the_fields_of_every_object() -> None:
    schema = structural(
        {
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "required": ["size"],
                    "properties": {
                        "size": {"type": "integer", "minimum": 1},
                        "port": {"x-kubernetes-int-or-string": True},
                        "template": {
                            "type": "object",
                            "x-kubernetes-embedded-resource": True,
                            "x-kubernetes-preserve-unknown-fields": True,
                        },
                    },
                }
            },
        }
    )
    assert set(schema.properties) == {"apiVersion", "kind", "metadata", "spec"}
    assert schema.properties["metadata"].name == openapi.META
    spec = schema.properties["spec"]
    assert spec.required == ("size",)
    assert spec.properties["size"].raw["minimum"] == 1
    assert spec.properties["port"].type == "int-or-string"
    template = spec.properties["template"]
    assert template.preserve_unknown
    assert set(template.properties) == {"apiVersion", "kind", "metadata"}


def test_nothing_else_is_an_attribute() -> None:
    with pytest.raises(AttributeError):
        _ = Schema({}).nothing  # type: ignore[attr-defined]  # that is the test


def _pod(*path: str) -> Schema:
    found = schema_of("v1", "Pod")
    assert found is not None
    for name in path:
        found = found.properties[name]
    return found
