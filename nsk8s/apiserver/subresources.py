"""The subresources that are more than a part of an object: evictions, bindings, ephemeral containers, resizes
of pods, and the finalizers of namespaces. HTTP here, meaning in `cluster`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from nsk8s.api.types import Obj
from nsk8s.apiserver import answers, resources
from nsk8s.apiserver.request import Request, mapping
from nsk8s.cluster import podparts
from nsk8s.cluster.eviction import evict
from nsk8s.cluster.registry import Registry
from nsk8s.errors import ApiError


class Server(Protocol):
    """What is needed of the API server."""

    registry: Registry

    def handle(
        self, resource: str, subresource: str, handler: Callable[[Request], Awaitable[web.StreamResponse]]
    ) -> None:
        """Serve a subresource."""

    async def perform(self, act: Callable[[], Obj], *, rehearsed: bool) -> Obj:
        """Do a write, all of it or nothing."""


def register(server: Server) -> None:
    """Have `server` serve the subresources of this module."""
    parts = _Subresources(server)
    server.handle("pods", "eviction", parts.eviction)
    server.handle("pods", "binding", parts.binding)
    server.handle("bindings", "", parts.binding)
    server.handle("pods", "ephemeralcontainers", parts.ephemeral_containers)
    server.handle("pods", "resize", parts.resize)
    server.handle("namespaces", "finalize", parts.finalize)


class _Subresources:
    def __init__(self, server: Server) -> None:
        self._server = server

    async def eviction(self, request: Request) -> web.StreamResponse:
        namespace, name, body = await self._given(request)
        given = body.get("deleteOptions")
        options = resources.DeleteOptions.of({}, given if isinstance(given, dict) else {})

        def act() -> Obj:
            registry = self._server.registry
            where = request.where
            assert where is not None
            options.check(registry.store.find("pods", namespace, name), where)
            evict(registry, namespace, name, grace=options.grace)
            return _SUCCESS

        rehearsed = resources.rehearsed(request.query, given, "DELETE")
        return answers.json(await self._server.perform(act, rehearsed=rehearsed), 201)

    async def binding(self, request: Request) -> web.StreamResponse:
        namespace, name, body = await self._given(request)

        def act() -> Obj:
            podparts.bind(self._server.registry, namespace, name, body)
            return _SUCCESS

        return answers.json(await self._server.perform(act, rehearsed=_rehearsed(request)), 201)

    async def ephemeral_containers(self, request: Request) -> web.StreamResponse:
        return await self._part(request, podparts.add_containers)

    async def resize(self, request: Request) -> web.StreamResponse:
        return await self._part(request, podparts.resize)

    async def finalize(self, request: Request) -> web.StreamResponse:
        _, name, body = await self._given(request)
        spec = body.get("spec")
        finalizers = (spec.get("finalizers") if isinstance(spec, dict) else None) or []
        if not isinstance(finalizers, list) or not all(isinstance(f, str) for f in finalizers):
            raise ApiError(400, "BadRequest", "spec.finalizers: a list of names")

        def act() -> Obj:
            return self._server.registry.finalize(name, finalizers)

        return answers.json(await self._server.perform(act, rehearsed=_rehearsed(request)))

    async def _part(self, request: Request, change: Callable[[Registry, Obj], Obj]) -> web.StreamResponse:
        """A part of a pod, read and written as the whole pod."""
        where, registry = request.where, self._server.registry
        assert where is not None
        resources.allowed(where, request.verb)
        namespace, name = where.namespace or "", where.name
        pod = registry.store.find("pods", namespace, name)
        if request.method == "GET":
            return answers.json(pod)
        body = await request.body()

        def act() -> Obj:
            if request.method == "PATCH":
                kind = request.http.content_type
                new = podparts.patched(registry.store.find("pods", namespace, name), body, kind)
            else:
                new = mapping(body)
            meta = new.get("metadata")
            if not isinstance(meta, dict) or meta.get("name", name) != name:
                raise _misnamed()
            return change(registry, {**new, "metadata": {**meta, "namespace": namespace, "name": name}})

        return answers.json(await self._server.perform(act, rehearsed=_rehearsed(request)))

    async def _given(self, request: Request) -> tuple[str, str, Obj]:
        """Namespace, name and body of a request; the name may stand in the body only."""
        where = request.where
        assert where is not None
        resources.allowed(where, request.verb)
        body = await request.mapping()
        meta = body.get("metadata") or {}
        said = meta.get("name") if isinstance(meta, dict) else None
        name = where.name or said
        if not isinstance(name, str) or not name or (said and said != name):
            raise _misnamed()
        return where.namespace or "", name, body


_SUCCESS: Obj = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def _rehearsed(request: Request) -> bool:
    return resources.rehearsed(request.query, {}, request.method)


def _misnamed() -> ApiError:
    return ApiError(400, "BadRequest", "the name of the provided object does not match the name on the URL")
