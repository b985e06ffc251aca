"""What stand-ins answer: request in, response out, nothing else.

Each behaviour is what the image's own server shows a client (nginx 1.27, Apache httpd 2.4, Tomcat 9,
jwilder/whoami and traefik/whoami by their sources), with the pod's name added to pages that have room for it.
This module is loaded by the stand-in server and imports next to nothing: a process for a thousand pods is
small only if it is small to begin with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from html import escape

from msgspec import Struct, field


class Site(Struct, frozen=True):
    """Who answers. `hostname` is the pod's host name, `ip` the pod's address, `secondary` that of the other
    family; `options` are what the
    container was told (see `images`)."""

    pod: str
    namespace: str
    node: str
    hostname: str
    ip: str
    container: str
    image: str
    options: Mapping[str, str] = field(default_factory=dict)
    secondary: str = ""

    @property
    def ips(self) -> tuple[str, ...]:
        """Both."""
        return (self.ip, self.secondary) if self.secondary else (self.ip,)


class Request(Struct, frozen=True):
    """An HTTP request and where it came from. `headers` in order, names in lower case."""

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    client: str
    client_port: int
    port: int
    body: str = ""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def header(self, name: str) -> str:
        """The first header of that name, or nothing."""
        return next((value for key, value in self.headers if key == name), "")


class Response(Struct, frozen=True):
    """Status, headers (without Content-Length, Date and Connection), body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Not Allowed",
    408: "Request Timeout",
    413: "Request Entity Too Large",
    414: "Request-URI Too Large",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
}

NGINX = "nginx/1.27.5"
HTTPD = "Apache/2.4.63 (Unix)"


def respond(behaviour: str, site: Site, request: Request) -> Response:
    """What `site` answers."""
    return BEHAVIOURS[behaviour](site, request)


def refuse(behaviour: str, status: int) -> Response:
    """The answer to what is no request."""
    if behaviour == "nginx":
        return _nginx_error(status)
    headers = (("Content-Type", "text/plain; charset=utf-8"),)
    return Response(status, headers, f"{status} {REASONS.get(status, '')}".encode())


def access_log(request: Request, response: Response, when: str) -> str:
    """The line a web server writes for a request, in the combined log format."""
    size = 0 if request.method == "HEAD" else len(response.body)
    referer, agent = request.header("referer") or "-", request.header("user-agent") or "-"
    line = f"{request.method} {request.target} HTTP/{request.version}"
    return f'{request.client} - - [{when}] "{line}" {response.status} {size} "{referer}" "{agent}"\n'


def greeting(behaviour: str, ports: list[tuple[str, int]]) -> str:
    """What the server writes to its log when it starts."""
    numbers = [port for _, port in ports]
    match behaviour:
        case "jwilder-whoami":
            return f"Listening on :{numbers[0]}\n"
        case "traefik-whoami":
            return f"Starting up on port {numbers[0]}\n"
        case "hostname" | "hostname-raw":
            return f"Serving on port {numbers[0]}.\n"
        case "dns":
            return ".:53\nstand-in for CoreDNS: answers for cluster.local\n"
        case "echo":
            return "".join(f"stand-in: listening on {port}/{kind}\n" for kind, port in ports)
        case _:
            return ""


def taken(behaviour: str, kind: str, port: int, reason: str) -> str:
    """What the server writes to its log when it cannot listen."""
    if behaviour == "nginx":
        return f"nginx: [emerg] bind() to 0.0.0.0:{port} failed ({reason})\n"
    if behaviour == "httpd":
        return f"({reason}) AH00072: make_sock: could not bind to address 0.0.0.0:{port}\n"
    return f"listen {kind.lower()} :{port}: bind: {reason.lower()}\n"


def _page(site: Site, title: str, text: str) -> bytes:
    where = f"pod {site.pod}, namespace {site.namespace}, node {site.node}, {site.ip}"
    return (
        f"<!DOCTYPE html>\n<html>\n<head>\n<title>{escape(title)}</title>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n<p>{escape(text)}</p>\n<p>{escape(where)}</p>\n</body>\n</html>\n"
    ).encode()


def _nginx_error(status: int) -> Response:
    title = f"{status} {REASONS.get(status, '')}".strip()
    page = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        f"<hr><center>{NGINX}</center>\r\n</body>\r\n</html>\r\n"
    )
    return Response(status, (("Server", NGINX), ("Content-Type", "text/html")), page.encode())


