"""HTTP answers: JSON, and what went wrong as a Status."""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from time import time
from typing import Any

import msgspec
from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from nsk8s.apiserver.discovery import Document
from nsk8s.apiserver.request import JSON
from nsk8s.apiserver.status import failure
from nsk8s.errors import ApiError, NsK8sError


class Answer(web.StreamResponse):
    """JSON that is complete. Head and body leave in one write, without what aiohttp's own Response looks
    for besides (cookies, compression, hooks): a third of all the time that a GET takes."""

    def __init__(self, body: bytes, code: int, warnings: Sequence[str]) -> None:
        super().__init__(status=code)
        self.content = body
        self._warnings = warnings

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send everything; as `web.StreamResponse.prepare`."""
        self._keep_alive = kept = request.keep_alive
        head = f"{_begin(self.status, int(time()))}Content-Length: {len(self.content)}\r\n"
        if kept is not (request.version >= HttpVersion11):
            head += f"Connection: {'keep-alive' if kept else 'close'}\r\n"
        for text in self._warnings:
            head += f"Warning: 299 - {quoted(text)}\r\n"
        body = b"" if request.method == "HEAD" else self.content
        writer = request.writer
        await writer.write(b"%s\r\n%s" % (head.encode(), body))
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Everything is sent."""


@lru_cache(maxsize=32)
def _begin(code: int, second: int) -> str:
    """Status line and headers of all JSON answers within a second."""
    date = formatdate(second, usegmt=True)
    return f"HTTP/1.1 {code} {HTTPStatus(code).phrase}\r\nContent-Type: {JSON}\r\nDate: {date}\r\n"


def answer(body: bytes, code: int = 200, warnings: Sequence[str] = ()) -> web.StreamResponse:
    """Encoded JSON."""
    return Answer(body, code, warnings)


def json(obj: Any, code: int = 200, warnings: Sequence[str] = ()) -> web.StreamResponse:  # noqa: ANN401  # any JSON
    """Any JSON value."""
    return answer(msgspec.json.encode(obj), code, warnings)


def document(found: Document, known: str) -> web.StreamResponse:
    """A discovery document; nothing to somebody who has it already (`known`, the If-None-Match)."""
    headers = {"Content-Type": found.content_type, "ETag": found.etag, "Vary": "Accept"}
    if found.lasting:
        headers["Cache-Control"] = "public, immutable"
    if found.etag in known:
        return web.Response(status=304, headers=headers)
    return web.Response(body=found.body, headers=headers)


def refusal(error: NsK8sError) -> web.StreamResponse:
    """An error."""
    status = failure(error)
    return json(status, status["code"])


def internal() -> ApiError:
    """A mistake of ours, which the log has whole."""
    return ApiError(500, "InternalError", "an internal error occurred; it is in the control plane's log")


def quoted(text: str) -> str:
    """A quoted-string (RFC 9110), without what no header can hold."""
    safe = "".join(c if c.isprintable() else " " for c in text)
    return '"' + safe.replace("\\", "\\\\").replace('"', '\\"') + '"'
