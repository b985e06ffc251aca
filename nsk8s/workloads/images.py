"""What an image runs, when there are no images: the catalogue, and a container's command.

A `command` runs as a real process on the host's own files. An image that is known gets a stand-in that
behaves as its default process does towards the network; any other image one that answers on the
container's ports. The user's own entries (`spec.images` of the Cluster document) win.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

from msgspec import Struct, field

from nsk8s.api.types import Container
from nsk8s.workloads import agnhosts
from nsk8s.workloads.commands import question

Protocol = Literal["TCP", "UDP"]
Overrides = Mapping[str, Mapping[str, Any]]
"""`spec.images` of the Cluster document: pattern of image names -> ``{command: [...], args: [...]}``."""


class Image(Struct, frozen=True):
    """An image of the catalogue. `behaviour` names what its stand-in answers (see `behaviours` and
    `protocols`), on `port`; `shell` is the command of an image that brings a shell and nothing else. An
    `application` has programs of its own, and takes all kinds of arguments."""

    behaviour: str = ""
    port: int = 0
    shell: tuple[str, ...] = ()
    does: str = ""
    application: bool = False


REDIS = Image("redis", 6379, does="PING, ECHO and INFO on 6379, stores nothing", application=True)
POSTGRES = Image("postgres", 5432, does="refuses logins on 5432, stores nothing", application=True)
MYSQL = Image("mysql", 3306, does="refuses logins on 3306, stores nothing", application=True)
MONGO = Image("silent", 27017, does="accepts connections on 27017, says nothing", application=True)
RABBITMQ = Image("amqp", 5672, does="accepts connections on 5672, passes no messages", application=True)
MEMCACHED = Image("memcached", 11211, does="version and stats on 11211, stores nothing", application=True)

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
    "coredns/coredns": Image("dns", 53, does="names of the cluster on 53"),
    "*/coredns": Image("dns", 53, does="names of the cluster on 53"),
    "*/pause": Image("pause", does="nothing, for ever"),
    "*/pause-amd64": Image("pause", does="nothing, for ever"),
    "redis": REDIS,
    "*/redis": REDIS,
    "valkey": REDIS,
    "*/valkey": REDIS,
    "postgres": POSTGRES,
    "*/postgresql": POSTGRES,
    "*/postgres": POSTGRES,
    "mysql": MYSQL,
    "*/mysql": MYSQL,
    "mariadb": MYSQL,
    "*/mariadb": MYSQL,
    "mongo": MONGO,
    "*/mongodb": MONGO,
    "*/mongodb-community-server": MONGO,
    "rabbitmq": RABBITMQ,
    "*/rabbitmq": RABBITMQ,
    "memcached": MEMCACHED,
    "*/memcached": MEMCACHED,
}
"""Image name without registry, tag and digest (a shell pattern) -> what it runs."""


DNS_PORTS: tuple[tuple[Protocol, int], ...] = (
    ("UDP", 53),
    ("TCP", 53),
    ("TCP", 8080),
    ("TCP", 8181),
    ("TCP", 9153),
)
"""CoreDNS's: DNS, and with kubeadm's configuration health, readiness and metrics."""


class Workload(Struct, frozen=True):
    """What a container runs: a real `command`, or a stand-in's `behaviour` on `ports`, with `options`: for a
    port that behaves otherwise ``behaviour/PORT``, and agnhost's. `says` tells which, for people."""

    says: str
    command: tuple[str, ...] = ()
    behaviour: str = ""
    ports: tuple[tuple[Protocol, int], ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def real(self) -> bool:
        """Whether it is a real process."""
        return bool(self.command)


def resolve(
    container: Container, overrides: Overrides, installed: Callable[[str], bool] = lambda _: True
) -> Workload:
    """What `container` runs. `installed` says whether a program is on this machine: an image's own programs
    are not, and then it has a stand-in even where the container says how to start them.

    `command` and `args` as Kubernetes has them: `command` replaces the image's entrypoint, `args` its
    default arguments.
    """
    args = container.args
    image = _known(container.image)
    if agnhosts.is_agnhost(container) and (found := agnhosts.verb(container)):
        return _agnhost(found)
    if container.command:
        has_own = image is None or image.application
        if not has_own or container.command[0].startswith("$(") or installed(container.command[0]):
            return _process((*container.command, *(args or ())), "command")
    own = _override(container.image, overrides)
    if own is not None:
        command = tuple(own.get("command") or ())
        default = tuple(own.get("args") or ())
        return _process((*command, *(default if args is None else args)), "images of the Cluster document")
    if image is None:
        return _unknown(container)
    if image.application:
        return _application(container, image)
    if image.shell:
        return _process(tuple(args or image.shell), f"image {container.image}")
    if image.behaviour in ("nginx", "httpd", "tomcat") and args:  # their entrypoints run what they are given
        return _process(tuple(args), "args")
    if image.behaviour == "pause":
        return Workload(f"stand-in: {image.does}", behaviour="pause")
    if image.behaviour == "dns":
        return Workload(f"stand-in: {image.does}", behaviour="dns", ports=DNS_PORTS)
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


def _agnhost(verb: agnhosts.Verb) -> Workload:
    words = " ".join(verb.words) or "pause"
    if not verb.behaviour:
        return Workload(f"real process: nsk8s's own agnhost {words}", command=(agnhosts.PATH, *verb.words))
    ports: tuple[tuple[Protocol, int], ...] = tuple(
        ("UDP" if kind == "UDP" else "TCP", port) for kind, port in verb.ports
    )
    return Workload(f"stand-in: agnhost {words}", (), verb.behaviour, ports, verb.options or {})


def _application(container: Container, image: Image) -> Workload:
    """Behaves as the image does on its port, or on the first that is declared; on others it answers HTTP."""
    ports = _ports(container)
    declared = [port for kind, port in ports if kind == "TCP"]
    main = image.port if image.port in declared or not declared else declared[0]
    ports["TCP", main] = None
    others = {f"behaviour/{port}": "echo" for kind, port in ports if kind == "TCP" and port != main}
    does = image.does.replace(f"on {image.port}", f"on {main}")
    says = f"stand-in: {does}"
    return Workload(says, behaviour=image.behaviour, ports=tuple(ports), options=others)


def _unknown(container: Container) -> Workload:
    """Answers on every declared port, and where probes ask: it has to be ready some time."""
    ports = _ports(container)
    served = ", ".join(
        f"{'HTTP and gRPC health' if kind == 'TCP' else 'UDP echo'} on {port}" for kind, port in ports
    )
    unknown = f"stand-in for the unknown image {container.image}"
    return Workload(
        f"{unknown}: {served or 'no ports, nothing to serve'}", behaviour="echo", ports=tuple(ports)
    )


def _ports(container: Container) -> dict[tuple[Protocol, int], None]:
    """The ports that a container declares, and those where its probes ask."""
    ports: dict[tuple[Protocol, int], None] = {}
    for declared in container.ports:
        if declared.protocol in ("TCP", "UDP"):
            ports["UDP" if declared.protocol == "UDP" else "TCP", declared.containerPort] = None
    for probe in (container.startupProbe, container.livenessProbe, container.readinessProbe):
        action = probe and (probe.httpGet or probe.tcpSocket or probe.grpc)
        if action and isinstance(action.port, int) and action.port:
            ports["TCP", action.port] = None
        asked = question(probe.exec.command) if probe and probe.exec else None
        if asked is not None and asked.port:
            ports["TCP", asked.port] = None
    return ports
