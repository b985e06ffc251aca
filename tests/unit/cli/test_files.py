from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nsk8s.api.manifest import read
from nsk8s.api.schema import CLUSTER
from nsk8s.cli import files
from nsk8s.errors import NsK8sError, UsageError

BROKEN = (
    "apiVersion: nsk8s.dev/v1\nkind: Cluster\nmetadata: {name: lab}\nspec: {podCIDRs: x, nodes: [{nam: a}]}\n"
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_validate_says_what_is_there(here: Path) -> None:
    (here / "a.yaml").write_text(
        "apiVersion: nsk8s.dev/v1\nkind: Cluster\nmetadata: {name: lab}\n---\n"
        "apiVersion: v1\nkind: LimitRange\nmetadata: {name: c}\nspec: {limits: []}\n"
    )
    result = CliRunner().invoke(files.validate, ["a.yaml"])
    assert (result.exit_code, result.stdout) == (0, "valid: cluster lab, 1 node, 0 clients, 1 object\n")
    assert result.stderr == "stored, and not acted on: LimitRange\n"


def test_validate_prints_every_mistake_and_fails(here: Path) -> None:
    (here / "a.yaml").write_text(BROKEN)
    result: Result = CliRunner().invoke(files.validate, ["a.yaml"])
    assert isinstance(result.exception, NsK8sError)
    assert str(result.exception) == "3 mistakes found"
    assert result.stdout.splitlines() == [
        'a.yaml:4:8: spec.podCIDRs: unknown field; did you mean "podCIDR"?',
        "a.yaml:4:29: spec.nodes[0].name: is missing; add `name:`",
        'a.yaml:4:30: spec.nodes[0].nam: unknown field; did you mean "name"?',
    ]


def test_validate_reads_standard_input() -> None:
    result = CliRunner().invoke(files.validate, ["-"], input="kind: Pod\n")
    assert result.stdout.startswith("<stdin>:1:1: apiVersion: Required value")


def test_schema_describes_every_field() -> None:
    result = CliRunner().invoke(files.schema)
    printed = json.loads(result.stdout)
    assert printed == CLUSTER
    assert printed["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    spec = printed["properties"]["spec"]["properties"]
    for place in (spec, spec["nodes"]["items"]["properties"], spec["clients"]["items"]["properties"]):
        for name, field in place.items():
            assert field.get("description"), name


def test_the_examples_are_listed_with_what_they_show() -> None:
    result = CliRunner().invoke(files.init, ["--list"])
    listed = {line.split()[0]: line.split(maxsplit=1)[1] for line in result.stdout.splitlines()}
    assert set(listed) == {
        "article",
        "dual-stack",
        "hostport",
        "minimal",
        "services",
        "shop",
        "thousand-pods",
        "two-zones",
    }
    assert all(text.endswith((".", "?")) for text in listed.values())


@pytest.mark.parametrize("name", files.examples())
def test_every_example_can_be_copied_and_is_valid(here: Path, name: str) -> None:
    result = CliRunner().invoke(files.init, [name])
    assert result.exit_code == 0, result.output
    topology = here / f"{name}.yaml" if name != "article" else here / "article" / "topology.yaml"
    assert read([str(topology)]).topology is not None
    assert topology.read_text().startswith("# ")
    assert f"wrote {topology.relative_to(here)}" in result.stdout


def test_the_article_comes_with_its_manifests(here: Path) -> None:
    CliRunner().invoke(files.init, ["article"])
    assert {"topology.yaml", "nginx-pod.yaml", "whoami-deployment.yaml"} <= {
        p.name for p in (here / "article").iterdir()
    }


def test_nothing_is_overwritten_unless_asked(here: Path) -> None:
    (here / "minimal.yaml").write_text("mine")
    refused = CliRunner().invoke(files.init)
    assert isinstance(refused.exception, UsageError)
    assert (here / "minimal.yaml").read_text() == "mine"
    assert CliRunner().invoke(files.init, ["--force"]).exit_code == 0
    assert (here / "minimal.yaml").read_text() != "mine"


def test_an_example_that_does_not_exist(here: Path) -> None:
    refused = CliRunner().invoke(files.init, ["nope"])
    assert isinstance(refused.exception, UsageError)
    assert "minimal" in refused.exception.hint
    assert list(here.iterdir()) == []
