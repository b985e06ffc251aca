"""What is in a pod's volumes: the files of ConfigMaps, Secrets, the downward API, and those projected
together (pkg/volume/{configmap,secret,downwardapi,projected})."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from nsk8s.api.types import (
    ConfigMapSource,
    Container,
    DownwardSource,
    KeyToPath,
    Obj,
    Pod,
    SecretVolumeSource,
    TokenProjection,
    Volume,
)
from nsk8s.cluster.downward import field, resource
from nsk8s.cluster.serviceaccounts import PREFIX
from nsk8s.cluster.store import Store
from nsk8s.cluster.variables import Missing, found

MODE = 0o644
"""Of a file that nobody gave one."""
TOKEN_MODE = 0o600

Token = Callable[[TokenProjection], str]
"""Makes a token of the pod's service account."""


class File(Struct, frozen=True):
    """A file of a volume."""

    data: bytes
    mode: int


def has_files(volume: Volume) -> bool:
    """Whether a volume's files are ours to write; those of the volume of the pod's own account are not on any
    disk."""
    if volume.name.startswith(PREFIX) and volume.projected is not None:
        return False
    return any((volume.configMap, volume.secret, volume.downwardAPI, volume.projected))


def missing(store: Store, pod: Pod) -> Iterator[str]:
    """What the pod's volumes need and do not find, in the kubelet's words."""
    namespace = pod.metadata.namespace
    for volume in pod.spec.volumes:
        claim = volume.persistentVolumeClaim
        if claim is not None:
            if store.get("persistentvolumeclaims", namespace, claim.claimName) is None:
                yield (
                    f"Unable to attach or mount volumes: unmounted volumes=[{volume.name}], unattached "
                    f"volumes=[], failed to process volumes=[{volume.name}]: error processing PVC "
                    f"{namespace}/{claim.claimName}: failed to fetch PVC from API server: "
                    f'persistentvolumeclaims "{claim.claimName}" not found'
                )
        elif has_files(volume):
            try:
                files(store, pod, volume, lambda _: "")
            except Missing as error:
                yield f'MountVolume.SetUp failed for volume "{volume.name}" : {error}'


def sources(pod: Pod) -> Iterator[tuple[str, str]]:
    """The resources and names of the ConfigMaps and Secrets in a pod's volumes."""
    for volume in pod.spec.volumes:
        if volume.configMap is not None:
            yield "configmaps", volume.configMap.name
        if volume.secret is not None:
            yield "secrets", volume.secret.secretName
        for one in volume.projected.sources if volume.projected and has_files(volume) else ():
            if one.configMap is not None:
                yield "configmaps", one.configMap.name
            if one.secret is not None:
                yield "secrets", one.secret.name


def files(store: Store, pod: Pod, volume: Volume, token: Token) -> dict[str, File]:
    """A volume's files by path. Raises Missing."""
    if volume.configMap is not None:
        return _config(store, pod, volume.configMap, volume.configMap.defaultMode)
    if volume.secret is not None:
        return _secret(store, pod, volume.secret, volume.secret.defaultMode)
    if volume.downwardAPI is not None:
        return _downward(store, pod, volume.downwardAPI, volume.downwardAPI.defaultMode)
    made: dict[str, File] = {}
    for one in volume.projected.sources if volume.projected else ():
        mode = volume.projected.defaultMode if volume.projected else None
        if one.configMap is not None:
            made |= _config(store, pod, one.configMap, mode)
        if one.secret is not None:
            made |= _secret(store, pod, one.secret, mode)
        if one.downwardAPI is not None:
            made |= _downward(store, pod, one.downwardAPI, mode)
        if one.serviceAccountToken is not None:
            text = token(one.serviceAccountToken)
            made[one.serviceAccountToken.path] = File(text.encode(), TOKEN_MODE)
    return made


def _config(store: Store, pod: Pod, source: ConfigMapSource, mode: int | None) -> dict[str, File]:
    obj = found(store, "configmaps", pod.metadata.namespace, source.name)
    if obj is None and not source.optional:
        raise Missing(f'configmap "{source.name}" not found')
    data = {key: text.encode() for key, text in ((obj or {}).get("data") or {}).items()}
    data |= {key: b64decode(text) for key, text in ((obj or {}).get("binaryData") or {}).items()}
    absent = "configmap references non-existent config key: {}"
    return _chosen(data, source.items, mode, absent, optional=source.optional)


def _secret(
    store: Store, pod: Pod, source: SecretVolumeSource | ConfigMapSource, mode: int | None
) -> dict[str, File]:
    name = source.secretName if isinstance(source, SecretVolumeSource) else source.name
    obj: Obj | None = found(store, "secrets", pod.metadata.namespace, name)
    if obj is None and not source.optional:
        raise Missing(f'secret "{name}" not found')
    data = {key: b64decode(text) for key, text in ((obj or {}).get("data") or {}).items()}
    absent = "references non-existent secret key: {}"
    return _chosen(data, source.items, mode, absent, optional=source.optional)


def _chosen(
    data: dict[str, bytes], items: Iterable[KeyToPath], mode: int | None, absent: str, *, optional: bool
) -> dict[str, File]:
    usual = MODE if mode is None else mode
    chosen = tuple(items)
    if not chosen:
        return {key: File(content, usual) for key, content in data.items()}
    made = {}
    for item in chosen:
        if item.key in data:
            made[item.path] = File(data[item.key], usual if item.mode is None else item.mode)
        elif not optional:
            raise Missing(absent.format(item.key))
    return made


def _downward(store: Store, pod: Pod, source: DownwardSource, mode: int | None) -> dict[str, File]:
    made = {}
    for item in source.items:
        text = ""
        if item.fieldRef is not None:
            text = field(pod, item.fieldRef.fieldPath)
        elif item.resourceFieldRef is not None:
            text = resource(store, pod, Container(), item.resourceFieldRef)
        usual = MODE if mode is None else mode
        made[item.path] = File(text.encode(), usual if item.mode is None else item.mode)
    return made
