"""Images without images: what each of them runs, says and logs."""

from __future__ import annotations

import json
import socket
from functools import partial

import pytest
import yaml

from nsk8s.kernel import namespaces
from tests.conftest import MakeLab
from tests.netns.podlab import CLUSTER, Obj, Pods, container, pod, status_of

pytestmark = pytest.mark.netns

IMAGES = {
    "example.org/ours/*": {"command": ["python3", "-m", "http.server"], "args": ["8123"]},
    "nginx": {"command": ["sh", "-c", "echo our own nginx; exec sleep infinity"]},
}
STANDING = [
    pod("httpd", container("c", image="httpd:2.4")),
    pod("unprivileged", container("c", image="docker.io/nginxinc/nginx-unprivileged")),
    pod("tomcat", container("c", image="tomcat:9")),
    pod("jwilder", container("c", image="jwilder/whoami")),
    pod("traefik", container("c", image="traefik/whoami", args=["--port", "8001"])),
    pod("shell", container("c", image="busybox", stdin=True)),
    pod("pause", container("c", image="registry.k8s.io/pause:3.10")),
    pod(
        "unknown",
        container(
            "c",
            image="example.com/some/thing:7",
            ports=[{"containerPort": 5000}, {"containerPort": 5353, "protocol": "UDP"}],
        ),
        nodeName="w1",
    ),
    pod("ours", container("c", image="example.org/ours/web:1")),
    pod("ours-elsewhere", container("c", image="example.org/ours/web:1", args=["8124"])),
    pod("nginx", container("c", image="nginx:latest")),
    pod("client", container("c", "sleep", "infinity"), nodeName="w2"),
]


@pytest.fixture(scope="module")
def pods(shared_cluster: MakeLab) -> Pods:
    cluster: Obj = yaml.safe_load(CLUSTER)
    cluster["spec"]["images"] = IMAGES
    return Pods(shared_cluster(yaml.safe_dump_all([cluster, *STANDING])))


@pytest.mark.parametrize(
    ("name", "port", "said"),
    [
        ("httpd", 80, "<h1>It works!</h1>"),
        ("unprivileged", 8080, "<h1>Welcome to nginx!</h1>"),
        ("tomcat", 8080, "<h1>Apache Tomcat/9."),
        ("jwilder", 8000, "I'm jwilder\n"),
        ("traefik", 8001, "Hostname: traefik\n"),
    ],
)
def test_a_known_image_shows_what_it_is_known_for(pods: Pods, name: str, port: int, said: str) -> None:
    seen = pods.fetch("default.client", f"http://{pods.ip(name)}:{port}/")
    assert said in seen
    if name not in ("jwilder", "traefik"):
        assert f"pod {name}, namespace default" in seen


def test_an_unknown_image_tells_what_it_saw(pods: Pods) -> None:
    url = f"http://{pods.ip('unknown')}:5000/some/path?x=1"
    seen = json.loads(pods.fetch("default.client", url, "-H", "X-Test: yes", "-d", "hello"))
    shown = pods.get("unknown")
    assert (seen["pod"], seen["namespace"], seen["node"]) == ("unknown", "default", "w1")
    assert (seen["container"], seen["image"]) == ("c", "example.com/some/thing:7")
    assert (seen["client"], seen["ip"]) == (pods.ip("client"), shown["status"]["podIP"])
    assert (seen["method"], seen["path"], seen["body"]) == ("POST", "/some/path?x=1", "hello")
    assert seen["headers"]["x-test"] == "yes"


def test_an_unknown_image_echoes_datagrams(pods: Pods) -> None:
    with namespaces.inside(pods.lab.netns("default.client"), "net"):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        client.settimeout(5)
        client.connect((pods.ip("unknown"), 5353))
        client.send(b"anybody there?")
        assert client.recv(100) == b"anybody there?"


def test_the_users_own_catalogue_wins(pods: Pods) -> None:
    for name, port in (("ours", 8123), ("ours-elsewhere", 8124)):
        url = f"http://{pods.ip(name)}:{port}/usr/"
        pods.soon(partial(_lists, pods, url), f"{name} serves")
    pods.soon(lambda: pods.logs("nginx") == "our own nginx\n", "a known image can be replaced")


def _lists(pods: Pods, url: str) -> bool:
    said = pods.lab.inside("default.client", "sh", "-c", f"curl -s --max-time 2 {url}; true")
    return "Directory listing" in said


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("httpd", "stand-in: a web server's welcome page on 80"),
        ("traefik", "stand-in: the request it got, on 8001"),
        ("shell", "real process: sh (image busybox), on the host's files, read-only"),
        ("pause", "stand-in: nothing, for ever"),
        (
            "unknown",
            "stand-in for the unknown image example.com/some/thing:7: HTTP and gRPC health on 5000, "
            "UDP echo on 5353",
        ),
        ("ours", "real process: python3 (images of the Cluster document), on the host's files, read-only"),
        ("client", "real process: sleep (command), on the host's files, read-only"),
    ],
)
def test_describe_says_what_runs(pods: Pods, name: str, runs: str) -> None:
    lines = pods.lab.nsk8s("describe", "pod", name).stdout.splitlines()
    assert [line.split(":", 1)[1].strip() for line in lines if "Image ID:" in line] == [runs]


def test_an_access_log_names_the_client(pods: Pods) -> None:
    pods.fetch("default.client", f"http://{pods.ip('httpd')}/", "-A", "tester/1.0", "-e", "http://ref/")
    line = pods.logs("httpd", "--tail", "1")
    assert line.startswith(f"{pods.ip('client')} - - [")
    assert '"GET / HTTP/1.1" 200 ' in line
    assert line.endswith('"http://ref/" "tester/1.0"\n')


def test_exec_beside_a_stand_in_sees_the_pod(pods: Pods) -> None:
    ip = pods.ip("jwilder")
    assert pods.run("jwilder", "hostname") == "jwilder\n"
    assert pods.run("jwilder", "cat", "/etc/hostname") == "jwilder\n"
    assert f"\n{ip}\tjwilder\n" in pods.run("jwilder", "cat", "/etc/hosts")
    assert "options ndots:5" in pods.run("jwilder", "cat", "/etc/resolv.conf")
    assert pods.run("jwilder", "curl", "-s", "http://localhost:8000/") == "I'm jwilder\n"
    assert pods.run("jwilder", "hostname", "-I").split() == [ip]
    refused = pods.lab.run("jwilder", "touch", "/etc/nsk8s-was-here", check=False)
    assert "Read-only file system" in refused.stderr


def test_a_stand_ins_pod_restarts_with_a_new_image(pods: Pods) -> None:
    """`set image`: a pod keeps its address, the container runs anew."""
    ip = pods.ip("tomcat")
    patch = {
        "spec": {"containers": [{**pods.get("tomcat")["spec"]["containers"][0], "image": "jwilder/whoami"}]}
    }
    pods.client.merge("/api/v1/namespaces/default/pods/tomcat", patch)
    again = pods.until("tomcat", lambda p: status_of(p, "c")["restartCount"] == 1, "it is restarted")
    assert again["status"]["podIP"] == ip
    pods.until_ready("tomcat")
    assert pods.fetch("default.client", f"http://{ip}:8000/") == "I'm tomcat\n"
    assert status_of(pods.get("tomcat"), "c")["image"] == "jwilder/whoami"
