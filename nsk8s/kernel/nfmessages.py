"""Transactions of nf_tables as netlink messages (linux/netfilter/nf_tables.h): some for each command of
nft(8), whose place is their sequence number.
"""

from __future__ import annotations

import ipaddress
import itertools
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from nsk8s.kernel import nfexpressions
from nsk8s.kernel.netlink import NLM_F_APPEND, NLM_F_CREATE, attr, attr_text, message
from nsk8s.kernel.nfdata import (
    NFT_SET_CONSTANT,
    NFT_SET_INTERVAL,
    NFT_SET_MAP,
    TYPES,
    VERDICT_TYPE,
    Anonymous,
    Concat,
    Unknown,
    be32,
    bounds,
    datum,
    nested,
    type_of,
    verdict,
)
from nsk8s.linux.nftables import Chain, Command, Element, Elements, Rule, Set, Table

_SUBSYSTEM = 10
_BEGIN, _END = 0x10, 0x11
_NEWTABLE, _DELTABLE = (_SUBSYSTEM << 8 | n for n in (0, 2))
NEWCHAIN, DELCHAIN, NEWRULE, DELRULE, NEWGEN = (_SUBSYSTEM << 8 | n for n in (3, 5, 6, 8, 15))
_NEWSET, _DELSET, _NEWSETELEM, _DELSETELEM = (_SUBSYSTEM << 8 | n for n in (9, 11, 12, 14))
_FAMILIES = {"ip": socket.AF_INET, "ip6": socket.AF_INET6, "inet": 1, "bridge": socket.AF_BRIDGE}
_HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
_POLICIES = {"accept": 1, "drop": 0}
_FLAGS = {"constant": NFT_SET_CONSTANT, "interval": NFT_SET_INTERVAL, "timeout": 0x10, "dynamic": 0x20}
_INTERVAL_END = 1
_NUMBERS = itertools.count(time.time_ns() // 62_500)
"""For anonymous sets, whose names nothing else in a table may have, whoever made it and when. The kernel
would find them names too (``__map%d``), by going through those of all sets there are."""
_MOST = 60_000
"""Octets of elements in a message: the length of an attribute has 16 bits."""


Known = dict[int, tuple[Command, list[bytes]]]
"""Commands and their messages, by their place in a transaction."""


def transaction(commands: Sequence[Command], known: Known) -> list[bytes]:
    """All messages; those of commands that are `known` at their place are taken from there, the others added.
    Raises Unknown for words that only nft itself understands."""
    found: list[bytes] = []
    for number, command in enumerate(commands):
        former = known.get(number)
        if former is None or former[0] != command:
            former = known[number] = command, list(_messages(number, command, _NUMBERS))
        found += former[1]
    return enclosed(found, len(commands))


def enclosed(messages: Iterable[bytes], number: int = 0) -> list[bytes]:
    """Messages that take effect together, or not at all; what is wrong with all of them is refused under
    `number`."""
    return [_bound(_BEGIN, 0), *messages, _bound(_END, number)]


def _bound(kind: int, number: int) -> bytes:
    return message(kind, 0, number, struct.pack(">BBH", 0, 0, _SUBSYSTEM))


def _messages(number: int, command: Command, numbers: Iterator[int]) -> Iterator[bytes]:
    header = struct.pack(">BBH", _FAMILIES[command.family], 0, 0)
    table, add = attr_text(1, command.table), command.verb == "add"

    def one(kind: int, *attributes: bytes, flags: int = NLM_F_CREATE) -> bytes:
        return message(kind, flags if add else 0, number, header + b"".join((table, *attributes)))

    match command.object:
        case Table(comment=comment):
            yield one(_NEWTABLE, be32(2, 0), *_user(6, _comment(0, comment))) if add else one(_DELTABLE)
        case Chain() as chain if add:
            yield one(NEWCHAIN, *_chain(chain))
        case Chain(name=name) if command.verb == "flush":
            yield one(DELRULE, attr_text(2, name))
        case Chain(name=name):
            yield one(DELCHAIN, attr_text(3, name))
        case Rule(chain, text):
            made = nfexpressions.rule(text, command.family, numbers)
            for held in made.sets:
                yield one(_NEWSET, *_anonymous(held))
                for part in _parts(_keyed(held)):
                    yield one(_NEWSETELEM, be32(4, held.identifier), nested(3, part))
            note = _user(7, _comment(0, made.comment))
            expressions = nested(4, made.expressions)
            yield one(NEWRULE, attr_text(2, chain), expressions, *note, flags=NLM_F_CREATE | NLM_F_APPEND)
        case Set() as held_set if add:
            yield one(_NEWSET, *_set(held_set, next(numbers)))
        case Set(name=name):
            yield one(_DELSET, attr_text(2, name))
        case Elements(of, elements):
            for part in _parts(_elements(of, elements, whole=add)):
                yield one(_NEWSETELEM if add else _DELSETELEM, attr_text(2, of.name), nested(3, part))


def _comment(kind: int, text: str) -> bytes:
    """nft's own notes to an object: type, length, octets."""
    if len(text.encode()) > 126:
        raise Unknown("a long comment")
    return bytes([kind, len(text.encode()) + 1]) + text.encode() + b"\0" if text else b""


def _user(kind: int, notes: bytes) -> list[bytes]:
    return [attr(kind, notes)] if notes else []


def _chain(chain: Chain) -> Iterator[bytes]:
    yield attr_text(3, chain.name)
    if chain.hook:
        if chain.hook.hook not in _HOOKS or chain.hook.policy not in _POLICIES:
            raise Unknown(chain.hook.hook)
        number = be32(1, _HOOKS[chain.hook.hook])
        yield nested(4, number, struct.pack("=HH", 8, 2), struct.pack(">i", chain.hook.priority))
        yield be32(5, _POLICIES[chain.hook.policy])
        yield attr_text(7, chain.hook.type)
    yield from _user(12, _comment(0, chain.comment))


def _set(one: Set, number: int) -> Iterator[bytes]:
    key = type_of(one.key)
    if "interval" in one.flags and len(key.types) > 1:
        raise Unknown("intervals in concatenations")
    flags = sum(_FLAGS[flag] for flag in one.flags) | (NFT_SET_MAP if one.data else 0)
    data = None if one.data in ("", "verdict") else type_of(one.data)
    yield attr_text(2, one.name)
    yield _types(flags, key, data, verdicts=one.data == "verdict")
    if one.size:
        yield nested(9, be32(1, one.size))
    yield be32(10, number & 0xFFFFFFFF)
    if one.timeout:
        yield struct.pack("=HH", 12, 11) + struct.pack(">Q", one.timeout * 1000)
    yield from _user(13, _byteorders(key, data) + _comment(7, one.comment))


def _anonymous(one: Anonymous) -> Iterator[bytes]:
    if one.flags & NFT_SET_INTERVAL and (one.data or one.verdicts):
        raise Unknown("a map of intervals")
    yield attr_text(2, one.name)
    yield _types(one.flags, one.key, one.data, verdicts=one.verdicts)
    if not one.flags & NFT_SET_INTERVAL:
        yield nested(9, be32(1, len(one.elements)))
    yield be32(10, one.identifier)
    yield from _user(13, _byteorders(one.key, one.data))


@lru_cache(1024)
def _types(flags: int, key: Concat, data: Concat | None, *, verdicts: bool) -> bytes:
    of = (VERDICT_TYPE, 16) if verdicts else (data.number, data.length) if data else ()
    numbers = (flags, key.number, key.length, *of)
    return b"".join(be32(kind, number) for kind, number in enumerate(numbers, 3))


@lru_cache(1024)
def _byteorders(key: Concat, data: Concat | None) -> bytes:
    """How numbers are to be printed: those of the kernel's own (1) or of packets (2)."""
    notes = b""
    for kind, of in enumerate((key, data)):
        if of and len(of.types) == 1:
            host = of.types[0].number in (
                TYPES["integer"].number,
                TYPES["mark"].number,
            )
            notes += bytes([kind, 4]) + struct.pack("=I", 1 if host else 2)
    return notes


def _parts(elements: Iterable[bytes]) -> Iterator[bytes]:
    """Elements together, in as few messages as will do."""
    part: list[bytes] = []
    size = 0
    for one in elements:
        if size + len(one) > _MOST:
            yield b"".join(part)
            part, size = [], 0
        part.append(one)
        size += len(one)
    if part:
        yield b"".join(part)


def _keyed(held: Anonymous) -> Iterator[bytes]:
    if held.flags & NFT_SET_INTERVAL:
        yield from _ranges(held.key, [key for key, _ in held.elements])
        return
    for key, target in held.elements:
        data = []
        if held.verdicts:
            data = [nested(2, verdict(target))]
        elif held.data:
            data = [datum(2, held.data.encode(target))]
        yield nested(1, datum(1, held.key.encode(key)), *data)


def _elements(of: Set, elements: Mapping[str, Element], *, whole: bool) -> Iterator[bytes]:
    key = type_of(of.key)
    if "interval" in of.flags:
        if of.data or not whole or any(element.comment for element in elements.values()):
            raise Unknown("changes of intervals")
        yield from _ranges(key, list(elements))
        return
    for text, element in elements.items():
        yield _element(of.key, of.data, text, element) if whole else nested(1, datum(1, key.encode(text)))


@lru_cache(8192)
def _element(key: str, data: str, text: str, element: Element) -> bytes:
    # Most elements are on every node.
    parts = [datum(1, type_of(key).encode(text))]
    if data == "verdict":
        parts.append(nested(2, verdict(element.value)))
    elif data:
        parts.append(datum(2, type_of(data).encode(element.value)))
    return nested(1, *parts, *_user(6, _comment(0, element.comment)))


def _ranges(key: Concat, texts: list[str]) -> Iterator[bytes]:
    """Intervals as the kernel keeps them: where each begins, and where what follows it does."""
    of = key.types[0]
    if of.number not in (TYPES["ipv4_addr"].number, TYPES["ipv6_addr"].number):
        raise Unknown("intervals of other things than addresses")
    found = sorted(bounds(text, of) or (of.encode(text),) * 2 for text in texts)
    edges: list[tuple[bytes, int]] = []
    if any(found[0][0]):
        edges.append((bytes(of.length), _INTERVAL_END))
    for first, last in found:
        if edges and edges[-1][0] == first:
            edges.pop()
        edges.append((first, 0))
        if (end := int(ipaddress.ip_address(last)) + 1) < 1 << 8 * of.length:
            edges.append((end.to_bytes(of.length, "big"), _INTERVAL_END))
    for data, flags in edges:
        yield nested(1, datum(1, data), *([be32(3, flags)] if flags else []))
