"""Starting a program with nothing but its words."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from nsk8s.kernel.spawn import spawn


def test_a_program_leads_a_session_and_inherits_nothing() -> None:
    kept = os.open("/dev/null", os.O_RDONLY)
    pid = spawn("/bin/sleep", ["nothing", "60"])
    try:
        there = Path(f"/proc/{pid}")
        end = time.monotonic() + 10
        while not (there / "cmdline").read_bytes():  # executed, and about to be told its words
            assert time.monotonic() < end
        assert (there / "cmdline").read_bytes() == b"nothing\x0060\0"
        assert (there / "environ").read_bytes() == b""
        assert os.getsid(pid) == pid
        assert not {"0", "1", "2", str(kept)} & set(os.listdir(there / "fd"))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.close(kept)
        assert os.waitpid(pid, 0)[0] == pid


def test_what_cannot_be_started() -> None:
    with pytest.raises(FileNotFoundError, match="posix_spawn"):
        spawn("/no/such/program", ["program"])
