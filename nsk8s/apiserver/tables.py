"""Objects as rows: the columns that a real API server prints for kubectl (pkg/printers/internalversion)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from nsk8s.api.age import age
from nsk8s.api.kinds import Resource
from nsk8s.api.types import Obj
from nsk8s.apiserver import podcells

Column = tuple[str, int]
"""Name and priority: 0 is always shown, 1 with ``-o wide``."""
Row = Callable[[Obj, datetime], list[Any]]


def table(
    resource: Resource, objects: Iterable[Obj], now: datetime, revision: str, *, whole: bool = False
) -> Obj:
    """A `meta.k8s.io/v1 Table` of objects; each row carries its object's metadata, or all of it (`whole`)."""
    columns, row = PRINTERS.get(resource.name, (GENERIC, _generic))
    rows = [{"cells": row(obj, now), "object": obj if whole else _partial(obj)} for obj in objects]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": revision},
        "columnDefinitions": [
            {
                "name": name,
                "type": "string",
                "format": "name" if name == "Name" else "",
                "description": "",
                "priority": p,
            }
            for name, p in columns
        ],
        "rows": rows,
    }


def _partial(obj: Obj) -> Obj:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def _age(obj: Obj, now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _labels(labels: Mapping[str, str] | None) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted((labels or {}).items())) or "<none>"


GENERIC: tuple[Column, ...] = (("Name", 0), ("Age", 0))


def _generic(obj: Obj, now: datetime) -> list[Any]:
    return [obj["metadata"]["name"], _age(obj, now)]


def _pod(obj: Obj, now: datetime) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    seen = podcells.cells(obj)
    restarts = str(seen.restarts)
    if seen.restarts and seen.restarted:
        restarts = f"{restarts} ({age(seen.restarted, now)} ago)"
    return [
        obj["metadata"]["name"],
        f"{seen.ready}/{seen.total}",
        seen.status,
        restarts,
        _age(obj, now),
        status.get("podIP") or "<none>",
        spec.get("nodeName") or "<none>",
        status.get("nominatedNodeName") or "<none>",
        "<none>",
    ]


def _service(obj: Obj, now: datetime) -> list[Any]:
    spec = obj["spec"]
    ports = ",".join(
        f"{p['port']}{':' + str(p['nodePort']) if p.get('nodePort') else ''}/{p.get('protocol', 'TCP')}"
        for p in spec.get("ports") or ()
    )
    external = ",".join(spec.get("externalIPs") or ()) or "<none>"
    if spec.get("type") == "ExternalName":
        external = spec.get("externalName", "")
    elif spec.get("type") == "LoadBalancer":
        found = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        given = [i.get("ip") or i.get("hostname", "") for i in found] + list(spec.get("externalIPs") or ())
        external = ",".join(given) or "<pending>"
    return [
        obj["metadata"]["name"],
        spec.get("type", "ClusterIP"),
        spec.get("clusterIP") or "<none>",
        external,
        ports or "<none>",
        _age(obj, now),
        _labels(spec.get("selector")),
    ]


def _containers(template: Obj) -> tuple[str, str]:
    containers = template["spec"]["containers"]
    return ",".join(c["name"] for c in containers), ",".join(c.get("image", "") for c in containers)


def _selector(spec: Obj) -> str:
    return _labels((spec.get("selector") or {}).get("matchLabels"))


def _deployment(obj: Obj, now: datetime) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    return [
        obj["metadata"]["name"],
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 1)}",
        str(status.get("updatedReplicas", 0)),
        str(status.get("availableReplicas", 0)),
        _age(obj, now),
        *_containers(spec["template"]),
        _selector(spec),
    ]


def _replicaset(obj: Obj, now: datetime) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    return [
        obj["metadata"]["name"],
        str(spec.get("replicas", 1)),
        str(status.get("replicas", 0)),
        str(status.get("readyReplicas", 0)),
        _age(obj, now),
        *_containers(spec["template"]),
        _selector(spec),
    ]


