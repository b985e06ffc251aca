"""Sandboxes made ahead of whoever wires them.

Half the time that a new pod takes in the kernel is its namespaces and its pause process, the other half its
interfaces. Processes of their own make the former, so that both halves run side by side; and the network
namespaces, which take longest and are all alike, they make while others still decide what the pods are.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import struct
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from nsk8s.kernel import namespaces, pause, rtnetlink, sysctl
from nsk8s.kernel.forked import Forked, ForkServer, Killed
from nsk8s.kernel.namespaces import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWUTS, Home
from nsk8s.kernel.netlink import Netlink

COMM = "nsk8s:making"
"""What /proc/PID/comm calls the process."""

_MAKERS = 2  # more take turns at the kernel's locks
_ASIDE = 10  # nice value of a process that works ahead beside those that somebody waits for
_ANSWER = struct.Struct("=ii")  # the pid of a pause process, or 0 and the errno of what went wrong
_LONGEST = 4096  # bytes of a request


class Wanted(NamedTuple):
    """A sandbox to make: with network, UTS and IPC namespaces of its own, and with a tag (a pod's) also one
    of processes, in which its pause process is PID 1. Lo is up; without a tag (a node's: its bridge ports
    would announce themselves) interfaces have no IPv6 unless they ask for it."""

    name: str
    hostname: str
    tag: str


class Maker:
    """Has sandboxes made, in order. For one thread; only `stock` may be called in another."""

    def __init__(self, forks: ForkServer, program: str, argv: Sequence[str]) -> None:
        """`program` is run as `argv` and the sandbox's name and tag."""
        self._process = Forked(forks, COMM, _serve, (program, argv))
        self._stocked = False
        self._unsent: deque[Wanted] = deque()
        self._unanswered: deque[str] = deque()
        self._answers: dict[str, tuple[int, int]] = {}
        self._asked: set[str] = set()

    def stock(self, number: int) -> None:
        """So many sandboxes will be wanted: make their network namespaces while nothing else is to be done.
        As long as nobody uses them each takes a file descriptor: no more than half of those a process may
        have. With 0, let go of those that nobody wanted after all."""
        if number or self._stocked:
            self._stocked = number > 0
            self._process.tell(str(number).encode())  # lost, it only takes longer

    def begin(self, wanted: Sequence[Wanted]) -> None:
        """Begin to make those that are not begun yet; wait for each with `made`."""
        self._unsent.extend(one for one in wanted if one.name not in self._asked)
        self._asked.update(one.name for one in wanted)
        with suppress(OSError):  # whoever waits for one asks again, and hears of it
            self._hand_over()

    def made(self, wanted: Wanted) -> int:
        """Wait for a sandbox, begun now if it was not: the pid of its pause process. Raises OSError."""
        name = wanted.name
        if name not in self._asked:
            self._unsent.append(wanted)
            self._asked.add(name)
        while name not in self._answers:
            self._hand_over()
            self._hear()
        self._asked.discard(name)
        pid, failure = self._answers.pop(name)
        if failure:
            raise OSError(failure, f"making namespaces: {os.strerror(failure)}")
        return pid

    def settle(self) -> None:
        """Let what has not been begun be, and wait for what has."""
        self._unsent.clear()
        with suppress(OSError):
            while self._unanswered:
                self._hear()
        self._answers.clear()
        self._asked.clear()

    def close(self) -> None:
        """End the process; no sandbox ends."""
        self._process.close()

    def _hand_over(self) -> None:
        try:
            while self._unsent and self._process.offer("\0".join(self._unsent[0]).encode()):
                self._unanswered.append(self._unsent.popleft().name)
        except Killed:
            self._lost()
            raise

    def _hear(self) -> None:
        try:
            answer = self._process.answer()
        except Killed:
            self._lost()
            raise
        self._answers[self._unanswered.popleft()] = _ANSWER.unpack(answer)

    def _lost(self) -> None:
        """Whoever wants what was to be made asks again."""
        self._unsent.clear()
        self._unanswered.clear()
        self._asked = set(self._answers)


class Makers:
    """Makers that share the work: while one waits for a new process to become the pause program, another one
    goes on. For one thread; only `stock` may be called in another."""

    def __init__(self, forks: ForkServer, program: str, argv: Sequence[str]) -> None:
        self._makers = [Maker(forks, program, argv) for _ in range(_MAKERS)]
        self._whose: dict[str, Maker] = {}

    def stock(self, number: int) -> None:
        """As `Maker.stock`."""
        for index, maker in enumerate(self._makers):
            maker.stock((number + index) // _MAKERS)

    def begin(self, wanted: Sequence[Wanted]) -> None:
        """As `Maker.begin`."""
        new = [one for one in wanted if one.name not in self._whose]
        for index, maker in enumerate(self._makers):
            share = new[index::_MAKERS]
            self._whose.update((one.name, maker) for one in share)
            maker.begin(share)

    def made(self, wanted: Wanted) -> int:
        """As `Maker.made`."""
        return self._whose.pop(wanted.name, self._makers[0]).made(wanted)

    def settle(self) -> None:
        """As `Maker.settle`."""
        self._whose.clear()
        for maker in self._makers:
            maker.settle()

    def close(self) -> None:
        """As `Maker.close`."""
        for maker in self._makers:
            maker.close()


class _Making:
    """The process that makes sandboxes, for as long as the other end of its socket is open."""

    def __init__(self, requests: socket.socket, program: str, argv: Sequence[str]) -> None:
        self._requests = requests
        self._program = program
        self._argv = argv
        self._home = Home("net", "uts", "ipc", "pid")
        self._stock: list[int] = []
        self._most = 0
        self._poll = select.poll()
        self._poll.register(requests, select.POLLIN)

    def serve(self) -> None:
        """Until end of file."""
        while True:
            if not self._poll.poll(0):
                if len(self._stock) < self._most:
                    self._add()
                    continue
                self._home.back()  # hold on to no namespace
            words = self._requests.recv(_LONGEST).decode().split("\0")
            if words == [""]:
                return
            if len(words) == 1:
                self._expect(int(words[0]))
                continue
            if os.getpriority(os.PRIO_PROCESS, 0):
                os.setpriority(os.PRIO_PROCESS, 0, 0)
            try:
                answer = _ANSWER.pack(self._make(Wanted(*words)), 0)
            except OSError as error:
                answer = _ANSWER.pack(0, error.errno or errno.EIO)
            self._requests.send(answer)

    def _expect(self, number: int) -> None:
        if number:
            os.setpriority(os.PRIO_PROCESS, 0, _ASIDE)
        self._most = min(number, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        while len(self._stock) > self._most:
            os.close(self._stock.pop())

    def _add(self) -> None:
        try:
            _new_network()
            self._stock.append(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:  # whoever needs one meets the same limit, and says so
            self._most = 0

    def _make(self, wanted: Wanted) -> int:
        namespaces.unshare(CLONE_NEWUTS | CLONE_NEWIPC | (CLONE_NEWPID if wanted.tag else 0))
        self._most = max(0, self._most - 1)
        try:
            if self._stock:
                network = self._stock.pop()
                try:
                    namespaces.setns(network, CLONE_NEWNET)
                finally:
                    os.close(network)
            else:
                _new_network()
            if wanted.hostname:
                namespaces.sethostname(wanted.hostname)
            if not wanted.tag:
                with suppress(FileNotFoundError):
                    sysctl.write("net.ipv6.conf.default.disable_ipv6", "1")
            return pause.start(self._program, [*self._argv, wanted.name, wanted.tag])
        finally:
            self._home.back("pid")  # the kernel wants it before the next unshare (EINVAL)


def _serve(requests: socket.socket, program: str, argv: Sequence[str]) -> None:
    _Making(requests, program, argv).serve()


def _new_network() -> None:
    """Move into a new network namespace, with lo up."""
    namespaces.unshare(CLONE_NEWNET)
    with Netlink() as netlink:
        netlink.send([rtnetlink.up(0, 1)])
