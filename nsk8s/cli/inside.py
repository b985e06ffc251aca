"""`exec`, `logs` and `capture`: what happens inside the cluster's namespaces.

A target is a pod (``NAME``, ``pod/NAME``), one of the pods of something (``deploy/NAME``, ``svc/NAME``), a
node (``node/NAME``) or a client (``client/NAME``). A bare name that no pod has may be a node's or a client's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import click

from nsk8s.api.kinds import resource_of
from nsk8s.cli import completing
from nsk8s.cli.names import path, resource_named
from nsk8s.cli.options import cluster_option, connect, namespace_option
from nsk8s.client import Client
from nsk8s.errors import ApiError, ClusterGone, UsageError, UserError
from nsk8s.kernel import holder
from nsk8s.kernel.processes import Inside
from nsk8s.paths import ClusterPaths

Target = Mapping[str, Any]
"""The control plane's answer: where something runs."""

container_option = click.option("-c", "--container", default="", metavar="NAME", help="Default: the first.")


@click.command("exec")
@namespace_option
@container_option
@click.option(
    "-i", "--stdin", "interactive", is_flag=True, help="Pass standard input (a terminal always is)."
)
@click.option("-t", "--tty", is_flag=True, help="Accepted; a terminal is used when there is one.")
@click.argument("target", shell_complete=completing.places)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@cluster_option
def exec_(
    cluster: ClusterPaths,
    target: str,
    command: tuple[str, ...],
    namespace: str,
    container: str,
    interactive: bool,
    tty: bool,
) -> int:
    """Run COMMAND in a pod's container, on a node or in a client; its exit code is ours.

    In a pod the host's files are read-only and /tmp, /run and /var/log the container's own. On nodes and
    clients you are root on the host's files, in the node's network.

    \b
    Examples:
      nsk8s exec nginx-pod -- curl -s 10.96.0.1
      nsk8s exec -it busybox -- sh
      nsk8s exec node/w1 -- iptables-save -t nat
      nsk8s exec client/external -- curl 172.18.0.2:30080
    """
    if not command:
        raise UsageError("you must say what to run", hint=f"nsk8s exec {target} -- COMMAND")
    found = find(connect(cluster), target, namespace, container)
    if not found.get("running", True):
        raise UserError(
            f"container {found['container']!r} of {target} does not run",
            hint=f"nsk8s logs {target} may tell why",
        )
    terminal = sys.stdin.isatty()
    if found["kind"] == "pod":
        from nsk8s.streamclient import execute

        return execute(
            cluster,
            namespace,
            found["name"],
            found["container"],
            command,
            stdin=interactive or terminal,
            tty=terminal and sys.stdout.isatty(),
        )
    from nsk8s.kernel.processes import foreground

    return foreground(
        place(cluster, found), command, stdin=None if interactive or terminal else subprocess.DEVNULL
    )


@click.command()
@click.argument("target", metavar="POD|TYPE/NAME", shell_complete=completing.places)
@namespace_option
@container_option
@click.option("-f", "--follow", "following", is_flag=True, help="Go on until the container ends.")
@click.option(
    "--tail", "lines", type=click.IntRange(min=-1), default=-1, metavar="N", help="Only the last N lines."
)
@click.option("-p", "--previous", is_flag=True, help="Of the run before the last restart.")
@cluster_option
def logs(
    cluster: ClusterPaths,
    target: str,
    namespace: str,
    container: str,
    following: bool,
    lines: int,
    previous: bool,
) -> None:
    """Show what a container wrote: its output, or a stand-in's access log.

    \b
    Examples:
      nsk8s logs nginx-pod
      nsk8s logs -f deploy/whoami-deployment --tail 10
    """
    client = connect(cluster)
    found = find(client, target, namespace, container, pods_only=True)
    query = {"container": found["container"], "follow": following, "previous": previous}
    asked = {key: str(value).lower() if isinstance(value, bool) else value for key, value in query.items()}
    if lines >= 0:
        asked["tailLines"] = str(lines)
    pods = resource_of("pods")
    assert pods is not None
    for piece in client.read(f"{path(pods, namespace, found['name'])}/log?{urlencode(asked)}"):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


