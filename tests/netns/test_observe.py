"""Captures and the packet witness, on the loopback of a namespace of our own."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

from nsk8s.errors import Timeout
from nsk8s.kernel.namespaces import inside
from nsk8s.observe.packets import Frame, Witness, dissect, send
from tests.netns.sandboxes import sandbox

pytestmark = pytest.mark.netns

DEADLINE = 10.0


@pytest.fixture(scope="module")
def pod() -> Iterator[int]:
    with sandbox() as pid:
        yield pid


def say(pod: int, data: bytes, port: int = 9000) -> None:
    with inside(pod, "net"):
        talking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with talking:
        talking.sendto(data, ("127.0.0.1", port))


def test_the_witness_sees_what_passes(pod: int) -> None:
    with Witness(pod, "lo", lambda frame: frame.kind == "udp") as witness:
        say(pod, b"hello")
        found = witness.wait_for(lambda frame: frame.dport == 9000 and not frame.outgoing)
        assert (found.src, found.dst, found.ttl, found.payload) == ("127.0.0.1", "127.0.0.1", 64, b"hello")
        assert found.interface == "lo"
        assert any(frame.outgoing for frame in witness.look())


def test_the_witness_tells_what_it_saw_instead(pod: int) -> None:
    with Witness(pod, "lo") as witness:
        say(pod, b"hello")
        with pytest.raises(Timeout, match=r"within 0\.1 s(.|\n)*9000"):
            witness.wait_for(lambda frame: frame.dport == 1, deadline=0.1)


def test_crafted_frames(pod: int) -> None:
    frame = bytes(Ether(dst="00:00:00:00:00:00") / IP(dst="127.0.0.1") / UDP(sport=5, dport=6) / b"made")
    with Witness(pod, "lo") as witness:
        send(pod, "lo", [frame])
        assert witness.wait_for(lambda f: f.dport == 6 and not f.outgoing).payload == b"made"


def test_vxlan_is_unwrapped() -> None:
    inner = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(
        src="10.244.1.2", dst="10.244.2.3", ttl=63
    )
    outer = Ether() / IP(src="172.18.0.2", dst="172.18.0.3") / UDP(sport=40000, dport=8472)
    seen = dissect(bytes(outer / VXLAN(vni=1, flags="Instance") / inner / ICMP()))
    assert (seen.src, seen.dst, seen.dport, seen.vni) == ("172.18.0.2", "172.18.0.3", 8472, 1)
    assert isinstance(seen.inner, Frame)
    assert (seen.inner.src, seen.inner.dst, seen.inner.ttl, seen.inner.kind) == (
        "10.244.1.2",
        "10.244.2.3",
        63,
        "icmp",
    )
    assert (seen.inner.smac, seen.inner.dmac) == ("02:00:00:00:00:01", "02:00:00:00:00:02")


CAPTURE = """
import sys
from nsk8s.kernel.processes import Inside
from nsk8s.observe.capture import capture
to = sys.stdout.buffer if sys.argv[2] == "-" else sys.argv[2]
sys.exit(capture(Inside(int(sys.argv[1])), "lo", sys.argv[3:], to=to))
"""


@pytest.mark.parametrize("to", ["", "-", "file"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_capture_is_stopped_cleanly(pod: int, tmp_path: Path, to: str, number: int) -> None:
    target = str(tmp_path / "x.pcap") if to == "file" else to
    running = subprocess.Popen(
        [sys.executable, "-c", CAPTURE, str(pod), target, "udp", "port", "9000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with running:
        assert running.stdout is not None
        assert running.stderr is not None
        fd = running.stderr.fileno()
        told = b""
        while b"listening on lo" not in told:
            assert select.select([fd], [], [], DEADLINE)[0], told
            told += os.read(fd, 4096)
        say(pod, b"hello")
        output = b""
        if to != "file":  # it arrives while the capture goes on; a pcap header comes before any packet
            while (b"hello" if to else b"length 5") not in output:
                assert select.select([running.stdout], [], [], DEADLINE)[0], output
                output += os.read(running.stdout.fileno(), 65536)
        else:
            while Path(target).stat().st_size < 24 + 16 + 47:
                assert running.poll() is None
        running.send_signal(number)
        more, rest = running.communicate(timeout=DEADLINE)
        output += more
        assert running.returncode == 0
        assert b"1 packet captured" in rest or b"2 packets captured" in rest
    if to == "":
        assert b"127.0.0.1.9000: UDP, length 5" in output
    else:
        pcap = Path(target).read_bytes() if to == "file" else output
        assert pcap[:4] == b"\xd4\xc3\xb2\xa1"
        assert b"hello" in pcap


def test_a_bad_filter_is_tcpdumps_error(pod: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CAPTURE, str(pod), "", "no", "filter"],
        capture_output=True,
        check=False,
        timeout=DEADLINE,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 1
    assert b"syntax error" in done.stderr or b"can't parse" in done.stderr
