"""How fast the Kubernetes API answers; beside it, in the same run, a bare aiohttp server with the same bytes.

    sudo scripts/bench api [--runs 3] [--pods 5000] [--json FILE]

The server is a cluster's control plane as `nsk8s up` starts it, asked over TLS on loopback with the client
certificate of its kubeconfig, with RBAC, managedFields and persistence as always. The floor is an aiohttp
server of the same kind (low-level `web.Server`, the same TLS) that answers every GET with the bytes that the
control plane gave. The clients share the machine with both.

What is measured
  get        GET of one pod, 16 connections: requests/s; `floor` for the same at the bare server
  list       LIST of all pods, one connection: ms
  create     POST of pods that no scheduler takes, 16 connections: requests/s
  patch      merge PATCH of one label each, 16 connections: requests/s
  watch      from just before a create is sent until a watcher on another connection has its event: ms, p50
             and p99 of 500
  fan-out    1,000 objects changed while 100 connections watch them: s until all have been told of all
  kubectl    `kubectl get pods -A`, the command as a whole: s
  cold       kill -9 of the control plane, then the first command until it has its answer: s
  RSS        of the control plane with all objects: MiB
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from benchmarks.beginning import arguments, begin
from benchmarks.machine import NSK8S, Figures, command, keep, seconds, settle, world

CLUSTER = "bench-api"
CONNECTIONS = 16
WATCHERS = 100
PODS = "/api/v1/namespaces/default/pods"
FLOOR = """
import asyncio, ssl, sys
from aiohttp import web
async def main(port, cert, key, body):
    answer = open(body, "rb").read()
    async def handle(request):
        return web.Response(body=answer, content_type="application/json")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    server = web.Server(handle, access_log=None)
    await asyncio.get_running_loop().create_server(server, "127.0.0.1", int(port), ssl=tls)
    print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main(*sys.argv[1:]))
"""


def pod(name: str) -> dict[str, Any]:
    """A pod that stays Pending: its scheduler does not exist."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {
            "schedulerName": "nobody",
            "containers": [{"name": "web", "image": "nginx", "ports": [{"containerPort": 80}]}],
        },
    }


class Connection:
    """One kept TLS connection, and no more HTTP than that takes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    def send(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> None:
        """Send a request."""
        lines = (
            f"{method} {path} HTTP/1.1",
            "Host: bench",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
        )
        self._writer.write("\r\n".join((*lines, "", "")).encode() + body)

    async def head(self) -> tuple[int, bytes]:
        """The status and the headers of the next answer."""
        text = await self.reader.readuntil(b"\r\n\r\n")
        return int(text[9:12]), text.lower()

    async def ask(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
        """One request; its body."""
        self.send(method, path, body, kind)
        code, head = await self.head()
        at = head.index(b"content-length:") + 15
        found = await self.reader.readexactly(int(head[at : head.index(b"\r", at)]))
        if code >= 300:
            sys.exit(f"bench: {method} {path}: {code} {found[:300]!r}")
        return found

    def close(self) -> None:
        """Let it go."""
        self._writer.transport.abort()


class Api:
    """The server that is asked."""

    def __init__(self, port: int, tls: ssl.SSLContext) -> None:
        self.port = port
        self._tls = tls

    async def connect(self) -> Connection:
        """A new connection."""
        return Connection(
            *await asyncio.open_connection("127.0.0.1", self.port, ssl=self._tls, limit=1 << 26)
        )

    @asynccontextmanager
    async def connections(self, count: int) -> AsyncIterator[list[Connection]]:
        """Several connections, for as long as the context lasts."""
        made = [await self.connect() for _ in range(count)]
        try:
            yield made
        finally:
            for one in made:
                one.close()

    async def rate(self, count: int, ask: Callable[[Connection, int], Awaitable[object]]) -> float:
        """`ask` called `count` times by all connections together: calls/s."""
        numbers = iter(range(count))

        async def work(connection: Connection) -> None:
            for number in numbers:
                await ask(connection, number)

        async with self.connections(CONNECTIONS) as connections:
            await asyncio.gather(*(connection.ask("GET", "/version") for connection in connections))
            begun = time.monotonic()
            await asyncio.gather(*map(work, connections))
            return count / (time.monotonic() - begun)


def credentials(directory: Path) -> tuple[Api, list[str]]:
    """How the cluster is reached, and the files of certificate and key."""
    config = yaml.safe_load(command(NSK8S, "kubeconfig", CLUSTER))
    (directory / "kubeconfig").write_text(yaml.safe_dump(config))
    user, cluster = config["users"][0]["user"], config["clusters"][0]["cluster"]
    files = []
    for name in ("client-certificate-data", "client-key-data"):
        (directory / name).write_bytes(base64.b64decode(user[name]))
        files.append(str(directory / name))
    tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    tls.load_cert_chain(*files)
    return Api(int(cluster["server"].rpartition(":")[2]), tls), files


async def requests(api: Api, pods: int) -> tuple[Figures, bytes]:
    """The figures of single requests; and what a GET gives."""
    figures: Figures = {}
    bodies = [json.dumps(pod(f"p{n:05}")).encode() for n in range(pods)]
    figures["create /s"] = await api.rate(pods, lambda c, n: c.ask("POST", PODS, bodies[n]))
    one = f"{PODS}/p00007"
    figures["get /s"] = await api.rate(10_000, lambda c, n: c.ask("GET", one))
    merge = "application/merge-patch+json"
    patches = [json.dumps({"metadata": {"labels": {"n": str(n)}}}).encode() for n in range(2000)]
    figures["patch /s"] = await api.rate(
        2000, lambda c, n: c.ask("PATCH", f"{PODS}/p{n % pods:05}", patches[n], merge)
    )
    async with api.connections(1) as [connection]:
        taken = []
        for _ in range(5):
            begun = time.monotonic()
            await connection.ask("GET", PODS)
            taken.append(time.monotonic() - begun)
        figures["list ms"] = statistics.median(taken) * 1000
        return figures, await connection.ask("GET", one)


async def latency(api: Api, count: int = 500) -> Figures:
    """How long after a create is sent a watcher hears of it."""
    path = "/api/v1/namespaces/default/configmaps"
    async with api.connections(2) as [watching, asking]:
        revision = json.loads(await asking.ask("GET", path))["metadata"]["resourceVersion"]
        watching.send("GET", f"{path}?watch=1&resourceVersion={revision}")
        await watching.head()
        taken = []
        for number in range(count):
            name = f"c{number:04}"
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
            begun = time.monotonic()
            asking.send("POST", path, json.dumps(body).encode())
            await watching.reader.readuntil(f'"name":"{name}"'.encode())
            taken.append(time.monotonic() - begun)
            _, head = await asking.head()
            at = head.index(b"content-length:") + 15
            await asking.reader.readexactly(int(head[at : head.index(b"\r", at)]))
    taken.sort()
    return {"watch p50 ms": taken[count // 2] * 1000, "watch p99 ms": taken[count * 99 // 100] * 1000}


async def fan_out(api: Api, changes: int = 1000) -> Figures:
    """`changes` objects changed; until every watcher has been told of the last."""
    merge = "application/merge-patch+json"
    async with api.connections(WATCHERS) as watching, api.connections(CONNECTIONS) as asking:
        revision = json.loads(await asking[0].ask("GET", PODS + "?limit=1"))["metadata"]["resourceVersion"]
        for one in watching:
            one.send("GET", f"{PODS}?watch=1&resourceVersion={revision}")
        await asyncio.gather(*(one.head() for one in watching))

        async def told(one: Connection) -> None:
            seen = 0
            while seen < changes:
                seen += (await one.reader.read(1 << 20)).count(b'{"type":"MODIFIED"')

        numbers = iter(range(changes))

        async def change(one: Connection) -> None:
            for number in numbers:
                body = json.dumps({"metadata": {"annotations": {"at": str(time.time())}}}).encode()
                await one.ask("PATCH", f"{PODS}/p{number:05}", body, merge)

        begun = time.monotonic()
        await asyncio.gather(*map(told, watching), *map(change, asking))
        return {"fan-out s": time.monotonic() - begun}


async def floor(directory: Path, files: list[str], body: bytes, api: Api) -> Figures:
    """The bare server's GETs."""
    (directory / "body").write_bytes(body)
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    port = str(api.port + 1)
    argv = [sys.executable, "-c", FLOOR, port, *files, str(directory / "body")]
    server = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        await server.stdout.readline()
        return {"floor get /s": await Api(int(port), tls).rate(10_000, lambda c, n: c.ask("GET", "/"))}
    finally:
        server.kill()
        await server.wait()


