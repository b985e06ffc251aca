"""`describe`: one object in detail, laid out as kubectl's describe.go lays it out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import click

from nsk8s.api.age import age
from nsk8s.api.kinds import BY_KIND, Resource
from nsk8s.api.types import Obj
from nsk8s.cli import completing, describe_any, describe_pods
from nsk8s.cli.failures import Failures
from nsk8s.cli.layout import (
    aligned,
    conditions,
    controller,
    flat,
    head,
    indented,
    moment,
    notes,
    pairs,
    several,
)
from nsk8s.cli.names import asking, path, served_kinds, targets
from nsk8s.cli.options import (
    all_namespaces_option,
    cluster_option,
    connect,
    namespace_option,
    selector_option,
)
from nsk8s.client import Client
from nsk8s.errors import UsageError
from nsk8s.paths import ClusterPaths

SHOWN_ENDPOINTS = 3


@click.command()
@click.argument(
    "words", nargs=-1, required=True, metavar="TYPE [NAME...] | TYPE/NAME...", shell_complete=completing.words
)
@namespace_option
@all_namespaces_option
@selector_option
@cluster_option
def describe(
    cluster: ClusterPaths, words: tuple[str, ...], namespace: str, all_namespaces: bool, selector: str
) -> int:
    """Show one object in detail: what it asks for, what it has, and for pods how their containers run.

    \b
    Examples:
      nsk8s describe svc web
      nsk8s describe pod/nginx-pod
    """
    wanted = targets(words, lambda: served_kinds(connect(cluster)), only=bool(selector))
    if all_namespaces and any(target.names for target in wanted):
        raise UsageError("a resource cannot be retrieved by name across all namespaces")
    where = None if all_namespaces else namespace
    client = connect(cluster)
    failures = Failures()
    shown = 0
    for target in wanted:
        for name in target.names or (None,):
            with failures.each():
                for obj in _found(client, target.resource, where, name, selector):
                    click.echo("\n" if shown else "", nl=bool(shown))
                    click.echo("\n".join(described(client, target.resource, obj)))
                    shown += 1
    if not shown and not failures.met:
        named = where is not None and wanted[0].resource.namespaced
        click.echo(f"No resources found{f' in {where} namespace.' if named else ''}", err=True)
    return failures.tell()


def _found(
    client: Client, resource: Resource, where: str | None, name: str | None, selector: str
) -> Iterator[Obj]:
    if name is not None:
        yield client.get(path(resource, where, name))
        return
    query = {"labelSelector": selector} if selector else {}
    for item in client.get(asking(path(resource, where), query))["items"]:
        yield {"apiVersion": resource.api_version, "kind": resource.kind, **item}


def described(client: Client, resource: Resource, obj: Obj) -> list[str]:
    """The lines about one object."""
    writer = None if resource.custom else WRITERS.get(resource.kind)
    lines = _anything(obj) if writer is None else writer(client, obj)
    return [*aligned([*lines, *_events(client, obj)])]


def _anything(obj: Obj) -> Iterator[str]:
    yield from head(obj)
    yield from pairs("Labels", obj["metadata"].get("labels"))
    yield from notes(obj["metadata"].get("annotations"))
    yield from describe_any.fields(obj)


def _events(client: Client, obj: Obj) -> Iterator[str]:
    uids = [obj["metadata"]["uid"]]
    if obj.get("kind") == "Node":  # a kubelet knows its Node by the name only
        uids.append(obj["metadata"]["name"])
    items = [
        item
        for uid in uids
        for item in client.get(asking("/api/v1/events", {"fieldSelector": f"involvedObject.uid={uid}"}))[
            "items"
        ]
    ]
    if not items:
        yield "Events:\t<none>"
        return
    yield "Events:"
    yield "  Type\tReason\tAge\tFrom\tMessage"
    yield "  ----\t------\t----\t----\t-------"
    for one in sorted(items, key=_last_seen):
        seen = age(_last_seen(one), datetime.now(UTC))
        count = one.get("count") or (one.get("series") or {}).get("count", 1)
        if count > 1:
            first = age(one.get("firstTimestamp") or one.get("eventTime"), datetime.now(UTC))
            seen = f"{seen} (x{count} over {first})"
        source = (one.get("source") or {}).get("component") or one.get("reportingComponent", "")
        yield (
            f"  {one.get('type')}\t{one.get('reason')}\t{seen}\t{source}\t{one.get('message', '').strip()}"
        )


def _last_seen(event: Obj) -> str:
    """When an event was seen last; a scheduler's tells it as events.k8s.io does."""
    series = event.get("series") or {}
    return series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or ""


