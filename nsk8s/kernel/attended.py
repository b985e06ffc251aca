"""A program beside a container's own, with somebody at its streams: pipes, or a terminal.

It is a child of ours, in the container's namespaces, and the leader of a session of its own; on a terminal
that is its controlling terminal. For the asyncio thread.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Protocol

from nsk8s.errors import ClusterGone
from nsk8s.kernel import namespaces
from nsk8s.kernel.pipes import Sink, Source, pipe, resize, terminal
from nsk8s.kernel.processes import Inside, descendants, entering, tool
from nsk8s.kernel.stdio import FileAction

JOINED = ("mnt", "net", "uts", "ipc")
"""The namespaces that nsenter enters; the PID namespace concerns children, and is entered by us."""
WITH_US = ("--pdeathsig", "KILL")
"""setpriv's words for a program that ends with its parent: nobody is at its streams any more."""


class Attended:
    """The program that runs. `stdin`, `stdout` and `stderr` are None where it was not asked for them."""

    def __init__(
        self, pid: int, stdin: Sink | None, stdout: Source, stderr: Source | None, terminal: int
    ) -> None:
        loop = asyncio.get_running_loop()
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self._terminal = terminal
        self._pidfd = os.pidfd_open(pid)
        self._code: asyncio.Future[int] = loop.create_future()
        loop.add_reader(self._pidfd, self._ended)

    def resize(self, width: int, height: int) -> None:
        """Its terminal's window has another size, in characters."""
        if self._terminal >= 0:
            resize(self._terminal, width, height)

    async def wait(self) -> int:
        """Its exit code."""
        return await asyncio.shield(self._code)

    def kill(self) -> None:
        """End it, its process group and its descendants, and let go of its streams."""
        if not self._code.done():
            family = descendants(self.pid)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            for pid in family:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for end in (self.stdin, self.stdout, self.stderr):
            if end is not None:
                end.close()
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._pidfd)
        self._code.set_result(code if code >= 0 else 128 - code)
        for source in (self.stdout, self.stderr):
            if source is not None:
                source.drain()


def attend(place: Inside, command: Sequence[str], *, stdin: bool, tty: bool) -> Attended:
    """Start `command` in `place`. Without `stdin` its input is empty; with `tty` all three streams are one
    terminal. Raises ClusterGone when the place is gone."""
    with ExitStack() as stack:
        try:
            run, fds = stack.enter_context(entering(place, command, JOINED))
            words = [tool("setpriv", "util-linux"), *WITH_US, *run]
            streams = _Terminal(stack, place) if tty else _Pipes(stack, stdin=stdin)
            actions: list[FileAction] = [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in fds]
            with namespaces.inside(place.namespace("pid"), "pid"):
                pid = os.posix_spawn(
                    words[0],
                    words,
                    os.environ,
                    file_actions=[*actions, *streams.actions()],
                    setsid=True,
                    setsigmask=(),
                    setsigdef=(signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ),
                )
        except OSError as error:
            raise ClusterGone(f"the container is gone: {error.strerror or error}") from error
        return streams.attended(pid)


class _Streams(Protocol):
    def actions(self) -> list[FileAction]:
        """What makes them the program's."""

    def attended(self, pid: int) -> Attended:
        """The program, with our ends of them."""


class _Pipes:
    def __init__(self, stack: ExitStack, *, stdin: bool) -> None:
        self._ours = ExitStack()
        stack.push(self._ours)
        if stdin:
            self._stdin, self._into = pipe()
            self._ours.callback(os.close, self._into)
        else:
            self._stdin, self._into = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), -1
        self._from, self._stdout = pipe()
        self._from_stderr, self._stderr = pipe()
        for fd in (self._stdin, self._stdout, self._stderr):
            stack.callback(os.close, fd)
        for fd in (self._from, self._from_stderr):
            self._ours.callback(os.close, fd)

    def actions(self) -> list[FileAction]:
        theirs = (self._stdin, self._stdout, self._stderr)
        return [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(theirs)]

    def attended(self, pid: int) -> Attended:
        self._ours.pop_all()
        stdin = Sink(self._into) if self._into >= 0 else None
        return Attended(pid, stdin, Source(self._from), Source(self._from_stderr), -1)


class _Terminal:
    def __init__(self, stack: ExitStack, place: Inside) -> None:
        self._ours = ExitStack()
        stack.push(self._ours)
        # One of the container's own devpts, where it has one, so that tty(1) finds it.
        self.master, self.path = terminal(f"{place.proc}/{place.container}/root" if place.container else "")
        self._ours.callback(os.close, self.master)

    def actions(self) -> list[FileAction]:
        # The first terminal that a session's leader opens becomes its controlling terminal (tty_ioctl(4)).
        opened = (os.POSIX_SPAWN_OPEN, 0, self.path, os.O_RDWR, 0)
        return [opened, *((os.POSIX_SPAWN_DUP2, 0, target) for target in (1, 2))]

    def attended(self, pid: int) -> Attended:
        self._ours.pop_all()
        return Attended(pid, Sink(os.dup(self.master)), Source(os.dup(self.master)), None, self.master)
