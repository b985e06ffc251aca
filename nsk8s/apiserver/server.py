"""HTTP in, objects, lists, tables, watches and Status errors out.

Over the unix socket everybody is the administrator; other listeners say who their clients are. The thread of
the event loop owns the store: a request is handled at once, and acknowledged only after `turn` has let the
controllers finish and has made it durable.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from nsk8s.api.conversions import convert
from nsk8s.api.kinds import Resource
from nsk8s.api.types import Obj
from nsk8s.apiserver import answers, resources, subresources
from nsk8s.apiserver.addressing import Filter, address, truth
from nsk8s.apiserver.authentication import ADMIN, User
from nsk8s.apiserver.connections import HANDSHAKE_TIMEOUT, SHUTDOWN_TIMEOUT, Connections, Listener, Quota
from nsk8s.apiserver.discovery import Discovery
from nsk8s.apiserver.fields import Fields
from nsk8s.apiserver.forms import Form, form_of
from nsk8s.apiserver.openapi import OpenApi
from nsk8s.apiserver.printers import custom, printer_for
from nsk8s.apiserver.printers.columns import Printer
from nsk8s.apiserver.request import DEPTH_LIMIT, Request, mapping, too_deep, verb_of
from nsk8s.apiserver.status import failure
from nsk8s.apiserver.watches import watch
from nsk8s.apiserver.watching import Watchers
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.store import Change, Store
from nsk8s.errors import ApiError, NsK8sError

log = logging.getLogger("nsk8s")

WATCHES_PER_USER = 1024
"""Watches that one user may have open: a client has some dozens."""

PUBLIC = ("/healthz", "/livez", "/readyz", "/version")
"""What anybody may ask."""

OwnHandler = Callable[[Obj], Awaitable[Obj] | AsyncIterator[Obj]]
"""A route of our own: takes the body (or the query) as a dict, answers with an object or with JSON lines."""
Handler = Callable[[Request], Awaitable[web.StreamResponse]]
"""Serves a subresource, or a resource that is nowhere stored."""
Identify = Callable[[web.BaseRequest], User]
"""Who sends a request; raises `ApiError` 401."""


class ApiServer:
    """The API of one cluster. `registry` may be replaced while it serves. `check` raises `ApiError` 403 for
    what a user may not do; `granting` gives what raises it for an object that would give more than its writer
    has, or None."""

    def __init__(self, store: Store, registry: Registry, turn: Callable[[], Awaitable[None]]) -> None:
        self.registry = registry
        self.check: Callable[[Request], None] = _anything
        self.granting: Callable[[Request], Callable[[Obj], None] | None] = _anything
        self._store = store
        self._turn = turn
        self._watchers = Watchers()
        self._watches = Quota("watches", WATCHES_PER_USER)
        self._discovery = Discovery(lambda: self.registry.kinds, lambda: self.registry.version)
        self._openapi = OpenApi(
            lambda: self.registry.kinds,
            lambda resource: self.registry.definitions.schema(resource),
            lambda: self.registry.version,
        )
        self._published: dict[str, Callable[[], Obj]] = {}
        self._own: dict[tuple[str, str], OwnHandler] = {("POST", "/nsk8s/v1/apply"): self._apply}
        self._handlers: dict[tuple[str, str], Handler] = {}
        subresources.register(self)

    def route(self, method: str, path: str, handler: OwnHandler) -> None:
        """Serve a path that is not Kubernetes', over the unix socket only."""
        self._own[method, path] = handler

    def publish(self, path: str, document: Callable[[], Obj]) -> None:
        """Serve a document at a path that is no resource's, to those who may get it."""
        self._published[path] = document

    def handle(self, resource: str, subresource: str, handler: Handler) -> None:
        """Serve a subresource (``pods``, ``exec``), or all of a resource that is not stored ("")."""
        self._handlers[resource, subresource] = handler

    async def perform(self, act: Callable[[], Obj], *, rehearsed: bool) -> Obj:
        """Do a write, all of it or nothing, and make it durable; one that is `rehearsed` leaves nothing."""
        with self._all_or_nothing():
            found = act()
            _check_depth(found)
        await self._finish(rehearsed=rehearsed)
        return found

    async def _finish(self, *, rehearsed: bool) -> None:
        if rehearsed:
            self._store.rollback()
        else:
            await self._turn()

    def notify(self, changes: Iterable[Change]) -> None:
        """Tell the watchers what was committed."""
        self._watchers.notify(changes)

    async def listen(self, path: Path) -> asyncio.Server:
        """Serve on a unix socket that only its owner can open, in place of a dead one."""
        new = path.with_name(path.name + ".new")
        new.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            listening = await asyncio.get_running_loop().create_unix_server(
                self._server(_administrator, trusted=True), os.fspath(new), backlog=1024
            )
        finally:
            os.umask(old)
        new.replace(path)
        return listening

    async def serve(
        self, listening: socket.socket, identify: Identify, tls: ssl.SSLContext | None = None
    ) -> Listener:
        """Serve on a listening socket whose clients `identify` knows."""
        server = self._server(identify, trusted=False)
        opened = await asyncio.get_running_loop().create_server(
            server,
            sock=listening,
            ssl=tls,
            backlog=1024,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT if tls else None,
            ssl_shutdown_timeout=SHUTDOWN_TIMEOUT if tls else None,
        )
        return Listener(opened, server)

    def _server(self, identify: Identify, *, trusted: bool) -> Connections:
        return Connections(partial(self._handle, identify, trusted), trusted=trusted)

    async def _apply(self, obj: Obj) -> Obj:
        """`POST /nsk8s/v1/apply`: what ``kubectl apply`` does on the client's side, in one go; the object
        and the verdict."""
        with self._all_or_nothing():
            found, verdict = self.registry.apply(obj)
        await self._turn()
        return {"object": found, "verdict": verdict}

    # --- one request --------------------------------------------------------------------------------

    async def _handle(self, identify: Identify, trusted: bool, http: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(identify, trusted, http)
        except NsK8sError as error:
            return answers.refusal(error)
        except web.HTTPRequestEntityTooLarge:
            what = f"Request entity too large: limit is {http.client_max_size}"
            return answers.refusal(ApiError(413, "RequestEntityTooLarge", what))
        except asyncio.CancelledError:
            raise
        except ConnectionError as error:
            if http.transport is None or http.transport.is_closing():
                raise asyncio.CancelledError from error  # what aiohttp was about to do
            raise
        except Exception:  # a mistake of ours: logged whole, told in a line, and the server goes on
            log.exception("%s %s", http.method, http.path_qs)
            self._store.rollback()
            return answers.refusal(answers.internal())

    async def _answer(self, identify: Identify, trusted: bool, http: web.BaseRequest) -> web.StreamResponse:
        _check_headers(http)
        path, method, query = http.path, http.method, http.query
        if path in PUBLIC and method == "GET" and path != "/version":
            return web.Response(text="ok")
        where = address(path, self.registry.kinds)
        public = path in PUBLIC
        user = ADMIN if public else identify(http)
        request = Request(http, user, where, verb_of(method, where, query), query, trusted)
        if not public:
            self.check(request)
        if where is not None:
            handler = self._handlers.get((where.resource.name, where.subresource))
            if handler is not None:
                return await handler(request)
            resources.allowed(where, request.verb)
            if where.subresource not in ("", "status", "scale"):
                raise _not_found()
            if where.resource.warning:
                request.warnings.append(where.resource.warning)
            if method == "GET":
                return await self._get(request)
            return await self._write(request)
        own = self._own.get((method, path)) if trusted else None
        if own is not None:
            given = await request.mapping() if method == "POST" else dict(query)
            answer = own(given)
            if isinstance(answer, AsyncIterator):
                return await self._stream(http, answer)
            return answers.json(await answer)
        found = None
        if method == "GET" and path in self._published:
            return answers.json(self._published[path]())
        if method == "GET":
            accepted = http.headers.get("Accept", "")
            found = self._discovery.document(path, accepted) or self._openapi.document(path, query, accepted)
        if found is None:
            raise _not_found()
        return answers.document(found, http.headers.get("If-None-Match", ""))

    async def _get(self, request: Request) -> web.StreamResponse:
        where, query, store = request.where, request.query, self._store
        assert where is not None
        form = self._form(request, where.resource)
        if request.verb == "watch":
            with self._watches.one(request.user.name):
                return await watch(request, Filter.of(where, query), form, store, self._watchers)
        if where.name:
            found = resources.read(self.registry, where)
            return answers.answer(form.one(found), warnings=request.warnings)
        objects, meta = resources.listed(store, Filter.of(where, query), query)
        return answers.answer(form.many(objects, meta), warnings=request.warnings)

    async def _write(self, request: Request) -> web.StreamResponse:
        where, query, method = request.where, request.query, request.method
        assert where is not None
        form = self._form(request, where.resource)
        body = await request.body()
        fields = Fields.of(self.registry, where, query, await request.http.read(), request.warnings)
        rehearsed = resources.rehearsed(query, body, method)
        look = self.granting(request)
        kind = request.http.headers.get("Content-Type", "").partition(";")[0]
        manager = resources.manager_of(query, request.http.headers.get("User-Agent", ""), method, kind)
        write = resources.Write(self.registry, where, manager, fields)
        code = 200
        with self._all_or_nothing():
            match method:
                case "POST":
                    found, code = write.create(mapping(body)), 201
                case "PUT":
                    found = write.replace(mapping(body))
                case "PATCH":
                    found, code = write.change(body, kind, force=truth(query, "force"))
                case "DELETE":
                    options = resources.DeleteOptions.of(query, mapping(body))
                    if where.name:
                        found = resources.delete(self.registry, self._store, where, options)
                    else:
                        found = resources.delete_all(
                            self.registry, self._store, Filter.of(where, query), options
                        )
                case _:
                    raise ApiError(405, "MethodNotAllowed", f"the server does not allow {method}")
            if look is not None:
                look(found)
            _check_depth(found)
        await self._finish(rehearsed=rehearsed)
        if found.get("kind") == where.resource.kind:
            return answers.answer(form.one(found), code, request.warnings)
        return answers.json(found, code, request.warnings)

    def _form(self, request: Request, resource: Resource) -> Form:
        """How the answer shows objects of `resource`."""
        encoded = self._store.encoded

        def converted(obj: Obj) -> bytes:
            return encoded(convert(obj, resource))

        plain = resource is self.registry.kinds.storage_of(resource) and not resource.custom
        accept = request.http.headers.get("Accept", "")
        return form_of(accept, resource, request.query, encoded if plain else converted, self._printer)

    def _printer(self, resource: Resource) -> Printer:
        """The columns of a resource's tables."""
        if not resource.custom:
            return printer_for(resource)
        columns = self.registry.definitions.version(resource).get("additionalPrinterColumns")
        return custom.printer(columns or ())

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
            raise _too_deep() from error

    async def _stream(
        self, http: web.BaseRequest, lines: AsyncIterator[Mapping[str, Any]]
    ) -> web.StreamResponse:
        """JSON lines, each sent when it is known; an error ends them as a Status line."""
        answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await answer.prepare(http)
        try:
            async with aclosing(lines):  # type: ignore[type-var]  # an async generator
                async for one in lines:
                    await answer.write(msgspec.json.encode(one) + b"\n")
        except NsK8sError as error:
            await answer.write(msgspec.json.encode(failure(error)) + b"\n")
        except ConnectionError:
            raise
        except Exception:  # the same, in the middle of an answer
            log.exception("%s %s", http.method, http.path_qs)
            self._store.rollback()
            await answer.write(msgspec.json.encode(failure(answers.internal())) + b"\n")
        return answer


def _administrator(_http: web.BaseRequest) -> User:
    return ADMIN


def _anything(_request: Request) -> None:
    """Everybody may do everything, and give it."""


def _check_depth(found: Obj) -> None:
    if too_deep(found):
        raise _too_deep()


def _too_deep() -> ApiError:
    return ApiError(400, "BadRequest", f"the object is nested deeper than {DEPTH_LIMIT} levels")


def _check_headers(http: web.BaseRequest) -> None:
    """Refuse headers that are no text: what they say comes back in messages, and stays in objects (the
    manager of fields). Raises `ApiError` 400."""
    for name, value in http.raw_headers:
        if not value.isascii():
            try:
                value.decode()
            except UnicodeDecodeError:
                what = f"the header {name.decode(errors='replace')} is not UTF-8"
                raise ApiError(400, "BadRequest", what) from None


def _not_found() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource")
