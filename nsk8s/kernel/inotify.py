"""inotify(7): what is created in directories, and which of their files change. For the asyncio thread."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable, Set
from pathlib import Path

from nsk8s.errors import HostError

IN_MODIFY, IN_CREATE, IN_Q_OVERFLOW, IN_IGNORED, IN_ONLYDIR = 0x2, 0x100, 0x4000, 0x8000, 0x0100_0000

REST = 0.02
"""Seconds between two looks: what changes all the time is told as one change."""
_SIZE = 1 << 18
_HEAD = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """Tells `changed` which files and directories have been created or written, and `lost` when there were
    too many to be told."""

    def __init__(self, changed: Callable[[Set[Path]], None], lost: Callable[[], None]) -> None:
        self._fd = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")
        self._changed = changed
        self._lost = lost
        self._directories: dict[int, Path] = {}
        self._loop = asyncio.get_running_loop()
        self._resting: asyncio.TimerHandle | None = None
        self._listen()

    def watch(self, directory: Path) -> None:
        """Tell of this directory, too. Raises HostError."""
        mask = IN_MODIFY | IN_CREATE | IN_ONLYDIR
        number = _libc.inotify_add_watch(self._fd, os.fsencode(directory), mask)
        self._directories[_checked(number, f"inotify_add_watch {directory}")] = directory

    def close(self) -> None:
        """Tell no more."""
        if self._resting is not None:
            self._resting.cancel()
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _listen(self) -> None:
        self._resting = None
        self._loop.add_reader(self._fd, self._look)

    def _look(self) -> None:
        self._loop.remove_reader(self._fd)
        self._resting = self._loop.call_later(REST, self._listen)
        raw = os.read(self._fd, _SIZE)
        position, found = 0, set()
        while position < len(raw):
            number, mask, _, length = _HEAD.unpack_from(raw, position)
            name = raw[position + _HEAD.size : position + _HEAD.size + length].rstrip(b"\0")
            position += _HEAD.size + length
            if mask & IN_Q_OVERFLOW:
                self._lost()
            elif mask & IN_IGNORED:
                self._directories.pop(number, None)
            else:
                found.add((number, name))
        directories = self._directories
        self._changed({directories[n] / os.fsdecode(name) for n, name in found if n in directories})


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise HostError(f"{what}: {os.strerror(ctypes.get_errno())}", hint="sysctl fs.inotify")
    return result