def daemon() -> int:
    """The control plane's pid."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                name = (entry / "comm").read_text()
            except OSError:
                continue
            if name == f"nsk8s:{CLUSTER}"[:15] + "\n":
                return int(entry.name)
    sys.exit("bench: no control plane runs")


def whole(directory: Path, kubectl: str) -> Figures:
    """The figures of whole commands."""
    figures: Figures = {}
    for line in Path(f"/proc/{daemon()}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            figures["RSS MiB"] = int(line.split()[1]) / 1024
    if kubectl:
        argv = [
            kubectl,
            "--kubeconfig",
            str(directory / "kubeconfig"),
            f"--cache-dir={directory}",
            "get",
            "pods",
            "-A",
        ]
        command(*argv)  # discovery is cached
        figures["kubectl s"] = statistics.median(seconds(lambda: command(*argv)) for _ in range(3))
    os.kill(daemon(), signal.SIGKILL)
    figures["cold s"] = seconds(lambda: command(NSK8S, "get", "namespaces"))
    return figures


def run(directory: Path, pods: int, kubectl: str) -> Figures:
    """One cluster, all figures."""
    topology = directory / "topology.yaml"
    topology.write_text(
        json.dumps(
            {
                "apiVersion": "nsk8s.dev/v1",
                "kind": "Cluster",
                "metadata": {"name": CLUSTER},
                "spec": {"nodes": [{"name": "n1", "role": "control-plane"}]},
            }
        )
    )
    try:
        command(NSK8S, "up", str(topology))
        api, files = credentials(directory)
        figures, body = asyncio.run(requests(api, pods))
        figures |= asyncio.run(floor(directory, files, body, api))
        figures |= asyncio.run(latency(api))
        figures |= asyncio.run(fan_out(api))
        return figures | whole(directory, kubectl)
    finally:
        subprocess.run([NSK8S, "down", CLUSTER], capture_output=True)


def main() -> None:
    """Read the arguments, run, print the medians."""
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--pods", type=int, default=5000)
    options = begin(parser, "api")
    kubectl = shutil.which("kubectl") or ""
    if not kubectl:
        print("kubectl is left out: none on PATH (apt-get install kubernetes-client)", file=sys.stderr)
    with world() as directory:
        os.environ["NSK8S_CLUSTER"] = CLUSTER
        runs = []
        for number in range(options.runs):
            settle(0)
            runs.append(run(directory, options.pods, kubectl))
            shown = ", ".join(f"{key} {value:.2f}" for key, value in runs[-1].items())
            print(f"run {number + 1}/{options.runs}: {shown}", file=sys.stderr)
        for key in runs[0]:
            print(f"{key:>14}  {statistics.median(one[key] for one in runs):10.2f}")
        keep(options.json, {"pods": options.pods, "runs": runs})


if __name__ == "__main__":
    main()
