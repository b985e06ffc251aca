"""The subresources of pods and services through which something flows, as the API server's handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from functools import partial

from aiohttp import web

from nsk8s.apiserver.addressing import number, truth
from nsk8s.apiserver.connections import Quota
from nsk8s.apiserver.request import Request
from nsk8s.apiserver.server import ApiServer
from nsk8s.apiserver.streams import portforward, session
from nsk8s.apiserver.streams.access import LogOptions, NotRunning, PodAccess
from nsk8s.apiserver.streams.proxy import Proxy
from nsk8s.apiserver.streams.session import Options
from nsk8s.cluster.store import Store
from nsk8s.errors import ApiError

SESSION_LIMIT = 256
"""Sessions that one user may have at a time."""

Handler = Callable[[Request], Awaitable[web.StreamResponse]]


def install(server: ApiServer, store: Store, access: PodAccess) -> None:
    """Have the server serve them."""
    sessions = Quota("sessions", SESSION_LIMIT)
    proxy = Proxy(store, access.open_socket, sessions)
    server.handle("pods", "proxy", proxy.pod)
    server.handle("services", "proxy", proxy.service)
    streams = Streams(access, sessions)
    server.handle("pods", "exec", _upgrading(streams.exec))
    server.handle("pods", "attach", _upgrading(streams.attach))
    server.handle("pods", "portforward", _upgrading(streams.portforward))
    server.handle("pods", "log", streams.log)


class Streams:
    """The handlers. Each raises `ApiError`."""

    def __init__(self, access: PodAccess, sessions: Quota) -> None:
        self._access = access
        self._sessions = sessions

    async def exec(self, request: Request) -> web.StreamResponse:
        """``pods/X/exec``."""
        namespace, pod = _pod(request)
        options = Options.of(request)
        command = request.http.query.getall("command", [])
        if not command:
            raise ApiError(400, "BadRequest", "you must specify at least one command for the container")
        start = self._access.exec(
            namespace, pod, options.container, command, stdin=options.stdin, tty=options.tty
        )
        with self._sessions.one(request.user.name):
            return await session.serve(request, options, start, f"[{' '.join(command)}]")

    async def attach(self, request: Request) -> web.StreamResponse:
        """``pods/X/attach``."""
        namespace, pod = _pod(request)
        options = Options.of(request)
        start = self._access.attach(namespace, pod, options.container, stdin=options.stdin, tty=options.tty)
        with self._sessions.one(request.user.name):
            return await session.serve(request, options, start, "[]")

    async def portforward(self, request: Request) -> web.StreamResponse:
        """``pods/X/portforward``."""
        namespace, pod = _pod(request)
        self._access.forwards(namespace, pod)
        with self._sessions.one(request.user.name):
            return await portforward.serve(request, partial(self._access.dial, namespace, pod))

    async def log(self, request: Request) -> web.StreamResponse:
        """``pods/X/log``."""
        if request.method != "GET":
            raise ApiError(
                405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
            )
        namespace, pod = _pod(request)
        pieces = self._access.logs(namespace, pod, log_options(request))
        with self._sessions.one(request.user.name):
            async with aclosing(pieces):  # type: ignore[type-var]  # an async generator
                answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
                await answer.prepare(request.http)
                async for piece in pieces:
                    await answer.write(piece)
        return answer


def log_options(request: Request) -> LogOptions:
    """core/v1.PodLogOptions of a query. Raises `ApiError` 400."""
    query = request.query
    since = query.get("sinceTime", "")
    seconds = query.get("sinceSeconds", "")
    if since and seconds:
        raise _invalid("at most one of `sinceTime` or `sinceSeconds` may be specified", "Forbidden")
    if seconds and number(query, "sinceSeconds") < 1:
        raise _invalid(f"sinceSeconds: Invalid value: {seconds}: must be greater than 0")
    if "limitBytes" in query and number(query, "limitBytes") < 1:
        raise _invalid(f"limitBytes: Invalid value: {query['limitBytes']}: must be greater than 0")
    return LogOptions(
        container=query.get("container", ""),
        follow=truth(query, "follow"),
        previous=truth(query, "previous"),
        timestamps=truth(query, "timestamps"),
        lines=number(query, "tailLines") if query.get("tailLines") else None,
        limit=number(query, "limitBytes") if query.get("limitBytes") else None,
        since=_moment(since) if since else 0.0,
        seconds=number(query, "sinceSeconds"),
    )


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError as error:
        raise ApiError(400, "BadRequest", f"sinceTime: {text!r} is not a time of RFC 3339") from error


def _pod(request: Request) -> tuple[str, str]:
    where = request.where
    assert where is not None
    return where.namespace or "", where.name


def _upgrading(handler: Handler) -> Handler:
    """`handler`, with what a kubelet says not as a Status: clients then say that they are unable to upgrade
    the connection, and why."""

    async def handle(request: Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except NotRunning as error:
            return web.Response(status=error.code, text=error.message)

    return handle


def _invalid(what: str, reason: str = "Invalid") -> ApiError:
    return ApiError(422, reason, f'PodLogOptions "" is invalid: {what}')
