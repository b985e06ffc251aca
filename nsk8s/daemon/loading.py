"""Loading the control plane's code before it is known whose control plane it will be.

It takes longest of all that a new cluster needs before it can be made; so it begins before the command line
itself is loaded, and this module imports next to nothing.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress

from nsk8s.paths import ClusterPaths, root


class Loading:
    """A process that loads the control plane's code, and waits to be told whose control plane to be.

    Close it: one that nobody has told ends.
    """

    def __init__(self) -> None:
        self._starter, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        nowhere = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, 0, 2),
        ]
        with theirs:
            theirs.set_inheritable(True)
            words = [sys.executable, "-P", "-m", "nsk8s.daemon", str(theirs.fileno())]
            pid = os.posix_spawn(sys.executable, words, os.environ, file_actions=nowhere, setsid=True)
        self._process: int | None = os.pidfd_open(pid)  # a pid may be another's once it has been waited for

    def tell(self, paths: ClusterPaths, log: int, told: int) -> None:
        """Let it be the control plane of a cluster, write to the file `log`, and say to the pipe `told` when
        it listens."""
        with suppress(BrokenPipeError):  # it is gone already, and the pipe's end says so
            socket.send_fds(self._starter, [paths.cluster.encode()], [log, told])
        self._starter.close()
        assert self._process is not None, "closed"
        _wait(self._process)

    def close(self) -> None:
        """End it, if it has not been told and become something else."""
        self._starter.close()
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):  # `tell` has waited for it, if only just before a Ctrl-C
                signal.pidfd_send_signal(process, signal.SIGKILL)
            _wait(process)
            os.close(process)


def _wait(process: int) -> None:
    with suppress(ChildProcessError):  # it has been waited for
        os.waitid(os.P_PIDFD, process, os.WEXITED)


def foreseen(arguments: list[str]) -> Loading | None:
    """Begin to load if the command line is sure to need it: an `up` where no cluster is."""
    if arguments[:1] != ["up"] or {"--dry-run", "--help", "-h"} & set(arguments) or os.geteuid() != 0:
        return None
    with suppress(FileNotFoundError), os.scandir(root()) as clusters:
        if next(clusters, None) is not None:
            return None
    return Loading()
