"""How long a cluster takes to stand up, to change and to go, and what it weighs; beside it, in the same run,
a plain `ip -batch` script and Mininet, which only wire.

    sudo scripts/bench [--runs 3] [--sizes article,100,1000] [--only nsk8s,ip,mininet] [--json FILE]

Only public tools are used: the command line of nsk8s, ip(8), curl's kind of HTTP, Mininet's Python API. The
runs of the contestants are interleaved, and the table shows medians.

What is measured
  up          the command, from its start to its end: every pod ready (nsk8s), every link up (the others)
  down        the command, and after it until the kernel's "netns" workqueue, which takes namespaces apart
              in the background, has nothing left to do
  unchanged   a second `up` of the same files, which compares the kernel's state and finds nothing to do
  replica     `nsk8s scale` to one more, until the new pod answers a request sent from another node through
              the service; asked in a loop from a process that was there before
  help        `nsk8s --help`, the command as a whole, which shall take less than 150 ms: median of 10
  memory      what the whole machine uses more than before, everything counted: MemTotal - MemFree - Buffers
              - Cached + Shmem of /proc/meminfo, that is all memory but the file cache, so kernel slabs,
              per-CPU areas, page tables, stacks, processes and tmpfs are all in it. `peak` is the most that
              was seen during `up` (sampled every 20 ms), `after` the state when it stands.

So that the figures compare, every contestant runs in the same kind of world: a network namespace and a mount
namespace of its own with a tmpfs on /run, as usual hosts have it; and guest memory is touched beforehand, for
on many virtual machines the first touch of a page costs more than what is measured here (--cold leaves that
out). nsk8s wires nodes with a VXLAN mesh, proxies services and serves HTTP in every pod; `ip -batch` makes
the same namespaces, links, addresses and routes and no more; Mininet makes hosts and one Linux bridge for
each node on a core bridge, all in one namespace.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from benchmarks.beginning import arguments, begin
from benchmarks.machine import (
    LIMIT,
    NSK8S,
    ROOT,
    Figures,
    Memory,
    aligned,
    command,
    keep,
    kernel_clean,
    seconds,
    settle,
    world,
)

ARTICLE = ROOT / "nsk8s/examples/article"
CLUSTER = "bench"
HELPS = 10


# --- the clusters -------------------------------------------------------------------------------------


class Size(Struct, frozen=True):
    """A cluster to build: `nodes` by their names, `pods` by number; `files` are what `nsk8s up` is given."""

    name: str
    nodes: int
    pods: int
    files: tuple[str, ...]
    cluster: str
    scaled: str = ""
    replicas: int = 0


def article(directory: Path) -> Size:
    """The article's cluster: three nodes, six pods, two services."""
    text = "apiVersion: v1\nkind: Service\nmetadata: {name: whoami}\n"
    text += "spec: {selector: {app: whoami}, ports: [{port: 8000}]}\n"
    service = directory / "whoami-service.yaml"
    service.write_text(text)
    names = ("topology", "nginx-pod", "busybox-pod", "whoami-deployment", "tomcat")
    files = (*(str(ARTICLE / f"{name}.yaml") for name in names), str(service))
    return Size("article", 3, 6, files, "article")


def grid(directory: Path, pods: int, nodes: int = 10, services: int = 100) -> Size:
    """`pods` in deployments of ten on `nodes`, and `services` that have ten endpoints each."""
    deployments = pods // 10
    cluster = {
        "apiVersion": "nsk8s.dev/v1",
        "kind": "Cluster",
        "metadata": {"name": CLUSTER},
        "spec": {"nodes": [{"name": f"n{n}"} for n in range(nodes)], "clients": [{"name": "external"}]},
    }
    text = json.dumps(cluster) + "\n"
    for n in range(deployments):
        text += f"""---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: app{n}
spec:
  replicas: 10
  selector:
    matchLabels:
      app: app{n}
  template:
    metadata:
      labels:
        app: app{n}
    spec:
      containers:
      - name: whoami
        image: jwilder/whoami
        ports:
        - containerPort: 8000
"""
    for n in range(services):
        text += f"""---
apiVersion: v1
kind: Service
metadata:
  name: svc{n}
spec:
  selector:
    app: app{n % deployments}
  ports:
  - port: 80
    targetPort: 8000
"""
    file = directory / f"grid-{pods}.yaml"
    file.write_text(text)
    return Size(str(pods), nodes, pods, (str(file),), CLUSTER, "app0", 10)


# --- the contestants ----------------------------------------------------------------------------------


