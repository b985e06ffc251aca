"""Requests without a pause from a namespace, counted: what a user behind a service notices."""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType
from typing import Any

from tests.lab import Lab

LOOP = """
import collections, json, select, socket, sys
ip, port = sys.argv[1], int(sys.argv[2])
answered, failures = collections.Counter(), []
print("begun", flush=True)
while not select.select([sys.stdin], [], [], 0.005)[0]:
    try:
        with socket.create_connection((ip, port), timeout=2) as connection:
            connection.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            answer = b""
            while more := connection.recv(65536):
                answer += more
        answered[json.loads(answer.partition(b"\\r\\n\\r\\n")[2])["pod"]] += 1
    except (OSError, ValueError) as error:
        failures.append(repr(error))
print(json.dumps({"answered": answered, "failures": failures}))
"""


class Traffic:
    """One connection after the other from `namespace` to a stand-in behind ``ip:port``, while the block
    runs; afterwards `answered` has the number of answers by pod, and `failures` what went wrong."""

    def __init__(self, lab: Lab, namespace: str, ip: str, port: int) -> None:
        self._argv = [
            *("nsenter", f"--net={lab.netns(namespace)}", sys.executable, "-c", LOOP, ip, str(port))
        ]
        self.answered: dict[str, int] = {}
        self.failures: list[str] = []

    def __enter__(self) -> Traffic:
        self._process = subprocess.Popen(self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "begun\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        said, _ = self._process.communicate(timeout=30)  # closes its standard input, which ends it
        found: dict[str, Any] = json.loads(said)
        self.answered, self.failures = found["answered"], found["failures"]
