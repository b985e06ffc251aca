"""One request to the API: who asks for what, and how the answer shall look.

A path either means objects (`where`) or a document of the server's own (discovery, health, OpenAPI). The
verb is the one that RBAC knows: ``get list watch create update patch delete deletecollection``, or the
method in lower case for documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct, field

from nsk8s.api import protobuf
from nsk8s.api.strict import read_yaml
from nsk8s.api.types import Obj
from nsk8s.apiserver.addressing import Address, truth
from nsk8s.apiserver.authentication import User
from nsk8s.errors import ApiError

DEPTH_LIMIT = 100
"""Deepest nesting of an object: real ones have 20, and nobody downstream shall run out of stack."""

JSON = "application/json"
PROTOBUF = "application/vnd.kubernetes.protobuf"

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


class Request(Struct):
    """A request of `user`. `trusted` is what comes over the unix socket. `warnings` are told with the
    answer (``Warning: 299``)."""

    http: web.BaseRequest
    user: User
    where: Address | None
    verb: str
    query: Mapping[str, str]
    trusted: bool = False
    warnings: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The path, decoded, without the query."""
        return self.http.path

    @property
    def method(self) -> str:
        """The HTTP method."""
        return self.http.method

    async def body(self) -> Any:  # noqa: ANN401  # any JSON
        """The decoded body, {} if there is none. Raises `ApiError` 400, 413 and 415."""
        return decoded(await self.http.read(), self.http.content_type)

    async def mapping(self) -> Obj:
        """The body, which must be an object."""
        return mapping(await self.body())


def verb_of(method: str, where: Address | None, query: Mapping[str, str]) -> str:
    """What a method means for RBAC."""
    if where is None:
        return method.lower()
    if method in ("GET", "HEAD"):
        if truth(query, "watch") and not where.subresource:
            return "watch"
        return "get" if where.name else "list"
    if method == "DELETE":
        return "delete" if where.name else "deletecollection"
    return _VERBS.get(method, method.lower())


def decoded(raw: bytes, content_type: str) -> Any:  # noqa: ANN401  # any JSON
    """A body as JSON values. Raises `ApiError` 400 and 415."""
    if not raw:
        return {}
    if content_type.endswith("cbor"):
        raise ApiError(
            415,
            "UnsupportedMediaType",
            f"the body of the request was in an unknown format - accepted media types include: {JSON}, "
            + PROTOBUF,
        )
    body: Any
    try:
        if content_type == PROTOBUF:
            body = protobuf.decode(raw)
        elif content_type.endswith("yaml") and raw.lstrip()[:1] not in (b"{", b"["):
            body = read_yaml(raw)[0]
        else:
            body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, "BadRequest", f"the request's body is not JSON: {error}") from error
    except RecursionError:
        body = None
    if body is None or too_deep(body):
        what = "is null" if raw.strip() == b"null" else f"is nested deeper than {DEPTH_LIMIT} levels"
        raise ApiError(400, "BadRequest", f"the request's body {what}")
    return body


def mapping(body: Any) -> Obj:  # noqa: ANN401  # any JSON
    """A body that must be an object. Raises `ApiError` 400."""
    if not isinstance(body, dict):
        raise ApiError(400, "BadRequest", "the request's body is not an object")
    return body


def too_deep(value: object) -> bool:
    """Whether any JSON value is nested deeper than `DEPTH_LIMIT`."""
    level = [value]
    for _ in range(DEPTH_LIMIT):
        below: list[object] = []
        for one in level:
            if isinstance(one, dict):
                below += one.values()
            elif isinstance(one, list):
                below += one
        if not below:
            return False
        level = below
    return True
