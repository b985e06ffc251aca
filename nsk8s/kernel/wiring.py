"""What is done inside a network namespace to make it what it should be: sysctls, then netlink messages.

Of new pods a process of its own does it, portion after portion, while the messages of the next are put
together.
"""

from __future__ import annotations

import errno
import os
import pickle
import select
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from nsk8s.kernel import namespaces, sysctl
from nsk8s.kernel.forked import Forked, ForkServer, Killed
from nsk8s.kernel.namespaces import CLONE_NEWNET, Home
from nsk8s.kernel.netlink import Netlink, Refusal

COMM = "nsk8s:wiring"
"""What /proc/PID/comm calls the process."""

_LONGEST = 1 << 20  # bytes of a request

Setting = tuple[int, str, str]
"""A sysctl to write: the number of its operation, key and value."""


class Wiring(NamedTuple):
    """What to do in the network namespace of process `pid`; a message's sequence number is that of its
    operation. Other namespaces are named in it by pids, never by file descriptors."""

    pid: int
    settings: list[Setting]
    messages: list[bytes]


class Wirer:
    """Has namespaces wired, in order. For one thread."""

    def __init__(self, forks: ForkServer) -> None:
        self._process = Forked(forks, COMM, _serve)
        self._unanswered = 0
        self._lost = 0

    def begin(self, wiring: Wiring) -> None:
        """Begin with one; `refused` says how it went, in the order in which they were begun. No more than
        some hundreds at a time. Raises OSError."""
        try:
            self._process.send(pickle.dumps(wiring, pickle.HIGHEST_PROTOCOL))
        except Killed:
            self._lose()
            raise
        self._unanswered += 1

    def refused(self) -> dict[int, Refusal]:
        """Wait for the next: what the kernel refused, by the number of the operation. Raises OSError where
        the namespace is not there, or nobody knows."""
        if self._lost:
            self._lost -= 1
            raise OSError(errno.EPIPE, f"the process {COMM} was killed")
        self._unanswered -= 1
        try:
            found: dict[int, Refusal] | OSError = pickle.loads(self._process.answer())
        except Killed:
            self._lose()
            raise
        if isinstance(found, OSError):
            raise found
        return found

    def _lose(self) -> None:
        self._lost += self._unanswered
        self._unanswered = 0

    def settle(self) -> None:
        """Wait for what has been begun and nobody has waited for."""
        while self._unanswered or self._lost:
            with suppress(OSError):
                self.refused()

    def close(self) -> None:
        """End the process."""
        self._process.close()


def carry_out(settings: Iterable[Setting], messages: Iterable[bytes]) -> dict[int, Refusal]:
    """Write sysctls and have messages carried out, in the calling thread's network namespace. Returns what
    was refused, by the number of the operation."""
    refused: dict[int, Refusal] = {}
    for number, key, value in settings:
        try:
            sysctl.write(key, value)
        except OSError as error:
            refused[number] = Refusal(error.errno or errno.EIO, error.strerror or "")
    with Netlink() as netlink:
        return refused | netlink.send(messages)


def _serve(requests: socket.socket) -> None:
    """Until end of file."""
    buffer = bytearray(_LONGEST)
    home = Home("net")
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    while size := requests.recv_into(buffer):
        wiring = Wiring(*pickle.loads(memoryview(buffer)[:size]))
        answer: dict[int, Refusal] | OSError
        try:
            namespace = os.open(f"/proc/{wiring.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                namespaces.setns(namespace, CLONE_NEWNET)
            finally:
                os.close(namespace)
            answer = carry_out(wiring.settings, wiring.messages)
        except OSError as error:
            answer = error
        requests.send(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))
        if not poll.poll(0):
            home.back()  # hold on to no namespace
