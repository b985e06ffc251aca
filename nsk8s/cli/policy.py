"""`policy`: what network policies allow, said by the control plane, and tried with real connections."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import click

from nsk8s.api.types import Obj
from nsk8s.cli import completing
from nsk8s.cli.names import asking
from nsk8s.cli.options import DURATION, all_namespaces_option, cluster_option, connect, namespace_option
from nsk8s.client import Client
from nsk8s.errors import UsageError
from nsk8s.paths import ClusterPaths

PROTOCOLS = ("TCP", "UDP", "SCTP", "ICMP")
DENIED = 1
"""Exit code, as that of ``kubectl auth can-i``."""

protocol_option = click.option(
    "--protocol", type=click.Choice(PROTOCOLS, case_sensitive=False), default="TCP", show_default=True
)


@click.group()
def policy() -> None:
    """Ask what network policies allow, and why.

    NetworkPolicies and ClusterNetworkPolicies are enforced on every node; what is denied is dropped without a
    word. A connection that is established goes on when a policy changes.
    """


@policy.command()
@click.argument("source", metavar="FROM", shell_complete=completing.ends)
@click.argument("target", metavar="TO[:PORT][/PROTOCOL]", shell_complete=completing.ends)
@namespace_option
@click.option("-f", "--filename", "files", multiple=True, metavar="FILE", help="Find the rule's line there.")
@click.option("-o", "--output", type=click.Choice(("text", "json")), default="text", show_default=True)
@cluster_option
def verdict(
    cluster: ClusterPaths, source: str, target: str, namespace: str, files: tuple[str, ...], output: str
) -> int:
    """Say whether FROM may connect to TO, and which rule of which policy says so.

    FROM and TO are pods (NAME, NAMESPACE/NAME), nodes (node/NAME), clients, or addresses; TO may be a Service
    (svc/NAME:PORT), whose endpoints are asked about. PORT is a number or a name; without it the first port of
    TO is meant, or 80. The exit code is 1 if a connection is denied.

    \b
    Examples:
      nsk8s policy verdict web-0 db/postgres-0:5432
      nsk8s policy verdict external svc/shop:80 -f policies.yaml
      nsk8s policy verdict node/w1 10.244.1.7:53/UDP
    """
    name, port, protocol = end(target)
    query = {"from": source, "to": name, "port": port, "protocol": protocol, "namespace": namespace}
    answer = connect(cluster).get("/nsk8s/v1/policy/verdict?" + urlencode(query))
    if output == "json":
        from nsk8s.cli.tables import dump

        click.echo(dump(answer, "json"), nl=False)
    else:
        if answer["note"]:
            click.echo(answer["note"])
        for one in answer["verdicts"]:
            click.echo("\n".join(explained(one, files)))
    return 0 if all(one["allowed"] for one in answer["verdicts"]) else DENIED


def end(word: str) -> tuple[str, str, str]:
    """The name, port and protocol of ``TO[:PORT][/PROTOCOL]``; an IPv6 address with a port is in brackets."""
    protocol = "TCP"
    head, slash, tail = word.rpartition("/")
    if slash and tail.upper() in PROTOCOLS:
        word, protocol = head, tail.upper()
    bracketed = re.fullmatch(r"\[([^]]+)\](?::(.+))?", word)
    if bracketed:
        return bracketed[1], bracketed[2] or "", protocol
    name, colon, port = word.rpartition(":")
    if not colon or ":" in name:
        return word, "", protocol
    if not name or not port:
        raise UsageError(f"{word!r}: TO is NAME, NAME:PORT or NAME:PORT/PROTOCOL")
    return name, port, protocol


def explained(one: Obj, files: Sequence[str]) -> list[str]:
    """A verdict in words: the answer, then what each direction says."""
    source, target = one["source"], one["target"]
    port = f" {one['protocol']} {one['port']}" if one["port"] else f" {one['protocol']}"
    answer = "allowed" if one["allowed"] else "denied"
    lines = [
        f"{answer}: {source['name']} ({source['address']}) -> {target['name']} ({target['address']}){port}"
    ]
    for direction in ("egress", "ingress"):
        said = one[direction]
        lines.append(f"  {direction} {'allowed' if said['allowed'] else 'denied'}: {said['why']}")
        if "policy" in said:
            lines += [f"    {line}" for line in _rule(said, files)]
    return lines


def _rule(said: Obj, files: Sequence[str]) -> list[str]:
    """The rule that decided, as YAML, under its path and its place in the files."""
    from nsk8s.cli.tables import dump

    path = said.get("peer") or said.get("path") or "spec.podSelector"
    lines = [f"{path}{_place(said['policy'], path, files)}"]
    if "rule" in said:
        lines += [f"  {line}" for line in dump(said["rule"], "yaml").splitlines()]
    return lines


def _place(wanted: Obj, path: str, files: Sequence[str]) -> str:
    """Where the files have the field of a policy: `` at FILE:LINE``; empty if they have not got it."""
    if not files:
        return ""
    from nsk8s.api import manifest

    for document in manifest.read(files).objects:
        meta = document.obj["metadata"]
        namespace = meta.get("namespace", "default") if "namespace" in wanted else ""
        found = (document.obj["kind"], namespace, meta["name"])
        if found == (wanted["kind"], wanted.get("namespace", ""), wanted["name"]):
            file, line, _ = document.at(path)
            return f" at {file}:{line}"
    return " (not in the files given)"


# --- matrix -----------------------------------------------------------------------------------------


@policy.command()
@namespace_option
@all_namespaces_option
@click.option("--port", default="", metavar="N", help="[default: each pod's first one]")
@protocol_option
@click.option("--probe", is_flag=True, help="Try every connection as well, and show where it differs.")
@click.option(
    "--timeout",
    type=DURATION,
    default="1s",  # an answer takes a thousandth of it
    show_default=True,
    metavar="DURATION",
    help="So long without an answer means denied.",
)
@click.option("-o", "--output", type=click.Choice(("text", "json", "svg")), default="text", show_default=True)
@cluster_option
def matrix(
    cluster: ClusterPaths,
    namespace: str,
    all_namespaces: bool,
    port: str,
    protocol: str,
    probe: bool,
    timeout: float,
    output: str,
) -> int:
    """Show which pods may connect to which: rows are who connects, columns to whom.

    With --probe every connection is made from inside its pod: what is neither taken nor refused (of UDP,
    answered) was denied. The exit code is 1 if one does not do what the policies say.

    \b
    Examples:
      nsk8s policy matrix -n shop --port 80
      nsk8s policy matrix -A --probe -o svg >matrix.svg
    """
    from nsk8s.cli import policychart

    client = connect(cluster)
    query = {"namespace": "" if all_namespaces else namespace, "port": port, "protocol": protocol}
    client.get("/nsk8s/v1/settled")
    table = client.get(asking("/nsk8s/v1/policy/matrix", query))
    if probe:
        if protocol not in ("TCP", "UDP"):
            raise UsageError(f"--probe cannot try {protocol}", hint="--protocol TCP or UDP")
        table["reached"] = _probed(client, cluster, table, timeout)
    pods = table["pods"]
    for pod in pods:
        del pod["pid"]
    match output:
        case "json":
            from nsk8s.cli.tables import dump

            click.echo(dump(table, "json"), nl=False)
        case "svg":
            click.echo(policychart.svg(table), nl=False)
        case _ if not pods:
            where = "" if all_namespaces else f" in {namespace} namespace."
            click.echo(f"No resources found{where}", err=True)
        case _:
            click.echo("\n".join(policychart.text(table)))
    return 0 if table.get("reached", table["allowed"]) == table["allowed"] else 1


def _probed(client: Client, cluster: ClusterPaths, table: Obj, timeout: float) -> list[list[bool]]:
    """Whether each connection was really made."""
    from nsk8s.cli.inside import place
    from nsk8s.observe.connections import Attempt, attempt

    pods: list[dict[str, Any]] = table["pods"]
    sources = [place(cluster, {"pid": pod["pid"]}).namespace("net") for pod in pods]
    tried = [
        Attempt(source, pod["address"], int(pod["port"]), table["protocol"])
        for source in sources
        for pod in pods
    ]
    outcomes = attempt(tried, timeout)
    width = len(pods)
    return [
        [outcome in ("reached", "refused") for outcome in outcomes[row * width : (row + 1) * width]]
        for row in range(width)
    ]
