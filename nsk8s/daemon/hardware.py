"""What the nodes say of the machine they stand on: status.nodeInfo, as a kubelet reads it from its host."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Mapping

from nsk8s import __version__

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
"""The kernel's word for a processor -> Go's, where it is another."""


@functools.cache
def system() -> Mapping[str, str]:
    """Fields of NodeSystemInfo that the host decides."""
    machine = os.uname()
    try:
        image = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        image = machine.sysname
    return {
        "architecture": ARCHITECTURES.get(machine.machine, machine.machine),
        "containerRuntimeVersion": f"nsk8s://{__version__}",
        "kernelVersion": machine.release,
        "osImage": image,
    }
