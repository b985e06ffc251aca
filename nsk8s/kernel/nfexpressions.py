"""Rules and elements of nft(8) as the kernel takes them: the words of ``nft list`` in, attributes of
nfnetlink out (linux/netfilter/nf_tables.h).

The vocabulary is what clusters write, not all that nft knows: `Unknown` is raised for the rest, and whoever
asked lets nft itself do it. Expressions come in the order and with the registers that nft gives them, so that
``nft list`` says them in the same words again. Numbers of packets are big-endian, those of the kernel (marks,
connection states) are in the host's order, as nft has it.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from nsk8s.kernel.netlink import attr, attr_text
from nsk8s.kernel.nfdata import (
    PROTOCOLS,
    TYPES,
    Anonymous,
    Concat,
    Type,
    Unknown,
    be32,
    bounds,
    datum,
    interface,
    native,
    nested,
    padded,
    port,
    type_of,
    verdict,
)

_STATES = {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}
_STATUSES = {"seen-reply": 2, "assured": 4, "confirmed": 8, "snat": 16, "dnat": 32}
_ADDRESS_TYPES = {"unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5}
_NETWORK, _TRANSPORT = 1, 2
_EQ, _NEQ, _LTE, _GTE = 0, 1, 3, 5
_INV = 1
_TOKEN = re.compile(r'"[^"]*"|\{|\}|,|[^\s,{}]+')


class Encoded(NamedTuple):
    """A rule: its expressions as the payload of NFTA_RULE_EXPRESSIONS, its comment, the sets it brings."""

    expressions: bytes
    comment: str
    sets: tuple[Anonymous, ...]


def _register(slot: int) -> int:
    """The register that begins at a 32-bit slot, by the shortest name the kernel has for it."""
    return 1 + slot // 4 if slot % 4 == 0 else 8 + slot


@lru_cache(4096)
def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, attr_text(1, name), nested(2, *attributes))


class _Selector(NamedTuple):
    """What of a packet is looked at: its type, and the expression that loads it into a slot."""

    type: Type
    load: Callable[[int], bytes]


def _payload(base: int, offset: int, length: int) -> Callable[[int], bytes]:
    def load(slot: int) -> bytes:
        at = (be32(2, base), be32(3, offset), be32(4, length))
        return _expression("payload", be32(1, _register(slot)), *at)

    return load


def _meta(key: int) -> Callable[[int], bytes]:
    return lambda slot: _expression("meta", be32(1, _register(slot)), be32(2, key))


def _ct(key: int) -> Callable[[int], bytes]:
    return lambda slot: _expression("ct", be32(1, _register(slot)), be32(2, key))


_L4PROTO = _Selector(TYPES["inet_proto"], _meta(16))
_NFPROTO = _Selector(TYPES["nf_proto"], _meta(15))
_MARK = _Selector(TYPES["mark"], _meta(3))
_SERVICE = TYPES["inet_service"]
_SELECTORS = {
    ("ip", "saddr"): _Selector(TYPES["ipv4_addr"], _payload(_NETWORK, 12, 4)),
    ("ip", "daddr"): _Selector(TYPES["ipv4_addr"], _payload(_NETWORK, 16, 4)),
    ("ip6", "saddr"): _Selector(TYPES["ipv6_addr"], _payload(_NETWORK, 8, 16)),
    ("ip6", "daddr"): _Selector(TYPES["ipv6_addr"], _payload(_NETWORK, 24, 16)),
    ("meta", "l4proto"): _L4PROTO,
    ("meta", "nfproto"): _NFPROTO,
    ("meta", "mark"): _MARK,
    ("th", "sport"): _Selector(_SERVICE, _payload(_TRANSPORT, 0, 2)),
    ("th", "dport"): _Selector(_SERVICE, _payload(_TRANSPORT, 2, 2)),
    **{
        (protocol, word): _Selector(_SERVICE, _payload(_TRANSPORT, offset, 2))
        for protocol in ("tcp", "udp", "sctp")
        for word, offset in (("sport", 0), ("dport", 2))
    },
}
_INTERFACES = {
    "iifname": _Selector(TYPES["ifname"], _meta(6)),
    "oifname": _Selector(TYPES["ifname"], _meta(7)),
}
_BITS = {("ct", "state"): (_ct(0), _STATES), ("ct", "status"): (_ct(2), _STATUSES)}
_NATS = {"ip": socket.AF_INET, "ip6": socket.AF_INET6}


def rule(text: str, family: str, numbers: Iterator[int]) -> Encoded:
    """A line of ``nft list`` for a chain of a table of `family`; `numbers` gives each anonymous set its own.
    Raises Unknown."""
    return _read(text, family, numbers) if "{" in text else _without_sets(text, family)


@lru_cache(8192)
def _without_sets(text: str, family: str) -> Encoded:
    # Most rules are on every node.
    return _read(text, family, iter(()))


def _read(text: str, family: str, numbers: Iterator[int]) -> Encoded:
    try:
        return _Rule(text, family, numbers).encoded()
    except (KeyError, ValueError, OSError, struct.error) as error:
        raise Unknown(f"{text}: {error}") from error


class _Rule:
    """A rule while it is read, word by word."""

    def __init__(self, text: str, family: str, numbers: Iterator[int]) -> None:
        if family not in ("ip", "ip6", "inet"):
            raise Unknown(f"family {family}")
        self._family = family
        self._numbers = numbers
        self._words = _TOKEN.findall(text)
        self._at = 0
        self._found: list[bytes] = []
        self._sets: list[Anonymous] = []
        self._comment = ""
        self._network = {"ip": "ip", "ip6": "ip6"}.get(family, "")  # what is known of the packet by now
        self._transport = ""

    def encoded(self) -> Encoded:
        """All of it."""
        while self._at < len(self._words):
            self._statement()
        return Encoded(b"".join(self._found), self._comment, tuple(self._sets))

    def _peek(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._words[at] if at < len(self._words) else ""

    def _next(self, *wanted: str) -> str:
        word = self._peek()
        if not word or (wanted and word not in wanted):
            raise Unknown(word or "end of rule")
        self._at += 1
        return word

    def _add(self, name: str, *attributes: bytes) -> None:
        self._found.append(_expression(name, *attributes))

    def _statement(self) -> None:
        match self._peek():
            case "comment":
                self._next()
                self._comment = self._next().strip('"')
            case "accept" | "drop" | "return":
                self._add("immediate", be32(1, 0), nested(2, verdict(self._next())))
            case "jump" | "goto":
                self._add("immediate", be32(1, 0), nested(2, verdict(f"{self._next()} {self._next()}")))
            case "reject":
                self._next()
                kind, code = {"ip": (0, 3), "ip6": (0, 4), "inet": (2, 1)}[self._family]
                self._add("reject", be32(1, kind), attr(2, bytes([code])))
            case "counter":
                for word in ("counter", "packets", "0", "bytes", "0"):
                    self._next(word)
                self._add("counter", attr(1, bytes(8)), attr(2, bytes(8)))
            case "masquerade":
                self._next()
                fully = self._peek() == "fully-random" and bool(self._next())
                self._add("masq", *([be32(1, 0x10)] if fully else ()))
            case "dnat":
                self._dnat()
            case "update":
                self._update()
            case "numgen":
                self._numgen()
                self._verdict_map(Concat((TYPES["integer"],)))
            case "fib":
                self._fib()
            case "ct":
                self._bits(*_BITS[self._next(), self._next("state", "status")])
            case "meta" if self._peek(2) == "set":
                self._set_mark()
            case _:
                self._match()

    def _update(self) -> None:
        self._next("update")
        name = self._next()[1:]
        self._next("{")
        selectors = self._selectors()
        self._next("}")
        self._load(selectors)
        self._add("dynset", attr_text(1, name), be32(3, 1), be32(4, 1), be32(2, 0))

    def _numgen(self) -> int:
        for word in ("numgen", "random", "mod"):
            self._next(word)
        modulus = int(self._next())
        self._add("numgen", be32(1, 1), be32(2, modulus), be32(3, 1), be32(4, 0))
        return modulus

    def _dnat(self) -> None:
        self._next("dnat")
        if self._peek() in _NATS:
            family = _NATS[self._next()]
            self._next("to")
            self._numgen()
            self._next("map")
            address = "ipv4_addr" if family == socket.AF_INET else "ipv6_addr"
            target = type_of(f"{address} . inet_service")
            self._lookup(self._anonymous(Concat((TYPES["integer"],)), target), 1)
            second = _register(padded(target.types[0].length) // 4)
        else:
            self._next("to")
            ip, _, number = self._next().rpartition(":")
            family = socket.AF_INET6 if ip.startswith("[") else socket.AF_INET
            packed = socket.inet_pton(family, ip.strip("[]"))
            second = 2
            self._add("immediate", be32(1, 1), datum(2, packed))
            self._add("immediate", be32(1, 2), datum(2, port(number)))
        self._add(
            "nat",
            be32(1, 1),
            be32(2, family),
            *(be32(k, 1) for k in (3, 4)),
            *(be32(k, second) for k in (5, 6)),
        )

    def _fib(self) -> None:
        self._next("fib")
        flags = {"saddr": 1, "daddr": 2}[self._next("saddr", "daddr")]
        self._next("type")
        data = struct.pack("=I", _ADDRESS_TYPES[self._next()])
        self._add("fib", be32(1, 1), be32(2, 3), be32(3, flags))
        self._compare(_EQ, data)

    def _bits(self, load: Callable[[int], bytes], names: Mapping[str, int]) -> None:
        wanted = names[self._next()]
        while self._peek() == ",":
            self._next()
            wanted |= names[self._next()]
        self._found.append(load(0))
        self._bitwise(struct.pack("=I", wanted), bytes(4))
        self._compare(_NEQ, bytes(4))

    def _set_mark(self) -> None:
        for word in ("meta", "mark", "set", "meta", "mark"):
            self._next(word)
        sign, number = self._next("|", "^", "&"), int(self._next(), 0)
        mask = {"|": ~number & 0xFFFFFFFF, "^": 0xFFFFFFFF, "&": number}[sign]
        self._found.append(_MARK.load(0))
        self._bitwise(struct.pack("=I", mask), struct.pack("=I", 0 if sign == "&" else number))
        self._add("meta", be32(2, 3), be32(3, 1))

    def _bitwise(self, mask: bytes, xor: bytes) -> None:
        data = (be32(3, len(mask)), be32(6, 0), datum(4, mask), datum(5, xor))
        self._add("bitwise", be32(1, 1), be32(2, 1), *data)

    def _compare(self, operation: int, data: bytes) -> None:
        self._add("cmp", be32(1, 1), be32(2, operation), datum(3, data))

    # --- matches ------------------------------------------------------------------------------------

    def _selectors(self) -> list[tuple[str, _Selector]]:
        """What is looked at, with the word for its layer."""
        found = []
        while True:
            word = self._next()
            if word in _INTERFACES:
                found.append(("meta", _INTERFACES[word]))
            elif (selector := _SELECTORS.get((word, self._peek()))) is not None:
                self._next()
                found.append((word, selector))
            else:
                raise Unknown(f"{word} {self._peek()}")
            if self._peek() != ".":
                return found
            self._next()

    def _load(self, selectors: list[tuple[str, _Selector]]) -> None:
        for word, _ in selectors:
            self._depend(word)
        slot = 0
        for _, selector in selectors:
            self._found.append(selector.load(slot))
            slot += padded(selector.type.length) // 4

    def _depend(self, word: str) -> None:
        """Make sure that a packet has the header that is looked into, as nft does without a word."""
        if word in ("ip", "ip6") and self._network != word:
            self._found.append(_NFPROTO.load(0))
            self._compare(_EQ, bytes([_NATS[word]]))
            self._network = word
        elif word in ("tcp", "udp", "sctp") and self._transport != word:
            self._found.append(_L4PROTO.load(0))
            self._compare(_EQ, bytes([PROTOCOLS[word]]))
            self._transport = word

    def _match(self) -> None:
        selectors = self._selectors()
        key = Concat(tuple(selector.type for _, selector in selectors))
        first = selectors[0][1]
        if self._peek() == "&" and first is _MARK:
            self._masked()
            return
        if self._peek() == "vmap":
            self._load(selectors)
            self._verdict_map(key)
            return
        negated = self._peek() == "!=" and bool(self._next())
        if self._peek() == "{":
            self._load(selectors)
            self._lookup(self._anonymous(key, None), flags=_INV if negated else 0)
        elif self._peek().startswith("@"):
            self._load(selectors)
            self._lookup(self._next()[1:], flags=_INV if negated else 0)
        elif len(selectors) == 1:
            self._value(*selectors[0], negated=negated)
        else:
            raise Unknown(self._peek())

    def _masked(self) -> None:
        self._next("&")
        mask = native(self._next())
        operation = {"==": _EQ, "!=": _NEQ}[self._next("==", "!=")]
        self._found.append(_MARK.load(0))
        self._bitwise(mask, bytes(4))
        self._compare(operation, native(self._next()))

    def _value(self, word: str, selector: _Selector, *, negated: bool) -> None:
        text = self._next()
        self._depend(word)
        operation = _NEQ if negated else _EQ
        if "/" in text:
            self._network_of(word, selector, text, operation)
            return
        self._found.append(selector.load(0))
        if selector.type.number == TYPES["ifname"].number:
            name = text.strip('"')
            self._compare(operation, name[:-1].encode() if name.endswith("*") else interface(name))
        elif ends := bounds(text, selector.type):
            first, last = ends
            if negated:
                self._add("range", be32(1, 1), be32(2, 1), datum(3, first), datum(4, last))
            else:
                self._compare(_GTE, first)
                self._compare(_LTE, last)
        else:
            data = selector.type.encode(text)
            self._compare(operation, data)
            if not negated and selector is _L4PROTO:
                self._transport = text
            elif not negated and selector is _NFPROTO:
                self._network = {"ipv4": "ip", "ipv6": "ip6"}[text]

    def _network_of(self, word: str, selector: _Selector, text: str, operation: int) -> None:
        """Whole octets are compared alone, as nft does."""
        network = ipaddress.ip_network(text)
        octets, bits = divmod(network.prefixlen, 8)
        if network.prefixlen == 0 or word not in ("ip", "ip6"):
            raise Unknown(text)
        if bits:
            self._found.append(selector.load(0))
            self._bitwise(network.netmask.packed, bytes(selector.type.length))
            self._compare(operation, network.network_address.packed)
        else:
            offset = {"ip": {True: 12, False: 16}, "ip6": {True: 8, False: 24}}[word][
                selector is _SELECTORS[word, "saddr"]
            ]
            self._found.append(_payload(_NETWORK, offset, octets)(0))
            self._compare(operation, network.network_address.packed[:octets])

    def _verdict_map(self, key: Concat) -> None:
        self._next("vmap")
        if self._peek() == "{":
            self._lookup(self._anonymous(key, None, verdicts=True), 0)
        else:
            self._lookup(self._next()[1:], 0)

    def _anonymous(self, key: Concat, data: Concat | None, *, verdicts: bool = False) -> Anonymous:
        self._next("{")
        elements = []
        while self._peek() != "}":
            words = []
            while self._peek() not in (",", "}"):
                words.append(self._next())
            if self._peek() == ",":
                self._next()
            said, _, target = " ".join(words).partition(" : ")
            elements.append((said, target))
        self._next("}")
        made = Anonymous(next(self._numbers), key, data, verdicts, tuple(elements))
        self._sets.append(made)
        return made

    def _lookup(self, held: Anonymous | str, destination: int | None = None, flags: int = 0) -> None:
        name = held if isinstance(held, str) else held.name
        number = [] if isinstance(held, str) else [be32(4, held.identifier)]
        into = [] if destination is None else [be32(3, destination)]
        self._add("lookup", attr_text(1, name), be32(2, 1), *into, *number, be32(5, flags))
