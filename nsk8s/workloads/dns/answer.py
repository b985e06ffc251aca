"""A query's bytes in, an answer's out, as CoreDNS writes them. No sockets.

The wire format is dnspython's. An answer is made once for each question as it was written (letter case, EDNS)
and kept until the zone changes; it takes a microsecond from then on. Addresses are shuffled each time, as
CoreDNS's loadbalance does.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, MutableSequence

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from msgspec import Struct

from nsk8s.workloads.dns.zone import Found, Record, Zone

UDP_SIZE = 512
"""Bytes of an answer to who does not say by EDNS that he takes more (RFC 1035)."""
TCP_SIZE = 65535
HEADER = 12
MOST = 4096
"""Answers that are kept; all are forgotten when there are more."""
COOKIE = 10
ONE_QUESTION_AND_EDNS = b"\0\1\0\0\0\0\0\1"
"""The counts of a query's sections."""
KEPT_OPTIONS = frozenset({3, 9, 10, 11, 12})
"""EDNS options that an answer repeats: NSID, EXPIRE, COOKIE, TCP-KEEPALIVE, PADDING (CoreDNS, edns.go)."""
LOCAL_OPTIONS = range(65001, 65535)
LONGEST_OPTIONS = 128
"""Bytes of options that are repeated; more would leave no room for the answer."""
ADDRESSES = {"A": 16, "AAAA": 28}
"""Bytes of an address record whose name is a pointer."""

Shuffle = Callable[[MutableSequence[bytes]], None]


class Ask(Struct, frozen=True):
    """A question for the upstreams. Without `aliases` their answer is the answer; with `aliases` the answer
    is these, and what the upstreams say of their end, the name `target`."""

    query: bytes
    target: str = ""
    aliases: tuple[Record, ...] = ()


class _Kept(Struct, frozen=True):
    """An answer without its first two bytes, the query's id: `records` are in any order."""

    head: bytes
    records: tuple[bytes, ...] = ()
    tail: bytes = b""


class Answers:
    """What the DNS pods answer. `shuffle` changes the order of a list in place; `forwards` says whether there
    is anybody to ask about other names."""

    def __init__(self, zone: Zone, shuffle: Shuffle) -> None:
        self.zone = zone
        self.forwards = False
        self.synced = False
        self._shuffle = shuffle
        self._kept: tuple[dict[bytes, _Kept], dict[bytes, _Kept]] = {}, {}

    def forget(self) -> None:
        """The zone has changed."""
        for kept in self._kept:
            kept.clear()

    def reply(self, query: bytes, *, tcp: bool = False) -> bytes | Ask | None:
        """The answer to `query`, or what to ask the upstreams; None for what deserves no answer: less than a
        header, or an answer."""
        kept = self._kept[tcp].get(query[2:])
        if kept is None:
            if (answer := self._with_options(query, tcp)) is not None:
                return answer
            made = self._make(query, tcp)
            if not isinstance(made, _Kept):
                return made
            kept = made
        if not kept.records:
            return query[:2] + kept.head
        records = list(kept.records)
        self._shuffle(records)
        return b"".join((query[:2], kept.head, *records, kept.tail))

    def _with_options(self, query: bytes, tcp: bool) -> bytes | None:
        """The answer to a query with a cookie: that to the same without it, and the cookie. None for all that
        is not so simple."""
        bare, options = _parted(query)
        if not options:
            return None
        answer = self.reply(bare, tcp=tcp)
        if not isinstance(answer, bytes) or answer[10:12] == b"\0\0" or answer[-2:] != b"\0\0":
            return None
        most = TCP_SIZE if tcp else max(UDP_SIZE, int.from_bytes(bare[-8:-6], "big"))
        if len(answer) + len(options) > most:
            return None
        return b"".join((answer[:-2], len(options).to_bytes(2, "big"), options))

    def _make(self, query: bytes, tcp: bool) -> _Kept | bytes | Ask | None:
        if len(query) < HEADER or query[2] & 0x80:
            return None
        try:
            message = dns.message.from_wire(query, ignore_trailing=False)
        except (dns.exception.DNSException, ValueError, struct.error, IndexError):
            return failure(query, dns.rcode.FORMERR)
        if message.opcode() != dns.opcode.QUERY:
            return failure(query, dns.rcode.NOTIMP)
        if len(message.question) != 1 or message.answer or message.authority:
            return failure(query, dns.rcode.FORMERR)
        response = _response(message)
        if message.edns > 0:
            response.set_rcode(dns.rcode.BADVERS)
            return response.to_wire()
        question = message.question[0]
        if question.rdclass not in (dns.rdataclass.IN, dns.rdataclass.ANY):
            response.set_rcode(dns.rcode.REFUSED)
            return response.to_wire()
        if not self.synced:
            response.set_rcode(dns.rcode.SERVFAIL)
            return response.to_wire()
        labels = tuple(label.decode("latin-1") for label in question.name.canonicalize().labels[:-1])
        found = self.zone.find(labels, dns.rdatatype.to_text(question.rdtype))
        if found is None or (found.missing and found.zone != self.zone.domain and self.forwards):
            if self.forwards:
                return Ask(query)
            response.set_rcode(dns.rcode.REFUSED)
            return response.to_wire()
        if found.outside and self.forwards:
            return Ask(query, found.outside, found.records)
        kept = _encode(response, found, self.zone, _size(message, tcp=tcp))
        if sum(map(len, self._kept)) >= MOST:
            self.forget()
        if not message.options:  # cookies: the next one is another
            self._kept[tcp][query[2:]] = kept
        return kept

    def finish(self, ask: Ask, answer: bytes, *, tcp: bool = False) -> bytes:
        """The answer to a question whose name is an alias of another, with what the upstreams said."""
        message = dns.message.from_wire(ask.query)
        response = _response(message)
        response.flags |= dns.flags.AA
        _add(response.answer, ask.aliases, message.question[0].name)
        try:
            said = dns.message.from_wire(answer, one_rr_per_rrset=True)
        except (dns.exception.DNSException, ValueError, struct.error, IndexError):
            pass
        else:
            response.answer += said.answer
        return response.to_wire(max_size=_size(message, tcp=tcp), prefer_truncation=True)


