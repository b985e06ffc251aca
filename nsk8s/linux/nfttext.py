"""Tables of nft(8) as it prints and reads them.

`render` is the form of ``nft list table`` with one element a line, in the order of the value; `parse` reads
that form and nft's own. `command` says a change as input for ``nft -f``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import get_args

from nsk8s.linux.nftables import (
    Chain,
    Command,
    Element,
    Elements,
    Family,
    Hook,
    Rule,
    Set,
    Table,
    Tables,
    tables,
)

_ANYWHERE = (("raw", -300), ("mangle", -150), ("filter", 0), ("security", 50))
_PRIORITIES: Mapping[tuple[bool, str], tuple[tuple[str, int], ...]] = {
    (False, "prerouting"): (*_ANYWHERE, ("dstnat", -100)),
    (False, "input"): _ANYWHERE,
    (False, "forward"): _ANYWHERE,
    (False, "output"): _ANYWHERE,
    (False, "postrouting"): (*_ANYWHERE, ("srcnat", 100)),
    (True, "prerouting"): (("dstnat", -300), ("filter", -200)),
    (True, "input"): (("filter", -200),),
    (True, "forward"): (("filter", -200),),
    (True, "output"): (("filter", -200), ("out", 100)),
    (True, "postrouting"): (("filter", -200), ("srcnat", 300)),
}
"""nft(8)'s names of priorities, by whether the family is bridge, and by hook."""
_NEAR = 10
"""nft prints a priority this near to one with a name as the name and the distance."""

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_WORD = re.compile(r'"([^"]*)"')
_PIECE = re.compile(r'(?:"[^"]*"|[^",])+')
_ELEMENT = re.compile(
    r'(?P<key>[^"]+?)(?: timeout \S+)?(?: expires \S+)?(?: comment "(?P<comment>[^"]*)")?'
    r"(?: : (?P<value>.+))?"
)


def render(held: Tables) -> str:
    """All tables, each as ``nft list table`` prints it."""
    return "".join(_table(table) for table in held.values())


def _table(table: Table) -> str:
    lines = [f"table {table.family} {table.name} {{"]
    blocks = [*map(_set, table.sets.values()), *(_chain(table.family, one) for one in table.chains.values())]
    for number, block in enumerate(blocks):
        lines += ["", *block] if number else block
    if table.comment:
        lines.insert(1, f'\tcomment "{table.comment}"')
    return "\n".join([*lines, "}", ""])


def _set(one: Set) -> list[str]:
    lines = [f"\t{one.noun} {one.name} {{", *(f"\t\t{line}" for line in _specification(one))]
    if one.elements:
        said = [element(key, value) for key, value in one.elements.items()]
        lines.append("\t\telements = { " + ",\n\t\t\t     ".join(said) + " }")
    return [*lines, "\t}"]


def _specification(one: Set) -> Iterator[str]:
    yield f"type {one.key}" + (f" : {one.data}" if one.data else "")
    if one.size:
        yield f"size {one.size}"
    if one.flags:
        yield f"flags {','.join(one.flags)}"
    if one.timeout:
        yield f"timeout {_duration(one.timeout)}"
    if one.comment:
        yield f'comment "{one.comment}"'


def element(key: str, one: Element) -> str:
    """One element of a set or map."""
    said = f'{key} comment "{one.comment}"' if one.comment else key
    return f"{said} : {one.value}" if one.value else said


def _chain(family: str, chain: Chain) -> list[str]:
    lines = [f"\tchain {chain.name} {{"]
    if chain.comment:
        lines.append(f'\t\tcomment "{chain.comment}"')
    if chain.hook:
        lines.append(f"\t\t{_hook(family, chain.hook)}")
    return [*lines, *(f"\t\t{rule}" for rule in chain.rules), "\t}"]


def _hook(family: str, hook: Hook) -> str:
    priority = str(hook.priority)
    for name, number in _PRIORITIES.get((family == "bridge", hook.hook), ()):
        away = hook.priority - number
        if abs(away) <= _NEAR:
            priority = name if not away else f"{name} {'+' if away > 0 else '-'} {abs(away)}"
    return f"type {hook.type} hook {hook.hook} priority {priority}; policy {hook.policy};"


def _duration(seconds: int) -> str:
    said = ""
    for unit, size in _UNITS:
        if seconds >= size:
            said += f"{seconds // size}{unit}"
            seconds %= size
    return said


def _seconds(said: str) -> int:
    return sum(int(number) * dict(_UNITS)[unit] for number, unit in re.findall(r"(\d+)([dhms])(?!s)", said))


def parse(text: str) -> Tables:
    """What `render` or ``nft list`` wrote. Elements of dynamic sets are left out.

    Raises ValueError for text of another kind.
    """
    lines = iter(text.splitlines())
    found = []
    for line in lines:
        words = line.split()
        if words[:1] == ["table"] and words[-1] == "{":
            found.append(_parse_table(words[1], words[2], lines))
        elif words and not line.startswith("#"):
            raise ValueError(f"not a line of nft list: {line!r}")
    return tables(*found)


