"""What has changed among many services is found without looking at the rest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nsk8s.dataplane.serviceports import differing

lists = st.lists(st.integers(), max_size=12)


@given(lists, lists, lists, lists)
def test_only_what_differs_is_left_and_nothing_of_it_is_lost(
    start: list[int], old: list[int], new: list[int], end: list[int]
) -> None:
    gone, come = differing([*start, *old, *end], [*start, *new, *end])
    assert len(gone) <= len(old)
    assert len(come) <= len(new)
    assert sorted([*start, *old, *end, *come]) == sorted([*start, *new, *end, *gone])


@given(lists)
def test_nothing_differs_from_itself(same: list[int]) -> None:
    assert differing(same, list(same)) == ([], [])
