"""What all tests share: options, who may run here, the witness of what is left behind, scratch state,
clusters."""

from __future__ import annotations

import functools
import itertools
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests import witness
from tests.lab import Lab
from tests.rows import Recorder

PRIVILEGED = ("netns", "lesson")
PROGRAMS = ("ip", "iptables-restore", "conntrack", "bwrap", "curl", "ping")
MakeLab = Callable[[str], Lab]

_count = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update", action="store_true", help="rewrite golden files, and after a whole run the README's table"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder(update=config.getoption("--update")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need the real kernel run where they can, and say why (`why_not`) where they cannot."""
    for item in items:
        if any(item.get_closest_marker(name) for name in PRIVILEGED):
            reason = why_not()
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))  # no root, or a program is lacking


@functools.cache
def why_not() -> str:
    """Why this machine cannot run privileged tests; empty if it can."""
    if os.geteuid() != 0:
        return "needs root: sudo scripts/test"
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    if lacking:
        return f"needs {', '.join(lacking)}: scripts/install"
    probe = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    refused = subprocess.run(probe, capture_output=True, text=True)
    return f"this machine refuses namespaces: {refused.stderr.strip()}" if refused.returncode else ""


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """The whole suite against a state directory of its own, and the machine compared before and after.

    A short path: a unix socket's may have 107 bytes.
    """
    with tempfile.TemporaryDirectory(
        prefix="nsk8s-", dir="/run" if os.access("/run", os.W_OK) else None
    ) as directory:
        os.environ["NSK8S_STATE"] = f"{directory}/s"
        os.environ[witness.MARK] = uuid.uuid4().hex
        before = witness.snapshot()
        yield
        left = witness.left_behind(before)
        assert not left, "the suite left behind:\n  " + "\n  ".join(left)


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A scratch NSK8S_STATE for one test; not made yet, as before the first `up`."""
    parent = Path(os.environ["NSK8S_STATE"]).parent
    with tempfile.TemporaryDirectory(prefix="t", dir=parent) as directory:
        monkeypatch.setenv("NSK8S_STATE", f"{directory}/s")
        yield Path(directory, "s")


@pytest.fixture
def cluster_name(request: pytest.FixtureRequest) -> str:
    """A name for a cluster that nobody else on this machine uses, and that tells the test."""
    return unique_name(request.node.name)


def unique_name(test: str) -> str:
    """A DNS label, unique on this machine, that tells the test."""
    slug = re.sub(r"[^a-z0-9]+", "-", test.lower().removeprefix("test_")).strip("-")
    return f"t{os.getpid()}-{next(_count)}-{slug}"[:40].strip("-")


@contextmanager
def labs(test: str, directory: Path) -> Iterator[MakeLab]:
    """Makes clusters from topology files, and takes down at the end whatever still stands."""
    with ExitStack() as stack:

        def make(topology: str) -> Lab:
            name = unique_name(test)
            (directory / name).mkdir()
            lab = Lab(name, directory / name)
            lab.write(topology)
            stack.callback(lab.down)
            lab.up()
            return lab

        yield make


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeLab]:
    """``cluster(topology_yaml) -> Lab``: a running cluster, taken down when the test ends."""
    with labs(request.node.name, tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def shared_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeLab]:
    """As `cluster`, for tests of one module that only look at it."""
    with labs(request.node.name.rpartition("/")[2], tmp_path_factory.mktemp("lab")) as make:
        yield make
