"""The machine: the one object through which a cluster's kernel state is changed and read.

`applying` carries out operations in bulk, `observe` reads namespaces back as values, `generation` says at
constant cost whether anybody has touched a rule. All is blocking, for one thread, inside the holder's PID and
mount namespaces (`Holder.join`, then fork); pids are meant as they count in there.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from types import MappingProxyType

from nsk8s.errors import HostError, KernelError
from nsk8s.kernel import conntrack, iptables, nftables
from nsk8s.kernel.batch import Batch, Failed
from nsk8s.kernel.forked import ForkServer
from nsk8s.kernel.holder import Holder
from nsk8s.kernel.looking import Looker, Refused, Subject
from nsk8s.kernel.making import Wanted
from nsk8s.kernel.sandboxes import Sandbox, Sandboxes
from nsk8s.kernel.wiring import Wirer
from nsk8s.linux import iptables as rules
from nsk8s.linux.nftables import Key
from nsk8s.linux.state import EVERYTHING, Reading
from nsk8s.linux.text import commands
from nsk8s.linux.values import Namespace, NamespaceState, Op
from nsk8s.paths import ClusterPaths

__all__ = ["KernelErrors", "Machine", "Sandbox"]

_WHOLE: Mapping[str, Reading] = MappingProxyType({})
_NO_KEYS: Mapping[str, Iterable[str]] = MappingProxyType({})
_NO_TABLES: Mapping[str, Collection[Key]] = MappingProxyType({})

_HINTS = {
    errno.ENOSPC: "a limit on namespaces is reached: sysctl user.max_net_namespaces",
    errno.EXFULL: "a Linux bridge has at most 1023 ports: spread the pods over more nodes",
    errno.EOPNOTSUPP: "this kernel lacks the feature: nsk8s doctor",
    errno.EPERM: "run this as root",
}


class KernelErrors(KernelError):
    """Several operations were refused: `errors` has them all; itself it is the first."""

    def __init__(self, errors: Sequence[KernelError]) -> None:
        first = errors[0]
        super().__init__(first.errno, first.command, first.namespace, hint=first.hint)
        shown = [str(error) for error in errors[:10]]
        more = [f"and {len(errors) - 10} more"] if len(errors) > 10 else []
        self.message = "\n".join([*shown, *more])
        self.hint = ""
        self.args = (self.message,)
        self.errors = tuple(errors)


class Machine:
    """The kernel state of one cluster."""

    def __init__(self, paths: ClusterPaths, holder: Holder, forks: ForkServer | None = None) -> None:
        """`forks` has joined the holder; without one, it is forked from the caller's process."""
        self._prefix = f"{paths.cluster}."
        self._forks = forks or ForkServer()
        try:
            self._wirer = Wirer(self._forks)
            self._sandboxes = Sandboxes(paths, holder, self._forks)
            self._looker = Looker(self._forks, self._sandboxes.home)
        except OSError as error:
            raise HostError(f"cannot use this host's namespaces: {error}", hint="run this as root") from error

    def sandboxes(self, *, thorough: bool = True) -> dict[str, Sandbox]:
        """What exists now, by name, from the processes themselves; a sandbox whose pause process was
        killed is not listed any more. Their names in /run/netns are put right on the way. Unless it is a
        `thorough` look only what we know already is listed."""
        if not thorough:
            return self._sandboxes.left()
        found = self._sandboxes.find()
        self._sandboxes.links()
        return found

    def pid(self, name: str) -> int:
        """The pause process of a sandbox; KernelError if there is none."""
        found = self._sandboxes.get(name)
        if found is None:
            raise KernelError(errno.ENOENT, f"ip netns pids {self._prefix}{name}", name)
        return found.pid

    def tag(self, name: str) -> str | None:
        """The tag of a sandbox; None if there is no sandbox of this name."""
        found = self._sandboxes.get(name)
        return None if found is None else found.tag

    def network(self, name: str) -> int:
        """Which network namespace a sandbox has, as the kernel numbers them; KernelError if there is no such
        sandbox."""
        try:
            return os.stat(f"/proc/{self.pid(name)}/ns/net").st_ino
        except OSError as error:
            raise _refused(error, f"ip netns pids {self._prefix}{name}", name) from error

    def enter(self, name: str) -> AbstractContextManager[None]:
        """Run a block in a namespace's network: sockets made there stay there. Raises FileNotFoundError."""
        return self._sandboxes.enter(name)

    def stock(self, number: int) -> None:
        """So many namespaces will be wanted: make them while nothing else is to be done. With 0, let go of
        those that nobody wanted after all. May be called from any thread."""
        self._sandboxes.stock(number)

    def begin(
        self, names: Iterable[str], states: Mapping[str, NamespaceState], tags: Mapping[str, str]
    ) -> None:
        """Begin to make the namespaces that are not there yet, for `applying` to find them made."""
        absent = (name for name in names if name and name not in self._sandboxes)
        self._sandboxes.begin([Wanted(name, states[name].hostname, tags.get(name, "")) for name in absent])

    def links(self) -> None:
        """Make the names in /run/netns agree with the sandboxes."""
        self._sandboxes.links()

    def applying(self, ops: Sequence[Op], tags: Mapping[str, str]) -> Iterator[list[str]]:
        """Carry out `ops`, grouped by namespace; groups in the order in which namespaces first appear.

        A namespace with a tag gets a PID namespace of its own; new ones come last, and the names of those
        that can be used already are yielded. Does all it can and then raises KernelError for an operation
        that was refused, KernelErrors for several.
        """
        batch = Batch(self._sandboxes, self._wirer, tags)
        try:
            yield from batch.run(ops)
        finally:
            batch.close()
        self._sandboxes.named()
        errors = [self._error(one) for one in _causes(batch.failed)] + batch.errors
        if errors:
            raise errors[0] if len(errors) == 1 else KernelErrors(errors)

    def add_shared(self, name: str, owner: str, tag: str) -> Sandbox:
        """A sandbox in the network and UTS namespaces of `owner`, with IPC and PID namespaces of its own.
        Raises KernelError."""
        try:
            sandbox = self._sandboxes.share(name, owner, tag)
            self._sandboxes.named()
            return sandbox
        except OSError as error:
            raise _refused(error, f"unshare --ipc --pid for {name}", owner) from error

    def remove(self, names: Iterable[str]) -> None:
        """End sandboxes, every process in them, and with them their namespaces. Raises Timeout."""
        self._sandboxes.remove(names)

    def observe(
        self,
        names: Iterable[str],
        own_chains: tuple[str, ...],
        *,
        without_rules: Collection[str] = (),
        with_rules6: Collection[str] = (),
        sysctls: Mapping[str, Iterable[str]] = _NO_KEYS,
        tables: Mapping[str, Collection[Key]] = _NO_TABLES,
        readings: Mapping[str, Reading] = _WHOLE,
    ) -> dict[str, NamespaceState]:
        """What the kernel holds in the given namespaces ("" is the host's own); those that are not there
        are left out.

        Rules are those of chains whose names begin with one of `own_chains`, and the jumps to them (those of
        ip6tables for `with_rules6` only); none are read for `without_rules`, neither there nor of nft's
        `tables`. Of sysctls and of those tables only the ones asked for, by namespace, are read; of
        routes and neighbours what `readings` has for a namespace, or else all.
        """
        found: dict[str, NamespaceState] = {}
        ruled = []
        tabled: dict[str, Collection[Key]] = {}
        subjects = [
            Subject(
                name,
                self._sandboxes.pid(name) if name else 0,
                readings.get(name, EVERYTHING),
                tuple(sysctls.get(name, ())),
                rules=name not in without_rules,
                tables=name not in without_rules and bool(tables.get(name)),
            )
            for name in names
            if not name or name in self._sandboxes
        ]
        for seen in self._looker.look(subjects):
            if isinstance(seen, Refused):
                error = OSError(seen.errno, seen.reason)
                raise _refused(error, "ip link; ip address; ip route; ip neigh; bridge fdb", seen.name)
            if seen is None:
                continue
            name = seen.state.name
            found[name] = seen.state
            if seen.rules:
                ruled.append(name)
            if seen.tables:
                tabled[name] = tables[name]
        enter = self._sandboxes.enter
        for name, text in iptables.save(ruled, enter).items():
            found[name] = replace(found[name], rules=rules.parse(text, own_chains))
        for name, text in iptables.save([n for n in ruled if n in with_rules6], enter, 6).items():
            found[name] = replace(found[name], rules6=rules.parse(text, own_chains))
        for name, held in nftables.tables(tabled, enter).items():
            found[name] = replace(found[name], nft=held)
        return found

    def generation(self, name: str) -> int | None:
        """The number of the rule set of a namespace; any change by anybody makes it another. None where
        it cannot be known (legacy iptables). Raises KernelError."""
        try:
            with self._sandboxes.enter(name):
                return iptables.generation()
        except OSError as error:
            raise _refused(error, "nft list ruleset", name) from error

    def forget_udp(self, name: str, frontends: conntrack.Frontends) -> int:
        """Delete the namespace's connection tracking entries of UDP flows to backends that serve no more;
        returns how many. Raises KernelError."""
        try:
            with self._sandboxes.enter(name):
                return conntrack.forget_udp(frontends)
        except OSError as error:
            raise _refused(error, "conntrack -D -p udp", name) from error

    def close(self) -> None:
        """Let go of what keeps the way home open; nothing else ends."""
        self._sandboxes.close()
        self._wirer.close()
        self._looker.close()
        self._forks.close()

    def _error(self, failed: Failed) -> KernelError:
        op, refusal = failed
        text = commands(op, self._prefix)
        hint = "; ".join(filter(None, (refusal.reason, _HINTS.get(refusal.errno, ""))))
        return KernelError(refusal.errno, text[0] if text else repr(op.value), op.namespace, hint=hint)


def _causes(failed: Sequence[Failed]) -> list[Failed]:
    """Without what failed only because its namespace could not be made."""
    unmade = {one.op.namespace for one in failed if isinstance(one.op.value, Namespace)}
    return [one for one in failed if isinstance(one.op.value, Namespace) or one.op.namespace not in unmade]


def _refused(error: OSError, command: str, namespace: str) -> KernelError:
    number = error.errno or errno.EIO
    return KernelError(number, command, namespace, hint=_HINTS.get(number, error.strerror or ""))
