"""`pytest tests/golden --update` writes what nsk8s now makes of each case into its file."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="rewrite the expected text of golden files")
