"""Starting a cluster's control plane, and finding it: the only door from the command line to it.

Any command may find the daemon dead (it is crash-only); the one that does starts it again. A lock file lets
exactly one of several commands do so.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

from nsk8s.daemon.loading import Loading
from nsk8s.errors import ClusterGone, HostError, Problem, Timeout
from nsk8s.kernel import holder as holders
from nsk8s.paths import ClusterPaths

if TYPE_CHECKING:
    from nsk8s.api.topology import Topology

READY = b"ready\n"
"""What a daemon that listens says to whoever started it."""

DEADLINE = 20.0
"""Seconds a daemon may take to listen; with 5,000 stored objects it takes about one."""


@contextmanager
def locked(paths: ClusterPaths) -> Iterator[None]:
    """Hold the cluster's lock: only one command starts or ends things at a time."""
    paths.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(paths.directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def listening(paths: ClusterPaths) -> bool:
    """Whether somebody answers on the control plane's socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(paths.socket))
        except OSError:
            return False
        return True


def ensure(paths: ClusterPaths, *, create: bool = False, loading: Loading | None = None) -> bool:
    """Make sure that the control plane listens, starting it if it does not (as what `loading` has loaded);
    with `create`, make the holder as well. Returns True if the cluster was made new.

    Raises `ClusterGone` when there is no cluster and `create` is False, `Timeout` when the daemon does
    not come up.
    """
    if listening(paths):
        return False
    if not create and holders.find(paths) is None:
        raise ClusterGone(
            f"no cluster {paths.cluster!r} runs on this host", hint="nsk8s ls shows the ones that do"
        )
    with locked(paths):
        holder = holders.find(paths)
        new = holder is None
        if holder is None:
            holder = holders.start(paths)
        elif listening(paths):
            return False
        with closing(loading or Loading()) as process:
            _spawn(paths, process)
    return new


def tell(told: int, said: bytes) -> None:
    """The daemon's side of the pipe: say `said` to whoever started it, who may have been interrupted and be
    gone; the daemon serves whoever comes next."""
    with suppress(BrokenPipeError):
        os.write(told, said)
    os.close(told)


def _spawn(paths: ClusterPaths, process: Loading) -> None:
    ready, told = os.pipe()
    log = os.open(paths.daemon_log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    try:
        process.tell(paths, log, told)
        os.close(told)
        _await(paths, ready)
    finally:
        os.close(ready)
        os.close(log)


def _await(paths: ClusterPaths, ready: int) -> None:
    """Until the daemon says that it listens, or why it cannot; end of file means that it died."""
    readable, _, _ = select.select([ready], [], [], DEADLINE)
    if not readable:
        raise Timeout(
            f"the control plane of {paths.cluster!r} did not listen within {DEADLINE:.0f} s",
            hint=f"see {paths.daemon_log}",
        )
    said = os.read(ready, 65536)
    if said == READY:
        return
    if said:
        message, hint = json.loads(said)
        raise HostError(f"the control plane of {paths.cluster!r} cannot start: {message}", hint=hint)
    tail = paths.daemon_log.read_text(errors="replace").strip().splitlines()[-1:]
    raise HostError(
        f"the control plane of {paths.cluster!r} ended while starting: {' '.join(tail) or 'no message'}",
        hint=f"see {paths.daemon_log}",
    )


def collisions(topology: Topology) -> list[Problem]:
    """Where the network that hostAccess adds to this host meets a route that is not the cluster's own."""
    from nsk8s.api import cluster
    from nsk8s.dataplane.names import host_link
    from nsk8s.kernel.host import routes

    return cluster.collisions(topology, routes(), own=host_link(topology.name))


def choose(name: str | None) -> ClusterPaths:
    """The cluster meant by `name`, or the only one that runs. Raises `ClusterGone`."""
    running = holders.clusters()
    if name:
        if name not in running:
            known = ", ".join(running) or "none"
            raise ClusterGone(f"no cluster {name!r} runs on this host", hint=f"running: {known}")
        return ClusterPaths(name)
    if len(running) == 1:
        return ClusterPaths(running[0])
    if not running:
        raise ClusterGone("no cluster runs on this host", hint="make one: nsk8s up FILE")
    raise ClusterGone(
        f"several clusters run on this host: {', '.join(running)}",
        hint="say which one: --cluster NAME, or NSK8S_CLUSTER=NAME",
    )
