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


class _Run(Struct, frozen=True):
    namespace: str
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    errors: IO[bytes]


class Result(Struct, frozen=True):
    """How a run ended: its exit status and what it wrote."""

    namespace: str
    status: int
    output: bytes
    errors: str


def run(argv: tuple[str, ...], inputs: Mapping[str, str], enter: Enter) -> Iterator[Result]:
    """Run `argv` once per namespace with its input, several at a time; yields as they end, in order."""
    running: deque[_Run] = deque()
    at_work = 2 * (os.cpu_count() or 1)
    try:
        for namespace, text in inputs.items():
            if len(running) >= (TOGETHER if text and len(text) <= LITTLE else at_work):
                yield _finish(argv[0], running.popleft())
            running.append(_start(argv, namespace, text, enter))
        while running:
            yield _finish(argv[0], running.popleft())
    finally:
        for run in running:  # after an error: nobody will ask how they ended
            run.process.kill()
            _finish(argv[0], run)


def _start(argv: tuple[str, ...], namespace: str, text: str, enter: Enter) -> _Run:
    # Files in memory, not pipes: nobody has to read while the process writes.
    source, output, errors = _memory("in"), _memory("out"), _memory("err")
    with source:
        source.write(text.encode())
        source.seek(0)
        try:
            with enter(namespace):
                process = subprocess.Popen(argv, stdin=source, stdout=output, stderr=errors)
        except BaseException as error:
            output.close()
            errors.close()
            if isinstance(error, FileNotFoundError) and error.filename == argv[0]:
                raise missing(argv[0], error) from error
            raise
    return _Run(namespace, process, output, errors)


def _memory(name: str) -> IO[bytes]:
    return os.fdopen(os.memfd_create(name), "w+b")


def _finish(program: str, run: _Run) -> Result:
    with run.output, run.errors:
        try:
            if not _ends(run.process, DEADLINE):
                run.process.kill()
                raise Timeout(f"namespace {run.namespace}: {program} did not end in {DEADLINE:g} s")
        finally:
            status = run.process.wait()
        run.output.seek(0)
        run.errors.seek(0)
        errors = run.errors.read().decode(errors="replace").strip()
        return Result(run.namespace, status, run.output.read(), errors)


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
