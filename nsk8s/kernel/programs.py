"""A host's program run in many network namespaces at once, each with an input of its own.

A process is started from a thread that stands in the namespace (0.1 ms by vfork; nsenter takes 2 ms).
A program that has changed rules ends after a grace period of RCU, 10 to 30 ms. So of those that have much to
do two run at a time for each processor; those that have little mostly wait, and wait together.
"""

from __future__ import annotations

import os
import select
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import IO

from msgspec import Struct

from nsk8s.errors import HostError, Timeout

Enter = Callable[[str], AbstractContextManager[None]]
"""Puts the calling thread into a network namespace, by name, and back."""

DEADLINE = 120.0
"""Seconds that one run may take; 10,000 services in kube-proxy's shape take iptables-restore 71."""

TOGETHER = 16
"""Most runs at a time."""
LITTLE = 32 * 1024
"""Bytes of input up to which a run waits rather than works."""

_PACKAGES = {"nft": "nftables"}
"""The Debian packages of programs that come in one of another name than their own beginning."""


class Result(Struct, frozen=True):
    """How a run ended: its exit status and what it wrote."""

    namespace: str
    status: int
    output: bytes
    errors: str


class Running:
    """A program at work in a namespace, with an input of its own. Raises HostError if it is not there."""

    def __init__(self, argv: tuple[str, ...], namespace: str, text: str, enter: Enter) -> None:
        # Files in memory, not pipes: nobody has to read while the process writes.
        self._program, self._namespace = argv[0], namespace
        source, self._output, self._errors = _memory("in"), _memory("out"), _memory("err")
        with source:
            source.write(text.encode())
            source.seek(0)
            try:
                with enter(namespace):
                    self._process = subprocess.Popen(
                        argv, stdin=source, stdout=self._output, stderr=self._errors
                    )
            except BaseException as error:
                self._output.close()
                self._errors.close()
                if isinstance(error, FileNotFoundError) and error.filename == argv[0]:
                    raise missing(argv[0], error) from error
                raise

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def kill(self) -> None:
        """End it, if nobody has asked how it ended."""
        if not self._output.closed:
            self._process.kill()
            self.finish()

    def finish(self) -> Result:
        """Wait until it ends, once. Raises Timeout."""
        with self._output, self._errors:
            try:
                if not _ends(self._process, DEADLINE):
                    self._process.kill()
                    raise Timeout(
                        f"namespace {self._namespace}: {self._program} did not end in {DEADLINE:g} s"
                    )
            finally:
                status = self._process.wait()
            self._output.seek(0)
            self._errors.seek(0)
            errors = self._errors.read().decode(errors="replace").strip()
            return Result(self._namespace, status, self._output.read(), errors)


def run(argv: tuple[str, ...], inputs: Mapping[str, str], enter: Enter) -> Iterator[Result]:
    """Run `argv` once per namespace with its input, several at a time; yields as they end, in order."""
    running: deque[Running] = deque()
    at_work = 2 * (os.cpu_count() or 1)
    try:
        for namespace, text in inputs.items():
            if len(running) >= (TOGETHER if text and len(text) <= LITTLE else at_work):
                yield running.popleft().finish()
            running.append(Running(argv, namespace, text, enter))
        while running:
            yield running.popleft().finish()
    finally:
        for one in running:  # after an error: nobody will ask how they ended
            one.kill()


def _memory(name: str) -> IO[bytes]:
    return os.fdopen(os.memfd_create(name), "w+b")


def _ends(process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Whether a process ends within `deadline` seconds. Exactly as long as it takes: Popen.wait would look
    again every 50 ms."""
    if process.poll() is not None:
        return True
    pidfd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(deadline * 1000))
    finally:
        os.close(pidfd)


def missing(program: str, error: OSError) -> HostError:
    """The error to raise where a program is not there."""
    package = _PACKAGES.get(program, program.partition("-")[0])
    return HostError(f"cannot run {program}: {error.strerror}", hint=f"apt-get install {package}")
