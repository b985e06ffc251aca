"""Data of nf_tables: types, values, verdicts and the sets that belong to one rule, from the words of nft(8)
to attributes of nfnetlink (linux/netfilter/nf_tables.h).

Numbers of packets are big-endian, those of the kernel (marks, connection states) in the host's order, as nft
has it. `Unknown` is raised for words that are beyond this vocabulary.
"""

from __future__ import annotations

import ipaddress
import socket
import string
import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

from nsk8s.kernel.netlink import attr, attr_text

NESTED = 0x8000
NFT_SET_ANONYMOUS, NFT_SET_CONSTANT, NFT_SET_INTERVAL, NFT_SET_MAP = 0x1, 0x2, 0x4, 0x8
VERDICT_TYPE = 0xFFFFFF00
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "sctp": 132, "udplite": 136, "dccp": 33}

_DROP, _ACCEPT, _JUMP, _GOTO, _RETURN = 0, 1, -3 & 0xFFFFFFFF, -4 & 0xFFFFFFFF, -5 & 0xFFFFFFFF
_VERDICTS = {"drop": _DROP, "accept": _ACCEPT, "return": _RETURN, "jump": _JUMP, "goto": _GOTO}
_NFPROTOS = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
_DATUM = struct.Struct("=HHHH")
_NAME, _DIGITS = 7, string.ascii_letters + string.digits


class Unknown(ValueError):
    """Words that only nft itself understands."""


@lru_cache(4096)
def be32(kind: int, value: int) -> bytes:
    """An attribute that is a 32-bit number in network order, as all of nfnetlink's are."""
    return struct.pack("=HH", 8, kind) + struct.pack(">I", value)


def nested(kind: int, *payload: bytes) -> bytes:
    """An attribute made of attributes."""
    return attr(kind | NESTED, b"".join(payload))


# --- types ------------------------------------------------------------------------------------------


class Type(NamedTuple):
    """A type of data: nft's number for it, its length in octets, and how text becomes octets."""

    number: int
    length: int
    encode: Callable[[str], bytes]


def _chosen(names: Mapping[str, int], length: int) -> Callable[[str], bytes]:
    def encode(text: str) -> bytes:
        number = names.get(text)
        if number is None and not text.isdigit():
            raise Unknown(text)
        return (int(text) if number is None else number).to_bytes(length, "little" if length > 1 else "big")

    return encode


def native(text: str) -> bytes:
    """A 32-bit number of the kernel's own, in the host's order."""
    return struct.pack("=I", int(text, 0))


def port(text: str) -> bytes:
    """A port of TCP, UDP or SCTP."""
    return struct.pack(">H", int(text))


def _ipv4(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET, text)


def _ipv6(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, text)


def interface(text: str) -> bytes:
    """The name of a device, in quotes or not."""
    return text.strip('"').encode().ljust(16, b"\0")


TYPES = {
    "nf_proto": Type(2, 1, _chosen(_NFPROTOS, 1)),
    "integer": Type(4, 4, native),
    "ipv4_addr": Type(7, 4, _ipv4),
    "ipv6_addr": Type(8, 16, _ipv6),
    "inet_proto": Type(12, 1, _chosen(PROTOCOLS, 1)),
    "inet_service": Type(13, 2, port),
    "mark": Type(19, 4, native),
    "ifname": Type(41, 16, interface),
}


class Concat(NamedTuple):
    """A type that may be several, each of whose parts fills whole registers of 32 bits."""

    types: tuple[Type, ...]

    @property
    def number(self) -> int:
        """nft's number: six bits for each part."""
        number = 0
        for one in self.types:
            number = number << 6 | one.number
        return number

    @property
    def length(self) -> int:
        """In octets."""
        if len(self.types) == 1:
            return self.types[0].length
        return sum(padded(one.length) for one in self.types)

    def encode(self, text: str) -> bytes:
        """The octets of ``A . B . C``. Raises Unknown for what is none."""
        words = text.split(" . ")
        if len(words) != len(self.types):
            raise Unknown(text)
        try:
            if len(words) == 1:
                return self.types[0].encode(text)
            parts = [one.encode(word) for one, word in zip(self.types, words, strict=True)]
        except (ValueError, OSError, struct.error) as error:
            raise Unknown(text) from error
        return b"".join(part.ljust(padded(len(part)), b"\0") for part in parts)


def padded(length: int) -> int:
    """A length in octets, of whole registers."""
    return (length + 3) & ~3


@lru_cache(256)
def type_of(text: str) -> Concat:
    """The type called ``ipv4_addr . inet_proto``. Raises Unknown."""
    try:
        return Concat(tuple(TYPES[word] for word in text.split(" . ")))
    except KeyError as missing:
        raise Unknown(f"type {missing.args[0]}") from missing


# --- data -------------------------------------------------------------------------------------------


def datum(kind: int, data: bytes) -> bytes:
    """An attribute that is data."""
    length = 4 + padded(len(data))
    return _DATUM.pack(4 + length, kind | NESTED, 4 + len(data), 1) + data + bytes(-len(data) % 4)


def verdict(text: str) -> bytes:
    """``drop``, ``goto CHAIN`` … as data. Raises Unknown."""
    word, _, chain = text.partition(" ")
    code = _VERDICTS.get(word)
    if code is None or bool(chain) != (code in (_JUMP, _GOTO)):
        raise Unknown(text)
    return nested(2, be32(1, code), *((attr_text(2, chain),) if chain else ()))


def bounds(text: str, of: Type) -> tuple[bytes, bytes] | None:
    """The first and last of ``A-B`` or of a network ``A/N``; None for a single value."""
    if "/" in text:
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise Unknown(text) from error
        return network.network_address.packed, network.broadcast_address.packed
    first, dash, last = text.partition("-")
    return (of.encode(first), of.encode(last)) if dash and of.number != TYPES["ifname"].number else None


class Anonymous(NamedTuple):
    """A set that belongs to one rule: `number` tells it from all others."""

    number: int
    key: Concat
    data: Concat | None
    verdicts: bool
    elements: tuple[tuple[str, str], ...]

    @property
    def flags(self) -> int:
        """NFT_SET_*."""
        ranged = any("/" in key or "-" in key for key, _ in self.elements) and len(self.key.types) == 1
        mapped = NFT_SET_MAP if self.data or self.verdicts else 0
        return NFT_SET_ANONYMOUS | NFT_SET_CONSTANT | mapped | (NFT_SET_INTERVAL if ranged else 0)

    @property
    def identifier(self) -> int:
        """What it is called within its transaction."""
        return self.number & 0xFFFFFFFF

    @property
    def name(self) -> str:
        """A name that nothing else has in the table, of letters and digits that the kernel keeps in eight
        octets: it goes through all names for every new one, and longer ones take it twice as long."""
        rest, digits = self.number, ""
        for _ in range(_NAME - 1):
            rest, digit = divmod(rest, len(_DIGITS))
            digits += _DIGITS[digit]
        return string.ascii_letters[rest % len(string.ascii_letters)] + digits
