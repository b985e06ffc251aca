from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from nsk8s.errors import ClusterGone
from nsk8s.observe.logs import CHUNK, follow, tail

DEADLINE = 10.0


@pytest.mark.parametrize("end", [b"\n", b""])
@pytest.mark.parametrize(
    ("lines", "first"), [(0, 500), (1, 499), (3, 497), (499, 1), (500, 0), (999, 0), (None, 0)]
)
@pytest.mark.parametrize("width", [1, CHUNK // 100])
def test_the_last_lines(tmp_path: Path, lines: int | None, first: int, width: int, end: bytes) -> None:
    log = tmp_path / "c.0.log"
    written = [f"{n} ".encode() + b"x" * width for n in range(500)]
    log.write_bytes(b"\n".join(written) + end)
    assert b"".join(tail(log, lines)) == (b"\n".join(written[first:]) + end if first < 500 else b"")


def test_a_container_that_wrote_nothing(tmp_path: Path) -> None:
    assert list(tail(tmp_path / "c.0.log", None)) == []


def followed(log: Path, lines: int | None = None) -> tuple[threading.Thread, list[bytes], threading.Event]:
    pieces: list[bytes] = []
    some = threading.Event()

    def run() -> None:
        for piece in follow(log, lines):
            pieces.append(piece)
            some.set()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, pieces, some


@pytest.mark.parametrize("lines", [None, 0, 5])
def test_following_before_there_is_anything_shows_all_of_it(tmp_path: Path, lines: int | None) -> None:
    log = tmp_path / "uid" / "c.0.log"
    thread, pieces, _ = followed(log, lines)
    end = time.monotonic() + DEADLINE
    while not log.parent.is_dir():  # the follower makes it, to have something to watch
        assert time.monotonic() < end
        time.sleep(0.01)
    log.write_bytes(b"first\n")
    log.with_suffix(".status").write_text('{ "exit-code": 0 }\n')
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert b"".join(pieces) == b"first\n"


def test_following_ends_with_the_container(tmp_path: Path) -> None:
    log = tmp_path / "c.0.log"
    log.write_bytes(b"one\n")
    (tmp_path / "c.0.status").write_text('{ "child-pid": 7 }\n')
    thread, pieces, some = followed(log)
    assert some.wait(DEADLINE)
    with open(log, "ab") as file:
        file.write(b"two\n")
    with open(tmp_path / "c.0.status", "a") as file:
        file.write('{ "exit-code": 0 }\n')
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert b"".join(pieces) == b"one\ntwo\n"


def test_following_ends_with_the_next_attempt(tmp_path: Path) -> None:
    log = tmp_path / "my.name.0.log"
    thread, pieces, _ = followed(log)
    log.write_bytes(b"late\n")
    (tmp_path / "my.name.1.log").touch()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert b"".join(pieces) == b"late\n"


def test_following_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ClusterGone, match="no-such"):
        list(follow(tmp_path / "no-such" / "uid" / "c.0.log", None))
