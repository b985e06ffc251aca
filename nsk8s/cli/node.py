"""`node`: stop a node's kubelet, as if it had crashed, and start it again."""

from __future__ import annotations

import click

from nsk8s.api.kinds import BY_NAME
from nsk8s.cli.failures import Failures
from nsk8s.cli.names import path, segment
from nsk8s.cli.options import cluster_option, connect
from nsk8s.client import Client
from nsk8s.paths import ClusterPaths

MERGE = "application/merge-patch+json"
KUBELET = "nsk8s.dev/kubelet"


@click.command()
@click.argument("action", type=click.Choice(["stop", "start"]))
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--now", is_flag=True, help="Count it as lost at once, not only after 50 seconds.")
@cluster_option
def node(cluster: ClusterPaths, action: str, names: tuple[str, ...], now: bool) -> int:
    """Stop the kubelet of a node, or start it again.

    What runs on the node goes on running, but nobody looks after it, and the node gives no sign of life:
    after 50 seconds it is NotReady and tainted, its pods leave their services, and are evicted when they no
    longer tolerate it (after five minutes, unless they say otherwise).

    \b
    Examples:
      nsk8s node stop w1 --now
      nsk8s node start w1
    """
    for name in names:
        segment(name)
    client = connect(cluster)
    failures = Failures()
    for name in names:
        with failures.each():
            if action == "stop":
                _annotate(client, name, "lost" if now else "stopped")
            else:
                _annotate(client, name, "stopped")  # who was never stopped reports for duty as well
                _annotate(client, name, None)
            click.echo(f"node/{name} {'stopped' if action == 'stop' else 'started'}")
    return failures.tell()


def _annotate(client: Client, name: str, value: str | None) -> None:
    change = {"metadata": {"annotations": {KUBELET: value}}}
    client.request("PATCH", path(BY_NAME["nodes"], "", name), change, content_type=MERGE)
