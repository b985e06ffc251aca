"""The same in IPv6, with kube-proxy's nftables mode beside the policies: tables, and services."""

from __future__ import annotations

import pytest

from tests import policies
from tests.conftest import MakeLab
from tests.netns.policylab import PolicyLab, standing
from tests.netns.scenario import DUAL_STACK

pytestmark = pytest.mark.netns

CASES = policies.cases() | policies.cluster_cases()
SOME = (
    "default deny both",
    "allow all both",
    "ingress from pod b anywhere",
    "egress to namespace y or pod c of y",
    "ingress from addresses: everything but the pods",
    "egress to addresses: a node's pods but one",
    "egress of anybody on 80 by name",
    "ingress of anybody on 80-81",
    "together: everything at once",
    "Admin networks",
    "Baseline Deny out, then Deny",
)


@pytest.fixture(scope="module")
def lab(shared_cluster: MakeLab) -> PolicyLab:
    return standing(shared_cluster, 6, proxyMode="nftables", **DUAL_STACK)


@pytest.mark.parametrize("case", SOME)
def test_truth_tables_in_ipv6(lab: PolicyLab, case: str) -> None:
    with lab.applied(CASES[case](lab.addresses())):
        assert lab.differences() == []


def test_both_families_are_in_one_table(lab: PolicyLab) -> None:
    with lab.applied(CASES["ingress from pod b here"](lab.addresses())):
        said = lab.lab.inside("n1", "nft", "list", "table", "inet", "nsk8s-policy")
        assert "ip daddr vmap @ingress-ip" in said
        assert "ip6 daddr vmap @ingress-ip6" in said
        assert "nd-neighbor-solicit" in said
