"""A cluster's keys on disk: made once, reread by every control plane after.

Each file holds a certificate and its private key together, and appears at once or not at all; only its owner
can read it. The server's file begins with the names that it is for (text before the first ``BEGIN`` is a
comment, RFC 7468 section 2): so a control plane that starts again need not load `cryptography` to see that it
still fits.
"""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path
from threading import RLock

from nsk8s.api.topology import Topology
from nsk8s.apiserver import certificates
from nsk8s.apiserver.certificates import Pair
from nsk8s.paths import ClusterPaths

KEY = b"-----BEGIN PRIVATE KEY"


class Keys:
    """The keys of one cluster. Blocking; for any thread."""

    def __init__(self, paths: ClusterPaths) -> None:
        self._paths = paths
        self._making = RLock()

    def make(self) -> None:
        """Make what does not depend on the cluster's shape: the CA, the key of service account tokens."""
        self.authority()
        self.signing_key()

    def authority(self) -> Pair:
        """The CA."""
        file = self._paths.pki / "ca.pem"
        with self._making:
            if not file.exists():
                file.parent.mkdir(mode=0o700, exist_ok=True)
                write(file, _joined(certificates.authority()))
        return _split(file.read_bytes())

    def signing_key(self) -> bytes:
        """The key of service account tokens, PEM."""
        file = self._paths.pki / "sa.pem"
        with self._making:
            if not file.exists():
                file.parent.mkdir(mode=0o700, exist_ok=True)
                write(file, certificates.signing_key())
        return file.read_bytes()

    def server(self, names: Iterable[str]) -> ssl.SSLContext:
        """TLS for a server with these names, asking clients for certificates of the CA. Connections
        without one are let in: they may have a token."""
        ca = self.authority()
        header = f"for: {' '.join(sorted(names))}\n".encode()
        file = self._paths.pki / "apiserver.pem"
        if not file.exists() or not file.read_bytes().startswith(header):
            write(file, header + _joined(certificates.server(ca, names)))
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.sslobject_class = Alerting
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        tls.load_cert_chain(file)
        tls.load_verify_locations(cadata=ca.certificate.decode())
        tls.verify_mode = ssl.CERT_OPTIONAL
        tls.set_alpn_protocols(["http/1.1"])
        return tls

    def kubeconfig(self, port: int) -> None:
        """Write the administrator's kubeconfig for the API at `port` of the loopback interface, unless
        it is there already."""
        ca = self.authority()
        file, server = self._paths.kubeconfig, f"    server: https://127.0.0.1:{port}\n"
        authority = f"    certificate-authority-data: {_base64(ca.certificate)}\n"
        if file.exists() and authority + server in file.read_text():
            return
        name = f"nsk8s-{self._paths.cluster}"
        admin = certificates.client(ca, "kubernetes-admin", ["system:masters"])
        text = (
            "apiVersion: v1\nkind: Config\npreferences: {}\n"
            f"clusters:\n- name: {name}\n  cluster:\n{authority}{server}"
            f"users:\n- name: {name}\n  user:\n"
            f"    client-certificate-data: {_base64(admin.certificate)}\n"
            f"    client-key-data: {_base64(admin.key)}\n"
            f"contexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\n"
            f"current-context: {name}\n"
        )
        write(file, text.encode())


class Alerting(ssl.SSLObject):
    """TLS that tells a client why its certificate is refused.

    OpenSSL can only refuse a foreign certificate during the handshake (Go's server would answer 401 after
    it). It has the alert ready then, but asyncio drops what is not sent when a handshake fails: so the
    failure is first told as a wish for more data, for which asyncio sends what there is."""

    def do_handshake(self) -> None:
        """As `ssl.SSLObject.do_handshake`; what comes after the alert fails."""
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, str(error)) from error


def server_names(topology: Topology) -> tuple[str, ...]:
    """What the API server is called, by anybody: on the host, in the cluster, on its nodes."""
    service = str(ip_network(topology.service_cidr)[1])
    nodes = (address for node in topology.nodes for address in node.addresses)
    return (*certificates.SERVICE_NAMES, "127.0.0.1", service, *nodes)


def write(file: Path, content: bytes) -> None:
    """Write a file that its owner alone can read, all of it or nothing."""
    new = file.with_name(file.name + ".new")
    new.unlink(missing_ok=True)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(handle, "wb") as opened:
        opened.write(content)
    new.replace(file)


def _joined(pair: Pair) -> bytes:
    return pair.certificate + pair.key


def _split(content: bytes) -> Pair:
    certificate, begin, key = content.partition(KEY)
    return Pair(certificate, begin + key)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
