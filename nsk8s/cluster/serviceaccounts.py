"""ServiceAccounts: one called ``default`` in every namespace, the CA beside it, and what a pod gets of its
account (upstream: serviceaccounts-controller, root-ca-certificate-publisher, the ServiceAccount admission
plugin)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nsk8s.api.types import ACCOUNT_DIRECTORY, Obj
from nsk8s.cluster.store import Change, Key, Store
from nsk8s.errors import ApiError

DEFAULT = "default"
ROOT_CA = "kube-root-ca.crt"
"""The ConfigMap with the certificate by which clients know the API server, in every namespace."""
PREFIX = "kube-api-access-"
EXPIRATION = 3607
"""Seconds a pod asks its token for (WarnOnlyBoundTokenExpirationSeconds)."""

_SOURCES: list[Obj] = [
    {"serviceAccountToken": {"expirationSeconds": EXPIRATION, "path": "token"}},
    {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": ROOT_CA}},
    {
        "downwardAPI": {
            "items": [
                {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}, "path": "namespace"}
            ]
        }
    },
]


class ServiceAccounts:
    """Makes what every namespace has, and makes it again. `root_ca` is a certificate (PEM); while it is empty
    there is none to be published."""

    informers = frozenset({"namespaces", "serviceaccounts", "configmaps"})

    def __init__(self, store: Store, root_ca: str = "") -> None:
        self._store = store
        self.root_ca = root_ca

    def touched(self, change: Change) -> Iterable[Key]:
        """A namespace, when it or what must be in it changes."""
        key = change.key
        if key.resource == "namespaces":
            yield key
        elif (key.resource, key.name) in (("serviceaccounts", DEFAULT), ("configmaps", ROOT_CA)):
            yield Key("namespaces", "", key.namespace)

    def sync(self, key: Key, now: float) -> float | None:
        """Make what a namespace lacks."""
        namespace = self._store.get(*key)
        if namespace is None or namespace["metadata"].get("deletionTimestamp"):
            return None
        if self._store.get("serviceaccounts", key.name, DEFAULT) is None:
            meta = {"name": DEFAULT, "namespace": key.name}
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}
            self._store.create("serviceaccounts", account)
        if self.root_ca:
            self._publish(key.name)
        return None

    def _publish(self, namespace: str) -> None:
        data = {"ca.crt": self.root_ca}
        old = self._store.get("configmaps", namespace, ROOT_CA)
        if old is None:
            meta = {"name": ROOT_CA, "namespace": namespace}
            self._store.create(
                "configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}
            )
        elif old.get("data") != data:
            self._store.update("configmaps", {**old, "data": data})


def admitted(store: Store, pod: Obj) -> Obj:
    """A pod, all defaults filled in, with its account's credentials mounted, and its imagePullSecrets.
    Raises `ApiError` 403 for an account that does not exist (``default`` will be made if it is missing)."""
    meta, spec = pod["metadata"], pod["spec"]
    name = spec["serviceAccountName"]
    account = store.get("serviceaccounts", meta["namespace"], name)
    if account is None and name != DEFAULT:
        shown = meta.get("name") or meta.get("generateName", "")
        raise ApiError(
            403,
            "Forbidden",
            f'pods "{shown}" is forbidden: error looking up service account {meta["namespace"]}/{name}: '
            f'serviceaccount "{name}" not found',
            kind="pods",
            name=shown,
        )
    new = dict(spec)
    secrets = (account or {}).get("imagePullSecrets")
    if secrets and not spec.get("imagePullSecrets"):
        new["imagePullSecrets"] = secrets
    if _mounts(spec, account or {}):
        _mount(store, new)
    return {**pod, "spec": new} if new != spec else pod


def _mounts(spec: Mapping[str, Any], account: Obj) -> bool:
    for given in (spec, account):
        wanted = given.get("automountServiceAccountToken")
        if wanted is not None:
            return bool(wanted)
    return True


def _mount(store: Store, spec: dict[str, Any]) -> None:
    """Mount the account's directory in every container that has nothing there."""
    volumes = spec.get("volumes") or []
    name = next((v["name"] for v in volumes if v["name"].startswith(PREFIX)), "")
    known = bool(name)
    name = name or PREFIX + store.suffix()
    mount = {"mountPath": ACCOUNT_DIRECTORY, "name": name, "readOnly": True}
    needed = False
    for field in ("initContainers", "containers"):
        containers = spec.get(field)
        if containers:
            spec[field] = [_with(container, mount) for container in containers]
            needed = needed or any(new is not old for new, old in zip(spec[field], containers, strict=True))
    if needed and not known:
        volume = {"name": name, "projected": {"defaultMode": 420, "sources": _SOURCES}}
        spec["volumes"] = [*volumes, volume]


def _with(container: Obj, mount: Obj) -> Obj:
    mounts = container.get("volumeMounts") or []
    if any(one.get("mountPath") == ACCOUNT_DIRECTORY for one in mounts):
        return container
    return {**container, "volumeMounts": [*mounts, mount]}
