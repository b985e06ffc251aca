"""Where a cluster keeps its files on the host: everything under one directory, gone with `down`.

`/run/nsk8s/<cluster>/` (another root with NSK8S_STATE, for tests): the directory is readable by its owner
only. A reboot ends the cluster's processes, and /run goes with them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

NETNS_DIR = Path("/run/netns")
"""Where ip-netns(8) looks for names."""


def root() -> Path:
    """The directory that holds one directory for each cluster."""
    return Path(os.environ.get("NSK8S_STATE") or "/run/nsk8s")


class ClusterPaths(NamedTuple):
    """The files of one cluster."""

    cluster: str

    @property
    def directory(self) -> Path:
        """Everything else is inside it."""
        return root() / self.cluster

    @property
    def holder(self) -> Path:
        """Who holds the cluster: JSON of pid and start time; locked while `up` or `down` change it."""
        return self.directory / "holder.json"

    @property
    def socket(self) -> Path:
        """The control plane's unix socket."""
        return self.directory / "api.sock"

    @property
    def journal(self) -> Path:
        """The store's SQLite file."""
        return self.directory / "store.db"

    @property
    def daemon_log(self) -> Path:
        """What the control plane and the stand-in server had to say."""
        return self.directory / "daemon.log"

    @property
    def standins(self) -> Path:
        """The stand-in server's unix socket."""
        return self.directory / "standins.sock"

    @property
    def dns(self) -> Path:
        """The DNS server's unix socket."""
        return self.directory / "dns.sock"

    @property
    def pki(self) -> Path:
        """The CA, the API server's certificate and the key of service account tokens."""
        return self.directory / "pki"

    @property
    def port(self) -> Path:
        """The API's port on the host's loopback interface, as text."""
        return self.directory / "port"

    @property
    def kubeconfig(self) -> Path:
        """What kubectl needs to be this cluster's administrator."""
        return self.directory / "kubeconfig"

    @property
    def pause(self) -> Path:
        """The pause program."""
        return self.directory / "pause"

    @property
    def proc(self) -> Path:
        """Inside the holder's mount namespace only: the procfs of the cluster's PID namespace."""
        return self.directory / "proc"

    @property
    def volumes(self) -> Path:
        """What pods find mounted: their volumes, claims, and the nodes' disks."""
        return self.directory / "volumes"

    @property
    def logs(self) -> Path:
        """What containers wrote: a directory for each pod."""
        return self.directory / "logs"

    def log(self, pod_uid: str, container: str, attempt: int) -> Path:
        """What one run of a container wrote."""
        return Path(log_file(os.fspath(self.logs), pod_uid, container, attempt))


def log_file(logs: str, pod_uid: str, container: str, attempt: int) -> str:
    """As `ClusterPaths.log`, for many of them: a path takes 20 us to put together."""
    return f"{logs}/{pod_uid}/{container}.{attempt}.log"
