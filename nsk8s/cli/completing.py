"""What the shell's Tab key offers: types, and the names of objects in the running cluster. Never an
error: where nothing is known, nothing is offered."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from nsk8s.api.kinds import RESOURCES, Resource, resource_of
from nsk8s.errors import NsK8sError


def words(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For ``TYPE NAME`` and ``TYPE/NAME``."""
    given: tuple[str, ...] = tuple(ctx.params.get(param.name or "") or ())
    kind, slash, start = incomplete.partition("/")
    if slash:
        resource = resource_of(kind)
        names = _names(ctx, resource, start) if resource else []
        return [CompletionItem(f"{kind}/{name}") for name in names]
    if not given:
        return [CompletionItem(r.plural) for r in RESOURCES if r.plural.startswith(incomplete)]
    resource = resource_of(given[0].split(",")[-1])
    return [CompletionItem(name) for name in _names(ctx, resource, incomplete)] if resource else []


def places(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For `exec`, `logs` and `capture`: pods by name, nodes as ``node/NAME``."""
    found = [CompletionItem(name) for name in _names(ctx, resource_of("pods"), incomplete)]
    prefix = "node/"
    if incomplete.startswith(prefix[: len(incomplete)]):
        start = incomplete.removeprefix(prefix) if incomplete.startswith(prefix) else ""
        found += [CompletionItem(prefix + name) for name in _names(ctx, resource_of("nodes"), start)]
    return found


def _names(ctx: click.Context, resource: Resource | None, start: str) -> list[str]:
    from nsk8s.cli.names import path
    from nsk8s.client import Client
    from nsk8s.daemon import launch

    if resource is None:
        return []
    try:
        client = Client(launch.choose(ctx.params.get("cluster_name")))
        namespace = ctx.params.get("namespace") or "default"
        items = client.get(path(resource, namespace))["items"]
    except (NsK8sError, OSError):
        return []
    return [name for item in items if (name := item["metadata"]["name"]).startswith(start)]
