"""What an image runs, when there are no images: the catalogue, and a container's command.

A `command` runs as a real process on the host's own files. An image that is known gets a stand-in that
behaves as its default process does towards the network; any other image one that answers on the
container's ports. The user's own entries (`spec.images` of the Cluster document) win.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from nsk8s.api.types import Container

Protocol = Literal["TCP", "UDP"]
Overrides = Mapping[str, Mapping[str, Any]]
"""`spec.images` of the Cluster document: pattern of image names -> ``{command: [...], args: [...]}``."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image of the catalogue. `behaviour` names what its stand-in answers (see `behaviours`), on
    `port`; `shell` is the command of an image that brings a shell and nothing else."""

    behaviour: str = ""
    port: int = 0
    shell: tuple[str, ...] = ()
    does: str = ""


CATALOGUE: dict[str, Image] = {
    "nginx": Image("nginx", 80, does="a web server's welcome page on 80"),
    "nginxinc/nginx-unprivileged": Image("nginx", 8080, does="a web server's welcome page on 8080"),
    "httpd": Image("httpd", 80, does="a web server's welcome page on 80"),
    "tomcat": Image("tomcat", 8080, does="Tomcat's welcome page on 8080"),
    "jwilder/whoami": Image("jwilder-whoami", 8000, does="its host name on 8000"),
    "traefik/whoami": Image("traefik-whoami", 80, does="the request it got, on 80"),
    "containous/whoami": Image("traefik-whoami", 80, does="the request it got, on 80"),
    "busybox": Image(shell=("sh",)),
    "alpine": Image(shell=("sh",)),
    "debian": Image(shell=("bash",)),
    "ubuntu": Image(shell=("bash",)),
    "pause": Image("pause", does="nothing, for ever"),
    "*/pause": Image("pause", does="nothing, for ever"),
    "*/pause-amd64": Image("pause", does="nothing, for ever"),
}
"""Image name without registry, tag and digest (a shell pattern) -> what it runs."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What a container runs: a real `command`, or a stand-in's `behaviour` on `ports`. `says` tells which,
    for people."""

    says: str
    command: tuple[str, ...] = ()
    behaviour: str = ""
    ports: tuple[tuple[Protocol, int], ...] = ()

    @property
    def real(self) -> bool:
        """Whether it is a real process."""
        return bool(self.command)


def resolve(container: Container, overrides: Overrides) -> Workload:
    """What `container` runs.

    `command` and `args` as Kubernetes has them: `command` replaces the image's entrypoint, `args` its
    default arguments.
    """
    args = container.args
    if container.command:
        return _process((*container.command, *(args or ())), "command")
    own = _override(container.image, overrides)
    if own is not None:
        command = tuple(own.get("command") or ())
        default = tuple(own.get("args") or ())
        return _process((*command, *(default if args is None else args)), "images of the Cluster document")
    image = _known(container.image)
    if image is None:
        return _unknown(container)
    if image.shell:
        return _process(tuple(args or image.shell), f"image {container.image}")
    if image.behaviour in ("nginx", "httpd", "tomcat") and args:  # their entrypoints run what they are given
        return _process(tuple(args), "args")
    if image.behaviour == "pause":
        return Workload(f"stand-in: {image.does}", behaviour="pause")
    port = _port(container, image)
    does = image.does.replace(f"on {image.port}", f"on {port}")
    return Workload(f"stand-in: {does}", behaviour=image.behaviour, ports=(("TCP", port),))


def normalise(image: str) -> str:
    """An image's name without registry docker.io, ``library/``, tag and digest: the catalogue's key."""
    name = image.partition("@")[0]
    head, slash, tail = name.rpartition("/")
    name = f"{head}{slash}{tail.partition(':')[0]}"
    first, slash, rest = name.partition("/")
    if slash and first in ("docker.io", "index.docker.io", "registry-1.docker.io"):
        name = rest
    return name.rpartition("library/")[2] if re.search(r"(^|/)library/[^/]+$", name) else name


def _process(command: tuple[str, ...], origin: str) -> Workload:
    shown = " ".join(command[:1])
    return Workload(f"real process: {shown} ({origin}), on the host's files, read-only", command=command)


def _override(image: str, overrides: Overrides) -> Mapping[str, Any] | None:
    name = normalise(image)
    for pattern, what in overrides.items():
        if (fnmatchcase(name, pattern) or fnmatchcase(image, pattern)) and what.get("command"):
            return what
    return None


def _known(image: str) -> Image | None:
    name = normalise(image)
    exact = CATALOGUE.get(name)
    if exact is not None:
        return exact
    return next((what for pattern, what in CATALOGUE.items() if fnmatchcase(name, pattern)), None)


def _port(container: Container, image: Image) -> int:
    """Where a known image listens: both whoami can be told another port."""
    env = {variable.name: variable.value for variable in container.env}
    told = ""
    if image.behaviour == "jwilder-whoami":
        told = env.get("PORT", "")
    elif image.behaviour == "traefik-whoami":
        line = " ".join(container.args or ())
        flag = re.search(r"(?:^| )--?port[= ](\d+)", line)
        told = flag[1] if flag else env.get("WHOAMI_PORT_NUMBER", "")
    return int(told) if told.isdecimal() and 0 < int(told) < 65536 else image.port


def _unknown(container: Container) -> Workload:
    """Answers on every declared port, and where probes ask: it has to be ready some time."""
    ports: dict[tuple[Protocol, int], None] = {}
    for declared in container.ports:
        if declared.protocol in ("TCP", "UDP"):
            ports["UDP" if declared.protocol == "UDP" else "TCP", declared.containerPort] = None
    for probe in (container.startupProbe, container.livenessProbe, container.readinessProbe):
        action = probe and (probe.httpGet or probe.tcpSocket)
        if action and isinstance(action.port, int) and action.port:
            ports["TCP", action.port] = None
    served = ", ".join(f"{'HTTP' if kind == 'TCP' else 'UDP echo'} on {port}" for kind, port in ports)
    unknown = f"stand-in for the unknown image {container.image}"
    return Workload(
        f"{unknown}: {served or 'no ports, nothing to serve'}", behaviour="echo", ports=tuple(ports)
    )
