"""Programs inside the cluster: containers (`spawn`), and what somebody runs beside them (`foreground`,
`execute`).

A container is two processes: bubblewrap's monitor, which waits and writes down the exit code, and the
program itself, PID 1 of its own PID namespace within the pod's, or one more process in another container's.
Neither is tied to the one who started them: a new control plane finds the monitors by their environment
(`running`) and goes on.

``exit codes`` are a shell's: 126 not executable, 127 not found, 128+n ended by signal n.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct, field

from nsk8s.errors import ClusterGone, HostError, KernelError, NsK8sError
from nsk8s.kernel import keeper, namespaces
from nsk8s.kernel.confinement import LEADING, SETPRIV, bubblewrap
from nsk8s.kernel.keeper import Keeper
from nsk8s.kernel.mountpoints import Mount, bound
from nsk8s.kernel.namespaces import CLONE_NEWNS, MS_REC
from nsk8s.kernel.stdio import FileAction, Input, Streams

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The search path in a container, as in Docker's images."""

MARK = "NSK8S_CONTAINER"
LOG = "NSK8S_LOG"
KEEPER = "NSK8S_KEEPER"
"""The monitor's environment: which container it watches, where its output goes, who keeps its terminal
(``tty 17``) or its input (``stdin 17``), if somebody has to."""

MS_SLAVE = 0x80000

MOUNTS = 'mount -t sysfs -o ro sysfs /sys && mount -t proc proc /proc && exec "$@"'
"""In a mount namespace of its own: sysfs and procfs show the namespaces of the one who mounts them (and
bubblewrap looks up its child in /proc)."""

UMASK = "umask 022; "
"""As a container has it (the OCI runtime specification's default), whoever starts it."""

CHUNK = 64 * 1024
SETTING_OUT = 5.0
"""Seconds that a program may take to begin; it takes some milliseconds."""

KINDS = ("net", "uts", "ipc", "pid")
NSENTER = {"mnt": "mount"}
"""Where nsenter's option is called otherwise than the namespace."""