def _node(obj: Obj, now: datetime) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    ready = next((c["status"] for c in status.get("conditions") or () if c["type"] == "Ready"), "Unknown")
    state = {"True": "Ready", "False": "NotReady"}.get(ready, "Unknown")
    if spec.get("unschedulable"):
        state += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    labels = obj["metadata"].get("labels") or {}
    roles = ",".join(sorted(k.removeprefix(prefix) for k in labels if k.startswith(prefix))) or "<none>"
    addresses = {a["type"]: a["address"] for a in status.get("addresses") or ()}
    info = status.get("nodeInfo") or {}
    return [
        obj["metadata"]["name"],
        state,
        roles,
        _age(obj, now),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", "<none>"),
        addresses.get("ExternalIP", "<none>"),
        info.get("osImage") or "<unknown>",
        info.get("kernelVersion") or "<unknown>",
        info.get("containerRuntimeVersion") or "<unknown>",
    ]


def _namespace(obj: Obj, now: datetime) -> list[Any]:
    return [obj["metadata"]["name"], (obj.get("status") or {}).get("phase", "Active"), _age(obj, now)]


def _some(found: list[str]) -> str:
    """Three, and how many more."""
    if not found:
        return "<none>"
    return ",".join(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "")


def _endpoints(obj: Obj, now: datetime) -> list[Any]:
    found = []
    for subset in obj.get("subsets") or ():
        ports = [p["port"] for p in subset.get("ports") or ()]
        for one in subset.get("addresses") or ():
            found += [f"{one['ip']}:{port}" for port in ports] if ports else [one["ip"]]
    return [obj["metadata"]["name"], _some(found), _age(obj, now)]


def _slice(obj: Obj, now: datetime) -> list[Any]:
    ports = [str(p.get("port")) for p in obj.get("ports") or ()]
    found = [a for e in obj.get("endpoints") or () for a in e.get("addresses") or ()]
    return [
        obj["metadata"]["name"],
        obj.get("addressType", ""),
        ",".join(ports[:3]) + (f" + {len(ports) - 3} more..." if len(ports) > 3 else "") or "<unset>",
        _some(found) if found else "<unset>",
        _age(obj, now),
    ]


def _event(obj: Obj, now: datetime) -> list[Any]:
    about = obj.get("involvedObject") or {}
    seen = obj.get("lastTimestamp") or obj.get("eventTime") or obj["metadata"].get("creationTimestamp")
    name = f"{about.get('kind', '').lower()}/{about.get('name', '')}"
    return [age(seen, now), obj.get("type", ""), obj.get("reason", ""), name, obj.get("message", "").strip()]


_WORKLOAD: tuple[Column, ...] = (("Age", 0), ("Containers", 1), ("Images", 1), ("Selector", 1))

PRINTERS: dict[str, tuple[tuple[Column, ...], Row]] = {
    "pods": (
        (
            ("Name", 0), ("Ready", 0), ("Status", 0), ("Restarts", 0), ("Age", 0),
            ("IP", 1), ("Node", 1), ("Nominated Node", 1), ("Readiness Gates", 1),
        ),
        _pod,
    ),
    "services": (
        (
            ("Name", 0), ("Type", 0), ("Cluster-IP", 0), ("External-IP", 0), ("Port(s)", 0), ("Age", 0),
            ("Selector", 1),
        ),
        _service,
    ),
    "deployments.apps": (
        (("Name", 0), ("Ready", 0), ("Up-to-date", 0), ("Available", 0), *_WORKLOAD),
        _deployment,
    ),
    "replicasets.apps": (
        (("Name", 0), ("Desired", 0), ("Current", 0), ("Ready", 0), *_WORKLOAD),
        _replicaset,
    ),
    "nodes": (
        (
            ("Name", 0), ("Status", 0), ("Roles", 0), ("Age", 0), ("Version", 0), ("Internal-IP", 1),
            ("External-IP", 1), ("OS-Image", 1), ("Kernel-Version", 1), ("Container-Runtime", 1),
        ),
        _node,
    ),
    "namespaces": ((("Name", 0), ("Status", 0), ("Age", 0)), _namespace),
    "endpoints": ((("Name", 0), ("Endpoints", 0), ("Age", 0)), _endpoints),
    "endpointslices.discovery.k8s.io": (
        (("Name", 0), ("AddressType", 0), ("Ports", 0), ("Endpoints", 0), ("Age", 0)),
        _slice,
    ),
    "events": ((("Last Seen", 0), ("Type", 0), ("Reason", 0), ("Object", 0), ("Message", 0)), _event),
}  # fmt: skip
"""Columns and row of each resource that has its own; all others are shown by name and age."""


def now() -> datetime:
    """The present, for ages."""
    return datetime.now(UTC)