def _nginx(site: Site, request: Request) -> Response:
    if request.method not in ("GET", "HEAD"):
        return _nginx_error(405)
    if re.sub("/+", "/", request.path) not in ("/", "/index.html"):  # merge_slashes is on
        return _nginx_error(404)
    page = _page(site, "Welcome to nginx!", "This page is nsk8s's stand-in for the nginx web server.")
    return Response(200, (("Server", NGINX), ("Content-Type", "text/html")), page)


def _httpd(site: Site, request: Request) -> Response:
    found = request.path in ("/", "/index.html")
    title = "It works!" if found else "404 Not Found"
    text = "This page is nsk8s's stand-in for the Apache HTTP server." if found else "The URL was not found."
    headers = (("Server", HTTPD), ("Content-Type", "text/html"))
    return Response(200 if found else 404, headers, _page(site, title, text))


def _tomcat(site: Site, request: Request) -> Response:
    found = request.path in ("/", "/index.jsp")
    title = "Apache Tomcat/9.0.104" if found else "HTTP Status 404 – Not Found"  # noqa: RUF001 (Tomcat's dash)
    text = (
        "If you're seeing this, you've successfully installed Tomcat. (nsk8s's stand-in for it.)"
        if found
        else f"The requested resource [{request.path}] is not available"
    )
    headers = (("Content-Type", "text/html;charset=UTF-8"),)
    return Response(200 if found else 404, headers, _page(site, title, text))


def _jwilder(site: Site, request: Request) -> Response:
    return Response(200, (("Content-Type", "text/plain; charset=utf-8"),), f"I'm {site.hostname}\n".encode())


def _traefik(site: Site, request: Request) -> Response:
    client = f"[{request.client}]" if ":" in request.client else request.client
    remote = f"{client}:{request.client_port}"
    loopback = ["127.0.0.1", "::1"] if any(":" in ip for ip in site.ips) else ["127.0.0.1"]
    addresses = [*loopback, *site.ips]
    headers: dict[str, list[str]] = {}
    for name, value in request.headers:
        headers.setdefault(name.title(), []).append(value)
    if request.path == "/health":
        return Response(200, (), b"")
    if request.path == "/bench":
        return Response(200, (("Content-Type", "text/plain"), ("Connection", "keep-alive")), b"1")
    host = headers.pop("Host", [""])[0]
    if request.path == "/api":
        body = json.dumps(
            {
                "hostname": site.hostname,
                "ip": addresses,
                "headers": headers,
                "url": request.target,
                "host": host,
                "method": request.method,
                "remoteAddr": remote,
            },
            separators=(",", ":"),
        )
        return Response(200, (("Content-Type", "application/json"),), f"{body}\n".encode())
    # net/http's Request.Write: Host and User-Agent first, the others in alphabetical order, lines end in CRLF
    lines = [f"Hostname: {site.hostname}\n", *(f"IP: {address}\n" for address in addresses)]
    lines += [
        f"RemoteAddr: {remote}\n",
        f"{request.method} {request.target} HTTP/1.1\r\n",
        f"Host: {host}\r\n",
    ]
    lines += [f"User-Agent: {value}\r\n" for value in headers.pop("User-Agent", [])]
    lines += [f"{name}: {value}\r\n" for name in sorted(headers) for value in headers[name]]
    text = "".join([*lines, "\r\n"])
    return Response(200, (("Content-Type", "text/plain; charset=utf-8"),), text.encode())


def _echo(site: Site, request: Request) -> Response:
    seen = {
        "pod": site.pod,
        "namespace": site.namespace,
        "node": site.node,
        "ip": site.ip,
        "container": site.container,
        "image": site.image,
        "client": request.client,
        "clientPort": request.client_port,
        "port": request.port,
        "method": request.method,
        "path": request.target,
        "headers": dict(request.headers),
        "body": request.body,
    }
    body = json.dumps(seen, indent=2, ensure_ascii=False) + "\n"
    return Response(200, (("Content-Type", "application/json"),), body.encode())


def _text(text: str) -> Response:
    return Response(200, (("Content-Type", "text/plain; charset=utf-8"),), text.encode())


def _hostname(site: Site, request: Request) -> Response:
    """agnhost serve-hostname."""
    return _text(site.hostname)


def _porter(site: Site, request: Request) -> Response:
    """agnhost porter."""
    return _text(site.options.get(f"TCP/{request.port}", ""))


BEHAVIOURS: dict[str, Callable[[Site, Request], Response]] = {
    "nginx": _nginx,
    "httpd": _httpd,
    "tomcat": _tomcat,
    "jwilder-whoami": _jwilder,
    "traefik-whoami": _traefik,
    "echo": _echo,
    "hostname": _hostname,
    "porter": _porter,
}
"""By name, as the catalogue of images refers to them (`pause` serves nothing)."""
