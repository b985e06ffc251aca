"""Commands of public manifests that ask an application whether it is well (exec probes), or tell it to end
(preStop hooks), when the application is a stand-in and its programs are not on this machine.

They are answered by asking the stand-in: whether its port takes connections, or (grpc_health_probe) whether
its health service says that it is serving.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

PROGRAMS = (
    "redis-cli",
    "valkey-cli",
    "pg_isready",
    "psql",
    "mysqladmin",
    "mysql",
    "mariadb-admin",
    "mariadb",
    "mongosh",
    "mongo",
    "rabbitmq-diagnostics",
    "rabbitmqctl",
    "grpc_health_probe",
    "grpc-health-probe",
    "nginx",
    "httpd",
    "apachectl",
    "healthcheck.sh",
)
_program = re.compile(rf"(?:^|[\s/;&|])({'|'.join(map(re.escape, PROGRAMS))})(?=$|[\s;&|])")
_port = re.compile(r"(?:--?port[= ]?|-p ?|-?-addr[= ]\S*?:|--port=)(\d+)\b")


@dataclass(frozen=True, slots=True)
class Question:
    """What a command asks: `port` is 0 where it names none."""

    program: str
    port: int

    @property
    def grpc(self) -> bool:
        """Whether it is gRPC's health service that is asked."""
        return self.program.startswith("grpc")


def question(command: Sequence[str]) -> Question | None:
    """What a command asks an application; None if it is no such command."""
    line = " ".join(command)
    found = _program.search(line)
    if found is None:
        return None
    port = _port.search(line)
    return Question(found[1], int(port[1]) if port else 0)
