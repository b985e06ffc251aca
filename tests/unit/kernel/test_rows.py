"""Which namespaces are made at the same time."""

from __future__ import annotations

from nsk8s.kernel.rows import rows as rows_of
from nsk8s.linux.values import Link, Namespace, Op, Peer, VethPair


def made(name: str, outside: str = "") -> list[Op]:
    """A namespace with one pair, whose other end is `outside`."""
    ops = [Op("add", name, Namespace(name))]
    if outside:
        inner = Link("eth0", "veth", 1450, peer=Peer(outside, f"v{name}"))
        ops.append(Op("add", name, VethPair(inner, Link(f"v{name}", "veth", 1450))))
    return ops


def rows(*there: str, **groups: list[Op]) -> list[set[str]]:
    return sorted(map(set, rows_of(groups, there)), key=sorted)


NODES = {"fabric": made("fabric"), "w1": made("w1", "fabric"), "w2": made("w2", "fabric")}


def test_pods_of_one_node_are_made_one_after_the_other_and_those_of_two_beside_them() -> None:
    pods = {name: made(name, f"w{name[1]}") for name in ("p11", "p12", "p21", "p22")}
    assert rows(**NODES, **pods) == [{"p11", "p12"}, {"p21", "p22"}]


def test_what_pairs_end_in_comes_before_all_of_them() -> None:
    assert rows(**NODES) == [{"w1", "w2"}]
    assert rows(**NODES, p1=made("p1", "w1")) == [{"p1"}, {"w2"}]


def test_a_namespace_that_is_there_is_not_made() -> None:
    assert rows("p1", p1=made("p1", "w1"), p2=made("p2", "w1")) == [{"p2"}]
    assert rows(w1=[Op("change", "w1", Link("cni0", "bridge", 1450))]) == []
