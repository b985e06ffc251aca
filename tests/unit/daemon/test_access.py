"""Where the API listens."""

from __future__ import annotations

import errno
from typing import cast

import pytest

from nsk8s.apiserver.server import ApiServer, Identify
from nsk8s.daemon.access import Access
from nsk8s.daemon.network import Network
from nsk8s.daemon.pki import Keys
from nsk8s.errors import KernelError
from nsk8s.kernel.machine import Machine
from nsk8s.paths import ClusterPaths


class Nodeless:
    """A machine on which no node is there yet."""

    def network(self, name: str) -> int:
        raise KernelError(errno.ENOENT, f"ip netns pids t.{name}", name)


def test_a_node_that_is_still_being_made_is_nothing_to_complain_of(caplog: pytest.LogCaptureFixture) -> None:
    """The periodic look comes by while a big cluster is made."""
    network = Network(cast("Machine", Nodeless()))
    access = Access(
        ClusterPaths("t"), cast("Keys", None), cast("ApiServer", None), network, cast("Identify", None)
    )
    assert access._sockets(("w1",)) == {}
    assert caplog.records == []
