from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nsk8s.api.expansion import expanded
from nsk8s.api.types import Container
from nsk8s.workloads.behaviours import BEHAVIOURS
from nsk8s.workloads.commands import question
from nsk8s.workloads.images import CATALOGUE, Workload, normalise, resolve
from nsk8s.workloads.protocols import SPEECHES


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
        "stand-in for the unknown image example/thing: "
        "HTTP and gRPC health on 8080, UDP echo on 53, HTTP and gRPC health on 10254"
    )


@pytest.mark.parametrize("image", ["registry.k8s.io/pause:3.9", "k8s.gcr.io/pause", "rancher/pause", "pause"])
def test_pause_serves_nothing_and_stays(image: str) -> None:
    assert (run(image=image).behaviour, run(image=image).ports) == ("pause", ())


def test_every_behaviour_of_the_catalogue_exists() -> None:
    named = {image.behaviour for image in CATALOGUE.values()} - {"", "pause", "dns"}
    assert named <= {*BEHAVIOURS, *SPEECHES}


AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.53"


@pytest.mark.parametrize(
    ("fields", "behaviour", "ports"),
    [
        ({}, "pause", ()),
        ({"args": ["serve-hostname"]}, "hostname", (("TCP", 9376),)),
        ({"command": ["/agnhost"], "args": ["serve-hostname", "--port", "80"]}, "hostname", (("TCP", 80),)),
        (
            {"command": ["/agnhost", "serve-hostname", "--tcp", "--udp", "--http=false", "--port=81"]},
            "hostname-raw",
            (("TCP", 81), ("UDP", 81)),
        ),
        (
            {"args": ["porter"], "env": [{"name": "SERVE_PORT_80", "value": "x"}]},
            "porter",
            (("TCP", 80),),
        ),
    ],
)
def test_simple_verbs_of_agnhost_are_stand_ins(fields: dict[str, Any], behaviour: str, ports: object) -> None:
    found = run(image=AGNHOST, **fields)
    assert (found.behaviour, found.ports, found.real) == (behaviour, ports, False)


@pytest.mark.parametrize(
    ("fields", "command"),
    [
        ({"args": ["netexec", "--http-port=1"]}, ("/agnhost", "netexec", "--http-port=1")),
        ({"args": ["serve-hostname", "--tcp"]}, ("/agnhost", "serve-hostname", "--tcp")),
        ({"args": ["serve-hostname", "--port=$(PORT)"]}, ("/agnhost", "serve-hostname", "--port=$(PORT)")),
        ({"args": ["serve-hostname", "--help"]}, ("/agnhost", "serve-hostname", "--help")),
        ({"command": ["sh", "-c", "/agnhost pause"]}, ("sh", "-c", "/agnhost pause")),
    ],
)
def test_other_verbs_of_agnhost_are_processes(fields: dict[str, Any], command: tuple[str, ...]) -> None:
    assert run(image=AGNHOST, **fields).command == command


def test_an_application_listens_where_it_is_declared_and_probed() -> None:
    ports = [{"containerPort": 5672}, {"containerPort": 15672}]
    found = run(image="rabbitmq:3-management", ports=ports)
    assert (found.behaviour, found.ports) == ("amqp", (("TCP", 5672), ("TCP", 15672)))
    assert found.options == {"behaviour/15672": "echo"}
    assert run(image="bitnami/redis", ports=[{"containerPort": 7000}]).ports == (("TCP", 7000),)
    assert run(image="redis", args=["--appendonly", "yes"]).ports == (("TCP", 6379),)


def test_a_program_of_the_images_own_has_a_stand_in_and_one_of_this_machine_runs() -> None:
    def found(image: str, program: str) -> bool:
        container = msgspec.convert({"name": "c", "image": image, "command": [program]}, Container)
        return resolve(container, {}, lambda p: p == "sh").real

    assert found("redis", "sh")
    assert found("example/shop", "sh")
    assert not found("redis", "redis-server")
    assert not found("example/shop", "/server")
    assert found("busybox", "/server"), "of a shell's image nothing else is known: it fails as it would"


@pytest.mark.parametrize(
    ("command", "program", "port"),
    [
        (["redis-cli", "ping"], "redis-cli", 0),
        (["sh", "-c", 'exec pg_isready -U "postgres" -h 127.0.0.1 -p 5433'], "pg_isready", 5433),
        (["/bin/grpc_health_probe", "-addr=:8080"], "grpc_health_probe", 8080),
        (["bash", "-ec", "timeout 5 mongosh --port 27018 --eval 'x'"], "mongosh", 27018),
        (["/usr/sbin/nginx", "-s", "quit"], "nginx", 0),
    ],
)
def test_commands_that_ask_an_application(command: list[str], program: str, port: int) -> None:
    asked = question(command)
    assert asked is not None
    assert (asked.program, asked.port) == (program, port)


def test_other_commands_ask_nobody() -> None:
    assert question(["cat", "/tmp/redis-client"]) is None
    assert question(["curl", "http://nginx"]) is None


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
