"""`get`: objects as tables, YAML, JSON or names; once, or as they change."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click
from msgspec import Struct

from nsk8s.api.kinds import Resource
from nsk8s.api.types import Obj
from nsk8s.cli import completing
from nsk8s.cli.failures import Failures
from nsk8s.cli.names import Target, asking, path, served_kinds, shown, targets
from nsk8s.cli.options import (
    all_namespaces_option,
    cluster_option,
    connect,
    namespace_option,
    selector_option,
)
from nsk8s.cli.tables import TABLE_ACCEPT, dump, table_lines
from nsk8s.client import Client
from nsk8s.errors import UsageError
from nsk8s.paths import ClusterPaths


class Look(Struct, frozen=True):
    """What to ask for, and how to show it."""

    where: str | None
    query: dict[str, str]
    output: str | None
    headers: bool
    labels: bool
    managers: bool = False

    def shown(self, obj: Obj) -> Obj:
        """An object without its managedFields, which nobody reads unless asked for."""
        if self.managers or "managedFields" not in obj["metadata"]:
            return obj
        return {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k != "managedFields"}}

    def print(
        self,
        table: Obj,
        resource: Resource,
        *,
        prefix: bool = False,
        headers: bool = True,
        widths: list[int] | None = None,
    ) -> None:
        """Print a table's rows; `widths` keeps the columns' widths from one call to the next."""
        for line in table_lines(
            table,
            wide=self.output == "wide",
            namespaced=self.where is None and resource.namespaced,
            headers=self.headers and headers,
            labels=self.labels,
            prefix=shown(resource, "") if prefix else "",
            widths=widths,
        ):
            click.echo(line)


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
@click.option("--ignore-not-found", is_flag=True, help="No error for a named object that does not exist.")
@click.option("--no-headers", is_flag=True, help="Rows only.")
@click.option("--show-labels", is_flag=True, help="Labels as the last column.")
@click.option("--show-managed-fields", is_flag=True, help="Keep managedFields in JSON and YAML.")
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
    ignore_not_found: bool,
    no_headers: bool,
    show_labels: bool,
    show_managed_fields: bool,
) -> int:
    """Show objects. TYPE is one or several of kubectl's types (pods, svc, deploy, ...), or `all`.

    \b
    Examples:
      nsk8s get pods -o wide
      nsk8s get all -A
      nsk8s get svc/web -o yaml
      nsk8s get pods -w
    """
    wanted = targets(words, lambda: served_kinds(connect(cluster)), only=bool(selector or field_selector))
    if all_namespaces and any(target.names for target in wanted):
        raise UsageError("a resource cannot be retrieved by name across all namespaces")
    given = {"labelSelector": selector, "fieldSelector": field_selector}
    query = {key: value for key, value in given.items() if value}
    look = Look(
        None if all_namespaces else namespace, query, output, not no_headers, show_labels, show_managed_fields
    )
    client = connect(cluster)
    if watch:
        if len(wanted) != 1 or len(wanted[0].names) > 1:
            raise UsageError("you may only specify a single resource type, or one object, with --watch")
        _watch(client, wanted[0], look)
        return 0
    failures = Failures(ignored=404 if ignore_not_found else 0)
    if output in ("json", "yaml", "name"):
        _objects(client, wanted, look, failures)
    else:
        _tables(client, wanted, look, failures, quiet=ignore_not_found)
    return failures.tell()


def _tables(client: Client, wanted: list[Target], look: Look, failures: Failures, *, quiet: bool) -> None:
    found = [(t.resource, table) for t in wanted if (table := _table(client, t, look, failures))]
    several = len(found) > 1 if any(t.names for t in wanted) else len(wanted) > 1
    for index, (resource, table) in enumerate(found):
        if index:
            click.echo()
        look.print(table, resource, prefix=several)
    if not found and not failures.met and not quiet:
        named = look.where is not None and wanted[0].resource.namespaced
        click.echo(f"No resources found{f' in {look.where} namespace.' if named else ''}", err=True)


def _table(client: Client, target: Target, look: Look, failures: Failures) -> Obj | None:
    """The table of a resource's objects, or of the named ones together; None if it has no rows."""
    tables: list[Obj] = []
    for name in target.names or (None,):
        with failures.each():
            address = path(target.resource, look.where, name)
            tables.append(
                client.get(asking(address, look.query if name is None else {}), accept=TABLE_ACCEPT)
            )
    rows = [row for table in tables for row in table["rows"]]
    return {**tables[0], "rows": rows} if rows else None


