"""What the shell's Tab key offers: types, and the names of objects in the running cluster. Never an
error: where nothing is known, nothing is offered."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from nsk8s.api.kinds import RESOURCES, Resource, resource_of
from nsk8s.api.types import Obj
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
    """For `exec`, `logs` and `capture`: pods by name, or ``TYPE/NAME``."""
    kind, slash, start = incomplete.partition("/")
    if slash and kind == "client":
        return [CompletionItem(f"client/{name}") for name in _clients(ctx) if name.startswith(start)]
    if slash:
        return [CompletionItem(f"{kind}/{name}") for name in _names(ctx, resource_of(kind), start)]
    found = _names(ctx, resource_of("pods"), incomplete)
    if ctx.command.name != "logs":
        found += [word for word in ("node/", "client/") if word.startswith(incomplete)]
    return [CompletionItem(name) for name in found]


def ends(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For the ends of a connection: what `places` offers, and Services as targets."""
    kind, slash, start = incomplete.partition("/")
    if slash and kind == "svc":
        return [CompletionItem(f"svc/{name}") for name in _names(ctx, resource_of("services"), start)]
    services = ["svc/"] if param.name == "target" and "svc/".startswith(incomplete) else []
    return [*places(ctx, param, incomplete), *map(CompletionItem, services)]


def namespaces(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For ``-n``."""
    return [CompletionItem(name) for name in _names(ctx, resource_of("namespaces"), incomplete)]


def clusters(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For ``-C`` and `down`."""
    from nsk8s.kernel import holder

    try:
        return [CompletionItem(name) for name in holder.clusters() if name.startswith(incomplete)]
    except (NsK8sError, OSError):
        return []


def _names(ctx: click.Context, resource: Resource | None, start: str) -> list[str]:
    found = [item["metadata"]["name"] for item in _items(ctx, resource)]
    return [name for name in found if name.startswith(start)]


def _clients(ctx: click.Context) -> list[str]:
    specs = [item.get("spec") or {} for item in _items(ctx, resource_of("clusters"))]
    return [str(one["name"]) for spec in specs for one in spec.get("clients") or ()]


def _items(ctx: click.Context, resource: Resource | None) -> list[Obj]:
    from nsk8s.cli.names import path
    from nsk8s.client import Client
    from nsk8s.daemon import launch

    if resource is None:
        return []
    try:
        client = Client(launch.choose(ctx.params.get("cluster_name")))
        items: list[Obj] = client.get(path(resource, ctx.params.get("namespace") or "default"))["items"]
        client.close()
    except (NsK8sError, OSError):
        return []
    return items
