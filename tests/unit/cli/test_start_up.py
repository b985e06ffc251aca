"""The command line's budget: what `nsk8s --help` imports, and how long it takes."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("pyroute2", "scapy", "aiohttp", "asyncio", "msgspec", "yaml", "sqlite3")


@pytest.mark.parametrize("command", ["", "up", "get", "exec"])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys; from nsk8s.cli.main import run; "
        f"rc = run({[command, '--help'] if command else ['--help']}); "
        f"print('IMPORTED', *sorted(m for m in {HEAVY} if m in sys.modules)); sys.exit(rc)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.splitlines()[-1].split()[1:])
    assert "Usage: nsk8s" in done.stdout
    assert not imported & ({"pyroute2", "scapy", "aiohttp"} if command else set(HEAVY))
