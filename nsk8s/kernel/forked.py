"""Processes beside the control plane, each of which does one kind of system calls for it all day.

Other than a thread such a process never waits for the interpreter, and nobody waits for it. It is asked
through a socket: a datagram a request, a datagram an answer, in order. It is forked from a fork server (as
Python's multiprocessing has one), which was forked from the control plane itself when that had no threads:
one when it was small, one when it had loaded its code. So it is there at once, has little to load, and shares
what it does have.
"""

from __future__ import annotations

import errno
import gc
import os
import pickle
import signal
import socket
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from nsk8s.kernel.holder import Holder

COMM = "nsk8s:forks"
"""What /proc/PID/comm calls the fork server."""

_SO_SNDBUFFORCE = 32
_ROOM = 4 << 20  # bytes that may wait in each direction: some 5,000 small datagrams
_LONGEST = 1 << 20  # bytes of a datagram; those that are never written to take no memory


class ForkServer:
    """Forks processes that run a function with one end of a socket and arguments. They have the mount and
    PID namespaces of the thread that made the server, or those of the holder that it has been told to `join`.

    Make it before there are threads. It ends with whoever made it; what it has forked hears of that by the
    end of its socket.
    """

    def __init__(self) -> None:
        self._socket, self._pid = _forked()

    def join(self, holder: Holder) -> None:
        """Go on inside the holder's namespaces, as a child of the holder."""
        self._socket.send(pickle.dumps(holder))
        os.waitpid(self._pid, 0)
        self._pid = 0

    def start(self, comm: str, run: Callable[..., None], arguments: tuple[Any, ...]) -> socket.socket:
        """Start `run(socket, *arguments)` in a process that is called `comm` in /proc/PID/comm; `run` is a
        function of a module. Returns our end of the socket: at once, and closed if it could not be forked."""
        ours, theirs = _pair()
        request = pickle.dumps((comm, run, arguments))
        with theirs:
            try:
                socket.send_fds(self._socket, [request], [theirs.fileno()])
            except ConnectionError:  # somebody killed it
                self.close()
                self._socket, self._pid = _forked()
                socket.send_fds(self._socket, [request], [theirs.fileno()])
        return ours

    def close(self) -> None:
        """Let it end."""
        self._socket.close()
        if self._pid:
            os.waitpid(self._pid, 0)


class Killed(OSError):
    """Somebody has killed such a process. What it was asked for is lost; another one has taken its place."""


class Forked:
    """Such a process, from the point of view of the one that asks. For one thread, but for `tell`."""

    def __init__(
        self, forks: ForkServer, comm: str, run: Callable[..., None], arguments: tuple[Any, ...] = ()
    ) -> None:
        """As `ForkServer.start` has it."""
        self._forks = forks
        self._how = (comm, run, arguments)
        self._answer = bytearray(_LONGEST)
        self._socket = forks.start(*self._how)

    def send(self, request: bytes) -> None:
        """Hand a request over, waiting for room if need be. Raises `Killed`."""
        self._send(request, 0)

    def offer(self, request: bytes) -> bool:
        """Hand a request over if there is room for it; whether there was. Raises `Killed`."""
        try:
            self._send(request, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        return True

    def tell(self, request: bytes) -> None:
        """Hand over what nobody waits for, if there is room for it and the process is there."""
        with suppress(OSError):
            self._socket.send(request, socket.MSG_DONTWAIT)

    def answer(self) -> bytes:
        """Wait for the next answer. Raises `Killed`."""
        try:
            size = self._socket.recv_into(self._answer)
        except ConnectionError:
            size = 0
        if not size:
            self._restart()
        return bytes(memoryview(self._answer)[:size])

    def close(self) -> None:
        """Let it end."""
        self._socket.close()

    def _send(self, request: bytes, flags: int) -> None:
        try:
            self._socket.send(request, flags)
        except ConnectionError:
            self._restart()

    def _restart(self) -> NoReturn:
        self._socket.close()
        self._socket = self._forks.start(*self._how)
        raise Killed(errno.EPIPE, f"the process {self._how[0]} was killed")


def _forked() -> tuple[socket.socket, int]:
    """A fork server of the calling process: our end of its socket, and its pid."""
    ours, theirs = _pair()
    pid = os.fork()
    if pid == 0:
        try:
            _become(theirs.fileno(), COMM)
            _serve(theirs)
        except ConnectionError:
            pass  # who asked has gone: no error of ours
        except Exception:  # noqa: BLE001  # for the log; nobody else would hear of it
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(0)
    theirs.close()
    return ours, pid


def _pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ours, theirs:
        with suppress(PermissionError):
            end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _ROOM)
    return ours, theirs


def _become(kept: int, comm: str) -> None:
    """Let go of everything of the process that we were forked from, but the file `kept`."""
    gc.freeze()  # what it has loaded stays
    gc.enable()
    for first, last in ((3, kept), (kept + 1, os.sysconf("SC_OPEN_MAX"))):
        os.closerange(first, last)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write(comm)


def _serve(requests: socket.socket) -> None:
    """The fork server, until end of file."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps what we start
    while True:
        request, files, _, _ = socket.recv_fds(requests, _LONGEST, 1)
        if not request:
            return
        asked = pickle.loads(request)
        if isinstance(asked, Holder):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            asked.settle()
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            continue
        comm, run, arguments = asked
        os.set_inheritable(files[0], False)  # else whatever it starts would hold it open
        with socket.socket(fileno=files[0]) as theirs:
            if os.fork() == 0:
                _become(theirs.fileno(), comm)
                run(theirs, *arguments)
                return
