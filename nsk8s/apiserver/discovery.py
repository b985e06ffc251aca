"""What there is: ``/api``, ``/apis``, ``/api/v1``, ``/apis/GROUP/VERSION`` and ``/version``."""

from __future__ import annotations

from nsk8s import __version__
from nsk8s.api.kinds import RESOURCES, Resource
from nsk8s.api.types import Obj

MINOR = 33
"""The minor version of Kubernetes whose API this is a subset of."""

VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
STATUS = {"pods", "services", "nodes", "namespaces", "deployments", "replicasets"}
SCALE = {"deployments", "replicasets"}


def document(path: str) -> Obj | None:
    """The discovery document at `path`; None if there is none."""
    match [word for word in path.split("/") if word]:
        case ["version"]:
            return {
                "major": "1",
                "minor": str(MINOR),
                "gitVersion": f"v1.{MINOR}.0+nsk8s.{__version__}",
                "platform": "linux",
            }
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": _groups()}
        case ["api", version]:
            return _resources("", version)
        case ["apis", group]:
            return next(
                ({"kind": "APIGroup", "apiVersion": "v1", **g} for g in _groups() if g["name"] == group), None
            )
        case ["apis", group, version]:
            return _resources(group, version)
    return None


def _groups() -> list[Obj]:
    versions = {(r.group, r.version): None for r in RESOURCES if r.group}
    groups = []
    for group, version in versions:
        one = {"groupVersion": f"{group}/{version}", "version": version}
        groups.append({"name": group, "versions": [one], "preferredVersion": one})
    return groups


def _resources(group: str, version: str) -> Obj | None:
    found: list[Obj] = []
    for r in RESOURCES:
        if (r.group, r.version) == (group, version):
            found.append(_resource(r))
            if r.plural in STATUS:
                found.append(_part(r, "status", r.kind))
            if r.plural in SCALE:
                found.append({**_part(r, "scale", "Scale"), "group": "autoscaling", "version": "v1"})
    if not found:
        return None
    name = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": found}


def _resource(r: Resource) -> Obj:
    found: Obj = {
        "name": r.plural,
        "singularName": r.singular,
        "namespaced": r.namespaced,
        "kind": r.kind,
        "verbs": VERBS,
    }
    if r.short:
        found["shortNames"] = list(r.short)
    if r.categories:
        found["categories"] = list(r.categories)
    return found


def _part(r: Resource, name: str, kind: str) -> Obj:
    return {
        "name": f"{r.plural}/{name}",
        "singularName": "",
        "namespaced": r.namespaced,
        "kind": kind,
        "verbs": ["get", "patch", "update"],
    }
