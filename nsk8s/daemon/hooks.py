"""Runs the lifecycle hooks of containers, as the kubelet does (pkg/kubelet/lifecycle/handlers.go).

A command succeeds with exit code 0, an httpGet with any answer at all, a sleep always. A container that
ends meanwhile takes its hook with it.
"""

from __future__ import annotations

import asyncio
import logging

from nsk8s.api.types import Container, LifecycleHandler, Pod
from nsk8s.cluster.probes import port_of
from nsk8s.daemon.commandrunner import CommandRunner
from nsk8s.daemon.probe import Unanswered, http_status
from nsk8s.errors import NsK8sError

log = logging.getLogger("nsk8s")

MINIMUM_GRACE = 2
"""Seconds that a container has after its preStop hook, however long that took (kuberuntime_container.go,
minimumGracePeriodInSeconds)."""


async def perform(
    handler: LifecycleHandler,
    pod: Pod,
    container: Container,
    runner: CommandRunner,
    within: float | None,
) -> bool:
    """Run a hook of a container; whether it succeeded. After `within` seconds it has failed."""
    try:
        async with asyncio.timeout(within):
            return await _perform(handler, pod, container, runner)
    except TimeoutError:
        why = f"not over within {within:.0f} s"
    except (OSError, NsK8sError, Unanswered) as error:
        why = str(error)
    log.warning("pod %s/%s, container %s: hook: %s", *_name(pod), container.name, why)
    return False


async def _perform(handler: LifecycleHandler, pod: Pod, container: Container, runner: CommandRunner) -> bool:
    if handler.exec is not None:
        code, output = await runner.run(pod, container, handler.exec.command, None)
        if code:
            raise Unanswered(f"exit code {code}: {output.decode(errors='replace').strip()}")
        return True
    if handler.httpGet is not None:
        action = handler.httpGet
        port = port_of(container, action.port)
        if port is None:
            return False
        with await runner.dial(pod) as opened:
            await http_status(opened, action, action.host or pod.status.podIP, port, "kube-lifecycle/1.33")
        return True
    if handler.sleep is not None:
        await asyncio.sleep(handler.sleep.seconds)  # what it asks for
        return True
    return False


def _name(pod: Pod) -> tuple[str, str]:
    return pod.metadata.namespace, pod.metadata.name
