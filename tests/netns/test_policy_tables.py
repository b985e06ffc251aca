"""Every cell of every truth table: what the model says of the policies, and what packets do under them.

Nine pods, each to each, over TCP and UDP to two ports; a table is one burst of connections.
"""

from __future__ import annotations

import pytest

from tests import policies
from tests.conftest import MakeLab
from tests.netns.policylab import PolicyLab, standing

pytestmark = pytest.mark.netns

ROWS = policies.by_row()
TIERS = policies.cluster_cases()


@pytest.fixture(scope="module")
def lab(shared_cluster: MakeLab) -> PolicyLab:
    return standing(shared_cluster)


def check(lab: PolicyLab, case: policies.Case) -> None:
    with lab.applied(case(lab.addresses())):
        assert lab.differences() == []


def test_without_policies_everybody_reaches_everybody(lab: PolicyLab) -> None:
    assert all(lab.predicted(policies.CELLS).values())
    assert lab.differences() == []
    for node in ("n1", "n2"):
        assert "nsk8s-policy" not in lab.lab.inside(node, "nft", "list", "tables")


@pytest.mark.parametrize("case", ROWS[73])
def test_row_73_and_88_rules_that_allow_or_deny_all(lab: PolicyLab, case: str) -> None:
    check(lab, ROWS[73][case])


@pytest.mark.parametrize("case", ROWS[74])
def test_row_74_and_88_selectors(lab: PolicyLab, case: str) -> None:
    check(lab, ROWS[74][case])


@pytest.mark.parametrize("case", ROWS[75])
def test_row_75_and_88_addresses(lab: PolicyLab, case: str) -> None:
    check(lab, ROWS[75][case])


@pytest.mark.parametrize("case", ROWS[76])
def test_row_76_and_88_ports(lab: PolicyLab, case: str) -> None:
    check(lab, ROWS[76][case])


@pytest.mark.parametrize("case", ROWS[77])
def test_row_77_and_88_several_policies(lab: PolicyLab, case: str) -> None:
    check(lab, ROWS[77][case])


@pytest.mark.parametrize("case", TIERS)
def test_row_87_cluster_network_policies(lab: PolicyLab, case: str) -> None:
    check(lab, TIERS[case])
