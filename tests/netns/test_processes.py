"""Containers' processes, confined by the real bubblewrap in real namespaces."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsk8s.errors import KernelError
from nsk8s.kernel.mountpoints import Mount
from nsk8s.kernel.processes import CannotRun, Inside, Running, execute, forked, running, spawn
from tests.netns.sandboxes import sandbox

pytestmark = pytest.mark.netns

DEADLINE = 10.0


@pytest.fixture(scope="module")
def pod() -> Iterator[int]:
    with sandbox("web-1") as pid:
        yield pid


def ended(process: Running) -> int | None:
    assert select.select([process.monitor], [], [], DEADLINE)[0], f"{process.mark} still runs"
    code = process.exit_code()
    process.close()
    return code


def shell(pod: int, tmp_path: Path, script: str, place: Inside | None = None) -> tuple[int | None, str]:
    log = tmp_path / "logs" / "c.0.log"
    process = spawn(place or Inside(pod), ["sh", "-c", script], mark="uid/c/0", log=log)
    return ended(process), log.read_text()


@pytest.mark.parametrize("code", [0, 1, 42, 127])
def test_the_exit_code_is_the_programs(pod: int, tmp_path: Path, code: int) -> None:
    assert shell(pod, tmp_path, f"exit {code}") == (code, "")


def test_a_signal_is_128_and_its_number(pod: int, tmp_path: Path) -> None:
    process = spawn(Inside(pod), ["sleep", "1000"], mark="uid/c/0", log=tmp_path / "c.0.log")
    assert process.signal(signal.SIGKILL)
    assert ended(process) == 137


def test_a_program_that_traps_sigterm_ends_as_it_wants(pod: int, tmp_path: Path) -> None:
    log = tmp_path / "c.0.log"
    script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    process = spawn(Inside(pod), ["sh", "-c", script], mark="uid/c/0", log=log)
    watch = subprocess.Popen(
        ["tail", "-F", "-n", "+1", log], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with watch:
        assert watch.stdout is not None
        assert watch.stdout.readline() == b"ready\n"
        process.signal(signal.SIGTERM)
        assert ended(process) == 3
        watch.terminate()
    assert log.read_text() == "ready\nbye\n"


def test_what_cannot_be_run_is_said_before(pod: int, tmp_path: Path) -> None:
    for command, code in ((["no-such-program"], 127), (["/etc/passwd"], 126), (["./x"], 127)):
        with pytest.raises(CannotRun) as refused:
            spawn(Inside(pod), command, mark="uid/c/0", log=tmp_path / "c.0.log")
        assert refused.value.code == code
        assert command[0] in refused.value.message


def test_a_sandbox_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="uid/c/0"):
        spawn(Inside(2**22 + 1), ["true"], mark="uid/c/0", log=tmp_path / "c.0.log")


def test_env_workdir_and_files_are_the_pods(pod: int, tmp_path: Path) -> None:
    place = Inside(
        pod,
        env={"GREETING": "hello world\n$x", "PATH": "/usr/bin:/bin"},
        workdir="/usr/share",
        files={
            "/etc/hosts": "10.244.1.2 web-1\n",
            "/etc/hostname": "web-1\n",
            "/etc/resolv.conf": "nameserver 10.96.0.10\n",
        },
    )
    code, text = shell(
        pod,
        tmp_path,
        'pwd; echo "$GREETING"; hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf; '
        "env | wc -l; echo $$",
        place,
    )
    assert code == 0
    assert text.splitlines() == [
        "/usr/share",
        "hello world",
        "$x",
        "web-1",
        "web-1",
        "10.244.1.2 web-1",
        "nameserver 10.96.0.10",
        "5",  # GREETING (two lines), HOME, PATH, PWD
        "1",
    ]


def test_it_cannot_change_the_host(pod: int, tmp_path: Path) -> None:
    # Only opened for writing, never written: a hole must not cost the host anything.
    script = """
import os
import pty
for path in PATHS:
    try:
        os.close(os.open(path, os.O_WRONLY)); print("writable", path)
    except OSError: pass
