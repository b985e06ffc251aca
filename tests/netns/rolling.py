"""A load on a service, from inside a client's namespace: each request over a connection of its own.

Runs as a program: ADDRESS PORT COUNT THREADS SERVERS. Prints a line once so many servers have answered, and
at the end, as JSON, how many requests each server has answered, and what went wrong."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections import Counter

LONGEST = 400.0
"""Seconds after which it ends in any case."""
PORTS = range(1024, 65536)
"""Each request comes from a port of its own: one that came again could meet what connection tracking still
remembers of an earlier one."""
REQUEST = b"GET / HTTP/1.0\r\nHost: web\r\nConnection: close\r\n\r\n"


def main(address: str, port: int, count: int, threads: int, servers: int) -> None:
    """Ask, count, print."""
    answers: Counter[str] = Counter()
    failures: list[str] = []
    tickets = iter(PORTS[:count])
    lock = threading.Lock()
    waiting = True
    end = time.monotonic() + LONGEST

    def ask() -> None:
        nonlocal waiting
        while time.monotonic() < end:
            with lock:
                source = next(tickets, None)
            if source is None:
                return
            begun = time.monotonic()
            try:
                who = once(address, port, source)
            except (OSError, ValueError) as error:
                failures.append(f"{type(error).__name__} after {time.monotonic() - begun:.3f} s: {error}")
            else:
                with lock:
                    answers[who] += 1
                    if waiting and len(answers) == servers:
                        waiting = False
                        print("all have answered", flush=True)  # noqa: T201

    workers = [threading.Thread(target=ask) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(json.dumps({"answers": answers, "failures": failures}))  # noqa: T201  # it is a program


def once(address: str, port: int, source: int) -> str:
    """Who answered a GET. Raises `OSError`, and `ValueError` for an answer that is none."""
    with socket.create_connection((address, port), timeout=10, source_address=("", source)) as connection:
        connection.sendall(REQUEST)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0] + b" ":
        raise ValueError(f"no answer: {received[:80]!r}")
    return str(json.loads(body)["pod"])


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
