"""Where a real cluster's uids and times come from."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest

from nsk8s.daemon.server import new_store
from nsk8s.paths import ClusterPaths


@pytest.mark.usefixtures("state")
def test_uids_are_version_4_and_times_are_now() -> None:
    paths = ClusterPaths("t")
    paths.directory.mkdir(parents=True)
    store = new_store(paths)
    uids = {store.uid() for _ in range(1000)}
    assert len(uids) == 1000
    for text in uids:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 4, uuid.RFC_4122)
    age = datetime.now(UTC) - datetime.fromisoformat(store.now())
    assert 0 <= age.total_seconds() < 2
