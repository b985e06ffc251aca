"""Commands of public manifests that ask an application whether it is well (exec probes), or tell it to end
(preStop hooks), when the application is a stand-in.

They are answered by asking the stand-in, for a program that is on this machine by chance would look for the
application on this machine: whether its port takes connections, or (grpc_health_probe) whether
its health service says that it is serving.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

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
_words = re.compile(r"[^\s;&|()<>\"']+").findall
_port = re.compile(r"(?:--?port[= ]?|-p ?|-?-addr[= ]\S*?:|--port=)(\d+)\b")


class Question(Struct, frozen=True):
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
    named = (word.rpartition("/")[2] for word in _words(line) if "://" not in word)
    program = next((name for name in named if name in PROGRAMS), "")
    port = _port.search(line)
    return Question(program, int(port[1]) if port else 0) if program else None