def _parted(query: bytes) -> tuple[bytes, bytes]:
    """A query of the usual shape (a question, and EDNS behind it) without its EDNS options, and these, if
    they are cookies; else the query and nothing."""
    whole = query, b""
    if query[4:HEADER] != ONE_QUESTION_AND_EDNS:
        return whole
    end = HEADER
    while end < len(query) and 0 < query[end] < 64:
        end += query[end] + 1
    at = end + 5  # behind the root's label, type and class
    start = at + 11
    if query[end : end + 1] != b"\0" or query[at : at + 3] != b"\0\0\x29":
        return whole
    options = query[start:]
    if len(options) > LONGEST_OPTIONS or len(options) != int.from_bytes(query[start - 2 : start], "big"):
        return whole
    while start < len(query):
        kind, length = int.from_bytes(query[start : start + 2], "big"), query[start + 2 : start + 4]
        start += 4 + int.from_bytes(length, "big")
        if kind != COOKIE or start > len(query) or len(length) < 2:
            return whole
    return query[: len(query) - len(options) - 2] + b"\0\0", options


def question(name: str, kind: int, number: int) -> bytes:
    """A query for `name`, with the id `number`."""
    made = dns.message.make_query(name, dns.rdatatype.RdataType.make(kind), id=number)
    return made.to_wire()


def kind_of(query: bytes) -> int:
    """The type that a query asks for."""
    return int(dns.message.from_wire(query, question_only=True).question[0].rdtype)


def failure(query: bytes, rcode: int) -> bytes:
    """A header that says why there is no answer, with the question's id."""
    flags = 0x8000 | (query[2] & 0x79) << 8 | rcode
    return query[:2] + struct.pack("!HHHHH", flags, 0, 0, 0, 0)


def refusal(query: bytes, rcode: int) -> bytes:
    """The answer to a well-formed query that says only `rcode`."""
    response = _response(dns.message.from_wire(query))
    response.set_rcode(dns.rcode.Rcode.make(rcode))
    return response.to_wire()


def _response(message: dns.message.Message) -> dns.message.Message:
    """An empty answer: the question as it was written, RD and CD as they were, EDNS if there was any."""
    response = dns.message.QueryMessage(id=message.id)
    response.flags = dns.flags.QR | (message.flags & (dns.flags.RD | dns.flags.CD))
    response.question = list(message.question)
    if message.edns >= 0:
        options = [o for o in message.options if o.otype in KEPT_OPTIONS or o.otype in LOCAL_OPTIONS]
        if sum(len(o.to_wire() or b"") for o in options) > LONGEST_OPTIONS:
            options = []
        flags = message.ednsflags & dns.flags.DO
        response.use_edns(0, flags, max(message.payload, UDP_SIZE), options=options)
    return response


def _size(message: dns.message.Message, *, tcp: bool) -> int:
    if tcp:
        return TCP_SIZE
    return max(message.payload, UDP_SIZE) if message.edns >= 0 else UDP_SIZE


def _encode(response: dns.message.Message, found: Found, zone: Zone, size: int) -> _Kept:
    response.flags |= dns.flags.AA
    asked = response.question[0].name
    _add(response.answer, found.records, asked)
    _add(response.additional, found.extra, asked)
    if found.missing:
        response.set_rcode(dns.rcode.NXDOMAIN)
    if not found.records:
        _add(response.authority, (zone.soa(found.zone),), asked)
    wire = response.to_wire(max_size=size, prefer_truncation=True)
    kinds = {record.type for record in found.records}
    length = ADDRESSES.get(kinds.pop(), 0) if len(kinds) == 1 else 0
    if not length or len(found.records) < 2:
        return _Kept(wire[2:])
    start = HEADER + len(asked.to_wire() or b"") + 4
    end = start + length * int.from_bytes(wire[6:8], "big")
    pieces = tuple(wire[at : at + length] for at in range(start, end, length))
    return _Kept(wire[2:start], pieces, wire[end:])


def _add(section: list[dns.rrset.RRset], records: Iterable[Record], asked: dns.name.Name) -> None:
    """Each record as a set of its own, so that a truncated answer has as many as fit."""
    for record in records:
        name = dns.name.from_text(record.name) if record.name else asked
        kind = dns.rdatatype.from_text(record.type)
        rrset = dns.rrset.RRset(name, dns.rdataclass.IN, kind)
        rrset.add(dns.rdata.from_text(dns.rdataclass.IN, kind, record.data), record.ttl)
        section.append(rrset)
