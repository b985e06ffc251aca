"""What containers find in their environment and their volumes (`pkg/apis/core/validation`)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nsk8s.api import names
from nsk8s.api.findings import Findings, shown
from nsk8s.api.types import (
    Container,
    DownwardFile,
    EnvFromSource,
    EnvVar,
    EnvVarSource,
    KeyToPath,
    ObjectFieldSelector,
    PodSpec,
    ResourceFieldSelector,
    Volume,
    VolumeMount,
)

_is_env_name = re.compile(r"[\x20-\x3c\x3e-\x7e]+").fullmatch
ENV_NAME = "a valid environment variable name must consist only of printable ASCII characters other than '='"
FIELDS = ("metadata.name", "metadata.namespace", "metadata.uid")
ENV_FIELDS = (
    *FIELDS,
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
VOLUME_FIELDS = ("metadata.annotations", "metadata.labels", *FIELDS)
RESOURCES = tuple(
    f"{which}.{name}" for which in ("limits", "requests") for name in ("cpu", "ephemeral-storage", "memory")
)
MODE = "must be a number between 0 and 0777 (octal), both inclusive"
ONE_FIELD = "may not have more than one field specified at a time"
KINDS = ("configMap", "secret", "downwardAPI", "projected", "hostPath", "persistentVolumeClaim")


# --- the environment ----------------------------------------------------------------------------------


def variables(container: Container, path: str, findings: Findings) -> None:
    """`env` and `envFrom` of a container."""
    for i, variable in enumerate(container.env):
        _variable(variable, f"{path}.env[{i}]", findings)
    for i, source in enumerate(container.envFrom):
        _env_from(source, f"{path}.envFrom[{i}]", findings)


def _variable(variable: EnvVar, path: str, findings: Findings) -> None:
    if not variable.name:
        findings.required(f"{path}.name")
    elif not _is_env_name(variable.name):
        findings.invalid(f"{path}.name", variable.name, ENV_NAME)
    if variable.valueFrom is None:
        return
    if variable.value:
        findings.invalid(f"{path}.valueFrom", "", "may not be specified when `value` is not empty")
    _value_from(variable.valueFrom, f"{path}.valueFrom", findings)


def _value_from(source: EnvVarSource, path: str, findings: Findings) -> None:
    given = [
        one
        for one in (source.fieldRef, source.resourceFieldRef, source.configMapKeyRef, source.secretKeyRef)
        if one is not None
    ]
    if not given:
        why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        findings.invalid(path, "", why)
    elif len(given) > 1:
        findings.invalid(path, "", ONE_FIELD)
    if source.fieldRef is not None:
        _field(source.fieldRef, ENV_FIELDS, f"{path}.fieldRef", findings)
    if source.resourceFieldRef is not None:
        _resource(source.resourceFieldRef, f"{path}.resourceFieldRef", findings)
    for field, ref in (("configMapKeyRef", source.configMapKeyRef), ("secretKeyRef", source.secretKeyRef)):
        if ref is None:
            continue
        if not ref.name:
            findings.required(f"{path}.{field}.name")
        if not ref.key:
            findings.required(f"{path}.{field}.key")
        elif wrong := names.config_key(ref.key):
            findings.invalid(f"{path}.{field}.key", ref.key, wrong)


def _env_from(source: EnvFromSource, path: str, findings: Findings) -> None:
    if source.prefix and not _is_env_name(source.prefix):
        findings.invalid(f"{path}.prefix", source.prefix, ENV_NAME)
    refs = {"configMapRef": source.configMapRef, "secretRef": source.secretRef}
    given = {field: ref for field, ref in refs.items() if ref is not None}
    if not given:
        findings.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")
    elif len(given) > 1:
        findings.invalid(path, "", ONE_FIELD)
    for field, ref in given.items():
        if not ref.name:
            findings.required(f"{path}.{field}.name")


def _field(ref: ObjectFieldSelector, supported: Iterable[str], path: str, findings: Findings) -> None:
    name, bracket, key = ref.fieldPath.partition("['")
    if not ref.fieldPath:
        findings.required(f"{path}.fieldPath")
    elif bracket:
        wrong = names.label_key(key.removesuffix("']").lower())
        if name not in ("metadata.labels", "metadata.annotations"):
            findings.invalid(f"{path}.fieldPath", name, "does not support subscript")
        elif wrong:
            findings.invalid(f"{path}.fieldPath", key.removesuffix("']"), wrong)
    elif ref.fieldPath not in (*ENV_FIELDS, *VOLUME_FIELDS, "spec.host"):
        why = f"error converting fieldPath: field label not supported: {ref.fieldPath}"
        findings.invalid(f"{path}.fieldPath", ref.fieldPath, why)
    else:
        findings.one_of(f"{path}.fieldPath", ref.fieldPath, supported)


def _resource(ref: ResourceFieldSelector, path: str, findings: Findings) -> None:
    if not ref.resource:
        findings.required(f"{path}.resource")
    elif not ref.resource.partition(".")[2].startswith("hugepages-"):
        findings.one_of(f"{path}.resource", ref.resource, RESOURCES)


# --- volumes ------------------------------------------------------------------------------------------


def volumes(spec: PodSpec, path: str, findings: Findings) -> set[str]:
    """The volumes of a pod; returns their names."""
    taken: set[str] = set()
    for i, volume in enumerate(spec.volumes):
        at = f"{path}.volumes[{i}]"
        if not volume.name:
            findings.required(f"{at}.name")
        else:
            findings.name(f"{at}.name", volume.name, names.label(volume.name))
            if volume.name in taken:
                findings.duplicate(f"{at}.name", volume.name)
            taken.add(volume.name)
        given = [kind for kind in KINDS if getattr(volume, kind) is not None]
        for kind in given[1:]:
            findings.forbidden(f"{at}.{kind}", "may not specify more than 1 volume type")
        _source(volume, at, findings)
    return taken


def _source(volume: Volume, path: str, findings: Findings) -> None:
    if volume.configMap is not None:
        at = f"{path}.configMap"
        _named(volume.configMap.name, f"{at}.name", findings)
        _mode(volume.configMap.defaultMode, f"{at}.defaultMode", findings)
        _items(volume.configMap.items, at, findings)
    if volume.secret is not None:
        at = f"{path}.secret"
        _named(volume.secret.secretName, f"{at}.secretName", findings)
        _mode(volume.secret.defaultMode, f"{at}.defaultMode", findings)
        _items(volume.secret.items, at, findings)
    if volume.downwardAPI is not None:
        at = f"{path}.downwardAPI"
        _mode(volume.downwardAPI.defaultMode, f"{at}.defaultMode", findings)
        _downward(volume.downwardAPI.items, at, findings)
    if volume.projected is not None:
        at = f"{path}.projected"
        _mode(volume.projected.defaultMode, f"{at}.defaultMode", findings)
        for i, one in enumerate(volume.projected.sources):
            for kind, source in (("configMap", one.configMap), ("secret", one.secret)):
                if source is not None:
                    _named(source.name, f"{at}.sources[{i}].{kind}.name", findings)
                    _items(source.items, f"{at}.sources[{i}].{kind}", findings)
            if one.downwardAPI is not None:
                _downward(one.downwardAPI.items, f"{at}.sources[{i}].downwardAPI", findings)
            if one.serviceAccountToken is not None:
                where = f"{at}.sources[{i}].serviceAccountToken.path"
                _file(one.serviceAccountToken.path, where, findings)
    if volume.hostPath is not None:
        if not volume.hostPath.path:
            findings.required(f"{path}.hostPath.path")
        elif ".." in volume.hostPath.path.split("/"):
            findings.invalid(f"{path}.hostPath.path", volume.hostPath.path, "must not contain '..'")
    if volume.persistentVolumeClaim is not None:
        _named(volume.persistentVolumeClaim.claimName, f"{path}.persistentVolumeClaim.claimName", findings)


def _named(name: str, path: str, findings: Findings) -> None:
    if not name:
        findings.required(path)


def _mode(mode: int | None, path: str, findings: Findings) -> None:
    if mode is not None and not 0 <= mode <= 0o777:
        findings.invalid(path, mode, MODE, "write it as 0644, or in decimal")


def _items(items: Iterable[KeyToPath], path: str, findings: Findings) -> None:
    for i, item in enumerate(items):
        at = f"{path}.items[{i}]"
        if not item.key:
            findings.required(f"{at}.key")
        _file(item.path, f"{at}.path", findings)
        _mode(item.mode, f"{at}.mode", findings)


def _downward(items: Iterable[DownwardFile], path: str, findings: Findings) -> None:
    for i, item in enumerate(items):
        at = f"{path}.items[{i}]"
        _file(item.path, f"{at}.path", findings)
        _mode(item.mode, f"{at}.mode", findings)
        if item.fieldRef is not None:
            _field(item.fieldRef, VOLUME_FIELDS, f"{at}.fieldRef", findings)
            if item.resourceFieldRef is not None:
                findings.invalid(
                    at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"
                )
        elif item.resourceFieldRef is None:
            findings.required(at, "one of fieldRef and resourceFieldRef is required")
        elif not item.resourceFieldRef.containerName:
            findings.required(f"{at}.resourceFieldRef.containerName")
        else:
            _resource(item.resourceFieldRef, f"{at}.resourceFieldRef", findings)


def _file(file: str, path: str, findings: Findings) -> None:
    """The path of a file in a volume."""
    if not file:
        findings.required(path)
        return
    _descending(file, path, findings)
    if file.startswith("..") and not file.startswith("../"):
        findings.invalid(path, file, "must not start with '..'")


def _descending(file: str, path: str, findings: Findings) -> None:
    if file.startswith("/"):
        findings.invalid(path, file, "must be a relative path")
    if ".." in file.split("/"):
        findings.invalid(path, file, "must not contain '..'")


def mounts(container: Container, path: str, known: set[str], findings: Findings) -> None:
    """`volumeMounts` of a container; `known` are the pod's volumes."""
    taken: set[str] = set()
    for i, mount in enumerate(container.volumeMounts):
        _mount(mount, f"{path}.volumeMounts[{i}]", known, findings)
        if mount.mountPath and mount.mountPath in taken:
            findings.invalid(f"{path}.volumeMounts[{i}].mountPath", mount.mountPath, "must be unique")
        taken.add(mount.mountPath)


def _mount(mount: VolumeMount, path: str, known: set[str], findings: Findings) -> None:
    if not mount.name:
        findings.required(f"{path}.name")
    elif mount.name not in known:
        findings.add(f"{path}.name", f"Not found: {shown(mount.name)}", "add it to the pod's volumes")
    if not mount.mountPath:
        findings.required(f"{path}.mountPath")
    if mount.subPath and mount.subPathExpr:
        why = "subPathExpr and subPath are mutually exclusive"
        findings.invalid(f"{path}.subPathExpr", mount.subPathExpr, why)
    for field, value in (("subPath", mount.subPath), ("subPathExpr", mount.subPathExpr)):
        if value:
            _descending(value, f"{path}.{field}", findings)
