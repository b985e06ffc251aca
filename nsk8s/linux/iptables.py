"""Rule sets as iptables-save(8) prints them, and the iptables-restore(8) input that leads from one to the
next.

Chains are *ours* by their names; all others, and in built-in chains every rule that jumps to none of ours,
are *foreign* and left alone. What matters in a built-in chain is the order of our rules and that the first
`Chain.top` of them stand before the first foreign one (`in_force`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

from nsk8s.linux.values import Chain, Ruleset

TABLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
        "security": ("INPUT", "FORWARD", "OUTPUT"),
        "raw": ("PREROUTING", "OUTPUT"),
        "filter": ("INPUT", "FORWARD", "OUTPUT"),
        "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    }
)
"""Every table with its built-in chains, in the order in which iptables-save prints them (the nf_tables one;
the legacy one prints the latest first). kube-proxy too writes filter before nat."""

_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"')
_TARGET = re.compile(r"(?:^| )-[jg] (\S+)")
_NO_CHAINS: Mapping[str, Chain] = MappingProxyType({})
_NO_RULES = Chain("", builtin=True)


EMPTY = Ruleset()
"""No rules of ours at all."""


def render(ruleset: Ruleset) -> str:
    """The text iptables-save prints (without its ``#`` lines) where nobody else has any rule.

    Policies are ACCEPT, counters zero, own chains sorted by name, tables without chains left out.
    """
    return "".join(_table(table, ruleset.tables.get(table, _NO_CHAINS)) for table in TABLES)


def _table(table: str, chains: Mapping[str, Chain]) -> str:
    if not chains:
        return ""
    own = sorted(name for name, chain in chains.items() if not chain.builtin)
    lines = [f"*{table}"]
    lines += [f":{name} ACCEPT [0:0]" for name in TABLES[table]]
    lines += [f":{name} - [0:0]" for name in own]
    for name in (*TABLES[table], *own):
        if name in chains:
            lines += _appended(chains[name])
    return "\n".join((*lines, "COMMIT", ""))


def _appended(chain: Chain) -> list[str]:
    start = f"-A {chain.name} "
    return [start + rule if rule else start[:-1] for rule in chain.rules]


def parse(save: str, own: tuple[str, ...]) -> Ruleset:
    """What of iptables-save's text (with or without counters, nf_tables or legacy) is ours: the chains whose
    names start with one of `own`, and the rules in built-in chains that jump to such a chain.

    `Chain.top` of a built-in chain counts our rules before the first foreign one; where nothing is foreign
    these are all. With ``own=("",)`` everything is ours. Raises ValueError for text of another kind.
    """
    tables: dict[str, dict[str, Chain]] = {}
    rules: dict[str, list[str]] = {}
    builtin: set[str] = set()
    table = ""
    for line in save.splitlines():
        first = line[:1]
        if first == "[":  # counters of a rule: [packets:bytes] -A ...
            line = line.partition("] ")[2]
            first = line[:1]
        if first == "-" and line.startswith("-A "):
            name, _, rule = line[3:].partition(" ")
            if name in rules:
                rules[name].append(rule)
        elif first == ":":
            name, policy, _ = f"{line[1:]} ".split(" ", 2)
            if policy != "-":
                builtin.add(name)
                rules[name] = []
            elif name.startswith(own):
                rules[name] = []
        elif first == "*":
            table, rules, builtin = line[1:].strip(), {}, set()
        elif line.startswith("COMMIT") and table:
            if chains := dict(_ours(rules, builtin, own)):
                tables[table] = chains
            table = ""
        elif first not in ("#", ""):
            raise ValueError(f"not a line of iptables-save: {line!r}")
    if table:
        raise ValueError(f"iptables-save ended inside table {table}")
    return Ruleset(tables)


def _ours(
    rules: Mapping[str, list[str]], builtin: Collection[str], own: tuple[str, ...]
) -> Iterator[tuple[str, Chain]]:
    for name, all_rules in rules.items():
        if name not in builtin:
            yield name, Chain(name, tuple(all_rules))
        elif all_rules:
            mine = [target(rule).startswith(own) for rule in all_rules]
            kept = tuple(rule for rule, ours in zip(all_rules, mine, strict=True) if ours)
            if kept:
                yield name, Chain(name, kept, True, len(kept) if all(mine) else mine.index(False))


def target(rule: str) -> str:
    """What `rule` jumps or goes to (a chain, or a target like ACCEPT); empty if nothing."""
    found = _TARGET.search(_QUOTED.sub('""', rule) if '"' in rule else rule)
    return found[1] if found else ""


def in_force(actual: Chain | None, desired: Chain | None) -> bool:
    """Whether `actual` is as `desired`; of a built-in chain that is more than being equal, for our rules may
    stand further up than asked, and no rule of ours is as good as no chain."""
    if actual is desired:
        return True
    if not (desired or actual or _NO_RULES).builtin:
        return actual == desired
    have, want = actual or _NO_RULES, desired or _NO_RULES
    return have.rules == want.rules and have.top >= want.top


def settled(actual: Ruleset, desired: Ruleset) -> Ruleset:
    """`actual` with every chain that is as desired in the words of `desired`: equal to it, and the very same
    object, if nothing is to be done."""
    tables: dict[str, Mapping[str, Chain]] = {}
    same = True
    for table in TABLES:
        have, want = actual.tables.get(table, _NO_CHAINS), desired.tables.get(table, _NO_CHAINS)
        as_desired = {name: chain for name, chain in want.items() if in_force(have.get(name), chain)}
        same = same and len(as_desired) == len(want) and have.keys() <= want.keys()
        if chains := {**have, **as_desired}:
            tables[table] = chains
    return desired if same else Ruleset(tables)


def script(actual: Ruleset, desired: Ruleset) -> str:
    """Input for ``iptables-restore --noflush --counters`` that turns `actual` into `desired`, touching only
    what differs; empty if nothing does. Each table is one transaction.

    An own chain is flushed and written anew, or flushed and deleted after the last jump to it is gone. Of a
    built-in chain our rules are deleted and put back, the `top` ones by number, the others at the end.
    Chains that are the same object cost a look-up.

    filter comes before nat, as kube-proxy has it, so that what loses its translation is refused already.
    Where filter only loses rules nat comes first: a connection that begins between the two, when it is not
    refused any more and not yet translated, would go astray for as long as its packets are repeated.
    """
    if actual is desired:
        return ""
    order = sorted(TABLES, key="filter".__eq__) if _loses(actual, desired) else TABLES
    return "".join(
        _transaction(table, actual.tables.get(table, _NO_CHAINS), desired.tables.get(table, _NO_CHAINS))
        for table in order
    )


def _loses(actual: Ruleset, desired: Ruleset) -> bool:
    """Whether the filter table has no rule afterwards that it does not have before."""
    have, want = (ruleset.tables.get("filter", _NO_CHAINS) for ruleset in (actual, desired))
    return all(
        (old := have.get(name)) is chain or set(chain.rules) <= set((old or _NO_RULES).rules)
        for name, chain in want.items()
    )


def _transaction(table: str, have: Mapping[str, Chain], want: Mapping[str, Chain]) -> str:
    if have is want:
        return ""
    get = have.get
    changed = [c for name, c in want.items() if (old := get(name)) is not c and not in_force(old, c)]
    vanished = [have[name] for name in sorted(have.keys() - want.keys())]
    flushed = sorted(c.name for c in (*changed, *vanished) if not c.builtin)
    deleted = [c.name for c in vanished if not c.builtin]
    lines = [f":{name} - [0:0]" for name in flushed]
    for chain in changed:
        lines += _rewritten(get(chain.name), chain) if chain.builtin else _appended(chain)
    for chain in vanished:
        if chain.builtin:
            lines += _rewritten(chain, Chain(chain.name, builtin=True))
    lines += [f"-X {name}" for name in deleted]
    return "\n".join((f"*{table}", *lines, "COMMIT", "")) if lines else ""


def _rewritten(have: Chain | None, want: Chain) -> list[str]:
    lines = [f"-D {want.name} {rule}" for rule in have.rules] if have else []
    top, others = want.rules[: want.top], want.rules[want.top :]
    lines += [f"-I {want.name} {number} {rule}" for number, rule in enumerate(top, 1)]
    return lines + [f"-A {want.name} {rule}" for rule in others]


def apply(ruleset: Ruleset, script: str) -> Ruleset:
    """What iptables-restore makes of `ruleset` when fed `script`: the model of the kernel.

    It knows the lines that `script` writes, and is as strict. Raises ValueError where iptables-restore
    fails: for a chain or rule that is not there, a number too high, a chain deleted that is not empty.
    """
    tables = {name: dict(chains) for name, chains in ruleset.tables.items()}
    table = ""
    for line in script.splitlines():
        if line.startswith("*"):
            table = line[1:]
            tables.setdefault(table, {})
        elif line != "COMMIT":
            if table not in TABLES:
                raise ValueError(f"no such table: {table!r}")
            _execute(tables[table], TABLES[table], line)
    return Ruleset({name: kept for name, chains in tables.items() if (kept := _not_empty(chains))})


def _not_empty(chains: Mapping[str, Chain]) -> dict[str, Chain]:
    return {name: chain for name, chain in chains.items() if chain.rules or not chain.builtin}


def _execute(chains: dict[str, Chain], builtin: Collection[str], line: str) -> None:
    command, _, rest = line.partition(" ")
    if command.startswith(":"):
        chains[command[1:]] = Chain(command[1:])
        return
    name, _, rule = rest.partition(" ")
    chain = chains.get(name) or (Chain(name, builtin=True) if name in builtin else None)
    if chain is None:
        raise ValueError(f"no such chain: {line}")
    rules, top = list(chain.rules), chain.top
    match command:
        case "-A":
            rules.append(rule)
        case "-I":
            number, _, rule = rule.partition(" ")
            if not 1 <= int(number) <= len(rules) + 1:
                raise ValueError(f"no such place: {line}")
            rules.insert(int(number) - 1, rule)
            top += chain.builtin
        case "-D":
            if rule not in rules:
                raise ValueError(f"no such rule: {line}")
            top -= rules.index(rule) < top
            rules.remove(rule)
        case "-X":
            if rules or chain.builtin:
                raise ValueError(f"cannot delete: {line}")
            del chains[name]
            return
        case _:
            raise ValueError(f"not a line of a restore script: {line}")
    chains[name] = Chain(name, tuple(rules), chain.builtin, top)
