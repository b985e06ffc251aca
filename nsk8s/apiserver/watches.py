"""A watch request: initial events, then what changes, until the client or its timeout ends it."""

from __future__ import annotations

import asyncio

from aiohttp import web

from nsk8s.apiserver import resources
from nsk8s.apiserver.addressing import Filter, number, truth
from nsk8s.apiserver.forms import Form
from nsk8s.apiserver.request import JSON, Request
from nsk8s.apiserver.status import failure
from nsk8s.apiserver.watching import Watcher, Watchers, bookmark, events, line
from nsk8s.cluster.store import Store
from nsk8s.errors import ApiError

BOOKMARK_INTERVAL = 60.0
"""Seconds of silence after which a watch that allows bookmarks gets one."""


async def watch(
    request: Request, about: Filter, form: Form, store: Store, watchers: Watchers
) -> web.StreamResponse:
    """Serve a watch, from a revision on or (without one) from what there is now; with
    ``sendInitialEvents`` as a streaming list (KEP-3157)."""
    query, http = request.query, request.http
    seconds = number(query, "timeoutSeconds", 0)
    marks = truth(query, "allowWatchBookmarks")
    streaming = _streaming(request)
    since = number(query, "resourceVersion")
    if since > store.revision:
        raise resources.too_large(since, store)

    def drop() -> None:
        if http.transport is not None:
            http.transport.abort()

    watcher = Watcher(about, form, drop)
    answer = web.StreamResponse(headers={"Content-Type": JSON})
    if streaming if "sendInitialEvents" in query else since == 0:
        begin = [form.event("ADDED", obj) for obj in resources.selected(store, about)]
    else:
        try:
            begin = [form.event(*event) for event in events(about, store.since(since))] if since else []
        except ApiError as error:
            await answer.prepare(http)
            await answer.write(line("ERROR", failure(error)))
            return answer
    headed = bool(begin)
    if begin:
        begin[0] = form.head(begin[0])
    if streaming:
        begin.append(bookmark(form, store.revision, initial_end=True))
    with watchers.following(watcher):
        await answer.prepare(http)
        await answer.write(b"".join(begin))
        try:
            async with asyncio.timeout(seconds or None):
                while True:
                    try:
                        async with asyncio.timeout(BOOKMARK_INTERVAL if marks else None):
                            lines = await watcher.told()
                    except TimeoutError:
                        await answer.write(bookmark(form, store.revision))
                        continue
                    if not headed:
                        lines[0], headed = form.head(lines[0]), True
                    await answer.write(b"".join(lines))
        except TimeoutError:
            if marks:
                await answer.write(bookmark(form, store.revision))
    return answer


def _streaming(request: Request) -> bool:
    """Whether a streaming list is asked for. Raises `ApiError` 422 for parameters that contradict each other
    (ValidateListOptions)."""
    query = request.query
    match = query.get("resourceVersionMatch", "")
    if "sendInitialEvents" not in query:
        if match:
            raise _invalid("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
        return False
    if match != "NotOlderThan":
        raise _invalid("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
    return truth(query, "sendInitialEvents")


def _invalid(what: str) -> ApiError:
    return ApiError(
        422, "Invalid", f'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: {what}'
    )
