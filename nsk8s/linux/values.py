"""The nouns of a network namespace: frozen, hashable, equal by content.

Rules for this file: a value holds what the kernel can be asked to hold and can be asked about
afterwards, in the kernel's own words (rtnetlink(7), ip(8), bridge(8)). `why` says which intention
put the value there; it takes no part in equality. Addresses are text in their shortest form,
networks text in CIDR form with the host bits cleared, MACs lower-case with colons. Whether an address is
of IPv4 or IPv6 is to be seen from it: `family`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

from nsk8s.linux import nftables

Kind = Literal["veth", "bridge", "vxlan"]
Family = Literal[4, 6]


def family(address: str) -> Family:
    """The family of an address or network."""
    return 6 if ":" in address else 4


class Peer(NamedTuple):
    """The other end of a veth pair: its namespace and its name there."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Vxlan:
    """The part of a VXLAN link that is its own (RFC 7348): `vni`, UDP `port`, outer source `local`,
    lower device `dev`; learning is always off (addresses come from FDB entries)."""

    vni: int
    port: int
    local: str
    dev: str


@dataclass(frozen=True, slots=True)
class Link:
    """A network device. A veth pair is created from its *inner* end, the one that names its `peer`;
    the outer end (a bridge port or a host's end) has `peer=None` and appears with it.

    `mtu` in bytes. `index` is the ifindex asked for at creation, 0 for the kernel's choice; it
    takes no part in equality. `conf` holds IPv4 per-device sysctls (net.ipv4.conf.<dev>.<key>)
    that must be in force before the link goes up, sorted by key; only what was asked for is
    compared. Lo is not a Link here: every namespace has it, up.
    """

    name: str
    kind: Kind
    mtu: int
    mac: str = ""
    up: bool = True
    master: str = ""
    hairpin: bool = False
    peer: Peer | None = None
    vxlan: Vxlan | None = None
    conf: tuple[tuple[str, int], ...] = ()
    index: int = field(default=0, compare=False)
    why: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Address:
    """An address with its prefix length (``10.244.1.2/24``) on a device. One of IPv6 is in use at once,
    without duplicate address detection (``nodad``)."""

    dev: str
    cidr: str
    why: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Route:
    """A unicast route of the main table that somebody configured (the kernel's own connected routes
    are not listed). `dst` is a CIDR, or ``default``; `via` may be empty (on-link route). A default route
    is of the family of its `via`, and without one of IPv4."""

    dst: str
    dev: str
    via: str = ""
    onlink: bool = False
    src: str = ""
    why: str = field(default="", compare=False)

    @property
    def family(self) -> Family:
        """Which of the two main tables it is in."""
        return family(self.via if self.dst == "default" else self.dst)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent neighbour entry (of ARP, or of NDP for IPv6)."""

    dev: str
    address: str
    mac: str
    why: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """A permanent forwarding entry of a VXLAN device: frames for `mac` go to the host `dst`."""

    dev: str
    mac: str
    dst: str
    why: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A sysctl of the namespace, named as sysctl(8) names it (``net.ipv4.ip_forward``)."""

    key: str
    value: str
    why: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Chain:
    """An iptables chain. `rules` are in the save form of iptables-save(8) without ``-A NAME``.

    In a built-in chain (`builtin`), `rules` are only those that are ours: the first `top` of them
    stand before everything else in the chain, the others after it; foreign rules are left alone.
    """

    name: str
    rules: tuple[str, ...] = ()
    builtin: bool = False
    top: int = 0


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The iptables or ip6tables rules of one namespace: table name -> chain name -> chain."""

    tables: Mapping[str, Mapping[str, Chain]] = field(default_factory=lambda: MappingProxyType({}))

    __hash__ = None  # type: ignore[assignment]  # holds mappings: equal by content, never a key


@dataclass(frozen=True, slots=True)
class NamespaceState:
    """Everything we want one namespace to hold, or everything of ours that it holds.

    `hostname` is the UTS name given at creation (empty: none). Links keep the order in which they
    must be made. `rules` are those of iptables, `rules6` those of ip6tables.
    """

    name: str
    hostname: str = ""
    links: tuple[Link, ...] = ()
    addresses: frozenset[Address] = frozenset()
    routes: frozenset[Route] = frozenset()
    neighbours: frozenset[Neighbour] = frozenset()
    fdb: frozenset[FdbEntry] = frozenset()
    sysctls: frozenset[Sysctl] = frozenset()
    rules: Ruleset = field(default_factory=Ruleset)
    rules6: Ruleset = field(default_factory=Ruleset)
    nft: nftables.Tables = field(default_factory=lambda: nftables.EMPTY)

    __hash__ = None  # type: ignore[assignment]  # holds mappings: equal by content, never a key


@dataclass(frozen=True, slots=True)
class Namespace:
    """The namespace itself, as the object of an `Op`."""

    name: str
    hostname: str = ""
    why: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class VethPair:
    """Both ends of a pair, as the object of an `Op` in the inner end's namespace."""

    inner: Link
    outer: Link
    why: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Restore:
    """Input for ``iptables-restore --noflush``, or ip6tables-restore, as the object of an `Op`."""

    script: str
    family: Family = 4
    why: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Transaction:
    """Commands of nft(8) that take effect all at once or not at all, as the object of an `Op`."""

    commands: tuple[nftables.Command, ...]
    why: str = field(default="", compare=False)


Value = Namespace | Link | VethPair | Address | Route | Neighbour | FdbEntry | Sysctl | Restore | Transaction
Verb = Literal["add", "change", "delete"]


@dataclass(frozen=True, slots=True)
class Op:
    """One change to one namespace. The same value drives the kernel, the model and the dry run."""

    verb: Verb
    namespace: str
    value: Value
