"""Learns objects from the control plane: list, then watch, over its unix socket, for ever.

What is known stays known while the control plane is away; when it is back everything is listed anew.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

import h11
import msgspec

T = TypeVar("T")

FIRST_PAUSE = 0.02
LAST_PAUSE = 0.5
"""Seconds between two attempts to reach a control plane that does not answer, doubling from first to last."""
CHUNK = 1 << 16


class _Meta(msgspec.Struct):
    resourceVersion: str = ""


class _Listing(msgspec.Struct, Generic[T]):
    metadata: _Meta
    items: list[T]


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class Taker(msgspec.Struct, Generic[T], frozen=True):
    """What to do with the objects of `kind` at `url`: `listed` gets all that there are, `put` one that is new
    or changed, `drop` one that is gone."""

    kind: type[T]
    url: str
    listed: Callable[[Iterable[T]], None]
    put: Callable[[T], None]
    drop: Callable[[T], None]


class Gone(Exception):
    """The control plane has ended the watch, or does not answer as it should."""


async def follow(socket: Path, taker: Taker[T], synced: asyncio.Event, again: asyncio.Event) -> None:
    """Keep `taker` informed, for ever; `synced` is set when it has first been told all. `again` ends a pause
    between two attempts."""
    pause = FIRST_PAUSE
    while True:
        try:
            revision = await _list(socket, taker)
            synced.set()
            pause = FIRST_PAUSE
            await _watch(socket, taker, revision)
        except (OSError, EOFError, Gone, h11.ProtocolError, msgspec.MsgspecError):
            again.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await again.wait()
            pause = min(2 * pause, LAST_PAUSE)


async def _list(socket: Path, taker: Taker[T]) -> str:
    body = bytearray()
    async for data in _get(socket, taker.url):
        body += data
    listing = msgspec.json.decode(body, type=_Listing[taker.kind])  # type: ignore[name-defined]
    taker.listed(listing.items)
    revision: str = listing.metadata.resourceVersion
    return revision


async def _watch(socket: Path, taker: Taker[T], revision: str) -> None:
    joint = "&" if "?" in taker.url else "?"
    line = bytearray()
    events = msgspec.json.Decoder(_Event)
    objects = msgspec.json.Decoder(taker.kind)
    async for data in _get(socket, f"{taker.url}{joint}watch=true&resourceVersion={revision}"):
        line += data
        *whole, rest = line.split(b"\n")
        line = bytearray(rest)
        for text in whole:
            event = events.decode(text)
            if event.type in ("ADDED", "MODIFIED"):
                taker.put(objects.decode(event.object))
            elif event.type == "DELETED":
                taker.drop(objects.decode(event.object))
            elif event.type == "ERROR":
                raise Gone
    raise Gone


async def _get(socket: Path, target: str) -> AsyncIterator[bytes]:
    """The body of a successful answer to GET, as it comes."""
    reader, writer = await asyncio.open_unix_connection(os.fspath(socket))
    try:
        http = h11.Connection(h11.CLIENT)
        headers = [("Host", "localhost"), ("User-Agent", "nsk8s-dns"), ("Accept", "application/json")]
        writer.write(http.send(h11.Request(method="GET", target=target, headers=headers)) or b"")
        writer.write(http.send(h11.EndOfMessage()) or b"")
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await reader.read(CHUNK))
            elif isinstance(event, h11.Response) and event.status_code != 200:
                raise Gone
            elif isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                return
    finally:
        writer.close()
