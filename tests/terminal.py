"""A terminal for a program under test: what it shows, what is typed, how large it is."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

DEADLINE = 20.0


class Terminal:
    """A program that runs on a terminal of its own; gone when the context ends."""

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], *, rows: int = 24, columns: int = 80
    ) -> None:
        self._master, slave = pty.openpty()
        self.resize(rows, columns)
        self._process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *argv], stdin=slave, stdout=slave, stderr=slave, env=dict(env)
        )
        os.close(slave)
        self.shown = ""

    def press(self, text: str) -> None:
        """Type on its keyboard; ``\\x03`` is Ctrl-C, ``\\x04`` Ctrl-D."""
        os.write(self._master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size, as a person who drags its corner."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, text: str, deadline: float = DEADLINE) -> str:
        """Wait until `text` is shown; returns what was shown up to it, and forgets that."""
        end = time.monotonic() + deadline
        while text not in self.shown:
            assert self._read(end), f"{text!r} was not shown:\n{self.shown}"
        before, _, self.shown = self.shown.partition(text)
        return before

    def wait(self, deadline: float = DEADLINE) -> int:
        """Wait until the program has ended; its exit code."""
        end = time.monotonic() + deadline
        while self._read(end):
            pass
        return self._process.wait(max(0.1, end - time.monotonic()))

    def _read(self, end: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return False
        try:
            piece = os.read(self._master, 65536)
        except OSError:  # EIO: nobody has the other side any more
            return False
        self.shown += piece.decode(errors="replace")
        return bool(piece)

    def __enter__(self) -> Terminal:
        """The terminal."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up."""
        os.close(self._master)
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait(DEADLINE)
