"""netlink(7) by hand: messages out of `struct`, batches without acknowledgement, lean dumps.

A request of pyroute2 costs 200-300 µs of Python, the same bytes packed here 4 µs, and the kernel's own
work is of that order; a cluster of a thousand pods is some ten thousand requests. So: many messages in
one send(2), none of them with NLM_F_ACK. The kernel works them off before send returns and answers
only what it refuses, naming the sequence number; an empty socket afterwards means that all is done.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12

NLM_F_REQUEST = 0x1
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_ACK_TLVS, _NLM_F_CAPPED, _NLM_F_DUMP_INTR = 0x200, 0x100, 0x10
_NLMSGERR_ATTR_MSG = 1
_NLA_TYPE = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

_SOL_NETLINK = 270
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_DROP_MEMBERSHIP = 2
_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 10, 11, 12

_MOMENT = 0.1  # seconds, several grace periods

_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_U8 = struct.Struct("=HHB3x")
_U32 = struct.Struct("=HHI")
_ERROR = struct.Struct("=i")

_BATCH = 64 * 1024  # well under the default send buffer of 208 KiB
_DUMP = 32 * 1024  # the kernel fills no more at a time
_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")


class Refusal(NamedTuple):
    """The kernel's answer to a message it did not carry out: errno, and the reason if it gave one."""

    errno: int
    reason: str


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """One request; `body` is its fixed header and attributes, `sequence` comes back with a refusal."""
    return _HEADER.pack(16 + len(body), kind, flags | NLM_F_REQUEST, sequence, 0) + body + _PAD[len(body) % 4]


def attr(kind: int, payload: bytes) -> bytes:
    """An attribute (also a nested one: its payload is attributes)."""
    return _ATTR.pack(4 + len(payload), kind) + payload + _PAD[len(payload) % 4]


def attr_u32(kind: int, value: int) -> bytes:
    """An attribute that is a 32-bit number in host order."""
    return _U32.pack(8, kind, value)


def attr_u8(kind: int, value: int) -> bytes:
    """An attribute that is a byte."""
    return _U8.pack(5, kind, value)


def attr_text(kind: int, text: str) -> bytes:
    """An attribute that is a NUL-terminated string."""
    return attr(kind, text.encode() + b"\0")


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """The attributes that follow `start`, by type; of a repeated one the last."""
    found = {}
    end = len(data)
    unpack = _ATTR.unpack_from
    while start + 4 <= end:
        length, kind = unpack(data, start)
        if length < 4:
            break
        found[kind & _NLA_TYPE] = data[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


@functools.cache
def _retirement() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="netlink-close")


def _close(retired: socket.socket, when: float) -> None:
    time.sleep(max(0.0, when - time.monotonic()))
    retired.close()


