"""Probes, as the wire and the pod's status show them; and how pods go."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml

from tests.conftest import MakeLab
from tests.netns.podlab import (
    CLUSTER,
    Obj,
    Pods,
    container,
    pod,
    ready,
    service,
    shell,
    state,
    status_of,
)
from tests.netns.processes_of import Processes

pytestmark = pytest.mark.netns

PICKY = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        good = self.path == "/healthz?deep=1" and self.headers["X-Probe"] == "yes"
        self.send_response(204 if good else 503)
        self.end_headers()
http.server.HTTPServer(("", 8080), Handler).serve_forever()
"""
EVERY_SECOND: Obj = {"periodSeconds": 1, "failureThreshold": 1}
STANDING = [
    pod(
        "picky",
        container(
            "c",
            "python3",
            "-c",
            PICKY,
            ports=[{"name": "health", "containerPort": 8080}],
            readinessProbe={
                "httpGet": {
                    "path": "/healthz?deep=1",
                    "port": "health",
                    "httpHeaders": [{"name": "X-Probe", "value": "yes"}],
                },
                **EVERY_SECOND,
            },
        ),
        nodeName="w1",
    ),
    pod("client", container("c", "sleep", "infinity"), nodeName="w2"),
]


@pytest.fixture(scope="module")
def pods(shared_cluster: MakeLab) -> Pods:
    return Pods(shared_cluster(CLUSTER + "---\n" + yaml.safe_dump_all(STANDING)))


# --- the probe on the wire ----------------------------------------------------------------------------------


def test_http_get_comes_from_the_node_with_path_and_headers(pods: Pods) -> None:
    assert ready(pods.get("picky"))
    address = json.loads(pods.lab.inside("w1", "ip", "-j", "-4", "addr", "show", "dev", "cni0"))
    cni0 = address[0]["addr_info"][0]["local"]
    with pods.lab.capture("default.picky", "eth0") as wire:
        request = wire.wait_for(lambda p: p.payload.startswith(b"GET ") and not p.outgoing)
        answer = wire.wait_for(lambda p: p.payload.startswith(b"HTTP/1.0 204"))
    assert (request.src, request.dst, request.dport) == (cni0, pods.ip("picky"), 8080)
    text = request.payload.decode().lower()
    assert text.startswith("get /healthz?deep=1 http/1.1\r\n")
    assert "\r\nx-probe: yes\r\n" in text
    assert "\r\nuser-agent: kube-probe/" in text
    assert f"\r\nhost: {pods.ip('picky')}:8080\r\n" in text
    assert answer.dst == cni0


def test_a_503_is_not_ready(pods: Pods) -> None:
    probe = {"httpGet": {"path": "/", "port": 8080}, **EVERY_SECOND}
    pods.apply(pod("sulking", container("c", "python3", "-c", PICKY, readinessProbe=probe)))
    pods.until("sulking", lambda p: "running" in state(p, "c"), "it runs")
    with pods.lab.capture("default.sulking", "eth0") as wire:
        wire.wait_for(lambda p: p.payload.startswith(b"HTTP/1.0 503"))
    assert not ready(pods.get("sulking"))
    pods.delete("sulking", "--now")


def test_tcp_socket_is_ready_while_somebody_listens(pods: Pods) -> None:
    listen = "while [ ! -e /tmp/go ]; do sleep 0.05; done; exec python3 -m http.server 7000"
    probe = {"tcpSocket": {"port": 7000}, **EVERY_SECOND}
    pods.apply(pod("knocked", shell("c", listen, readinessProbe=probe)))
    pods.until("knocked", lambda p: "running" in state(p, "c"), "it runs")
    with pods.lab.capture("default.knocked", "eth0") as wire:
        refused = wire.wait_for(lambda p: p.kind == "tcp" and "R" in p.flags)
        assert refused.sport == 7000
        assert not ready(pods.get("knocked"))
        pods.sh("knocked", "touch /tmp/go")
        wire.wait_for(lambda p: p.kind == "tcp" and p.flags == "SA" and p.sport == 7000)
    pods.until_ready("knocked")
    pods.delete("knocked", "--now")


