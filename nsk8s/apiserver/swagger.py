"""OpenAPI v2 (Swagger 2.0) of the same paths and schemas that v3 documents have.

Old clients validate with it (kubectl before 1.27), all fall back to it. What v2 cannot say is left out, as
apiextensions-apiserver does for custom resources (``controller/openapi/v2``).
"""

from __future__ import annotations

from nsk8s.api.openapi import INT_OR_STRING, QUANTITY, REFERENCE
from nsk8s.api.types import Obj

V2_REFERENCE = "#/definitions/"
METHODS = ("get", "put", "post", "delete", "patch")
_SCALARS: dict[str, Obj] = {
    INT_OR_STRING: {"type": "string", "format": "int-or-string"},
    QUANTITY: {"type": "string"},
}
_NOT_IN_V2 = {"oneOf", "anyOf", "not", "nullable", "x-kubernetes-validations"}


def document(info: Obj, paths: Obj, schemas: Obj) -> Obj:
    """The v2 document of v3 `paths` and `schemas`."""
    return {
        "swagger": "2.0",
        "info": info,
        "paths": {path: _item(item) for path, item in paths.items()},
        "definitions": {name: _SCALARS.get(name) or schema(one) for name, one in schemas.items()},
    }


def schema(raw: Obj) -> Obj:
    """A schema in v2's words."""
    found: Obj = {}
    for key, value in raw.items():
        match key:
            case "$ref":
                found[key] = V2_REFERENCE + value.removeprefix(REFERENCE)
            case "allOf" if len(value) == 1:
                found |= schema(value[0])
            case "properties":
                found[key] = {name: schema(one) for name, one in value.items()}
            case "items":
                found[key] = schema(value)
            case "additionalProperties":
                found[key] = schema(value) if isinstance(value, dict) else value
            case _ if key not in _NOT_IN_V2 and key != "allOf":
                found[key] = value
    if raw.get("nullable") or raw.get("x-kubernetes-int-or-string"):
        for key in ("type", "items", "properties"):  # clients would refuse the other forms
            found.pop(key, None)
    elif raw.get("x-kubernetes-preserve-unknown-fields") and "x-kubernetes-group-version-kind" not in raw:
        found.pop("items", None)
        found.pop("properties", None)
    return found


def _item(item: Obj) -> Obj:
    found: Obj = {method: _operation(item[method]) for method in METHODS if method in item}
    if "parameters" in item:
        found["parameters"] = [_parameter(one) for one in item["parameters"]]
    return found


def _operation(told: Obj) -> Obj:
    found = {key: value for key, value in told.items() if key not in ("requestBody", "parameters")}
    parameters = [_parameter(one) for one in told.get("parameters", ())]
    body = told.get("requestBody")
    if body is not None:
        content = body["content"]
        found["consumes"] = list(content)
        needed = {"required": True} if body["required"] else {}
        given = schema(next(iter(content.values()))["schema"])
        parameters.append({"name": "body", "in": "body", **needed, "schema": given})
    if parameters:
        found["parameters"] = parameters
    content = told["responses"]["200"]["content"]
    found["produces"] = list(content)
    answer = schema(next(iter(content.values()))["schema"])
    found["responses"] = {"200": {"description": "OK", "schema": answer}}
    return found


def _parameter(told: Obj) -> Obj:
    return {**{key: value for key, value in told.items() if key != "schema"}, **told["schema"]}
