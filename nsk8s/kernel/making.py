"""Sandboxes made ahead of whoever wires them.

Half the time that a new pod takes in the kernel is its namespaces and its pause process, the other half its
interfaces. A thread of its own makes the former, so that both halves run side by side; and the network
namespaces, which take longest and are all alike, it makes while others still decide what the pods are.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from nsk8s.kernel import namespaces, pause, rtnetlink, sysctl
from nsk8s.kernel.namespaces import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWUTS, Home
from nsk8s.kernel.netlink import Netlink


class Wanted(NamedTuple):
    """A sandbox to make: with network, UTS and IPC namespaces of its own, and with a tag (a pod's) also one
    of processes, in which its pause process is PID 1. Lo is up; without a tag (a node's: its bridge ports
    would announce themselves) interfaces have no IPv6 unless they ask for it."""

    name: str
    hostname: str
    tag: str


class Maker:
    """Makes sandboxes, in order, in one thread: in the mount and PID namespaces of the thread that made
    the Maker."""

    def __init__(self, program: str, argv: Sequence[str]) -> None:
        """`program` is run as `argv` and the sandbox's name and tag."""
        self._program = program
        self._argv = argv
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sandboxes")
        self._home = self._thread.submit(Home, "net", "uts", "ipc", "pid").result()
        self._stock: list[int] = []
        self._asked = False

    def stock(self, number: int) -> None:
        """Make network namespaces for up to `number` sandboxes, until the first are asked for. As long as
        nobody uses them each takes a file descriptor: no more than half of those the process may have."""
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        self._asked = False
        self._thread.submit(self._fill, min(number, most))

    def begin(self, wanted: Sequence[Wanted]) -> Mapping[str, Future[int]]:
        """Begin to make them; by name, what will be the pid of each one's pause process. A result may be
        OSError."""
        self._asked = True
        making: dict[str, Future[int]] = {one.name: Future() for one in wanted}
        self._thread.submit(self._make_all, wanted, making)
        return making

    def close(self) -> None:
        """Finish what has been begun; no sandbox ends."""
        self._thread.shutdown()
        self._home.close()

    def _fill(self, number: int) -> None:
        with suppress(OSError):  # whoever needs one meets the same limit, and says so
            while len(self._stock) < number and not self._asked:
                namespaces.unshare(CLONE_NEWNET)
                self._stock.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        self._home.back("net")

    def _make_all(self, wanted: Sequence[Wanted], making: Mapping[str, Future[int]]) -> None:
        for one in wanted:
            try:
                making[one.name].set_result(self._make(one))
            except BaseException as error:  # noqa: BLE001  # whoever waits for it raises it
                making[one.name].set_exception(error)
        self._home.back()
        while self._stock:
            os.close(self._stock.pop())

    def _make(self, wanted: Wanted) -> int:
        processes = CLONE_NEWPID if wanted.tag else 0
        namespaces.unshare(CLONE_NEWUTS | CLONE_NEWIPC | processes | (0 if self._stock else CLONE_NEWNET))
        try:
            if self._stock:
                network = self._stock.pop()
                try:
                    namespaces.setns(network, CLONE_NEWNET)
                finally:
                    os.close(network)
            if wanted.hostname:
                namespaces.sethostname(wanted.hostname)
            with Netlink() as netlink:
                netlink.send([rtnetlink.up(0, 1)])
            if not wanted.tag:
                with suppress(FileNotFoundError):
                    sysctl.write("net.ipv6.conf.default.disable_ipv6", "1")
            return pause.start(self._program, [*self._argv, wanted.name, wanted.tag])
        finally:
            self._home.back("pid")  # the kernel wants it before the next unshare (EINVAL)
