"""posix_spawn(3) that lets Python's other threads run meanwhile, which os.posix_spawn does not: the kernel
wakes the parent only when the child has executed its program, about a millisecond later.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

_SETSID = 0x80  # POSIX_SPAWN_SETSID (glibc 2.26)
_OPAQUE = 512  # octets, more than either of the structures has in any libc

_libc = ctypes.CDLL(None)


def _check(number: int) -> None:
    if number:
        raise OSError(number, f"posix_spawn: {os.strerror(number)}")


def _prepared() -> tuple[ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char]]:
    """A session of its own, and nothing open."""
    actions, attributes = ctypes.create_string_buffer(_OPAQUE), ctypes.create_string_buffer(_OPAQUE)
    _check(_libc.posix_spawn_file_actions_init(actions))
    for fd in (0, 1, 2):
        _check(_libc.posix_spawn_file_actions_addclose(actions, fd))
    _check(_libc.posix_spawnattr_init(attributes))
    _check(_libc.posix_spawnattr_setflags(attributes, ctypes.c_short(_SETSID)))
    return actions, attributes


_ACTIONS, _ATTRIBUTES = _prepared()


def spawn(program: str, words: Sequence[str]) -> int:
    """Start a program in the namespaces of the calling thread, as the leader of a session, with nothing open
    and an empty environment. Its pid. Raises OSError."""
    argv = (ctypes.c_char_p * (len(words) + 1))(*(word.encode() for word in words), None)
    pid = ctypes.c_int()
    environment = (ctypes.c_char_p * 1)(None)
    path = program.encode()
    _check(_libc.posix_spawn(ctypes.byref(pid), path, _ACTIONS, _ATTRIBUTES, argv, environment))
    return pid.value
