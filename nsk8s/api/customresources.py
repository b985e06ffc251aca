"""The kinds that a CustomResourceDefinition adds."""

from __future__ import annotations

from nsk8s.api.kinds import ALL, SCALE, Resource, Subresource, priority
from nsk8s.api.types import Obj

ENDING = tuple(verb for verb in ALL if verb != "create")
"""Verbs of a custom resource whose definition is being deleted."""
ACTED_ON = frozenset({"clusternetworkpolicies.policy.networking.k8s.io"})
"""The custom resources that mean something here."""


def resources_of(crd: Obj) -> list[Resource]:
    """The resources that a definition adds, the version they are stored in first."""
    spec = crd["spec"]
    names = spec["names"]
    ending = crd["metadata"].get("deletionTimestamp")
    found = []
    for version in sorted(spec["versions"], key=lambda v: not v.get("storage")):
        given = version.get("subresources") or {}
        parts = [SCALE] if given.get("scale") is not None else []
        if given.get("status") is not None:
            parts.append(Subresource("status", names["kind"]))
        found.append(
            Resource(
                plural=names["plural"],
                kind=names["kind"],
                group=spec["group"],
                version=version["name"],
                namespaced=spec["scope"] == "Namespaced",
                short=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                verbs=ENDING if ending else ALL,
                subresources=tuple(parts),
                singular=names.get("singular", ""),
                list_kind=names.get("listKind", ""),
                served=bool(version.get("served")),
                custom=True,
                acts=f"{names['plural']}.{spec['group']}" in ACTED_ON,
                selectable=tuple(f["jsonPath"].lstrip(".") for f in version.get("selectableFields") or ()),
                warning=_deprecation(spec, version) if version.get("deprecated") else "",
            )
        )
    return found


def _deprecation(spec: Obj, version: Obj) -> str:
    """What the users of a deprecated version are told (defaultDeprecationWarning)."""
    if version.get("deprecationWarning"):
        return str(version["deprecationWarning"])
    group, kind = spec["group"], spec["names"]["kind"]
    newer = [
        v["name"]
        for v in spec["versions"]
        if v.get("served") and not v.get("deprecated") and priority(v["name"]) < priority(version["name"])
    ]
    told = f"{group}/{version['name']} {kind} is deprecated"
    return f"{told}; use {group}/{min(newer, key=priority)} {kind}" if newer else told
