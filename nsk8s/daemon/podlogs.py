"""What containers wrote, and when.

Containers write straight into files, so that their output survives this process; nothing in a file says when
a line was written. This process watches the files while it lives, and remembers when it first saw them that
long: a line's time is right to some hundredths of a second. Of what was written while no control plane
was there, only the file's own time is known.
"""

from __future__ import annotations

import asyncio
import os
import time
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Set
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from pathlib import Path

from nsk8s.apiserver.streams.access import LogOptions
from nsk8s.errors import NsK8sError
from nsk8s.kernel.inotify import Inotify

CHUNK = 64 * 1024
MOMENTS = 2048
"""Moments remembered of one file; when there are more, every other one is forgotten."""


class Moments:
    """When a file was how long: `sizes` and `times` (seconds since the epoch) both grow."""

    __slots__ = ("sizes", "times")

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.times: list[float] = []

    def seen(self, size: int, moment: float) -> None:
        """The file is `size` bytes long."""
        if self.sizes and size <= self.sizes[-1]:
            return
        self.sizes.append(size)
        self.times.append(moment)
        if len(self.sizes) > MOMENTS:  # what is left out is taken for a little younger
            self.sizes, self.times = self.sizes[1::2], self.times[1::2]

    def when(self, offset: int) -> float | None:
        """When the byte at `offset` was first seen."""
        index = bisect_right(self.sizes, offset)
        return self.times[index] if index < len(self.times) else None

    def since(self, moment: float) -> int:
        """The offset of the first byte that was not there before `moment`."""
        index = bisect_left(self.times, moment)
        return self.sizes[index - 1] if index else 0


class PodLogs:
    """The logs under a directory: ``<pod uid>/<container>.<attempt>.log``."""

    def __init__(self, directory: Path) -> None:
        self._moments: dict[Path, Moments] = {}
        self._waiting: dict[Path, set[asyncio.Future[None]]] = {}
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._inotify = Inotify(self._changed, self._find)
        self._inotify.watch(directory)
        self._find()

    def close(self) -> None:
        """Watch no more."""
        self._inotify.close()

    def size(self, log: Path) -> int:
        """How long it is now."""
        try:
            return log.stat().st_size
        except OSError:
            return 0

    async def read(self, log: Path, options: LogOptions, over: asyncio.Event) -> AsyncIterator[bytes]:
        """What stands in `log`; when it is followed, also what comes until `over`."""
        begin = self._begin(log, options)
        pieces = self.follow(log, begin, over) if options.follow else _pieces(log, begin)
        if options.lines is not None and not options.follow:
            pieces = _first(options.lines, pieces)
        if options.timestamps:
            pieces = self._stamped(log, begin, pieces)
        left = options.limit
        async with aclosing(pieces):  # type: ignore[type-var]  # an async generator
            async for piece in pieces:
                yield piece[:left]
                if left is not None:
                    left -= min(left, len(piece))
                    if not left:
                        return

    async def follow(self, log: Path, begin: int, over: asyncio.Event) -> AsyncIterator[bytes]:
        """What stands in `log` from `begin` on, and what comes until `over`."""
        position = begin
        while True:
            last = over.is_set()  # asked before reading: what was written by then is read
            change = asyncio.get_running_loop().create_future()
            waiting = self._waiting.setdefault(log, set())
            waiting.add(change)
            try:
                pieces = _pieces(log, position)
                async with aclosing(pieces):  # type: ignore[type-var]  # an async generator
                    async for piece in pieces:
                        position += len(piece)
                        yield piece
                if last:
                    return
                ended = asyncio.ensure_future(over.wait())
                try:
                    await asyncio.wait((change, ended), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    ended.cancel()
            finally:
                waiting.discard(change)
                if not waiting and self._waiting.get(log) is waiting:
                    del self._waiting[log]

    async def _stamped(self, log: Path, begin: int, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """With the time before each line, as RFC 3339 has it."""
        rest, inside = b"", False
        async with aclosing(pieces):  # type: ignore[type-var]  # an async generator
            async for piece in pieces:
                *lines, rest = (rest + piece).split(b"\n")
                told = []
                for line in lines:
                    told.append((b"" if inside else self._stamp(log, begin)) + line + b"\n")
                    begin, inside = begin + len(line) + 1, False
                if len(rest) > CHUNK:  # a line that long is not waited for
                    told.append((b"" if inside else self._stamp(log, begin)) + rest)
                    begin, rest, inside = begin + len(rest), b"", True
                if told:
                    yield b"".join(told)
        if rest:
            yield self._stamp(log, begin) + rest

    def _stamp(self, log: Path, offset: int) -> bytes:
        moments = self._moments.get(log)
        moment = moments.when(offset) if moments else None
        whole, part = divmod(round((moment or time.time()) * 1e9), 10**9)
        return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{part:09}Z ".encode()

    def _begin(self, log: Path, options: LogOptions) -> int:
        """Where what is asked for begins: both limits count."""
        since = options.since or (time.time() - options.seconds if options.seconds else 0.0)
        try:
            with open(log, "rb") as file:
                begin = tail(file.fileno(), options.lines)
                if since:
                    moments = self._moments.get(log)
                    first = moments.since(since) if moments else 0
                    begin = max(begin, _line(file.fileno(), first))
                return begin
        except FileNotFoundError:  # a container that has written nothing yet
            return 0

    def _changed(self, paths: Set[Path]) -> None:
        now = time.time()
        for path in paths:
            if path.parent == self._directory:
                self._enter(path)
            else:
                self._look(path, now)

    def _find(self) -> None:
        """Look at all files: at the beginning, or when changes were lost."""
        for path in self._directory.iterdir():
            self._enter(path)

    def _enter(self, directory: Path) -> None:
        with suppress(NsK8sError, OSError):  # no directory, or gone again
            self._inotify.watch(directory)
            for path in directory.iterdir():
                self._look(path, path.stat().st_mtime)

    def _look(self, path: Path, moment: float) -> None:
        if path.suffix != ".log":
            return
        size = self.size(path)
        if size:
            self._moments.setdefault(path, Moments()).seen(size, moment)
            for change in self._waiting.get(path, ()):
                if not change.done():
                    change.set_result(None)


async def _first(lines: int, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """As many lines at most: what is written while the last ones are read is not among them (the kubelet's
    ReadLogs, in its limited mode)."""
    async with aclosing(pieces):  # type: ignore[type-var]  # an async generator
        async for piece in pieces:
            ended = piece.count(b"\n")
            if ended >= lines:
                parts = piece.split(b"\n", lines)
                yield b"".join(part + b"\n" for part in parts[:lines])
                return
            lines -= ended
            yield piece


async def _pieces(log: Path, position: int) -> AsyncIterator[bytes]:
    """What stands in it now."""
    try:
        fd = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        while piece := os.pread(fd, CHUNK, position):
            yield piece
            position += len(piece)
            await asyncio.sleep(0)
    finally:
        os.close(fd)


def _line(fd: int, offset: int) -> int:
    """Where the first line begins at or behind `offset`."""
    while offset:
        before = os.pread(fd, CHUNK, offset - 1)
        index = before.find(b"\n")
        if index >= 0:
            return offset + index
        if len(before) < CHUNK:
            return offset - 1 + len(before)
        offset += len(before)
    return 0


def tail(fd: int, lines: int | None) -> int:
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