def _pod(_client: Client, obj: Obj) -> Iterator[str]:
    return describe_pods.pod(obj)


def _service(client: Client, obj: Obj) -> Iterator[str]:
    meta, spec = obj["metadata"], obj["spec"]
    yield from head(obj)
    yield from pairs("Labels", meta.get("labels"))
    yield from notes(meta.get("annotations"))
    yield f"Selector:\t{flat(spec.get('selector'))}"
    yield f"Type:\t{spec.get('type', 'ClusterIP')}"
    if spec.get("ipFamilyPolicy"):
        yield f"IP Family Policy:\t{spec['ipFamilyPolicy']}"
    yield f"IP Families:\t{','.join(spec.get('ipFamilies') or ()) or '<none>'}"
    yield f"IP:\t{spec.get('clusterIP', '')}"
    yield f"IPs:\t{','.join(spec.get('clusterIPs') or ()) or '<none>'}"
    if spec.get("externalIPs"):
        yield f"External IPs:\t{','.join(spec['externalIPs'])}"
    if spec.get("externalName"):
        yield f"External Name:\t{spec['externalName']}"
    if points := ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress"):
        yield f"LoadBalancer Ingress:\t{', '.join(map(_ingress, points))}"
    query = {"labelSelector": f"kubernetes.io/service-name={meta['name']}"}
    address = path(BY_KIND[("discovery.k8s.io/v1", "EndpointSlice")], meta["namespace"])
    slices = client.get(asking(address, query))["items"]
    for port in spec.get("ports") or ():
        name, protocol = port.get("name") or "<unset>", port.get("protocol", "TCP")
        yield f"Port:\t{name}\t{port['port']}/{protocol}"
        yield f"TargetPort:\t{port.get('targetPort', port['port'])}/{protocol}"
        if port.get("nodePort"):
            yield f"NodePort:\t{name}\t{port['nodePort']}/{protocol}"
        yield f"Endpoints:\t{_endpoints(slices, port)}"
    yield f"Session Affinity:\t{spec.get('sessionAffinity', 'None')}"
    for title in ("external", "internal"):
        if spec.get(f"{title}TrafficPolicy"):
            yield f"{title.capitalize()} Traffic Policy:\t{spec[f'{title}TrafficPolicy']}"
    if spec.get("healthCheckNodePort"):
        yield f"HealthCheck NodePort:\t{spec['healthCheckNodePort']}"
    if spec.get("loadBalancerSourceRanges"):
        yield f"LoadBalancer Source Ranges:\t{','.join(spec['loadBalancerSourceRanges'])}"


def _ingress(point: Obj) -> str:
    """An address of a load balancer, and who captures it."""
    if not point.get("ip"):
        return str(point.get("hostname", ""))
    return f"{point['ip']} ({point['ipMode']})" if point.get("ipMode") else str(point["ip"])


def _endpoints(slices: list[Obj], port: Obj) -> str:
    """``ip:port`` of the ready endpoints: three, and how many more."""
    if not slices:
        return "<none>"
    found = [
        f"{address}:{named['port']}"
        for piece in slices
        for named in piece.get("ports") or ()
        if (named.get("name") or "") == (port.get("name") or "")
        for endpoint in piece.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in endpoint["addresses"]
    ]
    more = f" + {len(found) - SHOWN_ENDPOINTS} more..." if len(found) > SHOWN_ENDPOINTS else ""
    return ",".join(found[:SHOWN_ENDPOINTS]) + more