# --- what follows from it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "probe", "harm"),
    [
        ("dead-exec", {"exec": {"command": ["test", "-e", "/tmp/alive"]}}, "rm /tmp/alive"),
        ("dead-http", {"httpGet": {"path": "/tmp/alive", "port": 8080}}, "rm /tmp/alive"),
        ("dead-tcp", {"tcpSocket": {"port": 8080}}, "kill $(cat /tmp/pid)"),
    ],
)
def test_a_failing_liveness_probe_restarts_the_container(
    pods: Pods, name: str, probe: Obj, harm: str
) -> None:
    serve = (
        "cat /proc/sys/kernel/random/uuid; touch /tmp/alive; "
        "trap 'exit 6' TERM; python3 -m http.server -d / 8080 & echo $! > /tmp/pid; "
        "while :; do sleep 0.05; done"
    )
    startup = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    one = shell("c", serve, startupProbe=startup, livenessProbe={**probe, **EVERY_SECOND})
    pods.apply(pod(name, one))
    pods.until_ready(name)
    pods.sh(name, f"touch /tmp/old; {harm}")
    again = pods.until(name, lambda p: status_of(p, "c")["restartCount"] == 1, "it is restarted")
    ended = state(again, "c", "lastState")["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (6, "Error")
    pods.until_ready(name)
    assert pods.sh(name, "ls /tmp/old 2>&1; true").startswith("ls: cannot access"), "a new run, new files"
    assert pods.logs(name, "--previous") != pods.logs(name)
    pods.delete(name, "--now")


def test_a_liveness_probe_waits_for_the_startup_probe(pods: Pods) -> None:
    count = "echo x >> /tmp/{0}; test -e /tmp/{0}-ok"
    one = container(
        "c",
        "sleep",
        "infinity",
        startupProbe={"exec": {"command": ["sh", "-c", count.format("startup")]}, "periodSeconds": 1},
        livenessProbe={"exec": {"command": ["sh", "-c", count.format("liveness")]}, **EVERY_SECOND},
    )
    one["startupProbe"]["failureThreshold"] = 30
    pods.apply(pod("slow", one))
    pods.until("slow", lambda p: "running" in state(p, "c"), "it runs")
    pods.soon(lambda: len(pods.sh("slow", "cat /tmp/startup 2>/dev/null; true").split()) >= 2, "two probes")
    assert pods.sh("slow", "ls /tmp") == "startup\n", "nobody has asked whether it lives"
    waiting = pods.get("slow")
    assert not status_of(waiting, "c")["started"]
    assert not ready(waiting)
    pods.sh("slow", "touch /tmp/startup-ok")
    pods.until("slow", lambda p: status_of(p, "c")["started"], "it has started")
    pods.until("slow", lambda p: status_of(p, "c")["restartCount"] == 1, "and is found dead")
    pods.delete("slow", "--now")


def test_a_failing_startup_probe_restarts_the_container(pods: Pods) -> None:
    one = container("c", "sleep", "infinity", startupProbe={"exec": {"command": ["false"]}, **EVERY_SECOND})
    pods.apply(pod("stillborn", one))
    again = pods.until("stillborn", lambda p: status_of(p, "c").get("restartCount") == 1, "it is restarted")
    assert state(again, "c", "lastState")["terminated"]["exitCode"] == 137, "sleep as PID 1 ignores SIGTERM"
    pods.delete("stillborn", "--now")


def test_a_stand_in_is_probed_like_everybody(pods: Pods) -> None:
    # Three, for on a busy machine one may end without an answer.
    probe = {"httpGet": {"path": "/nowhere", "port": 80}, **EVERY_SECOND, "failureThreshold": 3}
    pods.apply(pod("web", container("c", image="nginx", livenessProbe=probe)))
    again = pods.until("web", lambda p: status_of(p, "c").get("restartCount", 0) >= 1, "404 is no success")
    ended = state(again, "c", "lastState")["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (0, "Completed")
    assert '"GET /nowhere HTTP/1.1" 404' in pods.logs("web", "--previous")
    assert "kube-probe/" in pods.logs("web", "--previous")
    pods.delete("web", "--now")


# --- how pods go --------------------------------------------------------------------------------------------


def test_an_endpoint_leaves_at_once_while_its_container_handles_sigterm(pods: Pods) -> None:
    script = (  # it ends when the process that asks for it has ended
        "asked() { [ -s /tmp/asked ] && [ ! -e /proc/$(cat /tmp/asked) ]; }; "
        "trap 'until asked; do sleep 0.05; done; exit 7' TERM; "
        "python3 -m http.server 8080 & while :; do sleep 0.05; done"
    )
    one = shell("c", script, readinessProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1})
    both = {"service": "polite"}
    pods.apply(
        pod("polite-1", one, labels=both, terminationGracePeriodSeconds=20),
        pod("polite-2", one, labels=both, terminationGracePeriodSeconds=20),
        service("polite", both, 80, 8080),
    )
    first = pods.until_ready("polite-1")["status"]["podIP"]
    second = pods.until_ready("polite-2")["status"]["podIP"]
    virtual = pods.client.get("/api/v1/namespaces/default/services/polite")["spec"]["clusterIP"]

    def servers(count: int) -> set[str]:
        """Who answers `count` requests to the service."""
        client = pods.ip("client")
        with pods.lab.capture("w2", "", lambda p: p.flags == "SA" and p.dst == client) as wire:
            for _ in range(count):
                assert "Directory listing" in pods.fetch("default.client", f"http://{virtual}/")
            return {frame.src for frame in wire.look()} - {virtual}

    pods.soon(lambda: servers(8) == {first, second}, "the service has both")
    pods.delete("polite-1")
    leaving = pods.until("polite-1", lambda p: p["metadata"].get("deletionTimestamp"), "it is told to go")
    assert "running" in state(leaving, "c")
    pods.soon(lambda: servers(1) == {second}, "the service has one", 2)
    assert servers(12) == {second}
    assert "Directory" in pods.fetch("default.client", f"http://{first}:8080/"), "the server itself serves on"
    assert "Terminating" in pods.lab.nsk8s("get", "pod", "polite-1").stdout
    pods.delete("polite-2")
    pods.until("polite-2", lambda p: p["metadata"].get("deletionTimestamp"), "it is told to go, too")
    pods.soon(lambda: servers(8) == {first, second}, "rather those that leave than nobody (KEP-1669)")
    for name in ("polite-1", "polite-2"):
        since = pods.revision()
        pods.lab.nsk8s("exec", name, "--", "sh", "-c", "echo $$ >/tmp/asked")
        ended = [
            state(p, "c")["terminated"] for p in pods.until_gone(name, since) if "terminated" in state(p, "c")
        ]
        assert {(e["exitCode"], e["reason"]) for e in ended} == {(7, "Error")}
    refused = ["sh", "-c", f"curl -s -o /dev/null --max-time 2 http://{virtual}/; echo $?"]
    pods.soon(lambda: pods.lab.inside("default.client", *refused) == "7\n", "nobody is left: refused")
    pods.lab.nsk8s("delete", "service", "polite")


def test_sigkill_comes_after_the_grace_period(pods: Pods) -> None:
    pods.apply(pod("stubborn", shell("c", "trap 'echo no' TERM; while :; do sleep 0.1; done")))
    pods.until_ready("stubborn")
    since = pods.revision()
    pods.delete("stubborn")
    seen = pods.until_gone("stubborn", since)
    ended = [state(p, "c")["terminated"] for p in seen if "terminated" in state(p, "c")]
    assert {e["exitCode"] for e in ended} == {137}
    told = [
        p["metadata"].get("deletionGracePeriodSeconds")
        for p in seen
        if p["metadata"].get("deletionTimestamp")
    ]
    assert told[0] == 1


def test_force_is_at_once(pods: Pods) -> None:
    pods.apply(pod("forced", shell("c", "trap '' TERM; sleep infinity"), terminationGracePeriodSeconds=600))
    pods.until_ready("forced")
    since = pods.revision()
    pods.delete("forced", "--force", "--grace-period=0")
    pods.until_gone("forced", since, deadline=3)


def test_a_lost_stand_in_has_ended(pods: Pods) -> None:
    """The server dies; meanwhile somebody else takes the port of one of its stand-ins."""
    pods.apply(
        pod("lost", container("web", image="nginx"), container("thief", "sleep", "infinity")),
        pod("kept", container("web", image="nginx")),
    )
    pods.until_ready("lost")
    pods.until_ready("kept")
    before = pods.get("kept")
    server = Processes(pods.lab.name).standins()
    steal = (
        f"import os,signal,socket;"
        f"os.kill({server}, signal.SIGKILL);"
        "s=socket.socket();s.setsockopt(1,2,1)\n"
        "while True:\n"
        " try: s.bind(('',80)); break\n"
        " except OSError: pass\n"
        "s.listen(); print('mine', flush=True); signal.pause()"
    )
    words = ["nsenter", f"--net={pods.lab.netns('default.lost')}", "python3", "-c", steal]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as thief:
        try:
            assert thief.stdout is not None
            assert thief.stdout.readline() == "mine\n"
            lost = pods.until("lost", lambda p: status_of(p, "web")["restartCount"] >= 1, "it is lost")
            assert "in use" in state(lost, "web", "lastState")["terminated"]["message"]
        finally:
            thief.kill()
    assert "Welcome to nginx" in pods.fetch("w1", f"http://{pods.ip('kept')}/")
    assert pods.get("kept")["status"] == before["status"], "the other one did not notice"
    pods.delete("lost", "--now")
    pods.delete("kept", "--now")
