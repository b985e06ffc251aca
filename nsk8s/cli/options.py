"""What several commands share: which cluster and namespace is meant, the way to the control plane, kubectl's
common options."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import click

from nsk8s.cli import completing
from nsk8s.paths import ClusterPaths

if TYPE_CHECKING:
    from nsk8s.client import Client

P = ParamSpec("P")
R = TypeVar("R")


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic in click's newest only
    """A duration in seconds as kubectl takes it: ``30s``, ``1m30s``, ``500ms``, ``0``, or a plain number; at
    the most a week."""

    name = "duration"
    _units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    _longest = 7 * 24 * 3600.0

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds. A wrong value is a usage error."""
        text = str(value)
        plain = re.fullmatch(r"[0-9]+(\.[0-9]+)?", text)
        if not plain and not re.fullmatch(r"([0-9]+(\.[0-9]+)?(ms|s|m|h))+", text):
            self.fail(f"{text!r} is no duration, such as 30s or 1m", param, ctx)
        parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", text)
        seconds = float(text) if plain else sum(float(number) * self._units[unit] for number, unit in parts)
        if seconds > self._longest:
            self.fail(f"{text!r} is longer than a week", param, ctx)
        return seconds


DURATION = Duration()

namespace_option = click.option(
    "-n",
    "--namespace",
    default="default",
    show_default=True,
    metavar="NAME",
    callback=lambda _ctx, _param, value: value or "default",  # kubectl's own: an empty one is none
    shell_complete=completing.namespaces,
)
all_namespaces_option = click.option("-A", "--all-namespaces", is_flag=True, help="In every namespace.")
selector_option = click.option(
    "-l", "--selector", default="", metavar="a=b,c!=d,e in (f,g)", help="By label."
)
everything_option = click.option(
    "--all", "everything", is_flag=True, help="All objects of the type in the namespace."
)
files_option = click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    metavar="FILE",
    help='A file, a directory of them, or "-" for standard input.',
)
recursive_option = click.option("-R", "--recursive", is_flag=True, help="Directories with what is below.")


def cluster_option(command: Callable[Concatenate[ClusterPaths, P], R]) -> Callable[P, R]:
    """Add ``--cluster/-C NAME`` (NSK8S_CLUSTER) and hand the command its `ClusterPaths` as first argument.

    Without the option the only running cluster is meant. Raises `HostError` for anybody but root,
    `ClusterGone` naming the running clusters.
    """

    @click.option(
        "-C",
        "--cluster",
        "cluster_name",
        envvar="NSK8S_CLUSTER",
        default=None,
        metavar="NAME",
        shell_complete=completing.clusters,
        help="The cluster; not needed if only one runs.  [env: NSK8S_CLUSTER]",
    )
    @functools.wraps(command)
    def with_cluster(*args: P.args, **kwargs: P.kwargs) -> R:
        from nsk8s.cli.lifecycle import need_root
        from nsk8s.daemon import launch

        name = kwargs.pop("cluster_name", None)
        need_root()
        return command(launch.choose(str(name) if name else None), *args, **kwargs)

    return with_cluster


def connect(cluster: ClusterPaths) -> Client:
    """A client of the cluster's control plane, which is started if it does not run."""
    from nsk8s.client import Client
    from nsk8s.daemon import launch

    launch.ensure(cluster)
    client = Client(cluster, warn=lambda text: click.echo(f"Warning: {text}", err=True))
    click.get_current_context().call_on_close(client.close)
    return client