def _deployment(client: Client, obj: Obj) -> Iterator[str]:
    meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    yield from head(obj)
    yield f"CreationTimestamp:\t{moment(meta.get('creationTimestamp'))}"
    yield from pairs("Labels", meta.get("labels"))
    yield from notes(meta.get("annotations"))
    yield f"Selector:\t{_selector(spec['selector'])}"
    yield (
        f"Replicas:\t{spec.get('replicas', 1)} desired | {status.get('updatedReplicas', 0)} updated | "
        f"{status.get('replicas', 0)} total | {status.get('availableReplicas', 0)} available | "
        f"{status.get('unavailableReplicas', 0)} unavailable"
    )
    strategy = spec.get("strategy") or {}
    yield f"StrategyType:\t{strategy.get('type', '')}"
    yield f"MinReadySeconds:\t{spec.get('minReadySeconds', 0)}"
    if rolling := strategy.get("rollingUpdate"):
        yield (
            f"RollingUpdateStrategy:\t{rolling.get('maxUnavailable')} max unavailable, "
            f"{rolling.get('maxSurge')} max surge"
        )
    yield from describe_pods.template(spec["template"])
    yield from conditions(status)
    revision = (meta.get("annotations") or {}).get(REVISION)
    owned = [r for r in _replicasets(client, meta["namespace"]) if _owner(r) == meta["uid"]]
    present = [r for r in owned if (r["metadata"].get("annotations") or {}).get(REVISION) == revision]
    former = [r for r in owned if r not in present and r["spec"].get("replicas", 1)]
    yield f"OldReplicaSets:\t{_made(former)}"
    yield f"NewReplicaSet:\t{_made(present)}"


REVISION = "deployment.kubernetes.io/revision"


def _replicasets(client: Client, namespace: str) -> list[Obj]:
    items: list[Obj] = client.get(path(BY_KIND[("apps/v1", "ReplicaSet")], namespace))["items"]
    return items


def _owner(obj: Obj) -> str:
    refs = obj["metadata"].get("ownerReferences") or ()
    return next((str(ref.get("uid")) for ref in refs if ref.get("controller")), "")


def _made(sets: list[Obj]) -> str:
    return (
        ", ".join(
            f"{r['metadata']['name']} ({(r.get('status') or {}).get('replicas', 0)}/"
            f"{r['spec'].get('replicas', 1)} replicas created)"
            for r in sets
        )
        or "<none>"
    )


def _selector(selector: Obj) -> str:
    """As metav1.FormatLabelSelector."""
    terms = [f"{k}={v}" for k, v in sorted((selector.get("matchLabels") or {}).items())]
    for one in selector.get("matchExpressions") or ():
        operator, values = one["operator"], ",".join(sorted(one.get("values") or ()))
        if operator in ("In", "NotIn"):
            terms.append(f"{one['key']} {operator.lower()} ({values})")
        else:
            terms.append(one["key"] if operator == "Exists" else f"!{one['key']}")
    return ",".join(terms) or "<none>"


def _replicaset(client: Client, obj: Obj) -> Iterator[str]:
    meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    yield from head(obj)
    yield f"Selector:\t{_selector(spec['selector'])}"
    yield from pairs("Labels", meta.get("labels"))
    yield from notes(meta.get("annotations"))
    yield from controller(obj)
    yield f"Replicas:\t{status.get('replicas', 0)} current / {spec.get('replicas', 1)} desired"
    address = path(BY_KIND[("v1", "Pod")], meta["namespace"])
    query = {"labelSelector": flat(spec["selector"].get("matchLabels"))}
    phases = [
        (one.get("status") or {}).get("phase", "Pending")
        for one in client.get(asking(address, query))["items"]
        if _owner(one) == meta["uid"]
    ]
    counted = (("Running", "Running"), ("Pending", "Waiting"), ("Succeeded",) * 2, ("Failed",) * 2)
    yield f"Pods Status:\t{' / '.join(f'{phases.count(phase)} {word}' for phase, word in counted)}"
    yield from describe_pods.template(spec["template"])
    yield from conditions(status)


def _endpoints_object(_client: Client, obj: Obj) -> Iterator[str]:
    yield from head(obj)
    yield from pairs("Labels", obj["metadata"].get("labels"))
    yield from notes(obj["metadata"].get("annotations"))
    yield "Subsets:"
    for subset in obj.get("subsets") or ():
        for title, field in (("Addresses", "addresses"), ("NotReadyAddresses", "notReadyAddresses")):
            listed = ",".join(one["ip"] for one in subset.get(field) or ())
            yield f"  {title}:\t{listed or '<none>'}"
        yield from indented(_ports(subset.get("ports") or ()))
        yield ""


