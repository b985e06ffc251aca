"""`label` and `scale`: small changes to objects that are there."""

from __future__ import annotations

from collections.abc import Iterable

import click

from nsk8s.api.kinds import Resource
from nsk8s.cli import completing
from nsk8s.cli.failures import Failures
from nsk8s.cli.names import chosen, path, shown
from nsk8s.cli.options import (
    all_namespaces_option,
    cluster_option,
    connect,
    everything_option,
    namespace_option,
    selector_option,
)
from nsk8s.client import Client
from nsk8s.errors import UsageError, UserError
from nsk8s.paths import ClusterPaths

MERGE = "application/merge-patch+json"


@click.command()
@click.argument(
    "words",
    nargs=-1,
    required=True,
    metavar="TYPE NAME... KEY=VALUE... KEY-...",
    shell_complete=completing.words,
)
@click.option("--overwrite", is_flag=True, help="Change a label that has another value.")
@everything_option
@selector_option
@namespace_option
@all_namespaces_option
@cluster_option
def label(
    cluster: ClusterPaths,
    words: tuple[str, ...],
    overwrite: bool,
    everything: bool,
    selector: str,
    namespace: str,
    all_namespaces: bool,
) -> int:
    """Set labels (KEY=VALUE) or remove them (KEY-).

    \b
    Examples:
      nsk8s label node w1 name=ingress
      nsk8s label pods --all tier-
    """
    named, changes = split(words)
    client = connect(cluster)
    failures = Failures()
    for resource, place, name in chosen(
        client, named, namespace, selector=selector, everything=everything, everywhere=all_namespaces
    ):
        with failures.each():
            _relabel(client, resource, place, name, changes, overwrite)
    return failures.tell()


def split(words: Iterable[str]) -> tuple[list[str], dict[str, str | None]]:
    """What names objects, and the changes (None: remove). Raises `UsageError`."""
    named: list[str] = []
    changes: dict[str, str | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals:
            change: str | None = value
        elif word.endswith("-") and named:
            key, change = word[:-1], None
        elif changes:
            raise UsageError(f"all resources must be specified before label changes: {word}")
        else:
            named.append(word)
            continue
        if not key:
            raise UsageError(f"{word!r} is no label", hint="KEY=VALUE sets, KEY- removes")
        if key in changes and (change is None) != (changes[key] is None):
            raise UsageError(
                "can not both modify and remove a label in the same command", hint=f"{key} is named twice"
            )
        changes[key] = change
    if not changes:
        raise UsageError("at least one label update is required", hint="KEY=VALUE sets, KEY- removes")
    return named, changes


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
        if value is None and key not in labels:
            click.echo(f'label "{key}" not found.')
        if value is not None and labels.get(key, value) != value and not overwrite:
            raise UserError(
                f"{shown(resource, name)}: '{key}' already has a value ({labels[key]}), and --overwrite is "
                "false",
                hint="add --overwrite to change it",
            )
    client.request("PATCH", address, {"metadata": {"labels": changes}}, content_type=MERGE)
    same = all(labels.get(key) == value for key, value in changes.items())
    removed = all(value is None for value in changes.values())
    click.echo(f"{shown(resource, name)} {'not labeled' if same else 'unlabeled' if removed else 'labeled'}")


@click.command()
@click.argument(
    "words", nargs=-1, required=True, metavar="TYPE NAME... | TYPE/NAME...", shell_complete=completing.words
)
@click.option("--replicas", type=click.IntRange(min=0), required=True, metavar="N")
@click.option(
    "--current-replicas", type=int, default=-1, metavar="N", help="Only if there are that many now."
)
@everything_option
@selector_option
@namespace_option
@cluster_option
def scale(
    cluster: ClusterPaths,
    words: tuple[str, ...],
    replicas: int,
    current_replicas: int,
    everything: bool,
    selector: str,
    namespace: str,
) -> int:
    """Set the number of replicas of a deployment or replica set.

    \b
    Example:
      nsk8s scale deployment web --replicas=5
    """
    client = connect(cluster)
    failures = Failures()
    for resource, place, name in chosen(client, words, namespace, selector=selector, everything=everything):
        with failures.each():
            address = path(resource, place, name, "scale")
            now = client.get(address)["spec"].get("replicas", 0) if current_replicas >= 0 else -1
            if current_replicas not in (-1, now):
                raise UserError(
                    f"{shown(resource, name)}: Expected replicas to be {current_replicas}, was {now}"
                )
            client.request("PATCH", address, {"spec": {"replicas": replicas}}, content_type=MERGE)
            click.echo(f"{shown(resource, name)} scaled")
    return failures.tell()
