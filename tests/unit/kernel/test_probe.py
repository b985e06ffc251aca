"""Doctor's findings: each one that is bad says what to do."""

from __future__ import annotations

import pytest

from nsk8s.kernel import probe


def test_every_lack_has_a_remedy_and_every_feature_is_named() -> None:
    findings = probe.probe()
    assert len({finding.what for finding in findings}) == len(findings)
    for finding in findings:
        assert finding.ok == (not finding.hint)
    assert {"Python", "root", "iptables-restore"} <= {finding.what for finding in findings}


def test_a_missing_tool_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    found = {finding.what: finding for finding in probe.probe()}
    assert not found["bwrap"].ok
    assert found["bwrap"].hint.endswith("apt-get install bubblewrap")
    assert found["tcpdump"].optional
