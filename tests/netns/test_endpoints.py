"""Endpoints that come and go under traffic: checklist rows 43, 45 and 46."""

from __future__ import annotations

import socket

import pytest

from tests.netns.scenario import Scenario, pod, port, service

pytestmark = pytest.mark.netns


def test_row_43_a_failing_readiness_probe_takes_the_endpoint_out_and_a_passing_one_brings_it_back(
    lab: Scenario,
) -> None:
    number = 8090
    command = ["python3", "-m", "http.server", str(number)]
    probe = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1, "failureThreshold": 1}
    lab.apply(
        pod("flips", "w2", command=command, ports=(("http", number),), readinessProbe=probe),
        service("flips", {"app": "flips"}, port(80, number)),
    )
    try:
        ip = lab.cluster_ip("flips")
        lab.until(lambda: lab.http_fails("default.client", ip, 80) == "refused", "no endpoint is ready yet")
        lab.lab.nsk8s("exec", "flips", "--", "touch", "/tmp/ready")
        lab.until(lambda: lab.http_fails("default.client", ip, 80) == "", "the endpoint is in", 5)
        lab.lab.nsk8s("exec", "flips", "--", "rm", "/tmp/ready")
        lab.until(lambda: lab.http_fails("default.client", ip, 80) == "refused", "the endpoint is out", 5)
        lab.lab.nsk8s("exec", "flips", "--", "touch", "/tmp/ready")
        lab.until(lambda: lab.http_fails("default.client", ip, 80) == "", "the endpoint is in again", 5)
    finally:
        lab.delete("service", "flips")
        lab.delete("pod", "flips", "--force", "--grace-period=0")


def test_row_45_a_udp_flow_moves_when_its_endpoint_goes_and_a_blackhole_clears_with_the_first_one(
    lab: Scenario,
) -> None:
    lab.apply(service("udp-flow", {"group": "udp-flow"}, port(53, 9090, protocol="UDP")))
    ip = lab.cluster_ip("udp-flow")
    client = lab.socket("default.client", socket.SOCK_DGRAM)
    client.bind(("", 40053))
    client.settimeout(0.3)

    def answered() -> bool:
        try:
            client.sendto(b"who", (ip, 53))
            return client.recv(100) == b"who"
        except (TimeoutError, ConnectionRefusedError):
            return False

    try:
        assert not answered()  # nobody is there; what is sent meanwhile must not stick
        lab.apply(pod("udp-1", "w1", labels={"group": "udp-flow"}, udp=9090))
        lab.ready_ip("udp-1")
        lab.until(answered, "the first endpoint clears the black hole", 5)
        lab.apply(pod("udp-2", "w2", labels={"group": "udp-flow"}, udp=9090))
        second = lab.ready_ip("udp-2")
        with lab.capture("default.udp-2", "eth0") as arriving:
            lab.delete("pod", "udp-1", "--force", "--grace-period=0")
            lab.until(answered, "the flow moves to the other endpoint, its source port the same", 5)
            moved = arriving.wait_for(lambda p: p.kind == "udp" and p.dst == second)
        assert (moved.src, moved.sport) == (lab.ip("client"), 40053)
    finally:
        client.close()
        lab.delete("service", "udp-flow")
        for name in ("udp-1", "udp-2"):
            lab.delete("pod", name, "--force", "--grace-period=0", "--ignore-not-found")


def test_row_46_an_established_connection_outlives_the_rules_that_made_it(lab: Scenario) -> None:
    lab.apply(pod("old", "w2", labels={"app": "long"}), service("long", {"app": "long"}, port(80, 8080)))
    lab.ready_ip("old")
    ip = lab.cluster_ip("long")
    lab.until(lambda: lab.http_fails("default.client", ip, 80) == "", "the service answers")
    connection = lab.socket("default.client", socket.SOCK_STREAM)
    connection.settimeout(5)
    connection.connect((ip, 80))

    def asked() -> bytes:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: long\r\n\r\n")
        answer = b""
        while not answer.rstrip().endswith(b"}"):  # the body, which may come by itself
            answer += connection.recv(65536)
        return answer

    try:
        assert b'"old"' in asked()
        lab.apply(pod("new", "w1", labels={"app": "long"}))
        lab.ready_ip("new")
        lab.lab.nsk8s("label", "pod", "old", "app=other", "--overwrite")
        lab.until(lambda: '"new"' in lab.http("default.client", ip, 80), "new connections go to the new pod")
        assert b'"old"' in asked(), "the established one still reaches the old pod"
    finally:
        connection.close()
        lab.delete("service", "long")
        lab.delete("pod", "old", "--force", "--grace-period=0")
        lab.delete("pod", "new", "--force", "--grace-period=0", "--ignore-not-found")
