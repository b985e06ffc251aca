"""The near ends of pipes and terminals, for asyncio: nothing is read or written before somebody asks, so a
slow reader makes the writer wait, and no byte is held here."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import Callable
from contextlib import suppress

SIZE = 128 * 1024
"""Bytes read at a time."""
CAPACITY = 1 << 20
"""Bytes that a pipe may hold (F_SETPIPE_SZ), where the kernel allows it."""
TIOCGPTN, TIOCSPTLCK = 0x80045430, 0x40045431
"""ioctl_tty(2): a terminal's number, and its lock."""
GRACE = 0.1
"""Seconds that output may still be on its way when its process has ended."""


class Source:
    """The reading end. Owns `fd`."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._ready = _Readiness()
        self._draining = False

    async def read(self) -> bytes:
        """Some bytes; b"" at the end: all writers have closed it, or it was drained, or closed."""
        while self._fd >= 0:
            try:
                piece = os.read(self._fd, SIZE)
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                try:
                    async with asyncio.timeout(GRACE if self._draining else None):
                        await self._ready.wait(self._fd, loop.add_reader, loop.remove_reader)
                except TimeoutError:
                    break
            except OSError:  # EIO: nobody has the terminal open any more
                break
            else:
                await asyncio.sleep(0)  # let others have their turn, however fast it comes
                return piece
        return b""

    def drain(self) -> None:
        """The process has ended: what comes after what is there now is not its own."""
        self._draining = True
        self._ready.wake()

    def close(self) -> None:
        """Read no more."""
        self._ready.wake()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Sink:
    """The writing end. Owns `fd`."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._ready = _Readiness()

    async def write(self, data: bytes) -> None:
        """All of it. Raises ConnectionError when nobody reads any more, or it is closed."""
        view = memoryview(data)
        while view:
            if self._fd < 0:
                raise BrokenPipeError("closed")
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await self._ready.wait(self._fd, loop.add_writer, loop.remove_writer)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise ConnectionResetError(str(error)) from error
        await asyncio.sleep(0)

    def close(self) -> None:
        """Write no more."""
        self._ready.wake()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Readiness:
    """Waits for a file descriptor, once."""

    def __init__(self) -> None:
        self._waiting: asyncio.Future[None] | None = None
        self._remove: Callable[[int], bool] = bool
        self._fd = -1

    async def wait(
        self, fd: int, add: Callable[[int, Callable[[], None]], None], remove: Callable[[int], bool]
    ) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        self._fd, self._remove = fd, remove
        add(fd, self.wake)
        try:
            await self._waiting
        finally:
            self.wake()

    def wake(self) -> None:
        """Whoever waits looks again; the file descriptor is not watched any more."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._remove(self._fd)
            if not waiting.done():
                waiting.set_result(None)


def pipe() -> tuple[int, int]:
    """A pipe that holds much: its reading and its writing end."""
    ends = os.pipe2(os.O_CLOEXEC)
    with suppress(OSError):
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, CAPACITY)
    return ends


def terminal(root: str = "") -> tuple[int, str]:
    """A new terminal (pty(7)): its near end, and the path of its far end. It is one of the devpts at
    `root`. Raises OSError."""
    near = os.open(f"{root}/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(near, TIOCSPTLCK, struct.pack("i", 0))
    (number,) = struct.unpack("i", fcntl.ioctl(near, TIOCGPTN, struct.pack("i", 0)))
    return near, f"{root}/dev/pts/{number}"


def resize(near: int, width: int, height: int) -> None:
    """A terminal's window has another size, in characters."""
    fcntl.ioctl(near, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
