"""How people name objects on a command line: ``TYPE NAME``, ``TYPE/NAME``, ``TYPE1,TYPE2``, ``all``; and
the paths under which the API serves them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from nsk8s.api.kinds import RESOURCES, Resource, resource_of
from nsk8s.errors import UsageError


@dataclass(frozen=True, slots=True)
class Target:
    """Objects of one resource: those called `names`, or all if there are none."""

    resource: Resource
    names: tuple[str, ...] = ()


def resource_named(word: str) -> Resource:
    """The resource a person means. Raises `UsageError` with the near miss, in kubectl's words."""
    found = resource_of(word)
    if found is None:
        words = [w for r in RESOURCES for w in (r.plural, r.singular, *r.short)]
        near = difflib.get_close_matches(word.lower(), words, 1)
        raise UsageError(
            f'the server doesn\'t have a resource type "{word}"',
            hint=f"did you mean {near[0]}?" if near else "nsk8s get --help lists the types",
        )
    return found


def targets(words: Sequence[str]) -> list[Target]:
    """What the words of a command line name. Raises `UsageError`."""
    if not words:
        raise UsageError(
            "you must say which resources, such as `pods`, `svc/NAME` or `all`", hint="nsk8s get pods"
        )
    if any("/" in word for word in words):
        found = []
        for word in words:
            kind, slash, name = word.partition("/")
            if not slash or not name:
                raise UsageError(f"{word!r}: TYPE/NAME and TYPE NAME cannot be mixed")
            found.append(Target(resource_named(kind), (name,)))
        return found
    resources: list[Resource] = []
    for kind in words[0].split(","):
        if kind == "all":
            resources += [r for r in RESOURCES if "all" in r.categories]
        else:
            resources.append(resource_named(kind))
    return [Target(resource, tuple(words[1:])) for resource in resources]


def one(words: Sequence[str]) -> tuple[Resource, str]:
    """The single object that the words name. Raises `UsageError`."""
    found = targets(words)
    if len(found) != 1 or len(found[0].names) != 1:
        raise UsageError(f"{' '.join(words)!r} does not name one object", hint="TYPE NAME or TYPE/NAME")
    return found[0].resource, found[0].names[0]


def path(resource: Resource, namespace: str | None, name: str = "", subresource: str = "") -> str:
    """Where the API serves it; `namespace` None means all namespaces."""
    root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    middle = f"/namespaces/{namespace}" if resource.namespaced and namespace else ""
    tail = f"/{name}" if name else ""
    return f"{root}{middle}/{resource.plural}{tail}" + (f"/{subresource}" if subresource else "")


def shown(resource: Resource, name: str) -> str:
    """As kubectl prints an object's name: ``deployment.apps/web``."""
    return f"{resource.singular}{'.' if resource.group else ''}{resource.group}/{name}"
