"""The machine that is measured: its memory, its rest, and a world of our own in it."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NSK8S = str(ROOT / ".venv/bin/nsk8s")
WORLD = "NSK8S_BENCH_WORLD"
LIMIT = 300.0
Figures = dict[str, float]


def used_kib() -> int:
    """All memory in use but the file cache, in KiB."""
    field = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        field[name] = int(rest.split()[0])
    return field["MemTotal"] - field["MemFree"] - field["Buffers"] - field["Cached"] + field["Shmem"]


class Memory:
    """Samples the machine's memory in the background, against what was used at the start."""

    def __init__(self) -> None:
        self._before = self._most = used_kib()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._stop.wait(0.02):
            self._most = max(self._most, used_kib())

    def stop(self, pods: int) -> Figures:
        """MiB at the peak and now, and for each pod now."""
        self._stop.set()
        self._thread.join()
        after = used_kib() - self._before
        peak = max(self._most - self._before, after)
        return {"peak MiB": peak / 1024, "after MiB": after / 1024, "MiB per pod": after / 1024 / pods}


def taking_apart() -> bool:
    """Whether a kworker is at the "netns" workqueue: the kernel is still removing namespaces."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            name = Path(f"/proc/{pid}/comm").read_bytes()
        except OSError:
            continue
        if name.startswith(b"kworker") and b"+netns" in name:
            return True
    return False


def kernel_clean() -> None:
    """Return when the kernel has let everything go (twice in a row: work may be queued between batches)."""
    deadline = time.monotonic() + LIMIT
    idle = 0
    while idle < 2:
        idle = 0 if taking_apart() else idle + 1
        if time.monotonic() > deadline:
            sys.exit("bench: the kernel is still removing namespaces; giving up")
        time.sleep(0.005)


def settle(warm_mib: int) -> None:
    """Begin from the same state each time: kernel clean, `warm_mib` of memory touched, no old directory
    entries and inodes in the slabs (a run would reuse them and seem to need less), machine at rest."""
    kernel_clean()
    if warm_mib:
        with mmap.mmap(-1, warm_mib << 20) as memory:
            for page in range(0, warm_mib << 20, 4096):
                memory[page] = 1
    Path("/proc/sys/vm/drop_caches").write_text("2")
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        used = used_kib()
        if busy() < 0.1 and abs(used_kib() - used) < 1024:
            return
    print("bench: the machine is not idle; take the figures with care", file=sys.stderr)


def busy() -> float:
    """The share of CPU time that somebody used in the last quarter of a second."""

    def ticks() -> tuple[int, int]:
        field = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        return sum(field), field[3] + field[4]

    total, idle = ticks()
    time.sleep(0.25)
    later, later_idle = ticks()
    return 1 - (later_idle - idle) / max(1, later - total)


def seconds(run: Callable[[], object]) -> float:
    """How long a call takes."""
    begun = time.monotonic()
    run()
    return time.monotonic() - begun


def command(*argv: str) -> str:
    """Run a command to its end and return its stdout; ends the bench if it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        sys.exit(f"bench: {' '.join(argv)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def world() -> Iterator[Path]:
    """Network, mounts and /run of our own (this process is started again inside), and a scratch directory."""
    if os.environ.get(WORLD) != "1":
        os.environ[WORLD] = "1"
        inside = 'mount -t tmpfs -o mode=755 tmpfs /run && ip link set lo up && exec "$@"'
        argv = ["unshare", "--net", "--mount", "bash", "-c", inside, "bash", *sys.orig_argv]
        os.execvp(argv[0], argv)
    os.environ["NSK8S_STATE"] = "/run/nsk8s"
    with tempfile.TemporaryDirectory(prefix="nsk8s-bench-") as directory:
        yield Path(directory)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text, their columns flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows)


def keep(path: Path | None, results: object) -> None:
    """Write all figures to a file, if there shall be one, with what they were measured on."""
    if path is None:
        return
    machine = {"kernel": os.uname().release, "cpus": os.cpu_count(), "python": sys.version.split()[0]}
    path.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
