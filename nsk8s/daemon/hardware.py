"""What the nodes say of the machine they stand on: status.nodeInfo and capacity, as a kubelet reads them from
its host."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from nsk8s import __version__

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
"""The kernel's word for a processor -> Go's, where it is another."""


@functools.cache
def system() -> Mapping[str, str]:
    """Fields of NodeSystemInfo that the host decides, and its capacity by resource name."""
    machine = os.uname()
    try:
        image = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        image = machine.sysname
    disk = os.statvfs("/")
    identity = _read("/etc/machine-id")
    return {
        "architecture": ARCHITECTURES.get(machine.machine, machine.machine),
        "bootID": _read("/proc/sys/kernel/random/boot_id"),
        "containerRuntimeVersion": f"nsk8s://{__version__}",
        "kernelVersion": machine.release,
        "machineID": identity,
        "osImage": image,
        "systemUUID": _read("/sys/class/dmi/id/product_uuid") or identity,
        "cpu": str(os.cpu_count() or 1),
        "ephemeral-storage": f"{disk.f_blocks * disk.f_frsize // 1024}Ki",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // 1024}Ki",
    }


def _read(file: str) -> str:
    try:
        return Path(file).read_text().strip()
    except OSError:
        return ""
