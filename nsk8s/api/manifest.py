"""Reading files: a Cluster document and Kubernetes manifests, checked as a whole.

`read` returns everything that the files hold, or raises `ManifestError` with everything that is wrong with
them, each finding with its file, line and column. Objects are as the user wrote them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from nsk8s.api import cluster as clusters
from nsk8s.api import structural, together, yamltext
from nsk8s.api.bundled import BUNDLED, schema_of
from nsk8s.api.conversions import convert
from nsk8s.api.customresources import resources_of
from nsk8s.api.findings import Findings
from nsk8s.api.kinds import BUILTIN, Kinds, Resource, kinds_of
from nsk8s.api.topology import Topology
from nsk8s.api.types import Obj
from nsk8s.api.validation import known_resource, validate
from nsk8s.errors import ManifestError, Problem

STDIN = "<stdin>"


class Document(Struct, frozen=True):
    """An object of a file, and where it stood."""

    obj: Obj
    text: yamltext.Text

    def at(self, path: str) -> tuple[str, int, int]:
        """(file, line, column) of a field, or of the nearest thing around it that exists."""
        return self.text.at(path)

    def placed(self, problems: Iterable[Problem]) -> list[Problem]:
        """`problems` of this document with their positions."""
        placed = []
        for problem in problems:
            file, line, column = self.at(problem.path)
            placed.append(problem._replace(file=file, line=line, column=column))
        return placed


class Manifest(Struct, frozen=True):
    """What files hold. `topology` and `cluster` are None without a Cluster document, as for `apply`."""

    topology: Topology | None
    cluster: Obj | None
    objects: tuple[Document, ...]
    cluster_document: Document | None = None
    kinds: Kinds = BUILTIN

    def resource(self, obj: Obj) -> Resource:
        """The kind of one of the objects."""
        return self.kinds.by_kind[obj["apiVersion"], obj["kind"]]

    @property
    def ignored(self) -> tuple[str, ...]:
        """The kinds that are stored and not acted on, once each, in the order of the files."""
        resources = (self.resource(document.obj) for document in self.objects)
        return tuple(dict.fromkeys(r.kind for r in resources if not r.acts))


def read(files: Sequence[str], served: Callable[[], Kinds] | None = None) -> Manifest:
    """Read and check `files` ("-" is standard input; a file named twice is read once). Objects in an old
    version become those of the stored one. `served` tells which kinds the cluster has, if it runs: it is
    asked for those that neither are built in nor defined by the files.

    Raises ManifestError with all problems of all files, in their order.
    """
    problems: list[Problem] = []
    documents: list[Document] = []
    once = dict.fromkeys(name if name == "-" else os.path.normpath(name) for name in files)
    for name in once:
        text = _text(name, problems)
        if text is not None:
            documents += _documents(text, STDIN if name == "-" else name, problems)
    if not documents and not problems and once:
        name = next(iter(once))
        hint = "a file holds Kubernetes objects or a Cluster document; nsk8s init writes one"
        problems.append(Problem("", "nothing in it", hint, STDIN if name == "-" else name, 1, 1))
    manifest = _check(documents, problems, _kinds(documents, served))
    if problems:
        order = {STDIN if name == "-" else name: i for i, name in enumerate(once)}
        raise ManifestError(sorted(problems, key=lambda p: (order.get(p.file, 0), p.line, p.column)))
    return manifest


def _kinds(documents: Sequence[Document], served: Callable[[], Kinds] | None) -> Kinds:
    """The kinds that the documents may be of: the Cluster among them may want old versions served, and
    CustomResourceDefinitions add theirs."""
    named = [(str(d.obj.get("apiVersion")), str(d.obj.get("kind"))) for d in documents]
    if all(name in BUILTIN.by_kind and name not in _MORE for name in named):
        return BUILTIN
    legacy = False
    defined: list[Resource] = []
    for document, name in zip(documents, named, strict=True):
        if name == _MORE[0]:
            spec = document.obj.get("spec")
            legacy = legacy or (isinstance(spec, dict) and spec.get("legacyAPIs") is True)
        elif name == _MORE[1] and not validate(document.obj):
            defined += resources_of(document.obj)
    kinds = kinds_of(legacy=legacy)
    bundled = [resource for crd in BUNDLED for resource in resources_of(crd)]
    for resource in (*bundled, *defined):
        kinds.add(resource)
    if served is not None and any(name not in kinds.by_kind for name in named):
        for resource in served():
            if (resource.api_version, resource.kind) not in kinds.by_kind:
                kinds.add(resource)
    return kinds


_MORE = (("nsk8s.dev/v1", "Cluster"), ("apiextensions.k8s.io/v1", "CustomResourceDefinition"))
"""Documents by which there are more kinds."""


def _check(documents: Sequence[Document], problems: list[Problem], kinds: Kinds) -> Manifest:
    """All checks of the documents, by themselves and with each other."""
    objects: list[Document] = []
    found: list[Document] = []
    topology: Topology | None = None
    for document in documents:
        findings = Findings()
        resource = known_resource(document.obj, findings, kinds)
        if resource is None:
            problems += document.placed(findings.problems)
        elif resource.kind == "Cluster":
            found.append(document)
            if len(found) > 1:
                first = ":".join(map(str, found[0].at("kind")[:2]))
                findings.add("kind", f"a second Cluster document; the first is at {first}", "keep one")
            else:
                topology, findings.problems = clusters.read(document.obj)
            problems += document.placed(findings.problems)
        else:
            stored = kinds.storage_of(resource)
            document = replace(document, obj=convert(document.obj, stored))
            wrong = validate(document.obj, stored)
            bundled = schema_of(stored.name) if stored.custom else None
            if bundled is not None:
                wrong += structural.validate(document.obj, bundled)
            if not wrong and not document.obj["metadata"].get("name"):
                hint = "give it a metadata.name: objects of files are applied, and found again, by name"
                wrong = [Problem("metadata.generateName", "cannot be used in a file", hint)]
            problems += document.placed(wrong)
            if not wrong:
                objects.append(document)
    for i, problem in together.check(topology, [d.obj for d in objects], kinds):
        place = objects[i] if i is not None else found[0]
        problems += place.placed([problem])
    chosen = found[0] if found else None
    return Manifest(topology, chosen.obj if chosen else None, tuple(objects), chosen, kinds)


# --- files ------------------------------------------------------------------------------------------


def _text(name: str, problems: list[Problem]) -> str | None:
    """The text of a file, or None with a problem."""
    shown = STDIN if name == "-" else name
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except IsADirectoryError:
        problems.append(Problem("", "is a directory", f"name its files: {name}/*.yaml", shown, 1, 1))
        return None
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        problems.append(Problem("", f"cannot be read: {why}", "check the name", shown, 1, 1))
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        head = data[: error.start].decode(errors="ignore")
        line, column = head.count("\n") + 1, len(head) - head.rfind("\n")
        what = f"not UTF-8: byte 0x{data[error.start]:02x}"
        problems.append(Problem("", what, "save the file as UTF-8", shown, line, column))
        return None


def _documents(text: str, file: str, problems: list[Problem]) -> Iterator[Document]:
    """The objects of a text; lists of objects (``kind: List``) are taken apart."""
    for found in yamltext.read(text, file, problems):
        value = found.value
        if not isinstance(value, dict):
            what = f"a document must be a mapping, not {'a list' if isinstance(value, list) else 'a value'}"
            hint = "begin with apiVersion: and kind:; separate documents with ---"
            problems.append(Problem("", what, hint, *found.at("")))
        elif str(value.get("kind", "")).endswith("List") and isinstance(value.get("items"), list):
            for i, item in enumerate(value["items"]):
                place = found.below("items", i)
                if isinstance(item, dict):
                    yield Document(item, place)
                else:
                    problems.append(
                        Problem(f"items[{i}]", "an item of a List must be an object", "", *place.at(""))
                    )
        else:
            yield Document(value, found)
