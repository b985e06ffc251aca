"""Sandboxes for tests: pods' namespaces without a cluster, held by a sleeping process, gone with the test."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def sandbox(hostname: str = "web-1") -> Iterator[int]:
    """The pid of a process that is PID 1 in its own net, uts, ipc and pid namespaces, with `lo` up."""
    holder = subprocess.Popen(
        [
            *("unshare", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "sh", "-c"),
            f"hostname {hostname}; ip link set lo up; echo; exec sleep infinity >&-",
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"\n"
        children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
        yield int(children[0])
    finally:
        holder.stdout.close()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
