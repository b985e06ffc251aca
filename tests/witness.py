"""The witness that the suite leaves nothing behind: what the machine holds, before and after.

In the private world that scripts/test makes, everything new is ours. On a machine shared with others only
what carries this session's mark is: the state directory, and processes with `MARK` in their environment
(every holder has it, and nothing of a cluster outlives its holder).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from nsk8s import paths

MARK = "NSK8S_TEST_SESSION"
PRIVATE = "NSK8S_TEST_WORLD"


def snapshot() -> frozenset[str]:
    """One line for each thing that a test could leave: a name, and what kind of thing it is."""
    found = {f"file {path}" for path in _entries(paths.root())}
    if os.environ.get(PRIVATE) == "private":
        found.update(
            f"file {path}" for root in (paths.NETNS_DIR, Path("/run/nsk8s")) for path in _entries(root)
        )
        found.update(f"link {name}" for name in _links())
        found.update(f"mount {line}" for line in _mounts())
        found.update(f"open namespace {name}" for name in _open_namespaces())
        found.update(_processes(b""))
    else:
        found.update(_processes(f"{MARK}={os.environ.get(MARK)}".encode()))
    return frozenset(found)


def left_behind(before: frozenset[str], deadline: float = 10.0) -> list[str]:
    """What is there now and was not `before`, sorted; waits a while for things that are on their way out."""
    end = time.monotonic() + deadline
    while True:
        left = snapshot() - before
        if not left or time.monotonic() > end:
            return sorted(left)
        time.sleep(0.05)  # teardown is asynchronous and announces nothing


def _entries(directory: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError, PermissionError):
        for name in os.listdir(directory):
            yield directory / name


def _links() -> Iterator[str]:
    """This namespace's network devices; /sys/class/net would show those of whoever mounted it."""
    for line in Path("/proc/self/net/dev").read_text().splitlines()[2:]:
        yield line.partition(":")[0].strip()


def _mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        yield f"{left.split()[4]} ({right.split()[0]})"


def _open_namespaces() -> Iterator[str]:
    """Namespaces that this very process keeps alive by a file descriptor."""
    for entry in _entries(Path("/proc/self/fd")):
        with suppress(OSError):
            target = os.readlink(entry)
            if target.startswith(("net:[", "mnt:[", "pid:[")):
                yield target


def _processes(mark: bytes) -> Iterable[str]:
    """Processes other than this one that have `mark` in their environment (all, if it is empty)."""
    for entry in _entries(Path("/proc")):
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if command and mark in (entry / "environ").read_bytes():
                words = command.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
                yield f"process {entry.name}: {words}"
