"""What the streams need of the machine; the control plane's process provides it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from msgspec import Struct

from nsk8s.errors import ApiError


class NotRunning(ApiError):
    """What a kubelet says in plain words when there is nothing to connect to (HTTP 500)."""

    def __init__(self, message: str) -> None:
        super().__init__(500, "InternalError", message)


class Source(Protocol):
    """Bytes that come from the cluster."""

    async def read(self) -> bytes:
        """Some bytes, as soon as there are any; b"" at the end."""


class Sink(Protocol):
    """Bytes that go into the cluster."""

    async def write(self, data: bytes) -> None:
        """Have all of `data` taken. Raises ConnectionError when nobody reads any more."""

    def close(self) -> None:
        """There will be no more."""


class Process(Protocol):
    """A program somebody talks to: one that was started for them, or a container's own."""

    @property
    def stdin(self) -> Sink | None:
        """Its standard input, if it was asked for and has one."""

    @property
    def stdout(self) -> Source | None:
        """Its output; with a terminal, all of it."""

    @property
    def stderr(self) -> Source | None:
        """Its error output, where that is separate."""

    def resize(self, width: int, height: int) -> None:
        """The window of its terminal has another size, in characters."""

    async def wait(self) -> int:
        """Its exit code (128+n: signal n), once it has ended. Raises `NsK8sError` if it could not be run."""

    def kill(self) -> None:
        """Be done with it: what was started for the client ends, a container goes on. Also when it has
        ended, and more than once."""


class Socket(Protocol):
    """A TCP connection to something in the cluster."""

    async def read(self) -> bytes:
        """As `Source.read`. Raises ConnectionError."""

    async def write(self, data: bytes) -> None:
        """As `Sink.write`."""

    def finish(self) -> None:
        """There will be no more from us (FIN)."""

    def close(self) -> None:
        """Be done with it."""


class LogOptions(Struct, frozen=True):
    """core/v1.PodLogOptions. `lines` and `limit` (bytes) are None for all; `since` is a
    time in seconds since the epoch, `seconds` how long ago; 0 for ever."""

    container: str = ""
    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    lines: int | None = None
    limit: int | None = None
    since: float = 0.0
    seconds: int = 0


class PodAccess(Protocol):
    """Ways into pods. Every method raises `ApiError` (404, 400, 500) for what is not there."""

    def exec(
        self,
        namespace: str,
        pod: str,
        container: str,
        command: Sequence[str],
        *,
        stdin: bool,
        tty: bool,
    ) -> Callable[[], Process]:
        """What starts `command` beside a container's own program. What cannot be run tells so on its
        error output, and ends with 126 or 127."""

    def attach(
        self, namespace: str, pod: str, container: str, *, stdin: bool, tty: bool
    ) -> Callable[[], Process]:
        """What attaches to a container's own program, from then on."""

    def forwards(self, namespace: str, pod: str) -> None:
        """Raises if nothing can be forwarded to the pod."""

    async def dial(self, namespace: str, pod: str, port: int) -> Socket:
        """A connection to a port on the pod's own localhost. Raises `NsK8sError` in a kubelet's words."""

    def open_socket(self, family: int) -> socket.socket:
        """A TCP socket that stands where the API server does. Raises OSError."""

    def logs(self, namespace: str, pod: str, options: LogOptions) -> AsyncIterator[bytes]:
        """What a container has written. Raises at once, if at all."""