for path in ("/", "/etc", "/usr", "/root", "/home", "/var/lib", "/sys", "/proc"):
    try:
        os.mkdir(path + "/new"); print("made", path)
    except OSError: pass
for path in ("/tmp/MINE", "/run/MINE", "/var/log/MINE", "/var/tmp/MINE", "/dev/shm/MINE"):
    os.mkdir(path)
for disk in ("/dev/kmsg", "/dev/mem", "/dev/sda", "/dev/vda"):
    if os.path.exists(disk): print("sees", disk)
try:
    os.mknod("/tmp/disk", 0o600 | 0o060000, os.makedev(254, 0)); print("made a device")
except OSError: pass
print("done")
"""
    with open("/proc/self/mounts") as mounts:
        writable = [line.split()[1] for line in mounts if line.split()[2] in ("cgroup", "cgroup2")]
    paths = [
        *("/etc/passwd", "/etc/resolv.conf", "/proc/sys/kernel/printk", "/proc/sys/vm/drop_caches"),
        *("/proc/sys/net/ipv4/ip_forward", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity"),
        *("/sys/kernel/mm/transparent_hugepage/enabled", "/proc/sys/kernel/core_pattern"),
        *(f"{path}/cgroup.procs" for path in writable),
    ]
    log = tmp_path / "c.0.log"
    mine = f"nsk8s-{uuid.uuid4().hex}"
    python = script.replace("PATHS", repr(paths)).replace("MINE", mine)
    process = spawn(Inside(pod), ["/usr/bin/python3", "-c", python], mark="uid/c/0", log=log)
    assert (ended(process), log.read_text()) == (0, "done\n")
    assert not any(Path(directory, mine).exists() for directory in ("/tmp", "/run", "/var/log", "/var/tmp"))


def test_it_has_dockers_capabilities_but_mknod(pod: int, tmp_path: Path) -> None:
    _, text = shell(
        pod, tmp_path, "grep -E 'Cap(Prm|Eff)' /proc/self/status; grep NoNewPrivs /proc/self/status"
    )
    expected = 0xA80425FB & ~(1 << 27)  # what `docker run` shows, without CAP_MKNOD
    assert [line.split()[1] for line in text.splitlines()] == [f"{expected:016x}", f"{expected:016x}", "1"]


def test_it_sees_neither_other_processes_nor_the_monitor(pod: int, tmp_path: Path) -> None:
    _, text = shell(pod, tmp_path, "echo /proc/[0-9]*")
    assert text == "/proc/1\n"


def test_its_sysfs_shows_the_pods_links(pod: int, tmp_path: Path) -> None:
    _, text = shell(pod, tmp_path, "ls /sys/class/net")
    assert text == "lo\n"


@pytest.mark.parametrize(
    ("mounted", "at"),
    [("", ""), ("/var/lib/nsk8s-test-volume", ""), ("/var/lib/nsk8s-test-volume", "/run/host")],
    ids=["alone", "beside a volume", "behind a volume"],
)
def test_sockets_of_the_host_are_out_of_reach(pod: int, tmp_path: Path, mounted: str, at: str) -> None:
    directory = Path("/var/lib/nsk8s-test-socket")  # outside the private directories
    directory.mkdir()
    try:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.bind(os.fspath(directory / "engine.sock"))
            engine.listen()
            script = f"import socket; socket.socket(socket.AF_UNIX).connect('{at}{directory}/engine.sock')"
            mounts = (Mount(mounted, os.fspath(tmp_path)),) if mounted else ()
            process = spawn(
                Inside(pod, mounts=mounts),
                ["/usr/bin/python3", "-c", script],
                mark="uid/c/0",
                log=tmp_path / "c.0.log",
            )
            assert ended(process) == 1
            assert "ConnectionRefusedError" in (tmp_path / "c.0.log").read_text()
    finally:
        (directory / "engine.sock").unlink(missing_ok=True)
        directory.rmdir()


def test_a_new_control_plane_finds_it_and_learns_its_exit_code(pod: int, tmp_path: Path) -> None:
    # Spawned by a process that ends at once, so it is nobody's child here.
    log = tmp_path / "c.0.log"
    starter = f"""
