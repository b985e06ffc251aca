"""When the control plane says that the network is what the objects ask for: whoever waits for it hears of it,
whatever else happens in that moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, cast

import pytest

from nsk8s.cluster.lifecycle import ContainerExited
from nsk8s.daemon.bringup import CLUSTERS
from nsk8s.daemon.network import Plan
from nsk8s.daemon.server import Daemon, new_store
from nsk8s.kernel.forked import ForkServer
from nsk8s.kernel.machine import Machine
from nsk8s.paths import ClusterPaths
from tests.unit.daemon.test_network import ModelMachine

PATIENCE = 5.0
"""Seconds that a test waits for what is due at once; the daemon itself would wait for a minute or two."""

NEWS = ContainerExited("nobody's", "c", 0, "Completed")
"""An event that changes nothing."""

CLUSTER = {
    "apiVersion": "nsk8s.dev/v1",
    "kind": "Cluster",
    "metadata": {"name": "t"},
    "spec": {"nodes": [{"name": "w1"}], "dns": {"replicas": 0}},
}


class Machineless(ModelMachine):
    def stock(self, number: int) -> None:
        """Nothing is made ahead."""


@pytest.fixture
def daemon(state: None) -> Daemon:
    """A control plane whose network comes true at once."""
    paths = ClusterPaths("t")
    paths.directory.mkdir(parents=True)
    store = new_store(paths)
    store.create(CLUSTERS, CLUSTER)
    made = Daemon(paths, store, cast("Machine", Machineless()), cast("ForkServer", None))
    made.plan = lambda: Plan({}, {}, {})  # type: ignore[method-assign]
    return made


async def nothing(*_: object) -> None:
    """Neither the API nor kube-proxy listens anywhere."""


async def following(
    daemon: Daemon,
    test: Coroutine[None, None, None],
    listen: Callable[..., Coroutine[None, None, None]] = nothing,
) -> None:
    """Run a test beside a control plane that follows its objects; `listen` is what kube-proxies do."""
    daemon.access.open = daemon.access.opened = nothing  # type: ignore[method-assign,assignment]
    daemon.proxies.listen = listen  # type: ignore[method-assign]
    follower = asyncio.get_running_loop().create_task(daemon.follow())
    try:
        async with asyncio.timeout(PATIENCE):
            await test
    finally:
        follower.cancel()
        with suppress(asyncio.CancelledError):
            await follower


def test_news_that_changes_nothing_keeps_nobody_waiting(daemon: Daemon) -> None:
    """It arrives between the turn that the follower waits for and the follower's own next step."""

    async def listen(_: object) -> None:
        daemon.post(NEWS)
        asyncio.get_running_loop().call_soon(daemon.post, NEWS)

    async def test() -> None:
        daemon._touch()
        await daemon.settled({})

    asyncio.run(following(daemon, test(), listen))


def test_up_ends_though_all_is_over_while_it_tells_of_its_progress(daemon: Daemon) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    body = {"cluster": CLUSTER, "objects": [namespace], "wait": 10 * PATIENCE}

    async def test() -> None:
        told: list[dict[str, Any]] = []
        async for line in daemon.up(body):
            told.append(line)
            if "progress" in line:
                await daemon.settled({})
        assert [*told[0].values()] == [{"object": "namespace/shop", "verdict": "created"}]
        assert "progress" in told[1]
        assert "done" in told[-1]

    asyncio.run(following(daemon, test()))
