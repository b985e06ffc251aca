"""`policy`: how the ends of a connection are written, and how verdicts and tables are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from nsk8s.cli.policy import end, explained
from nsk8s.cli.policychart import svg, text
from nsk8s.errors import UsageError


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("web", ("web", "", "TCP")),
        ("web:80", ("web", "80", "TCP")),
        ("shop/web:http", ("shop/web", "http", "TCP")),
        ("shop/web:53/udp", ("shop/web", "53", "UDP")),
        ("shop/web/SCTP", ("shop/web", "", "SCTP")),
        ("node/w1", ("node/w1", "", "TCP")),
        ("svc/shop:80", ("svc/shop", "80", "TCP")),
        ("10.0.0.1:80", ("10.0.0.1", "80", "TCP")),
        ("fd00::1", ("fd00::1", "", "TCP")),
        ("[fd00::1]:80/TCP", ("fd00::1", "80", "TCP")),
    ],
)
def test_ends_of_a_connection(word: str, wanted: tuple[str, str, str]) -> None:
    assert end(word) == wanted


@pytest.mark.parametrize("word", ["web:", ":80"])
def test_half_an_end(word: str) -> None:
    with pytest.raises(UsageError):
        end(word)


VERDICT: dict[str, Any] = {
    "allowed": True,
    "source": {"name": "pod x/a", "address": "10.244.0.2"},
    "target": {"name": "pod x/b", "address": "10.244.0.3"},
    "protocol": "TCP",
    "port": 80,
    "egress": {"allowed": True, "why": "no policy isolates pod x/a for egress"},
    "ingress": {
        "allowed": True,
        "why": "by NetworkPolicy x/p",
        "policy": {"kind": "NetworkPolicy", "namespace": "x", "name": "p"},
        "path": "spec.ingress[0]",
        "peer": "spec.ingress[0].from[0]",
        "rule": {"from": [{"podSelector": {}}]},
    },
}
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: x}
spec:
  podSelector: {}
  ingress:
  - from:
    - podSelector: {}
"""


def test_a_verdict_shows_the_rule_and_its_line(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(POLICY)
    assert explained(VERDICT, [str(file)]) == [
        "allowed: pod x/a (10.244.0.2) -> pod x/b (10.244.0.3) TCP 80",
        "  egress allowed: no policy isolates pod x/a for egress",
        "  ingress allowed: by NetworkPolicy x/p",
        f"    spec.ingress[0].from[0] at {file}:9",
        "      from:",
        "      - podSelector: {}",
    ]
    file.write_text(POLICY.replace("name: p,", "name: q,"))
    assert explained(VERDICT, [str(file)])[3] == "    spec.ingress[0].from[0] (not in the files given)"


def test_tables_show_where_packets_differ() -> None:
    pods = [{"namespace": "x", "name": name, "port": 80} for name in ("a", "b")]
    table: dict[str, Any] = {"protocol": "TCP", "pods": pods, "allowed": [[True, False], [True, True]]}
    assert list(text(table)) == [
        "FROM\\TO TCP   a:80   b:80",
        "a             yes    no",
        "b             yes    yes",
        "3 allowed, 1 denied",
    ]
    table["reached"] = [[True, True], [True, True]]
    assert list(text(table))[1:] == [
        "a             yes    no!yes",
        "b             yes    yes",
        "3 allowed, 1 denied; tried: 1 differ",
    ]
    cells = [e for e in ElementTree.fromstring(svg(table)).iter() if e.tag.endswith("title")]
    assert [e.text for e in cells][1] == "a to b:80 TCP: denied, reached when tried"
    assert len(cells) == 4
