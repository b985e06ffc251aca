"""What a pod is told of its cluster: where DNS and the API are, and who it is there."""

from __future__ import annotations

from collections.abc import Mapping

from nsk8s.api.types import ACCOUNT_DIRECTORY, Container, Pod, Service, TokenProjection
from nsk8s.apiserver.tokens import Tokens
from nsk8s.cluster import variables
from nsk8s.cluster.serviceaccounts import EXPIRATION, PREFIX
from nsk8s.cluster.store import Key, Store
from nsk8s.daemon.pki import Keys
from nsk8s.workloads import podfiles

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

    def environment(self, pod: Pod, container: Container) -> dict[str, str]:
        """A container's environment. Raises Missing."""
        node = pod.spec.nodeName
        own = {"HOSTNAME": node if pod.spec.hostNetwork else podfiles.hostname(pod)}
        return own | variables.environment(self._store, pod, container)

    def token(self, pod: Pod, asked: TokenProjection) -> str:
        """A token of the pod's service account; "" if it has none any more."""
        namespace = pod.metadata.namespace
        account = self._store.get("serviceaccounts", namespace, pod.spec.serviceAccountName)
        stored = self._store.get("pods", namespace, pod.metadata.name)
        if account is None or stored is None:
            return ""
        audiences = (asked.audience,) if asked.audience else ()
        return self._tokens.issue(account, audiences, LIFETIME, stored, warn_after=asked.expirationSeconds)[0]

    def credentials(self, pod: Pod, container: Container | None) -> Mapping[str, str]:
        """The files of the pod's service account by path, with a new token, for a container that mounts
        them; without a container none."""
        if container is None or not _at_account(container):
            return {}
        if any(v.name in _at_account(container) and not v.name.startswith(PREFIX) for v in pod.spec.volumes):
            return {}  # a volume of the user's own is there
        token = self.token(pod, TokenProjection(expirationSeconds=EXPIRATION))
        if not token:
            return {}
        found = {
            "ca.crt": self._keys.authority().certificate.decode(),
            "namespace": pod.metadata.namespace,
            "token": token,
        }
        return {f"{ACCOUNT_DIRECTORY}/{name}": text for name, text in found.items()}

    def _address(self, namespace: str, name: str) -> str:
        found = self._store.view(Key("services", namespace, name))
        return found.spec.clusterIP if isinstance(found, Service) else ""


def _at_account(container: Container) -> set[str]:
    """The names of the volumes that a container has at its account's directory: one or none."""
    return {mount.name for mount in container.volumeMounts if mount.mountPath == ACCOUNT_DIRECTORY}
