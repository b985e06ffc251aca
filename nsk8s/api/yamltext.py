"""YAML text to values, as kubectl reads it, with the place of everything kept.

kubectl reads YAML 1.1 with Go's rules (sigs.k8s.io/yaml): yes/no/on/off/y/n are booleans, 0777 and 0o777 are
octal, timestamps and 1:30 stay strings, keys become strings. libyaml does the parsing; its nodes, which know
their place, are kept beside the values.

What would make a reader suffer is refused: repeated keys, aliases that expand to millions of values,
nesting deeper than anything real.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator

import yaml
from msgspec import Struct
from yaml._yaml import CParser

from nsk8s.api import fieldpath
from nsk8s.errors import Problem

DEPTH = 100
"""How deep mappings and lists can nest."""
EXPANDED = 1_000_000
"""How many values a document can have once its aliases are expanded."""

_PLAIN, _TEXT = "?", "s"
_TAG = "tag:yaml.org,2002:"
_WORDS: dict[str, bool | None] = {
    **{form: True for word in ("y", "yes", "true", "on") for form in (word, word.title(), word.upper())},
    **{form: False for word in ("n", "no", "false", "off") for form in (word, word.title(), word.upper())},
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
}
_integer = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)").fullmatch
_float = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?").fullmatch
_unbounded = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)").fullmatch


class _Composer(CParser):
    """libyaml's composer. Scalars are not resolved by PyYAML's rules, only told apart: plain or not."""

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)

    def resolve(self, kind: type, value: str, implicit: object) -> str:
        return _PLAIN if kind is yaml.ScalarNode and isinstance(implicit, tuple) and implicit[0] else _TEXT

    def descend_resolver(self, current_node: object, current_index: object) -> None:
        """Nothing: scalars are resolved without their path."""

    def ascend_resolver(self) -> None:
        """Nothing."""


class Text(Struct, frozen=True):
    """One document: its value, and the node that it was made from."""

    value: object
    node: yaml.Node
    file: str

    def at(self, path: str) -> tuple[str, int, int]:
        """(file, line, column), from 1, where the field `path` begins: at its key, or at the nearest
        thing around it that exists."""
        node, mark = self.node, self.node.start_mark
        for segment in fieldpath.segments(path):
            if isinstance(node, yaml.MappingNode):
                entry = next(((k, v) for k, v in node.value if k.value == segment), None)
                if entry is None:
                    break
                mark, node = entry[0].start_mark, entry[1]
            elif isinstance(node, yaml.SequenceNode) and segment.isascii() and segment.isdigit():
                if int(segment) >= len(node.value):
                    break
                node = node.value[int(segment)]
                mark = node.start_mark
            else:
                break
        return self.file, mark.line + 1, mark.column + 1

    def below(self, key: str, position: int) -> Text:
        """The item at `position` of the list at `key`, as a document of its own."""
        assert isinstance(self.value, dict)
        assert isinstance(self.node, yaml.MappingNode)
        items = next(v for k, v in self.node.value if k.value == key)
        return Text(self.value[key][position], items.value[position], self.file)


def read(
    text: str, file: str, problems: list[Problem], repeated: list[Problem] | None = None
) -> Iterator[Text]:
    """The documents of a YAML text that hold something. What is wrong is added to `problems`: after a
    mistake in the syntax the rest of the text cannot be read; other mistakes spoil their document only.
    Keys that come twice are such mistakes too, unless they are wanted in `repeated`: then the last counts."""
    deep = _too_deep(text, file)
    if deep is not None:
        problems.append(deep)
        return
    composer = _Composer(text)
    try:
        while composer.check_node():
            node = composer.get_node()
            if node is None or (isinstance(node, yaml.ScalarNode) and _is_null(node)):
                continue
            before = len(problems)
            if "&" in text and (bomb := _expands(node, file)):
                problems.append(bomb)
                continue
            value = _Builder(file, problems, repeated).value(node, "")
            if len(problems) == before:
                yield Text(value, node, file)
    except yaml.MarkedYAMLError as error:
        problems.append(_syntax(error, text, file))
    except yaml.reader.ReaderError as error:
        head = text.encode()[: error.position].decode(errors="ignore")
        line, column = head.count("\n") + 1, len(head) - head.rfind("\n")
        what = f"the character {error.character!r} is not allowed in YAML"
        problems.append(Problem("", what, "remove it", file, line, column))
    finally:
        composer.dispose()


# --- what is refused --------------------------------------------------------------------------------


def _syntax(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    what = " ".join(part for part in (error.problem, error.context) if part) or "not YAML"
    lines = text.splitlines()
    before = lines[line][: column + 1] if line < len(lines) else ""
    hint = ""
    if "\t" in before:
        hint = "YAML is indented with spaces, not with tabs"
    elif "mapping values are not allowed" in what:
        hint = 'put text that holds ": " in quotes, or check the indentation'
    elif "could not find expected ':'" in what:
        hint = "a line above lacks its colon, or a quote is left open"
    return Problem("", f"not YAML: {what}", hint, file, line + 1, column + 1)


def _too_deep(text: str, file: str) -> Problem | None:
    """libyaml's composer recurses in C, so depth is checked on its events, which do not; only texts that
    can be that deep at all (each level takes a bracket, or a column) are looked at twice."""
    longest = max(map(len, text.split("\n")))
    if text.count("[") + text.count("{") + longest < 5000:
        return None
    parser = _Composer(text)
    depth = 0
    try:
        while parser.check_event():
            event = parser.get_event()
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > DEPTH:
                    mark = event.start_mark
                    return _deep(file, mark.line, mark.column) if mark else _deep(file, 0, 0)
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except yaml.YAMLError:
        return None  # the composer meets the same mistake and says where
    finally:
        parser.dispose()
    return None


def _deep(file: str, line: int, column: int) -> Problem:
    return Problem("", f"nested deeper than {DEPTH} levels", "", file, line + 1, column + 1)


def _expands(root: yaml.Node, file: str) -> Problem | None:
    """A document that holds itself, or that its aliases blow up (the "billion laughs")."""
    sizes: dict[int, int] = {}
    open_: set[int] = set()

    def size(node: yaml.Node, depth: int) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        known = sizes.get(id(node))
        if known is not None:
            return known
        if id(node) in open_ or depth > DEPTH:
            raise _Refused(node, "an alias that holds itself" if id(node) in open_ else "nested too deep")
        open_.add(id(node))
        items = [n for pair in node.value for n in pair] if isinstance(node, yaml.MappingNode) else node.value
        total = 1 + sum(size(item, depth + 1) for item in items)
        open_.discard(id(node))
        if total > EXPANDED:
            raise _Refused(node, f"aliases that expand to more than {EXPANDED} values")
        sizes[id(node)] = total
        return total

    try:
        size(root, 0)
    except _Refused as refused:
        mark = refused.node.start_mark
        return Problem("", refused.what, "write it out", file, mark.line + 1, mark.column + 1)
    return None


class _Refused(Exception):
    def __init__(self, node: yaml.Node, what: str) -> None:
        super().__init__(what)
        self.node = node
        self.what = what


# --- values -----------------------------------------------------------------------------------------


def _is_null(node: yaml.ScalarNode) -> bool:
    return node.tag == _PLAIN and _WORDS.get(node.value, 0) is None


def plain(text: str) -> object:
    """The value of an unquoted scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] in "0123456789-+.":
        digits = text.replace("_", "") if text[0] != "." else text
        if found := _integer(digits):
            body = found.group(1)
            if body[0] == "0" and len(body) > 1:
                number = int(body, 0) if body[1] in "xXbBoO" else int(body, 8)
                return -number if digits[0] == "-" else number
            return int(digits) if len(digits) < 400 else text
        if _float(digits):
            value = float(digits)
            return text if value in (float("inf"), float("-inf")) else value
    return text


