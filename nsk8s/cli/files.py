"""`validate`, `schema` and `init`: what can be done with files alone, without root and without a cluster."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence, Sized
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from shutil import copyfile

import click

from nsk8s.errors import NsK8sError, UsageError, UserError

MANIFESTS = (".yaml", ".yml", ".json")
"""What counts as a manifest in a directory."""


def expand(names: Sequence[str], *, recursive: bool = False) -> list[str]:
    """File names, with each directory replaced by the manifests in it, in order. Raises `UserError` for a
    directory without any."""
    found: list[str] = []
    for name in names:
        if name == "-" or not os.path.isdir(name):
            found.append(name)
            continue
        inside = []
        for place, below, entries in os.walk(name):
            below[:] = sorted(below) if recursive else []
            inside += [os.path.join(place, entry) for entry in sorted(entries) if entry.endswith(MANIFESTS)]
        if not inside:
            raise UserError(f"{name}: no manifest in it ({', '.join('*' + end for end in MANIFESTS)})")
        found += inside
    return found


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="FILE...")
def validate(names: tuple[str, ...]) -> None:
    """Check topology files and manifests ("-" for standard input). Needs no root and changes nothing.

    Every mistake is printed as FILE:LINE:COLUMN: FIELD: what, and what to do.

    \b
    Examples:
      nsk8s validate topology.yaml
      kubectl get all -o yaml | nsk8s validate -
    """
    from nsk8s.api import manifest
    from nsk8s.errors import ManifestError

    try:
        found = manifest.read(expand(names))
    except ManifestError as error:
        for problem in error.problems:
            click.echo(str(problem))
        raise NsK8sError(f"{_count(error.problems, 'mistake')} found") from None
    parts = []
    if found.topology is not None:
        parts.append(f"cluster {found.topology.name}")
        parts.append(_count(found.topology.nodes, "node"))
        parts.append(_count(found.topology.clients, "client"))
    parts.append(_count(found.objects, "object"))
    click.echo(f"valid: {', '.join(parts)}")
    if found.ignored:
        click.echo(f"stored, and not acted on: {', '.join(found.ignored)}", err=True)


def _count(things: Sized, word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


@click.command()
def schema() -> None:
    """Print the JSON Schema (draft 2020-12) of the Cluster document, for editors to complete it.

    \b
    Example:
      nsk8s schema > cluster.schema.json
      # then, as the first line of topology.yaml:
      # yaml-language-server: $schema=cluster.schema.json
    """
    from nsk8s.api.schema import CLUSTER

    click.echo(json.dumps(CLUSTER, indent=2))


@click.command()
@click.argument("example", required=False)
@click.option("--list", "listing", is_flag=True, help="List the examples.")
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
def init(example: str | None, listing: bool, force: bool) -> None:
    """Copy an example into the current directory: EXAMPLE.yaml, or a directory EXAMPLE of several files
    (default: minimal).

    \b
    Examples:
      nsk8s init --list
      nsk8s init article && cd article
    """
    found = examples()
    if listing:
        width = max(map(len, found))
        for name, source in found.items():
            click.echo(f"{name:<{width}}  {summary(source)}")
        return
    name = example or "minimal"
    if name not in found:
        raise UsageError(f"no example is called {name!r}", hint=f"there are: {', '.join(found)}")
    written = _copy(found[name], Path.cwd(), force)
    for path in written:
        click.echo(f"wrote {path}")
    click.echo(f"next: {_next(found[name])}", err=True)


def examples() -> dict[str, Traversable]:
    """The examples that come with the package, by name: single files, and directories with a topology."""
    found: dict[str, Traversable] = {}
    for entry in sorted(files("nsk8s").joinpath("examples").iterdir(), key=lambda e: e.name):
        if entry.is_dir() and entry.joinpath("topology.yaml").is_file():
            found[entry.name] = entry
        elif entry.name.endswith(".yaml"):
            found[entry.name.removesuffix(".yaml")] = entry
    return found


def summary(example: Traversable) -> str:
    """The first line of an example's opening comment."""
    source = example.joinpath("topology.yaml") if example.is_dir() else example
    first = source.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").strip()


def _copy(example: Traversable, into: Path, force: bool) -> list[Path]:
    """Copy an example below `into`, all of it or nothing; returns what was written, relative to it."""
    if example.is_dir():
        sources = sorted((e for e in example.iterdir() if e.name.endswith(".yaml")), key=lambda e: e.name)
        targets = {Path(example.name) / source.name: source for source in sources}
    else:
        targets = {Path(example.name): example}
    there = [target for target in targets if (into / target).exists()]
    if there and not force:
        raise UsageError(f"{there[0]} exists", hint="--force overwrites it")
    try:
        for target, source in targets.items():
            (into / target).parent.mkdir(exist_ok=True)
            with as_file(source) as path:
                copyfile(path, into / target)
    except OSError as error:
        raise NsK8sError(f"cannot write to {into}: {error.strerror}") from error
    return list(targets)


def _next(example: Traversable) -> str:
    if example.is_dir():
        return f"cd {example.name} && sudo nsk8s up topology.yaml"
    return f"sudo nsk8s up {example.name}"
