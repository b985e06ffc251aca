"""Which schema a request's objects are decoded by."""

from __future__ import annotations

import pytest

from nsk8s.api.types import Obj
from nsk8s.apiserver.addressing import address
from nsk8s.apiserver.fields import Fields
from nsk8s.errors import ApiError
from tests.unit.apiserver.test_openapi import CRD
from tests.unit.cluster.worlds import World


@pytest.mark.parametrize(
    ("path", "body", "unknown"),
    [
        ("/api/v1/namespaces/a/pods", {"spec": {"foo": 1}}, "spec.foo"),
        ("/apis/apps/v1/namespaces/a/deployments/d/status", {"status": {"foo": 1}}, "status.foo"),
        ("/apis/apps/v1/namespaces/a/deployments/d/scale", {"spec": {"foo": 1}}, "spec.foo"),
        ("/api/v1/namespaces/a/pods/p/eviction", {"foo": 1}, "foo"),
        ("/apis/example.com/v1/namespaces/a/pets", {"size": 1, "foo": 1}, "foo"),
    ],
)
def test_each_path_has_its_schema(path: str, body: Obj, unknown: str) -> None:
    world = World()
    world.registry.create(CRD)
    where = address(path, world.registry.kinds)
    assert where is not None
    told: list[str] = []
    fields = Fields.of(world.registry, where, {}, b"", told)
    assert "foo" not in str(fields.given(body))
    assert "foo" not in str(fields.made(body, {}, "merge"))
    assert told == [f'unknown field "{unknown}"'] * 2
    strictly = Fields.of(world.registry, where, {"fieldValidation": "Strict"}, b"", told)
    with pytest.raises(ApiError, match="strict decoding error"):
        strictly.given(body)
