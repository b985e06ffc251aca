"""Tables of nft(8) as values, and the one transaction that leads from some tables to others.

A table belongs to whoever made it, whole: there are no foreign chains in a table of ours, and what others
keep in tables of their own is not looked at. Names, types and rules are the words in which ``nft list table``
prints them (`nfttext` writes and reads that form), so that what is compared is what a person sees.

Elements of a set that the packets themselves fill (flag ``dynamic``) are not ours and are never listed here.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import compress
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

T = TypeVar("T")
Family = Literal["ip", "ip6", "inet", "bridge"]
Key = tuple[str, str]
"""What names a table: its family and its name."""

_QUOTED = re.compile(r'"[^"]*"')
_TARGET = re.compile(r"\b(?:jump|goto) ([^\s,}]+)")
_LOOKUP = re.compile(r"@([^\s,}]+)")


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


class Hook(NamedTuple):
    """What makes a chain a base chain: its `type` (``filter``, ``nat``, ``route``), the hook and the priority
    at which packets enter it, and what becomes of those that no rule decides about."""

    type: str
    hook: str
    priority: int
    policy: str = "accept"


class Chain(Struct, frozen=True):
    """A chain: a base chain if it has a `hook`. `rules` are lines of ``nft list``, comments included."""

    name: str
    rules: tuple[str, ...] = ()
    hook: Hook | None = None
    comment: str = ""


class Element(NamedTuple):
    """What belongs to a key of a set or map: the `value` (``goto CHAIN``, ``10.0.0.1 . 80``; empty in a set),
    and a comment."""

    value: str = ""
    comment: str = ""


PLAIN = Element()
"""An element of a set without a comment: ``dict.fromkeys(addresses, PLAIN)``."""


class Set(Struct, frozen=True):
    """A set, or a map if it has a type of `data` (``verdict``, ``ipv4_addr . inet_service``).

    `key` is the type of the keys (``ipv4_addr . inet_proto . inet_service``), `flags` some of ``constant``,
    ``dynamic``, ``interval`` and ``timeout`` in that order, `timeout` in seconds, `size` the most elements it
    takes (0: no limit). Intervals among the keys of a set must not overlap.
    """

    name: str
    key: str
    data: str = ""
    flags: tuple[str, ...] = ()
    timeout: int = 0
    size: int = 0
    comment: str = ""
    elements: Mapping[str, Element] = field(default_factory=_nothing)

    __hash__ = None  # type: ignore[assignment]  # holds a mapping: equal by content, never a key

    @property
    def noun(self) -> str:
        """What nft calls it."""
        return "map" if self.data else "set"


class Table(Struct, frozen=True):
    """One table with its chains and sets (maps are sets), each by its name."""

    family: Family
    name: str
    comment: str = ""
    chains: Mapping[str, Chain] = field(default_factory=_nothing)
    sets: Mapping[str, Set] = field(default_factory=_nothing)

    __hash__ = None  # type: ignore[assignment]  # holds mappings: equal by content, never a key

    @property
    def key(self) -> Key:
        """What names it."""
        return self.family, self.name


Tables = Mapping[Key, Table]
EMPTY: Tables = MappingProxyType({})
"""No table at all."""


def tables(*of: Table) -> Tables:
    """Some tables by their keys."""
    return MappingProxyType({table.key: table for table in of})


class Rule(NamedTuple):
    """A rule at the end of a chain, as the object of a `Command`."""

    chain: str
    text: str


class Elements(NamedTuple):
    """Elements of one set or map, as the object of a `Command`; of the set itself what it is, empty."""

    set: Set
    elements: Mapping[str, Element]


class Command(NamedTuple):
    """One command to nft(8). A table stands for itself when it is added (its chains and sets have commands of
    their own) and for all that it holds when it is deleted; so do chains and sets."""

    verb: Literal["add", "delete", "flush"]
    family: str
    table: str
    object: Table | Chain | Set | Rule | Elements


def transaction(actual: Tables, desired: Tables) -> tuple[Command, ...]:
    """What turns `actual` into `desired`, for one transaction; nothing if nothing differs.

    Touched is only what differs: elements one by one, chains whole (flushed and filled anew), and a set whose
    type, flags or comment are others together with the chains that look into it. A table whose comment or
    base chains are others is made anew. What is the same object costs a look-up.
    """
    if actual is desired:
        return ()
    found: list[Command] = []
    for key, table in actual.items():
        if key not in desired:
            found.append(Command("delete", *key, _bare(table)))
    for key, want in desired.items():
        have = actual.get(key)
        if have is want:
            continue
        chains = _others(have.chains, want.chains) if have else list(want.chains.values())
        if have is not None and not _amendable(have, want, chains):
            found.append(Command("delete", *key, _bare(have)))
            have, chains = None, list(want.chains.values())
        if have is None:
            found.append(Command("add", *key, _bare(want)))
        found += _amended(have or _bare(want), want, chains)
    return tuple(found)


PIECE = 1500
"""Commands in a transaction, as far as it can be broken up: the kernel's work for one that brings sets along
grows with the square of its length (__nft_set_trans_bind)."""


def pieces(commands: tuple[Command, ...], most: int = PIECE) -> tuple[tuple[Command, ...], ...]:
    """The same in several transactions, of which only the last can be felt by a packet: what is new and
    cannot be reached before something leads there comes first, in pieces. A short one stays whole, and so
    does one that deletes what it makes anew."""
    if len(commands) <= most or any(
        c.verb == "delete" and isinstance(c.object, Table | Set) for c in commands
    ):
        return (commands,) if commands else ()
    new = {
        (c.family, c.table, c.object.name)
        for c in commands
        if c.verb == "add" and isinstance(c.object, Chain) and c.object.hook is None
    }

    def unreachable(command: Command) -> bool:
        match command.object:
            case Table() | Set():
                return command.verb == "add"
            case Chain(name=name) | Rule(chain=name):
                return command.verb == "add" and (command.family, command.table, name) in new
            case _:
                return False

    ahead = [command for command in commands if unreachable(command)]
    rest = tuple(command for command in commands if not unreachable(command))
    parts = [tuple(ahead[at : at + most]) for at in range(0, len(ahead), most)]
    return tuple(part for part in (*parts, rest) if part)


def _bare(table: Table) -> Table:
    return Table(table.family, table.name, table.comment)


def _unlike(have: Mapping[str, T], want: Mapping[str, T]) -> Iterator[str]:
    """The names of what is not the very same object in both: of 30,000 elements in a millisecond."""
    return compress(want, map(operator.is_not, map(have.get, want), want.values()))


def _others(have: Mapping[str, T], want: Mapping[str, T]) -> list[T]:
    """What of `want` is not the very same object in `have`."""
    return [want[name] for name in _unlike(have, want)] if have is not want else []


def _gone(have: Mapping[str, T], want: Mapping[str, T]) -> list[T]:
    """What of `have` has no place in `want`."""
    return [have[name] for name in sorted(have.keys() - want.keys())] if have is not want else []


def _amendable(have: Table, want: Table, chains: Iterable[Chain]) -> bool:
    """Whether one can become the other piece by piece; `chains` are those that are others."""
    return have.comment == want.comment and all(
        (old := have.chains.get(new.name)) is None or (old.hook == new.hook and old.comment == new.comment)
        for new in chains
    )


def _amended(have: Table, want: Table, others: Iterable[Chain]) -> Iterator[Command]:
    """The commands for one table: what leads to a thing goes before it, and comes after it."""
    at = want.key
    chains, sets = have.chains, have.sets
    gone, lost = _gone(chains, want.chains), _gone(sets, want.sets)
    same = [(old, new) for new in _others(sets, want.sets) if (old := sets.get(new.name)) is not None]
    recast = [(old, new) for old, new in same if not _alike(old, new)]
    again = {old.name for old, _ in recast}
    changed = [
        chain for chain in others if (now := chains.get(chain.name)) is None or now.rules != chain.rules
    ]
    if again:
        known = {chain.name for chain in changed}
        changed += [
            new
            for name, new in want.chains.items()
            if name not in known and any(not again.isdisjoint(looks_into(rule)) for rule in new.rules)
        ]
    for held in (*(chains[c.name] for c in changed if c.name in chains), *gone):
        if held.rules:
            yield Command("flush", *at, Chain(held.name))
    for old, _ in recast:
        yield Command("delete", *at, _empty(old))
    fresh = [new for name, new in want.sets.items() if name not in sets] + [new for _, new in recast]
    for new in fresh:
        yield Command("add", *at, _empty(new))
    for chain in changed:
        if chain.name not in chains:
            yield Command("add", *at, replace(chain, rules=()))
    for chain in changed:
        for rule in chain.rules:
            yield Command("add", *at, Rule(chain.name, rule))
    for new in fresh:
        if new.elements:
            yield Command("add", *at, Elements(_empty(new), new.elements))
    for old, new in same:
        if old.elements is not new.elements and _alike(old, new):
            yield from _exchanged(old, new, at)
    for old in lost:
        yield Command("delete", *at, _empty(old))
    for chain in gone:
        yield Command("delete", *at, Chain(chain.name))


def _exchanged(old: Set, new: Set, at: Key) -> Iterator[Command]:
    have, want = old.elements, new.elements
    missing = {key: want[key] for key in _unlike(have, want) if have.get(key) != want[key]}
    extra = {key: have[key] for key in missing if key in have}
    if len(have) + len(missing) - len(extra) != len(want):
        extra |= {key: have[key] for key in sorted(have.keys() - want.keys())}
    if extra:
        yield Command("delete", *at, Elements(_empty(old), extra))
    if missing:
        yield Command("add", *at, Elements(_empty(new), missing))


def _empty(one: Set) -> Set:
    return replace(one, elements=_nothing()) if one.elements else one


def _alike(one: Set, other: Set) -> bool:
    """Whether two sets differ in their elements at most."""
    return (one.key, one.data, one.flags, one.timeout, one.size, one.comment) == (
        (other.key, other.data, other.flags, other.timeout, other.size, other.comment)
    )


def settled(actual: Tables, desired: Tables) -> Tables:
    """`actual` with whatever equals what is desired in the words of `desired`: the very same object, if
    nothing is to be done."""
    same = {key: desired[key] if desired.get(key) == table else table for key, table in actual.items()}
    return desired if same == desired else MappingProxyType(same)


def apply(held: Tables, commands: tuple[Command, ...]) -> Tables:
    """What nft makes of the tables `held`: the model of the kernel.

    Raises ValueError where a transaction fails: for what is not there, or is there already, or is still used.
    """
    model = {key: _Model(table) for key, table in held.items()}
    for command in commands:
        key = (command.family, command.table)
        match command:
            case Command(verb="add", object=Table() as table):
                model.setdefault(key, _Model(_bare(table)))
            case Command(verb="delete", object=Table()):
                _there(model.pop(key, None), command)
            case _:
                _there(model.get(key), command).execute(command)
    return MappingProxyType({key: one.value() for key, one in model.items()})


def _there(found: Any, command: Command) -> Any:  # noqa: ANN401  # whatever was looked for
    if found is None:
        raise ValueError(f"no such file or directory: {command}")
    return found


class _Model:
    """A table that changes."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._chains = dict(table.chains)
        self._sets = dict(table.sets)

    def value(self) -> Table:
        return replace(self._table, chains=self._chains, sets=self._sets)

    def execute(self, command: Command) -> None:
        match command:
            case Command(verb="add", object=Chain() as chain):
                self._chains.setdefault(chain.name, chain)
            case Command(verb="flush", object=Chain() as chain):
                found = _there(self._chains.get(chain.name), command)
                self._chains[chain.name] = replace(found, rules=())
            case Command(verb="delete", object=Chain() as chain):
                if _there(self._chains.get(chain.name), command).rules or self._used(chain.name):
                    raise ValueError(f"device or resource busy: {command}")
                del self._chains[chain.name]
            case Command(verb="add", object=Rule(name, text)):
                found = _there(self._chains.get(name), command)
                if missing := self._missing(text):
                    raise ValueError(f"no such file or directory: {missing} for {command}")
                self._chains[name] = replace(found, rules=(*found.rules, text))
            case Command(verb="add", object=Set() as one):
                self._sets.setdefault(one.name, one)
            case Command(verb="delete", object=Set() as one):
                _there(self._sets.get(one.name), command)
                if any(one.name in looks_into(rule) for c in self._chains.values() for rule in c.rules):
                    raise ValueError(f"device or resource busy: {command}")
                del self._sets[one.name]
            case Command(verb=verb, object=Elements(one, elements)):
                found = _there(self._sets.get(one.name), command)
                self._sets[one.name] = replace(found, elements=self._mixed(verb, found, elements, command))
            case _:
                raise ValueError(f"not a command of a transaction: {command}")

    def _mixed(
        self, verb: str, found: Set, elements: Mapping[str, Element], command: Command
    ) -> Mapping[str, Element]:
        if verb == "delete":
            if not elements.keys() <= found.elements.keys():
                raise ValueError(f"no such file or directory: {command}")
            return {key: value for key, value in found.elements.items() if key not in elements}
        if any(found.elements.get(key, new) != new for key, new in elements.items()):
            raise ValueError(f"file exists: {command}")
        for new in elements.values():
            if missing := self._missing(new.value):
                raise ValueError(f"no such file or directory: {missing} for {command}")
        return {**found.elements, **elements}

    def _missing(self, text: str) -> str:
        """A chain or set that `text` names and that is not there; empty if all are."""
        missing = [name for name in leads_to(text) if name not in self._chains]
        missing += [name for name in looks_into(text) if name not in self._sets]
        return missing[0] if missing else ""

    def _used(self, name: str) -> bool:
        rules = (rule for chain in self._chains.values() for rule in chain.rules)
        values = (element.value for one in self._sets.values() for element in one.elements.values())
        return any(name in leads_to(text) for text in (*rules, *values))


def leads_to(text: str) -> list[str]:
    """The chains that a rule or a verdict jumps or goes to."""
    return _TARGET.findall(_QUOTED.sub("", text))


def looks_into(text: str) -> list[str]:
    """The sets and maps that a rule names."""
    return _LOOKUP.findall(_QUOTED.sub("", text))
