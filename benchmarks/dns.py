"""How fast cluster DNS answers; beside it, in the same run, Debian's dnsmasq with the same names.

    sudo scripts/bench dns [--runs 3] [--questions 20000] [--json FILE]

The cluster is as `nsk8s up` makes it, with 200 services and one headless service of three endpoints. dnsmasq
(package dnsmasq-base; left out where there is none) runs in a pod on the node of the DNS pods, with the same
names in its hosts. A client in a pod of another node asks each by its pod's address, so that both have the
same way: bridge, VXLAN, bridge. 32 questions are on their way at a time; the next one is sent when an answer
comes. Each server has CPU 0 for itself and the client the other one, where there are two.

What is measured, in questions/s, ms (p50, p99 from the sending of a question to its answer) and the server's
own CPU time for a question in microseconds, which a busy machine changes least
  service     A of the services, one after the other
  headless    A of the headless service
  missing     names that do not exist, as search lists make them
  dig         A of the services with an EDNS cookie, each another one (nsk8s)
  3,000/s     A of the services at a steady 3,000 questions/s: how long one takes when the server is not full,
              and how many get no answer
  by service  A of the services through the Service kube-dns (nsk8s)
  change      from just before an endpoint is changed over the API until its name has the new address, asked
              in a loop: ms, p50 and the longest of 100 (nsk8s)
"""

from __future__ import annotations

import http.client
import json
import os
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.beginning import arguments, begin
from benchmarks.machine import LIMIT, NSK8S, Figures, command, keep, settle, world
from nsk8s.kernel.namespaces import inside
from nsk8s.paths import ClusterPaths

CLUSTER = "bench-dns"
SERVICES = 200
WINDOW = 32
CHANGES = 100
CPUS = os.sched_getaffinity(0)
DOMAIN = "default.svc.cluster.local"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
ENDPOINTS = [f"10.9.0.{number}" for number in (1, 2, 3)]


def objects() -> str:
    """The cluster's files."""
    cluster = {
        "apiVersion": "nsk8s.dev/v1",
        "kind": "Cluster",
        "metadata": {"name": CLUSTER},
        "spec": {"nodes": [{"name": "master", "role": "control-plane"}, {"name": "w1"}]},
    }
    found: list[dict[str, Any]] = [cluster, pod("client", "w1"), pod("dnsmasq", "master")]
    found += [service(f"s{number}", {"ports": [{"port": 80}]}) for number in range(SERVICES)]
    found.append(service("headless", {"clusterIP": "None", "ports": [{"name": "x", "port": 80}]}))
    found.append(piece(ENDPOINTS))
    return yaml.safe_dump_all(found)


