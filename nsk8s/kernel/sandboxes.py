"""Sandboxes: the namespaces that exist, each held by a pause process that can be found again.

A pause process carries the name of its sandbox and a tag in its command line, so that whoever comes
after a crash finds out what is there by looking at /proc, and nothing has to be written down. On the
host, every sandbox has a name for ip-netns(8): a symbolic link through the holder's root to a procfs that
only the holder has mounted, so that a link left over dangles instead of naming a stranger.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from typing import NamedTuple

from nsk8s.errors import HostError, Timeout
from nsk8s.kernel import namespaces, pause
from nsk8s.kernel.forked import ForkServer
from nsk8s.kernel.holder import Holder
from nsk8s.kernel.making import Makers, Wanted
from nsk8s.kernel.namespaces import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWPID, Home
from nsk8s.paths import NETNS_DIR, ClusterPaths

TITLE = "nsk8s:pause"
"""First word of every pause process's command line; the sandbox's name and its tag follow."""

_ENDING = 10.0  # seconds that a killed sandbox may take to end
_AT_ONCE = 256  # pidfds open at a time; the usual limit is 1024 files
_NAMES = 64  # names handed over to be written at a time


class Sandbox(NamedTuple):
    """A namespace and what holds it: `pid` is the pause process's, as the holder's PID namespace counts."""

    namespace: str
    tag: str
    pid: int

    def wired(self) -> bool:
        """Whether it has an interface besides lo; one that is gone has none. May be asked in any thread."""
        try:
            with open(f"/proc/{self.pid}/net/dev", "rb") as file:
                return len(file.readlines()) > 3  # two lines of headings, and lo
        except OSError:
            return False


class Sandboxes:
    """The sandboxes of one cluster, by name. For one thread, inside the holder's PID and mount namespaces."""

    def __init__(self, paths: ClusterPaths, holder: Holder, forks: ForkServer) -> None:
        self.home = Home("net", "uts", "ipc", "pid")
        self._target = f"/proc/{holder.pid}/root{paths.proc}"
        self._mark = f"/root{paths.proc}/"
        self._prefix = f"{paths.cluster}."
        self._pause = os.fspath(paths.pause)
        self._argv = pause.argv(paths.pause, TITLE)
        self._found: dict[str, Sandbox] = {}
        self._children: set[int] = set()
        self._unnamed: list[Sandbox] = []
        self._naming: list[Future[None]] = []
        self._makers = Makers(forks, self._pause, self._argv)
        self._clerk = ThreadPoolExecutor(1, thread_name_prefix="netns-names")
        self._clerk.submit(int).result()  # its thread is made now, while we stand at home
        NETNS_DIR.mkdir(parents=True, exist_ok=True)
        self.find()

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def find(self) -> dict[str, Sandbox]:
        """Look at the processes again; what ended meanwhile is reaped and not listed any more. Whoever asks
        from another thread meanwhile (`get`) sees what was found before."""
        self._reap()
        seen = {}
        for entry in os.listdir("/proc"):
            found = _sandbox(int(entry)) if entry.isdecimal() else None
            if found:
                seen[found.namespace] = found
        self._found = seen
        return dict(seen)

    def left(self) -> dict[str, Sandbox]:
        """Of what was found before, that whose process numbers are still there. It costs a fiftieth of
        `find`, which alone sees what somebody else has made, and a number that was given anew."""
        self._reap()
        numbers = set(os.listdir("/proc"))
        self._found = {name: one for name, one in self._found.items() if str(one.pid) in numbers}
        return dict(self._found)

    def _reap(self) -> None:
        self._children = {pid for pid in self._children if not _reaped(pid)}

    def get(self, name: str) -> Sandbox | None:
        """A sandbox as it was last seen; None if it is not known."""
        return self._found.get(name)

    def pid(self, name: str) -> int:
        """A sandbox's pause process. Raises FileNotFoundError."""
        sandbox = self._found.get(name)
        if sandbox is None:
            raise FileNotFoundError(2, f"there is no namespace {name}")
        return sandbox.pid

    def open(self, name: str) -> int:
        """A file descriptor of the sandbox's network namespace. Raises FileNotFoundError."""
        return os.open(f"/proc/{self.pid(name)}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @contextmanager
    def enter(self, name: str) -> Iterator[None]:
        """Run the block in the sandbox's network namespace; "" is the host's own."""
        if name:
            fd = self.open(name)
            try:
                namespaces.setns(fd, CLONE_NEWNET)
            finally:
                os.close(fd)
        try:
            yield
        finally:
            if name:
                self.home.back("net")

    def rename(self, name: str, hostname: str) -> None:
        """Give a sandbox another UTS name."""
        with namespaces.inside(self._found[name].pid, "uts"):
            namespaces.sethostname(hostname)

    def stock(self, number: int) -> None:
        """So many sandboxes will soon be wanted: make what they will need in any case."""
        self._makers.stock(number)

    def begin(self, wanted: Sequence[Wanted]) -> None:
        """Begin to make sandboxes; wait for each with `made`, in this order."""
        self._makers.begin(wanted)

    def made(self, wanted: Wanted) -> Sandbox:
        """Wait for a sandbox, begun now if it was not, and name it on the host. Raises OSError if it could
        not be made."""
        return self._held(Sandbox(wanted.name, wanted.tag, self._makers.made(wanted)))

    def settle(self) -> None:
        """Wait for what has been begun and nobody has waited for: `find` will find it."""
        self._makers.settle()

    def _held(self, sandbox: Sandbox) -> Sandbox:
        self._found[sandbox.namespace] = sandbox
        self._unnamed.append(sandbox)
        if len(self._unnamed) >= _NAMES:
            self._hand_over()
        return sandbox

    def named(self) -> None:
        """Wait until every sandbox has its name in /run/netns. Raises HostError if one cannot have it.

        Names are written by a thread of their own: where /run is no tmpfs but ext4, a thousand new ones soon
        after a thousand were deleted take more than a second.
        """
        self._hand_over()
        naming, self._naming = self._naming, []
        try:
            for one in naming:
                one.result()
        except OSError as error:
            raise HostError(f"cannot name a namespace in {NETNS_DIR}: {error}") from error

    def _hand_over(self) -> None:
        unnamed, self._unnamed = self._unnamed, []
        if unnamed:
            self._naming.append(self._clerk.submit(self._link_all, unnamed))

    def share(self, name: str, owner: str, tag: str) -> Sandbox:
        """A sandbox that has the network and UTS namespaces of `owner`, and its own for IPC and
        processes. Raises FileNotFoundError without the owner."""
        if owner not in self._found:
            raise FileNotFoundError(2, f"there is no namespace {owner}")
        try:
            with namespaces.inside(self._found[owner].pid, "net", "uts"):
                namespaces.unshare(CLONE_NEWIPC | CLONE_NEWPID)
                pid = pause.start(self._pause, [*self._argv, name, tag])
                self._children.add(pid)
        finally:
            self.home.back()
        return self._held(Sandbox(name, tag, pid))

    def remove(self, names: Iterable[str]) -> None:
        """End sandboxes and every process in them; those that are gone already are no error.

        Raises Timeout when one does not end.
        """
        self.named()
        doomed = iter([self._found[name] for name in names if name in self._found])
        while some := list(islice(doomed, _AT_ONCE)):
            _end(some)
            self._children.difference_update(sandbox.pid for sandbox in some)
            for sandbox in some:
                del self._found[sandbox.namespace]
                self._unlink(sandbox.namespace)

    def links(self) -> None:
        """Make the names in /run/netns agree with the sandboxes that exist."""
        self.named()
        prefix = self._prefix
        there = {entry for entry in os.listdir(NETNS_DIR) if entry.startswith(prefix)}
        for sandbox in self._found.values():
            if prefix + sandbox.namespace not in there:
                self._link(sandbox)
        for entry in there:
            if entry.removeprefix(prefix) not in self._found:
                self._unlink(entry.removeprefix(prefix))

    def _link_all(self, sandboxes: Iterable[Sandbox]) -> None:
        for sandbox in sandboxes:
            self._link(sandbox)

    def close(self) -> None:
        """Let go of the way home; no sandbox ends."""
        self._makers.close()
        self._clerk.shutdown()
        self.home.close()

    def _link(self, sandbox: Sandbox) -> None:
        name = f"{NETNS_DIR}/{self._prefix}{sandbox.namespace}"
        target = f"{self._target}/{sandbox.pid}/ns/net"
        try:
            os.symlink(target, name)
        except FileExistsError:
            if not os.path.islink(name):
                hint = f"somebody else made it: ip netns delete {os.path.basename(name)}"
                raise HostError(f"{name} is in the way", hint=hint) from None
            with suppress(FileNotFoundError):
                os.unlink(name + ".new")
            os.symlink(target, name + ".new")
            os.replace(name + ".new", name)

    def _unlink(self, namespace: str) -> None:
        name = f"{NETNS_DIR}/{self._prefix}{namespace}"
        with suppress(OSError):  # gone, or not a link and so not ours
            if self._mark in os.readlink(name):
                os.unlink(name)


def _sandbox(pid: int) -> Sandbox | None:
    try:
        raw = _cmdline(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    if not raw.startswith(TITLE.encode()):
        return None
    match pause.words(raw):
        case [first, name, tag] if first == TITLE:
            return Sandbox(name, tag, pid)
    return None


def _cmdline(pid: int) -> bytes:
    """/proc/PID/cmdline; it is empty for a zombie, and for the few microseconds of an execve(2) between
    the return of posix_spawn and the new program's first instruction, which are waited for."""
    for _ in range(1000):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            raw = file.read()
        if raw:
            return raw
        with open(f"/proc/{pid}/stat", "rb") as file:
            if file.read().rpartition(b") ")[2][:1] in b"ZX":
                return b""
        os.sched_yield()
    return b""


def _end(doomed: list[Sandbox]) -> None:
    """SIGKILL through pidfds, so that no stranger is met, then wait for all."""
    poll = select.poll()
    waiting: dict[int, Sandbox] = {}
    try:
        for sandbox in doomed:
            with suppress(ProcessLookupError):
                fd = os.pidfd_open(sandbox.pid)
                waiting[fd] = sandbox
                if _sandbox(sandbox.pid) == sandbox:
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                    poll.register(fd, select.POLLIN)
                else:
                    os.close(fd)
                    del waiting[fd]
        end = time.monotonic() + _ENDING
        while waiting:
            for fd, _ in poll.poll(max(0.0, end - time.monotonic()) * 1000):
                poll.unregister(fd)
                os.close(fd)
                _reaped(waiting.pop(fd).pid)
            if waiting and time.monotonic() > end:
                names = ", ".join(s.namespace for s in waiting.values())
                raise Timeout(
                    f"still there {_ENDING:g} s after SIGKILL: {names}",
                    hint="a process in it is in uninterruptible sleep, or its parent does not reap it",
                )
    finally:
        for fd in waiting:
            os.close(fd)


def _reaped(pid: int) -> bool:
    """Collect our child's end, if it has ended; whether there is nothing more to collect. Nobody else's child
    is ours to collect: those of other processes the kernel reaps, or the holder."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
