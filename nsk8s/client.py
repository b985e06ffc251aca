"""The other end of the control plane's unix socket: blocking, small, quick to import.

Errors come back as the exceptions that they were on the other side: a Status object is an `ApiError`.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import msgspec

from nsk8s.api.kinds import RESOURCES
from nsk8s.api.types import Obj
from nsk8s.errors import ApiError, ClusterGone, HostError, Problem, Timeout
from nsk8s.paths import ClusterPaths

JSON = "application/json"
PATIENCE = 120.0
"""Seconds within which any request that is no stream must be answered."""

PIECE = 1 << 20

_PLURALS = {(r.plural, r.group): r.name for r in RESOURCES}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """Requests to one cluster's control plane, over one connection that is kept; a stream has its own.

    Every method raises `ApiError` for what the server refuses, `ClusterGone` when nobody answers or the
    server goes away while it does, `HostError` when the socket is not ours to open, `Timeout` when a
    request stays unanswered. `warn` is told each ``Warning`` header's text (RFC 9111), once.
    """

    def __init__(self, paths: ClusterPaths, warn: Callable[[str], None] | None = None) -> None:
        self._paths = paths
        self._connection: _UnixConnection | None = None
        self._warn = warn
        self._warned: set[str] = set()

    def close(self) -> None:
        """Let go of the connection; the next request makes another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, path: str, *, accept: str = JSON) -> Obj:
        """GET one object, list or table."""
        return self.request("GET", path, accept=accept)

    def post(self, path: str, body: Obj) -> Obj:
        """POST an object."""
        return self.request("POST", path, body)

    def put(self, path: str, body: Obj) -> Obj:
        """PUT an object."""
        return self.request("PUT", path, body)

    def request(
        self, method: str, path: str, body: object = None, *, accept: str = JSON, content_type: str = JSON
    ) -> Obj:
        """One request; the decoded answer."""
        kept = self._connection is not None
        with self._mapped(method, path):
            try:
                return self._ask(method, path, body, accept, content_type)
            except (http.client.RemoteDisconnected, ConnectionError):
                # A kept connection may have been closed for its idleness; a POST may have been heard.
                if not kept or method == "POST":
                    raise
                return self._ask(method, path, body, accept, content_type)

    def watch(self, path: str, *, accept: str = JSON) -> Iterator[Obj]:
        """The events of a watch (`path` has ``watch=true``), until the server ends it. An ERROR is raised."""
        for event in self._lines("GET", path, None, accept):
            if event.get("type") == "ERROR":
                raise _error(event["object"])
            yield event

    def stream(self, method: str, path: str, body: Obj | None = None) -> Iterator[Obj]:
        """An answer of JSON lines, each as it comes. A line with a Status raises its error."""
        for line in self._lines(method, path, body, JSON):
            if line.get("kind") == "Status" and line.get("status") == "Failure":
                raise _error(line)
            yield line

    def _ask(self, method: str, path: str, body: object, accept: str, content_type: str) -> Obj:
        connection, self._connection = self._connection, None
        if connection is None:
            connection = _UnixConnection(os.fspath(self._paths.socket), PATIENCE)
        try:
            answer = _send(connection, method, path, body, accept, content_type)
            raw = answer.read()
            found: Obj = _status(answer.status, raw) if answer.status >= 400 else msgspec.json.decode(raw)
        except BaseException:
            connection.close()
            raise
        self._connection = connection  # it is whole, and may be used again
        self._pass_on(answer.headers.get_all("Warning") or ())
        if answer.status >= 400:
            raise _error(found)
        return found

    def _pass_on(self, warnings: Iterable[str]) -> None:
        for header in warnings:
            found = re.fullmatch(r'\d{3} \S+ "(.*)"', header)
            text = re.sub(r"\\(.)", r"\1", found[1]) if found else header
            if self._warn is not None and text not in self._warned:
                self._warned.add(text)
                self._warn(text)

    def read(self, path: str) -> Iterator[bytes]:
        """An answer that is no JSON, as it comes."""
        return self._pieces("GET", path, None, "*/*")

    def _lines(self, method: str, path: str, body: Obj | None, accept: str) -> Iterator[Obj]:
        rest = b""
        for piece in self._pieces(method, path, body, accept):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                with self._mapped(method, path):
                    found = msgspec.json.decode(line)
                yield found

    def _pieces(self, method: str, path: str, body: Obj | None, accept: str) -> Iterator[bytes]:
        with self._mapped(method, path):
            connection = _UnixConnection(os.fspath(self._paths.socket), None)
            try:
                answer = _send(connection, method, path, body, accept, JSON)
                if answer.status >= 400:
                    raise refusal(answer.status, answer.read())
                while piece := answer.read1(PIECE):  # not readline: it takes what breaks off for the end
                    yield piece
            finally:
                connection.close()

    def _mapped(self, method: str, path: str) -> AbstractContextManager[None]:
        return mapped(self._paths, f"{method} {path.partition('?')[0]}")


@contextmanager
def mapped(paths: ClusterPaths, what: str) -> Iterator[None]:
    """What can go wrong with the control plane's socket while asking `what`, as errors of ours."""
    cluster = paths.cluster
    try:
        yield
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise ClusterGone(
            f"the control plane of cluster {cluster!r} does not run",
            hint="run the command again: it starts it; nsk8s ls shows what runs on this host",
        ) from error
    except PermissionError as error:
        raise HostError(
            f"{paths.socket} belongs to another user",
            hint="run the command as the user who made the cluster: sudo nsk8s ...",
        ) from error
    except TimeoutError as error:
        raise Timeout(
            f"cluster {cluster!r}: no answer to {what} within {PATIENCE:.0f} s",
            hint=f"see {paths.daemon_log}",
        ) from error
    except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
        raise ClusterGone(
            f"the control plane of cluster {cluster!r} went away during {what}",
            hint=f"run the command again: it starts it; see {paths.daemon_log}",
        ) from error


def _send(
    connection: _UnixConnection, method: str, path: str, body: object, accept: str, content_type: str
) -> http.client.HTTPResponse:
    headers = {"Accept": accept, "User-Agent": "nsk8s"}
    data = None
    if body is not None:
        data = msgspec.json.encode(body)
        headers["Content-Type"] = content_type
    connection.request(method, path, data, headers)
    return connection.getresponse()


def refusal(code: int, raw: bytes) -> ApiError:
    """What an answer that is no success says."""
    return _error(_status(code, raw))


def _status(code: int, raw: bytes) -> Obj:
    try:
        found = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        found = None
    if isinstance(found, dict) and found.get("kind") == "Status":
        return found
    return {"code": code, "message": raw.decode(errors="replace").strip()}


def _error(status: Obj) -> ApiError:
    details = status.get("details") or {}
    kind = details.get("kind", "")
    error = ApiError(
        int(status.get("code") or 500),
        status.get("reason") or "InternalError",
        status.get("message") or "unknown error",
        kind=_PLURALS.get((kind, details.get("group", "")), kind),
        name=details.get("name", ""),
        causes=[Problem(c.get("field", ""), c.get("message", "")) for c in details.get("causes") or ()],
    )
    error.hint = details.get("hint", "")
    return error
