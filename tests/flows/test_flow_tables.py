"""The flow tables, walked over the rules of every proxy mode and address family."""

from __future__ import annotations

import pytest

from tests.flows.nftwalk import NftWalker
from tests.flows.spelled import spelled, topology
from tests.flows.tables import TABLES, Flow, Table
from tests.flows.views import compiled
from tests.flows.walk import Walker

MODES = ("iptables", "nftables")
FAMILIES = (4, 6)
OTHERS = ("FLANNEL-", "CNI-")
"""Chains that are not kube-proxy's: what they masquerade is no part of its promises."""


def walker(mode: str, family: int, table: Table) -> Walker:
    """A walker over what kube-proxy has on n1."""
    cluster = topology(family)
    state = compiled(*table.services, options=table.options, mode=mode, cluster=cluster)["n1"]
    if mode == "nftables":
        return NftWalker(state, state.nft["ip" if family == 4 else "ip6", "kube-proxy"])
    return Walker(state, OTHERS, family)


def expected(flow: Flow, mode: str) -> set[str]:
    """What the walker says when all is well."""
    masq = " masq" if flow.masq else ""
    return {f"{each}{masq}" for each in flow.becomes_in(mode).split()} or {""}


def cases() -> list[tuple[str, int, Table]]:
    return [
        (mode, family, table)
        for mode in MODES
        for family in FAMILIES
        for table in TABLES
        if mode in table.modes and family in table.families
    ]


@pytest.mark.parametrize(
    ("mode", "family", "table"), cases(), ids=lambda part: getattr(part, "name", str(part))
)
def test_flows(mode: str, family: int, table: Table) -> None:
    table = spelled(table, family)
    walking = walker(mode, family, table)
    found = {flow.what: walking.walk(flow.source, flow.protocol, flow.to, flow.port) for flow in table.flows}
    assert found == {flow.what: expected(flow, mode) for flow in table.flows}


def test_no_flow_stands_in_the_tables_twice() -> None:
    """A flow that another of the same name hides would never be looked at."""
    for table in TABLES:
        assert len({flow.what for flow in table.flows}) == len(table.flows), table.name
    assert len({table.name for table in TABLES}) == len(TABLES)
