"""The system calls about namespaces: unshare(2), setns(2), mount(2), sethostname(2).

Thin and by their own names, through ctypes, for Python has os.setns and os.unshare only from 3.12 on.
All act on the calling *thread*. A call that fails raises OSError; the rooms above say what it was for.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

KINDS = {
    "mnt": CLONE_NEWNS,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "pid": CLONE_NEWPID,
    "net": CLONE_NEWNET,
}
"""What /proc/PID/ns calls a namespace, and its clone flag."""

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_REC, MS_PRIVATE = 0x4000, 0x40000

_libc = ctypes.CDLL(None, use_errno=True)
_unshare = _libc.unshare
_setns = _libc.setns


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Give the calling thread new namespaces (for CLONE_NEWPID: its future children)."""
    _check(_unshare(flags), "unshare")


def setns(fd: int, flag: int) -> None:
    """Move the calling thread into the namespace `fd` (for CLONE_NEWPID: its future children)."""
    _check(_setns(fd, flag), "setns")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2)."""
    words = (source.encode(), target.encode(), kind.encode())
    _check(_libc.mount(*words, ctypes.c_ulong(flags), data.encode()), f"mount {target}")


def sethostname(name: str) -> None:
    """Name the UTS namespace of the calling thread."""
    raw = name.encode()
    _check(_libc.sethostname(raw, len(raw)), "sethostname")


def enter(fd: int, flag: int) -> None:
    """`setns`, also into a mount namespace from a process that has threads.

    The kernel moves a thread to other mounts only when it shares its root and working directory
    with nobody.
    """
    if flag == CLONE_NEWNS:
        unshare(CLONE_FS)
    setns(fd, flag)


@contextmanager
def inside(target: int | Path, *kinds: str) -> Iterator[None]:
    """Run the block in the namespaces of process `target`, or of a namespace file, then come back.

    `kinds` are names from `KINDS`; a file is of exactly one kind. Entering ``pid`` concerns children
    only. Raises OSError if the target is gone. If the way back is barred, that error ends the block:
    a thread in a foreign namespace must not go on.
    """
    with ExitStack() as stack:

        def opened(path: str | Path) -> int:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            return fd

        if isinstance(target, Path) and len(kinds) != 1:
            raise ValueError("a namespace file is of exactly one kind")
        moves = []
        for kind in kinds:
            there = opened(target if isinstance(target, Path) else f"/proc/{target}/ns/{kind}")
            moves.append((KINDS[kind], there, opened(f"/proc/thread-self/ns/{kind}")))
        for flag, there, home in moves:
            enter(there, flag)
            stack.callback(setns, home, flag)
        yield


class Home:
    """The namespaces the calling thread stands in now, to come back to from anywhere."""

    def __init__(self, *kinds: str) -> None:
        self._fds = {
            kind: os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds
        }

    def back(self, *kinds: str) -> None:
        """Bring the calling thread home (to all kinds, or the given ones)."""
        for kind in kinds or self._fds:
            setns(self._fds[kind], KINDS[kind])

    def close(self) -> None:
        """Let go; there is no way back then."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds = {}