class CannotRun(NsK8sError):
    """The program cannot be started: `code` is 127 (not found), 126 (not executable) or 128 (whatever
    else)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Inside(Struct, frozen=True):
    """A place in the cluster where programs run.

    `pid` is the process that holds the namespaces (pause), `proc` a procfs in which it has that number.
    `container` is the pid of a container's own program: what is run shares its view of the files; 0 gives
    a fresh view. `target` is the pid of another container's program, among whose processes a new container's
    shall be. `confined` is False for nodes and clients: there the user is root on the host's files.
    `files` maps paths to texts (/etc/hosts ...), `mounts` are its volumes.
    """

    pid: int
    proc: str = "/proc"
    container: int = 0
    target: int = 0
    confined: bool = True
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    workdir: str = ""
    files: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    mounts: Sequence[Mount] = ()

    def namespace(self, kind: str) -> Path:
        """The file of a namespace of `kind` ("net", "mnt", ...)."""
        return Path(self.proc, str(self.container or self.pid), "ns", kind)


class Running(Struct):
    """A container that runs. `monitor` and `program` are pidfds: both are readable once their process
    has ended; wait on `monitor` (asyncio: add_reader), then ask `exit_code` and `close`."""

    mark: str
    pid: int
    program_pid: int
    monitor: int
    program: int
    log: Path
    input: Input = Input.EMPTY
    keeper: Keeper | None = None

    def signal(self, number: int) -> bool:
        """Send a signal to the program; False if it has ended already."""
        try:
            signal.pidfd_send_signal(self.program, number)
        except ProcessLookupError:
            return False
        return True

    def stdin(self) -> int | None:
        """A file descriptor that writes to its standard input; None if it has none."""
        if self.keeper is not None:
            return os.dup(self.keeper.end) if self.keeper.end >= 0 else None
        try:
            if os.readlink(f"/proc/{self.pid}/fd/0").startswith("pipe:"):
                return os.open(f"/proc/{self.pid}/fd/0", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            pass  # it is gone
        return None

    def environment(self) -> dict[str, str]:
        """With which it was started; empty if it has ended."""
        try:
            words = Path(f"/proc/{self.program_pid}/environ").read_bytes().decode(errors="surrogateescape")
        except OSError:
            return {}
        return dict(word.split("=", 1) for word in words.split("\0") if "=" in word)

    def hang_up(self) -> None:
        """Whoever spoke to it has gone: the end of an input that ends then."""
        if self.input is Input.ONCE and self.keeper is not None:
            self.keeper.dismiss()

    def copy(self) -> int:
        """Append to the log what its terminal shows now; how many bytes. Raises EOFError once nobody has
        the terminal open any more."""
        assert self.keeper is not None
        try:
            shown = os.read(self.keeper.end, CHUNK)
        except BlockingIOError:
            return 0
        except OSError as error:  # EIO
            raise EOFError from error
        with open(self.log, "ab") as log:
            return log.write(shown)

    def exit_code(self) -> int | None:
        """The program's exit code, after the monitor has ended; None when nobody knows it. A program
        whose monitor was killed is ended, too."""
        self.signal(signal.SIGKILL)
        waited = None
        with suppress(ChildProcessError):  # adopted: not our child, reaped by the holder
            waited = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        for line in _status(self.log).read_text().splitlines():
            with suppress(ValueError):
                code = json.loads(line).get("exit-code")
                if code is not None:
                    return int(code)
        return 137 if waited is not None and waited < 0 else waited

    def close(self) -> None:
        """Let go of the pidfds, and of what is kept."""
        os.close(self.monitor)
        os.close(self.program)
        if self.keeper is not None:
            self.keeper.dismiss()


def spawn(
    place: Inside,
    command: Sequence[str],
    *,
    mark: str,
    log: Path,
    stdin: Input = Input.EMPTY,
    pause: Path | None = None,
) -> Running:
    """Start a container's program, confined, in the namespaces of `place`; output goes to `log`, but for a
    terminal's, which is to be copied there. What has to be kept needs the `pause` program.

    Blocks for some milliseconds, until bubblewrap has forked the program. To be called in a thread of its
    own kind (it visits the namespaces), never in one that another caller may be using. Raises CannotRun,
    HostError (bubblewrap missing or refused), KernelError (the sandbox is gone).
    """
    env = {"PATH": PATH, "HOME": "/root", **place.env}
    if not mounted(place, command[0]):
        find(command[0], env["PATH"], place.workdir or "/")
    bwrap = tool("bwrap", "bubblewrap")
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:

        def kept(fd: int) -> int:
            stack.callback(os.close, fd)
            return fd

        output = kept(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))
        truncate = os.O_WRONLY | os.O_TRUNC | os.O_CREAT | os.O_CLOEXEC
        status = kept(os.open(_status(log), truncate, 0o600))
        told, tell = os.pipe2(os.O_CLOEXEC)  # bubblewrap tells that it has forked the program
        gate, opener = os.pipe2(os.O_CLOEXEC)  # the program waits until we have got hold of it
        with_child = stack.enter_context(ExitStack())  # what the child alone shall hold from then on
        for fd in (tell, gate):
            with_child.callback(os.close, fd)
        with_us = stack.enter_context(ExitStack())
        for fd in (told, opener):
            with_us.callback(os.close, fd)
        files = {path: kept(_memory(text)) for path, text in place.files.items()}
        mounts = bound(place.mounts, stack)
        joined = [kept(_pid_namespace(place))] if place.target else []
        options = bubblewrap(
            files,
            mounts,
            processes=["--pidns", str(*joined)] if joined else LEADING,
            status=["--info-fd", str(tell), "--json-status-fd", str(status), "--block-fd", str(gate)],
        )
        options += ["--chdir", place.workdir or "/", "--clearenv"]
        for name, value in env.items():
            options += ["--setenv", name, value]
        arguments = kept(_memory("".join(f"{word}\0" for word in options)))
        streams = Streams(stdin, output, kept)
        passed = (status, *joined, tell, gate, arguments, *files.values(), *(fd for _, fd in mounts))
        actions: list[FileAction] = [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in passed]
        kept_by = None
        without = stack.enter_context(ExitStack())  # what is undone if it does not start
        try:
            with _within(place):
                if streams.near >= 0:
                    assert pause is not None
                    kept_by = keeper.keep(pause, os.dup(streams.near))
                    without.callback(kept_by.dismiss)
                about = {KEEPER: f"{stdin.value} {kept_by.pid}"} if kept_by else {}
                pid = os.posix_spawn(
                    "/bin/sh",
                    [
                        "sh",
                        "-c",
                        streams.before + UMASK + MOUNTS,
                        "sh",
                        bwrap,
                        "--args",
                        str(arguments),
                        "--",
                        *streams.wrap,
                        *command,
                    ],
                    {MARK: mark, LOG: os.fspath(log), **about},
                    file_actions=[*actions, *streams.actions],
                    setsid=True,
                    setsigmask=(),
                    setsigdef=(signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ),
                )
        except OSError as error:
            raise KernelError(error.errno or 0, f"nsenter -t {place.pid} bwrap ...", mark) from error
        with_child.close()
        program = forked(pid, _read_object(told))
        if program:
            without.pop_all()
            fds = os.pidfd_open(pid), os.pidfd_open(program)
            return Running(mark, pid, program, *fds, log, stdin, kept_by)
    os.waitpid(pid, 0)
    lines = log.read_text(errors="replace").strip().splitlines()
    raise HostError(f"bubblewrap refused to start {mark}: {lines[-1] if lines else 'no message'}")


def running(proc: str = "/proc") -> dict[str, Running]:
    """The containers that run, by mark: found by their monitors' environment. For a new control plane,
    whose /proc must be `proc`."""
    found = {}
    for entry in os.scandir(proc):
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):
            if Path(entry.path, "comm").read_bytes() != b"bwrap\n":
                continue
            words = Path(entry.path, "environ").read_bytes().decode(errors="replace").split("\0")
            env = dict(word.partition("=")[::2] for word in words)
            if MARK not in env:
                continue
            pid, log = int(entry.name), Path(env[LOG])
            program = forked(pid, _status(log).read_bytes())
            if program:
                fds = os.pidfd_open(pid), os.pidfd_open(program)
                kind, _, number = env.get(KEEPER, "").partition(" ")
                kept_by = keeper.find(int(number)) if number else None
                found[env[MARK]] = Running(env[MARK], pid, program, *fds, log, Input(kind), kept_by)
    return found


def find(program: str, path: str = PATH, workdir: str = "/") -> str:
    """Where `program` is, searched as execvp(3) does. Raises CannotRun in a container runtime's words."""
    if "/" in program:
        full = os.path.join(workdir, program)
        if not os.path.isfile(full):
            raise CannotRun(127, f'exec: "{program}": stat {program}: no such file or directory')
        if not os.access(full, os.X_OK):
            raise CannotRun(126, f'exec: "{program}": permission denied')
        return full
    found = shutil.which(program, path=path)
    if found is None:
        raise CannotRun(127, f'exec: "{program}": executable file not found in $PATH')
    return found


