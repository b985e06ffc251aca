"""Looking at many network namespaces: what each holds, as values, but for its rules.

Half of the time that takes is Python's, and Python does one thing at a time; so of many namespaces a process
of its own looks at half.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from msgspec import Struct, msgpack

from nsk8s.kernel import iptables, nftables, observation, sysctl
from nsk8s.kernel.forked import Forked, ForkServer, Killed
from nsk8s.kernel.namespaces import CLONE_NEWNET, CLONE_NEWUTS, Home, setns
from nsk8s.kernel.netlink import Netlink
from nsk8s.linux.state import Reading
from nsk8s.linux.values import Address, FdbEntry, Link, NamespaceState, Neighbour, Route, Sysctl

COMM = "nsk8s:looking"
"""What /proc/PID/comm calls the process."""

_PORTION = 32  # namespaces looked at between two questions
_AHEAD = 2  # portions that the other process has before it: so it never waits
_LONGEST = 1 << 20  # bytes of a request


class Subject(Struct, frozen=True, array_like=True):
    """A namespace to look at: that of process `pid`, or with 0 the one in which whoever looks stands. Read
    are what `reading` says and the `sysctls` with these keys; of `rules` (of iptables) and `tables` (of nft)
    it is only told whether there ever were any."""

    name: str
    pid: int
    reading: Reading
    sysctls: tuple[str, ...]
    rules: bool
    tables: bool


class Seen(Struct, frozen=True, array_like=True, tag=True):
    """What a namespace holds, and whether it has ever had rules or tables, if that was asked."""

    name: str
    hostname: str
    links: tuple[Link, ...]
    addresses: frozenset[Address]
    routes: frozenset[Route]
    neighbours: frozenset[Neighbour]
    fdb: frozenset[FdbEntry]
    sysctls: frozenset[Sysctl]
    rules: bool
    tables: bool

    @property
    def state(self) -> NamespaceState:
        """What it holds, as a state without rules."""
        return NamespaceState(
            *(self.name, self.hostname, self.links, self.addresses, self.routes),
            *(self.neighbours, self.fdb, self.sysctls),
        )


class Refused(Struct, frozen=True, array_like=True, tag=True):
    """A look that the kernel did not allow."""

    name: str
    errno: int
    reason: str


Look = Seen | Refused | None
"""None: the namespace is not there."""

_encode = msgpack.Encoder().encode
_subjects = msgpack.Decoder(list[Subject]).decode
_looks = msgpack.Decoder(list[Look]).decode


class Looker:
    """Looks at namespaces, with the help of another process where there are many. For one thread."""

    def __init__(self, forks: ForkServer, home: Home) -> None:
        """`home` is where the thread stands."""
        self._forks = forks
        self._home = home
        self._helper: Forked | None = None

    def look(self, subjects: Sequence[Subject]) -> list[Look]:
        """What is there, in the order of the subjects."""
        portions = _portions(subjects)
        found: list[list[Look]] = [[] for _ in portions]
        todo = deque(range(len(portions)))
        asked: deque[int] = deque()
        try:
            while todo or asked:
                while len(todo) > 1 and len(asked) < _AHEAD and self._begin(portions[todo[-1]]):
                    asked.append(todo.pop())
                if todo:
                    number = todo.popleft()
                    found[number] = _look(portions[number], self._home)
                if asked:
                    number = asked.popleft()
                    try:
                        found[number] = self._answer()
                    except Killed:  # what it was asked for is for us to see
                        todo += [number, *asked]
                        asked.clear()
        finally:
            for _ in asked:  # after an error: nobody will ask for these answers
                with suppress(Killed):
                    self._answer()
        return [one for portion in found for one in portion]

    def close(self) -> None:
        """End the other process."""
        if self._helper:
            self._helper.close()

    def _begin(self, portion: Sequence[Subject]) -> bool:
        """Ask the other process; whether it could be asked."""
        self._helper = self._helper or Forked(self._forks, COMM, _serve)
        try:
            self._helper.send(_encode(portion))
        except Killed:
            return False
        return True

    def _answer(self) -> list[Look]:
        assert self._helper
        return _looks(self._helper.answer())


def _look(portion: Sequence[Subject], home: Home) -> list[Look]:
    try:
        return [_see(one, home) for one in portion]
    finally:
        home.back("net", "uts")


def _see(subject: Subject, home: Home) -> Look:
    """Look at one namespace, and stay there."""
    try:
        _enter(subject.pid, home)
        hostname = os.uname().nodename if subject.pid else ""
        with Netlink() as netlink:
            held = observation.observe(netlink, subject.name, hostname, subject.reading)
        return Seen(
            *(held.name, held.hostname, held.links, held.addresses, held.routes, held.neighbours, held.fdb),
            sysctls=frozenset(_sysctls(subject.sysctls)),
            rules=subject.rules and not iptables.untouched(),
            tables=subject.tables and not nftables.untouched(),
        )
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        return Refused(subject.name, error.errno or errno.EIO, error.strerror or "")


def _enter(pid: int, home: Home) -> None:
    """Go into the network and UTS namespaces of a process. Raises ProcessLookupError if it has ended."""
    if not pid:
        home.back("net", "uts")
        return
    process = os.pidfd_open(pid)
    try:
        setns(process, CLONE_NEWNET | CLONE_NEWUTS)
    finally:
        os.close(process)


def _sysctls(keys: Iterable[str]) -> Iterator[Sysctl]:
    for key in keys:
        with suppress(FileNotFoundError):
            yield Sysctl(key, sysctl.read(key))


def _portions(subjects: Sequence[Subject]) -> list[Sequence[Subject]]:
    return [subjects[first : first + _PORTION] for first in range(0, len(subjects), _PORTION)]


def _serve(requests: socket.socket) -> None:
    """Until end of file."""
    buffer = bytearray(_LONGEST)
    home = Home("net", "uts")
    while size := requests.recv_into(buffer):
        requests.send(_encode(_look(_subjects(memoryview(buffer)[:size]), home)))
