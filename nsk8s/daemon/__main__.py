"""``python -m nsk8s.daemon CLUSTER FD``: the control plane; started by `launch`, inside the holder."""

from __future__ import annotations

import asyncio
import faulthandler
import fcntl
import logging
import os
import signal
import sys

from nsk8s.daemon.server import serve
from nsk8s.paths import ClusterPaths


def main(cluster: str, told: int) -> None:
    """Serve until killed. A second daemon of the same cluster waits for the first one's end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR1)  # where every thread is, into the log
    os.umask(0o077)
    paths = ClusterPaths(cluster)
    lock = os.open(paths.directory / "daemon.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    asyncio.run(serve(paths, told))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
