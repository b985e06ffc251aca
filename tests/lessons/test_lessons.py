"""Replays the lessons: every ``console`` block of every page in this directory, in one shell per page.

In a block, ``$ `` begins a command (``> `` continues it) and the lines up to the next one are what it must
print, stdout and stderr as they come. In what is expected, ``...`` stands for any text within a line, and
a line of its own ``...`` for any number of lines. Spaces at the ends of lines, and how many there are
between words, do not count, for tables are as wide as their names. A command must end with exit code 0
unless its output says otherwise by a last line ``(exit code N)``.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nsk8s import paths

LESSONS = sorted(Path(__file__).parent.glob("*.md"))
DEADLINE = 120


@dataclass(frozen=True)
class Step:
    """One command of a lesson, and the output that it promises."""

    line: int
    command: str
    expected: tuple[str, ...]
    exit_code: int


def steps(text: str) -> Iterator[Step]:
    """The commands of a page's console blocks, in order."""
    inside = False
    line, command, expected = 0, "", list[str]()
    for number, raw in enumerate([*text.splitlines(), "```"], 1):
        opens = not inside and raw.strip() == "```console"
        closes = inside and raw.strip() == "```"
        if command and (closes or (inside and raw.startswith("$ "))):
            yield _step(line, command, expected)
            command = ""
        if opens or closes:
            inside = opens
        elif inside and raw.startswith("$ "):
            line, command, expected = number, raw[2:], []
        elif inside and raw.startswith("> ") and not expected:
            command += "\n" + raw[2:]
        elif inside and command:
            expected.append(raw)


def _step(line: int, command: str, expected: list[str]) -> Step:
    ending = re.fullmatch(r"\(exit code (\d+)\)", expected[-1].strip()) if expected else None
    if ending:
        return Step(line, command, tuple(expected[:-1]), int(ending[1]))
    return Step(line, command, tuple(expected), 0)


def matches(expected: tuple[str, ...], printed: str) -> bool:
    """Whether the output is what the page promises."""
    pattern = ""
    for line in expected:
        words = " ".join(line.split())
        if words == "...":
            pattern += r"(?:[^\n]*\n)*?"
        elif words:
            pattern += r"[^\n]*".join(re.escape(part) for part in words.split("...")) + r"\n"
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines if line)) is not None


class Shell:
    """One bash that keeps its directory and variables from step to step, as the reader's does."""

    def __init__(self, directory: Path) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=directory,
            env={**os.environ, "PATH": path, "NO_COLOR": "1", "HOME": str(directory)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # so that the guard ends the shell together with what it runs
        )

    def run(self, command: str) -> tuple[str, int]:
        """What the command printed, and its exit code."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        end = f"--{os.urandom(8).hex()}--"
        guard = threading.Timer(DEADLINE, os.killpg, (self._bash.pid, signal.SIGKILL))
        guard.start()
        # In a group, so that the command cannot read what the shell is to read next.
        self._bash.stdin.write(f"{{ {command}\n}} </dev/null; printf '\\n{end} %s\\n' $?\n")
        self._bash.stdin.flush()
        printed: list[str] = []
        try:
            for line in self._bash.stdout:
                if line.startswith(end):
                    return "".join(printed), int(line.split()[1])
                printed.append(line)
        finally:
            guard.cancel()
        raise AssertionError(f"ended, or still running after {DEADLINE} s: {command}\n{''.join(printed)}")

    def close(self) -> None:
        """End the shell, by closing its input."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.close()
        self._bash.stdout.close()
        self._bash.wait(DEADLINE)


@pytest.mark.lesson
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_lesson(lesson: Path, tmp_path: Path, state: Path) -> None:
    if list(paths.NETNS_DIR.glob("article.*")):
        pytest.skip("a cluster called article runs on this machine, and the lessons make one of that name")
    shell = Shell(tmp_path)
    try:
        for step in steps(lesson.read_text()):
            printed, exit_code = shell.run(step.command)
            done_well = matches(step.expected, printed) and exit_code == step.exit_code
            assert done_well, (
                f"{lesson.name}:{step.line}\n$ {step.command}\n--- printed (exit code {exit_code})\n{printed}"
                f"--- expected (exit code {step.exit_code})\n" + "\n".join(step.expected)
            )
    finally:
        shell.close()
        subprocess.run(
            [sys.executable, "-m", "nsk8s", "down", "--all"], capture_output=True, timeout=DEADLINE
        )


def test_there_are_lessons_and_each_ends_with_down() -> None:
    assert LESSONS
    for lesson in LESSONS:
        assert [step.command for step in steps(lesson.read_text())][-1].startswith("nsk8s down"), lesson.name


@pytest.mark.parametrize(
    ("expected", "printed", "verdict"),
    [
        (("a b",), "a    b  \n", True),
        (("a ... c",), "a whatever b c\n", True),
        (("a ... c",), "a\nc\n", False),
        (("first", "...", "last"), "first\n1\n2\nlast\n", True),
        (("first", "...", "last"), "first\nlast\n", True),
        (("first",), "first\nmore\n", False),
        ((), "something\n", False),
        ((), "", True),
        (("a.b",), "axb\n", False),
    ],
)
def test_matching(expected: tuple[str, ...], printed: str, verdict: bool) -> None:
    assert matches(expected, printed) is verdict


def test_reading_a_page() -> None:
    page = "text\n```console\n$ one\nout\n$ two \\\n> more\n(exit code 3)\n```\n```yaml\n$ no\n```\n"
    assert list(steps(page)) == [Step(3, "one", ("out",), 0), Step(5, "two \\\nmore", (), 3)]
