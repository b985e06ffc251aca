"""Sandboxes, as other threads than the kernel's see them."""

from __future__ import annotations

import os

import pytest

from nsk8s.kernel import sandboxes
from nsk8s.kernel.sandboxes import Sandbox, Sandboxes


def test_whoever_asks_while_somebody_looks_sees_what_was_found_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = Sandbox("default.web", "uid", os.getpid())
    one = Sandboxes.__new__(Sandboxes)  # without a holder there is nothing to find
    one._found = {"default.web": known}
    one._children = set()
    seen = []

    def look(pid: int) -> Sandbox | None:
        seen.append(one.get("default.web"))
        return None

    monkeypatch.setattr(sandboxes, "_sandbox", look)
    assert one.find() == {}
    assert set(seen) == {known}
    assert one.get("default.web") is None
