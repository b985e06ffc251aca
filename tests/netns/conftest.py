"""The standing cluster of the checklist tests: made once, looked at by all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from tests.conftest import labs
from tests.netns import scenario


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[scenario.Scenario]:
    """The scenario, up and ready."""
    with labs("scenario", tmp_path_factory.mktemp("lab")) as make:
        yield scenario.Scenario(make(yaml.safe_dump_all([scenario.CLUSTER, *scenario.OBJECTS])))


@pytest.fixture(scope="session")
def nftables_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[scenario.Scenario]:
    """The scenario in proxyMode nftables."""
    with labs("scenario-nft", tmp_path_factory.mktemp("lab")) as make:
        documents = [scenario.cluster_in("nftables"), *scenario.OBJECTS]
        yield scenario.Scenario(make(yaml.safe_dump_all(documents)), "nftables")


def _ipv6(tmp_path_factory: pytest.TempPathFactory, name: str, mode: str) -> Iterator[scenario.Scenario]:
    with labs(name, tmp_path_factory.mktemp("lab")) as make:
        cluster = scenario.cluster_in(mode, **scenario.DUAL_STACK)
        documents = [cluster, *scenario.dual_stack(scenario.OBJECTS)]
        yield scenario.Scenario(make(yaml.safe_dump_all(documents)), mode, 6)


@pytest.fixture(scope="session")
def ipv6_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[scenario.Scenario]:
    """The scenario with both families, spoken of in IPv6."""
    yield from _ipv6(tmp_path_factory, "scenario-v6", "iptables")


@pytest.fixture(scope="session")
def ipv6_nftables_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[scenario.Scenario]:
    """The same in proxyMode nftables."""
    yield from _ipv6(tmp_path_factory, "scenario-v6-nft", "nftables")
