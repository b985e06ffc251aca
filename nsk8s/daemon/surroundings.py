"""What a pod is told of its cluster: where DNS and the API are, and who it is there."""

from __future__ import annotations

from collections.abc import Mapping

from nsk8s.api.types import ACCOUNT_DIRECTORY, Container, Pod, Service
from nsk8s.apiserver.tokens import Tokens
from nsk8s.cluster.serviceaccounts import EXPIRATION
from nsk8s.cluster.store import Key, Store
from nsk8s.daemon.pki import Keys

LIFETIME = 365 * 24 * 3600
"""Seconds for which a pod's token is good: a year, though it is asked for an hour, as kube-apiserver
has it for clients that never read the file again (``--service-account-extend-token-expiration``)."""


class Surroundings:
    """Of the pods of one cluster."""

    def __init__(self, store: Store, keys: Keys, tokens: Tokens) -> None:
        self._store = store
        self._keys = keys
        self._tokens = tokens

    def dns(self) -> str:
        """The cluster's DNS address, if somebody has made that service; empty while there is none."""
        return self._address("kube-system", "kube-dns")

    def api(self) -> str:
        """The address of the Service ``kubernetes``."""
        return self._address("default", "kubernetes")

    def credentials(self, pod: Pod, container: Container | None) -> Mapping[str, str]:
        """The files of the pod's service account by path, with a new token, for a container that mounts
        them; without a container none."""
        if container is None or all(mount.mountPath != ACCOUNT_DIRECTORY for mount in container.volumeMounts):
            return {}
        namespace = pod.metadata.namespace
        account = self._store.get("serviceaccounts", namespace, pod.spec.serviceAccountName)
        stored = self._store.get("pods", namespace, pod.metadata.name)
        if account is None or stored is None:
            return {}
        token, _ = self._tokens.issue(account, (), LIFETIME, stored, warn_after=EXPIRATION)
        found = {
            "ca.crt": self._keys.authority().certificate.decode(),
            "namespace": namespace,
            "token": token,
        }
        return {f"{ACCOUNT_DIRECTORY}/{name}": text for name, text in found.items()}

    def _address(self, namespace: str, name: str) -> str:
        found = self._store.view(Key("services", namespace, name))
        return found.spec.clusterIP if isinstance(found, Service) else ""
