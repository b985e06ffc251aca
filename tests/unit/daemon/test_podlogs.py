from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsk8s.apiserver.streams.access import LogOptions
from nsk8s.daemon.podlogs import CHUNK, MOMENTS, Moments, PodLogs, tail

DEADLINE = 10.0


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, DEADLINE))


def append(log: Path, text: bytes) -> None:
    with open(log, "ab") as file:
        file.write(text)


async def whole(logs: PodLogs, log: Path, options: LogOptions, over: asyncio.Event | None = None) -> bytes:
    ended = over or asyncio.Event()
    return b"".join([piece async for piece in logs.read(log, options, ended)])


@pytest.mark.parametrize("end", [b"\n", b""])
@pytest.mark.parametrize(
    ("lines", "first"), [(0, 500), (1, 499), (3, 497), (499, 1), (500, 0), (999, 0), (None, 0)]
)
@pytest.mark.parametrize("width", [1, CHUNK // 100])
def test_the_last_lines(tmp_path: Path, lines: int | None, first: int, width: int, end: bytes) -> None:
    log = tmp_path / "c.0.log"
    written = [f"{n} ".encode() + b"x" * width for n in range(500)]
    text = b"\n".join(written) + end
    log.write_bytes(text)
    with open(log, "rb") as file:
        begin = tail(file.fileno(), lines)
    assert text[begin:] == (b"\n".join(written[first:]) + end if first < 500 else b"")


@given(st.lists(st.integers(1, 50), min_size=1, max_size=3 * MOMENTS))
def test_moments_are_bounded_and_in_order(steps: list[int]) -> None:
    moments, size = Moments(), 0
    for number, step in enumerate(steps):
        size += step
        moments.seen(size, float(number))
    assert len(moments.sizes) <= MOMENTS
    assert moments.sizes == sorted(moments.sizes)
    assert moments.when(size) is None
    assert moments.when(size - 1) == len(steps) - 1
    assert moments.since(len(steps)) == size


@pytest.mark.parametrize(("lines", "told"), [(0, b""), (1, b"3\n"), (2, b"2\n3\n"), (9, b"1\n2\n3\n4\n5\n")])
def test_what_comes_while_the_last_lines_are_read_is_not_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int, told: bytes
) -> None:
    log = tmp_path / "logs" / "uid" / "c.0.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"1\n2\n3\n")

    def meanwhile(fd: int, wanted: int | None) -> int:
        begin = tail(fd, wanted)
        append(log, b"4\n5\n")
        return begin

    async def work() -> None:
        logs = PodLogs(tmp_path / "logs")
        monkeypatch.setattr("nsk8s.daemon.podlogs.tail", meanwhile)
        assert await whole(logs, log, LogOptions(lines=lines)) == told
        logs.close()

    run(work())


def test_a_container_that_wrote_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        logs = PodLogs(tmp_path / "logs")
        assert await whole(logs, tmp_path / "logs" / "uid" / "c.0.log", LogOptions(lines=3)) == b""
        logs.close()

    run(work())


def test_following_shows_what_comes_until_it_is_over(tmp_path: Path) -> None:
    async def work() -> None:
        logs, over = PodLogs(tmp_path / "logs"), asyncio.Event()
        log = tmp_path / "logs" / "uid" / "c.0.log"
        pieces = logs.read(log, LogOptions(follow=True), over)
        async with aclosing(pieces):  # type: ignore[type-var]  # an async generator
            log.parent.mkdir()
            for text in (b"first\n", b"second\n"):
                append(log, text)
                assert await anext(pieces) == text
            append(log, b"last\n")
            over.set()
            assert [piece async for piece in pieces] == [b"last\n"]
        logs.close()

    run(work())


def test_a_line_s_time_is_when_it_was_seen(tmp_path: Path) -> None:
    async def work() -> None:
        directory = tmp_path / "logs"
        log = directory / "uid" / "c.0.log"
        log.parent.mkdir(parents=True)
        log.write_text("old\n")
        os.utime(log, (1e9, 1e9))  # while no control plane was there
        logs, over = PodLogs(directory), asyncio.Event()
        before = time.time()
        told = logs.read(log, LogOptions(follow=True, timestamps=True), over)
        assert await anext(told) == b"2001-09-09T01:46:40.000000000Z old\n"
        append(log, b"new\nnew")
        line = (await anext(told)).decode()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z new\n", line)
        over.set()
        assert (await anext(told)).endswith(b"Z new")
        assert await whole(logs, log, LogOptions(since=before - 1)) == b"new\nnew"
        assert await whole(logs, log, LogOptions(seconds=3600)) == b"new\nnew"
        assert await whole(logs, log, LogOptions(since=1.0)) == b"old\nnew\nnew"
        assert await whole(logs, log, LogOptions(limit=5)) == b"old\nn"
        assert await whole(logs, log, LogOptions(since=before + 3600)) == b""
        logs.close()

    run(work())
