"""Bearer tokens of service accounts: JSON Web Tokens (RFC 7519) signed with ES256 (RFC 7518), as
kube-apiserver's TokenRequest makes them (KEP-1205): bound to an audience, a time, and perhaps a pod.
"""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from nsk8s.api.types import Obj
from nsk8s.apiserver.authentication import AUTHENTICATED, CREDENTIAL_ID, User
from nsk8s.cluster.rbac import SERVICE_ACCOUNT
from nsk8s.cluster.store import Store

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

ISSUER = "https://kubernetes.default.svc.cluster.local"
"""Who signs; also the audience of tokens for the API server itself."""
DEFAULT_SECONDS = 3600
SHORTEST = 600
LONGEST = 1 << 32
"""Lifetimes a TokenRequest may ask for, in seconds."""
LEEWAY = 60
"""How many seconds another clock may be ahead."""

_EXTRA = "authentication.kubernetes.io/"


class Tokens:
    """Makes and knows the tokens of one cluster; `key` gives the private key as PEM and is asked once."""

    def __init__(self, store: Store, key: Callable[[], bytes]) -> None:
        self._store = store
        self._pem = key
        self._verified = lru_cache(4096)(self._verify)

    def issue(
        self,
        account: Obj,
        audiences: Sequence[str] = (),
        seconds: int = DEFAULT_SECONDS,
        pod: Obj | None = None,
        warn_after: int = 0,
    ) -> tuple[str, float]:
        """A token of a ServiceAccount, perhaps bound to a pod, and when it expires (seconds). One that
        lasts longer than it was asked for says by `warn_after` when it should have been renewed."""
        now = int(time.time())
        meta = account["metadata"]
        namespace, name = meta["namespace"], meta["name"]
        bound: dict[str, Any] = {"namespace": namespace}
        if pod is not None:
            node = (pod.get("spec") or {}).get("nodeName", "")
            found = self._store.get("nodes", "", node) if node else None
            if found is not None:
                bound["node"] = {"name": node, "uid": found["metadata"]["uid"]}
            bound["pod"] = {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        bound["serviceaccount"] = {"name": name, "uid": meta["uid"]}
        if warn_after:
            bound["warnafter"] = now + warn_after
        claims = {
            "aud": list(audiences) or [ISSUER],
            "exp": now + seconds,
            "iat": now,
            "iss": ISSUER,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": bound,
            "nbf": now,
            "sub": f"{SERVICE_ACCOUNT}{namespace}:{name}",
        }
        return self._sign(claims), float(now + seconds)

    def review(self, token: str, audiences: Sequence[str] = ()) -> tuple[User, list[str]] | None:
        """Whose token it is, and for which of `audiences` (without any: the API server); None if it is
        none of ours, has expired, or what it is bound to is gone."""
        claims = self._verified(token)
        if claims is None:
            return None
        now = time.time()
        meant = [word for word in audiences or (ISSUER,) if word in claims["aud"]]
        if not meant or not claims["nbf"] - LEEWAY <= now < claims["exp"]:
            return None
        bound = claims["kubernetes.io"]
        namespace, account = bound["namespace"], bound["serviceaccount"]
        if not self._is_there("serviceaccounts", namespace, account):
            return None
        extra = {CREDENTIAL_ID: (f"JTI={claims['jti']}",)}
        for kind, resource in (("node", "nodes"), ("pod", "pods")):
            one = bound.get(kind)
            if one is None:
                continue
            if kind == "pod" and not self._is_there(resource, namespace, one):
                return None
            extra |= {f"{_EXTRA}{kind}-name": (one["name"],), f"{_EXTRA}{kind}-uid": (one["uid"],)}
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
        return User(claims["sub"], account["uid"], groups, extra), meant

    def user(self, token: str) -> User | None:
        """Who sends a request with this token."""
        found = self.review(token)
        return found[0] if found else None

    def key_set(self) -> Obj:
        """The public key as a JSON Web Key Set (RFC 7517), for whoever wants to check tokens alone."""
        numbers = self._key.public_key().public_numbers()
        x, y = (_encoded(number.to_bytes(32, "big")).decode() for number in (numbers.x, numbers.y))
        key = {"use": "sig", "kty": "EC", "kid": self._key_id, "crv": "P-256", "alg": "ES256", "x": x, "y": y}
        return {"keys": [key]}

    def _is_there(self, resource: str, namespace: str, reference: Obj) -> bool:
        found = self._store.get(resource, namespace, reference["name"])
        return found is not None and found["metadata"]["uid"] == reference["uid"]

    @cached_property
    def _key(self) -> EllipticCurvePrivateKey:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

        found = serialization.load_pem_private_key(self._pem(), None)
        assert isinstance(found, EllipticCurvePrivateKey)
        return found

    @cached_property
    def _key_id(self) -> str:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        public = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return _encoded(hashlib.sha256(public).digest()).decode()

    def _sign(self, claims: Obj) -> str:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        header = msgspec.json.encode({"alg": "ES256", "kid": self._key_id})
        signed = _encoded(header) + b"." + _encoded(msgspec.json.encode(claims))
        r, s = decode_dss_signature(self._key.sign(signed, ec.ECDSA(hashes.SHA256())))
        return (signed + b"." + _encoded(r.to_bytes(32, "big") + s.to_bytes(32, "big"))).decode()

    def _verify(self, token: str) -> Obj | None:
        """The claims of a token that we have signed."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

        try:
            signed, _, signature = token.encode("ascii").rpartition(b".")
            header, _, claims = signed.partition(b".")
            raw = _decoded(signature)
            if len(raw) != 64 or msgspec.json.decode(_decoded(header)).get("alg") != "ES256":
                return None
            r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
            self._key.public_key().verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
            found: Obj = msgspec.json.decode(_decoded(claims))
        except (ValueError, AttributeError, InvalidSignature, msgspec.DecodeError):
            return None
        return found if found.get("iss") == ISSUER else None


def _encoded(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _decoded(text: bytes) -> bytes:
    return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
