"""`up`, `down` and `ls`: a cluster's life cycle."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nsk8s.cli import completing
from nsk8s.cli.options import DURATION
from nsk8s.errors import ApiError, ClusterGone, HostError, NsK8sError, Timeout, UsageError, UserError
from nsk8s.paths import ClusterPaths

if TYPE_CHECKING:
    from nsk8s.api.manifest import Manifest
    from nsk8s.daemon.loading import Loading

PROGRESS = click.Choice(["auto", "tty", "plain", "json", "quiet"])


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--dry-run", is_flag=True, help="Print what would change, as commands a person could type.")
@click.option(
    "--wait-timeout",
    type=DURATION,
    default="2m",
    show_default=True,
    metavar="DURATION",
    help="How long to wait for every pod to be ready; 0 does not wait.",
)
@click.option("--progress", type=PROGRESS, default="auto", show_default=True, help="How to show progress.")
@click.pass_obj
def up(
    loading: Loading | None, files: tuple[str, ...], dry_run: bool, wait_timeout: float, progress: str
) -> None:
    """Build the cluster that FILES describe (directories too; "-" for standard input), or change the
    running one to be just that. Returns when every pod is ready. Running it again changes nothing and
    says so.

    \b
    Examples:
      sudo nsk8s up topology.yaml
      sudo nsk8s up topology.yaml app/*.yaml --dry-run
    """
    begun = time.monotonic()
    wanted = _wanted(files)
    assert wanted.topology is not None
    paths = ClusterPaths(wanted.topology.name)
    body: dict[str, Any] = {"cluster": wanted.cluster, "objects": [d.obj for d in wanted.objects]}
    body |= {"dryRun": dry_run, "wait": wait_timeout}
    if dry_run:
        _rehearse(paths, wanted, body)
        return
    need_root()
    from nsk8s.client import Client
    from nsk8s.daemon import launch
    from nsk8s.kernel import holder

    new = launch.ensure(paths, create=True, loading=loading)
    show = Progress(progress)
    done: dict[str, Any] = {}
    try:
        for line in Client(paths).stream("POST", "/nsk8s/v1/up", body):
            if "applied" in line:
                show.result(line["applied"])
            elif "progress" in line:
                show.progress(line["progress"])
            elif "done" in line:
                done = line["done"]
    except ApiError:  # refused as a whole
        if new:
            holder.down(paths)
        raise
    finally:
        show.end()
    if wanted.ignored and new:
        click.echo(f"stored, and not acted on: {', '.join(wanted.ignored)}", err=True)
    if not done:
        raise NsK8sError(
            f"the control plane of {paths.cluster!r} went away during `up`",
            hint=f"run the same `nsk8s up` again; see {paths.daemon_log}",
        )
    _summary(paths.cluster, done, new, time.monotonic() - begun, show)
    if done["waiting"]:
        shown = "\n".join(f"  {line}" for line in done["waiting"][:10])
        raise Timeout(
            f"{len(done['waiting'])} not ready after {time.monotonic() - begun:.1f} s:\n{shown}",
            hint="nsk8s describe pod NAME tells why; the cluster stays up",
        )


def _wanted(files: tuple[str, ...]) -> Manifest:
    """What the files say, a Cluster document among it. Raises `ManifestError` and `UserError`."""
    from nsk8s.api import manifest
    from nsk8s.cli.files import expand

    wanted = manifest.read(expand(files))
    if wanted.topology is None or wanted.cluster is None:
        raise UserError(
            f"{', '.join(files)}: no document of kind Cluster (apiVersion: nsk8s.dev/v1)",
            hint="add one (nsk8s init minimal shows how), or use `nsk8s apply` on a running cluster",
        )
    _host_routes(wanted)
    return wanted


def _summary(cluster: str, done: dict[str, Any], new: bool, seconds: float, show: Progress) -> None:
    what = f"{done['nodes']} nodes, {done['pods']} pods, {done['services']} services"
    changed = done["changed"] or done["operations"]
    state = "up" if new else ("changed" if changed else "unchanged")
    if show.mode == "json":
        import msgspec

        result = {**done, "cluster": cluster, "state": state, "seconds": round(seconds, 3)}
        click.echo(msgspec.json.encode(result).decode())
        return
    repaired = (
        "" if new or done["changed"] or not done["operations"] else " (what had been undone is repaired)"
    )
    click.echo(f"cluster {cluster} is {state}: {what}{repaired}, {seconds:.2f} s")
    if new and show.mode != "quiet":
        click.echo(f"export KUBECONFIG={shlex.quote(os.fspath(ClusterPaths(cluster).kubeconfig))}")


def _host_routes(wanted: Manifest) -> None:
    """With hostAccess, refuse networks that the host already routes elsewhere."""
    if wanted.topology is None or wanted.cluster_document is None or not wanted.topology.host_access:
        return
    from nsk8s.daemon import launch
    from nsk8s.errors import ManifestError

    problems = launch.collisions(wanted.topology)
    if problems:
        raise ManifestError(wanted.cluster_document.placed(problems))


def _rehearse(paths: ClusterPaths, wanted: Manifest, body: dict[str, Any]) -> None:
    """Print what `up` would do. A running cluster is asked; a new one needs no root."""
    from nsk8s.kernel import holder

    if os.geteuid() == 0 and holder.find(paths) is not None:
        from nsk8s.client import Client
        from nsk8s.daemon import launch

        launch.ensure(paths)
        lines = [
            line["command"]
            for line in Client(paths).stream("POST", "/nsk8s/v1/up", body)
            if "command" in line
        ]
    else:
        from nsk8s.daemon.rehearsal import commands_for

        assert wanted.topology is not None
        lines = commands_for(wanted.topology, [d.obj for d in wanted.objects])
    for line in lines:
        click.echo(line)
    click.echo(f"dry run: {len(lines)} commands; nothing was changed", err=True)


@click.command()
@click.argument("name", required=False, shell_complete=completing.clusters)
@click.option("--all", "everything", is_flag=True, help="Take down every cluster of this tool on the host.")
def down(name: str | None, everything: bool) -> None:
    """Take a cluster down: its NAME, its topology file, or nothing if only one runs. Works without the
    file and without the control plane, and leaves no namespace, link, mount, rule, process or file.

    \b
    Examples:
      sudo nsk8s down
      sudo nsk8s down --all
    """
    if name == "":
        raise UsageError(
            "the cluster's name is empty",
            hint="a variable without a value? nsk8s down alone takes the only one that runs",
        )
    need_root()
    from nsk8s.cli.kubeconfig import forget
    from nsk8s.daemon import launch
    from nsk8s.kernel import holder

    if everything:
        chosen = [ClusterPaths(cluster) for cluster in holder.clusters()]
        if not chosen:
            click.echo("no cluster runs on this host")
    elif name and Path(name).is_file():
        from nsk8s.api import manifest

        topology = manifest.read([name]).topology
        if topology is None:
            raise UserError(f"{name}: no document of kind Cluster")
        chosen = [launch.choose(topology.name)]
    else:
        chosen = [launch.choose(name)]
    for paths in chosen:
        begun = time.monotonic()
        holder.down(paths)
        click.echo(f"cluster {paths.cluster} is down, {time.monotonic() - begun:.2f} s")
        file = forget(paths.cluster)
        if file is not None:
            click.echo(f'context "nsk8s-{paths.cluster}" is gone from {file}')


@click.command()
@click.option("-o", "--output", type=click.Choice(["table", "json", "name"]), default="table")
def ls(output: str) -> None:
    """List the clusters of this host."""
    need_root()
    from nsk8s.client import Client
    from nsk8s.kernel import holder

    rows = []
    for cluster in holder.clusters():
        row: dict[str, Any] = dict.fromkeys(("name", "nodes", "pods", "services", "created"))
        row["name"] = cluster
        try:
            row |= Client(ClusterPaths(cluster)).get("/nsk8s/v1/cluster")
            row["controlPlane"] = "running"
        except ClusterGone:
            row["controlPlane"] = "stopped"
        rows.append(row)
    if output == "json":
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
        return
    if output == "name":
        for row in rows:
            click.echo(row["name"])
        return
    from datetime import UTC, datetime

    from nsk8s.api.age import age

    table = [["NAME", "NODES", "PODS", "SERVICES", "AGE", "CONTROL-PLANE"]]
    for row in rows:
        counts = [str(row[k]) if row[k] is not None else "-" for k in ("nodes", "pods", "services")]
        old = age(row["created"], datetime.now(UTC)) if row["created"] else "-"
        table.append([row["name"], *counts, old, row["controlPlane"]])
    widths = [max(len(line[i]) for line in table) for i in range(6)]
    for line in table:
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def need_root() -> None:
    """Raises `HostError` for anybody but root."""
    if os.geteuid() != 0:
        raise HostError(
            "this needs root: it makes network namespaces and talks to a control plane that runs as root",
            hint=f"sudo {' '.join([Path(sys.argv[0]).name, *sys.argv[1:]])}",
        )


class Progress:
    """Progress on stderr and results on stdout, as the terminal (or its absence) allows."""

    def __init__(self, mode: str) -> None:
        self.mode = ("tty" if sys.stderr.isatty() else "plain") if mode == "auto" else mode
        self._live = False

    def result(self, applied: dict[str, str]) -> None:
        """One object was created, configured or deleted (kubectl's words)."""
        if self.mode in ("quiet", "json") or applied["verdict"] == "unchanged":
            return
        self._clear()
        click.echo(f"{applied['object']} {applied['verdict']}")

    def progress(self, seen: dict[str, Any]) -> None:
        """How many pods are ready by now."""
        if self.mode == "tty":
            click.echo(f"\r\x1b[Kpods ready: {seen['ready']}/{seen['total']}", nl=False, err=True)
            self._live = True
        elif self.mode == "json":
            import msgspec

            click.echo(msgspec.json.encode({"progress": seen}).decode(), err=True)

    def end(self) -> None:
        """Nothing more will come."""
        self._clear()

    def _clear(self) -> None:
        if self._live:
            click.echo("\r\x1b[K", nl=False, err=True)
            self._live = False
