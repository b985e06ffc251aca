from __future__ import annotations

import pytest

from nsk8s.api import selectors
from nsk8s.api.types import LabelSelector, Requirement
from nsk8s.errors import ApiError

WEB = {"app": "web", "tier": "front", "size": "10"}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app = web , tier=front", True),
        ("app=web,tier=back", False),
        ("app!=web", False),
        ("other!=web", True),
        ("app in (web,db)", True),
        ("app in (db)", False),
        ("app notin (db,cache)", True),
        ("other notin (x)", True),
        ("app", True),
        ("!app", False),
        ("!other", True),
        ("app=web,!other,tier in (front),size>9", True),
        ("size<10", False),
        ("app>9", False),
        ("app=", False),
        ("in=x", False),
        ("a.b/c=x", False),
    ],
)
def test_the_grammar_of_l(text: str, selected: bool) -> None:
    parsed = selectors.parse(text)
    assert parsed.matches(WEB) is selected
    assert selectors.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "=a",
        "a=b c",
        "a in b",
        "a in (b",
        "a,,b",
        "a=b,",
        "a=b=c",
        "a>b",
        "(",
        "a in (b c)",
        "a=!",
        "/a",
        "-a=b",
    ],
)
def test_nonsense_is_a_bad_request(text: str) -> None:
    with pytest.raises(ApiError) as refused:
        selectors.parse(text)
    assert refused.value.code == 400
    assert text in refused.value.message


@pytest.mark.parametrize(
    ("requirement", "selected"),
    [
        (Requirement("app", "In", ("web",)), True),
        (Requirement("none", "In", ("web",)), False),
        (Requirement("app", "NotIn", ("web",)), False),
        (Requirement("none", "NotIn", ("web",)), True),
        (Requirement("app", "Exists"), True),
        (Requirement("none", "DoesNotExist"), True),
    ],
)
def test_match_expressions(requirement: Requirement, selected: bool) -> None:
    assert selectors.matches(LabelSelector(None, (requirement,)), WEB) is selected
    assert not selectors.matches(LabelSelector({"app": "db"}, (requirement,)), WEB)


def test_no_selector_selects_nothing_and_an_empty_one_everything() -> None:
    assert not selectors.matches(None, WEB)
    assert selectors.matches(LabelSelector(), WEB)


def test_fields() -> None:
    pod = {
        "metadata": {"name": "a", "namespace": "x"},
        "spec": {"nodeName": "w1", "hostNetwork": True},
        "status": {},
    }
    for text, selected in (
        ("", True),
        ("spec.nodeName=w1", True),
        ("spec.nodeName!=w1", False),
        ("metadata.name==a,metadata.namespace=x", True),
        ("status.phase=", True),
        ("status.phase!=Running", True),
        ("spec.hostNetwork=true", True),
        (r"metadata.name=a\,b", False),
    ):
        assert selectors.fields(text, "pods").matches(pod) is selected, text


@pytest.mark.parametrize("text", ["spec.nodeName", "=a", "spec.color=red", "a=b=c"])
def test_fields_that_cannot_be_selected_by(text: str) -> None:
    with pytest.raises(ApiError) as refused:
        selectors.fields(text, "pods")
    assert refused.value.code == 400
