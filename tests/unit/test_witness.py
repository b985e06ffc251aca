"""The witness sees what a test leaves behind, and forgets what has gone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests import witness


def test_sees_a_process_until_it_has_ended() -> None:
    before = witness.snapshot()
    assert witness.left_behind(before, deadline=0) == []
    argv = ["sh", "-c", "echo up; read end"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has its command line from now on
        left = witness.left_behind(before, deadline=0)
        process.kill()
    assert left == [f"process {process.pid}: sh -c echo up; read end"]
    assert witness.left_behind(before) == []


def test_sees_a_clusters_files(state: Path) -> None:
    before = witness.snapshot()
    (state / "forgotten").mkdir(parents=True)
    assert witness.left_behind(before, deadline=0) == [f"file {state}/forgotten"]


def test_sees_a_namespace_kept_open_where_the_world_is_private() -> None:
    before = witness.snapshot()
    handle = os.open("/proc/self/ns/net", os.O_RDONLY)
    left = witness.left_behind(before, deadline=0)
    os.close(handle)
    private = os.environ.get(witness.PRIVATE) == "private"
    assert [line.partition(":")[0] for line in left] == (["open namespace net"] if private else [])
