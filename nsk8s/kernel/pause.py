"""The pause program: what holds a namespace while nothing else runs in it.

The same idea as Kubernetes' pause container: a process that never does anything, and that reaps the
orphans it inherits as PID 1. Ours ignores SIGCHLD, so the kernel reaps them by itself (wait(2),
"SIG_IGN"), and then sleeps for ever. It is some 200 bytes of static ELF with no libc, written by
`image()` for x86_64 and aarch64: a thousand of them start in a tenth of a second and share one page.
Other machines use `catatonit -P` (Debian package catatonit), which does the same and is larger.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

from nsk8s.errors import HostError

_libc = ctypes.CDLL(None)

_BASE = 0x400000
_HEADERS = 64 + 56

# rt_sigaction(SIGCHLD, &ignore, NULL, 8); for (;;) pause();
_X86_64 = bytes.fromhex(
    "b80d000000"  # mov eax, 13 (rt_sigaction)
    "bf11000000"  # mov edi, 17 (SIGCHLD)
    "488d3513000000"  # lea rsi, [rip + 19] (the action after the code)
    "31d2"  # xor edx, edx
    "41ba08000000"  # mov r10d, 8
    "0f05"  # syscall
    "b822000000"  # again: mov eax, 34 (pause)
    "0f05"  # syscall
    "ebf7"  # jmp again
)

# rt_sigaction(SIGCHLD, &ignore, NULL, 8); for (;;) ppoll(NULL, 0, NULL, NULL, 0); aarch64 has no pause(2)
_AARCH64 = struct.pack(
    "<14I",
    0xD28010C8,  # mov x8, #134 (rt_sigaction)
    0xD2800220,  # mov x0, #17 (SIGCHLD)
    0x10000181,  # adr x1, 48 bytes on (the action after the code)
    0xD2800002,  # mov x2, #0
    0xD2800103,  # mov x3, #8
    0xD4000001,  # svc #0
    0xD2800928,  # mov x8, #73 (ppoll)
    0xD2800001,  # mov x1, #0
    0xD2800003,  # mov x3, #0
    0xD2800004,  # mov x4, #0
    0xD2800000,  # again: mov x0, #0
    0xD4000001,  # svc #0
    0x17FFFFFE,  # b again
    0xD503201F,  # nop (aligns the action)
)

_IGNORE = struct.pack("<QQQQ", 1, 0, 0, 0)  # struct kernel_sigaction: SIG_IGN, no flags, empty mask

_POSIX_SPAWN_SETSID = 0x80
_ROOM = 512  # posix_spawn_file_actions_t has 80 bytes, posix_spawnattr_t 336 (glibc, musl)

_MACHINES = {"x86_64": (62, _X86_64), "aarch64": (183, _AARCH64)}


def image(machine: str) -> bytes | None:
    """The program as an ELF executable for `machine` (as uname(2) names it); None where we have none."""
    if machine not in _MACHINES:
        return None
    number, code = _MACHINES[machine]
    size = _HEADERS + len(code) + len(_IGNORE)
    header = b"\x7fELF" + bytes((2, 1, 1, 0)) + bytes(8)  # 64 bit, little-endian, System V
    header += struct.pack("<HHIQQQIHHHHHH", 2, number, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)  # PT_LOAD, r-x
    return header + segment + code + _IGNORE


def install(path: Path) -> None:
    """Put the pause program at `path`, executable; a link to `catatonit` where we have no image.

    Raises HostError when neither can be had.
    """
    program = image(platform.machine())
    if program is None:
        catatonit = shutil.which("catatonit")
        if catatonit is None:
            raise HostError(
                f"no pause program for {platform.machine()} machines",
                hint="install catatonit (apt-get install catatonit)",
            )
        path.unlink(missing_ok=True)
        path.symlink_to(catatonit)
        return
    new = path.with_name(path.name + ".new")
    new.write_bytes(program)
    new.chmod(0o755)
    os.replace(new, path)  # never open for writing under a running pause (ETXTBSY)


def argv(path: Path, *words: str) -> list[str]:
    """The argument vector that starts the program at `path` and shows `words` in its command line."""
    return [words[0], *(("-P", "--") if path.is_symlink() else ()), *words[1:]]


def start(program: str, words: Sequence[str]) -> int:
    """Start the program at the path `program` in the namespaces of the calling thread, in a session of its
    own and without files; returns its pid. Raises OSError.

    Half a millisecond, for which os.posix_spawn would hold every other thread up.
    """
    actions, attributes = _how()
    argv = (ctypes.c_char_p * (len(words) + 1))(*(word.encode() for word in words), None)
    environment = (ctypes.c_char_p * 1)(None)
    pid = ctypes.c_int()
    failure = _libc.posix_spawn(ctypes.byref(pid), program.encode(), actions, attributes, argv, environment)
    if failure:
        raise OSError(failure, f"{program}: {os.strerror(failure)}")
    return pid.value


@functools.cache
def _how() -> tuple[ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char]]:
    """The file actions and attributes of posix_spawn(3)."""
    actions, attributes = ctypes.create_string_buffer(_ROOM), ctypes.create_string_buffer(_ROOM)
    _libc.posix_spawn_file_actions_init(actions)
    for fd in (0, 1, 2):
        _libc.posix_spawn_file_actions_addclose(actions, fd)
    _libc.posix_spawnattr_init(attributes)
    _libc.posix_spawnattr_setflags(attributes, ctypes.c_short(_POSIX_SPAWN_SETSID))
    return actions, attributes


def words(cmdline: bytes) -> list[str]:
    """The words that `argv` was given, from /proc/PID/cmdline; empty for a zombie."""
    found = cmdline.decode(errors="replace").split("\0")[:-1]
    return found[:1] + found[3:] if found[1:3] == ["-P", "--"] else found