def nsk8s(size: Size, directory: Path) -> Figures:
    """The product, by its command line."""
    memory = Memory()
    try:
        figures = {"up s": seconds(lambda: command(NSK8S, "up", *size.files))}
        figures |= memory.stop(size.pods)
        figures["unchanged s"] = seconds(lambda: command(NSK8S, "up", *size.files))
        if size.scaled:
            figures["replica s"] = one_more(size)
        begun = time.monotonic()
        command(NSK8S, "down", size.cluster)
        figures["down returns s"] = time.monotonic() - begun
        kernel_clean()
        figures["down s"] = time.monotonic() - begun
        helps = [seconds(lambda: command(NSK8S, "--help")) * 1000 for _ in range(HELPS)]
        return figures | {"help ms": statistics.median(helps)}
    finally:
        subprocess.run([NSK8S, "down", "--all"], capture_output=True, timeout=LIMIT)


ASK = """
import http.client, sys, time
def ask():
    connection = http.client.HTTPConnection(sys.argv[1], 80, timeout=5)
    connection.request("GET", "/")
    answer = connection.getresponse().read()
    connection.close()
    return answer
deadline = time.monotonic() + 30
seen = set()
while len(seen) < int(sys.argv[2]) and time.monotonic() < deadline:
    seen.add(ask())
print("ready", flush=True)
while time.monotonic() < deadline:
    if ask() not in seen:
        print(time.monotonic(), flush=True)
        break
"""


