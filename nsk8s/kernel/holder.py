"""The holder: one process per cluster, whose end is the end of everything in the cluster.

It is PID 1 of the cluster's own PID namespace (pid_namespaces(7): when PID 1 ends, the kernel kills the
rest), has a private mount namespace, and runs nothing but the pause program. Every process of the
cluster is started inside, so `kill -9` of the holder leaves no process, namespace, link or mount
behind, only files under `ClusterPaths.directory` and dangling names in /run/netns, which `down` removes.

`start` is safe against being killed at any instant: the future holder waits on a socket until its pid
is written down, and ends if the one who should have written it is gone.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from nsk8s.errors import HostError, Timeout
from nsk8s.kernel import namespaces, pause
from nsk8s.kernel.namespaces import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
)
from nsk8s.paths import NETNS_DIR, ClusterPaths, root

TITLE = "nsk8s:holder"
"""First word of the holder's command line."""


class Holder(Struct, frozen=True):
    """A cluster's holder: `pid` as the host counts, `start_time` in clock ticks since boot (proc(5)).

    The two together name one process for ever; a pid alone is used again.
    """

    cluster: str
    pid: int
    start_time: int

    def alive(self) -> bool:
        """Whether the process is still there and still the same; also answered inside the cluster,
        where it is PID 1."""
        if _start_time(self.pid) == self.start_time:
            return True
        return _start_time(1) == self.start_time and _title(1) == [TITLE, self.cluster]

    def join(self) -> None:
        """Enter the holder's mount and network namespaces, and its PID namespace for children to come.

        Its network is the host's as `up` saw it; whoever calls may stand in another (a node's). For a
        process that is about to fork or exec (the child is then inside). Needs /proc of the caller's own
        PID namespace. Raises HostError if the holder is gone or we are not root.
        """
        try:
            kinds = ("pid", "net", "mnt")
            fds = [(os.open(f"/proc/{self.pid}/ns/{kind}", os.O_RDONLY), kind) for kind in kinds]
            for fd, kind in fds:
                namespaces.enter(fd, namespaces.KINDS[kind])
                os.close(fd)
        except OSError as error:
            raise HostError(
                f"cannot enter cluster {self.cluster}: {error}", hint="run this as root"
            ) from error

    def settle(self) -> None:
        """Go on inside the cluster, as a child of its PID 1: whose parent is outside the PID namespace would
        be left to the host's init, and be a zombie for as long as that takes to reap it. The calling process
        ends; what returns is its grandchild. Raises as `join`."""
        self.join()
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            os._exit(0)
        if os.fork():
            os._exit(0)

    def kill(self, deadline: float = 10.0) -> None:
        """End the cluster's every process and wait until they are gone.

        Raises Timeout after `deadline` seconds, HostError without the right to do it.
        """
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if not self.alive():  # checked with the pidfd in hand: from here on it is this process or none
                return
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            if not select.select([fd], [], [], deadline)[0]:
                raise Timeout(
                    f"holder {self.pid} of cluster {self.cluster} still runs {deadline:g} s after SIGKILL",
                    hint="a process in uninterruptible sleep (state D in ps) keeps it",
                )
        except PermissionError as error:
            raise HostError(f"may not end cluster {self.cluster}", hint="run this as root") from error
        finally:
            os.close(fd)


def start(paths: ClusterPaths) -> Holder:
    """Make the cluster's directory and its holder; the one that runs already, if one does.

    Raises HostError when the host refuses (not root, no such namespaces).
    """
    with _locked(paths):
        running = find(paths)
        if running is not None:
            return running
        try:
            pause.install(paths.pause)
            paths.proc.mkdir(exist_ok=True)
            return _start(paths)
        except OSError as error:
            raise HostError(
                f"cannot start cluster {paths.cluster}: {error}", hint="run this as root"
            ) from error


