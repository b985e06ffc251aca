"""Who sends a request: a client certificate of the cluster's CA, a bearer token, or nobody we know (401).

A certificate's common name is the user, its organisations are the groups (apiserver's
x509.CommonNameUserConversion); everybody who is known is in ``system:authenticated``.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from aiohttp import web
from msgspec import Struct, field

from nsk8s.errors import ApiError

AUTHENTICATED = "system:authenticated"
"""The group of everybody who is known."""
CERTIFICATES = 1024
"""How many clients are remembered by their certificates."""
CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
"""The key in `User.extra` that tells by which credential somebody is known (KEP-4193)."""


class User(Struct, frozen=True):
    """`authentication.k8s.io/v1.UserInfo`."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


ADMIN = User("system:admin", groups=("system:masters", AUTHENTICATED))
"""Whoever can open the unix socket."""


def unauthorized() -> ApiError:
    """The refusal of somebody who is not known (kubectl: You must be logged in to the server)."""
    return ApiError(401, "Unauthorized", "Unauthorized")


class Authenticator:
    """Knows users by their credentials; `review` gives the user of a bearer token, or None."""

    def __init__(self, review: Callable[[str], User | None]) -> None:
        self._review = review
        self._certificates: dict[bytes, User | None] = {}
        self._connections: WeakKeyDictionary[ssl.SSLObject, User | None] = WeakKeyDictionary()

    def identify(self, http: web.BaseRequest) -> User:
        """Who sends `http`. A certificate counts before a token. Raises `ApiError` 401."""
        connection = http.get_extra_info("ssl_object")
        user = self._of_connection(connection) if connection is not None else None
        if user is None:
            scheme, _, token = http.headers.get("Authorization", "").partition(" ")
            if scheme.lower() == "bearer" and token.strip():
                user = self._review(token.strip())
        if user is None:
            raise unauthorized()
        return user

    def _of_connection(self, connection: ssl.SSLObject) -> User | None:
        """Whom the certificate is for that TLS has verified; None without one. A connection has one for as
        long as it lives: asking OpenSSL for it again would cost as much as a whole look-up."""
        try:
            return self._connections[connection]
        except KeyError:
            found = self._connections[connection] = self._of_certificate(connection)
            return found

    def _of_certificate(self, connection: ssl.SSLObject) -> User | None:
        raw = connection.getpeercert(binary_form=True)
        if not raw:
            return None
        if raw not in self._certificates:  # to take it apart costs more than the rest of a request
            if len(self._certificates) >= CERTIFICATES:
                self._certificates = {}
            self._certificates[raw] = of_certificate(raw, connection.getpeercert() or {})
        return self._certificates[raw]


def of_certificate(raw: bytes, certificate: Mapping[str, Any]) -> User | None:
    """Whom a client certificate is for: `raw` is its DER, `certificate` what `ssl` says of it. None if it
    names nobody."""
    subject = [pair for attributes in certificate.get("subject", ()) for pair in attributes]
    names = [value for key, value in subject if key == "commonName"]
    groups = tuple(value for key, value in subject if key == "organizationName")
    if not names:
        return None
    identity = f"X509SHA256={hashlib.sha256(raw).hexdigest()}"
    return User(names[-1], groups=(*groups, AUTHENTICATED), extra={CREDENTIAL_ID: (identity,)})
