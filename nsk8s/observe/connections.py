"""Who reaches whom: many connections at once, each from inside a namespace of its own.

A socket keeps the namespace that it was made in, so one process can have one in each pod: nothing is started
there. TCP is reached when the other side has taken the connection, UDP when it has answered a datagram.
"""

from __future__ import annotations

import errno
import itertools
import os
import secrets
import selectors
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from nsk8s.kernel.namespaces import inside

Outcome = Literal["reached", "refused", "timeout", "unreachable"]

DATAGRAM = b"hostname\n"
_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: a reset leaves no TIME_WAIT behind, here and in conntrack
_PORTS = range(16384, 65536)
_ports = itertools.cycle(_PORTS)
next(itertools.islice(_ports, secrets.randbelow(len(_PORTS)), None))
_REFUSALS = {errno.ECONNREFUSED, errno.ECONNRESET}


class Attempt(NamedTuple):
    """A connection to be tried: from the network namespace `source` (a file) to an address and port."""

    source: Path
    address: str
    port: int
    protocol: Literal["TCP", "UDP"] = "TCP"


def attempt(attempts: Sequence[Attempt], timeout: float) -> list[Outcome]:
    """How each ended, within `timeout` seconds of the last one's beginning. Raises OSError if a namespace is
    gone."""
    outcomes: list[Outcome] = ["timeout"] * len(attempts)
    order = sorted(range(len(attempts)), key=lambda i: attempts[i].source)
    with selectors.DefaultSelector() as waiting:
        try:
            for source, indexes in itertools.groupby(order, key=lambda i: attempts[i].source):
                with inside(source, "net"):
                    _begin(waiting, attempts, indexes, outcomes)
            deadline = time.monotonic() + timeout
            while waiting.get_map() and (left := deadline - time.monotonic()) > 0:
                for key, _ in waiting.select(left):
                    outcomes[key.data] = _ended(key.fileobj, attempts[key.data])
                    _close(waiting, key.fileobj)
        finally:
            for key in list(waiting.get_map().values()):
                _close(waiting, key.fileobj)
    return outcomes


def _begin(
    waiting: selectors.BaseSelector,
    attempts: Sequence[Attempt],
    indexes: Iterable[int],
    outcomes: list[Outcome],
) -> None:
    for i in indexes:
        one = attempts[i]
        family = socket.AF_INET6 if ":" in one.address else socket.AF_INET
        tcp = one.protocol == "TCP"
        opened = socket.socket(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
        opened.setblocking(False)
        try:
            if not tcp:
                _bind(opened)
            number = opened.connect_ex((one.address, one.port))
            if number not in (0, errno.EINPROGRESS):
                raise OSError(number, os.strerror(number))
            if tcp:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            else:
                opened.send(DATAGRAM)
        except OSError as error:
            outcomes[i] = _failure(error.errno)
            opened.close()
        else:
            waiting.register(opened, selectors.EVENT_WRITE if tcp else selectors.EVENT_READ, i)


def _bind(opened: socket.socket) -> None:
    """Give a UDP socket a port that none of the last ones had: to connection tracking, and so to policies, a
    datagram between ports that have spoken lately belongs to what they said."""
    with suppress(OSError):  # somebody has it: then the kernel's choice
        opened.bind(("", next(_ports)))


def _ended(opened: object, one: Attempt) -> Outcome:
    assert isinstance(opened, socket.socket)
    if one.protocol == "TCP":
        number = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return _failure(number) if number else "reached"
    try:
        opened.recv(65536)
    except OSError as error:
        return _failure(error.errno)
    return "reached"


def _failure(number: int | None) -> Outcome:
    if number in _REFUSALS:
        return "refused"
    return "timeout" if number == errno.ETIMEDOUT else "unreachable"


def _close(waiting: selectors.BaseSelector, opened: object) -> None:
    assert isinstance(opened, socket.socket)
    waiting.unregister(opened)
    opened.close()
