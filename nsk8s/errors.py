"""Every error nsk8s raises, and who is to blame for it (the blame is in the type).

    NsK8sError                 has `message` and `hint`; the CLI prints both and exits with `exit_code`
    ├── UserError              the user asked for something that cannot be; nothing was changed
    │   ├── UsageError         wrong words on the command line (exit code 2)
    │   ├── ManifestError      one or more `Problem`s in YAML files, each with file:line:column
    │   └── ApiError           what a Kubernetes API server answers as a Status object
    ├── HostError              this host lacks a tool, a right or a kernel feature
    ├── KernelError            the kernel refused an operation: errno, namespace, the command in words
    ├── ClusterGone            the cluster, or its control plane, is not there
    └── Timeout                a deadline passed; says what was last seen

Foreign exceptions (OSError, msgspec, yaml, sqlite3) are mapped at the border of the room that met
them and never travel further.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class NsK8sError(Exception):
    """Base of all: `message` says what and where, `hint` says what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


def in_words(error: OSError) -> str:
    """What the kernel has refused, as Go's programs word it ("connection refused")."""
    return os.strerror(error.errno).lower() if error.errno else str(error)


class UserError(NsK8sError):
    """The request itself is wrong; nothing was changed."""


class UsageError(UserError):
    """The command line does not make sense."""

    exit_code = 2


class Problem(NamedTuple):
    """One thing that is wrong with a document.

    `path` is the field path as Kubernetes writes it (``spec.ports[0].nodePort``), `what` the finding,
    `hint` what to do. `file`, `line` and `column` (1-based) are empty for objects that came by the API.
    `reason` is the meta/v1.CauseType, where `what` does not tell it.
    """

    path: str
    what: str
    hint: str = ""
    file: str = ""
    line: int = 0
    column: int = 0
    reason: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: " if self.file else ""
        path = f"{self.path}: " if self.path else ""
        return f"{where}{path}{self.what}" + (f"; {self.hint}" if self.hint else "")


class ManifestError(UserError):
    """Everything that is wrong with the given files, all at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = tuple(problems)


class ApiError(UserError):
    """An error in the shape of `meta/v1.Status`: `code` (HTTP), `reason`, and causes.

    Raised by the store and the API's own checks; the API server sends it as it is and the client
    raises it again on the other side.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        kind: str = "",
        name: str = "",
        causes: Iterable[Problem] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.kind = kind
        self.name = name
        self.causes = tuple(causes)

    @classmethod
    def invalid(cls, kind: str, name: str, problems: Sequence[Problem]) -> ApiError:
        """An object that breaks its kind's rules (422)."""
        causes = [f"{p.path}: {p.what}" if p.path else p.what for p in problems]
        text = causes[0] if len(causes) == 1 else f"[{', '.join(causes)}]"
        message = f'{kind} "{name}" is invalid: {text}'
        return cls(422, "Invalid", message, kind=kind, name=name, causes=problems)


class HostError(NsK8sError):
    """The host lacks something: root, a program, a kernel feature."""


class KernelError(NsK8sError):
    """The kernel refused `command` (as a person would type it) in `namespace`."""

    def __init__(self, number: int, command: str, namespace: str, *, hint: str = "") -> None:
        name = _errno.errorcode.get(number, str(number))
        super().__init__(f"namespace {namespace}: `{command}` failed with {name}", hint=hint)
        self.errno = number
        self.command = command
        self.namespace = namespace


class ClusterGone(NsK8sError):
    """No such cluster runs on this host, or its control plane cannot be reached."""


class Timeout(NsK8sError):
    """A deadline passed before the awaited state was seen."""