def _parse_table(family: str, name: str, lines: Iterator[str]) -> Table:
    if family not in get_args(Family):
        raise ValueError(f"no such family of tables: {family}")
    comment = ""
    chains: dict[str, Chain] = {}
    sets: dict[str, Set] = {}
    for line in lines:
        words = line.split()
        match words[:2]:
            case []:
                continue
            case ["}"]:
                return Table(family, name, comment, chains, sets)  # type: ignore[arg-type]  # checked above
            case ["comment", _]:
                comment = _quoted(line)
            case ["chain", chain]:
                chains[chain] = _parse_chain(family, chain, _block(lines))
            case ["set" | "map", one]:
                sets[one] = _parse_set(one, _block(lines))
            case _:
                raise ValueError(f"not a line of nft list: {line!r}")
    raise ValueError(f"nft list ended inside table {family} {name}")


def _block(lines: Iterator[str]) -> Iterator[str]:
    """The lines up to the closing brace of a chain or set, without what stands before and after each."""
    for line in lines:
        if line == "\t}":
            return
        yield line.strip()
    raise ValueError("nft list ended inside a block")


def _quoted(line: str) -> str:
    found = _WORD.search(line)
    if not found:
        raise ValueError(f"no quoted text in {line!r}")
    return found[1]


def _parse_chain(family: str, name: str, lines: Iterable[str]) -> Chain:
    comment, hook, rules = "", None, []
    for line in lines:
        if line.startswith("comment "):
            comment = _quoted(line)
        elif line.startswith("type ") and " hook " in line:
            hook = _parse_hook(family, line)
        elif line:
            rules.append(line)
    return Chain(name, tuple(rules), hook, comment)


def _parse_hook(family: str, line: str) -> Hook:
    words = line.replace(";", "").split()
    named = dict(zip(words[:4:2], words[1:4:2], strict=True))
    end = words.index("policy") if "policy" in words else len(words)
    priority = words[words.index("priority") + 1 : end]
    number = dict(_PRIORITIES.get((family == "bridge", named["hook"]), ())).get(priority[0])
    if number is None:
        number = int(priority[0])
    elif len(priority) == 3:
        number += int(priority[1] + priority[2])
    return Hook(named["type"], named["hook"], number, words[end + 1] if end < len(words) else "accept")


def _parse_set(name: str, lines: Iterable[str]) -> Set:
    fields: dict[str, str] = {}
    elements: list[str] = []
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "elements":
            elements.append(rest.removeprefix("= { "))
        elif elements:
            elements.append(line)
        else:
            fields[word] = rest
    key, _, data = fields["type"].partition(" : ")
    flags = tuple(fields["flags"].split(",")) if "flags" in fields else ()
    held = " ".join(elements).removesuffix("}") if "dynamic" not in flags else ""
    return Set(
        name,
        key,
        data,
        flags,
        _seconds(fields.get("timeout", "")),
        int(fields.get("size", "0")),
        _quoted(fields["comment"]) if "comment" in fields else "",
        dict(_parse_element(piece.strip()) for piece in _PIECE.findall(held)),
    )


def _parse_element(text: str) -> tuple[str, Element]:
    found = _ELEMENT.fullmatch(text)
    if not found:
        raise ValueError(f"not an element: {text!r}")
    return found["key"], Element(found["value"] or "", found["comment"] or "")


def script(commands: Iterable[Command]) -> str:
    """Input for ``nft -f``: one transaction."""
    return "".join(f"{command(one)}\n" for one in commands)


def command(one: Command) -> str:
    """One command of nft(8)."""
    at = f"{one.family} {one.table}"
    match one.object:
        case Table(comment=comment):
            tail = f' {{ comment "{comment}" ; }}' if comment and one.verb == "add" else ""
            return f"{one.verb} table {at}{tail}"
        case Chain(name=name, hook=hook, comment=comment):
            tail = _braces([_hook(one.family, hook)] if hook else [], comment)
            return f"{one.verb} chain {at} {name}{tail}"
        case Set(name=name):
            lines = [*_specification(one.object)] if one.verb == "add" else []
            return f"{one.verb} {one.object.noun} {at} {name}{_braces(lines, '')}"
        case Rule(chain, text):
            return f"{one.verb} rule {at} {chain} {text}"
        case Elements(of, elements):
            if one.verb == "delete":
                said = ", ".join(elements)
            else:
                said = ", ".join(element(key, value) for key, value in elements.items())
            return f"{one.verb} element {at} {of.name} {{ {said} }}"


def _braces(lines: list[str], comment: str) -> str:
    said = [*(line.rstrip(";") for line in lines), *([f'comment "{comment}"'] if comment else [])]
    return " { " + " ; ".join(said) + " ; }" if said else ""