from pathlib import Path
from nsk8s.kernel.processes import Inside, spawn
from nsk8s.kernel.stdio import Input
command = ["sh", "-c", "read line; exit 5"]
spawn(Inside({pod}), command, mark="adopted/c/0", log=Path({str(log)!r}), stdin=Input.ENDLESS)
"""
    subprocess.run([sys.executable, "-c", starter], check=True, cwd=Path(__file__).parents[2])
    process = running()["adopted/c/0"]
    assert process.log == log
    assert not select.select([process.monitor], [], [], 0)[0]
    Path(f"/proc/{process.program_pid}/fd/0").write_text("\n")  # the line it reads
    assert ended(process) == 5
    assert "adopted/c/0" not in running()


def test_it_ends_with_its_sandbox(tmp_path: Path) -> None:
    with sandbox() as pid:
        process = spawn(Inside(pid), ["sleep", "1000"], mark="uid/c/0", log=tmp_path / "c.0.log")
    assert ended(process) == 137


@pytest.mark.parametrize("beside", [False, True])
def test_execute(pod: int, tmp_path: Path, beside: bool) -> None:
    script = "echo mine > /tmp/mine; echo up; exec sleep 1000"
    log = tmp_path / "c.0.log"
    process = spawn(Inside(pod), ["sh", "-c", script], mark="uid/c/0", log=log)
    while not log.read_text():
        assert not select.select([process.monitor], [], [], 0.01)[0]
    place = Inside(pod, container=process.program_pid if beside else 0, env={"WHO": "me"}, workdir="/usr")
    try:
        code, output = asyncio.run(
            execute(
                place, ["sh", "-c", "cat /tmp/mine; echo $WHO $(pwd) $(hostname); exit 9"], timeout=DEADLINE
            )
        )
        seen = output.decode().splitlines()
        assert (code, seen[-1]) == (9, "me /usr web-1")
        assert ("mine" in seen) is beside
        code, output = asyncio.run(execute(place, ["no-such-program"], timeout=DEADLINE))
        assert code == 127
        caps = asyncio.run(execute(place, ["grep", "CapEff", "/proc/self/status"], timeout=DEADLINE))[1]
        assert int(caps.split()[1], 16) == 0xA80425FB & ~(1 << 27)
        with pytest.raises(TimeoutError):
            asyncio.run(execute(place, ["sleep", "1000"], timeout=0.2))
    finally:
        process.signal(signal.SIGKILL)
        ended(process)


FOREGROUND = """
import os, sys
from nsk8s.kernel.processes import Inside, foreground
confined = sys.argv[2] == "pod"
container = int(sys.argv[3])
place = Inside(int(sys.argv[1]), container=container, confined=confined, workdir="/usr", env={"TERM": "dumb"})
sys.exit(foreground(place, sys.argv[4:]))
"""


def on_a_terminal(
    pod: int, kind: str, container: int, command: list[str], typed: bytes = b""
) -> tuple[int, str]:
    """Run `foreground` as the leader of a session with a terminal; type when it says "ready"."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.chdir(Path(__file__).parents[2])
            words = [sys.executable, "-c", FOREGROUND, str(pod), kind, str(container), *command]
            os.execv(sys.executable, words)
        finally:
            os._exit(99)
    shown = b""
    try:
        while select.select([terminal], [], [], DEADLINE)[0]:
            try:
                shown += os.read(terminal, 4096)
            except OSError:  # EIO: nobody has it open any more
                break
            if typed and b"ready" in shown:
                os.write(terminal, typed)
                typed = b""
        else:
            os.kill(pid, signal.SIGKILL)
            pytest.fail(f"still running: {shown!r}")
    finally:
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


