"""HTTP answers: JSON, and what went wrong as a Status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from nsk8s.apiserver.discovery import Document
from nsk8s.apiserver.request import JSON
from nsk8s.apiserver.status import failure
from nsk8s.errors import ApiError, NsK8sError


def answer(body: bytes, code: int = 200, warnings: Sequence[str] = ()) -> web.Response:
    """Encoded JSON."""
    found = web.Response(body=body, status=code, content_type=JSON)
    for text in warnings:
        found.headers.add("Warning", f"299 - {quoted(text)}")
    return found


def json(obj: Any, code: int = 200, warnings: Sequence[str] = ()) -> web.Response:  # noqa: ANN401  # any JSON
    """Any JSON value."""
    return answer(msgspec.json.encode(obj), code, warnings)


def document(found: Document, known: str) -> web.Response:
    """A discovery document; nothing to somebody who has it already (`known`, the If-None-Match)."""
    headers = {"Content-Type": found.content_type, "ETag": found.etag, "Vary": "Accept"}
    if found.lasting:
        headers["Cache-Control"] = "public, immutable"
    if found.etag in known:
        return web.Response(status=304, headers=headers)
    return web.Response(body=found.body, headers=headers)


def refusal(error: NsK8sError) -> web.Response:
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