class Netlink:
    """A netlink socket; it belongs for ever to the network namespace of the thread that opened it.

    Close it (it is a context manager): an open socket keeps its namespace alive.
    """

    def __init__(self, family: int = NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        with suppress(PermissionError):  # room for a refusal of every message of a batch
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 20)
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        if family == NETLINK_ROUTE:  # filters in dump requests are obeyed, not ignored
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)

    def __enter__(self) -> Netlink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the socket and its hold on the namespace go."""
        self._socket.close()

    def retire(self) -> None:
        """Close it a moment later, where nobody waits.

        At the end of a socket of netfilter nf_tables waits until what was removed last in the namespace is
        freed, after a grace period of RCU (nft_rcv_nl_event; 5 to 30 ms), and lets in no transaction
        meanwhile. A moment later that is long done.
        """
        _retirement().submit(_close, self._socket, time.monotonic() + _MOMENT)

    def send(self, messages: Iterable[bytes]) -> dict[int, Refusal]:
        """Have the kernel carry out all messages, in order. Returns what it refused, by sequence number
        (the first refusal where several messages share a number)."""
        refused: dict[int, Refusal] = {}
        batch: list[bytes] = []
        size = 0
        for one in messages:
            if size + len(one) > _BATCH and batch:
                self._send(batch, refused)
                batch, size = [], 0
            batch.append(one)
            size += len(one)
        if batch:
            self._send(batch, refused)
        return refused

    def whole(self, messages: Sequence[bytes]) -> dict[int, Refusal]:
        """As `send`, but in one piece however long, for messages that take effect together."""
        size = sum(map(len, messages))
        with suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * size)
        refused: dict[int, Refusal] = {}
        self._send(messages, refused)
        return refused

    def _send(self, batch: Sequence[bytes], refused: dict[int, Refusal]) -> None:
        self._socket.send(b"".join(batch))
        while True:
            try:
                data = self._socket.recv(_DUMP, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            for kind, flags, sequence, body in _messages(data):
                if kind == _NLMSG_ERROR and (number := _ERROR.unpack_from(body)[0]):
                    refused.setdefault(sequence, Refusal(-number, _reason(flags, body)))

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """Ask for all objects of a type; yields the body of each answer.

        Begins anew when the kernel says that the list changed underneath. Raises OSError if refused.
        """
        for _ in range(20):
            found, complete = self._dump(kind, body)
            if complete:
                return iter(found)
        raise OSError(errno.EAGAIN, "the kernel's list keeps changing while it is read")

    def _dump(self, kind: int, body: bytes) -> tuple[list[bytes], bool]:
        self._socket.send(message(kind, NLM_F_DUMP, 1, body))
        found: list[bytes] = []
        complete = True
        while True:
            for answer, flags, _, content in _messages(self._socket.recv(_DUMP)):
                if flags & _NLM_F_DUMP_INTR:
                    complete = False
                if answer in (_NLMSG_DONE, _NLMSG_ERROR):
                    number = -_ERROR.unpack_from(content)[0] if len(content) >= 4 else 0
                    if number == errno.EINTR:
                        complete = False
                    elif number:
                        raise OSError(number, os.strerror(number))
                    return found, complete
                found.append(content)

    def listen(self, group: int, room: int) -> None:
        """Be told what happens, by the kernel's notifications of a group; `room` octets of them may wait."""
        with suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, room)
        self._socket.bind((0, 0))  # who has no address yet is told nothing
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def ignore(self, group: int) -> None:
        """Be told no more. As long as anybody listens anywhere, the kernel puts notifications together for
        every namespace: it counts listeners once for the machine (netlink_has_listeners)."""
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_DROP_MEMBERSHIP, group)

    def fileno(self) -> int:
        """The descriptor, to wait for what comes."""
        return self._socket.fileno()

    def heard(self) -> Iterator[tuple[int, bytes]]:
        """Type and body of each notification that has come. Raises OSError (ENOBUFS) if some were lost."""
        with suppress(BlockingIOError):
            while True:
                for kind, _, _, body in _messages(self._socket.recv(_DUMP, socket.MSG_DONTWAIT)):
                    yield kind, body

    def get(self, kind: int, body: bytes) -> bytes:
        """Ask for one object; returns the body of the answer. Raises OSError if refused."""
        self._socket.send(message(kind, 0, 1, body))
        for answer, _, _, content in _messages(self._socket.recv(_DUMP)):
            if answer == _NLMSG_ERROR:
                number = -_ERROR.unpack_from(content)[0]
                raise OSError(number, os.strerror(number))
            return content
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each message of a datagram."""
    start, end = 0, len(data)
    while start + 16 <= end:
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, start)
        if length < 16:
            break
        yield kind, flags, sequence, data[start + 16 : start + length]
        start += (length + 3) & ~3


def _reason(flags: int, body: bytes) -> str:
    """The extended acknowledgement: the kernel's own words, where it has any."""
    if not flags & _NLM_F_ACK_TLVS:
        return ""
    offset = 20 if flags & _NLM_F_CAPPED else 4 + ((_HEADER.unpack_from(body, 4)[0] + 3) & ~3)
    return attributes(body, offset).get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")
