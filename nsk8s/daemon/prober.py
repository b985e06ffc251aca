"""Probes a container from its node, as the kubelet does: httpGet, tcpSocket, grpc and exec.

The socket is opened inside the node's namespace (a socket keeps the namespace it was made in), so the
packets leave from where a real kubelet's would. What counts as success is
upstream's pkg/probe: HTTP 200 to 399, a TCP connection, exit code 0, SERVING.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial

from nsk8s.api.types import ExecAction, GRPCAction, HTTPGetAction
from nsk8s.cluster.lifecycle import ProbeFinished, RunProbe
from nsk8s.daemon import probe
from nsk8s.daemon.commandrunner import CommandRunner
from nsk8s.errors import NsK8sError


async def run_probe(command: RunProbe, runner: CommandRunner) -> ProbeFinished:
    """Probe as the command says."""
    finished = partial(ProbeFinished, command.pod, command.container, command.kind)
    try:
        if not isinstance(command.action, ExecAction):
            return await probe_network(command, await runner.dial(command.view))
        spec = command.view.spec
        named = (c for c in (*spec.containers, *spec.initContainers) if c.name == command.container)
        words = command.action.command
        code, output = await runner.run(command.view, next(named), words, command.timeout)
        return finished(code == 0, output.decode(errors="replace"))
    except TimeoutError:
        return finished(False, f"command timed out after {command.timeout} s")
    except (OSError, NsK8sError) as error:
        return finished(False, str(error))


async def probe_network(command: RunProbe, opened: socket.socket) -> ProbeFinished:
    """Probe over the network through `opened`, a TCP socket of the node; closes it."""
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
            status = await probe.http_status(opened, action, command.ip, command.port, "kube-probe/1.33")
            if 200 <= status < 400:
                return True, ""
            return False, f"HTTP probe failed with statuscode: {status}"
        await probe.connect(opened, command.ip, command.port)
        if isinstance(action, GRPCAction):
            await probe.grpc_health(opened, f"{command.ip}:{command.port}", action.service or "")
    except probe.Unanswered as error:
        return False, str(error)
    return True, ""


def _what(command: RunProbe) -> str:
    action = command.action
    if isinstance(action, HTTPGetAction):
        return probe.get_line(action, command.ip, command.port)
    if isinstance(action, ExecAction):
        return f"command {list(action.command)}"
    return f"dial tcp {command.ip}:{command.port}"
