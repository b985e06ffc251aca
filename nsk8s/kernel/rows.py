"""Which new namespaces can be made at the same time.

Half of the making is waiting for the kernel, so several threads do it. Each takes a row of namespaces, one
after the other; two rows have nothing to do with each other.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from nsk8s.linux.values import Namespace, Op, VethPair

AT_ONCE = 3
"""Most rows: more threads than that wait for each other."""

Groups = Mapping[str, Sequence[Op]]
"""Operations by namespace, in the order in which they are carried out."""


def rows(groups: Groups, existing: Container[str]) -> list[dict[str, Sequence[Op]]]:
    """Those of `groups` that make a namespace with a pair to another one, and to which nobody else has a
    pair: pods. All whose pairs end in the same namespace, where interfaces are numbered, are in one row."""
    ends = {
        name: {outer_namespace(op.value) for op in group if isinstance(op.value, VethPair)}
        for name, group in groups.items()
    }
    outer = set().union(*ends.values())
    beside: dict[str, dict[str, Sequence[Op]]] = {}
    for name, group in groups.items():
        new = isinstance(group[0].value, Namespace) and group[0].verb == "add" and name not in existing
        if new and name not in outer and len(ends[name]) == 1:
            [end] = ends[name]
            beside.setdefault(end, {})[name] = group
    found: list[dict[str, Sequence[Op]]] = [{} for _ in range(min(AT_ONCE, len(beside)))]
    for several in sorted(beside.values(), key=len, reverse=True):
        min(found, key=len).update(several)
    return found


def outer_namespace(pair: VethPair) -> str:
    """Where the outer end of a pair is. Raises ValueError if the inner one does not say."""
    if pair.inner.peer is None:
        raise ValueError(f"veth {pair.inner.name} does not name its peer")
    return pair.inner.peer.namespace
