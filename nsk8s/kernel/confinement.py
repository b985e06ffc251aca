"""What a container may see and do: bubblewrap's arguments.

The program sees the host's own files read-only, with private tmpfs where programs write, a fresh /proc and a
minimal /dev, and has the capabilities that Docker gives by default, without CAP_MKNOD. What bubblewrap
leaves open to a program that really is root is closed here:

- it skips /proc/sys, judging it by its mode bits, though the sysctls below are root's to write;
- a read-only mount does not keep anybody from *connecting* to a socket on it, and behind some of them
  (container engines, databases) sits the host's root: they are covered, wherever they are.

Its PID namespace is its own, inside the pod's, or another container's: so it sees neither the pause process
nor bubblewrap's monitor, whose /proc/PID/root are the host's writable files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nsk8s.kernel.mountpoints import Mount, View
from nsk8s.paths import root

CAPABILITIES = (
    "chown",
    "dac_override",
    "fsetid",
    "fowner",
    "net_raw",
    "setgid",
    "setuid",
    "setfcap",
    "setpcap",
    "net_bind_service",
    "sys_chroot",
    "kill",
    "audit_write",
)
"""Docker's default set (moby, oci/caps/defaults.go) without mknod, as capabilities(7) calls them."""

PRIVATE = {"/tmp": "1777", "/run": "0755", "/var/log": "0755", "/var/tmp": "1777"}
"""Directories that are the program's own, empty and in memory, and their modes."""

READ_ONLY = ("sys", "sysrq-trigger", "irq", "bus", "fs")
MASKED = ("acpi", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list")
"""Parts of /proc that Docker, too, makes read-only or hides (moby, oci/defaults.go)."""

LEADING = ("--unshare-pid", "--as-pid-1")
"""The program is PID 1 of its PID namespace, as in a container: signals that it does not handle do not reach
it."""

SETPRIV = (
    "setpriv",
    "--no-new-privs",
    "--inh-caps=-all",
    "--bounding-set=-all," + ",".join(f"+{name}" for name in CAPABILITIES),
)
"""The same capabilities for a program that joins a container which runs already."""


def bubblewrap(
    files: Mapping[str, int],
    mounts: Sequence[tuple[Mount, int]],
    *,
    processes: Sequence[str] = ("--unshare-pid",),
    status: Sequence[str] = (),
) -> list[str]:
    """bwrap's arguments for one program. `files`: what stands at a path, by file descriptor; `mounts`: what
    is mounted, likewise. `processes` say in which PID namespace it runs, `status` are further arguments.
    """
    words = [*processes, *status]
    words += ["--cap-drop", "ALL"]
    for name in CAPABILITIES:
        words += ["--cap-add", f"CAP_{name.upper()}"]
    points = [mount.path for mount, _ in mounts]
    files = {path: fd for path, fd in files.items() if not _below(path, points)}
    view = View(points, files, PRIVATE)
    words += view.root()
    for path, mode in PRIVATE.items():
        if os.path.isdir(path) and not os.path.islink(path):
            words += ["--perms", mode, "--tmpfs", path]
    words += view.rest()
    if not _private(root()) and root().is_dir():
        words += ["--tmpfs", view.where(os.fspath(root()))]
    words += ["--dev", "/dev", "--perms", "1777", "--tmpfs", "/dev/shm"]
    words += _proc()
    for path in host_sockets():
        words += ["--ro-bind", "/dev/null", view.where(path)]
    for mount, fd in mounts:
        how = "--bind" if mount.writable else "--ro-bind"
        words += [how, f"/proc/self/fd/{fd}", os.path.realpath(mount.path)]
    for path, fd in files.items():
        # /etc/resolv.conf may be a symbolic link into /run: the file must be where the link leads.
        words += ["--perms", "0644", "--ro-bind-data", str(fd), os.path.realpath(path)]
    words += view.closing()
    return words


def _below(path: str, points: Sequence[str]) -> bool:
    return any(path == point or path.startswith(f"{point}/") for point in points)


def host_sockets(table: Path = Path("/proc/net/unix")) -> list[str]:
    """Where programs of the host have sockets in the file system, outside the private directories."""
    found = set()
    for line in table.read_text(errors="surrogateescape").splitlines()[1:]:
        _, slash, rest = line.partition(" /")  # the path is the last column, and may contain blanks
        path = f"/{rest}"
        if slash and not _private(Path(path)) and _is_socket(path):
            found.add(path)
    return sorted(found)


def _proc() -> Iterable[str]:
    words = ["--proc", "/proc"]
    for name in READ_ONLY:
        if os.path.exists(f"/proc/{name}"):
            words += ["--ro-bind", f"/proc/{name}", f"/proc/{name}"]
    for name in MASKED:
        if os.path.isdir(f"/proc/{name}"):
            words += ["--tmpfs", f"/proc/{name}", "--remount-ro", f"/proc/{name}"]
        elif os.path.exists(f"/proc/{name}"):
            words += ["--ro-bind", "/dev/null", f"/proc/{name}"]
    return words


def _private(path: Path) -> bool:
    return any(path.is_relative_to(directory) for directory in PRIVATE) or path.is_relative_to("/dev")


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False
