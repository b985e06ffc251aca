"""Completion indexes of Indexed Jobs as text: ``0-2,4`` (pkg/controller/job/indexed_job_utils.go)."""

from __future__ import annotations

from collections.abc import Iterable


def parse(text: str) -> set[int]:
    """The indexes that `text` lists."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def text(indexes: Iterable[int]) -> str:
    """Indexes in order, neighbours drawn together."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and runs[-1][-1] == index - 1:
            runs[-1][1:] = [index]
        else:
            runs.append([index])
    return ",".join(map(_run, runs))


def _run(run: list[int]) -> str:
    if not run[1:]:
        return str(run[0])
    return f"{run[0]}{',' if run[1] == run[0] + 1 else '-'}{run[1]}"
