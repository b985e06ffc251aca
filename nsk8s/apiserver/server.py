"""HTTP on a unix socket: requests in, objects, lists, tables, watches and Status errors out.

The thread of the event loop owns the store: a request is handled at once, and acknowledged only after
`turn` has let the controllers finish and has made it durable.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from nsk8s.api.types import Obj
from nsk8s.apiserver import discovery, resources, tables
from nsk8s.apiserver.addressing import Address, Filter, address, number, truth
from nsk8s.apiserver.status import failure
from nsk8s.apiserver.watching import Watcher, Watchers, bookmark, line
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.store import Change, Store
from nsk8s.errors import ApiError, NsK8sError

log = logging.getLogger("nsk8s")

BODY_LIMIT = 64 * 1024 * 1024
"""Largest request in bytes: `up` sends a whole cluster's objects at once."""
LINE_LIMIT = 64 * 1024
"""Longest request line and header in bytes; selectors stand in the request line."""
DEPTH_LIMIT = 100
"""Deepest nesting of an object: real ones have 20, and nobody downstream shall run out of stack."""
BOOKMARK_INTERVAL = 60.0
"""Seconds of silence after which a watch that allows bookmarks gets one."""

JSON = "application/json"
Handler = Callable[[Obj], Awaitable[Obj] | AsyncIterator[Obj]]
"""A route of our own: takes the body (or the query) as a dict, answers with an object or with JSON lines."""


class ApiServer:
    """The API of one cluster. `registry` may be replaced while it serves."""

    def __init__(self, store: Store, registry: Registry, turn: Callable[[], Awaitable[None]]) -> None:
        self.registry = registry
        self._store = store
        self._turn = turn
        self._watchers = Watchers()
        self._routes: dict[tuple[str, str], Handler] = {}

    def route(self, method: str, path: str, handler: Handler) -> None:
        """Serve a path that is not Kubernetes'."""
        self._routes[method, path] = handler

    def notify(self, changes: Iterable[Change]) -> None:
        """Tell the watchers what was committed."""
        self._watchers.notify(changes)

    async def listen(self, path: Path) -> asyncio.Server:
        """Serve on a unix socket that only its owner can open, in place of a dead one."""
        new = path.with_name(path.name + ".new")
        new.unlink(missing_ok=True)
        server = _Server(
            self._handle,
            handler_cancellation=True,
            access_log=None,
            max_line_size=LINE_LIMIT,
            max_field_size=LINE_LIMIT,
        )
        old = os.umask(0o177)
        try:
            listening = await asyncio.get_running_loop().create_unix_server(
                server, os.fspath(new), backlog=1024
            )
        finally:
            os.umask(old)
        new.replace(path)
        return listening

    # --- one request --------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except NsK8sError as error:
            return _refusal(error)
        except web.HTTPRequestEntityTooLarge:
            return _refusal(
                ApiError(413, "RequestEntityTooLarge", f"the request is larger than {BODY_LIMIT} bytes")
            )
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:  # a mistake of ours: logged whole, told in a line, and the server goes on
            log.exception("%s %s", request.method, request.path_qs)
            self._store.rollback()
            return _refusal(_internal())

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path, method = request.path, request.method
        own = self._routes.get((method, path))
        if own is not None:
            given = _mapping(await _body(request)) if method == "POST" else dict(request.query)
            answer = own(given)
            if isinstance(answer, AsyncIterator):
                return await self._stream(request, answer)
            return _json(await answer)
        if path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        found = discovery.document(path) if method == "GET" else None
        if found is not None:
            return _json(found)
        where = address(path)
        if where is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        accepted = request.headers.get("Accept", "")
        if accepted and "json" not in accepted and "*/*" not in accepted and "application/*" not in accepted:
            raise ApiError(406, "NotAcceptable", f"only the following media types are accepted: {JSON}")
        if method == "GET":
            return await self._get(request, where)
        return await self._write(request, where)

    async def _get(self, request: web.BaseRequest, where: Address) -> web.StreamResponse:
        query = request.query
        as_table = "as=Table" in request.headers.get("Accept", "")
        if where.subresource == "scale":
            return _json(resources.scale(self.registry, where))
        if where.name and not truth(query, "watch"):
            obj = resources.read(self._store, where)
            if as_table:
                return _json(resources.table_of(where, [obj], obj["metadata"]["resourceVersion"], query))
            return _json(obj)
        about = Filter.of(where, query)
        if truth(query, "watch"):
            return await self._watch(request, about, as_table)
        objects, revision = resources.listed(self._store, about, query)
        if as_table:
            return _json(resources.table_of(where, objects, revision, query))
        return _json(resources.listing(where, objects, revision))

    async def _write(self, request: web.BaseRequest, where: Address) -> web.StreamResponse:
        body = await _body(request)
        query = request.query
        rehearsed = resources.rehearsed(query, body, request.method)
        code = 200
        with self._all_or_nothing():
            match request.method:
                case "POST":
                    found, code = resources.create(self.registry, where, _mapping(body)), 201
                case "PUT":
                    found = resources.replace(self.registry, where, _mapping(body))
                case "PATCH":
                    kind = request.headers.get("Content-Type", "").partition(";")[0]
                    found, code = resources.change(self.registry, where, body, kind)
                case "DELETE":
                    options = resources.DeleteOptions.of(query, _mapping(body))
                    if where.name:
                        found = resources.delete(self.registry, self._store, where, options)
                    else:
                        found = resources.delete_all(
                            self.registry, self._store, Filter.of(where, query), options
                        )
                case _:
                    raise ApiError(405, "MethodNotAllowed", f"the server does not allow {request.method}")
            if too_deep(found):
                raise ApiError(400, "BadRequest", f"the object is nested deeper than {DEPTH_LIMIT} levels")
        if rehearsed:
            self._store.rollback()
        else:
            await self._turn()
        return _json(found, code)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """What is refused has not happened."""
        try:
            yield
        except NsK8sError:
            self._store.rollback()
            raise
        except RecursionError as error:
            self._store.rollback()
            raise ApiError(
                400, "BadRequest", f"the object is nested deeper than {DEPTH_LIMIT} levels"
            ) from error

    async def _watch(self, request: web.BaseRequest, about: Filter, as_table: bool) -> web.StreamResponse:
        """A watch, from a revision on or (without one) from what there is now."""
        query, resource = request.query, about.address.resource
        seconds = number(query, "timeoutSeconds", 0)
        streaming = truth(query, "sendInitialEvents")
        marks = truth(query, "allowWatchBookmarks")
        since = number(query, "resourceVersion")
        if since > self._store.revision:
            raise ApiError(
                504, "Timeout", f"Too large resource version: {since}, current: {self._store.revision}"
            )

        def drop() -> None:
            if request.transport is not None:
                request.transport.abort()

        watcher = Watcher(about, _row(about) if as_table else _whole, "row" if as_table else "", drop)
        answer = web.StreamResponse(headers={"Content-Type": JSON})
        if since == 0 or streaming:
            events = [("ADDED", obj) for obj in resources.listed(self._store, about, {})[0]]
        else:
            try:
                events = list(watcher.events(self._store.since(since)))
            except ApiError as error:
                await answer.prepare(request)
                await answer.write(line("ERROR", failure(error)))
                return answer
        begin = [line(kind, watcher.form(obj)) for kind, obj in events]
        if as_table and begin:  # only the first event says what the columns are
            begin[0] = line(events[0][0], _table(about, events[0][1]))
        if streaming:
            begin.append(bookmark(resource, self._store.revision, initial_end=True))
        with self._watchers.following(watcher):
            await answer.prepare(request)
            await answer.write(b"".join(begin))
            headed = bool(events) or not as_table
            try:
                async with asyncio.timeout(seconds or None):
                    while True:
                        try:
                            async with asyncio.timeout(BOOKMARK_INTERVAL if marks else None):
                                text = await watcher.told()
                        except TimeoutError:
                            text = bookmark(resource, self._store.revision)
                        await answer.write(text if headed else _headed(about, text))
                        headed = True
            except TimeoutError:
                if marks:
                    await answer.write(bookmark(resource, self._store.revision))
        return answer

    async def _stream(
        self, request: web.BaseRequest, lines: AsyncIterator[Mapping[str, Any]]
    ) -> web.StreamResponse:
        """JSON lines, each sent when it is known; an error ends them as a Status line."""
        answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await answer.prepare(request)
        try:
            async with aclosing(lines):  # type: ignore[type-var]  # an async generator
                async for one in lines:
                    await answer.write(msgspec.json.encode(one) + b"\n")
        except NsK8sError as error:
            await answer.write(msgspec.json.encode(failure(error)) + b"\n")
        except ConnectionError:
            raise
        except Exception:  # the same, in the middle of an answer
            log.exception("%s %s", request.method, request.path_qs)
            self._store.rollback()
            await answer.write(msgspec.json.encode(failure(_internal())) + b"\n")
        return answer


