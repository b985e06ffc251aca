"""``python -m nsk8s.daemon FD``: the control plane; started by `launch`, which tells it by the socket FD
whose it is to be: the cluster's name, and with it two files, the log and the pipe that hears that it listens.
"""

from __future__ import annotations

import asyncio
import faulthandler
import fcntl
import gc
import json
import logging
import os
import resource
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from nsk8s.daemon.launch import DEADLINE, READY, listening, tell
from nsk8s.errors import HostError, NsK8sError
from nsk8s.kernel import holder as holders
from nsk8s.kernel.forked import ForkServer
from nsk8s.paths import ClusterPaths

FILES = 1 << 16
"""Files that may be open, if the host allows so many: a shell's 1,024 are as many as clients may watch. Not
more, for containers inherit it, and some programs close every number up to it."""


def main(starter: int) -> None:
    """Load all there is to load, wait for the word, and be what it says; or end, if nobody says anything."""
    for first, last in ((3, starter), (starter + 1, os.sysconf("SC_OPEN_MAX"))):
        os.closerange(first, last)  # what the starter's shell left open is nothing to us
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, min(FILES, most)), most))
    os.chdir("/")
    gc.disable()  # until all is loaded: objects that stay would be looked through again and again
    forks = ForkServer()  # while there is little to copy
    with suppress(Exception):  # what is wrong is said below, when there is a log to say it to
        load()
    with socket.socket(fileno=starter) as control:
        name, files, _, _ = socket.recv_fds(control, 256, 2)
    if not name:
        return
    log, told = files
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    os.set_inheritable(told, False)
    cluster = name.decode()
    try:
        loaded = be_born(ClusterPaths(cluster), forks)
        run(cluster, told, forks, loaded)
    except NsK8sError as error:
        logging.critical("%s", error)
        tell(told, json.dumps([error.message, error.hint]).encode())


def load() -> None:
    """Import the control plane. Its HTTP library makes a client's TLS context, which reads the host's 140
    certificate authorities; the control plane trusts none of them."""
    before = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = os.devnull
    try:
        import nsk8s.daemon.server  # noqa: F401
    finally:
        del os.environ["SSL_CERT_FILE"]
        if before is not None:
            os.environ["SSL_CERT_FILE"] = before


def be_born(paths: ClusterPaths, forks: ForkServer) -> ForkServer:
    """Go on inside the cluster. Returns a fork server for what needs most of our code: it has it. Raises
    `HostError`."""
    holder = holders.recorded(paths)
    if holder is None:
        raise HostError(f"cluster {paths.cluster!r} has no holder", hint="it was taken down meanwhile")
    forks.join(holder)
    holder.settle()
    with suppress(OSError):
        Path("/proc/self/comm").write_text(f"nsk8s:{paths.cluster}"[:15])
    return ForkServer()


def run(cluster: str, told: int, forks: ForkServer, loaded: ForkServer) -> None:
    """Serve until killed; the pipe `told` hears that we listen, or why we cannot (JSON: message and hint)."""
    from nsk8s.daemon.server import serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR1)  # where every thread is, into the log
    os.umask(0o077)
    paths = ClusterPaths(cluster)
    if not alone(paths):
        tell(told, READY)
        return
    asyncio.run(serve(paths, told, forks, loaded))


def alone(paths: ClusterPaths) -> bool:
    """Wait until no other daemon of the cluster is there (one that is being killed takes a moment to go);
    False if it turns out that the other one serves."""
    lock = os.open(paths.directory / "daemon.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + DEADLINE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if listening(paths):
                return False
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return True  # and hold it until we end


if __name__ == "__main__":
    main(int(sys.argv[1]))
