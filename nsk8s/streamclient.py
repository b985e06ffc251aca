"""exec over the control plane's unix socket: WebSocket, ``v5.channel.k8s.io``; blocking, quick to import.

Its streams are our own standard streams. On a terminal, ours is raw meanwhile, and the one on the other side
is told of every change of its size.
"""

from __future__ import annotations

import base64
import fcntl
import os
import select
import signal
import socket
import struct
import termios
import tty as terminals
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from urllib.parse import urlencode

import msgspec

from nsk8s.client import mapped, refusal
from nsk8s.paths import ClusterPaths

PROTOCOL = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
PIECE = 64 * 1024

_BINARY, _CLOSE, _PING, _PONG = 2, 8, 9, 10


def execute(
    paths: ClusterPaths,
    namespace: str,
    pod: str,
    container: str,
    command: Sequence[str],
    *,
    stdin: bool,
    tty: bool,
) -> int:
    """Run `command` in a container; its exit code. Raises `ApiError`, ClusterGone and what else
    `client.mapped` makes of a socket's failure, and OSError if our own output cannot be written."""
    query = [("container", container), ("stdin", stdin), ("stdout", True), ("stderr", not tty), ("tty", tty)]
    asked = [(key, str(value).lower() if isinstance(value, bool) else value) for key, value in query]
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/exec?"
    with ExitStack() as stack:
        stack.enter_context(_unmapped())
        stack.enter_context(mapped(paths, "exec"))
        sock = stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.connect(os.fspath(paths.socket))
        rest = _upgrade(sock, path + urlencode([*asked, *(("command", word) for word in command)]))
        changes = stack.enter_context(_window()) if tty else -1
        if tty and stdin:
            stack.enter_context(_raw())
        return Conversation(sock, rest, stdin=stdin, changes=changes).hold()


class Conversation:
    """What goes back and forth until the command has ended. `rest` has been read already."""

    def __init__(self, sock: socket.socket, rest: bytes, *, stdin: bool, changes: int) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._in = bytearray(rest)
        self._out = bytearray()
        self._stdin = stdin
        self._changes = changes
        self._status = b""

    def hold(self) -> int:
        """The exit code. Raises `ApiError` for what could not be run, OSError when the control plane goes
        away."""
        if self._changes >= 0:
            self._resize()
        while not self._taken():
            self._wait()
        status = msgspec.json.decode(self._status or b"{}")
        if status.get("status") == "Success":
            return 0
        for cause in (status.get("details") or {}).get("causes") or ():
            if cause.get("reason") == "ExitCode":
                return int(cause["message"])
        if not status:
            raise ConnectionResetError("no word on how it ended")
        raise refusal(500, self._status)

    def _wait(self) -> None:
        """For the next thing to do, and do it."""
        sources: list[int | socket.socket] = [self._socket]
        if self._stdin and not self._out:  # what is not taken yet keeps back what comes behind it
            sources.append(0)
        if self._changes >= 0:
            sources.append(self._changes)
        readable, writable, _ = select.select(sources, [self._socket] if self._out else [], [])
        if writable:
            self._send()
        if self._changes in readable:
            os.read(self._changes, PIECE)
            self._resize()
        if 0 in readable:
            piece = os.read(0, PIECE)
            self._say(bytes((STDIN,)) + piece if piece else bytes((CLOSE, STDIN)))
            self._stdin = bool(piece)
        if self._socket in readable:
            piece = self._socket.recv(4 * PIECE)
            if not piece:
                raise ConnectionResetError("the connection ended")
            self._in += piece

    def _send(self) -> None:
        try:
            del self._out[: self._socket.send(self._out)]
        except (BrokenPipeError, ConnectionResetError):  # nobody listens; its last word is still to be read
            self._out.clear()
            self._stdin = False

    def _taken(self) -> bool:
        """Take all whole frames; True once the conversation is over."""
        while (frame := self._frame()) is not None:
            kind, data = frame
            if kind == _CLOSE:
                return True
            if kind == _PING:
                self._say(data, _PONG)
            elif kind == _BINARY and data:
                if data[0] == ERROR:
                    self._status += data[1:]
                elif data[0] in (STDOUT, STDERR):
                    _write(data[0], memoryview(data)[1:])
        return False

    def _frame(self) -> tuple[int, bytes] | None:
        """The next frame (RFC 6455, 5.2); servers do not mask theirs."""
        found = self._in
        if len(found) < 2:
            return None
        begin, length = 2, found[1] & 0x7F
        if length > 125:
            begin = 4 if length == 126 else 10
            if len(found) < begin:
                return None
            length = int.from_bytes(found[2:begin], "big")
        if len(found) < begin + length:
            return None
        data = bytes(memoryview(found)[begin : begin + length])
        kind = found[0] & 0x0F
        del found[: begin + length]
        return kind, data

    def _say(self, data: bytes, kind: int = _BINARY) -> None:
        """Queue a frame. Clients have to mask theirs; with zeros, as nobody stands between us."""
        size = len(data)
        short = size if size < 126 else 126 if size < 65536 else 127
        length = b"" if size < 126 else size.to_bytes(2 if size < 65536 else 8, "big")
        self._out += bytes((0x80 | kind, 0x80 | short)) + length + bytes(4) + data

    def _resize(self) -> None:
        size = struct.pack("HHHH", 0, 0, 0, 0)
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(1, termios.TIOCGWINSZ, size))
        self._say(bytes((RESIZE,)) + msgspec.json.encode({"Width": columns, "Height": rows}))


def _upgrade(sock: socket.socket, path: str) -> bytes:
    """Make a WebSocket of the connection; what has been read beyond the answer's head. Raises `ApiError`."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        f"Sec-WebSocket-Protocol: {PROTOCOL}",
    ]
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    read = b""
    while b"\r\n\r\n" not in read:
        piece = sock.recv(PIECE)
        if not piece:
            raise ConnectionResetError("the connection ended")
        read += piece
    head, _, rest = read.partition(b"\r\n\r\n")
    code = int(head.split(b" ", 2)[1])
    if code == 101:
        return rest
    sizes = [
        line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
    ]
    while sizes and len(rest) < int(sizes[0]) and (piece := sock.recv(PIECE)):
        rest += piece
    raise refusal(code, rest)


@contextmanager
def _raw() -> Iterator[None]:
    """Our terminal passes on what is typed as it is."""
    before = termios.tcgetattr(0)
    terminals.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def _window() -> Iterator[int]:
    """A file descriptor that is readable once our window has another size."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    handler = signal.signal(signal.SIGWINCH, lambda _number, _frame: None)
    try:
        yield reading
    finally:
        signal.signal(signal.SIGWINCH, handler)
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


class _Unwritten(Exception):
    """Our own output cannot be written: nobody reads it, or the disk is full. No fault of the socket's."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def _unmapped() -> Iterator[None]:
    try:
        yield
    except _Unwritten as unwritten:
        raise unwritten.error from None


def _write(fd: int, data: memoryview) -> None:
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError as error:
        raise _Unwritten(error) from error
