"""A container's standard streams: a log, and nothing, a pipe or a terminal for its input."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum

from nsk8s.kernel.pipes import terminal

TYPED = ("INT", "QUIT", "TSTP", "TTIN", "TTOU")
"""The signals by which a terminal speaks to a process group."""

FileAction = tuple[int, int, int] | tuple[int, int, str, int, int]
"""What posix_spawn(3) does before the program: dup2, open."""


class Input(Enum):
    """A container's standard input: nothing, what never ends, what ends when somebody has spoken to it, or
    a terminal (that is its output, too)."""

    EMPTY = ""
    ENDLESS = "endless"
    ONCE = "stdin"
    TERMINAL = "tty"


class Streams:
    """A container's standard streams: `actions` make them its own, `near` is our end of them (-1: none),
    `before` stands before the monitor's shell script, `wrap` before the program."""

    def __init__(self, stdin: Input, output: int, kept: Callable[[int], int]) -> None:
        self.near = -1
        self.before = ""
        self.wrap: list[str] = []
        self.actions: list[FileAction] = []
        if stdin is Input.TERMINAL:
            near, path = terminal()
            self.near = kept(near)
            os.set_blocking(near, False)
            # What is typed goes to the whole process group: the monitor shall survive it.
            self.before = f"trap '' {' '.join(TYPED)}; "
            self.wrap = ["env", f"--default-signal={','.join(TYPED)}"]
            # The first terminal that a session's leader opens is its controlling one (tty_ioctl(4)).
            self.actions.append((os.POSIX_SPAWN_OPEN, 0, path, os.O_RDWR, 0))
            self.actions += [(os.POSIX_SPAWN_DUP2, 0, target) for target in (1, 2)]
            return
        if stdin is Input.EMPTY:
            reading = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        else:
            reading, writing = os.pipe2(os.O_CLOEXEC)
            kept(writing)
            if stdin is Input.ONCE:
                self.near = writing
            else:  # the reader holds its writing end as well: it never ends
                self.actions.append((os.POSIX_SPAWN_DUP2, writing, writing))
        self.actions.append((os.POSIX_SPAWN_DUP2, kept(reading), 0))
        self.actions += [(os.POSIX_SPAWN_DUP2, output, target) for target in (1, 2)]
