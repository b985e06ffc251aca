"""iptables-restore(8) and iptables-save(8) and those of ip6tables, in many namespaces at once, and the cheap
question whether anything has changed at all.
"""

from __future__ import annotations

import errno
import functools
import re
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import ExitStack

from nsk8s.errors import KernelError
from nsk8s.kernel import nfreplay, nftables, programs
from nsk8s.kernel.nfreplay import Recording
from nsk8s.kernel.programs import Enter, Result, run
from nsk8s.linux.values import Family

_LINE = re.compile(r"line:? (\d+)")


_PROGRAMS: Mapping[Family, str] = {4: "iptables", 6: "ip6tables"}

_FEW = 2
"""So many run together sooner than one after the other."""


def restore(scripts: Mapping[str, str], enter: Enter, family: Family = 4) -> list[KernelError]:
    """Feed each namespace (by name) its script for ``iptables-restore --noflush --counters``.

    Every script is atomic per table; one that fails does not keep the others. Where several namespaces get
    the same one, what it did in the first is done again in the others, if it can be. Returns the failures.
    Raises HostError if there is no iptables-restore.
    """
    argv = (f"{_PROGRAMS[family]}-restore", "--noflush", "--counters", "-w")
    same = _same(scripts)
    others = {name for names in same for name in names[1:]}
    with ExitStack() as stack:
        firsts = {name: stack.enter_context(Recording(argv, name, scripts[name], enter)) for name, *_ in same}
        alone = scripts.keys() - firsts.keys() - others
        results = list(run(argv, {name: text for name, text in scripts.items() if name in alone}, enter))
        again: dict[str, list[list[bytes]]] = {}
        for first, *rest in same:
            if done := firsts[first].transactions(family):
                again |= dict.fromkeys(rest, done)
        left = others - again.keys() | nftables.send(again, enter)
        results += [one.finish() for one in firsts.values()]
    results += run(argv, {name: text for name, text in scripts.items() if name in left}, enter)
    return [_failure(argv[0], one, scripts[one.namespace]) for one in results if one.status != 0]


def _same(scripts: Mapping[str, str]) -> list[list[str]]:
    """The namespaces that get the same script, where it is worth while to have it read only once."""
    names: dict[str, list[str]] = {}
    for name, text in scripts.items():
        names.setdefault(text, []).append(name)
    several = {text: of for text, of in names.items() if len(of) > _FEW and nfreplay.portable(text)}
    return list(several.values()) if several and backend() == "nf_tables" else []


def save(namespaces: Iterable[str], enter: Enter, family: Family = 4) -> dict[str, str]:
    """The text of iptables-save for each namespace. Raises KernelError for the first that fails."""
    texts = {}
    program = f"{_PROGRAMS[family]}-save"
    for result in run((program,), dict.fromkeys(namespaces, ""), enter):
        if result.status != 0:
            raise KernelError(errno.EINVAL, program, result.namespace, hint=result.errors)
        texts[result.namespace] = result.output.decode()
    return texts


@functools.cache
def backend() -> str:
    """Which kernel interface the installed iptables speaks: ``nf_tables`` or ``legacy``."""
    try:
        text = subprocess.run(["iptables", "-V"], capture_output=True, text=True, check=False).stdout
    except OSError as error:
        raise programs.missing("iptables", error) from error
    return "nf_tables" if "nf_tables" in text else "legacy"


def generation() -> int | None:
    """The number of the nf_tables rule set in the calling thread's namespace: every change to any rule adds
    to it. None where it cannot be known, because iptables is the legacy one."""
    return None if backend() == "legacy" else nftables.generation()


def untouched() -> bool:
    """Whether the calling thread's namespace has never had a rule, by what costs next to nothing."""
    if backend() == "legacy":
        try:
            return not any(_legacy_tables(names) for names in ("ip_tables_names", "ip6_tables_names"))
        except FileNotFoundError:
            return True
    return nftables.untouched()


def _legacy_tables(names: str) -> bytes:
    with open(f"/proc/thread-self/net/{names}", "rb") as file:
        return file.read()


def _failure(program: str, result: Result, script: str) -> KernelError:
    """The error, with the line of the script that the tool points at."""
    lines = script.splitlines()
    found = _LINE.search(result.errors)
    number = int(found[1]) if found else 0
    culprit = f"; line {number} is: {lines[number - 1]}" if 0 < number <= len(lines) else ""
    command = f"{program} --noflush"
    return KernelError(errno.EINVAL, command, result.namespace, hint=result.errors + culprit)
