"""Laws of nft tables: what is written can be read, and transactions touch no more than they must."""

from __future__ import annotations

from functools import reduce

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nsk8s.linux import nfttext
from nsk8s.linux.nftables import (
    EMPTY,
    Chain,
    Command,
    Elements,
    Rule,
    Set,
    Table,
    Tables,
    apply,
    pieces,
    transaction,
)
from nsk8s.linux.nftables import settled as settle
from tests.properties.machines import nft_tables

EXAMPLES = settings(max_examples=150, deadline=None)


def copied(held: Tables) -> Tables:
    """Equal, and no object the same."""
    return {
        key: replace(
            table,
            chains={name: replace(chain) for name, chain in table.chains.items()},
            sets={name: replace(one, elements=dict(one.elements)) for name, one in table.sets.items()},
        )
        for key, table in held.items()
    }


@given(nft_tables())
@EXAMPLES
def test_what_is_written_can_be_read(held: Tables) -> None:
    assert nfttext.parse(nfttext.render(held)) == held
    assert nfttext.render(nfttext.parse(nfttext.render(held))) == nfttext.render(held)


@given(nft_tables(), nft_tables())
@EXAMPLES
def test_a_transaction_leads_to_what_is_desired(actual: Tables, desired: Tables) -> None:
    assert apply(actual, transaction(actual, desired)) == desired


@given(nft_tables(), nft_tables(), st.integers(1, 6))
@EXAMPLES
def test_in_pieces_it_leads_to_the_same(actual: Tables, desired: Tables, most: int) -> None:
    parts = pieces(transaction(actual, desired), most)
    assert reduce(apply, parts, actual) == desired
    assert all(len(part) <= most for part in parts[:-1])
    for command in (command for part in parts[:-1] for command in part):  # nothing that a packet meets
        assert command.verb == "add"
        assert not isinstance(command.object, Elements)
        assert not (isinstance(command.object, Chain) and command.object.hook)
        assert not (isinstance(command.object, Rule) and command.object.chain.startswith("base-"))


@given(nft_tables())
@EXAMPLES
def test_there_is_nothing_to_do_for_what_is_there(held: Tables) -> None:
    other = copied(held)
    assert transaction(held, held) == transaction(other, held) == transaction(EMPTY, EMPTY) == ()
    assert settle(other, held) is held


@given(nft_tables(), nft_tables())
@EXAMPLES
def test_only_what_differs_is_touched(actual: Tables, desired: Tables) -> None:
    commands = transaction(actual, desired)
    anew = {(c.family, c.table) for c in commands if isinstance(c.object, Table)}
    for key, table in desired.items():
        if key in anew:
            continue
        have = actual[key]
        mine = [c for c in commands if (c.family, c.table) == key]
        recast = {c.object.name for c in mine if isinstance(c.object, Set)}
        for command in mine:
            assert not _needless(command, have, table, recast), command


def _needless(command: Command, have: Table, want: Table, recast: set[str]) -> bool:
    match command.object:
        case Chain(name) | Rule(name):
            same = have.chains.get(name) == want.chains.get(name)
            return same and not any(f"@{one}" in rule for one in recast for rule in want.chains[name].rules)
        case Set(name):
            held, asked = have.sets.get(name), want.sets.get(name)
            if held is None or asked is None:
                return False
            return replace(held, elements={}) == replace(asked, elements={})
        case Elements(one, elements):
            old, new = have.sets.get(one.name), want.sets.get(one.name)
            if old is None or new is None or one.name in recast:
                return False
            return any(old.elements.get(key) == new.elements.get(key) for key in elements)
    return False
