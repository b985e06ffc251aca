"""ConfigMaps, Secrets and ServiceAccounts (`pkg/apis/core/validation`)."""

from __future__ import annotations

import json
from base64 import b64decode
from binascii import Error

from nsk8s.api import names
from nsk8s.api.findings import Findings, below
from nsk8s.api.rules.rule import AnyObject, Rule, frozen
from nsk8s.api.types import Obj

LARGEST = 1024 * 1024
"""Bytes of a ConfigMap or Secret: 1 MiB."""
_NEEDED = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
"""Keys that a Secret of a type has."""
ACCOUNT = "kubernetes.io/service-account.name"


class ConfigMap(AnyObject, frozen=True):
    """A ConfigMap."""

    data: dict[str, str] = {}
    binaryData: dict[str, str] = {}


def _config_map(view: ConfigMap, findings: Findings) -> None:
    size = 0
    for field, data in (("data", view.data), ("binaryData", view.binaryData)):
        for key, value in data.items():
            if wrong := names.config_key(key):
                findings.invalid(below(field, key), key, wrong)
            if field == "data":
                size += len(value.encode())
                if key in view.binaryData:
                    findings.invalid(below(field, key), key, "duplicate of key present in binaryData")
            elif (decoded := _decoded(value, below(field, key), findings)) is not None:
                size += len(decoded)
    _size(size, "", findings)


def _size(size: int, path: str, findings: Findings) -> None:
    if size > LARGEST:
        findings.add(path, f"Too long: may not be more than {LARGEST} bytes")


def _decoded(text: str, path: str, findings: Findings) -> bytes | None:
    try:
        return b64decode("".join(text.split()), validate=True)
    except (Error, ValueError):
        findings.invalid(path, text, "illegal base64 data", "encode it (base64), or use stringData")
        return None


class Secret(AnyObject, frozen=True):
    """A Secret."""

    type: str = "Opaque"
    data: dict[str, str] = {}
    stringData: dict[str, str] = {}


def _secret(view: Secret, findings: Findings) -> None:
    found: dict[str, bytes] = {}
    for key, value in view.data.items():
        if wrong := names.config_key(key):
            findings.invalid(below("data", key), key, wrong)
        found[key] = _decoded(value, below("data", key), findings) or b""
    for key, value in view.stringData.items():
        if wrong := names.config_key(key):
            findings.invalid(below("stringData", key), key, wrong)
        found[key] = value.encode()
    _size(sum(map(len, found.values())), "data", findings)
    for key in _NEEDED.get(view.type, ()):
        if key not in found:
            findings.required(below("data", key))
        elif view.type.startswith("kubernetes.io/dockerc") and not _is_json(found[key]):
            findings.invalid(below("data", key), "<secret contents redacted>", "invalid character in JSON")
    if view.type == "kubernetes.io/basic-auth" and not {"username", "password"} & set(found):
        findings.required("data[username]")
        findings.required("data[password]")
    if view.type == "kubernetes.io/service-account-token" and not view.metadata.annotations.get(ACCOUNT):
        findings.required(below("metadata.annotations", ACCOUNT))


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _contents_update(old: Obj, new: Obj, findings: Findings) -> None:
    """What is immutable stays so; a Secret's type always does."""
    if new["kind"] == "Secret":
        frozen(old, new, "type", findings)
    if not old.get("immutable"):
        return
    why = "field is immutable when `immutable` is set"
    if not new.get("immutable"):
        findings.forbidden("immutable", why)
    for field in ("data", "binaryData"):
        if (old.get(field) or None) != (new.get(field) or None):
            findings.forbidden(field, why)


RULES: dict[str, Rule] = {
    "ConfigMap": Rule(ConfigMap, _config_map, update=_contents_update),
    "Secret": Rule(Secret, _secret, update=_contents_update),
    "ServiceAccount": Rule(),
}
