"""The schemas of old versions, made of those that are stored: they differ in what Ingresses are made of."""

from __future__ import annotations

from collections.abc import Mapping

from nsk8s.api.kinds import BY_NAME, LEGACY, Resource
from nsk8s.api.types import Obj

REFERENCE = "#/components/schemas/"
"""What a reference begins with; a definition's name follows."""
_CORE = f"{REFERENCE}io.k8s.api.core.v1."
_NET = f"{REFERENCE}io.k8s.api.networking.v1."

_STRING: Obj = {"type": "string"}
_BACKEND: Obj = {
    "type": "object",
    "properties": {
        "resource": {"$ref": f"{_CORE}TypedLocalObjectReference"},
        "serviceName": _STRING,
        "servicePort": {"$ref": f"{REFERENCE}io.k8s.apimachinery.pkg.util.intstr.IntOrString"},
    },
}
_PATH: Obj = {
    "type": "object",
    "required": ["backend"],
    "properties": {"backend": _BACKEND, "path": _STRING, "pathType": _STRING},
}
_HTTP: Obj = {
    "type": "object",
    "required": ["paths"],
    "properties": {"paths": {"type": "array", "items": _PATH, "x-kubernetes-list-type": "atomic"}},
}
_RULE: Obj = {"type": "object", "properties": {"host": _STRING, "http": _HTTP}}
_INGRESS: Obj = {
    "type": "object",
    "properties": {
        "backend": _BACKEND,
        "ingressClassName": _STRING,
        "rules": {"type": "array", "items": _RULE, "x-kubernetes-list-type": "atomic"},
        "tls": {
            "type": "array",
            "items": {"$ref": f"{_NET}IngressTLS"},
            "x-kubernetes-list-type": "atomic",
        },
    },
}
"""The spec of an Ingress before networking.k8s.io/v1."""


def definitions(stored: Mapping[tuple[str, str], str], known: Mapping[str, Obj]) -> dict[str, Obj]:
    """Definitions of the `LEGACY` kinds and their lists. `stored` has the name of the `known` definition of
    an (apiVersion, kind)."""
    found: dict[str, Obj] = {}
    for old in LEGACY:
        now = BY_NAME[old.stored_as]
        name = f"io.k8s.api.{old.group.partition('.')[0]}.{old.version}."
        one = dict(known[stored[now.api_version, now.kind]])
        if old.kind == "Ingress":
            one["properties"] = {**one["properties"], "spec": _INGRESS}
        listed = dict(known[stored[now.api_version, now.list_kind]])
        items = {"type": "array", "items": {"$ref": f"{REFERENCE}{name}{old.kind}"}}
        listed["properties"] = {**listed["properties"], "items": items}
        for kind, raw in ((old.kind, one), (old.list_kind, listed)):
            found[name + kind] = {**raw, "x-kubernetes-group-version-kind": [_gvk(old, kind)]}
    return found


def _gvk(resource: Resource, kind: str) -> Obj:
    return {"group": resource.group, "kind": kind, "version": resource.version}
