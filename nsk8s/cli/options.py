"""Which cluster a command means, and the way to its control plane."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import click

from nsk8s.paths import ClusterPaths

if TYPE_CHECKING:
    from nsk8s.client import Client

P = ParamSpec("P")
R = TypeVar("R")


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
    return Client(cluster)
