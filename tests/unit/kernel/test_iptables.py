"""iptables in namespaces: failures name the line, and several run at once."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from nsk8s.errors import HostError, KernelError
from nsk8s.kernel import iptables


def here(name: str) -> AbstractContextManager[None]:
    @contextmanager
    def stay() -> Iterator[None]:
        yield

    return stay()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A search path where only what a test puts there is found."""
    monkeypatch.setenv("PATH", f"{tmp_path}")
    return tmp_path


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_each_namespace_gets_its_script(programs: Path) -> None:
    out = programs / "out"
    program(programs / "iptables-restore", f"while read -r line; do echo $* $line >> {out}; done")
    assert iptables.restore({str(n): f"*filter\n# {n}\n" for n in range(5)}, here) == []
    lines = out.read_text().splitlines()
    assert len(lines) == 10
    assert set(lines) == {f"--noflush --counters -w {x}" for x in ("*filter", *(f"# {n}" for n in range(5)))}


def test_a_failure_names_namespace_and_line_and_spares_the_others(programs: Path) -> None:
    fail = '{ echo "v1.8: line 2 failed" >&2; exit 1; }'
    program(programs / "iptables-restore", f'read -r first; [ "$first" = good ] || {fail}')
    (failure,) = iptables.restore({"w1": "*filter\n-A BROKEN\nCOMMIT\n", "w2": "good\n"}, here)
    assert isinstance(failure, KernelError)
    assert failure.namespace == "w1"
    assert "v1.8: line 2 failed; line 2 is: -A BROKEN" in str(failure)


def test_a_missing_program_is_the_hosts_fault(programs: Path) -> None:
    with pytest.raises(HostError, match="iptables-restore") as missing:
        iptables.restore({"w1": "x", "w2": "y"}, here)
    assert "apt-get install iptables" in missing.value.hint


def test_save_returns_what_was_printed(programs: Path) -> None:
    program(programs / "iptables-save", "printf '%070000d' 7")
    program(programs / "ip6tables-save", "printf 6")
    assert iptables.save(["w1", "w2"], here) == dict.fromkeys(("w1", "w2"), "7".zfill(70000))
    assert iptables.save(["w2"], here, 6) == {"w2": "6"}


def test_a_failed_save_raises(programs: Path) -> None:
    program(programs / "iptables-save", "echo no nf_tables >&2; exit 1")
    with pytest.raises(KernelError, match="w1"):
        iptables.save(["w1", "w2"], here)


@pytest.mark.parametrize(
    ("version", "backend"),
    [("v1.8.9 (nf_tables)", "nf_tables"), ("v1.8.9 (legacy)", "legacy"), ("v1.6", "legacy")],
)
def test_the_backend_is_asked_of_the_program(programs: Path, version: str, backend: str) -> None:
    program(programs / "iptables", f"echo 'iptables {version}'")
    iptables.backend.cache_clear()
    try:
        assert iptables.backend() == backend
        if backend == "legacy":
            assert iptables.generation() is None
    finally:
        iptables.backend.cache_clear()
