"""tcpdump inside a namespace of the cluster.

It runs in the network and in the PID namespace of its target, so it ends when the target does, and no open
socket of it keeps a dead namespace alive. Files are written by us, with the user's working directory.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from types import FrameType
from typing import IO

from nsk8s.errors import ClusterGone, HostError, UserError
from nsk8s.kernel.namespaces import inside
from nsk8s.kernel.processes import Inside


def tcpdump(interface: str, words: Sequence[str], *, write: bool, count: int = 0) -> list[str]:
    """The command line. `write`: packets in pcap form on standard output, not lines of text.

    --immediate-mode, for without it the kernel keeps the last second's packets to itself.
    """
    command = ["tcpdump", "--immediate-mode", "-n", "-i", interface]
    command += ["-U", "-w", "-"] if write else ["-l"]
    if count:
        command += ["-c", str(count)]
    return [*command, "--", *words] if words else command


def capture(
    place: Inside, interface: str, words: Sequence[str], *, to: str | IO[bytes] = "", count: int = 0
) -> int:
    """Capture in `place` until interrupted (SIGINT or SIGTERM), or `count` packets; returns tcpdump's exit
    code.

    `to` is empty for lines on our standard output, else the pcap file's name or an open file. `words` are
    the filter (pcap-filter(7)). Raises HostError without tcpdump, ClusterGone when the target is gone,
    UserError when the file cannot be written.
    """
    if shutil.which("tcpdump") is None:
        raise HostError("tcpdump is not installed", hint="apt install tcpdump (or your system's word for it)")
    with ExitStack() as stack:
        output: IO[bytes] | None = None
        if isinstance(to, str) and to:
            try:
                output = stack.enter_context(open(to, "wb"))
            except OSError as error:
                raise UserError(f"cannot write {to}: {error.strerror}") from error
        elif not isinstance(to, str):
            output = to
        command = tcpdump(interface, words, write=output is not None, count=count)
        stopped = False
        child: subprocess.Popen[bytes] | None = None

        def stop(number: int, frame: FrameType | None) -> None:
            nonlocal stopped
            stopped = True
            if child is not None:
                child.send_signal(signal.SIGINT)

        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, stop))
        child = _start(place, command, output)
        if stopped:  # between the handler and the child
            child.send_signal(signal.SIGINT)
        code = child.wait()
    # Interrupted before tcpdump could say anything; or who read the pipe has seen enough.
    if (stopped and code == -signal.SIGINT) or code == -signal.SIGPIPE:
        return 0
    return code if code >= 0 else 128 - code


def _start(place: Inside, command: Sequence[str], output: IO[bytes] | None) -> subprocess.Popen[bytes]:
    try:
        with ExitStack() as stack:
            for kind in ("net", "pid"):
                stack.enter_context(inside(place.namespace(kind), kind))
            # Its own process group: what is typed reaches us, and we pass it on, exactly once.
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, process_group=0)
    except OSError as error:
        raise ClusterGone(f"the target is gone: {error.strerror or error}") from error
