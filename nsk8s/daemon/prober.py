"""Probes a container from its node, as the kubelet does: httpGet, tcpSocket and exec.

The socket is opened inside the node's namespace (a socket keeps the namespace it was made in), so the
packets leave from where a real kubelet's would; redirects are not followed. What counts as success is
upstream's pkg/probe: HTTP 200 to 399, a TCP connection, exit code 0.
"""

from __future__ import annotations

import asyncio
import os
import socket

import h11

from nsk8s.api.types import ExecAction, HTTPGetAction
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
    loop = asyncio.get_running_loop()
    action = command.action
    try:
        await loop.sock_connect(opened, (command.ip, command.port))
    except OSError as error:  # in Go's words, for these end in events
        why = os.strerror(error.errno).lower() if error.errno else str(error)
        asked = f"{_what(command)}: " if isinstance(action, HTTPGetAction) else ""
        return False, f"{asked}dial tcp {command.ip}:{command.port}: connect: {why}"
    if not isinstance(action, HTTPGetAction):
        return True, ""
    headers = {
        "host": f"{action.host or command.ip}:{command.port}",
        "user-agent": "kube-probe/1.33",
        "accept": "*/*",
    }
    headers |= {header.name.lower(): header.value for header in action.httpHeaders}
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(
        method="GET", target=action.path or "/", headers=[*headers.items(), ("connection", "close")]
    )
    await loop.sock_sendall(
        opened, (connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b"")
    )
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            return False, f"{_what(command)}: malformed HTTP response: {error}"
        if event is h11.NEED_DATA:
            connection.receive_data(await loop.sock_recv(opened, 65536))
        elif isinstance(event, h11.Response):
            if 200 <= event.status_code < 400:
                return True, ""
            return False, f"HTTP probe failed with statuscode: {event.status_code}"
        else:
            return False, f"{_what(command)}: EOF"


def _what(command: RunProbe) -> str:
    action = command.action
    if isinstance(action, HTTPGetAction):
        return f'Get "http://{command.ip}:{command.port}{action.path}"'
    if isinstance(action, ExecAction):
        return f"command {list(action.command)}"
    return f"dial tcp {command.ip}:{command.port}"
