"""What there is: ``/``, ``/version``, ``/api``, ``/apis`` and what is below them, in both forms.

Clients that ask for aggregated discovery (KEP-3352, `apidiscovery.k8s.io`) learn every kind from two
documents; others from one list per group and version. Documents are encoded once and kept until the kinds
change.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterable

import msgspec
from msgspec import Struct

from nsk8s import __version__
from nsk8s.api.kinds import Kinds, Resource, Subresource, priority
from nsk8s.api.types import Obj

JSON = "application/json"
PATHS = (
    "/.well-known/openid-configuration",
    "/api",
    "/api/v1",
    "/apis",
    "/apis/",
    "/healthz",
    "/livez",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/",
    "/readyz",
    "/version",
)
"""What ``/`` lists beside the groups."""


class Document(Struct, frozen=True):
    """An encoded document; `etag` is its ETag, quoted as in the header. A `lasting` one never changes under
    its address."""

    body: bytes
    content_type: str
    etag: str
    lasting: bool = False


class Discovery:
    """The documents of one cluster. `kinds` gives its kinds as they are now, `version` the Kubernetes
    version it says it has (``1.33``, ``v1.29.4``)."""

    def __init__(self, kinds: Callable[[], Kinds], version: Callable[[], str]) -> None:
        self._kinds = kinds
        self._version = version
        self._revision = -1
        self._documents: dict[tuple[str, str], Document | None] = {}

    def document(self, path: str, accept: str = "") -> Document | None:
        """The document at `path` in the form that an Accept header prefers; None if there is none."""
        kinds = self._kinds()
        if kinds.revision != self._revision:
            self._revision = kinds.revision
            self._documents = {}
        path = path.rstrip("/") if path.strip("/") else path
        if path == "/version":
            return _encoded(version_info(self._version()), JSON)
        form = _form(accept) if path in ("/api", "/apis") else ""
        if (path, form) not in self._documents:
            if len(self._documents) > 4 * len(kinds.by_path):  # paths are the clients', and endless
                self._documents = {}
            found = _aggregated(path, form, kinds) if form else _plain(path, kinds)
            media = f"{JSON};g=apidiscovery.k8s.io;v={form};as=APIGroupDiscoveryList" if form else JSON
            self._documents[path, form] = _encoded(found, media) if found is not None else None
        return self._documents[path, form]


def version_info(asked: str) -> Obj:
    """``/version`` (apimachinery's version.Info) for a version such as ``1.33`` or ``v1.29.4``."""
    major, minor, patch = (*asked.removeprefix("v").split("."), "0")[:3]
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{major}.{minor}.{patch}+nsk8s.{__version__}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": platform.python_implementation(),
        "platform": f"linux/{_MACHINES.get(platform.machine(), platform.machine())}",
    }


_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
"""What Go calls this machine."""


def _encoded(obj: Obj, content_type: str) -> Document:
    body = msgspec.json.encode(obj)
    return Document(body, content_type, f'"{hashlib.sha256(body).hexdigest()[:32].upper()}"')


def _form(accept: str) -> str:
    """The version of apidiscovery.k8s.io that is asked for first; empty for plain lists."""
    for media in accept.split(","):
        kind, *parameters = [word.strip() for word in media.split(";")]
        if kind not in (JSON, "*/*", "application/*"):
            continue
        given = dict(word.partition("=")[::2] for word in parameters)
        if "as" not in given:
            return ""
        if given.get("g") == "apidiscovery.k8s.io" and given.get("v") in ("v2", "v2beta1"):
            return given["v"]
    return ""


# --- groups and versions ----------------------------------------------------------------------------


def groups(kinds: Kinds) -> dict[str, list[str]]:
    """Every group but the core's with its versions, the preferred one first."""
    found: dict[str, dict[str, None]] = {}
    for r in kinds:
        if r.group:
            found.setdefault(r.group, {})[r.version] = None
    return {group: sorted(versions, key=priority) for group, versions in found.items()}


def _of(kinds: Kinds, group: str, version: str) -> list[Resource]:
    found = [r for r in kinds if (r.group, r.version) == (group, version)]
    return sorted(found, key=lambda r: r.plural)


# --- plain lists ------------------------------------------------------------------------------------


def _plain(path: str, kinds: Kinds) -> Obj | None:
    match path.split("/")[1:]:
        case [""]:
            return {"paths": sorted({*PATHS, *_paths(kinds)})}
        case ["api"]:
            return {
                "kind": "APIVersions",
                "versions": ["v1"],
                "serverAddressByClientCIDRs": [],
            }
        case ["apis"]:
            found = [_group(group, versions) for group, versions in groups(kinds).items()]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}
        case ["apis", group]:
            versions = groups(kinds).get(group)
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, versions)} if versions else None
        case ["api", version]:
            return _resources("", version, kinds)
        case ["apis", group, version] if group:
            return _resources(group, version, kinds)
    return None


def _paths(kinds: Kinds) -> Iterable[str]:
    for group, versions in groups(kinds).items():
        yield f"/apis/{group}"
        yield from (f"/apis/{group}/{version}" for version in versions)


def _group(group: str, versions: list[str]) -> Obj:
    named = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": named, "preferredVersion": named[0]}


def _resources(group: str, version: str, kinds: Kinds) -> Obj | None:
    rows: list[Obj] = []
    for r in _of(kinds, group, version):
        rows.append(
            _row(r.plural, r.singular, r, r.kind, r.verbs)
            | ({"shortNames": list(r.short)} if r.short else {})
            | ({"categories": list(r.categories)} if r.categories else {})
        )
        for part in r.subresources:
            of = {"group": part.group, "version": part.version} if part.version else {}
            rows.append(_row(f"{r.plural}/{part.name}", "", r, part.kind, part.verbs) | of)
    if not rows:
        return None
    name = f"{group}/{version}" if group else version
    head = {"kind": "APIResourceList"} | ({"apiVersion": "v1"} if group else {})
    return {**head, "groupVersion": name, "resources": rows}


def _row(name: str, singular: str, r: Resource, kind: str, verbs: tuple[str, ...]) -> Obj:
    return {
        "name": name,
        "singularName": singular,
        "namespaced": r.namespaced,
        "kind": kind,
        "verbs": list(verbs),
    }


# --- aggregated -------------------------------------------------------------------------------------


def _aggregated(path: str, form: str, kinds: Kinds) -> Obj:
    served = {"": ["v1"]} if path == "/api" else groups(kinds)
    items = [
        {
            "metadata": {"name": group, "creationTimestamp": None} if group else {"creationTimestamp": None},
            "versions": [
                {
                    "version": version,
                    "resources": [_aggregate(r) for r in _of(kinds, group, version)],
                    "freshness": "Current",
                }
                for version in versions
            ],
        }
        for group, versions in served.items()
    ]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{form}",
        "metadata": {},
        "items": items,
    }


def _aggregate(r: Resource) -> Obj:
    found: Obj = {
        "resource": r.plural,
        "responseKind": {"group": "", "version": "", "kind": r.kind},
        "scope": "Namespaced" if r.namespaced else "Cluster",
        "singularResource": r.singular,
        "verbs": list(r.verbs),
    }
    if r.short:
        found["shortNames"] = list(r.short)
    if r.categories:
        found["categories"] = list(r.categories)
    if r.subresources:
        found["subresources"] = [_aggregate_part(part) for part in r.subresources]
    return found


def _aggregate_part(part: Subresource) -> Obj:
    return {
        "subresource": part.name,
        "responseKind": {"group": part.group, "version": part.version, "kind": part.kind},
        "verbs": list(part.verbs),
    }
