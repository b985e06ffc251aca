"""The volumes of pods, as directories of the host's.

Made when the first container needs them (a stand-in needs none), kept up to date while the pod lives, gone
with it. Files of ConfigMaps and the like change all at once: they lie in a directory of their own that the
symbolic link ``..data`` leads to, and the link is replaced (pkg/volume/util/atomic_writer.go).

A hostPath is a directory of the emulated node's own disk, which is empty in the beginning; a
PersistentVolumeClaim one that lives as long as the claim. Both go with the cluster.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from nsk8s.api.expansion import expanded
from nsk8s.api.types import Container, Pod, TokenProjection, Volume, VolumeMount
from nsk8s.cluster import volumes
from nsk8s.cluster.serviceaccounts import PREFIX
from nsk8s.cluster.store import Change, Store
from nsk8s.cluster.variables import Missing
from nsk8s.cluster.volumes import File
from nsk8s.kernel.mountpoints import Mount

DATA = "..data"

SCRATCH = ("/tmp", "/var/tmp")
"""Directories for files that are not kept."""

Source = tuple[str, str, str]
"""Resource, namespace and name of what files come from."""


class Volumes:
    """Of one cluster, in `directory`. `find` gives a pod by namespace and name or raises `ApiError`; `token`
    makes one for a pod."""

    def __init__(self, directory: Path, store: Store, token: Callable[[Pod, TokenProjection], str]) -> None:
        self._directory = directory
        self._store = store
        self._token = token
        self._pods: dict[str, Pod] = {}
        self._users: dict[Source, dict[str, None]] = {}

    def mounts(self, pod: Pod, container: Container, env: Mapping[str, str]) -> tuple[Mount, ...]:
        """What `container` mounts, with everything there. Raises Missing."""
        known = {volume.name: volume for volume in pod.spec.volumes}
        wanted = [(m, known[m.name]) for m in container.volumeMounts if m.name in known]
        wanted = [(mount, volume) for mount, volume in wanted if not _own(volume)]
        if not wanted:
            return ()
        self._follow(pod)
        return tuple(self._mount(pod, mount, volume, env) for mount, volume in wanted)

    def scratch(self, pod: Pod, container: Container, attempt: int) -> tuple[Mount, ...]:
        """Where the programs of one run of a container leave files for each other, though none of them has
        made its view of the files: those that somebody runs in a stand-in."""
        mounted = {os.path.normpath(os.path.join("/", mount.mountPath)) for mount in container.volumeMounts}
        base = self._directory / "pods" / pod.metadata.uid / f"{container.name}.{attempt}"
        found = []
        for path in SCRATCH:
            if path not in mounted:
                inner = path.strip("/").replace("/", "-")
                self._make(base / inner, 0o1777)
                found.append(Mount(path, os.fspath(base), inner, writable=True))
        return tuple(found)

    def refresh(self, changes: Iterable[Change]) -> None:
        """Files that come from what has changed."""
        for change in changes:
            meta, resource = change.new["metadata"], change.key.resource
            if resource == "pods" and meta["uid"] in self._pods:
                view = self._store.view(change.key)
                if change.type == "MODIFIED" and isinstance(view, Pod):
                    self._update(view)
            elif resource == "persistentvolumeclaims" and change.type == "DELETED":
                shutil.rmtree(self._directory / "claims" / meta["uid"], ignore_errors=True)
            elif resource in ("configmaps", "secrets") and change.type != "DELETED":
                for uid in self._users.get(change.key, ()):
                    with suppress(Missing):  # a key that is gone stays as it was
                        self._write(self._pods[uid])

    def adopt(self) -> None:
        """Take over what an earlier control plane has made."""
        with suppress(FileNotFoundError):
            there = set(os.listdir(self._directory / "pods"))
            for view in self._store.views("pods"):
                if isinstance(view, Pod) and view.metadata.uid in there:
                    there.discard(view.metadata.uid)
                    with suppress(Missing):
                        self._follow(view)
            self.remove(there)

    def remove(self, uids: Collection[str]) -> None:
        """These pods are gone."""
        for uid in uids:
            pod = self._pods.pop(uid, None)
            if pod is not None:
                for source in _sources(pod):
                    self._users.get(source, {}).pop(uid, None)
            if pod is not None or (self._directory / "pods" / uid).exists():
                shutil.rmtree(self._directory / "pods" / uid, ignore_errors=True)

    # --- inside ---------------------------------------------------------------------------------------

    def _follow(self, pod: Pod) -> None:
        if pod.metadata.uid in self._pods:
            return
        self._write(pod)
        self._pods[pod.metadata.uid] = pod
        for source in _sources(pod):
            self._users.setdefault(source, {})[pod.metadata.uid] = None

    def _update(self, pod: Pod) -> None:
        old, self._pods[pod.metadata.uid] = self._pods[pod.metadata.uid].metadata, pod
        if (old.labels, old.annotations) != (pod.metadata.labels, pod.metadata.annotations):
            with suppress(Missing):
                self._write(pod)

    def _write(self, pod: Pod) -> None:
        """All files of a pod's volumes. Raises Missing."""
        for volume in pod.spec.volumes:
            if not volumes.has_files(volume):
                continue
            directory = self._place(pod, volume)

            def token(asked: TokenProjection, pod: Pod = pod, directory: Path = directory) -> str:
                with suppress(OSError):
                    return (directory / DATA / asked.path).read_text()
                return self._token(pod, asked)

            write(directory, volumes.files(self._store, pod, volume, token))

    def _place(self, pod: Pod, volume: Volume) -> Path:
        """The directory of a volume, made if it is missing."""
        meta = pod.metadata
        directory = self._directory / "pods" / meta.uid / volume.name
        if volume.hostPath is not None:
            where = hashlib.sha256(volume.hostPath.path.rstrip("/").encode()).hexdigest()[:16]
            directory = self._directory / "nodes" / pod.spec.nodeName / where
        elif volume.persistentVolumeClaim is not None:
            name = volume.persistentVolumeClaim.claimName
            claim = self._store.get("persistentvolumeclaims", meta.namespace, name)
            uid = claim["metadata"]["uid"] if claim else name
            directory = self._directory / "claims" / uid
        self._make(directory, 0o777)  # as the kubelet makes an emptyDir
        return directory

    def _make(self, directory: Path, mode: int) -> None:
        """Have a directory; with that mode, if it is new."""
        if not directory.exists():
            self._directory.mkdir(mode=0o700, exist_ok=True)
            directory.mkdir(mode=0o755, parents=True)
            os.chmod(directory, mode)

    def _mount(self, pod: Pod, mount: VolumeMount, volume: Volume, env: Mapping[str, str]) -> Mount:
        base = self._place(pod, volume)
        inner = mount.subPath or expanded((mount.subPathExpr,), env)[0]
        path = os.path.normpath(os.path.join("/", mount.mountPath))
        if volumes.has_files(volume):  # ours, with symbolic links of our own
            inner = os.path.relpath(os.path.realpath(base / inner), os.path.realpath(base)) if inner else ""
            return Mount(path, os.fspath(base), inner)
        claim = volume.persistentVolumeClaim
        writable = not mount.readOnly and not (claim is not None and claim.readOnly)
        return Mount(path, os.fspath(base), inner, writable)