def _objects(client: Client, wanted: list[Target], look: Look, failures: Failures) -> None:
    found: list[tuple[Resource, Obj]] = []
    for target in wanted:
        for name in target.names or (None,):
            with failures.each():
                found += ((target.resource, obj) for obj in _found(client, target.resource, name, look))
    if look.output == "name":
        for resource, obj in found:
            click.echo(shown(resource, obj["metadata"]["name"]))
        return
    if len(wanted) == 1 and len(wanted[0].names) == 1:
        if found:
            click.echo(dump(found[0][1], str(look.output)), nl=False)
        return
    everything = {
        "apiVersion": "v1",
        "kind": "List",
        "items": [obj for _, obj in found],
        "metadata": {"resourceVersion": ""},
    }
    click.echo(dump(everything, str(look.output)), nl=False)


def _found(client: Client, resource: Resource, name: str | None, look: Look) -> Iterator[Obj]:
    if name is not None:
        yield look.shown(client.get(path(resource, look.where, name)))
        return
    for item in client.get(asking(path(resource, look.where), look.query))["items"]:
        yield look.shown({"apiVersion": resource.api_version, "kind": resource.kind, **item})


def _watch(client: Client, target: Target, look: Look) -> None:
    """What is there, and then each change as it comes, until interrupted."""
    resource, address, query = target.resource, path(target.resource, look.where), dict(look.query)
    if target.names:
        client.get(f"{address}/{target.names[0]}")  # one that is not there is an error, not an empty table
        query["fieldSelector"] = f"metadata.name={target.names[0]}"
    whole = look.output in ("json", "yaml")
    accept = "application/json" if whole else TABLE_ACCEPT
    first = client.get(asking(address, query), accept=accept)
    query |= {"watch": "true", "resourceVersion": first["metadata"]["resourceVersion"]}
    if whole:
        show: Show = Documents(look, resource)
        for item in first["items"]:
            show(item)
    else:
        show = Rows(look, resource, first["columnDefinitions"])
        show(first)
    for event in client.watch(asking(address, query), accept=accept):
        if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
            show(event["object"])


Show = Callable[[Obj], None]
"""How a watch shows what it gets."""


class Documents:
    """Whole objects, one document each."""

    def __init__(self, look: Look, resource: Resource) -> None:
        self._look = look
        self._form = str(look.output)
        self._head = {"apiVersion": resource.api_version, "kind": resource.kind}
        self._begun = False

    def __call__(self, obj: Obj) -> None:
        """Print one."""
        divider = "---\n" if self._begun and self._form == "yaml" else ""
        self._begun = True
        click.echo(divider + dump(self._look.shown({**self._head, **obj}), self._form), nl=False)


class Rows:
    """Rows below one header; columns keep their width, or grow."""

    def __init__(self, look: Look, resource: Resource, columns: list[Obj]) -> None:
        self._look = look
        self._resource = resource
        self._columns = columns
        self._widths: list[int] = []

    def __call__(self, table: Obj) -> None:
        """Print the rows of one table."""
        if not table["rows"]:
            return
        if self._look.output == "name":
            for row in table["rows"]:
                click.echo(shown(self._resource, row["object"]["metadata"]["name"]))
            return
        whole = {**table, "columnDefinitions": self._columns}
        self._look.print(whole, self._resource, headers=not self._widths, widths=self._widths)