def fork() -> int:
    """fork(2), with a child that Ctrl-C does not reach: it would run on in a copy of its parent's program."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return child
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def find(paths: ClusterPaths) -> Holder | None:
    """The running holder of the cluster, or None."""
    holder = recorded(paths)
    return holder if holder is not None and holder.alive() else None


def recorded(paths: ClusterPaths) -> Holder | None:
    """The holder that was written down, alive or not: for those inside, whose /proc does not show it."""
    try:
        state = json.loads(paths.holder.read_text())
        return Holder(paths.cluster, int(state["pid"]), int(state["startTime"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def clusters() -> list[str]:
    """Names of the clusters that have a directory on this host, running or not, sorted."""
    try:
        return sorted(entry.name for entry in os.scandir(root()) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def down(paths: ClusterPaths) -> None:
    """End the cluster, remove its files and names, and wait until the kernel is done with it.

    Nothing to do is no error. Needs neither the control plane nor the topology. Raises as
    `Holder.kill` and `wait_clean` do.
    """
    if not paths.directory.is_dir():
        _unlink_names(paths)
        return
    with _locked(paths):
        holder = find(paths)
        if holder is not None:
            holder.kill()
        _unlink_names(paths)
        shutil.rmtree(paths.directory, ignore_errors=True)
        with suppress(OSError):  # other clusters are there
            root().rmdir()
    if holder is not None:
        wait_clean()


def wait_clean(deadline: float = 30.0) -> None:
    """Wait until the kernel has taken down the network namespaces that nobody uses any more.

    It does so in its "netns" workqueue, some time after the last process is gone; kworkers show the
    queue they work on as ``+netns`` in their name. Where they cannot be seen (a container with its own
    PID namespace) there is nothing to wait for. Raises Timeout after `deadline` seconds.
    """
    end = time.monotonic() + deadline
    idle = 0
    while idle < 2:  # twice in a row: between two batches the work is queued, not running
        idle = 0 if _cleaning() else idle + 1
        if time.monotonic() > end:
            raise Timeout(f"the kernel is still removing network namespaces after {deadline:g} s")
        select.select([], [], [], 0.005)


@contextmanager
def _locked(paths: ClusterPaths) -> Iterator[None]:
    """The cluster's directory, made if missing, for ourselves alone (flock(2) on the directory)."""
    while True:
        try:
            paths.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(paths.directory, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # `down` removed it in between
        except OSError as error:
            raise HostError(f"cannot use {paths.directory}: {error}", hint="run this as root") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink == 0:
                continue  # we waited for a `down` that removed it
            yield
            return
        finally:
            os.close(fd)


def _start(paths: ClusterPaths) -> Holder:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        helper = fork()
        if helper == 0:
            ours.close()
            _be_helper(paths, theirs)
        theirs.close()
        os.waitpid(helper, 0)
        said = ours.recv(1000).decode()
        if not said.isdecimal():
            raise OSError(said or "the new holder ended at once")
        holder = Holder(paths.cluster, int(said), _start_time(int(said)) or 0)
        new = paths.holder.with_suffix(".new")
        new.write_text(json.dumps({"pid": holder.pid, "startTime": holder.start_time}))
        new.replace(paths.holder)
        with suppress(BrokenPipeError):
            ours.send(b"go")
        said = ours.recv(1000).decode()  # exec closes the other end: hearing nothing is success
    if said or not holder.alive():
        raise OSError(said or "the new holder ended at once")
    return holder


def _be_helper(paths: ClusterPaths, control: socket.socket) -> None:
    """The middle process: its child is PID 1 of the new PID namespace, and nobody's child soon."""
    try:
        namespaces.unshare(CLONE_NEWNS | CLONE_NEWPID)
        child = os.fork()
        if child == 0:
            _be_holder(paths, control)
        control.send(str(child).encode())
    except OSError as error:
        control.send(str(error).encode())
    finally:
        os._exit(0)


def _be_holder(paths: ClusterPaths, control: socket.socket) -> None:
    """Speaks only when spoken to, so that the helper's word comes first."""
    try:
        if control.recv(2) != b"go":
            os._exit(1)  # whoever started us is gone, and nobody knows of us
        os.setsid()
        namespaces.mount("none", "/", "none", MS_REC | MS_PRIVATE)
        for target in (str(paths.proc), "/proc"):
            namespaces.mount("proc", target, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        os.chdir("/")
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.closerange(3, control.fileno())
        os.closerange(control.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        os.execv(paths.pause, pause.argv(paths.pause, TITLE, paths.cluster))
    except OSError as error:
        control.send(str(error).encode())
    finally:
        os._exit(1)


def _start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat; None for a process that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _title(pid: int) -> list[str]:
    """The words of a pause process; empty if it is gone."""
    try:
        return pause.words(Path(f"/proc/{pid}/cmdline").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return []


def _unlink_names(paths: ClusterPaths) -> None:
    """Remove the cluster's names for ip-netns(8): symbolic links into its own procfs, nothing else."""
    mark = f"/root{paths.proc}/"
    with suppress(FileNotFoundError), os.scandir(NETNS_DIR) as entries:
        for entry in entries:
            if entry.name.startswith(f"{paths.cluster}.") and entry.is_symlink():
                with suppress(FileNotFoundError):
                    if mark in os.readlink(entry.path):
                        os.unlink(entry.path)


def _cleaning() -> bool:
    """Whether a kworker is at the netns workqueue right now."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/comm", "rb") as file:
            name = file.read()
            if name.startswith(b"kworker") and b"+netns" in name:
                return True
    return False
