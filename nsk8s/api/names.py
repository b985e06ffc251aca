"""What names may look like: RFC 1123 and RFC 1035 labels, label keys and values, port names.

Every check returns what is wrong in the words of the Kubernetes API server (apimachinery's
`util/validation`), or "" if nothing is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

LABEL_LENGTH = 63
"""Of an RFC 1123 or RFC 1035 label, a label value, and the name part of a label key."""
SUBDOMAIN_LENGTH = 253
PORT_NAME_LENGTH = 15
"""RFC 6335 section 5.1."""

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_VALUE = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_KEY_NAME = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"

_is_label = re.compile(_LABEL).fullmatch
_is_subdomain = re.compile(_SUBDOMAIN).fullmatch
_is_label_1035 = re.compile(_LABEL_1035).fullmatch
_is_value = re.compile(_VALUE).fullmatch
_is_key_name = re.compile(_KEY_NAME).fullmatch
_is_config_key = re.compile("[-._a-zA-Z0-9]+").fullmatch
_is_port_name = re.compile("[-a-z0-9]+").fullmatch


def _too_long(most: int) -> str:
    return f"must be no more than {most} characters"


def label(name: str) -> str:
    """An RFC 1123 label: namespaces, containers, and the nodes and clients of a cluster."""
    if len(name) > LABEL_LENGTH:
        return _too_long(LABEL_LENGTH)
    if _is_label(name):
        return ""
    return (
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must "
        "start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for "
        f"validation is '{_LABEL}')"
    )


def subdomain(name: str) -> str:
    """An RFC 1123 subdomain: the names of most objects."""
    if len(name) > SUBDOMAIN_LENGTH:
        return _too_long(SUBDOMAIN_LENGTH)
    if _is_subdomain(name):
        return ""
    return (
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
        "and must start and end with an alphanumeric character (e.g. 'example.com', regex used for "
        f"validation is '{_SUBDOMAIN}')"
    )


def wildcard_subdomain(name: str) -> str:
    """An RFC 1123 subdomain with a star for its first label: hosts of an Ingress."""
    if len(name) > SUBDOMAIN_LENGTH:
        return _too_long(SUBDOMAIN_LENGTH)
    if name.startswith("*.") and _is_subdomain(name[2:]):
        return ""
    return (
        "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must "
        "consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character "
        f"(e.g. '*.example.com', regex used for validation is '\\*\\.{_SUBDOMAIN}')"
    )


def config_key(key: str) -> str:
    """A key of a ConfigMap or Secret: a file name."""
    if len(key) > SUBDOMAIN_LENGTH:
        return _too_long(SUBDOMAIN_LENGTH)
    if not _is_config_key(key):
        return (
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  "
            "or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
        )
    if key in (".", ".."):
        return f"must not be '{key}'"
    return "must not start with '..'" if key.startswith("..") else ""


def label_1035(name: str) -> str:
    """An RFC 1035 label: Services."""
    if len(name) > LABEL_LENGTH:
        return _too_long(LABEL_LENGTH)
    if _is_label_1035(name):
        return ""
    return (
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
        "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', "
        f"regex used for validation is '{_LABEL_1035}')"
    )


def path_segment(name: str) -> str:
    """What can stand in a URL's path: the names of RBAC objects, such as ``system:node``."""
    if name in (".", ".."):
        return f"may not be '{name}'"
    for character in "/%":
        if character in name:
            return f"may not contain '{character}'"
    return ""


def label_key(key: str) -> str:
    """The key of a label or annotation: an optional DNS subdomain, a slash, and a name."""
    prefix, slash, name = key.rpartition("/")
    if slash and not prefix:
        return "prefix part must be non-empty"
    if slash and (wrong := subdomain(prefix)):
        return f"prefix part {wrong}"
    if not name:
        return "name part must be non-empty"
    if len(name) > LABEL_LENGTH:
        return f"name part {_too_long(LABEL_LENGTH)}"
    if _is_key_name(name):
        return ""
    return (
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with "
        "an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
        f"validation is '{_KEY_NAME}')"
    )


def label_value(value: str) -> str:
    """The value of a label; may be empty."""
    if len(value) > LABEL_LENGTH:
        return _too_long(LABEL_LENGTH)
    if _is_value(value):
        return ""
    return (
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and "
        "must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', "
        f"regex used for validation is '{_VALUE}')"
    )


def port_name(name: str) -> str:
    """The name of a container's port, which a targetPort or a probe may use (RFC 6335)."""
    if len(name) > PORT_NAME_LENGTH:
        return _too_long(PORT_NAME_LENGTH)
    if not _is_port_name(name):
        return "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
    if not any(c.isalpha() for c in name):
        return "must contain at least one letter (a-z)"
    if "--" in name:
        return "must not contain consecutive hyphens"
    if name.startswith("-") or name.endswith("-"):
        return "must not begin or end with a hyphen"
    return ""


def repaired(name: str) -> str:
    """The RFC 1123 label nearest to `name`, or "" if there is none: what an error can offer."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:LABEL_LENGTH].rstrip("-")


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The known word that `word` was probably meant to be, or "". `cutoff`: how alike, 0 to 1."""
    from difflib import get_close_matches

    words = {k.lower(): k for k in known}
    found = get_close_matches(word.lower(), words, n=1, cutoff=cutoff)
    return words[found[0]] if found else ""
