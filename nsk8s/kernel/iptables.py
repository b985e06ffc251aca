"""iptables-restore(8) and iptables-save(8), in many namespaces at once, and the cheap question whether
anything has changed at all.

A process is started from a thread that stands in the namespace (0.1 ms by vfork; nsenter takes 2 ms), so
that as many run at a time as there are processors.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import subprocess
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO

from nsk8s.errors import HostError, KernelError, Timeout
from nsk8s.kernel.netlink import NETLINK_NETFILTER, Netlink, attributes

Enter = Callable[[str], AbstractContextManager[None]]
"""Puts the calling thread into a network namespace, by name, and back."""

DEADLINE = 120.0
"""Seconds that one run may take; 10,000 services in kube-proxy's shape take 71."""

_NFT_MSG_GETGEN = (10 << 8) | 16  # NFNL_SUBSYS_NFTABLES
_NFTA_GEN_ID = 1
_LINE = re.compile(r"line:? (\d+)")


@dataclass(frozen=True, slots=True)
class _Run:
    namespace: str
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    errors: IO[bytes]


@dataclass(frozen=True, slots=True)
class _Result:
    namespace: str
    status: int
    output: bytes
    errors: str


def restore(scripts: Mapping[str, str], enter: Enter) -> list[KernelError]:
    """Feed each namespace (by name) its script for ``iptables-restore --noflush --counters``.

    Every script is atomic per table; one that fails does not keep the others. Returns the failures.
    Raises HostError if there is no iptables-restore.
    """
    results = _run(("iptables-restore", "--noflush", "--counters", "-w"), scripts, enter)
    return [_failure(one, scripts[one.namespace]) for one in results if one.status != 0]


def save(namespaces: Iterable[str], enter: Enter) -> dict[str, str]:
    """The text of iptables-save for each namespace. Raises KernelError for the first that fails."""
    texts = {}
    for result in _run(("iptables-save",), dict.fromkeys(namespaces, ""), enter):
        if result.status != 0:
            raise KernelError(errno.EINVAL, "iptables-save", result.namespace, hint=result.errors)
        texts[result.namespace] = result.output.decode()
    return texts


@functools.cache
def backend() -> str:
    """Which kernel interface the installed iptables speaks: ``nf_tables`` or ``legacy``."""
    try:
        text = subprocess.run(["iptables", "-V"], capture_output=True, text=True, check=False).stdout
    except OSError as error:
        raise _missing("iptables", error) from error
    return "nf_tables" if "nf_tables" in text else "legacy"


def generation() -> int | None:
    """The number of the nf_tables rule set in the calling thread's namespace: every change to any rule adds
    to it. None where it cannot be known, because iptables is the legacy one."""
    if backend() == "legacy":
        return None
    with Netlink(NETLINK_NETFILTER) as netlink:
        answer = netlink.get(_NFT_MSG_GETGEN, bytes(4))
    return int.from_bytes(attributes(answer, 4)[_NFTA_GEN_ID], "big")


def untouched() -> bool:
    """Whether the calling thread's namespace has never had a rule, by what costs next to nothing."""
    if backend() == "legacy":
        try:
            with open("/proc/thread-self/net/ip_tables_names", "rb") as file:
                return not file.read()
        except FileNotFoundError:
            return True
    return generation() == 1


def _run(argv: tuple[str, ...], inputs: Mapping[str, str], enter: Enter) -> Iterator[_Result]:
    """Run `argv` once per namespace with its input, several at a time; yields as they end, in order."""
    running: deque[_Run] = deque()
    limit = os.cpu_count() or 1
    try:
        for namespace, text in inputs.items():
            if len(running) == limit:
                yield _finish(argv[0], running.popleft())
            running.append(_start(argv, namespace, text, enter))
        while running:
            yield _finish(argv[0], running.popleft())
    finally:
        for run in running:  # after an error: nobody will ask how they ended
            run.process.kill()
            _finish(argv[0], run)


def _start(argv: tuple[str, ...], namespace: str, text: str, enter: Enter) -> _Run:
    # Files in memory, not pipes: nobody has to read while the process writes.
    source, output, errors = _memory("in"), _memory("out"), _memory("err")
    with source:
        source.write(text.encode())
        source.seek(0)
        try:
            with enter(namespace):
                process = subprocess.Popen(argv, stdin=source, stdout=output, stderr=errors)
        except BaseException as error:
            output.close()
            errors.close()
            if isinstance(error, FileNotFoundError) and error.filename == argv[0]:
                raise _missing(argv[0], error) from error
            raise
    return _Run(namespace, process, output, errors)


def _memory(name: str) -> IO[bytes]:
    return os.fdopen(os.memfd_create(name), "w+b")


def _finish(program: str, run: _Run) -> _Result:
    with run.output, run.errors:
        try:
            status = run.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            run.process.kill()
            run.process.wait()
            raise Timeout(f"namespace {run.namespace}: {program} did not end in {DEADLINE:g} s") from None
        run.output.seek(0)
        run.errors.seek(0)
        errors = run.errors.read().decode(errors="replace").strip()
        return _Result(run.namespace, status, run.output.read(), errors)


def _failure(result: _Result, script: str) -> KernelError:
    """The error, with the line of the script that the tool points at."""
    lines = script.splitlines()
    found = _LINE.search(result.errors)
    number = int(found[1]) if found else 0
    culprit = f"; line {number} is: {lines[number - 1]}" if 0 < number <= len(lines) else ""
    command = "iptables-restore --noflush"
    return KernelError(errno.EINVAL, command, result.namespace, hint=result.errors + culprit)


def _missing(program: str, error: OSError) -> HostError:
    return HostError(f"cannot run {program}: {error.strerror}", hint="apt-get install iptables")