def _whole(obj: Obj) -> Obj:
    return obj


def _table(about: Filter, obj: Obj) -> Obj:
    return tables.table(about.address.resource, [obj], tables.now(), obj["metadata"]["resourceVersion"])


def _row(about: Filter) -> Callable[[Obj], Obj]:
    def row(obj: Obj) -> Obj:
        return {**_table(about, obj), "columnDefinitions": None}

    return row


def _headed(about: Filter, text: bytes) -> bytes:
    """The first of some encoded events with the columns that its table lacks."""
    first, rest = text.split(b"\n", 1)
    event = msgspec.json.decode(first)
    if event["type"] == "BOOKMARK":
        return text
    columns = tables.table(about.address.resource, [], tables.now(), "")["columnDefinitions"]
    return line(event["type"], {**event["object"], "columnDefinitions": columns}) + rest


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


class _Server(web.Server):
    """aiohttp's low-level server with requests as large as `up` needs them."""

    def _make_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=BODY_LIMIT)


def _json(obj: Any, code: int = 200) -> web.Response:  # noqa: ANN401  # any JSON
    return web.Response(body=msgspec.json.encode(obj), status=code, content_type=JSON)


def _refusal(error: NsK8sError) -> web.Response:
    status = failure(error)
    return _json(status, status["code"])


def _internal() -> ApiError:
    return ApiError(500, "InternalError", "an internal error occurred; it is in the control plane's log")


async def _body(request: web.BaseRequest) -> Any:  # noqa: ANN401  # any JSON
    raw = await request.read()
    if not raw:
        return {}
    if request.content_type.endswith(("protobuf", "cbor")):
        raise ApiError(
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: " + JSON,
        )
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, "BadRequest", f"the request's body is not JSON: {error}") from error
    except RecursionError:
        body = None
    if body is None or too_deep(body):
        what = "is null" if raw.strip() == b"null" else f"is nested deeper than {DEPTH_LIMIT} levels"
        raise ApiError(400, "BadRequest", f"the request's body {what}")
    return body


def _mapping(body: Any) -> Obj:  # noqa: ANN401  # any JSON
    if not isinstance(body, dict):
        raise ApiError(400, "BadRequest", "the request's body is not an object")
    return body