def mounted(place: Inside, program: str) -> bool:
    """Whether a program is in a volume, where we cannot look for it from outside."""
    path = os.path.join(place.workdir or "/", program)
    return "/" in program and any(path == m.path or path.startswith(f"{m.path}/") for m in place.mounts)


def descendants(pid: int) -> list[int]:
    """A process's children, and theirs, the youngest generation first."""
    found = []
    for child in _children(pid):
        found += [*descendants(child), child]
    return found


def tool(name: str, package: str) -> str:
    """Where a program of the host is. Raises HostError."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{PATH}")
    if found is None:
        raise HostError(
            f"{name} is not installed", hint=f"apt install {package} (or your system's word for it)"
        )
    return found


# --- beside the containers ---------------------------------------------------------------------------


@contextmanager
def entering(
    place: Inside, command: Sequence[str], kinds: Sequence[str] = ("mnt", *KINDS)
) -> Iterator[tuple[list[str], list[int]]]:
    """The command line that runs `command` in `place`, and the file descriptors it must inherit. `kinds`
    are the namespaces it has to enter.

    Everything is done by programs every host has (nsenter, unshare, setpriv, env), so it works from any
    process, with threads or without. The last of them, env, gives the exit codes 126 and 127.
    """
    words = [tool("nsenter", "util-linux")]
    words += [f"--{NSENTER.get(kind, kind)}={place.namespace(kind)}" for kind in kinds]
    env = {"PATH": PATH, "HOME": "/root", **place.env}
    run = ["env", "--default-signal=INT,QUIT"]
    if place.confined:
        run = ["/bin/sh", "-c", UMASK + 'exec "$@"', "sh", *run]
        run += ["-i", "-C", place.workdir or "/", *(f"{name}={value}" for name, value in env.items())]
    elif os.path.isdir(place.workdir):
        run += ["-C", place.workdir]
    with ExitStack() as stack:
        fds = []
        if place.container:
            words += SETPRIV
        else:
            words += ["unshare", "--mount", "--propagation=slave", "sh", "-c", MOUNTS, "sh"]
        if place.confined and not place.container:
            files = {}
            for path, text in place.files.items():
                files[path] = _memory(text)
                stack.callback(os.close, files[path])
            mounts = bound(place.mounts, stack)
            fds = [*files.values(), *(fd for _, fd in mounts)]
            words += [tool("bwrap", "bubblewrap"), "--die-with-parent"]
            words += [*bubblewrap(files, mounts), "--"]
        yield [*words, *run, *command], fds


def foreground(place: Inside, command: Sequence[str], *, stdin: int | None = None) -> int:
    """Run `command` in `place` on our own terminal and return its exit code. `stdin` as `subprocess`
    has it.

    On a terminal the command has a process group of its own, in the foreground: a shell gives the terminal
    back to the group that it found there, and ours has no number in its PID namespace. Window size and
    what is typed (Ctrl-C) come from the terminal; we only have to survive it. For a process without
    threads. Raises ClusterGone when the target is gone.
    """
    terminal = 0 if stdin is None and os.isatty(0) else -1
    numbers = (signal.SIGINT, signal.SIGQUIT, signal.SIGTTOU)
    ignored = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        with (
            entering(place, command, ("mnt", "net", "uts", "ipc")) as (words, fds),
            # Not by nsenter: it would stand between us and the command, and lose how that ended.
            namespaces.inside(place.namespace("pid"), "pid"),
        ):
            child = subprocess.Popen(
                words,
                pass_fds=fds,
                stdin=stdin,
                process_group=0 if terminal >= 0 else None,
                preexec_fn=None if terminal < 0 else lambda: _take(terminal),
            )
        code = child.wait()
    except OSError as error:
        raise ClusterGone(f"the target is gone: {error.strerror or error}") from error
    finally:
        if terminal >= 0:
            with suppress(OSError):  # it has hung up
                os.tcsetpgrp(terminal, os.getpgrp())
        for number, handler in ignored.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _take(terminal: int) -> None:
    """Between fork and exec: take the terminal's foreground. (SIGINT and SIGQUIT stay ignored until `env`
    at the end of the line: what stands before it, bubblewrap above all, shall survive them.)"""
    os.tcsetpgrp(terminal, os.getpgrp())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)


async def execute(
    place: Inside,
    command: Sequence[str],
    *,
    timeout: float | None,  # noqa: ASYNC109
) -> tuple[int, bytes]:
    """Run `command` in `place` (an exec probe) and return its exit code and output (both streams, at
    most 10 KiB). Raises TimeoutError after `timeout` seconds; the command is then ended, and when the caller
    is cancelled."""
    if place.container:
        await _begun(place.container)
    with entering(place, command) as (words, fds):
        child = await asyncio.create_subprocess_exec(
            *words,
            pass_fds=fds,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    try:
        async with asyncio.timeout(timeout):
            output, _ = await child.communicate()
    except (TimeoutError, asyncio.CancelledError):
        await _end(child)
        raise
    code = child.returncode or 0
    return (code if code >= 0 else 128 - code), output[:10240]


# --- parts --------------------------------------------------------------------------------------------


@contextmanager
def _within(place: Inside) -> Iterator[None]:
    """This thread in the pod's namespaces, and in a mount namespace that nobody else has."""
    with ExitStack() as stack:
        for kind in KINDS:
            stack.enter_context(namespaces.inside(place.namespace(kind), kind))
        home = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, home)
        namespaces.unshare(CLONE_NEWNS)
        stack.callback(namespaces.setns, home, CLONE_NEWNS)
        namespaces.mount("none", "/", "none", MS_REC | MS_SLAVE)
        yield


