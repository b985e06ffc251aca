"""How objects are shown: whole, by their metadata, or as rows of a table.

The form is what the Accept header asks for (KEP-1152 and server-side printing). Whole objects are encoded
once a revision and the bytes shared by everybody; other forms are made for each answer, and once for all the
watchers that want the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Protocol, cast

import msgspec

from nsk8s.api.kinds import Resource
from nsk8s.api.types import Obj
from nsk8s.apiserver import printers, tables
from nsk8s.apiserver.printers.columns import Printer
from nsk8s.errors import ApiError

Encoded = Callable[[Obj], bytes]
"""An object of the store as JSON."""

encode = msgspec.json.encode


class Form(Protocol):
    """One way to show the objects of a resource, which makes them objects of a `kind` in `api_version`.
    Forms with the same `key` show the same."""

    key: Hashable
    kind: str
    api_version: str

    def one(self, obj: Obj) -> bytes:
        """An object."""

    def many(self, objects: Sequence[Obj], meta: Obj) -> bytes:
        """A list; `meta` is its ListMeta."""

    def event(self, kind: str, obj: Obj) -> bytes:
        """A watch event, with its line feed."""

    def head(self, event: bytes) -> bytes:
        """The first event of a watch."""


class Whole:
    """Objects as they are."""

    def __init__(self, resource: Resource, encoded: Encoded) -> None:
        self.key: Hashable = resource.api_version
        self.kind = resource.kind
        self.api_version = resource.api_version
        self._list_kind = resource.list_kind
        self._encoded = encoded

    def one(self, obj: Obj) -> bytes:
        """The object."""
        return self._encoded(obj)

    def many(self, objects: Sequence[Obj], meta: Obj) -> bytes:
        """A List."""
        return listing(self._list_kind, self.api_version, meta, map(self._encoded, objects))

    def event(self, kind: str, obj: Obj) -> bytes:
        """A watch event."""
        return b'{"type":"%s","object":%s}\n' % (kind.encode(), self._encoded(obj))

    def head(self, event: bytes) -> bytes:
        """Nothing special."""
        return event


class Partial:
    """`meta.k8s.io` PartialObjectMetadata: metadata only."""

    kind = "PartialObjectMetadata"

    def __init__(self, version: str) -> None:
        self.key: Hashable = ("partial", version)
        self.api_version = f"meta.k8s.io/{version}"

    def one(self, obj: Obj) -> bytes:
        """The metadata."""
        return encode({"kind": self.kind, "apiVersion": self.api_version, "metadata": obj["metadata"]})

    def many(self, objects: Sequence[Obj], meta: Obj) -> bytes:
        """A PartialObjectMetadataList."""
        return listing("PartialObjectMetadataList", self.api_version, meta, map(self.one, objects))

    def event(self, kind: str, obj: Obj) -> bytes:
        """A watch event."""
        return b'{"type":"%s","object":%s}\n' % (kind.encode(), self.one(obj))

    def head(self, event: bytes) -> bytes:
        """Nothing special."""
        return event


class Table:
    """`meta.k8s.io` Table: the columns that kubectl prints. `include` says what stands beside the cells:
    ``Metadata`` (as usual), ``Object`` or ``None``."""

    kind = "Table"

    def __init__(self, version: str, include: str, printer: Printer) -> None:
        if include not in ("", "Metadata", "Object", "None"):
            raise ApiError(
                400, "BadRequest", f'includeObject: "{include}" is none of "None", "Metadata", "Object"'
            )
        self.key: Hashable = ("table", version, include)
        self.api_version = f"meta.k8s.io/{version}"
        self._version = version
        self._include = cast("tables.Include", include or "Metadata")
        self._printer = printer

    def one(self, obj: Obj) -> bytes:
        """A table of one row: of the object, or of a Scale or Status in its place."""
        printer = printers.IN_PLACE.get(obj.get("kind", ""), self._printer)
        return encode(self._table([obj], {"resourceVersion": _revision(obj)}, printer))

    def many(self, objects: Sequence[Obj], meta: Obj) -> bytes:
        """A table."""
        return encode(self._table(objects, meta, self._printer))

    def event(self, kind: str, obj: Obj) -> bytes:
        """A watch event: a table of one row, without the columns."""
        table = self._table([obj], {"resourceVersion": _revision(obj)}, self._printer)
        return encode({"type": kind, "object": {**table, "columnDefinitions": None}}) + b"\n"

    def head(self, event: bytes) -> bytes:
        """The first event says what the columns are."""
        found = msgspec.json.decode(event)
        if found["type"] not in ("ADDED", "MODIFIED", "DELETED"):
            return event
        columns = tables.columns(self._printer)
        return encode({**found, "object": {**found["object"], "columnDefinitions": columns}}) + b"\n"

    def _table(self, objects: Sequence[Obj], meta: Obj, printer: Printer) -> Obj:
        return {
            "kind": self.kind,
            "apiVersion": self.api_version,
            "metadata": meta,
            "columnDefinitions": tables.columns(printer),
            "rows": tables.rows(printer, objects, tables.now(), self._include, self._version),
        }


def _revision(obj: Obj) -> str:
    revision: str = obj["metadata"].get("resourceVersion", "")
    return revision


def listing(kind: str, api_version: str, meta: Obj, items: Iterable[bytes]) -> bytes:
    """A list of encoded objects."""
    return b'{"kind":"%s","apiVersion":"%s","metadata":%s,"items":[%s]}' % (
        kind.encode(),
        api_version.encode(),
        encode(meta),
        b",".join(items),
    )


def form_of(
    accept: str,
    resource: Resource,
    query: Mapping[str, str],
    encoded: Encoded,
    printer: Callable[[Resource], Printer] = printers.printer_for,
) -> Form:
    """What an Accept header asks for: the first of its media types that we can make. `printer` gives the
    columns of a table. Raises `ApiError` 406 if there is none."""
    if not accept:
        return Whole(resource, encoded)
    for media in accept.split(","):
        kind, *parameters = [word.strip() for word in media.split(";")]
        if kind not in ("application/json", "*/*", "application/*"):
            continue
        given = dict(word.partition("=")[::2] for word in parameters)
        shape, version = given.get("as", ""), given.get("v", "")
        if not shape:
            return Whole(resource, encoded)
        if given.get("g") != "meta.k8s.io" or version not in ("v1", "v1beta1"):
            continue
        if shape == "Table":
            return Table(version, query.get("includeObject", ""), printer(resource))
        if shape in ("PartialObjectMetadata", "PartialObjectMetadataList"):
            return Partial(version)
    raise ApiError(
        406,
        "NotAcceptable",
        "only the following media types are accepted: application/json, "
        "application/json;as=Table;v=v1;g=meta.k8s.io",
    )
