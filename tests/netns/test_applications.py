"""agnhost and the stand-ins for applications, as their clients and their manifests' probes find them."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.conftest import MakeLab
from tests.netns.podlab import CLUSTER, Obj, Pods, container, pod, status_of

pytestmark = pytest.mark.netns

AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.53"


def agnhost(name: str, *args: str, **more: object) -> Obj:
    return pod(name, container("c", image=AGNHOST, args=list(args), **more))


def listens(port: int) -> Obj:
    """A container that is ready once it listens."""
    return {"readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1}}


def probed(name: str, image: str, port: int, probe: Obj, **more: object) -> Obj:
    """A pod of an application, as public manifests have it."""
    fast = {"periodSeconds": 1, "failureThreshold": 60, **probe}
    ports = [{"containerPort": port}]
    return pod(name, container("c", image=image, ports=ports, readinessProbe=fast, **more))


def command(*words: str) -> Obj:
    return {"exec": {"command": list(words)}}


APPLICATIONS = [
    probed("redis", "redis:7-alpine", 6379, command("redis-cli", "ping")),
    probed(
        "postgres", "postgres:16", 5432, command("sh", "-c", 'exec pg_isready -U "app" -h 127.0.0.1 -p 5432')
    ),
    probed("mysql", "mysql:8.0", 3306, command("mysqladmin", "ping", "-h", "localhost")),
    probed("mongo", "mongo:7", 27017, command("mongosh", "--eval", "db.adminCommand('ping')")),
    probed("rabbitmq", "rabbitmq:3-management", 5672, command("rabbitmq-diagnostics", "-q", "ping")),
    probed("memcached", "memcached:1.6", 11211, {"tcpSocket": {"port": 11211}}),
    probed("grpc", "example.com/shop/cart:v1", 7070, {"grpc": {"port": 7070}}, command=["/src/server"]),
    probed("probe", "example.com/shop/pay:v1", 50051, command("/bin/grpc_health_probe", "-addr=:50051")),
    probed("get", "example.com/shop/front:v1", 8080, {"httpGet": {"path": "/_healthz", "port": 8080}}),
]
VERBS = [
    agnhost("netexec", "netexec", "--http-port=8083", "--udp-port=8081", **listens(8083)),
    agnhost("hostname", "serve-hostname", "--port", "9376"),
    agnhost("raw", "serve-hostname", "--tcp", "--udp", "--http=false", "--port=9001"),
    agnhost(
        "porter",
        "porter",
        env=[{"name": "SERVE_PORT_80", "value": "eighty"}, {"name": "SERVE_UDP_PORT_53", "value": "dns"}],
    ),
    agnhost("files", "test-webserver", **listens(80)),
    agnhost("reset", "tcp-reset", "--port=8080", **listens(8080)),
    agnhost("idle"),
    pod("by-command", container("c", "/agnhost", "netexec", "--http-port=80", image=AGNHOST, **listens(80))),
]


@pytest.fixture(scope="module")
def pods(shared_cluster: MakeLab) -> Pods:
    return Pods(shared_cluster(CLUSTER + "---\n" + yaml.safe_dump_all([*APPLICATIONS, *VERBS])))


# --- agnhost ----------------------------------------------------------------------------------------------


def connect(pods: Pods, *words: str) -> tuple[int, str]:
    """Exit code and standard error of ``/agnhost connect``."""
    done = pods.lab.nsk8s("exec", "idle", "--", "/agnhost", "connect", *words, check=False)
    return done.returncode, done.stderr


def test_connect_says_how_it_went(pods: Pods) -> None:
    raw = pods.ip("raw")
    for protocol in ("tcp", "udp"):
        assert connect(pods, f"{raw}:9001", "--timeout=5s", f"--protocol={protocol}") == (0, "")
    assert connect(pods, f"{raw}:9", "--timeout=5s") == (1, "REFUSED\n")
    code, said = connect(pods, f"{raw}:9", "--timeout=5s", "--protocol=udp")
    assert (code, said.partition(":")[0]) == (1, "REFUSED")
    assert connect(pods, "10.244.1.250:80", "--timeout=200ms") in ((1, "TIMEOUT\n"), (1, "OTHER\n"))
    code, said = connect(pods, "no.such.name.invalid:80", "--timeout=5s")
    assert (code, said.partition(":")[0]) == (1, "DNS")
    code, said = connect(pods, "nowhere", "--timeout=5s")
    assert (code, said) == (1, "UNKNOWN: address nowhere: missing port in address\n")
    code, said = connect(pods, f"{raw}:9001", "--timeout=5s", "--protocol=sctp")
    assert (code, said.partition(":")[0]) == (1, "OTHER"), "no SCTP in this kernel, or nobody who listens"


def test_netexec(pods: Pods) -> None:
    url = f"http://{pods.ip('netexec')}:8083"
    client = pods.ip("by-command")

    def ask(path: str, *words: str) -> str:
        return pods.fetch("default.by-command", url + path, *words)

    assert ask("/hostname") == ask("/hostName") == "netexec"
    assert ask("/clientip").rpartition(":")[0] == client
    assert ask("/serverport") == "8083"
    assert ask("/echo?msg=hello%20you") == "hello you"
    assert ask("/healthz", "-w", "%{http_code}") == "200"
    assert ask("/redirect?location=/hostname", "-L") == "netexec"
    assert json.loads(ask("/shell?cmd=hostname")) == {"output": "netexec\n"}
    assert "NOW: " in ask("/")
    dial = f"/dial?host={pods.ip('by-command')}&port=80&protocol=http&request=hostname&tries=2"
    assert json.loads(ask(dial)) == {"responses": ["by-command", "by-command"]}
    dial = f"/dial?host={pods.ip('netexec')}&port=8081&protocol=udp&request=hostname&tries=1"
    assert json.loads(pods.fetch("default.idle", f"http://{pods.ip('by-command')}{dial}")) == {
        "responses": ["netexec"]
    }
    uploaded = json.loads(ask("/upload", "-F", "file=@/etc/hostname"))
    assert pods.run("netexec", "cat", uploaded["output"])


def test_servers_of_texts(pods: Pods) -> None:
    assert pods.fetch("w1", f"http://{pods.ip('hostname')}:9376/") == "hostname"
    assert pods.fetch("w1", f"http://{pods.ip('porter')}/") == "eighty"
    assert pods.fetch("w1", f"http://{pods.ip('files')}/etc/hostname") == "files\n"


def test_tcp_reset_resets(pods: Pods) -> None:
    said = pods.lab.inside("w1", "sh", "-c", f"curl -sS http://{pods.ip('reset')}:8080/ 2>&1 || true")
    assert "reset by peer" in said


def test_what_a_container_finds_of_its_resolver_and_hosts(pods: Pods) -> None:
    assert pods.run("idle", "/agnhost", "dns-suffix").startswith(
        "default.svc.cluster.local,svc.cluster.local"
    )
    servers = pods.run("idle", "/agnhost", "dns-server-list").strip()
    assert servers == ",".join(
        line.split()[1]
        for line in pods.run("idle", "cat", "/etc/resolv.conf").splitlines()
        if "nameserver" in line
    )
    assert "# Kubernetes-managed hosts file." in pods.run("idle", "/agnhost", "etc-hosts")


def test_agnhost_says_how_it_is_called(pods: Pods) -> None:
    for word in ("-h", "help", "--help"):
        said = pods.run("idle", "/agnhost", word)
        assert said.startswith("Usage:\n  app [command]\n")
        assert "serve-hostname" in said.splitlines()
    for verb in ("netexec", "pause", "serve-hostname"):  # which would serve for ever
        assert pods.run("idle", "/agnhost", verb, "--help").startswith(f"Usage:\n  app {verb} [flags]\n")


def test_a_server_can_be_told_to_end(pods: Pods) -> None:
    pods.fetch("w1", f"http://{pods.ip('by-command')}/exit?code=7&timeout=1s")
    again = pods.until("by-command", lambda p: status_of(p, "c").get("restartCount") == 1, "restarted")
    assert status_of(again, "c")["lastState"]["terminated"]["exitCode"] == 7


# --- applications -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [one["metadata"]["name"] for one in APPLICATIONS])
def test_an_application_is_ready_by_its_own_probes(pods: Pods, name: str) -> None:
    found = pods.until_ready(name)
    assert status_of(found, "c")["imageID"].startswith("stand-in")


def test_they_say_who_they_are(pods: Pods) -> None:
    def say(name: str, port: int, text: str) -> str:
        where = (pods.ip(name), port)
        script = f"import socket; s = socket.create_connection({where!r}, 5); "
        script += f"s.sendall({text!r}.encode()); print(s.recv(999))"
        return pods.lab.inside("w1", "python3", "-c", script)

    assert "+PONG" in say("redis", 6379, "PING\r\n")
    assert "stand-in" in say("redis", 6379, "*2\r\n$3\r\nGET\r\n$1\r\nx\r\n")
    assert "VERSION" in say("memcached", 11211, "version\r\n")
    assert "stand-in" in say("postgres", 5432, "\0\0\0\x08\0\x03\0\0")
    assert "stand-in" in say("mysql", 3306, "")
    assert "AMQP" in say("rabbitmq", 5672, "AMQP\0\0\x09\x01")
