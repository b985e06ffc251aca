"""Our end of a container's input or terminal, kept open while no control plane is there.

A terminal hangs up when its near end is closed by all, and a program's input is over. So a pause process in
the pod holds the end as its standard input; a new control plane takes a copy (pidfd_getfd(2)). It ends with
the pod at the latest.
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path

from nsk8s.kernel import pause

TITLE = "nsk8s:keeper"
"""First word of its command line."""

_PIDFD_GETFD = 438
"""The number of pidfd_getfd(2), which is the same on all machines."""

_libc = ctypes.CDLL(None, use_errno=True)


class Keeper:
    """A keeper that runs, and our own copy of what it holds: `end`."""

    def __init__(self, pid: int, end: int) -> None:
        self.pid = pid
        self.end = end
        self._pidfd = os.pidfd_open(pid)

    def dismiss(self) -> None:
        """Let go of the end, everywhere. More than once does no harm."""
        if self._pidfd < 0:
            return
        os.close(self.end)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        with suppress(ChildProcessError):  # of an earlier control plane: the holder reaps it
            os.waitpid(self.pid, 0)
        os.close(self._pidfd)
        self.end = self._pidfd = -1

    def close(self) -> None:
        """Let go of our copy only."""
        if self._pidfd >= 0:
            os.close(self.end)
            os.close(self._pidfd)
            self.end = self._pidfd = -1


def keep(program: Path, end: int) -> Keeper:
    """Start a keeper of `end` (which is ours as well from now on) in the PID namespace that the calling
    thread's children get. `program` is pause's. Raises OSError."""
    words = pause.argv(program, TITLE)
    actions = [(os.POSIX_SPAWN_DUP2, end, 0), *((os.POSIX_SPAWN_CLOSE, fd) for fd in (1, 2))]
    return Keeper(os.posix_spawn(program, words, {}, file_actions=actions, setsid=True), end)


def find(pid: int) -> Keeper | None:
    """The keeper that an earlier control plane has started; None if it is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        if pause.words(Path(f"/proc/{pid}/cmdline").read_bytes()) != [TITLE]:
            return None
        end = _libc.syscall(_PIDFD_GETFD, pidfd, 0, 0)
        return Keeper(pid, end) if end >= 0 else None
    except OSError:
        return None
    finally:
        os.close(pidfd)
