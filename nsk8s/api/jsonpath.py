r"""JSONPath as CustomResourceDefinitions write it: ``.status.conditions[?(@.type=="Ready")].status``.

The part of client-go's `util/jsonpath` that printer columns and scale paths use: fields (``.a.b``, ``.a\.b``,
``['a.b']``), elements (``[0]``, ``[-1]``, ``[*]``, ``.*``) and filters that compare with a literal or ask
whether something is there.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

Step = Callable[[Any], Iterable[Any]]
Path = tuple[Step, ...]

_TOKEN = re.compile(
    r"""\.?(?:
      \['(?P<quoted>[^']*)'\] | \["(?P<double>[^"]*)"\] | \[(?P<index>-?\d+)\] | (?P<all>\[\*\]|(?<=\.)\*)
      | \[\?\((?P<filter>.*?)\)\] | (?<=\.)(?P<field>(?:\\.|[^.\[\]\\])+)
    )""",
    re.VERBOSE,
)
_FILTER = re.compile(r"\s*@(?P<path>[^=!<>]*?)\s*(?:(?P<op>==|!=|<=|>=|<|>)\s*(?P<literal>.+?)\s*)?")
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@lru_cache(maxsize=4096)
def parse(text: str) -> Path:
    """The steps of a path. Raises ValueError with what is wrong with it."""
    text = text.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1].strip()
    text = text.removeprefix("$")
    steps: list[Step] = []
    at = 0
    while at < len(text) and text != ".":
        found = _TOKEN.match(text, at)
        if found is None or found.end() == at:
            raise ValueError(f"unrecognized path: {text[at:]}")
        steps.append(_step(found))
        at = found.end()
    return tuple(steps)


def find(path: Path, value: Any) -> list[Any]:  # noqa: ANN401  # any JSON
    """Everything at `path`, in order; nothing where it breaks off."""
    found = [value]
    for step in path:
        found = [below for one in found for below in step(one)]
    return found


def _step(found: re.Match[str]) -> Step:
    if found["all"]:
        return _elements
    if found["index"]:
        return _element(int(found["index"]))
    if found["filter"] is not None:
        return _filter(found["filter"])
    quoted = found["quoted"] if found["quoted"] is not None else found["double"]
    return _field(quoted if quoted is not None else re.sub(r"\\(.)", r"\1", found["field"]))


def _field(name: str) -> Step:
    def step(value: Any) -> Iterable[Any]:  # noqa: ANN401  # any JSON
        return (value[name],) if isinstance(value, dict) and name in value else ()

    return step


def _element(index: int) -> Step:
    def step(value: Any) -> Iterable[Any]:  # noqa: ANN401  # any JSON
        return (value[index],) if isinstance(value, list) and -len(value) <= index < len(value) else ()

    return step


def _elements(value: Any) -> Iterable[Any]:  # noqa: ANN401  # any JSON
    if isinstance(value, dict):
        return [value[key] for key in sorted(value)]
    return value if isinstance(value, list) else ()


def _filter(text: str) -> Step:
    found = _FILTER.fullmatch(text)
    if found is None:
        raise ValueError(f"unrecognized filter: {text}")
    path = parse(found["path"])
    compare = _OPERATORS[found["op"]] if found["op"] else None
    literal = _literal(found["literal"]) if found["op"] else None

    def step(value: Any) -> Iterator[Any]:  # noqa: ANN401  # any JSON
        for one in _elements(value):
            there = find(path, one)
            if compare is None:
                if there:
                    yield one
            elif there and type(there[0]) is type(literal) and compare(there[0], literal):
                yield one

    return step


def _literal(text: str) -> Any:  # noqa: ANN401  # any JSON
    if text.startswith("'") and text.endswith("'") and len(text) > 1:
        return text[1:-1]
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"unrecognized literal: {text}") from error
