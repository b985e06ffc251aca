"""The standing clusters of the checklist tests, one for each proxy mode and family: each made once, when one
first asks for it, and looked at by all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from nsk8s.api.families import Family
from tests.conftest import labs
from tests.netns.scenario import DUAL_STACK, OBJECTS, Scenario, cluster_in, dual_stack


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Scenario:
    """The scenario in the proxy mode iptables and IPv4, or as ``parametrize("lab", ..., indirect=True)`` has
    it. The clusters have other names than this: a fixture whose namesake is parametrised is made anew for
    each parameter."""
    found = request.getfixturevalue(getattr(request, "param", "iptables_lab"))
    assert isinstance(found, Scenario)
    return found


def _lab(factory: pytest.TempPathFactory, mode: str, family: Family = 4) -> Iterator[Scenario]:
    """With IPv6 it is a cluster of both families, spoken of in that one."""
    cluster, objects = cluster_in(mode), OBJECTS
    if family == 6:
        cluster, objects = cluster_in(mode, **DUAL_STACK), dual_stack(OBJECTS)
    with labs(f"scenario-{mode}-{family}", factory.mktemp("lab")) as make:
        yield Scenario(make(yaml.safe_dump_all([cluster, *objects])), mode, family)


@pytest.fixture(scope="session")
def iptables_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    """The scenario in IPv4 alone."""
    yield from _lab(tmp_path_factory, "iptables")


@pytest.fixture(scope="session")
def nftables_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    """The same in proxyMode nftables."""
    yield from _lab(tmp_path_factory, "nftables")


@pytest.fixture(scope="session")
def ipv6_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    """The scenario with both families, spoken of in IPv6."""
    yield from _lab(tmp_path_factory, "iptables", 6)


@pytest.fixture(scope="session")
def ipv6_nftables_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    """The same in proxyMode nftables."""
    yield from _lab(tmp_path_factory, "nftables", 6)
