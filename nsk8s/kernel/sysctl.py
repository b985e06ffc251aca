"""sysctl(8) by its files: the values of the namespace that the calling thread stands in.

The program `sysctl -w` prints an error and exits with 0 where a namespace may not set a value; writing
the file raises.
"""

from __future__ import annotations

import os

_SWAP = str.maketrans("./", "/.")


def _path(key: str) -> str:
    """Dots and slashes change places: ``net.ipv4.conf.flannel/1.forwarding`` is of device flannel.1."""
    return "/proc/sys/" + key.translate(_SWAP)


def write(key: str, value: str) -> None:
    """Set a value. Raises OSError."""
    fd = os.open(_path(key), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def read(key: str) -> str:
    """A value, its white space made single blanks. Raises OSError."""
    fd = os.open(_path(key), os.O_RDONLY | os.O_CLOEXEC)
    try:
        return " ".join(os.read(fd, 4096).decode(errors="replace").split())
    finally:
        os.close(fd)
