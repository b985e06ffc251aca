"""Volumes, claims and their classes (`pkg/apis/{core,storage}/v1/defaults.go`)."""

from __future__ import annotations

from nsk8s.api.defaults.fill import Fill, beneath, defaults_of, filled, within
from nsk8s.api.types import Obj

_PENDING = {"status": {"phase": "Pending"}}


def _volume(obj: Obj) -> Obj:
    keep = {"persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"}
    new = within(obj, "spec", defaults_of(keep))
    return filled(beneath(new, ("spec", "hostPath"), defaults_of({"type": ""})), _PENDING)


def _claim(obj: Obj) -> Obj:
    return filled(within(obj, "spec", defaults_of({"volumeMode": "Filesystem"})), _PENDING)


_DRIVER = {
    "attachRequired": True,
    "podInfoOnMount": False,
    "storageCapacity": False,
    "fsGroupPolicy": "ReadWriteOnceWithFSType",
    "volumeLifecycleModes": ["Persistent"],
    "requiresRepublish": False,
    "seLinuxMount": False,
}

KINDS: dict[str, Fill] = {
    "PersistentVolume": _volume,
    "PersistentVolumeClaim": _claim,
    "StorageClass": defaults_of({"reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"}),
    "CSIDriver": lambda obj: within(obj, "spec", defaults_of(_DRIVER)),
}