@click.command()
@click.argument("target", shell_complete=completing.places)
@click.argument("words", nargs=-1, metavar="[FILTER...]", type=click.UNPROCESSED)
@namespace_option
@click.option("-i", "--interface", default="any", show_default=True, metavar="IFACE")
@click.option(
    "-w", "--write", default="", metavar="FILE|-", help='Write pcap to FILE, or to a pipe with "-".'
)
@click.option(
    "-c", "--count", type=click.IntRange(min=0), default=0, metavar="N", help="Stop after N packets."
)
@cluster_option
def capture(
    cluster: ClusterPaths,
    target: str,
    words: tuple[str, ...],
    namespace: str,
    interface: str,
    write: str,
    count: int,
) -> int:
    """Capture packets in a pod, on a node or in a client until Ctrl-C.
    FILTER is tcpdump's, see pcap-filter(7).

    \b
    Examples:
      nsk8s capture node/w1 -i flannel.1 icmp
      nsk8s capture nginx-pod -w nginx.pcap
      nsk8s capture node/w1 -i eth0 -w - udp port 8472 | wireshark -k -i -
    """
    from nsk8s.observe.capture import capture as run

    if write == "-" and sys.stdout.isatty():
        raise UsageError(
            "a terminal cannot show pcap", hint="pipe it: nsk8s capture ... -w - | wireshark -k -i -"
        )
    found = find(connect(cluster), target, namespace, "")
    to = sys.stdout.buffer if write == "-" else write
    return run(place(cluster, found), interface, words, to=to, count=count)


def find(client: Client, target: str, namespace: str, container: str, *, pods_only: bool = False) -> Target:
    """Where `target` runs. Raises `ApiError` (404) and `UserError`."""
    word, slash, name = target.partition("/")
    if not slash:
        return _bare(client, target, namespace, container, pods_only=pods_only)
    if not name:
        raise UsageError(f"{target!r}: a name is missing", hint=f"{word}/NAME")
    if not pods_only and word in ("client", "clients"):
        return _target(client, "client", name)
    resource = resource_named(word)
    if resource.plural == "nodes" and not pods_only:
        return _target(client, "node", name)
    if resource.plural == "nodes":
        raise UserError(f"{target} has no logs: it runs no containers of its own", hint="nsk8s logs POD")
    if resource.plural != "pods":
        obj = client.get(path(resource, namespace, name))
        name = _pod_of(client, obj, target, namespace)
    return _target(client, "pod", name, namespace, container)


def place(cluster: ClusterPaths, target: Target) -> Inside:
    """The place of `target` as seen from the host, through the procfs of the cluster's holder."""
    held = holder.find(cluster)
    if held is None:
        raise ClusterGone(f"no cluster {cluster.cluster!r} runs on this host")
    pod = target.get("kind", "pod") == "pod"
    return Inside(
        pid=int(target["pid"]),
        proc=f"/proc/{held.pid}/root{cluster.proc}",
        container=int(target.get("container_pid") or 0),
        confined=pod,
        env=dict(target.get("env") or {}),
        workdir=str(target.get("workdir") or "") if pod else os.getcwd(),
        files=dict(target.get("files") or {}),
    )


def _bare(client: Client, name: str, namespace: str, container: str, *, pods_only: bool) -> Target:
    try:
        return _target(client, "pod", name, namespace, container)
    except ApiError as missing:
        if missing.code != 404 or pods_only:
            raise
        for kind in ("node", "client"):
            try:
                return _target(client, kind, name)
            except ApiError as error:
                if error.code != 404:
                    raise
        missing.hint = "nor is it a node or a client; nsk8s get pods,nodes shows what there is"
        raise


def _target(client: Client, kind: str, name: str, namespace: str = "", container: str = "") -> Target:
    query = {"kind": kind, "namespace": namespace, "name": name, "container": container}
    answer = client.get("/nsk8s/v1/target?" + urlencode(query))
    return {**answer, "kind": kind, "name": name}


def _pod_of(client: Client, obj: Mapping[str, Any], target: str, namespace: str) -> str:
    """One of the pods that a deployment, a replica set or a service selects; a ready one if there is."""
    selector = (obj.get("spec") or {}).get("selector") or {}
    labels = selector.get("matchLabels", {}) if "matchLabels" in selector else selector
    if not labels or not all(isinstance(value, str) for value in labels.values()):
        raise UserError(f"{target} selects no pods", hint="name a pod: nsk8s get pods")
    query = urlencode({"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())})
    pods = resource_of("pods")
    assert pods is not None
    items = client.get(f"{path(pods, namespace)}?{query}")["items"]
    if not items:
        raise UserError(f"{target} has no pods", hint="nsk8s get pods shows what runs")
    best = max(items, key=_readiness)  # the first of the best
    return str(best["metadata"]["name"])


def _readiness(pod: Mapping[str, Any]) -> tuple[bool, bool]:
    status = pod.get("status") or {}
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
    return ready, status.get("phase") == "Running"
