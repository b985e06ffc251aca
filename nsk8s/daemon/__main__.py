"""``python -m nsk8s.daemon CLUSTER FD``: the control plane; started by `launch`, inside the holder."""

from __future__ import annotations

import asyncio
import faulthandler
import fcntl
import gc
import json
import logging
import os
import signal
import sys
import time

from nsk8s.daemon.launch import DEADLINE, READY, listening, tell
from nsk8s.errors import NsK8sError
from nsk8s.paths import ClusterPaths


def main(cluster: str, told: int) -> None:
    """Serve until killed; the pipe `told` hears that we listen, or why we cannot (JSON: message and hint)."""
    gc.disable()  # until all is loaded: objects that stay would be looked through again and again
    from nsk8s.daemon.server import serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR1)  # where every thread is, into the log
    os.umask(0o077)
    paths = ClusterPaths(cluster)
    if not alone(paths):
        tell(told, READY)
        return
    try:
        asyncio.run(serve(paths, told))
    except NsK8sError as error:
        logging.critical("%s", error)
        tell(told, json.dumps([error.message, error.hint]).encode())


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
    main(sys.argv[1], int(sys.argv[2]))
