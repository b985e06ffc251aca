"""The stand-in server in real namespaces, asked over their loopbacks."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from nsk8s.errors import HostError
from nsk8s.kernel.forked import ForkServer
from nsk8s.kernel.namespaces import inside
from nsk8s.paths import ClusterPaths
from nsk8s.workloads.standins import Key, Program, Servers, StandIn, StandIns
from tests.netns.sandboxes import sandbox

pytestmark = pytest.mark.netns

DEADLINE = 10.0


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterPaths:
    monkeypatch.setenv("NSK8S_STATE", str(tmp_path))
    found = ClusterPaths("t")
    found.directory.mkdir()
    return found


@pytest.fixture
def pod() -> Iterator[int]:
    with sandbox() as pid:
        yield pid


def server_pid(paths: ClusterPaths) -> int:
    """Who listens on the cluster's stand-in socket."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(os.fspath(paths.standins))
        return int.from_bytes(asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")


def kill_server(paths: ClusterPaths) -> None:
    pid = server_pid(paths)
    fd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([fd], [], [], DEADLINE)[0]
    os.close(fd)


@asynccontextmanager
async def serving(paths: ClusterPaths, lost: list[Key] | None = None) -> AsyncIterator[Servers]:
    forks = ForkServer()
    standins = Servers(paths, forks, lambda key, why: lost.append(key) if lost is not None else None)
    await standins.start()
    try:
        yield standins
    finally:
        await standins.close()
        forks.close()
        kill_server(paths)


def standin(paths: ClusterPaths, pid: int, number: int = 0, behaviour: str = "jwilder-whoami") -> StandIn:
    return StandIn(
        pod=f"uid-{number}",
        container="web",
        attempt=0,
        pid=pid,
        behaviour=behaviour,
        ports=(("TCP", 8000),),
        name=f"web-{number}",
        namespace="default",
        node="w1",
        hostname=f"web-{number}",
        ip="127.0.0.1",
        log=os.fspath(paths.log(f"uid-{number}", "web", 0)),
    )


def opened(pid: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    with inside(pid, "net"):
        made = socket.socket(socket.AF_INET, kind)
    made.settimeout(DEADLINE)
    return made


def get(pid: int, port: int = 8000) -> str:
    with opened(pid) as asking:
        asking.connect(("127.0.0.1", port))
        asking.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while piece := asking.recv(65536):
            answer += piece
    return answer.partition(b"\r\n\r\n")[2].decode()


async def aget(pid: int, port: int = 8000) -> str:
    return await asyncio.to_thread(get, pid, port)


def refused(pid: int, port: int = 8000) -> bool:
    with opened(pid) as asking:
        return asking.connect_ex(("127.0.0.1", port)) != 0


def test_fifty_pods_on_the_same_port_each_answer_for_themselves(paths: ClusterPaths) -> None:
    async def run(pods: list[int]) -> None:
        async with serving(paths) as standins:
            assert await standins.serve(standin(paths, pid, n) for n, pid in enumerate(pods)) == {}
            for number, pid in enumerate(pods):
                assert await aget(pid) == f"I'm web-{number}\n"
            await standins.stop([("uid-7", "web"), ("uid-none", "web")])
            assert refused(pods[7])
            assert not refused(pods[8])

    with ExitStack() as stack:
        asyncio.run(run([stack.enter_context(sandbox()) for _ in range(50)]))


def test_udp_comes_back_from_the_address_it_was_sent_to(paths: ClusterPaths, pod: int) -> None:
    async def run() -> None:
        async with serving(paths) as standins:
            one = replace(standin(paths, pod, behaviour="echo"), ports=(("UDP", 53), ("TCP", 53)))
            assert await standins.serve([one]) == {}
            with opened(pod, socket.SOCK_DGRAM) as asking:
                asking.sendto(b"hello", ("127.0.0.9", 53))
                assert await asyncio.to_thread(asking.recvfrom, 100) == (b"hello", ("127.0.0.9", 53))
            assert json.loads(await aget(pod, 53))["client"] == "127.0.0.1"

    asyncio.run(run())


def test_a_port_in_use_is_an_error_and_nothing_stays_open(paths: ClusterPaths, pod: int) -> None:
    async def run() -> None:
        async with serving(paths) as standins:
            assert await standins.serve([standin(paths, pod, 1)]) == {}
            second = replace(standin(paths, pod, 2, "nginx"), ports=(("TCP", 7000), ("TCP", 8000)))
            errors = await standins.serve([second])
            assert errors == {("uid-2", "web"): "listen on 8000/TCP: address already in use"}
            assert refused(pod, 7000)
            assert await aget(pod) == "I'm web-1\n"
            await standins.stop([("uid-1", "web")])
            assert await standins.serve([second]) == {}

    asyncio.run(run())
    assert paths.log("uid-2", "web", 0).read_text() == (
        "nginx: [emerg] bind() to 0.0.0.0:8000 failed (98: Address already in use)\n"
    )


def test_the_log_tells_who_asked(paths: ClusterPaths, pod: int) -> None:
    async def run() -> None:
        async with serving(paths) as standins:
            await standins.serve([standin(paths, pod)])
            await aget(pod)

    asyncio.run(run())
    first, second = paths.log("uid-0", "web", 0).read_text().splitlines()
    assert first == "Listening on :8000"
    assert second.startswith("127.0.0.1 - - [")
    assert '"GET / HTTP/1.0" 200 10 "-" "-"' in second


def test_the_log_says_why_a_server_could_not_begin(
    paths: ClusterPaths, capfd: pytest.CaptureFixture[str]
) -> None:
    async def run() -> None:
        forks = ForkServer()
        standins = StandIns(paths, forks, paths.standins, Program("nsk8s:test", "nsk8s.workloads.nothing"))
        with pytest.raises(HostError, match="ended while starting"):
            await standins.start()
        forks.close()

    asyncio.run(run())
    assert "No module named 'nsk8s.workloads.nothing'" in paths.daemon_log.read_text()


def test_they_outlive_the_control_plane(paths: ClusterPaths, pod: int) -> None:
    async def run() -> None:
        forks = ForkServer()
        first = Servers(paths, forks)
        assert await first.start() == []
        await first.serve([standin(paths, pod)])
        await first.close()
        forks.close()
        assert await aget(pod) == "I'm web-0\n"
        async with serving(paths) as second:
            assert await second.start() == [("uid-0", "web", 0)]
            assert await second.serve([standin(paths, pod)]) == {}
            assert await aget(pod) == "I'm web-0\n"

    asyncio.run(run())


def test_a_killed_server_is_replaced_and_serves_the_same(paths: ClusterPaths, pod: int) -> None:
    async def run() -> None:
        async with serving(paths) as standins:
            await standins.serve([standin(paths, pod)])
            kill_server(paths)
            async with asyncio.timeout(DEADLINE):
                while refused(pod):
                    await standins.start()  # answered by the new server
            assert await aget(pod) == "I'm web-0\n"

    asyncio.run(run())


def test_a_restarted_container_replaces_its_predecessor(paths: ClusterPaths, pod: int) -> None:
    async def run() -> None:
        async with serving(paths) as standins:
            await standins.serve([standin(paths, pod)])
            await standins.serve([replace(standin(paths, pod), attempt=1, hostname="again")])
            assert await standins.start() == [("uid-0", "web", 1)]
            assert await aget(pod) == "I'm again\n"

    asyncio.run(run())


def test_a_dead_pods_namespace_is_let_go(paths: ClusterPaths) -> None:
    async def run() -> None:
        async with serving(paths) as standins:
            with sandbox() as pid:
                await standins.serve([standin(paths, pid)])
                talking = opened(pid)
                talking.connect(("127.0.0.1", 8000))
            try:
                # The server closes its end by itself, though nobody told it to stop.
                assert await asyncio.to_thread(talking.recv, 10) == b""
            except ConnectionResetError:
                pass
            finally:
                talking.close()
            assert await standins.start() == []
            errors = await standins.serve([standin(paths, 2**22 + 1)])
            assert "gone" in errors["uid-0", "web"]

    asyncio.run(run())
