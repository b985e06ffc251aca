"""Probes a container from its node, as the kubelet does: httpGet, tcpSocket, grpc and exec.

The socket is opened inside the node's namespace (a socket keeps the namespace it was made in), so the
packets leave from where a real kubelet's would; redirects are not followed. What counts as success is
upstream's pkg/probe: HTTP 200 to 399, a TCP connection, exit code 0, SERVING.
"""

from __future__ import annotations

import asyncio
import os
import socket

import h11

from nsk8s.api.types import ExecAction, GRPCAction, HTTPGetAction
from nsk8s.cluster.lifecycle import ProbeFinished, RunProbe


async def probe_network(command: RunProbe, opened: socket.socket) -> ProbeFinished:
    """Probe over the network through `opened`, a TCP socket of the node; closes it."""
    opened.setblocking(False)
    try:
        async with asyncio.timeout(command.timeout):
            ok, output = await _attempt(command, opened)
    except TimeoutError:
        ok, output = False, f"{_what(command)}: context deadline exceeded"
    except OSError as error:
        ok, output = False, f"{_what(command)}: {error.strerror or error}"
    finally:
        opened.close()
    return ProbeFinished(command.pod, command.container, command.kind, ok, output)


async def _attempt(command: RunProbe, opened: socket.socket) -> tuple[bool, str]:
    action = command.action
    try:
        if isinstance(action, HTTPGetAction):
            status = await http_status(opened, action, command.ip, command.port, "kube-probe/1.33")
            if 200 <= status < 400:
                return True, ""
            return False, f"HTTP probe failed with statuscode: {status}"
        await connect(opened, command.ip, command.port)
        if isinstance(action, GRPCAction):
            await grpc_health(opened, f"{command.ip}:{command.port}", action.service or "")
    except Unanswered as error:
        return False, str(error)
    return True, ""


class Unanswered(Exception):
    """Nobody answered; the text is in Go's words, for it ends in events."""


async def http_status(
    opened: socket.socket, action: HTTPGetAction, ip: str, port: int, user_agent: str
) -> int:
    """The status that an HTTP server answers, asked through `opened`, a TCP socket. Raises Unanswered."""
    what = _get(action, ip, port)
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
    """Connect. Raises Unanswered."""
    try:
        await asyncio.get_running_loop().sock_connect(opened, (ip, port))
    except OSError as error:
        why = os.strerror(error.errno).lower() if error.errno else str(error)
        raise Unanswered(f"dial tcp {_host(ip)}:{port}: connect: {why}") from error


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip


def _get(action: HTTPGetAction, ip: str, port: int) -> str:
    return f'Get "http://{_host(ip)}:{port}{action.path}"'


def _what(command: RunProbe) -> str:
    action = command.action
    if isinstance(action, HTTPGetAction):
        return _get(action, command.ip, command.port)
    if isinstance(action, ExecAction):
        return f"command {list(action.command)}"
    return f"dial tcp {command.ip}:{command.port}"