def _ports(ports: Any) -> Iterator[str]:  # noqa: ANN401  # JSON
    if not ports:
        yield "Ports:\t<unset>"
        return
    yield "Ports:"
    yield "  Name\tPort\tProtocol"
    yield "  ----\t----\t--------"
    for port in ports:
        yield f"  {port.get('name') or '<unset>'}\t{port.get('port')}\t{port.get('protocol', 'TCP')}"


def _slice(_client: Client, obj: Obj) -> Iterator[str]:
    yield from head(obj)
    yield from pairs("Labels", obj["metadata"].get("labels"))
    yield from notes(obj["metadata"].get("annotations"))
    yield f"AddressType:\t{obj.get('addressType', '')}"
    yield from _ports(obj.get("ports") or ())
    endpoints = obj.get("endpoints") or ()
    yield "Endpoints:" if endpoints else "Endpoints:\t<none>"
    for one in endpoints:
        yield f"  - Addresses:\t{', '.join(one.get('addresses') or ())}"
        ready = (one.get("conditions") or {}).get("ready")
        yield "    Conditions:"
        yield f"      Ready:\t{'<unset>' if ready is None else str(ready).lower()}"
        yield f"    Hostname:\t{one.get('hostname') or '<unset>'}"
        if target := one.get("targetRef"):
            yield f"    TargetRef:\t{target.get('kind')}/{target.get('name')}"
        yield f"    NodeName:\t{one.get('nodeName') or '<unset>'}"
        yield f"    Zone:\t{one.get('zone') or '<unset>'}"


def _node(client: Client, obj: Obj) -> Iterator[str]:
    meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    prefix = "node-role.kubernetes.io/"
    roles = sorted(k.removeprefix(prefix) for k in meta.get("labels") or {} if k.startswith(prefix))
    yield from head(obj, namespaced=False)
    yield f"Roles:\t{','.join(roles) or '<none>'}"
    yield from pairs("Labels", meta.get("labels"))
    yield from notes(meta.get("annotations"))
    yield f"CreationTimestamp:\t{moment(meta.get('creationTimestamp'))}"
    taints = [
        f"{t['key']}{'=' + t['value'] if t.get('value') else ''}:{t['effect']}"
        for t in spec.get("taints") or ()
    ]
    yield from several("Taints", taints)
    yield f"Unschedulable:\t{str(bool(spec.get('unschedulable'))).lower()}"
    yield "Conditions:"
    yield "  Type\tStatus\tLastTransitionTime\tReason\tMessage"
    yield "  ----\t------\t------------------\t------\t-------"
    for one in status.get("conditions") or ():
        changed, why = moment(one.get("lastTransitionTime")), one.get("reason", "")
        yield f"  {one['type']} \t{one['status']} \t{changed} \t{why} \t{one.get('message', '')}"
    yield "Addresses:"
    yield from (f"  {a['type']}:\t{a['address']}" for a in status.get("addresses") or ())
    yield f"PodCIDR:\t{spec.get('podCIDR', '')}"
    yield f"PodCIDRs:\t{','.join(spec.get('podCIDRs') or ())}"
    pods = client.get(asking("/api/v1/pods", {"fieldSelector": f"spec.nodeName={meta['name']}"}))["items"]
    active = [p for p in pods if (p.get("status") or {}).get("phase") not in ("Succeeded", "Failed")]
    yield f"Non-terminated Pods:\t({len(active)} in total)"
    yield "  Namespace\tName\tAge"
    yield "  ---------\t----\t---"
    for one in active:
        old = age(one["metadata"].get("creationTimestamp"), datetime.now(UTC))
        yield f"  {one['metadata']['namespace']}\t{one['metadata']['name']}\t{old}"


def _namespace(_client: Client, obj: Obj) -> Iterator[str]:
    yield from head(obj, namespaced=False)
    yield from pairs("Labels", obj["metadata"].get("labels"))
    yield from notes(obj["metadata"].get("annotations"))
    yield f"Status:\t{(obj.get('status') or {}).get('phase', 'Active')}"


WRITERS: dict[str, Callable[[Client, Obj], Iterator[str]]] = {
    "Pod": _pod,
    "Service": _service,
    "Node": _node,
    "Namespace": _namespace,
    "Deployment": _deployment,
    "ReplicaSet": _replicaset,
    "Endpoints": _endpoints_object,
    "EndpointSlice": _slice,
}
