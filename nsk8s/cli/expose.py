"""`expose`: a Service for the pods of something (kubectl's expose.go and its polymorphic helpers)."""

from __future__ import annotations

from collections.abc import Iterable

import click

from nsk8s.api.kinds import BY_KIND, Resource
from nsk8s.api.types import Obj
from nsk8s.cli import completing
from nsk8s.cli.names import one, path
from nsk8s.cli.options import cluster_option, connect, namespace_option
from nsk8s.errors import UsageError, UserError
from nsk8s.paths import ClusterPaths

EXPOSABLE = ("Pod", "Service", "Deployment", "ReplicaSet")


@click.command()
@click.argument(
    "words", nargs=-1, required=True, metavar="TYPE NAME | TYPE/NAME", shell_complete=completing.words
)
@click.option("--port", metavar="PORT[,PORT]", help="The service's ports; the containers' own if not given.")
@click.option("--target-port", metavar="PORT|NAME", help="The pods' port; the same as --port if not given.")
@click.option("--protocol", type=click.Choice(["TCP", "UDP", "SCTP"]), help="As the containers say, or TCP.")
@click.option(
    "--type", "kind", type=click.Choice(["ClusterIP", "NodePort", "LoadBalancer"]), default="ClusterIP"
)
@click.option("--name", metavar="NAME", help="The service's name; the object's own if not given.")
@click.option("--selector", "selector", metavar="a=b,c=d", help="Instead of the object's own.")
@click.option("--cluster-ip", default="", metavar="IP|None", help="Instead of a free one.")
@click.option("--external-ip", default="", metavar="IP", help="An address that the nodes shall accept.")
@click.option("--session-affinity", type=click.Choice(["None", "ClientIP"]), default=None)
@click.option("-l", "--labels", default="", metavar="a=b", help="Labels for the service.")
@namespace_option
@cluster_option
def expose(
    cluster: ClusterPaths,
    words: tuple[str, ...],
    port: str | None,
    target_port: str | None,
    protocol: str | None,
    kind: str,
    name: str | None,
    selector: str | None,
    cluster_ip: str,
    external_ip: str,
    session_affinity: str | None,
    labels: str,
    namespace: str,
) -> None:
    """Make a Service for a pod, deployment, replica set or service.

    \b
    Example:
      nsk8s expose deployment whoami-deployment --type=NodePort
    """
    resource, source = one(words)
    wanted = [_number(part) for part in port.split(",")] if port else []
    client = connect(cluster)
    obj = client.get(path(resource, namespace, source))
    if resource.kind not in EXPOSABLE:
        raise UserError(
            f"cannot expose a {resource.kind}", hint="a pod, a service, a deployment or a replica set"
        )
    spec: Obj = {
        "type": kind,
        "selector": pairs(selector) if selector else selector_of(resource, obj),
        "ports": ports_of(declared(resource, obj), wanted, protocol, target_port),
    }
    if cluster_ip:
        spec["clusterIP"] = cluster_ip
    if external_ip:
        spec["externalIPs"] = [external_ip]
    if session_affinity:
        spec["sessionAffinity"] = session_affinity
    meta: Obj = {"name": name or source, "namespace": namespace}
    carried = pairs(labels) if labels else obj["metadata"].get("labels")
    if carried:
        meta["labels"] = carried
    service = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}
    client.post(path(BY_KIND[("v1", "Service")], namespace), service)
    click.echo(f"service/{meta['name']} exposed")


def selector_of(resource: Resource, obj: Obj) -> dict[str, str]:
    """The labels that pick the object's pods. Raises `UserError` where there are none."""
    spec = obj.get("spec") or {}
    failed = "couldn't retrieve selectors via --selector flag or introspection: "
    if resource.kind == "Pod":
        if not obj["metadata"].get("labels"):
            raise UserError(
                f"{failed}the pod has no labels and cannot be exposed",
                hint=f"nsk8s label pod {obj['metadata']['name']} KEY=VALUE",
            )
        return dict(obj["metadata"]["labels"])
    if resource.kind == "Service":
        if not spec.get("selector"):
            raise UserError(f"{failed}the service has no pod selector set", hint="--selector a=b")
        return dict(spec["selector"])
    if spec["selector"].get("matchExpressions"):
        raise UserError(
            f'{failed}couldn\'t convert expressions - "{spec["selector"]["matchExpressions"]}" to map-based '
            "selector format",
            hint="--selector a=b",
        )
    return dict(spec["selector"].get("matchLabels") or {})


def declared(resource: Resource, obj: Obj) -> list[tuple[int, str]]:
    """The ports that the object itself names, with their protocols."""
    spec = obj.get("spec") or {}
    if resource.kind == "Service":
        return [(p["port"], p.get("protocol", "TCP")) for p in spec.get("ports") or ()]
    pod = spec if resource.kind == "Pod" else spec["template"]["spec"]
    return [
        (p["containerPort"], p.get("protocol", "TCP"))
        for container in pod.get("containers") or ()
        for p in container.get("ports") or ()
    ]


def ports_of(
    known: Iterable[tuple[int, str]], wanted: list[int], protocol: str | None, target: str | None
) -> list[Obj]:
    """The service's ports: those `wanted`, or all that are `known`. One stays unnamed, several become
    port-1, port-2, …; a number with several protocols becomes port-1-tcp, port-1-udp. Raises `UserError`."""
    protocols: dict[int, dict[str, None]] = {}
    for number, spoken in known:
        protocols.setdefault(number, {})[spoken] = None
    numbers = wanted or list(protocols)
    if not numbers:
        raise UserError("couldn't find port via --port flag or introspection", hint="give --port=PORT")
    to: int | str | None = int(target) if target and target.isdecimal() else target
    found: list[Obj] = []
    for index, number in enumerate(numbers, 1):
        spoken_here = [protocol] if protocol else list(protocols.get(number, ("TCP",)))
        for spoken in spoken_here:
            one: Obj = {"port": number, "protocol": spoken, "targetPort": to or number}
            if len(spoken_here) > 1:
                one["name"] = f"port-{index}-{spoken.lower()}"
            elif len(numbers) > 1:
                one["name"] = f"port-{index}"
            found.append(one)
    return found


def pairs(text: str) -> dict[str, str]:
    """``a=b,c=d``. Raises `UsageError`."""
    found = {}
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        if not equals or not key:
            raise UsageError(f"{part!r} is not KEY=VALUE", hint="a=b,c=d")
        found[key] = value
    return found


def _number(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise UsageError(f"--port: {text!r} is no port", hint="a number from 1 to 65535, or several: 80,443")
    return int(text)
