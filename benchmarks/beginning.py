"""How every bench begins: what it is told, by whom, and that nsk8s is installed."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import ROOT, WORLD


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the bench's docstring, with the options that all have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write every run's figures to this file")
    return parser


def begin(parser: argparse.ArgumentParser, bench: str) -> argparse.Namespace:
    """What the bench of this name is told; it ends here if it is not root. Installs what is missing."""
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit(f"bench: needs root: sudo scripts/bench {bench}")
    if os.environ.get(WORLD) != "1":
        subprocess.run([str(ROOT / "scripts/install")], check=True)
    return options
