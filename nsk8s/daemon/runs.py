"""The containers that run: what is known of each run, by the pod's UID and the container's name."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping

from msgspec import Struct, field

from nsk8s.kernel import processes

Key = tuple[str, str]
"""Pod UID and container name."""


def container_id(pod: str, container: str, attempt: int) -> str:
    """64 hex digits, as container runtimes name theirs; always the same for the same run."""
    return hashlib.sha256(f"{pod}/{container}/{attempt}".encode()).hexdigest()


class Run(Struct):
    """One run of a container: `process` is None for a stand-in; `hook` is the preStop hook that
    runs before it is ended, `env` its environment where it is known; `over` is set when it has ended."""

    attempt: int
    process: processes.Running | None = None
    killer: asyncio.TimerHandle | None = None
    hook: asyncio.Task[None] | None = None
    env: Mapping[str, str] | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def finish(self) -> None:
        """It has ended: nothing is to be done with it any more."""
        self.over.set()
        if self.killer is not None:
            self.killer.cancel()
        if self.hook is not None:
            self.hook.cancel()


class Runs(dict[Key, Run]):
    """The present runs of one cluster's containers."""

    def forget(self, key: Key) -> Run | None:
        """A run has ended, or is about to; it is returned if there was one."""
        run = self.pop(key, None)
        if run is not None:
            run.finish()
        return run
