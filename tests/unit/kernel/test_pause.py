"""The pause program is a valid executable that ignores SIGCHLD, and can be told from others."""

from __future__ import annotations

import os
import platform
import select
import signal
import struct
from pathlib import Path

import pytest

from nsk8s.errors import HostError
from nsk8s.kernel import pause

MACHINES = {"x86_64": 62, "aarch64": 183}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_image_is_one_loadable_segment_of_the_machine(machine: str) -> None:
    image = pause.image(machine)
    assert image is not None
    assert image[:6] == b"\x7fELF\x02\x01"
    kind, number, _, entry, segments = struct.unpack_from("<HHIQQ", image, 16)
    assert (kind, number, segments) == (2, MACHINES[machine], 64)
    _, flags, offset, address, _, in_file, in_memory = struct.unpack_from("<IIQQQQQ", image, 64)
    assert (flags, offset, in_file, in_memory) == (5, 0, len(image), len(image))
    assert entry == address + 64 + 56


def test_the_address_of_the_action_is_right_on_aarch64() -> None:
    image = pause.image("aarch64")
    assert image is not None
    place = 64 + 56 + 2 * 4
    (adr,) = struct.unpack_from("<I", image, place)
    offset = (adr >> 5 & 0x7FFFF) << 2 | adr >> 29 & 3
    assert image[place + offset :] == struct.pack("<QQQQ", 1, 0, 0, 0)


def test_other_machines_have_no_image() -> None:
    assert pause.image("riscv64") is None


def test_it_runs_ignores_sigchld_and_shows_its_words(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    pause.install(program)
    pid = os.posix_spawn(program, pause.argv(program, "nsk8s:pause", "w1", ""), {})
    try:
        poll, ignored = select.poll(), 0
        for _ in range(1000):
            status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            ignored = int(status["SigIgn"].strip(), 16)
            if ignored & 1 << signal.SIGCHLD - 1:
                break
            poll.poll(2)
        assert ignored & 1 << signal.SIGCHLD - 1
        if platform.machine() in MACHINES:
            assert pause.words(Path(f"/proc/{pid}/cmdline").read_bytes()) == ["nsk8s:pause", "w1", ""]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_it_is_replaced_while_it_runs(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    pause.install(program)
    pid = os.posix_spawn(program, ["x"], {})
    try:
        pause.install(program)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_elsewhere_catatonit_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "pause"
    with pytest.raises(HostError, match="riscv64"):
        pause.install(program)
    catatonit = tmp_path / "catatonit"
    catatonit.write_text("")
    catatonit.chmod(0o755)
    pause.install(program)
    words = pause.argv(program, "nsk8s:pause", "w1", "tag")
    assert words[1:3] == ["-P", "--"]
    assert pause.words(b"".join(word.encode() + b"\0" for word in words)) == ["nsk8s:pause", "w1", "tag"]


def test_a_zombie_has_no_words() -> None:
    assert pause.words(b"") == []


def test_what_is_started_has_a_session_of_its_own_and_no_terminal(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    pause.install(program)
    pid = pause.start(os.fspath(program), pause.argv(program, "nsk8s:pause", "web"))
    try:
        assert os.getsid(pid) == pid
        assert not {"0", "1", "2"} & set(os.listdir(f"/proc/{pid}/fd"))
        words = Path(f"/proc/{pid}/cmdline")
        while not (raw := words.read_bytes()):
            os.sched_yield()  # in the middle of its execve(2)
        assert pause.words(raw) == ["nsk8s:pause", "web"]
        assert Path(f"/proc/{pid}/environ").read_bytes() == b""
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        pause.start(os.fspath(tmp_path / "nowhere"), ["nowhere"])
