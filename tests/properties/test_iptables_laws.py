"""Laws of rule sets: what is written can be read, a script leads where it should, harming nobody else."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from nsk8s.linux import iptables
from nsk8s.linux.iptables import apply, in_force, parse, render, script, settled
from nsk8s.linux.values import Chain, Ruleset
from tests.properties.machines import OWN, rulesets

EXAMPLES = settings(max_examples=80, deadline=None)
FOREIGN = ["-j ACCEPT", "-j DOCKER", '-m comment --comment "not -j KUBE-A" -j DOCKER', "-p tcp"]
EVERYTHING = ("",)


def alone(ruleset: Ruleset) -> Ruleset:
    """As it reads where nobody else has a rule: all of ours are before the first foreign one."""
    return Ruleset(
        {
            table: {n: replace(c, top=len(c.rules)) if c.builtin else c for n, c in chains.items()}
            for table, chains in ruleset.tables.items()
        }
    )


@st.composite
def crowded(draw: st.DrawFn) -> Ruleset:
    """A whole kernel: rules of ours and of others in any order, and chains of others."""
    mine = draw(rulesets())
    tables: dict[str, dict[str, Chain]] = {}
    for table in ("filter", "nat"):
        chains = dict(mine.tables.get(table, {}))
        for builtin in iptables.TABLES[table]:
            ours = chains.pop(builtin, Chain(builtin)).rules
            rules = draw(st.permutations([*ours, *draw(st.lists(st.sampled_from(FOREIGN), max_size=3))]))
            chains[builtin] = Chain(builtin, tuple(rules), builtin=True, top=len(rules))
        chains["DOCKER"] = Chain("DOCKER", ("-j RETURN",))
        tables[table] = chains
    return Ruleset(tables)


def foreign(ruleset: Ruleset) -> dict[tuple[str, str], list[str]]:
    """The rules of others, by table and chain."""
    found: dict[tuple[str, str], list[str]] = {}
    for table, chains in ruleset.tables.items():
        for name, chain in chains.items():
            for rule in () if name.startswith(OWN) else chain.rules:
                if not iptables.target(rule).startswith(OWN):
                    found.setdefault((table, name), []).append(rule)
    return found


@given(rulesets())
@EXAMPLES
def test_what_is_written_can_be_read(ruleset: Ruleset) -> None:
    assert parse(render(ruleset), OWN) == parse(render(ruleset), EVERYTHING) == alone(ruleset)


@given(rulesets(), rulesets())
@EXAMPLES
def test_a_script_leads_to_what_is_desired(actual: Ruleset, desired: Ruleset) -> None:
    assert apply(actual, script(actual, desired)) == desired


@given(crowded(), rulesets())
@EXAMPLES
def test_foreign_rules_are_kept_and_ours_end_up_right(kernel: Ruleset, desired: Ruleset) -> None:
    actual = parse(render(kernel), OWN)
    after = apply(kernel, script(actual, desired))
    assert foreign(after) == foreign(kernel)
    found = parse(render(after), OWN)
    assert script(found, desired) == ""
    assert settled(found, desired) is desired
    for table, chains in desired.tables.items():
        for name, chain in chains.items():
            assert in_force(found.tables[table][name], chain)


@given(rulesets())
@EXAMPLES
def test_there_is_nothing_to_do_for_what_is_there(ruleset: Ruleset) -> None:
    assert script(ruleset, ruleset) == script(alone(ruleset), ruleset) == ""
    assert script(iptables.EMPTY, iptables.EMPTY) == ""


@given(rulesets(), rulesets())
@EXAMPLES
def test_only_chains_that_differ_are_touched(actual: Ruleset, desired: Ruleset) -> None:
    text = script(actual, desired)
    for table, chains in desired.tables.items():
        part = text.partition(f"*{table}\n")[2].partition("COMMIT")[0]
        for name, chain in chains.items():
            if in_force(actual.tables.get(table, {}).get(name), chain):
                lines = [line.split(" ") for line in part.splitlines()]
                assert not any(line[0] == f":{name}" for line in lines)
                assert not any(line[0] in ("-A", "-I", "-D", "-X") and line[1] == name for line in lines)
