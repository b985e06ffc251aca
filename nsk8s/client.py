"""The other end of the control plane's unix socket: blocking, small, quick to import.

Errors come back as the exceptions that they were on the other side: a Status object is an `ApiError`.
"""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from nsk8s.api.types import Obj
from nsk8s.errors import ApiError, ClusterGone, Problem
from nsk8s.paths import ClusterPaths

JSON = "application/json"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


class Client:
    """Requests to one cluster's control plane. Every method raises `ApiError` for what the server refuses
    and `ClusterGone` when nobody answers."""

    def __init__(self, paths: ClusterPaths) -> None:
        self._paths = paths
        self._connection: _UnixConnection | None = None

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
        with self._answer(method, path, body, accept, content_type, fresh=False) as answer:
            found: Obj = msgspec.json.decode(answer.read())
            return found

    def watch(self, path: str, *, accept: str = JSON) -> Iterator[Obj]:
        """The events of a watch (`path` has ``watch=true``), until the server ends it."""
        return self._lines("GET", path, None, accept)

    def stream(self, method: str, path: str, body: Obj | None = None) -> Iterator[Obj]:
        """An answer of JSON lines, each as it comes. A line with a Status raises its error."""
        return self._lines(method, path, body, JSON)

    def _lines(self, method: str, path: str, body: Obj | None, accept: str) -> Iterator[Obj]:
        with self._answer(method, path, body, accept, JSON, fresh=True) as answer:
            try:
                while line := answer.readline():
                    event: Obj = msgspec.json.decode(line)
                    if event.get("kind") == "Status" and event.get("status") == "Failure":
                        raise _error(event)
                    yield event
            except (ConnectionError, http.client.HTTPException) as gone:
                raise self._gone() from gone

    @contextmanager
    def _answer(
        self, method: str, path: str, body: object, accept: str, content_type: str, *, fresh: bool
    ) -> Iterator[http.client.HTTPResponse]:
        headers = {"Accept": accept}
        data = None
        if body is not None:
            data = msgspec.json.encode(body)
            headers["Content-Type"] = content_type
        connection = None if fresh else self._connection
        try:
            if connection is None:
                connection = _UnixConnection(os.fspath(self._paths.socket))
                if not fresh:
                    self._connection = connection
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            if answer.status >= 400:
                raise _error(_status(answer))
            yield answer
        except (ConnectionError, FileNotFoundError, http.client.HTTPException) as error:
            self._connection = None
            raise self._gone() from error
        finally:
            if fresh and connection is not None:
                connection.close()

    def _gone(self) -> ClusterGone:
        return ClusterGone(
            f"the control plane of cluster {self._paths.cluster!r} does not answer",
            hint=f"run the command again: it starts it; see {self._paths.daemon_log}",
        )


def _status(answer: http.client.HTTPResponse) -> Obj:
    raw = answer.read()
    try:
        found = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        found = {"code": answer.status, "message": raw.decode(errors="replace")}
    return found if isinstance(found, dict) else {"code": answer.status}


def _error(status: Obj) -> ApiError:
    details = status.get("details") or {}
    causes = [Problem(c.get("field", ""), c.get("message", "")) for c in details.get("causes") or ()]
    return ApiError(
        int(status.get("code") or 500),
        status.get("reason") or "InternalError",
        status.get("message") or "unknown error",
        kind=details.get("kind", ""),
        name=details.get("name", ""),
        causes=causes,
    )
