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
    ("text", "message"),
    [
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a,,b", "found ',', expected: identifier after ','"),
        ("a=b,", "found '', expected: identifier after ','"),
        ("a=b=c", "found '=', expected: ',' or 'end of string'"),
        (
            "a>b",
            'unable to parse requirement: values[0]: Invalid value: "b": '
            "for 'Gt', 'Lt' operators, the value must be an integer",
        ),
        ("(", "found '(', expected: !, identifier, or 'end of string'"),
        ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
        ("a=!", "unable to parse requirement: found '!', expected: identifier"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("/a", 'unable to parse requirement: <nil>: Invalid value: "/a": prefix part must be non-empty'),
        ("a=-b", 'unable to parse requirement: values[0][a]: Invalid value: "-b": a valid label must be'),
    ],
)
def test_nonsense_is_a_bad_request(text: str, message: str) -> None:
    with pytest.raises(ApiError) as refused:
        selectors.parse(text)
    assert refused.value.code == 400
    assert refused.value.message.startswith(message)


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


@pytest.mark.parametrize(
    ("resource", "text", "message"),
    [
        ("pods", "spec.nodeName", "invalid selector: 'spec.nodeName'; can't understand 'spec.nodeName'"),
        ("pods", "=a", "field label not supported: "),
        ("pods", "x=1", "field label not supported: x"),
        ("pods", "metadata.name=b=c", "invalid field selector: unescaped character in value: 61"),
        ("pods", "metadata.name=\\a", "invalid field selector: invalid escape sequence: \\a"),
        ("jobs.batch", "a=1", 'field label "a" not supported for batchv1.Job'),
        (
            "configmaps",
            "data=1",
            '"data" is not a known field selector: only "metadata.name", "metadata.namespace"',
        ),
    ],
)
def test_fields_that_cannot_be_selected_by(resource: str, text: str, message: str) -> None:
    with pytest.raises(ApiError) as refused:
        selectors.fields(text, resource)
    assert (refused.value.code, refused.value.message) == (400, message)


@pytest.mark.parametrize(
    ("resource", "obj", "text"),
    [
        ("events", {"involvedObject": {"name": "web", "kind": "Pod"}}, "involvedObject.name=web"),
        ("events", {"source": {"component": "kubelet"}}, "source=kubelet"),
        ("events", {"reportingComponent": "k"}, "source=k,reportingComponent=k"),
        ("events.events.k8s.io", {"regarding": {"name": "web"}}, "regarding.name=web"),
        ("events.events.k8s.io", {"involvedObject": {"name": "web"}}, "regarding.name==web"),
        ("jobs.batch", {"status": {"succeeded": 2}}, "status.successful=2"),
        ("jobs.batch", {}, "status.successful=0"),
        ("nodes", {"spec": {}}, "spec.unschedulable=false"),
        ("secrets", {"type": "Opaque"}, "type=Opaque"),
        ("replicasets.apps", {"status": {"replicas": 3}}, "status.replicas!=2"),
    ],
)
def test_fields_of_other_kinds(resource: str, obj: dict[str, object], text: str) -> None:
    assert selectors.fields(text, resource).matches(obj)


def test_fields_that_a_definition_names() -> None:
    found = selectors.fields("spec.color=red", "things.example.com", ("spec.color",))
    assert found.matches({"spec": {"color": "red"}})
    with pytest.raises(ApiError, match=r"^field label not supported: spec\.size$"):
        selectors.fields("spec.size=1", "things.example.com", ())
