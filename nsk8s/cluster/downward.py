"""The downward API: what a pod's containers are told of the pod (pkg/fieldpath, pkg/api/v1/resource)."""

from __future__ import annotations

from math import ceil

from nsk8s.api.gojson import quoted
from nsk8s.api.quantities import quantity
from nsk8s.api.types import Container, Pod, ResourceFieldSelector
from nsk8s.cluster.store import Store


def field(pod: Pod, path: str) -> str:
    """What a pod says at `path`; "" where it has nothing to say."""
    meta, spec, status = pod.metadata, pod.spec, pod.status
    maps = {"metadata.labels": meta.labels, "metadata.annotations": meta.annotations}
    name, bracket, rest = path.partition("['")
    if bracket:
        return maps.get(name, {}).get(rest.removesuffix("']"), "")
    if path in maps:  # only files can have these
        return "\n".join(f"{key}={quoted(value)}" for key, value in sorted(maps[path].items()))
    return {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "spec.nodeName": spec.nodeName,
        "spec.serviceAccountName": spec.serviceAccountName,
        "status.hostIP": status.hostIP,
        "status.hostIPs": ",".join(each.ip for each in status.hostIPs) or status.hostIP,
        "status.podIP": status.podIP,
        "status.podIPs": ",".join(status.ips),
    }.get(path, "")


def resource(store: Store, pod: Pod, container: Container, asked: ResourceFieldSelector) -> str:
    """What a container requests or may have of a resource, in units of the divisor, rounded up; without a
    limit, what the node has."""
    if asked.containerName:
        every = (*pod.spec.containers, *pod.spec.initContainers)
        container = next((c for c in every if c.name == asked.containerName), container)
    which, _, name = asked.resource.partition(".")
    limits, requests = container.resources.limits, container.resources.requests
    amount = quantity((limits if which == "limits" else requests).get(name))
    if amount is None and which == "limits":
        node = store.get("nodes", "", pod.spec.nodeName) or {}
        amount = quantity(((node.get("status") or {}).get("allocatable") or {}).get(name))
    return str(ceil((amount or 0) / (quantity(asked.divisor) or 1)))