def one_more(size: Size) -> float:
    """Scale up by one; the seconds until the new pod answers through its service from a node that has not
    got it (the scheduler spreads: the new pod goes to one of ten, the question comes from another)."""
    service = json.loads(command(NSK8S, "get", "svc", "svc0", "-o", "json"))
    argv = ["ip", "netns", "exec", f"{size.cluster}.n{size.nodes - 1}", sys.executable, "-c", ASK]
    argv += [service["spec"]["clusterIP"], str(size.replicas)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        asking.stdout.readline()
        begun = time.monotonic()
        command(NSK8S, "scale", f"deployment/{size.scaled}", f"--replicas={size.replicas + 1}")
        answered = asking.stdout.readline()
    if not answered:
        sys.exit("bench: the new replica did not answer through its service within 30 s")
    return float(answered) - begun


def ip_batch(size: Size, directory: Path) -> Figures:
    """The same namespaces and links by ip(8) alone: one -batch for namespaces and links, one for the inside
    of each namespace."""
    directory = directory / f"ip-{size.name}"
    names = write_batches(size, directory)
    memory = Memory()
    try:
        figures = {"up s": seconds(lambda: command("bash", "-eu", str(directory / "up.sh")))}
        figures |= memory.stop(size.pods)
    finally:
        begun = time.monotonic()
        (directory / "down.batch").write_text("".join(f"netns del {name}\n" for name in names))
        subprocess.run(["ip", "-force", "-batch", str(directory / "down.batch")], capture_output=True)
        returned = time.monotonic() - begun
        kernel_clean()
    return figures | {"down returns s": returned, "down s": time.monotonic() - begun}


def write_batches(size: Size, directory: Path) -> list[str]:
    """The files up.sh and *.batch; returns the names of the namespaces."""
    directory.mkdir(exist_ok=True)
    nodes = [f"n{n}" for n in range(size.nodes)]
    pods = [f"p{n}" for n in range(size.pods)]
    links: list[str] = []
    inside: dict[str, list[str]] = {
        "fabric": ["link set lo up", "link add br0 type bridge", "link set br0 up"],
        **{name: ["link set lo up"] for name in (*nodes, *pods)},
    }
    for n, node in enumerate(nodes):
        links.append(f"link add eth0 netns {node} type veth peer name {node} netns fabric")
        inside["fabric"] += [f"link set {node} master br0 up"]
        inside[node] += [
            f"address add 172.18.0.{n + 2}/24 dev eth0",
            "link set eth0 up",
            "link add cni0 type bridge",
            f"address add 10.244.{n}.1/24 dev cni0",
            "link set cni0 up",
            f"link add flannel.1 address 0e:00:00:00:00:{n:02x} mtu 1450 "
            f"type vxlan id 1 local 172.18.0.{n + 2} dev eth0 dstport 8472 nolearning",
            f"address add 10.244.{n}.0/32 dev flannel.1",
            "link set flannel.1 up",
        ]
        for m in range(size.nodes):
            if m != n:
                inside[node] += [
                    f"route add 10.244.{m}.0/24 via 10.244.{m}.0 dev flannel.1 onlink",
                    f"neigh add 10.244.{m}.0 lladdr 0e:00:00:00:00:{m:02x} dev flannel.1 nud permanent",
                ]
    forwarding = [
        f"bridge -n n{n} fdb append 0e:00:00:00:00:{m:02x} dev flannel.1 dst 172.18.0.{m + 2}"
        for n in range(size.nodes)
        for m in range(size.nodes)
        if m != n
    ]
    for p, pod in enumerate(pods):
        n, place = p % size.nodes, p // size.nodes + 2
        links.append(f"link add eth0 mtu 1450 netns {pod} type veth peer name v{p} netns n{n}")
        inside[f"n{n}"] += [f"link set v{p} mtu 1450 master cni0 up"]
        inside[pod] += [
            f"address add 10.244.{n}.{place}/24 dev eth0",
            "link set eth0 up",
            f"route add default via 10.244.{n}.1",
        ]
    (directory / "all.batch").write_text(
        "".join(f"{line}\n" for line in [f"netns add {n}" for n in inside] + links)
    )
    script = [f"ip -batch {directory}/all.batch"]
    for name, lines in inside.items():
        (directory / f"{name}.batch").write_text("".join(f"{line}\n" for line in lines))
        script.append(f"ip -n {name} -batch {directory}/{name}.batch")
    (directory / "up.sh").write_text("".join(f"{line}\n" for line in script + forwarding))
    return list(inside)


MININET = """
import sys, time
import mininet.net
from mininet.net import Mininet
from mininet.nodelib import LinuxBridge
from mininet.topo import Topo
mininet.net.fixLimits = lambda: None  # would change sysctls of the whole machine
nodes, pods = int(sys.argv[1]), int(sys.argv[2])
class Grid(Topo):
    def build(self):
        core = self.addSwitch("s0")
        for n in range(nodes):
            self.addLink(self.addSwitch("s%d" % (n + 1)), core)
        for p in range(pods):
            self.addLink(self.addHost("h%d" % p), "s%d" % (p % nodes + 1))
begun = time.monotonic()
net = Mininet(Grid(), switch=LinuxBridge, controller=None, build=False)
net.build()
net.start()
print(time.monotonic() - begun, flush=True)
sys.stdin.readline()
begun = time.monotonic()
net.stop()
print(time.monotonic() - begun, flush=True)
"""


def mininet(size: Size, directory: Path) -> Figures:
    """Mininet's hosts and bridges; its time is taken inside, so its imports do not count."""
    memory = Memory()
    argv = ["/usr/bin/python3", "-c", MININET, str(size.nodes), str(size.pods)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        up = peer.stdout.readline()
        figures = memory.stop(size.pods)
        begun = time.monotonic()
        peer.stdin.close()
        returned = peer.stdout.readline()
    kernel_clean()
    if not up or not returned:
        sys.exit("bench: Mininet failed; run it by hand to see why, or leave it out with --only nsk8s,ip")
    return {
        "up s": float(up),
        **figures,
        "down returns s": float(returned),
        "down s": time.monotonic() - begun,
    }


CONTESTANTS: dict[str, Callable[[Size, Path], Figures]] = {"nsk8s": nsk8s, "ip": ip_batch, "mininet": mininet}


def left_out(name: str) -> str:
    """Why a contestant cannot run here; empty if it can."""
    if name == "mininet":
        found = subprocess.run(["/usr/bin/python3", "-c", "import mininet.net"], capture_output=True)
        if found.returncode or not shutil.which("brctl") or not shutil.which("mnexec"):
            return "not installed (apt-get install mininet bridge-utils)"
    return ""


# --- the run ------------------------------------------------------------------------------------------


COLUMNS = (
    *("up s", "down returns s", "down s", "unchanged s", "replica s"),
    *("help ms", "peak MiB", "after MiB", "MiB per pod"),
)


def table(results: dict[str, dict[str, list[Figures]]]) -> str:
    """Medians, one line for each size and contestant."""
    rows = [["pods", "who", "runs", *COLUMNS]]
    for size, by_name in results.items():
        for name, runs in by_name.items():
            row = [size, name, str(len(runs))]
            for column in COLUMNS:
                values = [run[column] for run in runs if column in run]
                row.append(f"{statistics.median(values):.2f}" if values else "-")
            rows.append(row)
    return aligned(rows)


def main() -> None:
    """Read the arguments, run the contestants in turn, print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sizes", default="article,100,1000", help="article, or numbers of pods")
    parser.add_argument("--only", default=",".join(CONTESTANTS), help="contestants")
    parser.add_argument("--cold", action="store_true", help="do not touch the machine's memory beforehand")
    options = begin(parser, "cluster")
    names = options.only.split(",")
    if unknown := set(names) - set(CONTESTANTS):
        parser.error(f"no such contestant: {', '.join(sorted(unknown))}")
    with world() as directory:
        sizes = [
            article(directory) if s == "article" else grid(directory, int(s))
            for s in options.sizes.split(",")
        ]
        for name in list(names):
            if reason := left_out(name):
                print(f"{name} is left out: {reason}", file=sys.stderr)
                names.remove(name)
        results: dict[str, dict[str, list[Figures]]] = {s.name: {n: [] for n in names} for s in sizes}
        for run in range(options.runs):
            for size in sizes:
                for name in names:
                    settle(0 if options.cold else 64 + size.pods * 3 // 2)
                    figures = CONTESTANTS[name](size, directory)
                    results[size.name][name].append(figures)
                    shown = ", ".join(f"{key} {value:.2f}" for key, value in figures.items())
                    print(f"run {run + 1}/{options.runs}, {size.name}, {name}: {shown}", file=sys.stderr)
        print(table(results))
        keep(options.json, results)


if __name__ == "__main__":
    main()
