"""`describe`: one object in detail, laid out as kubectl lays it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import click

from nsk8s.api.kinds import BY_KIND, Resource
from nsk8s.api.types import Obj
from nsk8s.cli import completing
from nsk8s.cli.names import path, targets
from nsk8s.cli.options import cluster_option, connect, namespace_option, selector_option
from nsk8s.cli.tables import dump
from nsk8s.client import Client
from nsk8s.paths import ClusterPaths

Rows = list[tuple[str, Any]]
"""Label and value; a value that is a list is shown one line an item, Rows are indented below their label."""


@click.command()
@click.argument(
    "words", nargs=-1, required=True, metavar="TYPE [NAME...] | TYPE/NAME...", shell_complete=completing.words
)
@namespace_option
@selector_option
@cluster_option
def describe(cluster: ClusterPaths, words: tuple[str, ...], namespace: str, selector: str) -> None:
    """Show one object in detail: what it asks for, what it has, and for pods how their containers run.

    \b
    Examples:
      nsk8s describe svc web
      nsk8s describe pod/nginx-pod
    """
    client = connect(cluster)
    first = True
    for target in targets(words):
        if target.names:
            objects = [client.get(path(target.resource, namespace, name)) for name in target.names]
        else:
            query = f"?{urlencode({'labelSelector': selector})}" if selector else ""
            items = client.get(path(target.resource, namespace) + query)["items"]
            objects = [
                {"apiVersion": target.resource.api_version, "kind": target.resource.kind, **o} for o in items
            ]
        for obj in objects:
            if not first:
                click.echo("\n")
            first = False
            click.echo("\n".join(lines(described(client, target.resource, obj))))


def described(client: Client, resource: Resource, obj: Obj) -> Rows:
    """The rows for one object."""
    writer = WRITERS.get(resource.kind)
    if writer is None:
        return [*_meta(obj, resource), *_rest(obj)]
    return writer(client, obj)


def lines(rows: Rows, indent: str = "") -> Iterable[str]:
    """Rows as text: values in one column, two spaces after the longest label of the group."""
    width = max((len(label) + 1 for label, value in rows if not _nested(value)), default=0) + 2
    for label, value in rows:
        head = f"{indent}{label}:"
        if _nested(value):
            yield head
            yield from lines(value, indent + "  ")
        elif isinstance(value, list):
            items = [str(v) for v in value] or ["<none>"]
            yield f"{head.ljust(len(indent) + width)}{items[0]}"
            for item in items[1:]:
                yield f"{' ' * (len(indent) + width)}{item}"
        else:
            text = "<none>" if value in (None, "") else str(value)
            yield f"{head.ljust(len(indent) + width)}{text}".rstrip()


def _nested(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], tuple)


def _pairs(mapping: dict[str, str] | None) -> list[str]:
    return [f"{k}={v}" for k, v in sorted((mapping or {}).items())]


def _meta(obj: Obj, resource: Resource | None = None) -> Rows:
    meta = obj["metadata"]
    rows: Rows = [("Name", meta["name"])]
    if resource is None or resource.namespaced:
        rows.append(("Namespace", meta.get("namespace", "")))
    hidden = "kubectl.kubernetes.io/last-applied-configuration"
    annotations = [f"{k}: {v}" for k, v in sorted((meta.get("annotations") or {}).items()) if k != hidden]
    return [*rows, ("Labels", _pairs(meta.get("labels"))), ("Annotations", annotations)]


def _rest(obj: Obj) -> Rows:
    """Everything else of a kind that has no layout of its own, as YAML."""
    body = {k: v for k, v in obj.items() if k not in ("metadata",)}
    return [("Object", dump(body, "yaml").splitlines())]


def _time(text: str | None) -> str:
    """RFC 1123 with the zone, as kubectl shows it."""
    if not text:
        return ""
    parsed = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)
    return parsed.strftime("%a, %d %b %Y %H:%M:%S +0000")


# --- pods -------------------------------------------------------------------------------------------


def _pod(client: Client, obj: Obj) -> Rows:
    meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    owner = next((o for o in meta.get("ownerReferences") or () if o.get("controller")), None)
    node = spec.get("nodeName", "")
    rows = _meta(obj)
    rows[2:2] = [
        ("Node", f"{node}/{status.get('hostIP', '')}" if node else ""),
        ("Start Time", _time(status.get("startTime"))),
    ]
    shown = status.get("phase", "Pending")
    if meta.get("deletionTimestamp"):
        shown = f"Terminating (lasts until {_time(meta['deletionTimestamp'])})"
    rows += [("Status", shown), ("IP", status.get("podIP"))]
    rows.append(("IPs", [("IP", ip["ip"]) for ip in status.get("podIPs") or ()]))
    if owner:
        rows.append(("Controlled By", f"{owner['kind']}/{owner['name']}"))
    inits = spec.get("initContainers") or ()
    if inits:
        states = status.get("initContainerStatuses") or ()
        rows.append(("Init Containers", [(c["name"], _container(c, states)) for c in inits]))
    states = status.get("containerStatuses") or ()
    rows.append(("Containers", [(c["name"], _container(c, states)) for c in spec["containers"]]))
    rows.append(("Conditions", [(c["type"], _condition(c)) for c in status.get("conditions") or ()]))
    rows.append(("Node-Selectors", _pairs(spec.get("nodeSelector"))))
    rows.append(("Tolerations", [_toleration(t) for t in spec.get("tolerations") or ()]))
    return [*rows, *_events(client, obj)]


def _condition(condition: Obj) -> str:
    """Its status, and why it does not hold."""
    message = condition.get("message")
    why = ": ".join(part for part in (condition.get("reason"), message) if part)
    return (
        f"{condition['status']} ({why})"
        if message and condition["status"] == "False"
        else condition["status"]
    )


def _container(container: Obj, statuses: Iterable[Obj]) -> Rows:
    status: Obj = next((s for s in statuses if s["name"] == container["name"]), {})
    ports = [f"{p['containerPort']}/{p.get('protocol', 'TCP')}" for p in container.get("ports") or ()]
    hosts = [f"{p.get('hostPort', 0)}/{p.get('protocol', 'TCP')}" for p in container.get("ports") or ()]
    rows: Rows = [
        ("Container ID", status.get("containerID")),
        ("Image", container.get("image")),
        ("Runs as", status.get("imageID")),
        ("Port" if len(ports) < 2 else "Ports", ", ".join(ports)),
        ("Host Port" if len(hosts) < 2 else "Host Ports", ", ".join(hosts)),
    ]
    for label, words in (("Command", container.get("command")), ("Args", container.get("args"))):
        if words:
            rows.append((label, list(words)))
    rows += _state("State", status.get("state") or {})
    if status.get("lastState"):
        rows += _state("Last State", status["lastState"])
    rows += [("Ready", status.get("ready", False)), ("Restart Count", status.get("restartCount", 0))]
    for kind in ("liveness", "readiness", "startup"):
        if probe := container.get(f"{kind}Probe"):
            rows.append((kind.capitalize(), _probe(probe)))
    env = [f"{e['name']}: {e.get('value', '')}" for e in container.get("env") or ()]
    rows.append(("Environment", env))
    return rows


def _state(label: str, state: Obj) -> Rows:
    name: str = next(iter(state), "waiting")
    detail: Obj = state.get(name) or {}
    rows: Rows = [(label, name.capitalize())]
    for key, title in (("reason", "  Reason"), ("message", "  Message"), ("exitCode", "  Exit Code")):
        if key in detail:
            rows.append((title, str(detail[key])))
    for key, title in (("startedAt", "  Started"), ("finishedAt", "  Finished")):
        if detail.get(key):
            rows.append((title, _time(detail[key])))
    return rows


def _probe(probe: Obj) -> str:
    if action := probe.get("httpGet"):
        scheme, host = action.get("scheme", "HTTP").lower(), action.get("host", "")
        what = f"http-get {scheme}://{host}:{action['port']}{action.get('path', '/')}"
    elif action := probe.get("tcpSocket"):
        what = f"tcp-socket {action.get('host', '')}:{action['port']}"
    else:
        what = f"exec [{' '.join((probe.get('exec') or {}).get('command', ()))}]"
    numbers = (
        f"delay={probe.get('initialDelaySeconds', 0)}s timeout={probe.get('timeoutSeconds', 1)}s "
        f"period={probe.get('periodSeconds', 10)}s #success={probe.get('successThreshold', 1)} "
        f"#failure={probe.get('failureThreshold', 3)}"
    )
    return f"{what} {numbers}"


def _toleration(toleration: Obj) -> str:
    key = toleration.get("key", "")
    value = f"={toleration['value']}" if toleration.get("value") else ""
    effect = f":{toleration['effect']}" if toleration.get("effect") else ""
    op = " op=Exists" if toleration.get("operator") == "Exists" else ""
    return f"{key}{value}{effect}{op}"


# --- services, nodes, controllers ---------------------------------------------------------------------


def _service(client: Client, obj: Obj) -> Rows:
    spec = obj["spec"]
    rows = _meta(obj)
    rows += [
        ("Selector", ",".join(_pairs(spec.get("selector")))),
        ("Type", spec.get("type", "ClusterIP")),
        ("IP Family Policy", spec.get("ipFamilyPolicy")),
        ("IP Families", ",".join(spec.get("ipFamilies") or ())),
        ("IP", spec.get("clusterIP")),
        ("IPs", ",".join(spec.get("clusterIPs") or ())),
    ]
    if spec.get("externalIPs"):
        rows.append(("External IPs", ",".join(spec["externalIPs"])))
    slices = client.get(
        path(BY_KIND[("discovery.k8s.io/v1", "EndpointSlice")], obj["metadata"]["namespace"])
        + "?"
        + urlencode({"labelSelector": f"kubernetes.io/service-name={obj['metadata']['name']}"})
    )["items"]
    for port in spec.get("ports") or ():
        name, protocol = port.get("name") or "<unset>", port.get("protocol", "TCP")
        rows.append(("Port", f"{name}  {port['port']}/{protocol}"))
        rows.append(("TargetPort", f"{port.get('targetPort', port['port'])}/{protocol}"))
        if port.get("nodePort"):
            rows.append(("NodePort", f"{name}  {port['nodePort']}/{protocol}"))
        rows.append(("Endpoints", _endpoints(slices, port)))
    rows.append(("Session Affinity", spec.get("sessionAffinity", "None")))
    if spec.get("type") == "NodePort":
        rows.append(("External Traffic Policy", spec.get("externalTrafficPolicy", "Cluster")))
    rows.append(("Internal Traffic Policy", spec.get("internalTrafficPolicy", "Cluster")))
    return [*rows, *_events(client, obj)]


def _endpoints(slices: Iterable[Obj], port: Obj) -> str:
    """``ip:port`` of the ready endpoints; three, and how many more, as kubectl shows them."""
    found = [
        f"{address}:{p['port']}"
        for piece in slices
        for p in piece.get("ports") or ()
        if (p.get("name") or "") == (port.get("name") or "")
        for endpoint in piece.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in endpoint["addresses"]
    ]
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""
    return ",".join(sorted(found)[:3]) + more


def _node(client: Client, obj: Obj) -> Rows:
    spec, status = obj["spec"], obj.get("status") or {}
    prefix = "node-role.kubernetes.io/"
    roles = [k.removeprefix(prefix) for k in obj["metadata"].get("labels") or {} if k.startswith(prefix)]
    rows = _meta(obj, BY_KIND[("v1", "Node")])
    rows.insert(1, ("Roles", ",".join(roles)))
    taints = [
        f"{t['key']}{'=' + t['value'] if t.get('value') else ''}:{t['effect']}"
        for t in spec.get("taints") or ()
    ]
    rows += [
        ("CreationTimestamp", _time(obj["metadata"].get("creationTimestamp"))),
        ("Taints", taints),
        ("Unschedulable", str(spec.get("unschedulable", False)).lower()),
        (
            "Conditions",
            [(c["type"], f"{c['status']} ({c.get('reason', '')})") for c in status.get("conditions") or ()],
        ),
        ("Addresses", [(a["type"], a["address"]) for a in status.get("addresses") or ()]),
        ("PodCIDR", spec.get("podCIDR")),
        ("PodCIDRs", ",".join(spec.get("podCIDRs") or ())),
    ]
    query = urlencode({"fieldSelector": f"spec.nodeName={obj['metadata']['name']}"})
    pods = client.get(f"/api/v1/pods?{query}")["items"]
    names = [f"{p['metadata']['namespace']}/{p['metadata']['name']}" for p in pods]
    rows.append((f"Non-terminated Pods ({len(names)} in total)", names))
    return [*rows, *_events(client, obj)]


def _deployment(client: Client, obj: Obj) -> Rows:
    spec, status = obj["spec"], obj.get("status") or {}
    template = spec["template"]
    rows = _meta(obj)
    rows.insert(2, ("CreationTimestamp", _time(obj["metadata"].get("creationTimestamp"))))
    desired, total = spec.get("replicas", 1), status.get("replicas", 0)
    if obj["kind"] == "Deployment":
        updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
        counts = (
            f"{desired} desired | {updated} updated | {total} total | "
            f"{available} available | {status.get('unavailableReplicas', 0)} unavailable"
        )
        rolling = (spec.get("strategy") or {}).get("rollingUpdate") or {}
        more: Rows = [
            ("Replicas", counts),
            ("StrategyType", (spec.get("strategy") or {}).get("type", "RollingUpdate")),
            ("MinReadySeconds", str(spec.get("minReadySeconds", 0))),
        ]
        if rolling:
            more.append(
                (
                    "RollingUpdateStrategy",
                    f"{rolling.get('maxUnavailable')} max unavailable, {rolling.get('maxSurge')} max surge",
                )
            )
    else:
        more = [("Replicas", f"{total} current / {desired} desired")]
    rows.append(("Selector", ",".join(_pairs(spec["selector"].get("matchLabels")))))
    rows += more
    rows.append(
        (
            "Pod Template",
            [("Labels", _pairs((template.get("metadata") or {}).get("labels"))), *_template(template)],
        )
    )
    rows.append(
        (
            "Conditions",
            [(c["type"], f"{c['status']} ({c.get('reason', '')})") for c in status.get("conditions") or ()],
        )
    )
    return [*rows, *_events(client, obj)]


def _template(template: Obj) -> Rows:
    return [
        (
            "Containers",
            [
                (
                    c["name"],
                    [
                        ("Image", c.get("image")),
                        (
                            "Port",
                            ", ".join(
                                f"{p['containerPort']}/{p.get('protocol', 'TCP')}"
                                for p in c.get("ports") or ()
                            ),
                        ),
                    ],
                )
                for c in template["spec"]["containers"]
            ],
        )
    ]


def _events(client: Client, obj: Obj) -> Rows:
    query = urlencode({"fieldSelector": f"involvedObject.uid={obj['metadata']['uid']}"})
    items = client.get(f"/api/v1/events?{query}")["items"]
    return [("Events", [f"{e.get('type')}  {e.get('reason')}  {e.get('message')}" for e in items])]


WRITERS: dict[str, Callable[[Client, Obj], Rows]] = {
    "Pod": _pod,
    "Service": _service,
    "Node": _node,
    "Deployment": _deployment,
    "ReplicaSet": _deployment,
}
