"""Doctor's findings: each one that is bad says what to do."""

from __future__ import annotations

import pytest

from nsk8s.kernel import probe


def test_every_lack_has_a_remedy_and_every_feature_is_named() -> None:
    findings = probe.examine()
    assert len({finding.subject for finding in findings}) == len(findings)
    for finding in findings:
        assert finding.ok == (not finding.remedy)
    assert {"Python", "root", "iptables-restore"} <= {finding.subject for finding in findings}


def test_a_missing_tool_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    found = {finding.subject: finding for finding in probe.examine()}
    assert not found["bwrap"].ok
    assert found["bwrap"].remedy.endswith("apt-get install bubblewrap")
    assert not found["tcpdump"].needed
