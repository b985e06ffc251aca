"""What containers wrote: the end of a log file, and what is appended to it."""

from __future__ import annotations

import ctypes
import os
import select
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from nsk8s.errors import ClusterGone

IN_MODIFY, IN_CREATE, IN_DELETE_SELF = 0x002, 0x100, 0x400

CHUNK = 65536


def tail(log: Path, lines: int | None) -> Iterator[bytes]:
    """The whole log, or its last `lines` lines. A container that wrote nothing yet has no file."""
    with suppress(FileNotFoundError), open(log, "rb") as file:
        file.seek(_start(file.fileno(), lines))
        while piece := file.read(CHUNK):
            yield piece


def follow(log: Path, lines: int | None) -> Iterator[bytes]:
    """The same, and then what is appended, until the container has ended (its exit code stands beside the
    log, or the next attempt's log appears) or its pod is gone. Raises ClusterGone if that cannot be
    followed."""
    status = log.with_suffix(".status")
    position = -1 if log.exists() else 0  # what is not there yet will be all new
    with suppress(OSError):  # a stand-in that has said nothing yet has no directory either
        log.parent.mkdir(mode=0o700, exist_ok=True)
    watch = _inotify(log.parent)
    try:
        while True:
            ended = _ended(log, status)  # looked at before the log: what was written before is then shown
            with suppress(FileNotFoundError), open(log, "rb") as file:
                file.seek(_start(file.fileno(), lines) if position < 0 else position)
                while piece := file.read(CHUNK):
                    yield piece
                position = file.tell()
            if ended:
                return
            select.select([watch], [], [])
            os.read(watch, CHUNK)
    finally:
        os.close(watch)


def _ended(log: Path, status: Path) -> bool:
    with suppress(FileNotFoundError):
        if b'"exit-code"' in status.read_bytes():
            return True
    container, _, attempt = log.stem.rpartition(".")
    following = log.with_name(f"{container}.{int(attempt) + 1}.log") if attempt.isdecimal() else None
    return not log.parent.is_dir() or (following is not None and following.exists())


def _start(fd: int, lines: int | None) -> int:
    """Where the last `lines` lines begin, read backwards in chunks."""
    end = os.fstat(fd).st_size
    if lines is None:
        return 0
    if lines == 0:
        return end
    wanted, position = lines, end
    while position > 0:
        begin = max(0, position - CHUNK)
        piece = os.pread(fd, position - begin, begin)
        if position == end and piece.endswith(b"\n"):
            piece = piece[:-1]  # the last line's own end
        index = len(piece)
        while (index := piece.rfind(b"\n", 0, index)) >= 0:
            wanted -= 1
            if not wanted:
                return begin + index + 1
        position = begin
    return 0


def _inotify(directory: Path) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_CLOEXEC)
    mask = IN_MODIFY | IN_CREATE | IN_DELETE_SELF
    if fd < 0 or libc.inotify_add_watch(fd, os.fsencode(directory), mask) < 0:
        number = ctypes.get_errno()
        if fd >= 0:
            os.close(fd)
        raise ClusterGone(f"cannot follow {directory}: {os.strerror(number)}")
    return int(fd)