@pytest.fixture(scope="module")
def container(pod: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    log = tmp_path_factory.mktemp("logs") / "c.0.log"
    process = spawn(Inside(pod), ["sleep", "1000"], mark="uid/c/0", log=log)
    yield process.program_pid
    process.signal(signal.SIGKILL)
    ended(process)


@pytest.mark.parametrize("kind", ["pod", "container", "node"])
def test_foreground_has_the_terminal(pod: int, container: int, kind: str) -> None:
    beside = container if kind == "container" else 0
    kind = "node" if kind == "node" else "pod"
    code, shown = on_a_terminal(
        pod, kind, beside, ["sh", "-c", "test -t 0 && hostname; pwd; ls /sys/class/net; exit 5"]
    )
    assert code == 5
    assert shown.split() == ["web-1", "/usr", "lo"]
    assert on_a_terminal(pod, kind, beside, ["no-such-program"])[0] == 127
    trap = "trap 'echo caught; exit 6' INT; echo ready; while :; do sleep 0.05; done"
    code, shown = on_a_terminal(pod, kind, beside, ["sh", "-c", trap], b"\x03")
    assert (code, "caught" in shown) == (6, True)
    code, _ = on_a_terminal(pod, kind, beside, ["sh", "-c", "echo ready; exec sleep 1000"], b"\x03")
    assert code == 130


# --- one that joins the processes of another ------------------------------------------------------------


PROGRAMS = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done"
"""Every program that a container sees, by its command line."""


@pytest.fixture
def target(pod: int, tmp_path: Path) -> Iterator[Running]:
    process = spawn(Inside(pod), ["sleep", "31415"], mark="uid/target/0", log=tmp_path / "target.0.log")
    yield process
    process.signal(signal.SIGKILL)
    ended(process)


def test_it_sees_the_targets_processes_and_its_own_files(pod: int, tmp_path: Path, target: Running) -> None:
    place = Inside(pod, target=target.program_pid)
    code, seen = shell(pod, tmp_path, f"touch /tmp/mine; ls /proc/1/root/tmp; {PROGRAMS}; exit 5", place)
    assert code == 5
    programs = [line.strip() for line in seen.splitlines()]
    assert "sleep 31415" in programs
    assert any(line.startswith("sh -c touch") for line in programs)
    assert not [line for line in programs if line.startswith(("bwrap", "/usr/bin/bwrap")) or "pause" in line]
    assert "mine" not in programs, "the target has files of its own"
    assert target.signal(0), "and outlives it"


def test_the_program_is_found_while_the_one_between_still_lives() -> None:
    between = "sleep 31416 & echo $!; wait"
    with subprocess.Popen(
        ["sh", "-c", f"sh -c '{between}'; true"], stdout=subprocess.PIPE, text=True
    ) as monitor:
        assert monitor.stdout is not None
        program = int(monitor.stdout.readline())
        assert (
            forked(monitor.pid, f'{{ "child-pid": {program} }}\n{{ "exit-code": 0 }}\n'.encode()) == program
        )
        assert forked(monitor.pid, b"") == 0, "it has said nothing"
        os.kill(program, signal.SIGKILL)


def test_the_target_sees_it_too_and_takes_it_along(pod: int, tmp_path: Path, target: Running) -> None:
    place = Inside(pod, target=target.program_pid)
    process = spawn(place, ["sleep", "27182"], mark="uid/joined/0", log=tmp_path / "joined.0.log")
    code, seen = asyncio.run(
        execute(Inside(pod, container=target.program_pid), ["sh", "-c", PROGRAMS], timeout=DEADLINE)
    )
    assert code == 0
    assert b"sleep 27182" in seen
    again = running()["uid/joined/0"]
    assert (again.pid, again.program_pid) == (process.pid, process.program_pid)
    again.close()
    target.signal(signal.SIGKILL)
    assert ended(process) == 137


def test_one_that_has_joined_ends_by_a_signal(pod: int, tmp_path: Path, target: Running) -> None:
    place = Inside(pod, target=target.program_pid)
    process = spawn(place, ["sleep", "27182"], mark="uid/joined/0", log=tmp_path / "joined.0.log")
    process.signal(signal.SIGTERM)
    assert ended(process) == 143, "it is no PID 1, so it need not handle the signal"
    assert target.signal(0)


def test_nobody_joins_a_target_that_is_gone(pod: int, tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    with pytest.raises(KernelError):
        spawn(Inside(pod, target=gone.pid), ["true"], mark="uid/joined/0", log=tmp_path / "joined.0.log")
