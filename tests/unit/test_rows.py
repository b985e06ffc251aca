"""The README's table of rows is made of what passed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import rows

SUITE = """
def test_row_14_and_2_something():
    pass

def test_another():
    pass
"""
CONFTEST = """
from pathlib import Path
from tests import rows
rows.README = Path({readme!r})

def pytest_configure(config):
    config.pluginmanager.register(rows.Recorder(update={update}))
"""


def run(
    directory: Path, *words: str, update: bool = False, shared: str = ""
) -> subprocess.CompletedProcess[str]:
    """A small suite of its own, and the README beside it."""
    (directory / "conftest.py").write_text(
        CONFTEST.format(readme=str(directory / "README.md"), update=update)
    )
    (directory / "pytest.ini").write_text("[pytest]\ntestpaths = suite\n")
    (directory / "suite").mkdir(exist_ok=True)
    (directory / "suite" / "test_it.py").write_text(SUITE)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
        cwd=directory,
        env={"PYTHONPATH": str(Path(rows.__file__).parent.parent), rows.SHARED: shared},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(f"above\n{rows.BEGIN}{rows.END}below\n")
    return path


def test_a_whole_run_writes_the_table_and_the_next_one_agrees_with_it(readme: Path) -> None:
    assert run(readme.parent, update=True).returncode == 0
    told = readme.read_text()
    assert f"| 2 | {rows.ROWS[2]} | `suite/test_it.py` |\n| 14 | {rows.ROWS[14]} |" in told
    assert told.startswith("above\n")
    assert told.endswith("below\n")
    assert run(readme.parent).returncode == 0


def test_a_table_that_is_not_what_passed_fails_the_run(readme: Path) -> None:
    done = run(readme.parent)
    assert done.returncode == 1
    assert "README.md's table of rows is not what the tests saw" in done.stdout


def test_a_part_of_the_suite_does_not_judge_the_table(readme: Path) -> None:
    assert run(readme.parent, "-k", "another").returncode == 0
    assert run(readme.parent, "suite/test_it.py", update=True).returncode == 0
    assert "| 2 |" not in readme.read_text()


def test_the_parts_of_a_run_are_judged_together(readme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "README", readme)
    shared = readme.parent / "shared"
    shared.mkdir()
    for _ in range(2):
        assert run(readme.parent, "suite/test_it.py", shared=str(shared)).returncode == 0
    assert "| 14 |" in rows.main(shared, update=False), "the README says nothing yet"
    assert rows.main(shared, update=True) == ""
    assert "| 14 |" in readme.read_text()
    assert rows.main(shared, update=False) == ""
    assert run(readme.parent, "-k", "another", shared=str(shared)).returncode == 0
    readme.write_text(f"above\n{rows.BEGIN}{rows.END}below\n")
    assert rows.main(shared, update=False) == "", "a part of a part says nothing"


def test_the_command_that_judges_fails_only_where_the_table_is_wrong(tmp_path: Path) -> None:
    """A run of which a part failed has said so already; a table that says nothing of row 2 is wrong."""
    command = [sys.executable, "-m", "tests.rows", str(tmp_path)]

    def judged(*, whole: bool) -> subprocess.CompletedProcess[str]:
        seen = {"whole": whole, "files": {"2": ["tests/none.py"]}}
        (tmp_path / "part.json").write_text(json.dumps(seen))
        return subprocess.run(command, capture_output=True, text=True)

    assert judged(whole=False).returncode == 0
    wrong = judged(whole=True)
    assert wrong.returncode == 1
    assert "not what the tests saw" in wrong.stderr
