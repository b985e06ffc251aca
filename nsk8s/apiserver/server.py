"""HTTP on a unix socket: requests in, objects, lists, tables, watches and Status errors out.

The thread of the event loop owns the store: a request is handled at once, and acknowledged only after
`turn` has let the controllers finish and has made it durable.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from nsk8s.api.types import Obj
from nsk8s.apiserver import discovery, resources, tables
from nsk8s.apiserver.addressing import Address, Filter, address, number, truth
from nsk8s.apiserver.watching import Watcher, Watchers, line
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.store import Change, Store
from nsk8s.errors import ApiError, NsK8sError

log = logging.getLogger("nsk8s")

BODY_LIMIT = 64 * 1024 * 1024
"""Largest request in bytes: `up` sends a whole cluster's objects at once."""

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
        server = _Server(self._handle, handler_cancellation=True, access_log=None)
        old = os.umask(0o177)
        try:
            listening = await asyncio.get_running_loop().create_unix_server(server, os.fspath(new))
        finally:
            os.umask(old)
        new.replace(path)
        return listening

    # --- one request --------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except ApiError as error:
            return _json(status(error), error.code)
        except NsK8sError as error:
            return _json(status(ApiError(500, "InternalError", str(error))), 500)
        except web.HTTPRequestEntityTooLarge:
            too_large = ApiError(
                413, "RequestEntityTooLarge", f"the request is larger than {BODY_LIMIT} bytes"
            )
            return _json(status(too_large), 413)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("%s %s", request.method, request.path_qs)
            self._store.rollback()
            internal = ApiError(
                500, "InternalError", "an internal error occurred; it is in the control plane's log"
            )
            return _json(status(internal), 500)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path, method = request.path, request.method
        own = self._routes.get((method, path))
        if own is not None:
            given = await _body(request) if method == "POST" else dict(request.query)
            answer = own(given)
            if isinstance(answer, AsyncIterator):
                return await _stream(request, answer)
            return _json(await answer)
        if path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        found = discovery.document(path) if method == "GET" else None
        if found is not None:
            return _json(found)
        where = address(path)
        if where is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
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
        code = 200
        try:
            match request.method:
                case "POST":
                    found, code = resources.create(self.registry, where, _mapping(body)), 201
                case "PUT":
                    found = resources.replace(self.registry, where, _mapping(body))
                case "PATCH":
                    kind = request.headers.get("Content-Type", "").partition(";")[0]
                    found, code = resources.change(self.registry, where, body, kind)
                case "DELETE" if where.name:
                    found = resources.delete(self.registry, self._store, where, request.query, body)
                case "DELETE":
                    about = Filter.of(where, request.query)
                    found = resources.delete_all(self.registry, self._store, about, request.query, body)
                case _:
                    raise ApiError(405, "MethodNotAllowed", f"the server does not allow {request.method}")
        except ApiError:
            self._store.rollback()
            raise
        await self._turn()
        return _json(found, code)

    async def _watch(self, request: web.BaseRequest, about: Filter, as_table: bool) -> web.StreamResponse:
        """A watch, from a revision on or (without one) from what there is now."""
        columns = [True]

        def as_it_is(obj: Obj) -> Obj:
            return obj

        def as_row(obj: Obj) -> Obj:
            found = tables.table(
                about.address.resource, [obj], tables.now(), obj["metadata"]["resourceVersion"]
            )
            if not columns:
                found["columnDefinitions"] = []
            return found

        watcher = Watcher(about, as_row if as_table else as_it_is, "table" if as_table else "")
        asked = request.query.get("resourceVersion", "")
        answer = web.StreamResponse(headers={"Content-Type": JSON})
        present: list[Obj] = []
        missed: Iterable[Change] = ()
        if asked in ("", "0"):
            present, _ = resources.listed(self._store, about, {})
        else:
            try:
                missed = self._store.since(number(request.query, "resourceVersion"))
            except ApiError as error:
                await answer.prepare(request)
                await answer.write(line("ERROR", status(error)))
                return answer
        seconds = number(request.query, "timeoutSeconds", 0)
        follow = self._watchers.follow(watcher, tuple(missed))
        first = asyncio.ensure_future(anext(follow))  # from now on nothing is missed
        await asyncio.sleep(0)
        try:
            await answer.prepare(request)
            if present:
                await answer.write(b"".join(line("ADDED", watcher.form(obj)) for obj in present))
            async with asyncio.timeout(seconds or None):
                await answer.write(await first)
                async for text in follow:
                    await answer.write(text)
        except (TimeoutError, StopAsyncIteration):
            if truth(request.query, "allowWatchBookmarks"):
                mark = {
                    "kind": about.address.resource.kind,
                    "apiVersion": about.address.resource.api_version,
                    "metadata": {"resourceVersion": str(self._store.revision)},
                }
                await answer.write(line("BOOKMARK", mark))
        finally:
            first.cancel()
            await follow.aclose()  # type: ignore[attr-defined]  # an async generator
        return answer


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


def status(error: ApiError) -> Obj:
    """An error as `meta/v1.Status`."""
    details: Obj = {}
    if error.name:
        details["name"] = error.name
    if error.kind:
        details["kind"] = error.kind
    if error.causes:
        details["causes"] = [{"field": p.path, "message": p.what} for p in error.causes]
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": error.message,
        "reason": error.reason,
        "details": details,
        "code": error.code,
    }


def _json(obj: Any, code: int = 200) -> web.Response:  # noqa: ANN401  # any JSON
    return web.Response(body=msgspec.json.encode(obj), status=code, content_type=JSON)


async def _body(request: web.BaseRequest) -> Any:  # noqa: ANN401  # any JSON
    raw = await request.read()
    if not raw:
        return {}
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise ApiError(400, "BadRequest", f"the request's body is not JSON: {error}") from error


def _mapping(body: Any) -> Obj:  # noqa: ANN401  # any JSON
    if not isinstance(body, dict):
        raise ApiError(400, "BadRequest", "the request's body is not an object")
    return body


async def _stream(request: web.BaseRequest, lines: AsyncIterator[Mapping[str, Any]]) -> web.StreamResponse:
    """JSON lines, each sent when it is known; an error ends them as a Status line."""
    answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await answer.prepare(request)
    try:
        async for one in lines:
            await answer.write(msgspec.json.encode(one) + b"\n")
    except ApiError as error:
        await answer.write(msgspec.json.encode(status(error)) + b"\n")
    except NsK8sError as error:
        await answer.write(msgspec.json.encode(status(ApiError(500, "InternalError", str(error)))) + b"\n")
    return answer