def pod(name: str, node: str) -> dict[str, Any]:
    """A pod that only holds a namespace."""
    spec = {"nodeName": node, "containers": [{"name": "c", "image": "pause"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def service(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A Service without a selector."""
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def piece(addresses: list[str]) -> dict[str, Any]:
    """The endpoints of the headless service."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "headless-1", "labels": {"kubernetes.io/service-name": "headless"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]} for address in addresses],
        "ports": [{"name": "x", "port": 80}],
    }


# --- asking -------------------------------------------------------------------------------------------


def question(name: str, cookie: bytes = b"") -> bytes:
    """A query for the addresses of a name, without its id; as glibc writes it, or with a cookie as dig's."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    option = struct.pack("!HH", 10, len(cookie)) + cookie if cookie else b""
    opt = b"\0" + struct.pack("!HHIH", 41, 1232, 0, len(option)) + option if cookie else b""
    return struct.pack("!HHHHH", 0x0100, 1, 0, 0, 1 if cookie else 0) + labels + b"\0\0\1\0\1" + opt


def ask(opened: socket.socket, questions: list[bytes]) -> Figures:
    """Ask them all, `WINDOW` at a time."""
    sent: dict[int, float] = {}
    took: list[float] = []
    rest = iter(enumerate(questions))

    def send() -> None:
        for number, one in rest:
            key = number & 0xFFFF
            sent[key] = time.perf_counter()
            opened.send(key.to_bytes(2, "big") + one)
            return

    begun = time.perf_counter()
    for _ in range(WINDOW):
        send()
    while sent:
        if not select.select([opened], [], [], 5)[0]:
            sys.exit(f"bench: {len(sent)} of {len(questions)} questions have no answer")
        answer = opened.recv(4096)
        at = sent.pop(int.from_bytes(answer[:2], "big"), None)
        if at is not None:
            took.append(time.perf_counter() - at)
            send()
    whole = time.perf_counter() - begun
    took.sort()
    return {
        "q/s": len(questions) / whole,
        "p50 ms": took[len(took) // 2] * 1000,
        "p99 ms": took[len(took) * 99 // 100] * 1000,
    }


def paced(opened: socket.socket, questions: list[bytes], rate: float) -> Figures:
    """Ask `rate` of them each second."""
    took: list[float] = []
    sent: dict[int, float] = {}
    number = 0
    begun = time.perf_counter()
    while number < len(questions) or sent:
        due = begun + number / rate
        wait = max(0.0, due - time.perf_counter()) if number < len(questions) else 5.0
        if select.select([opened], [], [], wait)[0]:
            at = sent.pop(int.from_bytes(opened.recv(4096)[:2], "big"), None)
            if at is not None:
                took.append(time.perf_counter() - at)
        elif number == len(questions):
            break
        if number < len(questions) and time.perf_counter() >= due:
            sent[number & 0xFFFF] = time.perf_counter()
            opened.send((number & 0xFFFF).to_bytes(2, "big") + questions[number])
            number += 1
    took.sort()
    return {
        "lost": float(len(sent)),
        "p50 ms": took[len(took) // 2] * 1000,
        "p99 ms": took[len(took) * 99 // 100] * 1000,
    }


def connected(namespace: str, address: str) -> socket.socket:
    """A socket in a pod, towards somebody's port 53."""
    with inside(Path(f"/run/netns/{CLUSTER}.{namespace}"), "net"):
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    opened.connect((address, 53))
    return opened


def spent(pid: int) -> float:
    """The CPU time of a process in microseconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


def weighed(pid: int, opened: socket.socket, questions: list[bytes]) -> Figures:
    """Ask the server `pid`, and what that costs it."""
    before = spent(pid)
    figures = ask(opened, questions)
    return {**figures, "us CPU": (spent(pid) - before) / len(questions)}


def table(pid: int, address: str, count: int) -> dict[str, Figures]:
    """What a server does."""
    services = [question(f"s{number}.{DOMAIN}") for number in range(SERVICES)]
    missing = [question(f"s{number}.{DOMAIN}.{DOMAIN}") for number in range(SERVICES)]
    with connected("default.client", address) as opened:
        return {
            **{
                name: weighed(pid, opened, [kind[n % len(kind)] for n in range(count)])
                for name, kind in (
                    ("service", services),
                    ("headless", [question(f"headless.{DOMAIN}")]),
                    ("missing", missing),
                )
            },
            "3,000/s": paced(opened, [services[n % len(services)] for n in range(count // 2)], 3000),
        }


def change() -> Figures:
    """How long a new address takes into the names."""
    took = []
    query = b"\0\1" + question(f"headless.{DOMAIN}")
    address = dns_pods()[0]
    with connected("default.client", address) as opened:
        opened.settimeout(5)
        for number in range(CHANGES):
            wanted = f"10.9.{1 + number // 250}.{1 + number % 250}"
            control = http.client.HTTPConnection("localhost")
            control.sock = socket.socket(socket.AF_UNIX)
            control.sock.connect(f"{os.environ['NSK8S_STATE']}/{CLUSTER}/api.sock")
            begun = time.perf_counter()
            patch = json.dumps({"endpoints": [{"addresses": [wanted]}]})
            kind = {"Content-Type": "application/merge-patch+json"}
            control.request("PATCH", f"{SLICES}/headless-1", patch, kind)
            while True:
                opened.send(query)
                if socket.inet_aton(wanted) in opened.recv(4096):
                    break
                if time.perf_counter() - begun > LIMIT:
                    sys.exit("bench: the new address never comes")
            took.append((time.perf_counter() - begun) * 1000)
            control.getresponse().read()
            control.close()
    return {"p50 ms": statistics.median(took), "longest ms": max(took)}


# --- the contestants ----------------------------------------------------------------------------------


def dns_pods() -> list[str]:
    """The addresses of the DNS pods."""
    words = ("get", "pods", "-n", "kube-system", "-l", "k8s-app=kube-dns", "-o", "json")
    return [one["status"]["podIP"] for one in json.loads(command(NSK8S, *words))["items"]]


def server() -> int:
    """The pid of the DNS server: whoever listens on its socket."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(os.fspath(ClusterPaths(CLUSTER).dns))
        return int.from_bytes(asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)


def alone(pid: int) -> None:
    """One CPU for the server, the rest for the client."""
    first = min(CPUS)
    os.sched_setaffinity(pid, {first})
    os.sched_setaffinity(0, CPUS - {first} or CPUS)


def dnsmasq(directory: Path, count: int) -> dict[str, Figures]:
    """The same questions to dnsmasq."""
    address = json.loads(command(NSK8S, "get", "pod", "dnsmasq", "-o", "json"))["status"]["podIP"]
    services = json.loads(command(NSK8S, "get", "services", "-o", "json"))["items"]
    lines = [f"{one['spec']['clusterIP']} {one['metadata']['name']}.{DOMAIN}\n" for one in services]
    lines = [line for line in lines if not line.startswith("None ")]
    lines += [f"{endpoint} headless.{DOMAIN}\n" for endpoint in ENDPOINTS]
    hosts = directory / "hosts"
    hosts.write_text("".join(lines))
    argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]
    argv += ["--user=root", f"--addn-hosts={hosts}", "--local=/cluster.local/", "--local-ttl=30"]
    argv += ["--cache-size=10000", "--pid-file"]
    namespace = f"/run/netns/{CLUSTER}.default.dnsmasq"
    with subprocess.Popen(["nsenter", f"--net={namespace}", *argv]) as process:
        try:
            alone(process.pid)
            with connected("default.client", address) as opened:
                opened.settimeout(0.05)
                deadline = time.monotonic() + 10
                while time.monotonic() < deadline:
                    try:
                        opened.send(b"\0\1" + question(f"s0.{DOMAIN}"))
                        opened.recv(4096)
                        break
                    except OSError:
                        continue
            return table(process.pid, address, count)
        finally:
            process.send_signal(signal.SIGTERM)


def run(directory: Path, count: int) -> dict[str, dict[str, Figures]]:
    """One cluster, all figures."""
    files = directory / "cluster.yaml"
    files.write_text(objects())
    os.sched_setaffinity(0, CPUS)
    try:
        command(NSK8S, "up", str(files))
        pid = server()
        alone(pid)
        address = dns_pods()[0]
        found = {"nsk8s": table(pid, address, count)}
        cookies = [question(f"s{n % SERVICES}.{DOMAIN}", n.to_bytes(8, "big")) for n in range(count // 4)]
        with connected("default.client", address) as opened:
            found["nsk8s"]["dig"] = weighed(pid, opened, cookies)
        with connected("default.client", "10.96.0.10") as opened:
            names = [question(f"s{n % SERVICES}.{DOMAIN}") for n in range(count)]
            found["nsk8s"]["by service"] = weighed(pid, opened, names)
        found["nsk8s"]["change"] = change()
        if shutil.which("dnsmasq"):
            found["dnsmasq"] = dnsmasq(directory, count)
        return found
    finally:
        subprocess.run([NSK8S, "down", CLUSTER], capture_output=True)


def main() -> None:
    """Read the arguments, run, print the medians."""
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--questions", type=int, default=20_000)
    options = begin(parser, "dns")
    if not shutil.which("dnsmasq"):
        print("dnsmasq is left out: none on PATH (apt-get install dnsmasq-base)", file=sys.stderr)
    with world() as directory:
        os.environ["NSK8S_CLUSTER"] = CLUSTER
        runs = []
        for number in range(options.runs):
            settle(0)
            runs.append(run(directory, options.questions))
            print(f"run {number + 1}/{options.runs} done", file=sys.stderr)
        for who, rows in runs[0].items():
            for row, figures in rows.items():
                medians = (
                    f"{key} {statistics.median(one[who][row][key] for one in runs):.2f}" for key in figures
                )
                print(f"{who:>8}  {row:<10}  {'  '.join(medians)}")
        keep(options.json, {"questions": options.questions, "runs": runs})


if __name__ == "__main__":
    main()
