from __future__ import annotations

import logging
import os
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsk8s.api.topology import NodeTopology, Topology
from nsk8s.apiserver import certificates
from nsk8s.apiserver.authentication import User, of_certificate
from nsk8s.daemon.access import PORTS, loopback
from nsk8s.daemon.pki import Keys, server_names
from nsk8s.paths import ClusterPaths
from tests.unit.apiserver.entrance import Entrance, entrance


@pytest.fixture
def door(state: Path, tmp_path: Path) -> Iterator[Entrance]:
    with entrance(ClusterPaths("c"), tmp_path) as found:
        yield found


def test_a_certificate_of_the_cluster_gets_in(door: Entrance) -> None:
    code, body = door.ask(door.client("jane", ["devs"]), "/api/v1/namespaces/default")
    assert (code, body["metadata"]["name"]) == (200, "default")


def test_nobody_is_refused_in_the_real_words(door: Entrance) -> None:
    code, body = door.ask(door.anonymous(), "/api/v1/namespaces")
    assert code == 401
    assert (body["kind"], body["status"], body["reason"], body["message"], body["code"]) == (
        "Status",
        "Failure",
        "Unauthorized",
        "Unauthorized",
        401,
    )


@pytest.mark.parametrize("header", ["Bearer x", "bearer", "Bearer ", "Basic YTpi", "x"])
def test_a_wrong_token_is_refused(door: Entrance, header: str) -> None:
    assert door.ask(door.anonymous(), "/api", {"Authorization": header})[0] == 401


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/version"])
def test_health_and_version_are_for_everybody(door: Entrance, path: str) -> None:
    assert door.ask(door.anonymous(), path)[0] == 200


@pytest.mark.parametrize("path", ["/", "/api", "/apis", "/openapi/v2", "/metrics", "/nsk8s/v1/echo"])
def test_nothing_else_is(door: Entrance, path: str) -> None:
    assert door.ask(door.anonymous(), path)[0] == 401


def test_our_own_routes_are_not_served_here(door: Entrance) -> None:
    assert door.ask(door.client("a", ["system:masters"]), "/nsk8s/v1/echo")[0] == 404


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_certificate_of_another_authority_gets_an_alert(
    door: Entrance, version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    tls = door.client("kubernetes-admin", ["system:masters"], certificates.authority())
    tls.minimum_version = tls.maximum_version = version
    with pytest.raises(ssl.SSLError, match="ALERT_UNKNOWN_CA"):
        door.ask(tls, "/api")
    assert door.ask(door.client("jane"), "/api")[0] == 200
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_old_tls_is_refused(door: Entrance) -> None:
    said = subprocess.run(
        ["openssl", "s_client", "-tls1_1", "-connect", f"127.0.0.1:{door.port}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert said.returncode != 0


def test_the_server_has_all_its_names(state: Path) -> None:
    topology = Topology("c", (NodeTopology("n1", "control-plane", ("172.18.0.2",), ("10.244.0.0/24",)),))
    assert set(server_names(topology)) == {
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "127.0.0.1",
        "10.96.0.1",
        "172.18.0.2",
    }


def test_the_files_are_their_owners_alone(door: Entrance) -> None:
    door.keys.kubeconfig(door.port)
    door.keys.signing_key()
    paths = door.world.paths
    files = [paths.kubeconfig, *paths.pki.iterdir()]
    assert len(files) == 4
    assert {stat.S_IMODE(os.stat(file).st_mode) for file in files} == {0o600}


def test_keys_are_reread(state: Path) -> None:
    paths = ClusterPaths("c")
    paths.directory.mkdir(parents=True)
    first = Keys(paths)
    first.make()
    first.server(["a", "127.0.0.1"])
    first.kubeconfig(6443)
    files = [*paths.pki.iterdir(), paths.kubeconfig]
    before = {file: file.read_bytes() for file in files}
    again = Keys(paths)
    again.make()
    again.server(["127.0.0.1", "a"])
    again.kubeconfig(6443)
    assert {file: file.read_bytes() for file in files} == before
    again.server(["b"])
    again.kubeconfig(6444)
    changed = {file.name for file in files if file.read_bytes() != before[file]}
    assert changed == {"apiserver.pem", "kubeconfig"}


def test_the_port_is_stable_and_another_one_if_it_is_taken(state: Path) -> None:
    ports = []
    paths = ClusterPaths("stable")
    paths.directory.mkdir(parents=True)
    for _ in range(2):
        with loopback(paths) as listening:
            ports.append(listening.getsockname()[1])
            paths.port.unlink()
    assert ports[0] == ports[1]
    assert ports[0] in PORTS
    with socket.create_server(("127.0.0.1", ports[0])), loopback(paths) as listening:
        other = listening.getsockname()[1]
        assert other != ports[0]
    with loopback(paths) as listening:
        assert listening.getsockname()[1] == other == int(paths.port.read_text())


def test_whoever_never_greets_is_dropped(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsk8s.apiserver.server.HANDSHAKE_TIMEOUT", 0.2)
    with (
        entrance(ClusterPaths("c"), tmp_path) as door,
        socket.create_connection(("127.0.0.1", door.port), timeout=10) as silent,
    ):
        begun = time.monotonic()
        assert silent.recv(1) == b""
        assert time.monotonic() - begun < 5


def test_a_certificate_without_a_name_is_nobody() -> None:
    group = (("organizationName", "system:masters"),)
    assert of_certificate(b"x", {"subject": (group,)}) is None
    found = of_certificate(b"x", {"subject": (group, (("commonName", "jane"),))})
    assert isinstance(found, User)
    assert (found.name, found.groups) == ("jane", ("system:masters", "system:authenticated"))
