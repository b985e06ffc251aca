"""The processes behind a cluster, as the host's /proc shows them: whom to kill, and whom to count."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nsk8s.kernel import forked, looking, making, wiring
from nsk8s.kernel import holder as holders
from nsk8s.paths import ClusterPaths
from nsk8s.workloads import standins

Words = tuple[str, ...]

FORKED = {forked.COMM, looking.COMM, making.COMM, wiring.COMM, standins.COMM, standins.DNS_COMM}
"""What those call themselves that are forked from the control plane, and so have its command line."""


class Processes:
    """Every process in the PID namespace of one cluster (and below), by pid as this process counts."""

    def __init__(self, cluster: str) -> None:
        self._paths = ClusterPaths(cluster)

    def all(self) -> dict[int, Words]:
        """The command lines of all of them; none if the cluster does not run. A process that has only been
        forked, and will be another program in a moment, is left out: its command line is its parent's. The
        control plane's own forks keep it for good; they are told by what they call themselves."""
        found = holders.find(self._paths)
        if found is None:
            return {}
        # When a process ends its children become the holder's, perhaps after those have been looked at.
        seen = _tree(found.pid)
        for _ in range(100):
            before, seen = seen, _tree(found.pid)
            if seen == before:
                break
        return seen

    def daemon(self) -> int:
        """The control plane's pid."""
        return self._one(lambda words: "nsk8s.daemon" in words)

    def standins(self) -> int:
        """The stand-in server's pid."""
        return self._one(lambda words: words == (standins.COMM,))

    def holder(self) -> int:
        """The holder's pid."""
        return self._one(lambda words: words[0] == holders.TITLE)

    def pause(self, namespace: str) -> int:
        """The pid of what holds a namespace."""
        return self._one(lambda words: words[:2] == ("nsk8s:pause", namespace))

    def sandboxes(self) -> list[str]:
        """The namespaces that are held, one entry for each process that holds one, sorted."""
        return sorted(words[1] for words in self.all().values() if words[0] == "nsk8s:pause")

    def programs(self, *argv: str) -> list[int]:
        """The pids of those that run exactly `argv`."""
        return sorted(pid for pid, words in self.all().items() if words == argv)

    def count(self, word: str) -> int:
        """How many have `word` in their command line."""
        return sum(word in words for words in self.all().values())

    def _one(self, chosen: Callable[[Words], bool]) -> int:
        everything = self.all()
        found = [pid for pid, words in everything.items() if chosen(words)]
        assert len(found) == 1, everything
        return found[0]


def kill(pid: int) -> None:
    """SIGKILL, and wait for the end."""
    fd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        assert select.select([fd], [], [], 10)[0], f"{pid} is still there"
    finally:
        os.close(fd)


def _tree(root: int) -> dict[int, Words]:
    found: dict[int, Words] = {}
    todo = [(root, b"")]
    while todo:
        pid, parents = todo.pop()
        with suppress(FileNotFoundError, ProcessLookupError):
            raw = Path(f"/proc/{pid}/cmdline").read_bytes()
            comm = Path(f"/proc/{pid}/comm").read_text().strip()
            if comm in FORKED:
                found[pid] = (comm,)
            elif raw and raw != parents:  # a zombie has none
                found[pid] = tuple(raw.rstrip(b"\0").decode(errors="replace").split("\0"))
            for task in os.listdir(f"/proc/{pid}/task"):
                children = Path(f"/proc/{pid}/task/{task}/children").read_text().split()
                todo += [(int(child), raw) for child in children]
    return found


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process does not look for as long as the block takes; the block may kill it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
