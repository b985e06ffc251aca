"""`get`, `apply`, `delete`, `expose`, `scale` and `label`: kubectl's words for kubectl's jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlencode

import click

from nsk8s.api.kinds import BY_KIND, Resource
from nsk8s.api.types import Obj
from nsk8s.cli import completing
from nsk8s.cli.names import Target, one, path, shown, targets
from nsk8s.cli.options import cluster_option, connect
from nsk8s.cli.tables import TABLE_ACCEPT, dump, print_table, table_lines
from nsk8s.client import Client
from nsk8s.errors import ApiError, Timeout, UsageError, UserError
from nsk8s.paths import ClusterPaths

F = TypeVar("F", bound=Callable[..., Any])

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"

namespace_option = click.option("-n", "--namespace", default="default", show_default=True, metavar="NAME")
all_namespaces_option = click.option("-A", "--all-namespaces", is_flag=True, help="In every namespace.")
selector_option = click.option(
    "-l", "--selector", default="", metavar="a=b,c!=d,e in (f,g)", help="By label."
)
files_option = click.option("-f", "--filename", "files", multiple=True, metavar="FILE", help='"-" for stdin.')
wait_option = click.option(
    "--timeout", type=click.FloatRange(min=0), default=60.0, show_default=True, metavar="SECONDS"
)


@click.command()
@click.argument(
    "words", nargs=-1, metavar="TYPE[,TYPE] [NAME...] | TYPE/NAME...", shell_complete=completing.words
)
@namespace_option
@all_namespaces_option
@selector_option
@click.option(
    "--field-selector", default="", metavar="FIELD=VALUE", help="By field, such as spec.nodeName=w1."
)
@click.option("-o", "--output", type=click.Choice(["wide", "json", "yaml", "name"]), help="How to show it.")
@click.option("-w", "--watch", is_flag=True, help="Go on showing changes, until interrupted.")
@click.option("--no-headers", is_flag=True)
@click.option("--show-labels", is_flag=True)
@cluster_option
def get(
    cluster: ClusterPaths,
    words: tuple[str, ...],
    namespace: str,
    all_namespaces: bool,
    selector: str,
    field_selector: str,
    output: str | None,
    watch: bool,
    no_headers: bool,
    show_labels: bool,
) -> None:
    """Show objects.

    \b
    Examples:
      nsk8s get pods -o wide
      nsk8s get all -A
      nsk8s get svc/web -o yaml
    """
    client = connect(cluster)
    wanted = targets(words)
    if all_namespaces and any(t.names for t in wanted):
        raise UsageError("a name cannot be given together with --all-namespaces")
    query = {k: v for k, v in (("labelSelector", selector), ("fieldSelector", field_selector)) if v}
    where = None if all_namespaces else namespace
    if watch:
        if len(wanted) != 1 or len(wanted[0].names) > 1 or output not in (None, "wide", "name"):
            raise UsageError("--watch shows one resource as a table or by name")
        _watch(client, wanted[0], where, query, output, no_headers, show_labels)
        return
    if output in ("json", "yaml", "name"):
        _objects(client, wanted, where, query, output)
        return
    printed = 0
    several = len(wanted) > 1
    for target in wanted:
        for table in _tables(client, target, where, query):
            if not table["rows"]:
                continue
            if printed and several:
                click.echo()
            prefix = (
                f"{target.resource.singular}{'.' if target.resource.group else ''}{target.resource.group}/"
            )
            print_table(
                table,
                wide=output == "wide",
                namespaced=all_namespaces and target.resource.namespaced,
                headers=not no_headers,
                labels=show_labels,
                prefix=prefix if several else "",
            )
            printed += 1
    if not printed:
        place = "" if all_namespaces or not wanted[0].resource.namespaced else f" in {namespace} namespace"
        click.echo(f"No resources found{place}.", err=True)


def _tables(client: Client, target: Target, where: str | None, query: dict[str, str]) -> Iterator[Obj]:
    """One table for a resource: of all objects, or of the named ones together."""
    if not target.names:
        yield client.get(_query(path(target.resource, where), query), accept=TABLE_ACCEPT)
        return
    tables = [client.get(path(target.resource, where, name), accept=TABLE_ACCEPT) for name in target.names]
    yield {**tables[0], "rows": [row for table in tables for row in table["rows"]]}


def _objects(
    client: Client, wanted: list[Target], where: str | None, query: dict[str, str], output: str
) -> None:
    found: list[Obj] = []
    for target in wanted:
        if target.names:
            found += [client.get(path(target.resource, where, name)) for name in target.names]
        else:
            found += _listed(client, target.resource, where, query)
    if output == "name":
        for obj in found:
            click.echo(shown(BY_KIND[(obj["apiVersion"], obj["kind"])], obj["metadata"]["name"]))
        return
    single = len(wanted) == 1 and len(wanted[0].names) == 1
    everything = {"apiVersion": "v1", "kind": "List", "items": found, "metadata": {"resourceVersion": ""}}
    click.echo(dump(found[0] if single else everything, output), nl=False)


def _listed(client: Client, resource: Resource, where: str | None, query: dict[str, str]) -> list[Obj]:
    listing = client.get(_query(path(resource, where), query))
    return [{"apiVersion": resource.api_version, "kind": resource.kind, **o} for o in listing["items"]]


def _watch(
    client: Client,
    target: Target,
    where: str | None,
    query: dict[str, str],
    output: str | None,
    no_headers: bool,
    labels: bool,
) -> None:
    query = dict(query)
    if target.names:
        query["fieldSelector"] = f"metadata.name={target.names[0]}"
    address = path(target.resource, where)
    table = client.get(_query(address, query), accept=TABLE_ACCEPT)
    query |= {"watch": "true", "resourceVersion": table["metadata"]["resourceVersion"]}
    columns = table["columnDefinitions"]
    widths: list[int] = []
    headers = not no_headers
    for seen in [table, *()]:
        _lines(seen, columns, target.resource, where, output, headers, labels, widths)
    headers = headers and not table["rows"]
    for event in client.watch(_query(address, query), accept=TABLE_ACCEPT):
        if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
            _lines(event["object"], columns, target.resource, where, output, headers, labels, widths)
            headers = False


def _lines(
    table: Obj,
    columns: list[Obj],
    resource: Resource,
    where: str | None,
    output: str | None,
    headers: bool,
    labels: bool,
    widths: list[int],
) -> None:
    if output == "name":
        for row in table["rows"]:
            click.echo(shown(resource, row["object"]["metadata"]["name"]))
        return
    if not table["rows"]:
        return
    whole = {**table, "columnDefinitions": columns}
    namespaced = where is None and resource.namespaced
    for line in table_lines(
        whole, wide=output == "wide", namespaced=namespaced, headers=headers, labels=labels, widths=widths
    ):
        click.echo(line)


def _query(address: str, query: dict[str, str]) -> str:
    return f"{address}?{urlencode(query)}" if query else address


# --- writing ----------------------------------------------------------------------------------------


@click.command()
@files_option
@click.option("-n", "--namespace", default="", metavar="NAME", help="For objects that name none.")
@cluster_option
def apply(cluster: ClusterPaths, files: tuple[str, ...], namespace: str) -> None:
    """Apply manifests to a running cluster: create what is missing, change what differs."""
    client = connect(cluster)
    for obj in _read(files):
        resource = BY_KIND[(obj["apiVersion"], obj["kind"])]
        meta = obj["metadata"]
        place = meta.get("namespace") or namespace or "default"
        address = path(resource, place, meta["name"])
        before = _or_none(client, address)
        body = {**obj, "metadata": {**meta, "namespace": place}} if resource.namespaced else obj
        after = client.request("PATCH", f"{address}?fieldManager=nsk8s&force=true", body, content_type=APPLY)
        verdict = "created"
        if before is not None:
            same = before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
            verdict = "unchanged" if same else "configured"
        click.echo(f"{shown(resource, meta['name'])} {verdict}")


def _or_none(client: Client, address: str) -> Obj | None:
    try:
        return client.get(address)
    except ApiError as error:
        if error.code != 404:
            raise
        return None


def _read(files: tuple[str, ...]) -> list[Obj]:
    from nsk8s.api import manifest

    if not files:
        raise UsageError("must specify one of -f", hint="nsk8s apply -f FILE")
    read = manifest.read(files)
    if read.topology is not None:
        raise UserError(
            f"{', '.join(files)}: holds a Cluster document, which `up` acts on", hint="nsk8s up FILE..."
        )
    return [document.obj for document in read.objects]


@click.command()
@click.argument("words", nargs=-1, metavar="TYPE NAME... | TYPE/NAME...", shell_complete=completing.words)
@files_option
@namespace_option
@selector_option
@click.option("--all", "everything", is_flag=True, help="All objects of the type in the namespace.")
@click.option("--grace-period", type=int, default=-1, metavar="SECONDS", help="-1: as the pod says.")
@click.option("--force", is_flag=True, help="With --grace-period=0: at once.")
@click.option("--now", is_flag=True, help="The same as --grace-period=1.")
@click.option("--wait/--no-wait", default=True, help="Wait until it is gone.")
@click.option("--ignore-not-found", is_flag=True)
@wait_option
@cluster_option
def delete(
    cluster: ClusterPaths,
    words: tuple[str, ...],
    files: tuple[str, ...],
    namespace: str,
    selector: str,
    everything: bool,
    grace_period: int,
    force: bool,
    now: bool,
    wait: bool,
    ignore_not_found: bool,
    timeout: float,
) -> None:
    """Delete objects by name, by label or by file."""
    client = connect(cluster)
    doomed: list[tuple[Resource, str, str]] = []
    if files:
        for obj in _read(files):
            place = obj["metadata"].get("namespace") or namespace
            doomed.append((BY_KIND[(obj["apiVersion"], obj["kind"])], place, obj["metadata"]["name"]))
    else:
        for target in targets(words):
            names = list(target.names)
            if selector or everything:
                query = {"labelSelector": selector} if selector else {}
                names = [o["metadata"]["name"] for o in _listed(client, target.resource, namespace, query)]
            elif not names:
                raise UsageError("no name was given", hint="name objects, or give --all or -l SELECTOR")
            doomed += [(target.resource, namespace, name) for name in names]
    grace = 1 if now else (0 if force and grace_period < 0 else grace_period)
    body: Obj = {"propagationPolicy": "Background"} | ({"gracePeriodSeconds": grace} if grace >= 0 else {})
    gone: list[tuple[Resource, str, Obj]] = []
    for resource, place, name in doomed:
        address = path(resource, place, name)
        before = _or_none(client, address) if ignore_not_found else client.get(address)
        if before is None:
            continue
        client.request("DELETE", address, body)
        click.echo(f'{shown(resource, "").rstrip("/")} "{name}" {"force " if grace == 0 else ""}deleted')
        gone.append((resource, place, before))
    if wait:
        for resource, place, before in gone:
            _until_gone(client, resource, place, before, timeout)


def _until_gone(client: Client, resource: Resource, place: str, before: Obj, timeout: float) -> None:
    """Wait until an object of this UID is no more."""
    meta = before["metadata"]
    listing = client.get(_query(path(resource, place), {"fieldSelector": f"metadata.name={meta['name']}"}))
    if not any(item["metadata"]["uid"] == meta["uid"] for item in listing["items"]):
        return
    query = {
        "fieldSelector": f"metadata.name={meta['name']}",
        "watch": "true",
        "resourceVersion": listing["metadata"]["resourceVersion"],
        "timeoutSeconds": str(max(1, int(timeout))),
    }
    for event in client.watch(_query(path(resource, place), query)):
        if event["type"] == "DELETED" and event["object"]["metadata"]["uid"] == meta["uid"]:
            return
    raise Timeout(
        f"{shown(resource, meta['name'])} is still there after {timeout:g} s",
        hint=f"nsk8s get {shown(resource, meta['name'])} -o yaml shows its finalizers and its state",
    )


@click.command()
@click.argument(
    "words", nargs=-1, required=True, metavar="TYPE NAME | TYPE/NAME", shell_complete=completing.words
)
@click.option("--port", type=int, help="The service's port; the container's own ports if not given.")
@click.option("--target-port", metavar="PORT|NAME", help="The pods' port; the same as --port if not given.")
@click.option("--protocol", type=click.Choice(["TCP", "UDP"]), default="TCP", show_default=True)
@click.option("--type", "kind", type=click.Choice(["ClusterIP", "NodePort"]), default="ClusterIP")
@click.option("--name", metavar="NAME", help="The service's name; the object's own if not given.")
@click.option("--selector", "selector", metavar="a=b,c=d", help="Instead of the object's own labels.")
@click.option("--cluster-ip", default="", metavar="IP|None")
@click.option("--external-ip", default="", metavar="IP")
@click.option("--session-affinity", type=click.Choice(["None", "ClientIP"]), default=None)
@click.option("-l", "--labels", default="", metavar="a=b", help="Labels for the service.")
@namespace_option
@cluster_option
def expose(
    cluster: ClusterPaths,
    words: tuple[str, ...],
    port: int | None,
    target_port: str | None,
    protocol: str,
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
    client = connect(cluster)
    resource, source = one(words)
    obj = client.get(path(resource, namespace, source))
    chosen = _pairs(selector) if selector else _selector(resource, obj)
    target: int | str | None = int(target_port) if target_port and target_port.isdigit() else target_port
    if port is not None:
        ports: list[Obj] = [{"port": port, "protocol": protocol, "targetPort": target or port}]
    else:
        ports = _ports(resource, obj, target)
    spec: Obj = {"type": kind, "selector": chosen, "ports": ports}
    if cluster_ip:
        spec["clusterIP"] = cluster_ip
    if external_ip:
        spec["externalIPs"] = [external_ip]
    if session_affinity:
        spec["sessionAffinity"] = session_affinity
    meta: Obj = {"name": name or source, "namespace": namespace}
    carried = _pairs(labels) if labels else obj["metadata"].get("labels")
    if carried:
        meta["labels"] = carried
    service = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}
    client.post(path(BY_KIND[("v1", "Service")], namespace), service)
    click.echo(f"service/{meta['name']} exposed")


def _selector(resource: Resource, obj: Obj) -> dict[str, str]:
    """The labels that pick the object's pods (kubectl's polymorphic helpers)."""
    spec = obj.get("spec") or {}
    if resource.kind == "Pod":
        found = obj["metadata"].get("labels")
        if not found:
            raise UserError(
                "the pod has no labels and cannot be exposed", hint="nsk8s label pod NAME key=value"
            )
    elif resource.kind == "Service":
        found = spec.get("selector")
    elif resource.kind in ("Deployment", "ReplicaSet"):
        if spec["selector"].get("matchExpressions"):
            raise UserError(
                "cannot convert a selector with matchExpressions to a service's", hint="--selector a=b"
            )
        found = spec["selector"].get("matchLabels")
    else:
        raise UsageError(f"cannot expose a {resource.kind}", hint="a pod, deployment, replica set or service")
    if not found:
        raise UserError(f"the {resource.kind} has no selector to expose by", hint="--selector a=b")
    return dict(found)


def _ports(resource: Resource, obj: Obj, target: int | str | None) -> list[Obj]:
    """The ports that the object itself names: one stays unnamed, several become port-1, port-2, …"""
    spec = obj.get("spec") or {}
    if resource.kind == "Service":
        named = [(p["port"], p.get("protocol", "TCP")) for p in spec.get("ports", ())]
    else:
        pod = spec if resource.kind == "Pod" else spec["template"]["spec"]
        named = [
            (p["containerPort"], p.get("protocol", "TCP"))
            for container in pod.get("containers", ())
            for p in container.get("ports", ())
        ]
    if not named:
        raise UserError("couldn't find port via --port flag or introspection", hint="give --port=PORT")
    found: list[Obj] = [{"port": n, "protocol": p, "targetPort": target or n} for n, p in named]
    if len(found) > 1:
        found = [{"name": f"port-{i}", **p} for i, p in enumerate(found, 1)]
    return found


def _pairs(text: str) -> dict[str, str]:
    pairs = {}
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        if not equals or not key:
            raise UsageError(f"{part!r} is not KEY=VALUE")
        pairs[key] = value
    return pairs


@click.command()
@click.argument(
    "words", nargs=-1, required=True, metavar="TYPE NAME... | TYPE/NAME...", shell_complete=completing.words
)
@click.option("--replicas", type=click.IntRange(min=0), required=True, metavar="N")
@click.option(
    "--current-replicas", type=int, default=-1, metavar="N", help="Only if there are that many now."
)
@namespace_option
@cluster_option
def scale(
    cluster: ClusterPaths, words: tuple[str, ...], replicas: int, current_replicas: int, namespace: str
) -> None:
    """Set the number of replicas of a deployment or replica set."""
    client = connect(cluster)
    for target in targets(words):
        for name in target.names:
            address = path(target.resource, namespace, name, "scale")
            now = client.get(address)
            if current_replicas not in (-1, now["spec"].get("replicas", 0)):
                raise UserError(
                    f"{shown(target.resource, name)}: expected replicas to be {current_replicas}, "
                    f"was {now['spec'].get('replicas', 0)}"
                )
            client.request("PATCH", address, {"spec": {"replicas": replicas}}, content_type=MERGE)
            click.echo(f"{shown(target.resource, name)} scaled")


@click.command()
@click.argument(
    "words",
    nargs=-1,
    required=True,
    metavar="TYPE NAME... KEY=VALUE... KEY-...",
    shell_complete=completing.words,
)
@click.option("--overwrite", is_flag=True, help="Change a label that has another value.")
@click.option("--all", "everything", is_flag=True, help="All objects of the type in the namespace.")
@namespace_option
@cluster_option
def label(
    cluster: ClusterPaths, words: tuple[str, ...], overwrite: bool, everything: bool, namespace: str
) -> None:
    """Set labels (KEY=VALUE) or remove them (KEY-).

    \b
    Example:
      nsk8s label node w1 name=ingress
    """
    client = connect(cluster)
    changes: dict[str, str | None] = {}
    named: list[str] = []
    for word in words:
        if "=" in word:
            key, _, value = word.partition("=")
            changes[key] = value
        elif word.endswith("-") and "/" not in word.rstrip("-").rpartition("/")[0] and len(named) > 0:
            changes[word[:-1]] = None
        else:
            named.append(word)
    if not changes:
        raise UsageError("at least one label update is required", hint="KEY=VALUE sets, KEY- removes")
    for target in targets(named):
        names = list(target.names)
        if everything:
            names = [o["metadata"]["name"] for o in _listed(client, target.resource, namespace, {})]
        for name in names:
            _relabel(client, target.resource, namespace, name, changes, overwrite)


def _relabel(
    client: Client,
    resource: Resource,
    namespace: str,
    name: str,
    changes: dict[str, str | None],
    overwrite: bool,
) -> None:
    address = path(resource, namespace, name)
    labels: dict[str, str] = client.get(address)["metadata"].get("labels") or {}
    for key, value in changes.items():
        if value is not None and labels.get(key, value) != value and not overwrite:
            raise UserError(
                f"'{key}' already has a value ({labels[key]}), and --overwrite is false",
                hint="add --overwrite to change it",
            )
    body = {"metadata": {"labels": changes}}
    client.request("PATCH", address, body, content_type=MERGE)
    removed = all(value is None for value in changes.values())
    same = all(labels.get(key) == value for key, value in changes.items())
    click.echo(f"{shown(resource, name)} {'not labeled' if same else 'unlabeled' if removed else 'labeled'}")
