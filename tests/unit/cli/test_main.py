"""The frame around every command: exit codes, how errors are told, the environment, help."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from nsk8s.cli import main
from nsk8s.cli.failures import Failures
from nsk8s.cli.files import expand
from nsk8s.cli.main import COMMANDS, cli, run, variable
from nsk8s.cli.options import DURATION
from nsk8s.errors import ApiError, KernelError, NsK8sError, Problem, UsageError, UserError


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Put an error in, and `nsk8s schema` raises it."""
    errors: list[BaseException] = []

    @click.command()
    def schema() -> None:
        raise errors[0]

    monkeypatch.setattr(main.Lazy, "get_command", lambda *_: schema)
    return errors


INVALID = ApiError(
    422,
    "Invalid",
    "...",
    kind="Service",
    name="x",
    causes=[Problem("spec.a", "Required value"), Problem("spec.b", "Invalid value: 1")],
)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (NsK8sError("it failed", hint="do this"), 1, "error: it failed\nhint: do this\n"),
        (UsageError("wrong words"), 2, "error: wrong words\n"),
        (UserError("no"), 1, "error: no\n"),
        (KernelError(errno.EPERM, "ip link", "w1"), 1, "error: namespace w1: `ip link` failed with EPERM\n"),
        (ApiError(404, "NotFound", "pods"), 1, "Error from server (NotFound): pods\n"),
        (INVALID, 1, 'The Service "x" is invalid: \n* spec.a: Required value\n* spec.b: Invalid value: 1\n'),
        (KeyboardInterrupt(), 130, "\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 0, ""),
        (OSError(errno.ENOSPC, "full"), 1, "error: cannot write the output: full\n"),
        (click.UsageError("what?"), 2, "Usage: nsk8s schema [OPTIONS]\n"),
    ],
)
def test_an_error_becomes_words_and_a_code(
    raising: list[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr(main, "_unread", lambda: 0)  # it closes pytest's own standard output
    raising.append(error)
    assert run(["schema"]) == code
    assert capfd.readouterr().err.startswith(said)


def test_a_mistake_of_ours_is_one_line_and_a_file(
    raising: list[BaseException],
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    raising.append(KeyError("metadata"))
    assert run(["schema"]) == 1
    told = capfd.readouterr().err
    assert told.startswith("error: a mistake in nsk8s: KeyError: 'metadata'\nhint: please report it; ")
    assert "Traceback" not in told
    assert "raise errors[0]" in Path(told.split()[-1]).read_text()


def test_a_reader_that_goes_is_no_error() -> None:
    script = f"set -o pipefail; {sys.executable} -m nsk8s schema | head -1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")


def options() -> list[tuple[str, click.Option]]:
    found = []
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        found += [(name, option) for option in command.params if isinstance(option, click.Option)]
    return found


def test_every_option_has_its_variable() -> None:
    names: dict[str, tuple[str, str | None]] = {}
    for command, option in options():
        own = variable(command, option)
        assert re.fullmatch(r"NSK8S_[A-Z_]+", own)
        assert own in (option.envvar or ())
        assert names.setdefault(own, (command, option.name)) == (command, option.name)
    assert {"NSK8S_GET_OUTPUT", "NSK8S_APPLY_FILENAME", "NSK8S_UP_DRY_RUN", "NSK8S_EXEC_CLUSTER"} <= set(
        names
    )


def test_every_option_says_what_it_is() -> None:
    silent = [
        f"{command} {'/'.join(option.opts)}"
        for command, option in options()
        if not option.help and not isinstance(option.type, click.Choice) and option.metavar is None
    ]
    assert silent == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_its_summary(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    out, err = capfd.readouterr()
    assert out.startswith(f"Usage: nsk8s {command}")
    assert err == ""


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("30", 30), ("30s", 30), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400)]
)
def test_a_duration(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 m", "1x", "1s2"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(click.UsageError):
        DURATION.convert(text, None, None)


def test_errors_of_several_objects_are_told_at_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    failures = Failures(ignored=404)
    for error in (ApiError(404, "NotFound", "a"), ApiError(409, "Conflict", "b"), UserError("c")):
        with failures.each():
            raise error
    with pytest.raises(UsageError), failures.each():
        raise UsageError("stops at once")
    assert capfd.readouterr().err == ""
    assert failures.tell() == 1
    assert capfd.readouterr().err == "Error from server (Conflict): b\nerror: c\n"
    assert Failures().tell() == 0


def test_a_directory_stands_for_its_manifests(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.json", "notes.txt", "below/d.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    where = str(tmp_path)
    flat = [os.path.join(where, name) for name in ("a.yml", "b.yaml", "c.json")]
    assert expand(["-", where, "x.yaml"]) == ["-", *flat, "x.yaml"]
    assert expand([where], recursive=True) == [*flat, os.path.join(where, "below", "d.yaml")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no manifest"):
        expand([str(tmp_path / "empty")])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_NSK8S_COMPLETE" in capfd.readouterr().out
