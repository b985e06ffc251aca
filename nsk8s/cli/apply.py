"""`apply` and `delete`: objects of files, or by name."""

from __future__ import annotations

from collections.abc import Sequence

import click

from nsk8s.api.kinds import Resource
from nsk8s.api.types import Obj
from nsk8s.cli import completing
from nsk8s.cli.failures import Failures
from nsk8s.cli.files import expand
from nsk8s.cli.names import asking, chosen, path, served_kinds, shown
from nsk8s.cli.options import (
    DURATION,
    all_namespaces_option,
    cluster_option,
    connect,
    everything_option,
    files_option,
    recursive_option,
    selector_option,
)
from nsk8s.client import Client
from nsk8s.errors import Timeout, UsageError, UserError
from nsk8s.paths import ClusterPaths


@click.command()
@files_option
@recursive_option
@click.option(
    "-n",
    "--namespace",
    default="",
    metavar="NAME",
    shell_complete=completing.namespaces,
    help="For objects that name none.",
)
@cluster_option
def apply(cluster: ClusterPaths, files: tuple[str, ...], recursive: bool, namespace: str) -> int:
    """Apply manifests to a running cluster: create what is missing, change what differs.

    \b
    Examples:
      nsk8s apply -f web.yaml -f db.yaml
      nsk8s apply -f manifests/
      generate | nsk8s apply -f -
    """
    client = connect(cluster)
    objects = manifests(client, files, namespace, recursive=recursive)
    failures = Failures()
    stored: dict[str, None] = {}
    for resource, obj in objects:
        with failures.each():
            verdict = client.post("/nsk8s/v1/apply", obj)["verdict"]
            click.echo(f"{shown(resource, obj['metadata']['name'])} {verdict}")
            if verdict == "created" and not resource.acts:
                stored[resource.kind] = None
    if stored:
        click.echo(f"stored, and not acted on: {', '.join(stored)}", err=True)
    return failures.tell()


def manifests(
    client: Client, files: Sequence[str], namespace: str, *, recursive: bool
) -> list[tuple[Resource, Obj]]:
    """The objects of `files`, each with its kind and its namespace (`namespace`, or ``default``, if it
    names none).

    Raises `UsageError`, `ManifestError`, and `UserError` for a Cluster document.
    """
    from nsk8s.api import manifest

    if not files:
        raise UsageError("must specify one of -f", hint="-f FILE, -f DIRECTORY or -f - for standard input")
    read = manifest.read(expand(files, recursive=recursive), lambda: served_kinds(client))
    if read.topology is not None:
        raise UserError(
            f"{', '.join(files)}: holds a Cluster document, which `up` acts on", hint="nsk8s up FILE..."
        )
    resources = [read.resource(document.obj) for document in read.objects]
    return [(r, _placed(r, d.obj, namespace)) for r, d in zip(resources, read.objects, strict=True)]


def _placed(resource: Resource, obj: Obj, namespace: str) -> Obj:
    meta = obj["metadata"]
    if not resource.namespaced:
        return obj
    own = meta.get("namespace")
    if own and namespace and own != namespace:
        raise UserError(
            f'the namespace from the provided object "{own}" does not match the namespace "{namespace}"',
            hint=f"pass --namespace={own}, or none",
        )
    return {**obj, "metadata": {**meta, "namespace": own or namespace or "default"}}


# --- delete -----------------------------------------------------------------------------------------


