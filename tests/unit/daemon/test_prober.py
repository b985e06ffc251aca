"""What a failed probe says: it ends in an event, in upstream's words."""

from __future__ import annotations

import asyncio
import socket

import pytest

from nsk8s.api.types import HTTPGetAction, Pod, TCPSocketAction
from nsk8s.cluster.lifecycle import RunProbe
from nsk8s.daemon.prober import probe_network


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (
            HTTPGetAction(path="/health"),
            'Get "http://127.0.0.1:{port}/health": dial tcp 127.0.0.1:{port}: connect: connection refused',
        ),
        (TCPSocketAction(), "dial tcp 127.0.0.1:{port}: connect: connection refused"),
    ],
)
def test_a_refused_connection(action: HTTPGetAction | TCPSocketAction, said: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        command = RunProbe("uid", "c", "readiness", action, "127.0.0.1", port, 1, Pod())
        told = asyncio.run(probe_network(command, socket.socket()))
    assert (told.ok, told.output) == (False, said.format(port=port))
