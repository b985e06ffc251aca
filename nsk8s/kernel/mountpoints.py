"""What a container finds mounted, and places to mount it where the host has none: bubblewrap's arguments.

The root that a container sees is the host's, read-only, so nothing can be made there. A directory in which a
mount point is missing is made anew, in memory: the root directory out of bind mounts of its entries, any
other out of symbolic links to what it holds, which is at ``/run/host`` (a bind mount takes a thousand times
as long as a symbolic link, and /etc has hundreds of entries).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack

from msgspec import Struct

from nsk8s.errors import HostError

HOST = "/run/host"
"""Where what a directory held before is (flatpak's name for it)."""
OWN = ("/proc", "/dev")
"""What bubblewrap makes itself."""


class Mount(Struct, frozen=True):
    """`inner` of the directory `base`, both of the host's, at `path` in a container. `inner` may have been
    made by a container: no symbolic link is followed in it."""

    path: str
    base: str
    inner: str = ""
    writable: bool = False

    def open(self) -> int:
        """A descriptor of what is mounted (O_PATH); a directory that is missing is made. Raises HostError."""
        fd = os.open(self.base, os.O_PATH | os.O_CLOEXEC)
        try:
            for part in _parts(self.inner):
                fd = _step(fd, part)
        except OSError as error:
            os.close(fd)
            raise HostError(f"failed to prepare subPath {self.inner!r}: {error.strerror}") from error
        return fd


def _step(fd: int, part: str) -> int:
    """One step down from a directory, which is closed: `part` as it is, or a directory made now."""
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    if part == "..":
        raise OSError(0, "must not contain '..'", part)
    try:
        below = os.open(part, flags, dir_fd=fd)
    except FileNotFoundError:
        os.mkdir(part, 0o755, dir_fd=fd)
        below = os.open(part, flags, dir_fd=fd)
    if stat.S_ISLNK(os.fstat(below).st_mode):
        os.close(below)
        raise OSError(0, f"{part} is a symbolic link", part)
    os.close(fd)
    return below


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def bound(mounts: Sequence[Mount], stack: ExitStack) -> list[tuple[Mount, int]]:
    """The mounts, outer ones first, with descriptors that live as long as the `stack`. Raises HostError."""
    found: list[tuple[Mount, int]] = []
    for mount in sorted(mounts, key=lambda m: m.path.count("/")):
        fd = mount.open()
        stack.callback(os.close, fd)
        outer = [other for other, _ in found if mount.path.startswith(f"{other.path}/")]
        if outer:
            _make_place(outer[-1], mount.path, directory=stat.S_ISDIR(os.fstat(fd).st_mode))
        found.append((mount, fd))
    return found


def _make_place(outer: Mount, path: str, *, directory: bool) -> None:
    """A place in one mount for another, which the container could not make in one that it must not write."""
    *above, last = _parts(path.removeprefix(outer.path))
    place = Mount(path, outer.base, "/".join((outer.inner, *above, *([last] if directory else []))))
    fd = place.open()
    if not directory:
        os.close(os.open(last, os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=fd))
    os.close(fd)


class View:
    """The root of a container in which there is a place for everything at `points` (and for `files`, which
    lie over the host's own). `private` are directories that are the container's own anyway."""

    def __init__(self, points: Iterable[str], files: Iterable[str], private: Iterable[str]) -> None:
        self._points = [os.path.realpath(point) for point in points]
        self._files = [os.path.realpath(path) for path in files]
        self._private = (*private, *OWN)
        self._opened = sorted(self._to_open())

    def root(self) -> Iterator[str]:
        """Words for the root itself, before anything else is mounted."""
        if "/" not in self._opened:
            yield from ("--ro-bind", "/", "/")
            return
        for entry in os.scandir("/"):
            if entry.is_symlink():
                yield from ("--symlink", os.readlink(entry.path), entry.path)
            elif entry.path not in (*self._private, *self._opened, *self._points):
                yield from ("--ro-bind", entry.path, entry.path)

    def rest(self) -> Iterator[str]:
        """Words for what is below it, after the private directories."""
        taken = {*self._points, *self._files, *self._opened}
        for directory in self._opened:
            if directory == "/":
                continue
            yield from ("--ro-bind", directory, HOST + directory, "--perms", "0755", "--tmpfs", directory)
            for entry in os.scandir(directory):
                if entry.is_symlink():
                    yield from ("--symlink", os.readlink(entry.path), entry.path)
                elif entry.path not in taken:
                    yield from ("--symlink", HOST + entry.path, entry.path)

    def closing(self) -> Iterator[str]:
        """Words that come last: what was made is not to be written to."""
        for directory in self._opened:
            yield from ("--remount-ro", directory)

    def where(self, path: str) -> str:
        """Where the container sees a file of the host's, on the way that does not lead over symbolic links of
        ours."""
        moved = any(path.startswith(f"{directory}/") for directory in self._opened if directory != "/")
        return HOST + path if moved else path

    def _to_open(self) -> set[str]:
        opened = {
            there for point in self._points if (there := _existing(point)) != point and not self._own(there)
        }
        for target in (*self._points, *self._files, *tuple(opened)):
            above = list(_above(target))
            known = [i for i, directory in enumerate(above) if directory in opened and directory != "/"]
            if known:  # everything between the outermost and the target is to be a real directory
                between = above[: known[-1]]
                opened |= {d for d in between if os.path.isdir(d) and not self._own(d)}
        return opened

    def _own(self, path: str) -> bool:
        inside = (*self._private, *self._points)
        return any(path == one or path.startswith(f"{one}/") for one in inside)


def _existing(path: str) -> str:
    """The deepest part of a path that exists."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def _above(path: str) -> Iterator[str]:
    """The directories above a path, from its own up to the root."""
    while path != "/":
        path = os.path.dirname(path)
        yield path