@click.command()
@click.argument("words", nargs=-1, metavar="TYPE NAME... | TYPE/NAME...", shell_complete=completing.words)
@files_option
@recursive_option
@click.option("-n", "--namespace", default="", metavar="NAME", help="[default: default, or as the file says]")
@all_namespaces_option
@selector_option
@everything_option
@click.option("--grace-period", type=int, default=-1, metavar="SECONDS", help="-1: as the pod says.")
@click.option("--force", is_flag=True, help="At once, without waiting for what runs in the pod.")
@click.option("--now", is_flag=True, help="The same as --grace-period=1.")
@click.option(
    "--cascade",
    type=click.Choice(["background", "foreground", "orphan"]),
    default="background",
    show_default=True,
    help="What becomes of what it owns.",
)
@click.option(
    "--wait", type=bool, default=True, metavar="BOOL", help="--wait=false: do not wait until it is gone."
)
@click.option("--ignore-not-found", is_flag=True, help="No error for what does not exist.")
@click.option(
    "--timeout", type=DURATION, default="0s", metavar="DURATION", help="How long to wait; 0s: until gone."
)
@cluster_option
def delete(
    cluster: ClusterPaths,
    words: tuple[str, ...],
    files: tuple[str, ...],
    recursive: bool,
    namespace: str,
    all_namespaces: bool,
    selector: str,
    everything: bool,
    grace_period: int,
    force: bool,
    now: bool,
    cascade: str,
    wait: bool,
    ignore_not_found: bool,
    timeout: float,
) -> int:
    """Delete objects, and wait until they are gone.

    \b
    Examples:
      nsk8s delete pod nginx-pod
      nsk8s delete -f web.yaml
      nsk8s delete pods -l app=web
      nsk8s delete pod stuck --force --grace-period=0
    """
    if files and words:
        raise UsageError("objects of files and objects by name cannot be mixed", hint="-f FILE, or TYPE NAME")
    if now and grace_period >= 0:
        raise UsageError("--now and --grace-period cannot be specified together")
    if force and grace_period > 0:
        raise UsageError("--force and --grace-period greater than 0 cannot be specified together")
    grace = 1 if now else (0 if force else grace_period)
    client = connect(cluster)
    doomed: list[tuple[Resource, str, str]] = []
    if files:
        for resource, obj in manifests(client, files, namespace, recursive=recursive):
            doomed.append((resource, obj["metadata"].get("namespace", ""), obj["metadata"]["name"]))
    else:
        doomed += chosen(
            client,
            words,
            namespace or "default",
            selector=selector,
            everything=everything,
            everywhere=all_namespaces,
        )
        if not doomed:
            click.echo("No resources found")
    if force and doomed:
        click.echo(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been "
            "terminated. The resource may continue to run on the cluster indefinitely.",
            err=True,
        )
    body: Obj = {"propagationPolicy": cascade.capitalize()}
    if grace >= 0:
        body["gracePeriodSeconds"] = grace
    failures = Failures(ignored=404 if ignore_not_found or everything or selector else 0)
    gone: list[tuple[Resource, str, str, str]] = []
    for resource, place, name in doomed:
        with failures.each():
            answer = client.request("DELETE", path(resource, place, name), body)
            kind = shown(resource, "").rstrip("/")
            click.echo(f'{kind} "{name}" {"force " if grace == 0 else ""}deleted')
            about = answer["details"] if answer["kind"] == "Status" else answer["metadata"]
            gone.append((resource, place, name, about.get("uid", "")))
    if wait:
        for resource, place, name, uid in gone:
            _until_gone(client, resource, place, name, uid, timeout)
    return failures.tell()


def _until_gone(client: Client, resource: Resource, place: str, name: str, uid: str, timeout: float) -> None:
    """Wait until the object of this UID is no more. Raises `Timeout`."""
    address, query = path(resource, place), {"fieldSelector": f"metadata.name={name}"}
    listing = client.get(asking(address, query))
    if not any(item["metadata"]["uid"] == uid for item in listing["items"]):
        return
    query |= {"watch": "true", "resourceVersion": listing["metadata"]["resourceVersion"]}
    if timeout:
        query["timeoutSeconds"] = str(max(1, round(timeout)))
    for event in client.watch(asking(address, query)):
        if event["type"] == "DELETED" and event["object"]["metadata"]["uid"] == uid:
            return
    raise Timeout(
        f"{shown(resource, name)} is still there after {timeout:g} s",
        hint=f"nsk8s get {shown(resource, name)} -o yaml shows its finalizers and its state",
    )
