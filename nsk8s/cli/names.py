"""How people name objects on a command line: ``TYPE NAME``, ``TYPE/NAME``, ``TYPE1,TYPE2``, ``all``; and
the paths under which the API serves them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from msgspec import Struct

from nsk8s.api.customresources import resources_of
from nsk8s.api.kinds import BUILTIN, RESOURCES, Kinds, Resource, kinds_of
from nsk8s.errors import UsageError

if TYPE_CHECKING:
    from nsk8s.client import Client

Served = Callable[[], Kinds]
"""The kinds of a cluster, for whoever needs them: to ask for them takes two requests."""


class Target(Struct, frozen=True):
    """Objects of one resource: those called `names`, or all if there are none."""

    resource: Resource
    names: tuple[str, ...] = ()


def builtin() -> Kinds:
    """The kinds that every cluster has."""
    return BUILTIN


def resource_named(word: str, served: Served = builtin) -> Resource:
    """The resource a person means (``deploy``, ``deployment.apps``, ``deployments.v1.apps``); `served` is
    asked only for what not every cluster has. Raises `UsageError` with the near miss, in kubectl's words."""
    found = _found(word, BUILTIN) or _found(word, served())
    if found is None:
        words = [w for r in RESOURCES for w in (r.plural, r.singular, *r.short)]
        near = difflib.get_close_matches(word.lower(), words, 1)
        raise UsageError(
            f'the server doesn\'t have a resource type "{word.partition(".")[0]}"',
            hint=f"did you mean {near[0]}?" if near else "nsk8s get --help lists the types",
        )
    return found


def _found(word: str, kinds: Kinds) -> Resource | None:
    """By any of its names, or as ``deployments.v1.apps``."""
    name, _, rest = word.lower().partition(".")
    version, _, group = rest.partition(".")
    found = kinds.resource_of(word)
    if found is None and (plain := kinds.resource_of(name)) is not None:
        found = kinds.by_path.get((group, version, plain.plural))
    return found


def targets(words: Sequence[str], served: Served = builtin, *, only: bool = False) -> list[Target]:
    """What the words of a command line name, each resource once in a row, where `served` are the kinds of
    the cluster. With `only`, objects are chosen by a selector or all, and names are refused. Raises
    `UsageError`."""
    if not words:
        raise UsageError(
            "you must say which resources, such as `pods`, `svc/NAME` or `all`",
            hint="TYPE NAME, TYPE/NAME, or TYPE alone for all",
        )
    if any("/" in word for word in words):
        found = _by_slash(words, served)
    else:
        resources: list[Resource] = []
        for kind in words[0].split(","):
            if kind == "all":
                named = [r for r in served().stored() if "all" in r.categories]
            else:
                named = [resource_named(kind, served)]
            resources += [r for r in named if r not in resources]
        found = [Target(resource, tuple(dict.fromkeys(words[1:]))) for resource in resources]
        if words[0] == "all" and len(words) > 1:
            raise UsageError("a name cannot be given with `all`", hint="TYPE/NAME names one object")
    for target in found:
        for name in target.names:
            segment(name)  # all of them before anything is done to one
    if only and any(target.names for target in found):
        raise UsageError(
            "name cannot be provided when a selector is specified", hint="names, or -l and --all"
        )
    return found


def _by_slash(words: Sequence[str], served: Served) -> list[Target]:
    found: list[Target] = []
    for word in words:
        kind, _, name = word.partition("/")
        if not kind or not name or "/" in name:
            raise UsageError(
                f"there is no need to specify a resource type as a separate argument when passing arguments "
                f"in resource/name form ({word!r} is no TYPE/NAME)",
                hint="TYPE/NAME TYPE/NAME, or TYPE NAME NAME",
            )
        resource = resource_named(kind, served)
        if found and found[-1].resource is resource:
            found[-1] = Target(resource, (*found[-1].names, name))
        else:
            found.append(Target(resource, (name,)))
    return found


def one(words: Sequence[str]) -> tuple[Resource, str]:
    """The single object that the words name. Raises `UsageError`."""
    found = targets(words)
    if len(found) != 1 or len(found[0].names) != 1:
        raise UsageError(f"{' '.join(words)!r} does not name one object", hint="TYPE NAME or TYPE/NAME")
    return found[0].resource, found[0].names[0]


def chosen(
    client: Client,
    words: Sequence[str],
    namespace: str,
    *,
    selector: str = "",
    everything: bool = False,
    everywhere: bool = False,
) -> Iterator[tuple[Resource, str, str]]:
    """The objects that a command is about, as (resource, namespace, name): those named, those that the
    `selector` takes, or all with `everything`. Raises `UsageError`."""
    if everything and selector:
        raise UsageError("--all and -l exclude each other", hint="-l SELECTOR alone takes all that match")
    by_query = bool(selector or everything)
    if everywhere and not by_query:
        raise UsageError("a resource cannot be named across all namespaces", hint="--all or -l SELECTOR")
    for target in targets(words, lambda: served_kinds(client), only=by_query):
        if by_query:
            address = path(target.resource, None if everywhere else namespace)
            query = {"labelSelector": selector} if selector else {}
            for item in client.get(asking(address, query))["items"]:
                meta = item["metadata"]
                yield target.resource, meta.get("namespace", ""), meta["name"]
        elif not target.names:
            raise UsageError(
                "resource(s) were provided, but no name was specified",
                hint="name objects, or give --all or -l SELECTOR",
            )
        for name in target.names:
            yield target.resource, namespace, name


def served_kinds(client: Client) -> Kinds:
    """The kinds of a running cluster. Raises what `Client.get` does."""
    groups = [group["name"] for group in client.get("/apis")["groups"]]
    found = kinds_of(legacy="extensions" in groups)
    definitions = resource_named("customresourcedefinitions")
    for crd in client.get(path(definitions, None))["items"]:
        for resource in resources_of(crd):
            found.add(resource)
    return found


def path(resource: Resource, namespace: str | None, name: str | None = None, subresource: str = "") -> str:
    """Where the API serves it; without a name all of them, `namespace` None means all namespaces. Raises
    what `segment` does."""
    root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    middle = f"/namespaces/{segment(namespace, 'namespace')}" if resource.namespaced and namespace else ""
    tail = "" if name is None else f"/{segment(name)}"
    return f"{root}{middle}/{resource.plural}{tail}" + (f"/{subresource}" if subresource else "")


def segment(word: str, what: str = "resource name") -> str:
    """A name as a part of a path. Raises `UsageError`, in kubectl's words, for one that would make it another
    path: an empty one that of all objects, ``..`` that of their namespace."""
    if not word:
        raise UsageError(f"{what} may not be empty", hint="a variable without a value? TYPE alone means all")
    if word in (".", ".."):
        raise UsageError(
            f"invalid {what} \"{word}\": [may not be '{word}']", hint="nsk8s get shows the names"
        )
    return quote(word, safe="")


def asking(address: str, query: Mapping[str, str]) -> str:
    """An address with its query."""
    return f"{address}?{urlencode(query)}" if query else address


def shown(resource: Resource, name: str) -> str:
    """As kubectl prints an object's name: ``deployment.apps/web``."""
    return f"{resource.singular}{'.' if resource.group else ''}{resource.group}/{name}"
