"""Volumes, claims, and who provides them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from nsk8s.api.types import Obj
from nsk8s.apiserver.printers.columns import (
    AGE,
    NAME,
    NONE,
    UNSET,
    Column,
    Printer,
    age_of,
    at,
    name_of,
    wide,
)

_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}
_CLASS = "volume.beta.kubernetes.io/storage-class"
_DEFAULT = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")


def _modes(found: Sequence[str] | None) -> str:
    given = found or ()
    return ",".join(short for mode, short in _MODES.items() if mode in given)


def _phase(obj: Obj) -> str:
    return "Terminating" if obj["metadata"].get("deletionTimestamp") else at(obj, "status", "phase") or ""


def _class(obj: Obj) -> str:
    return at(obj, "metadata", "annotations", _CLASS) or at(obj, "spec", "storageClassName") or ""


def _volume(obj: Obj, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    claim = spec.get("claimRef")
    return [
        name_of(obj),
        at(spec, "capacity", "storage") or "0",
        _modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        _phase(obj),
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        _class(obj),
        spec.get("volumeAttributesClassName") or UNSET,
        at(obj, "status", "reason") or "",
        age_of(obj, now),
        spec.get("volumeMode") or UNSET,
    ]


def _claim(obj: Obj, now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    volume = spec.get("volumeName") or ""
    return [
        name_of(obj),
        _phase(obj),
        volume,
        (at(status, "capacity", "storage") or "0") if volume else "",
        _modes(status.get("accessModes")) if volume else "",
        _class(obj),
        spec.get("volumeAttributesClassName") or UNSET,
        age_of(obj, now),
        spec.get("volumeMode") or UNSET,
    ]


def _storage_class(obj: Obj, now: datetime) -> list[Any]:
    annotations = obj["metadata"].get("annotations") or {}
    default = " (default)" if any(annotations.get(key) == "true" for key in _DEFAULT) else ""
    return [
        name_of(obj) + default,
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy") or "Delete",
        obj.get("volumeBindingMode") or "Immediate",
        bool(obj.get("allowVolumeExpansion")),
        age_of(obj, now),
    ]


def _attachment(obj: Obj, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    return [
        name_of(obj),
        spec.get("attacher", ""),
        at(spec, "source", "persistentVolumeName") or "",
        spec.get("nodeName", ""),
        bool(at(obj, "status", "attached")),
        age_of(obj, now),
    ]


def _csi_node(obj: Obj, now: datetime) -> list[Any]:
    return [name_of(obj), len(at(obj, "spec", "drivers") or ()), age_of(obj, now)]


def _csi_driver(obj: Obj, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    tokens = spec.get("tokenRequests")
    return [
        name_of(obj),
        bool(spec.get("attachRequired", True)),
        bool(spec.get("podInfoOnMount")),
        bool(spec.get("storageCapacity")),
        UNSET if tokens is None else ",".join(one.get("audience", "") for one in tokens),
        bool(spec.get("requiresRepublish")),
        ",".join(spec.get("volumeLifecycleModes") or ()) or NONE,
        age_of(obj, now),
    ]


def _capacity(obj: Obj, now: datetime) -> list[Any]:
    return [name_of(obj), obj.get("storageClassName", ""), obj.get("capacity") or UNSET]


PRINTERS: dict[str, Printer] = {
    "persistentvolumes": Printer(
        (
            NAME,
            Column("Capacity", description="How much it holds."),
            Column("Access Modes", description="How it can be mounted."),
            Column("Reclaim Policy", description="What becomes of it after its claim."),
            Column("Status", description="Whether it is claimed."),
            Column("Claim", description="The claim it is bound to."),
            Column("StorageClass", description="The class it belongs to."),
            Column("VolumeAttributesClass", description="The class of its attributes."),
            Column("Reason", description="Why it is in its state."),
            AGE,
            *wide(Column("VolumeMode", description="Filesystem or Block.")),
        ),
        _volume,
    ),
    "persistentvolumeclaims": Printer(
        (
            NAME,
            Column("Status", description="Whether it is bound to a volume."),
            Column("Volume", description="The volume it is bound to."),
            Column("Capacity", description="How much the volume holds."),
            Column("Access Modes", description="How the volume can be mounted."),
            Column("StorageClass", description="The class it asks for."),
            Column("VolumeAttributesClass", description="The class of the volume's attributes."),
            AGE,
            *wide(Column("VolumeMode", description="Filesystem or Block.")),
        ),
        _claim,
    ),
    "storageclasses.storage.k8s.io": Printer(
        (
            NAME,
            Column("Provisioner", description="What makes its volumes."),
            Column("ReclaimPolicy", description="What becomes of a volume after its claim."),
            Column("VolumeBindingMode", description="When volumes are made and bound."),
            Column("AllowVolumeExpansion", description="Whether its volumes can grow."),
            AGE,
        ),
        _storage_class,
    ),
    "volumeattachments.storage.k8s.io": Printer(
        (
            NAME,
            Column("Attacher", description="The driver that attaches it.", format="name"),
            Column("PV", description="The volume."),
            Column("Node", description="The node it is to be attached to."),
            Column("Attached", "boolean", "Whether it is attached."),
            AGE,
        ),
        _attachment,
    ),
    "csinodes.storage.k8s.io": Printer(
        (NAME, Column("Drivers", "integer", "How many drivers the node has."), AGE), _csi_node
    ),
    "csidrivers.storage.k8s.io": Printer(
        (
            NAME,
            Column("AttachRequired", "boolean", "Whether volumes are attached before they are mounted."),
            Column("PodInfoOnMount", "boolean", "Whether it is told for which pod it mounts."),
            Column("StorageCapacity", "boolean", "Whether it says how much is left."),
            Column("TokenRequests", description="The audiences of the tokens it gets."),
            Column("RequiresRepublish", "boolean", "Whether it is told again and again."),
            Column("Modes", description="Which volumes it makes: persistent, ephemeral."),
            AGE,
        ),
        _csi_driver,
    ),
    "csistoragecapacities.storage.k8s.io": Printer(
        (
            NAME,
            Column("StorageClassName", description="The class it is about."),
            Column("Capacity", description="How much is left."),
        ),
        _capacity,
    ),
}
