from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nsk8s.api.expansion import expanded
from nsk8s.api.types import Container
from nsk8s.workloads.behaviours import BEHAVIOURS
from nsk8s.workloads.images import CATALOGUE, Workload, normalise, resolve


def run(overrides: dict[str, dict[str, Any]] | None = None, **fields: object) -> Workload:
    return resolve(msgspec.convert({"name": "c", **fields}, Container), overrides or {})


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("nginx", "nginx"),
        ("nginx:1.27-alpine", "nginx"),
        ("docker.io/library/nginx:latest", "nginx"),
        ("docker.io/jwilder/whoami", "jwilder/whoami"),
        ("index.docker.io/library/httpd", "httpd"),
        ("nginx@sha256:0123", "nginx"),
        ("localhost:5000/nginx:1", "localhost:5000/nginx"),
        ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause"),
        ("public.ecr.aws/docker/library/busybox:1.36@sha256:0123", "busybox"),
        ("mylibrary/nginx", "mylibrary/nginx"),
    ],
)
def test_names_lose_registry_tag_and_digest(image: str, name: str) -> None:
    assert normalise(image) == name


@pytest.mark.parametrize(
    ("image", "behaviour", "port"),
    [
        ("nginx", "nginx", 80),
        ("httpd:2.4", "httpd", 80),
        ("tomcat", "tomcat", 8080),
        ("jwilder/whoami", "jwilder-whoami", 8000),
        ("traefik/whoami:v1.10", "traefik-whoami", 80),
    ],
)
def test_known_images_listen_where_they_really_do(image: str, behaviour: str, port: int) -> None:
    found = run(image=image, ports=[{"containerPort": 9999}])
    assert (found.behaviour, found.ports, found.real) == (behaviour, (("TCP", port),), False)
    assert found.says.startswith("stand-in: ")
    assert str(port) in found.says


@pytest.mark.parametrize(
    ("fields", "port"),
    [
        ({"image": "traefik/whoami", "args": ["--port=8081", "--verbose"]}, 8081),
        ({"image": "traefik/whoami", "args": ["-port", "8082"]}, 8082),
        ({"image": "traefik/whoami", "env": [{"name": "WHOAMI_PORT_NUMBER", "value": "8083"}]}, 8083),
        ({"image": "jwilder/whoami", "env": [{"name": "PORT", "value": "8084"}]}, 8084),
        ({"image": "jwilder/whoami", "env": [{"name": "PORT", "value": "70000"}]}, 8000),
    ],
)
def test_whoami_can_be_told_its_port(fields: dict[str, Any], port: int) -> None:
    found = run(**fields)
    assert found.ports == (("TCP", port),)
    assert f"on {port}" in found.says


@pytest.mark.parametrize(
    ("fields", "command"),
    [
        ({"image": "nginx", "command": ["sleep"], "args": ["9"]}, ("sleep", "9")),
        ({"image": "nginx", "command": ["sleep", "9"]}, ("sleep", "9")),
        ({"image": "busybox"}, ("sh",)),
        ({"image": "busybox", "args": ["sleep", "9"]}, ("sleep", "9")),
        ({"image": "nginx", "args": ["nginx", "-g", "daemon off;"]}, ("nginx", "-g", "daemon off;")),
    ],
)
def test_command_and_args_as_kubernetes_has_them(fields: dict[str, Any], command: tuple[str, ...]) -> None:
    found = run(**fields)
    assert (found.command, found.real) == (command, True)
    assert found.says.startswith(f"real process: {command[0]} ")


def test_the_users_entries_win() -> None:
    mine = {
        "example/api*": {"command": ["python3", "-m"], "args": ["http.server"]},
        "nginx": {"command": ["x"]},
    }
    assert run(mine, image="example/api-v2:1").command == ("python3", "-m", "http.server")
    assert run(mine, image="example/api-v2:1", args=["this"]).command == ("python3", "-m", "this")
    assert run(mine, image="docker.io/library/nginx:1").command == ("x",)
    assert run(mine, image="example/other").real is False
    assert run(mine, image="example/api", command=["own"]).command == ("own",)


def test_an_unknown_image_answers_on_its_ports_and_where_it_is_probed() -> None:
    found = run(
        image="example/thing",
        ports=[{"containerPort": 8080}, {"containerPort": 53, "protocol": "UDP"}],
        livenessProbe={"httpGet": {"port": 10254}},
        readinessProbe={"tcpSocket": {"port": 8080}},
    )
    assert found.ports == (("TCP", 8080), ("UDP", 53), ("TCP", 10254))
    assert found.says == (
        "stand-in for the unknown image example/thing: HTTP on 8080, UDP echo on 53, HTTP on 10254"
    )


@pytest.mark.parametrize("image", ["registry.k8s.io/pause:3.9", "k8s.gcr.io/pause", "rancher/pause", "pause"])
def test_pause_serves_nothing_and_stays(image: str) -> None:
    assert (run(image=image).behaviour, run(image=image).ports) == ("pause", ())


def test_every_behaviour_of_the_catalogue_exists() -> None:
    named = {image.behaviour for image in CATALOGUE.values()} - {"", "pause"}
    assert named <= set(BEHAVIOURS)


def test_variables_expand_as_the_kubelet_does() -> None:
    env = {"A": "1", "B": "$(A)"}
    assert expanded(["$(A)", "x$(B)y", "$(C)", "$$(A)", "$A", "$("], env) == (
        "1",
        "x$(A)y",
        "$(C)",
        "$(A)",
        "$A",
        "$(",
    )
