"""What a container of Kubernetes' test image agnhost runs: a verb of its program, which stands at /agnhost.

The verbs that answer with nothing but a text are served by the stand-in server, for network tests run dozens
of such pods; all others are real processes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from importlib.resources import files

from msgspec import Struct

from nsk8s.api.types import Container

PATH = "/agnhost"
PATTERN = "*/agnhost"
"""The image's name, without tag and digest."""


class Verb(Struct, frozen=True):
    """What runs: a stand-in's `behaviour` on `ports`, or (without one) the program with `words`."""

    words: tuple[str, ...]
    behaviour: str = ""
    ports: tuple[tuple[str, int], ...] = ()
    options: Mapping[str, str] | None = None


def is_agnhost(container: Container) -> bool:
    """Whether a container is of the image."""
    return "agnhost" in container.image and fnmatchcase(_name(container.image), PATTERN)


def _name(image: str) -> str:
    head, slash, tail = image.partition("@")[0].rpartition("/")
    return f"{head}{slash}{tail.partition(':')[0]}"


def program() -> str:
    """Where the program is on this machine."""
    return str(files("nsk8s.workloads") / "programs" / "agnhost")


def verb(container: Container) -> Verb | None:
    """What a container of the image runs; None if its command is another program."""
    words = tuple(container.args or ())
    if container.command:
        if container.command[0] not in (PATH, "agnhost"):
            return None
        words = (*container.command[1:], *words)
    name, rest = (words[0], words[1:]) if words else ("pause", ())
    if any("$(" in word or word in ("-h", "--help") for word in rest):
        return Verb(words)
    if name == "pause":
        return Verb(words, "pause")
    if name == "serve-hostname":
        return _serve_hostname(words, _flags(rest))
    if name == "porter" and not rest:
        return _porter(words, container)
    return Verb(words)


def _flags(words: Sequence[str]) -> dict[str, str]:
    line = " ".join(words)
    found = re.findall(r"(?:^| )--?([a-z]+)(?:[= ]([^- ]\S*))?", line)
    return {name: value or "true" for name, value in found}


def _serve_hostname(words: tuple[str, ...], flags: Mapping[str, str]) -> Verb:
    port = flags.get("port", "9376")
    tcp, udp = flags.get("tcp") == "true", flags.get("udp") == "true"
    http = flags.get("http", "true") == "true"
    if not port.isdecimal() or (http and (tcp or udp)):
        return Verb(words)  # it says itself what is wrong
    kinds = [kind for kind, wanted in (("TCP", tcp or http), ("UDP", udp)) if wanted]
    behaviour = "hostname" if http else "hostname-raw"
    return Verb(words, behaviour, tuple((kind, int(port)) for kind in kinds))


def _porter(words: tuple[str, ...], container: Container) -> Verb:
    options = {}
    for variable in container.env:
        found = re.fullmatch(r"SERVE_(TCP_|UDP_|)PORT_(\d+)", variable.name)
        if found is None:
            if variable.name.startswith("SERVE_TLS_"):
                return Verb(words)  # it says itself what it cannot do
            continue
        if variable.valueFrom is not None or "$(" in variable.value:
            return Verb(words)
        options[f"{'UDP' if found[1] == 'UDP_' else 'TCP'}/{found[2]}"] = variable.value
    ports = ((kind, int(port)) for kind, _, port in (key.partition("/") for key in options))
    return Verb(words, "porter", tuple(ports), options)