class _Builder:
    """Makes values of the nodes of one document."""

    def __init__(self, file: str, problems: list[Problem], repeated: list[Problem] | None) -> None:
        self.file = file
        self.problems = problems
        self.repeated = repeated
        self.cache: dict[str, object] = {}
        self.depth = 0

    def value(self, node: yaml.Node, path: str) -> object:
        """The value of a node; mistakes are added to the problems."""
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        self.depth += 1
        if self.depth > DEPTH:
            mark = node.start_mark
            self.problems.append(_deep(self.file, mark.line, mark.column))
            self.depth -= 1
            return None
        made: object
        if node.tag not in (_TEXT, f"{_TAG}map", f"{_TAG}seq"):
            self.wrong(node, path, f"the tag {node.tag.replace(_TAG, '!!')} is not known here", "remove it")
            made = None
        elif isinstance(node, yaml.MappingNode):
            made = self.mapping(node, path)
        else:
            made = [self.value(item, f"{path}[{i}]") for i, item in enumerate(node.value)]
        self.depth -= 1
        return made

    def mapping(self, node: yaml.MappingNode, path: str) -> dict[str, object]:
        made: dict[str, object] = {}
        merged: list[yaml.Node] = []
        for key_node, item in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.wrong(key_node, path, "a mapping or list cannot be a key", "keys are strings")
                continue
            key = key_node.value
            if key_node.tag != _TEXT:
                if key == "<<":
                    merged.append(item)
                    continue
                key = self.key(key_node, path)
            where = f"{path}.{key}" if path else key
            if key in made:
                if self.repeated is None:
                    self.wrong(key_node, where, "this key is here twice", "remove one of them")
                    continue
                what = f"key {json.dumps(key)} already set in map"
                self.repeated.append(Problem(where, what, "", self.file, key_node.start_mark.line + 1))
            if type(item) is yaml.ScalarNode:
                made[key] = item.value if item.tag == _TEXT else self.scalar(item, where)
            else:
                made[key] = self.value(item, where)
        for item in merged:
            self.merge(item, made, path)
        return made

    def merge(self, node: yaml.Node, into: dict[str, object], path: str) -> None:
        """``<<``: fields of other mappings, where `into` has none of its own (yaml.org/type/merge)."""
        for source in node.value if isinstance(node, yaml.SequenceNode) else (node,):
            if not isinstance(source, yaml.MappingNode):
                self.wrong(source, path, "<< takes a mapping, or a list of mappings", "")
                continue
            made = self.value(source, path)
            for key, value in made.items() if isinstance(made, dict) else ():
                into.setdefault(key, value)

    def key(self, node: yaml.ScalarNode, path: str) -> str:
        value = self.scalar(node, path)
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "true" if value else "false"
        if value is None:
            self.wrong(node, path, "a key is missing", 'put it in quotes if it is meant to be ""')
            return ""
        return str(value)

    def scalar(self, node: yaml.ScalarNode, path: str) -> object:
        tag, text = node.tag, node.value
        if tag == _TEXT:
            return text
        if tag == _PLAIN:
            if text in self.cache:
                return self.cache[text]
            value = plain(text)
            if isinstance(value, str) and _unbounded(text):
                self.wrong(node, path, f"{text} is a number that JSON cannot hold", "put it in quotes")
            self.cache[text] = value
            return value
        match tag.removeprefix(_TAG):
            case "str" | "timestamp":
                return text
            case "binary":
                try:
                    return base64.b64decode(text, validate=False).decode()
                except (binascii.Error, UnicodeDecodeError):
                    self.wrong(node, path, "!!binary that is not base64 of UTF-8 text", "write it as text")
                    return text
            case "null" | "bool" | "int" | "float" as kind:
                value = plain(text)
                number = isinstance(value, int | float) and not isinstance(value, bool)
                fits = {
                    "null": value is None,
                    "bool": isinstance(value, bool),
                    "int": number,
                    "float": number,
                }
                if fits[kind]:
                    return value
                self.wrong(node, path, f'cannot decode "{text}" as !!{kind}', "remove the tag")
            case _:
                self.wrong(node, path, f"the tag {tag.replace(_TAG, '!!')} is not known here", "remove it")
        return None

    def wrong(self, node: yaml.Node, path: str, what: str, hint: str) -> None:
        mark = node.start_mark
        self.problems.append(Problem(path, what, hint, self.file, mark.line + 1, mark.column + 1))
