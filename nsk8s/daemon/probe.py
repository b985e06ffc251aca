"""Asks over the network whether somebody is well, as upstream's pkg/probe: TCP, HTTP, gRPC, in Go's words.

Each goes through a TCP socket that is given and stands in the namespace from which is to be asked (a socket
keeps the namespace it was made in); redirects are not followed.
"""

from __future__ import annotations

import asyncio
import socket

import h11

from nsk8s.api.types import HTTPGetAction
from nsk8s.errors import in_words


class Unanswered(Exception):
    """Nobody answered; the text is in Go's words, for it ends in events."""


async def http_status(
    opened: socket.socket, action: HTTPGetAction, ip: str, port: int, user_agent: str
) -> int:
    """The status that an HTTP server answers, asked through `opened`, a TCP socket. Raises Unanswered."""
    what = get_line(action, ip, port)
    try:
        await connect(opened, ip, port)
    except Unanswered as error:
        raise Unanswered(f"{what}: {error}") from error
    headers = {"host": f"{action.host or ip}:{port}", "user-agent": user_agent, "accept": "*/*"}
    headers |= {header.name.lower(): header.value for header in action.httpHeaders}
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(
        method="GET", target=action.path or "/", headers=[*headers.items(), ("connection", "close")]
    )
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(
        opened, (connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b"")
    )
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            raise Unanswered(f"{what}: malformed HTTP response: {error}") from error
        if event is h11.NEED_DATA:
            connection.receive_data(await loop.sock_recv(opened, 65536))
        elif isinstance(event, h11.Response):
            return event.status_code
        else:
            raise Unanswered(f"{what}: EOF")


async def grpc_health(opened: socket.socket, host: str, service: str) -> None:
    """Ask gRPC's health service over a connection. Raises Unanswered."""
    from nsk8s.workloads import grpc  # few clusters have such probes

    reader, writer = await asyncio.open_connection(sock=opened.dup())
    try:
        await grpc.check(reader, writer, host, service)
    except grpc.Unhealthy as error:
        raise Unanswered(str(error)) from error
    finally:
        writer.close()


async def connect(opened: socket.socket, ip: str, port: int) -> None:
    """Connect; from then on the socket does not block. Raises Unanswered."""
    opened.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(opened, (ip, port))
    except OSError as error:
        raise Unanswered(f"dial tcp {_host(ip)}:{port}: connect: {in_words(error)}") from error


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip


def get_line(action: HTTPGetAction, ip: str, port: int) -> str:
    """What an httpGet is called in messages."""
    return f'Get "http://{_host(ip)}:{port}{action.path}"'