def _own(volume: Volume) -> bool:
    """Whether it is that of the pod's account, whose files are not on any disk."""
    return volume.name.startswith(PREFIX) and volume.projected is not None


def _sources(pod: Pod) -> Iterable[Source]:
    return ((resource, pod.metadata.namespace, name) for resource, name in volumes.sources(pod))


def write(directory: Path, files: Mapping[str, File]) -> None:
    """Make the files of a volume these, all at once."""
    data = directory / DATA
    if data.is_symlink() and _same(data, files):
        return
    old = os.readlink(data) if data.is_symlink() else ""
    new = directory / f"..{time.strftime('%Y_%m_%d_%H_%M_%S', time.gmtime())}.{time.monotonic_ns()}"
    new.mkdir(mode=0o755)
    for path, file in files.items():
        target = new / path
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        target.write_bytes(file.data)
        os.chmod(target, file.mode)
    link = directory / f"{DATA}_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(new.name)
    link.replace(data)
    visible = {path.split("/")[0] for path in files}
    for name in visible:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"{DATA}/{name}")
    for entry in directory.iterdir():
        if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in visible:
            entry.unlink()
    if old:
        shutil.rmtree(directory / old, ignore_errors=True)


def _same(data: Path, files: Mapping[str, File]) -> bool:
    there = {os.path.relpath(path, data): path for path in data.rglob("*") if not path.is_dir()}
    if there.keys() != files.keys():
        return False
    return all(
        path.read_bytes() == files[name].data and path.stat().st_mode & 0o7777 == files[name].mode
        for name, path in there.items()
    )