async def _begun(pid: int) -> None:
    """Wait until bubblewrap has made way for a container's program: before that its view of the files is not
    complete. Nothing announces it, and it is a matter of milliseconds."""
    deadline = asyncio.get_running_loop().time() + SETTING_OUT
    while asyncio.get_running_loop().time() < deadline:
        try:
            if os.path.basename(os.readlink(f"/proc/{pid}/exe")) != "bwrap":
                return
        except OSError:  # it has ended
            return
        await asyncio.sleep(0.002)


async def _end(child: asyncio.subprocess.Process) -> None:
    """Kill what nsenter has started, which then ends as well. It may only be about to start it: killed before
    that, it would leave behind a process that nobody knows of, and that keeps the container from ending."""
    deadline = asyncio.get_running_loop().time() + SETTING_OUT
    while child.returncode is None:
        family = descendants(child.pid)
        if asyncio.get_running_loop().time() > deadline:
            family.append(child.pid)
        for one in family:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        with suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), 0.05)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_bytes().split()]
    except OSError:
        return []


def forked(monitor: int, told: bytes) -> int:
    """The program that a monitor has forked; 0 if there is none.

    bubblewrap has told its number (``child-pid`` of its first JSON object), as the monitor's PID namespace
    has it. One that joins others is the monitor's grandchild at first, and becomes its child when the one
    between ends: if that happens just while we look, it is found at the second look.
    """
    number = int(json.loads(told.partition(b"}")[0] + b"}")["child-pid"]) if b"}" in told else 0
    level = len(_numbers(monitor))
    for pid in chain(descendants(monitor), _children(monitor)) if level and number else ():
        if _numbers(pid)[level - 1 : level] == [number]:
            return pid
    return 0


def _read_object(fd: int) -> bytes:
    """bubblewrap's whole JSON object, written piecemeal: who stops reading earlier kills it by SIGPIPE.
    The program holds the pipe, too, so there is no end of file to wait for."""
    text = b""
    while b"}" not in text:
        piece = os.read(fd, 4096)
        if not piece:
            return b""
        text += piece
    return text


def _numbers(pid: int) -> list[int]:
    """A process's numbers in its PID namespaces, the outermost first (``NSpid``); none if it has gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return []
    return [int(word) for word in status.partition("\nNSpid:")[2].partition("\n")[0].split()]


def _pid_namespace(place: Inside) -> int:
    """The PID namespace of a place's target, opened. Raises KernelError if that is gone."""
    try:
        return os.open(Path(place.proc, str(place.target), "ns", "pid"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(
            error.errno or 0, f"nsenter -t {place.target} -p", "the target has ended"
        ) from error


def _status(log: Path) -> Path:
    return log.with_suffix(".status")


def _memory(text: str) -> int:
    """A file in memory, read from its beginning."""
    fd = os.memfd_create("nsk8s", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(text.encode(errors="surrogateescape"))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
