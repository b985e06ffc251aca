"""Volumes, claims and classes (`pkg/apis/{core,storage}/validation`)."""

from __future__ import annotations

from typing import Any

from nsk8s.api import names
from nsk8s.api.findings import Findings
from nsk8s.api.rules.rule import AnyObject, Rule, frozen
from nsk8s.api.types import Obj, Struct

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
SOURCES = frozenset(
    (
        *("awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "fc", "flexVolume"),
        *("flocker", "gcePersistentDisk", "glusterfs", "hostPath", "iscsi", "local", "nfs"),
        *(
            "photonPersistentDisk",
            "portworxVolume",
            "quobyte",
            "rbd",
            "scaleIO",
            "storageos",
            "vsphereVolume",
        ),
    )
)
"""What a PersistentVolume can be on."""


class Resources(Struct, frozen=True):
    """What a claim asks for."""

    requests: dict[str, Any] = {}


class ClaimSpec(Struct, frozen=True):
    """A PersistentVolumeClaimSpec."""

    accessModes: tuple[str, ...] = ()
    resources: Resources = Resources()
    storageClassName: str | None = None
    volumeMode: str = "Filesystem"


class Claim(AnyObject, frozen=True):
    """A PersistentVolumeClaim."""

    spec: ClaimSpec = ClaimSpec()


def _claim(view: Claim, findings: Findings) -> None:
    spec = view.spec
    if not spec.accessModes:
        findings.required("spec.accessModes", "at least 1 access mode is required")
    _modes(spec.accessModes, findings)
    if "storage" not in spec.resources.requests:
        findings.required("spec.resources[storage]", hint="say how much: resources.requests.storage: 1Gi")
    _class(spec.storageClassName, findings)
    findings.one_of("spec.volumeMode", spec.volumeMode, ("Block", "Filesystem"))


def _modes(modes: tuple[str, ...], findings: Findings) -> None:
    for mode in modes:
        findings.one_of("spec.accessModes", mode, ACCESS_MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        why = "may not use ReadWriteOncePod with other access modes"
        findings.forbidden("spec.accessModes", why)


def _class(name: str | None, findings: Findings) -> None:
    if name:
        findings.name("spec.storageClassName", name, names.subdomain(name))


def _claim_update(old: Obj, new: Obj, findings: Findings) -> None:
    bound = (old.get("status") or {}).get("phase") == "Bound"

    def rest(obj: Obj) -> Obj:
        spec = dict(obj["spec"])
        if not old["spec"].get("volumeName"):
            spec.pop("volumeName", None)
        if old["spec"].get("storageClassName") is None:
            spec.pop("storageClassName", None)
        spec.pop("volumeAttributesClassName", None)
        if bound:
            resources = dict(spec.get("resources") or {})
            resources.pop("requests", None)
            spec["resources"] = resources
        return spec

    if rest(old) != rest(new):
        findings.forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for "
            "bound claims",
        )


class VolumeSpec(Struct, frozen=True):
    """A PersistentVolumeSpec."""

    capacity: dict[str, Any] = {}
    accessModes: tuple[str, ...] = ()
    persistentVolumeReclaimPolicy: str = "Retain"
    storageClassName: str | None = None
    volumeMode: str = "Filesystem"


class Volume(AnyObject, frozen=True):
    """A PersistentVolume."""

    spec: VolumeSpec = VolumeSpec()


def _volume(view: Volume, findings: Findings) -> None:
    spec = view.spec
    if not spec.accessModes:
        findings.required("spec.accessModes")
    _modes(spec.accessModes, findings)
    if not spec.capacity:
        findings.required("spec.capacity")
    elif list(spec.capacity) != ["storage"]:
        words = ", ".join(sorted(spec.capacity))
        findings.add("spec.capacity", f'Unsupported value: "{words}": supported values: "storage"')
    policies = ("Delete", "Recycle", "Retain")
    findings.one_of("spec.persistentVolumeReclaimPolicy", spec.persistentVolumeReclaimPolicy, policies)
    _class(spec.storageClassName, findings)
    findings.one_of("spec.volumeMode", spec.volumeMode, ("Block", "Filesystem"))


def _volume_update(old: Obj, new: Obj, findings: Findings) -> None:
    sources = [{k: v for k, v in o["spec"].items() if k in SOURCES} for o in (old, new)]
    if sources[0] != sources[1]:
        why = "spec.persistentvolumesource is immutable after creation"
        findings.forbidden("spec.persistentvolumesource", why)
    frozen(old, new, "spec.volumeMode", findings)


class StorageClass(AnyObject, frozen=True):
    """A StorageClass."""

    provisioner: str = ""
    reclaimPolicy: str = "Delete"
    volumeBindingMode: str = "Immediate"


def _storage_class(view: StorageClass, findings: Findings) -> None:
    if not view.provisioner:
        findings.required("provisioner")
    findings.one_of("reclaimPolicy", view.reclaimPolicy, ("Delete", "Retain"))
    findings.one_of("volumeBindingMode", view.volumeBindingMode, ("Immediate", "WaitForFirstConsumer"))


def _storage_class_update(old: Obj, new: Obj, findings: Findings) -> None:
    for field in ("parameters", "provisioner", "reclaimPolicy"):
        if (old.get(field) or None) != (new.get(field) or None):
            findings.forbidden(field, f"updates to {field} are forbidden.")
    frozen(old, new, "volumeBindingMode", findings)


RULES: dict[str, Rule] = {
    "PersistentVolumeClaim": Rule(Claim, _claim, update=_claim_update),
    "PersistentVolume": Rule(Volume, _volume, update=_volume_update),
    "StorageClass": Rule(StorageClass, _storage_class, update=_storage_class_update),
}
