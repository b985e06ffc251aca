"""exec, attach, cp, logs and port-forward by every kubectl that there is, in each way it can speak: large,
many at a time, on terminals, and with clients that vanish."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import yaml

from tests.conftest import MakeLab
from tests.lab import Lab
from tests.netns import kubectls
from tests.netns.kubectls import Kubectl
from tests.netns.podlab import CLUSTER, container, pod, shell
from tests.terminal import Terminal

pytestmark = pytest.mark.netns

DEADLINE = 30.0
WEBSOCKETS = """
import base64, hashlib, socketserver

class Shout(socketserver.StreamRequestHandler):
    def handle(self):
        head = dict(line.split(': ', 1) for line in self.head())
        key = head['Sec-WebSocket-Key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.wfile.write((
            'HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n'
            'Sec-WebSocket-Accept: ' + accept + '\\r\\n\\r\\n'
        ).encode())
        while (first := self.rfile.read(2)) and first[0] == 0x81:
            mask = self.rfile.read(4)
            text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.rfile.read(first[1] & 127)))
            said = (self.path + ' ' + text.decode().upper()).encode()
            self.wfile.write(bytes((0x81, len(said))) + said)

    def head(self):
        self.path = self.rfile.readline().decode().split()[1]
        return iter(lambda: self.rfile.readline().decode().strip(), '')

socketserver.ThreadingTCPServer(('', 8000), Shout).serve_forever()
"""
"""A server of WebSockets with short messages, which gives them back in capitals."""

PODS = [
    pod("shouter", container("c", "python3", "-c", WEBSOCKETS)),
    pod("web", container("web", image="nginx")),
    pod("real", container("c", "sleep", "infinity")),
    pod("cat", container("c", "cat", stdin=True)),
    pod("tty", container("c", "bash", "--norc", stdin=True, tty=True)),
    pod("two", container("a", "sleep", "infinity"), container("b", image="nginx")),
    pod("clock", shell("c", "n=0; while sleep 0.2; do n=$((n+1)); echo tick $n; done")),
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 8080, "targetPort": 80}]},
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "shouter"},
        "spec": {"selector": {"app": "shouter"}, "ports": [{"name": "ws", "port": 80, "targetPort": 8000}]},
    },
]
LARGE = 100_000_000


@dataclass(frozen=True)
class Way:
    """A kubectl, and whether it is told not to use WebSockets."""

    path: str
    forced: bool

    def __str__(self) -> str:
        return kubectls.label(self.path) + ("-spdy" if self.forced else "")


def ways() -> list[Way]:
    found = [Way(path, forced=False) for path in kubectls.found()]
    return found + [Way(path, forced=True) for path in kubectls.found() if kubectls.version(path) >= 30]


@pytest.fixture(scope="module")
def lab(shared_cluster: MakeLab) -> Lab:
    return shared_cluster(CLUSTER + "---\n" + yaml.safe_dump_all(PODS))


@pytest.fixture(scope="module", params=ways(), ids=str)
def kubectl(
    request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kubectl]:
    patch = pytest.MonkeyPatch()
    if request.param.forced:
        patch.setenv("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false")
        patch.setenv("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false")
    config = lab.nsk8s("kubeconfig").stdout
    yield Kubectl(request.param.path, tmp_path_factory.mktemp("home"), config)
    patch.undo()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "file"
    path.write_bytes(os.urandom(LARGE))
    return path


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def until(what: str, so: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE
    while not so():
        assert time.monotonic() < end, f"not within {DEADLINE:.0f} s: {what}"
        time.sleep(0.05)


def processes(word: str) -> list[str]:
    """The pids of the processes of this host that have `word` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if word.encode() in line and b"kubectl" not in line:
                found.append(entry.name)
    return found


# --- exec ---------------------------------------------------------------------------------------------


