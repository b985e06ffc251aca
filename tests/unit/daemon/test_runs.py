"""What is known of a container's run ends with it."""

from __future__ import annotations

import asyncio

from nsk8s.daemon.runs import Run, Runs

KEY = ("uid", "c")


def test_who_is_forgotten_is_not_killed_later_and_has_no_hook_any_more() -> None:
    async def forget() -> tuple[list[str], Run]:
        loop = asyncio.get_running_loop()
        killed: list[str] = []
        later = asyncio.Event()
        runs = Runs()
        runs[KEY] = Run(0, killer=loop.call_later(0, killed.append, "it"))
        runs[KEY].hook = loop.create_task(asyncio.sleep(3600))
        run = runs.forget(KEY)
        assert run is not None
        assert runs.forget(KEY) is None
        loop.call_later(0, later.set)  # after the killer's turn
        await later.wait()
        return killed, run

    killed, run = asyncio.run(forget())
    assert killed == []
    assert run.over.is_set()
    assert run.hook is not None
    assert run.hook.cancelled()


def test_a_run_that_goes_on_is_left_alone() -> None:
    async def forget() -> tuple[Runs, Run]:
        runs = Runs({KEY: Run(0), ("uid", "other"): Run(3)})
        runs.forget(KEY)
        return runs, runs["uid", "other"]

    runs, other = asyncio.run(forget())
    assert list(runs) == [("uid", "other")]
    assert not other.over.is_set()
