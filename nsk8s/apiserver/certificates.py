"""A cluster's certificate authority and what it signs: values in PEM, no files.

All keys are ECDSA on P-256 (fast, and what every client knows). Names are kubeadm's. Importing this module
costs nothing; `cryptography` is loaded by the first key.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

LIFETIME = timedelta(days=3650)
"""How long certificates are good: longer than any cluster in /run lives."""
SKEW = timedelta(minutes=5)
"""How much a client's clock may be behind."""

SERVICE_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
"""DNS names of every API server."""


class Pair(Struct, frozen=True):
    """A private key (PKCS #8), and the certificate of its public half; both PEM."""

    certificate: bytes
    key: bytes


def authority() -> Pair:
    """A new self-signed CA, ``CN=kubernetes``."""
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    return _signed("kubernetes", (), key, None, ())


def server(ca: Pair, names: Iterable[str]) -> Pair:
    """A server's certificate for DNS names and IP addresses."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return _signed("kube-apiserver", (), ec.generate_private_key(ec.SECP256R1()), ca, tuple(names))


def client(ca: Pair, name: str, groups: Iterable[str] = ()) -> Pair:
    """A client's certificate: user `name` (CN) in `groups` (O)."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return _signed(name, tuple(groups), ec.generate_private_key(ec.SECP256R1()), ca, ())


def signing_key() -> bytes:
    """A new private key, PEM, for what is no certificate: service account tokens."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return _key(ec.generate_private_key(ec.SECP256R1()))


def _signed(
    name: str,
    groups: tuple[str, ...],
    key: EllipticCurvePrivateKey,
    ca: Pair | None,
    names: tuple[str, ...],
) -> Pair:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    issuer, signer, authority_id = subject, key, x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    if ca is not None:
        parent = x509.load_pem_x509_certificate(ca.certificate)
        loaded = serialization.load_pem_private_key(ca.key, None)
        assert isinstance(loaded, EllipticCurvePrivateKey)
        issuer, signer = parent.subject, loaded
        authority_id = parent.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=ca is None, path_length=None), critical=True)
        .add_extension(_usage(authority=ca is None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id), critical=False
        )
    )
    if ca is None:
        builder = builder.add_extension(authority_id, critical=False)
    else:
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if names else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    if names:
        builder = builder.add_extension(_alternatives(names), critical=False)
    signed = builder.sign(signer, hashes.SHA256())
    return Pair(signed.public_bytes(serialization.Encoding.PEM), _key(key))


def _alternatives(names: tuple[str, ...]) -> x509.SubjectAlternativeName:
    from cryptography import x509

    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return x509.SubjectAlternativeName(found)


def _usage(*, authority: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _key(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
