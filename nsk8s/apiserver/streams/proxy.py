"""``pods/X/proxy`` and ``services/X/proxy``: an HTTP request passed on to a pod, from where the API server
stands.

``X`` is ``name``, ``name:port``, ``scheme:name:`` or ``scheme:name:port``; a service's port by its number
or name. Source: k8s.io/kubernetes/pkg/registry/core/{pod,service}, k8s.io/apimachinery/pkg/util/proxy.
"""

from __future__ import annotations

import os
import random
import re
import socket
from collections.abc import Callable

import aiohttp
from aiohttp import web
from yarl import URL

from nsk8s.api.types import EndpointSlice, Obj
from nsk8s.apiserver.connections import Quota
from nsk8s.apiserver.request import Request
from nsk8s.apiserver.streams.passing import CONNECT_TIMEOUT, HOP_BY_HOP, Location, pass_through, wants_upgrade
from nsk8s.cluster.store import Store, key_of
from nsk8s.errors import ApiError

PIECE = 64 * 1024
SLICES = "endpointslices.discovery.k8s.io"
SERVICE_NAME = "kubernetes.io/service-name"

OURS = HOP_BY_HOP | {"host", "authorization"}
"""Headers that a pod shall not see: they are addressed to the API server."""

_TAIL = re.compile(r"/(?:pods|services)/[^/]+/proxy(/.*)?$")


class Proxy:
    """The handlers. `open_socket` makes a socket of a family that stands where the API server does; it
    raises OSError. `sessions` limits the connections that are passed through. Each raises `ApiError`."""

    def __init__(self, store: Store, open_socket: Callable[[int], socket.socket], sessions: Quota) -> None:
        self._store = store
        self._sessions = sessions
        self._open_socket = open_socket

    async def pod(self, request: Request) -> web.StreamResponse:
        """``pods/X/proxy``."""
        assert request.where is not None
        scheme, name, port = _split(request.where.name, "pod")
        pod = self._store.find("pods", request.where.namespace or "", name)
        address = (pod.get("status") or {}).get("podIP")
        if not address:
            raise ApiError(400, "BadRequest", "address not allowed")
        return await self._forward(request, Location(scheme, address, _number(port) or _first_port(pod)))

    async def service(self, request: Request) -> web.StreamResponse:
        """``services/X/proxy``."""
        assert request.where is not None
        scheme, name, port = _split(request.where.name, "service")
        namespace = request.where.namespace or ""
        service = self._store.find("services", namespace, name)
        ports = (service.get("spec") or {}).get("ports") or ()
        if _number(port):
            names = [one.get("name") or "" for one in ports if one.get("port") == _number(port)]
            if not names:
                raise _unavailable(f'no service port {port} found for service "{name}"')
            port = names[0]
        found = [
            Location(scheme, endpoint.addresses[0], known.port)
            for obj in self._store.select(SLICES, namespace, {SERVICE_NAME: name})
            if isinstance(part := self._store.view(key_of(SLICES, obj)), EndpointSlice)
            for known in part.ports or ()
            if (known.name or "") == port and known.port
            for endpoint in part.endpoints or ()
            if endpoint.conditions.ready and endpoint.addresses
        ]
        if not found:
            raise _unavailable(f'no endpoints available for service "{request.where.name}"')
        return await self._forward(request, random.choice(found))

    async def _forward(self, request: Request, to: Location) -> web.StreamResponse:
        http = request.http
        match = _TAIL.search(http.rel_url.raw_path)
        tail = match[1] if match else None
        query = f"?{http.rel_url.raw_query_string}" if http.rel_url.raw_query_string else ""
        if wants_upgrade(request):
            return await self._pass_through(request, to, f"{tail or '/'}{query}")
        if not tail:
            if http.method in ("GET", "HEAD"):  # so that relative links on the page are right
                return web.Response(status=301, headers={"Location": f"{http.rel_url.raw_path}/{query}"})
            tail = "/"
        host = f"[{to.address}]" if ":" in to.address else to.address
        url = URL(f"{to.scheme}://{host}:{to.port}{tail}{query}", encoded=True)
        headers = [(name, value) for name, value in http.headers.items() if name.lower() not in OURS]
        connector = aiohttp.TCPConnector(
            force_close=True, socket_factory=lambda info: self._open_socket(info[0])
        )
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector,
                    auto_decompress=False,
                    skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
                ) as client,
                client.request(
                    http.method,
                    url,
                    headers=headers,
                    data=http.content if http.can_read_body else None,
                    allow_redirects=False,
                    ssl=False,
                ) as found,
            ):
                return await _passed_on(found, http)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unavailable(f"error trying to reach service: {_words(error, to)}") from error

    async def _pass_through(self, request: Request, to: Location, target: str) -> web.StreamResponse:
        kept = [
            (name, value) for name, value in request.http.headers.items() if name.lower() != "authorization"
        ]
        with self._sessions.one(request.user.name):
            try:
                opened = self._open_socket(socket.AF_INET6 if ":" in to.address else socket.AF_INET)
            except OSError as error:
                raise ApiError(500, "", f"dial tcp {to.address}:{to.port}: {error.strerror}") from error
            return await pass_through(request, to, target, kept, opened)


async def _passed_on(found: aiohttp.ClientResponse, http: web.BaseRequest) -> web.StreamResponse:
    """The pod's answer as ours. Raises ConnectionError once it has begun."""
    answer = web.StreamResponse(status=found.status, reason=found.reason)
    for name, value in found.headers.items():
        if name.lower() not in HOP_BY_HOP:
            answer.headers.add(name, value)
    await answer.prepare(http)
    try:
        async for piece in found.content.iter_chunked(PIECE):
            await answer.write(piece)
    except aiohttp.ClientError as error:
        raise ConnectionResetError(str(error)) from error
    return answer


def _split(name: str, kind: str) -> tuple[str, str, str]:
    """Scheme, name and port (utilnet.SplitSchemeNamePort)."""
    match name.split(":"):
        case [only]:
            return "http", only, ""
        case [only, port]:
            return "http", only, port
        case [scheme, only, port] if scheme in ("http", "https", ""):
            return scheme or "http", only, port
    raise ApiError(400, "BadRequest", f'invalid {kind} request "{name}"')


def _number(port: str) -> int:
    """A port by its number; 0 for anything else."""
    return int(port) if port.isascii() and port.isdecimal() and len(port) < 6 else 0


def _first_port(pod: Obj) -> int:
    """The first port that a container declares; 80 where none does."""
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or ():
            return int(port["containerPort"])
    return 80


def _unavailable(message: str) -> ApiError:
    return ApiError(503, "ServiceUnavailable", message)


def _words(error: Exception, to: Location) -> str:
    """As Go says it."""
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        why = os.strerror(number).lower() if number else str(error)
        return f"dial tcp {to.address}:{to.port}: connect: {why}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "EOF"
    if isinstance(error, TimeoutError):
        return f"dial tcp {to.address}:{to.port}: i/o timeout"
    return str(error)
