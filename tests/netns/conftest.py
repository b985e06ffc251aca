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