def test_exit_codes_and_what_cannot_be_run(kubectl: Kubectl) -> None:
    for target in ("real", "web"):
        kubectl.run("exec", target, "--", "sh", "-c", "exit 3", rc=3)
        said = kubectl.fails("exec", target, "--", "no-such-program", rc=127)
        assert 'exec: "no-such-program": executable file not found in $PATH' in said
        assert 'exec: "/etc": ' in kubectl.run("exec", target, "--", "/etc", rc=None).stderr
        assert "permission denied" in kubectl.fails("exec", target, "--", "/etc/passwd", rc=126)
        kubectl.run("exec", target, "--", "sh", "-c", "kill -9 $$", rc=137)
    assert "container zz is not valid for pod real" in kubectl.fails("exec", "real", "-c", "zz", "--", "true")
    assert 'pods "nobody" not found' in kubectl.fails("exec", "nobody", "--", "true")


def test_output_and_errors_are_kept_apart_and_input_ends(kubectl: Kubectl) -> None:
    done = kubectl.run("exec", "real", "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert kubectl.run("exec", "-i", "web", "--", "wc", "-c", stdin="x" * 100_000).stdout.strip() == "100000"
    assert kubectl.run("exec", "web", "--", "wc", "-c", stdin="unasked").stdout.strip() == "0"


def test_a_child_left_in_the_background_keeps_nobody_waiting(kubectl: Kubectl) -> None:
    mark = f"3{uuid.uuid4().int % 10**8}"
    begun = time.monotonic()
    assert kubectl("exec", "real", "--", "sh", "-c", f"sleep {mark} & echo done") == "done\n"
    assert time.monotonic() - begun < 5
    for number in processes(mark):
        os.kill(int(number), signal.SIGKILL)


@pytest.mark.parametrize("target", ["real", "web"])
def test_row_100_much_each_way(kubectl: Kubectl, large: Path, target: str) -> None:
    with large.open("rb") as file:
        process = kubectl.popen(["exec", "-i", target, "--", "cat"], stdin=file, stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process:
            assert hashlib.file_digest(process.stdout, "sha256").hexdigest() == checksum(large)  # type: ignore[arg-type]  # it is a file
    assert process.returncode == 0


def test_ten_at_a_time(kubectl: Kubectl) -> None:
    def one(number: int) -> str:
        return kubectl.run(
            "exec", "-i", "real", "--", "sh", "-c", "cat | md5sum", stdin=f"{number}" * 10**6
        ).stdout

    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(one, range(10)))
    assert found == [hashlib.md5(f"{n}".encode() * 10**6).hexdigest() + "  -\n" for n in range(10)]


@pytest.mark.parametrize("target", ["real", "web"])
@pytest.mark.parametrize("busy", ["idle", "reading", "writing"])
def test_who_vanishes_leaves_no_process_behind(kubectl: Kubectl, target: str, busy: str) -> None:
    """`reading`: it never reads what it is sent; `writing`: nobody reads what it writes."""
    mark = f"3{uuid.uuid4().int % 10**8}"
    script = f"sleep {mark}; true" if busy != "writing" else f"sleep {mark} & cat /dev/zero"
    with open("/dev/zero", "rb") as zeros:
        process = kubectl.popen(
            ["exec", "-i", target, "--", "sh", "-c", script],
            stdin=zeros if busy == "reading" else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    with process:
        until("the program runs", lambda: len(processes(mark)) > 1)
        if busy == "reading":
            time.sleep(0.5)  # let the pipes fill
        process.kill()
    until("nothing of it is left", lambda: not processes(mark))


@pytest.mark.parametrize("target", ["real", "web"])
def test_a_terminal(kubectl: Kubectl, target: str) -> None:
    words = kubectl.argv("exec", "-it", target, "--", "bash", "--norc")
    with Terminal(words, kubectl.environ(), rows=40, columns=100) as terminal:
        terminal.until("# ")
        terminal.press("stty size; tty; echo $TERM\r")
        terminal.until("40 100")
        terminal.until("/dev/")
        terminal.until("xterm")
        terminal.until("# ")
        terminal.resize(50, 120)
        terminal.press("while [ \"$(stty size)\" != '50 120' ]; do sleep 0.05; done; echo resi''zed\r")
        terminal.until("resized")
        terminal.until("# ")
        terminal.press("sh -c 'echo begi\"\"ns; exec sleep 1000'\r")
        terminal.until("begins")
        terminal.press("\x03")
        terminal.until("# ")
        terminal.press("exit 7\r")
        assert terminal.wait() == 7


# --- attach -------------------------------------------------------------------------------------------


def test_attach_speaks_to_the_container_itself(kubectl: Kubectl) -> None:
    words = ["attach", "-i", "cat"]
    with kubectl.popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as attached:
        assert attached.stdin is not None
        assert attached.stdout is not None
        word = uuid.uuid4().hex.encode() + b"\n"
        attached.stdin.write(word)
        attached.stdin.flush()
        assert attached.stdout.readline() == word
        attached.kill()
    assert word.decode() in kubectl("logs", "cat")


def test_a_container_s_own_terminal(kubectl: Kubectl) -> None:
    with Terminal(kubectl.argv("attach", "-it", "tty"), kubectl.environ(), rows=40, columns=100) as terminal:
        terminal.press("while [ \"$(stty size)\" != '40 100' ]; do sleep 0.05; done; echo si''zed $TERM\r")
        terminal.until("sized xterm")
        terminal.until("# ")
        terminal.press("sh -c 'echo begi\"\"ns; exec sleep 1000'\r")
        terminal.until("begins")
        terminal.press("\x03")
        terminal.until("# ")
    assert "sized xterm" in kubectl("logs", "tty")


def test_input_that_is_given_once_ends_with_who_gives_it(kubectl: Kubectl, lab: Lab) -> None:
    name = f"once-{uuid.uuid4().hex[:8]}"
    once = pod(name, container("c", "wc", "-c", stdin=True, stdinOnce=True), restartPolicy="Never")
    lab.nsk8s("apply", "-f", "-", stdin=yaml.safe_dump(once))
    kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=30s")
    kubectl.run("attach", "-i", name, stdin="x" * 100_000)
    assert kubectl("logs", name).strip() == "100000"
    kubectl("delete", "pod", name)


def test_run_and_speak_to_it(kubectl: Kubectl) -> None:
    name = f"ran-{uuid.uuid4().hex[:8]}"
    words = ("run", name, "-i", "--rm", "--image=busybox", "--restart=Never", "--", "tr", "a-z", "A-Z")
    assert "HELLO\n" in kubectl.run(*words, stdin="hello\n").stdout


def test_what_does_not_run_is_not_attached_to(kubectl: Kubectl, lab: Lab) -> None:
    name = f"over-{uuid.uuid4().hex[:8]}"
    over = pod(name, container("c", "true"), restartPolicy="Never")
    lab.nsk8s("apply", "-f", "-", stdin=yaml.safe_dump(over))
    until("it is over", lambda: "Completed" in kubectl("get", "pod", name))
    said = kubectl.fails("exec", name, "--", "true") + kubectl.fails("attach", name)
    assert "completed pod" in said or 'unable to upgrade connection: container not found ("c")' in said
    kubectl("delete", "pod", name)


# --- logs ---------------------------------------------------------------------------------------------


def test_logs(kubectl: Kubectl) -> None:
    until("it ticks", lambda: "tick 3\n" in kubectl("logs", "clock"))
    assert kubectl("logs", "clock", "--limit-bytes=7") == "tick 1\n"
    assert len(kubectl("logs", "clock", "--tail=2").splitlines()) == 2
    stamped = kubectl("logs", "clock", "--timestamps", "--tail=1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z tick \d+\n", stamped)
    recent = kubectl("logs", "clock", "--since=1s").splitlines()
    assert 0 < len(recent) < 10
    assert (
        "container name must be specified" in kubectl.run("logs", "two", rc=None).stderr or kubectl.minor > 20
    )
    assert "previous terminated container" in kubectl.fails("logs", "-p", "clock")


def test_logs_are_followed_to_the_container_s_end(kubectl: Kubectl, lab: Lab) -> None:
    name = f"brief-{uuid.uuid4().hex[:8]}"
    script = "for n in 1 2 3 4 5; do echo $n; sleep 0.2; done"
    lab.nsk8s("apply", "-f", "-", stdin=yaml.safe_dump(pod(name, shell("c", script), restartPolicy="Never")))
    until("it has begun", lambda: kubectl.run("logs", name, rc=None).stdout)
    assert kubectl("logs", "-f", name) == "1\n2\n3\n4\n5\n"
    kubectl("delete", "pod", name)


# --- cp, port-forward ---------------------------------------------------------------------------------


def test_cp_both_ways(kubectl: Kubectl, large: Path, tmp_path: Path) -> None:
    kubectl("cp", str(large), "default/real:/tmp/large")
    kubectl("cp", "default/real:/tmp/large", str(tmp_path / "back"))
    assert checksum(tmp_path / "back") == checksum(large)
    (tmp_path / "back").unlink()
    kubectl("exec", "real", "--", "rm", "/tmp/large")


@contextmanager
def forwarded(kubectl: Kubectl, target: str, port: int) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A port-forward in the background, and its local port."""
    words = ["port-forward", target, f":{port}"]
    with kubectl.popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        match = re.search(rb"127\.0\.0\.1:(\d+) -> ", process.stdout.readline())
        assert match
        try:
            yield process, int(match[1])
        finally:
            process.kill()


def curl(port: int) -> bytes:
    return subprocess.run(
        ["curl", "-sS", "-f", "-m", "10", f"http://127.0.0.1:{port}/"], capture_output=True, check=True
    ).stdout


def test_ten_connections_through_one_port_forward(kubectl: Kubectl) -> None:
    with forwarded(kubectl, "pod/web", 80) as (_, port), ThreadPoolExecutor(10) as pool:
        assert all(b"web" in page for page in pool.map(curl, [port] * 30))


def test_a_port_that_nobody_listens_on(kubectl: Kubectl) -> None:
    with forwarded(kubectl, "pod/web", 8099) as (process, port):
        assert subprocess.run(["curl", "-s", "-m", "10", f"http://127.0.0.1:{port}/"]).returncode
        assert process.stderr is not None
        assert re.search(
            rb"error forwarding port 8099 to pod [-0-9a-f]+, uid : .*"
            rb"failed to connect to localhost:8099 inside namespace .*connect: connection refused",
            process.stderr.readline(),
        )


# --- proxies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pods/web", "pods/http:web:80", "services/web:http", "services/web:8080"])
def test_row_100_a_proxy_passes_requests_on(kubectl: Kubectl, name: str) -> None:
    assert "pod web" in kubectl("get", "--raw", f"/api/v1/namespaces/default/{name}/proxy/")


@pytest.mark.parametrize("name", ["pods/shouter:8000", "services/shouter:ws"])
def test_row_100_a_proxy_passes_websockets_through(kubectl: Kubectl, name: str) -> None:
    with kubectl.popen(["proxy", "--port=0"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        match = re.search(rb"127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert match
        url = f"ws://127.0.0.1:{int(match[1])}/api/v1/namespaces/default/{name}/proxy/chat"

        async def chat(*words: str) -> list[str]:
            async with aiohttp.ClientSession() as client, client.ws_connect(url) as opened:
                heard = []
                for word in words:
                    await opened.send_str(word)
                    heard.append(await opened.receive_str(timeout=DEADLINE))
                return heard

        try:
            assert asyncio.run(chat("hello", "again")) == ["/chat HELLO", "/chat AGAIN"]
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pods/web:81", "error trying to reach service: dial tcp 10.244."),
        ("pods/nobody", 'pods "nobody" not found'),
        ("services/web", 'no endpoints available for service "web"'),
        ("services/web:81", 'no service port 81 found for service "web"'),
        ("services/a:b:c:d", 'invalid service request "a:b:c:d"'),
    ],
)
def test_what_a_proxy_cannot_reach(kubectl: Kubectl, name: str, said: str) -> None:
    assert said in kubectl.fails("get", "--raw", f"/api/v1/namespaces/default/{name}/proxy/")
