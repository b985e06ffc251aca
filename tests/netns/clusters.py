"""A bare cluster for tests of the kernel room: a holder, and work done inside it, gone with the test."""

from __future__ import annotations

import os
import pickle
import subprocess
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from nsk8s.kernel import holder as holders
from nsk8s.kernel.holder import Holder
from nsk8s.kernel.machine import Machine
from nsk8s.linux.values import Op
from nsk8s.paths import ClusterPaths

T = TypeVar("T")


@dataclass(frozen=True)
class BareCluster:
    """A holder and nothing else."""

    paths: ClusterPaths
    holder: Holder

    def inside(self, work: Callable[[Machine], T]) -> T:
        """Do `work` in a process of its own inside the cluster, as a control plane would, which then
        ends like one that is killed: nothing is tidied up. Its result must be picklable."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            with suppress(BaseException):
                self.holder.join()
                worker = os.fork()
                if worker == 0:
                    with os.fdopen(write, "wb") as answer:
                        answer.write(self._answer(work))
                else:
                    os.waitpid(worker, 0)
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as answer:
            raw = answer.read()
        os.waitpid(child, 0)
        assert raw, "the process inside the cluster ended without an answer"
        result, failure = pickle.loads(raw)
        assert not failure, failure
        value: T = result
        return value

    def _answer(self, work: Callable[[Machine], T]) -> bytes:
        try:
            return pickle.dumps((work(Machine(self.paths, self.holder)), ""))
        except BaseException:  # noqa: BLE001  # whatever it is, the test shall show it
            return pickle.dumps((None, traceback.format_exc()))

    def run(self, namespace: str, *argv: str) -> subprocess.CompletedProcess[str]:
        """A command in one of the cluster's namespaces, as a person on the host would run it."""
        name = f"{self.paths.cluster}.{namespace}"
        words = ("ip", "netns", "exec", name, *argv)
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)


def apply(machine: Machine, ops: Sequence[Op], tags: Mapping[str, str] = MappingProxyType({})) -> None:
    """Carry out all of `ops`. Raises as `Machine.applying` does."""
    for _ in machine.applying(ops, tags):
        pass


@contextmanager
def bare_cluster() -> Iterator[BareCluster]:
    """A new cluster with a name that nobody has."""
    paths = ClusterPaths(f"t{uuid.uuid4().hex[:8]}")
    try:
        yield BareCluster(paths, holders.start(paths))
    finally:
        holders.down(paths)
