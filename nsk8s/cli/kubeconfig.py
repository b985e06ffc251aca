"""`kubeconfig` and `kubectl`: the way from a cluster to the real kubectl.

A user's own kubeconfig is changed only when asked (``--merge``), as kind does it: entries called
``nsk8s-CLUSTER``, which `down` takes away again; everything else in the file stays.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from nsk8s.cli import completing
from nsk8s.errors import ClusterGone, HostError, UserError
from nsk8s.paths import ClusterPaths

SECTIONS = ("clusters", "contexts", "users")
"""The lists of a kubeconfig whose entries have names."""


@click.command()
@click.argument(
    "name", required=False, envvar="NSK8S_CLUSTER", metavar="[CLUSTER]", shell_complete=completing.clusters
)
@click.option("--merge", is_flag=True, help="Add it to $KUBECONFIG's first file or ~/.kube/config.")
def kubeconfig(name: str | None, merge: bool) -> None:
    """Print the kubeconfig of a cluster's administrator, or add it to your own as the context
    nsk8s-CLUSTER and make that the current one. `nsk8s down` takes it away again.

    \b
    Examples:
      sudo nsk8s kubeconfig > article.kubeconfig
      sudo nsk8s kubeconfig --merge article
    """
    paths = _running(name)
    text = _written(paths)
    if not merge:
        click.echo(text, nl=False)
        return
    file = own_file()
    added = _parsed(text, paths.kubeconfig)
    with _replacing(file) as document:
        _drop(document, _entry(paths.cluster))
        for section in SECTIONS:
            document.setdefault(section, [])
            document[section] = [*(document[section] or []), *added[section]]
        document["current-context"] = added["current-context"]
    click.echo(f'context "{_entry(paths.cluster)}" is now the current one in {file}')


@click.command(
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,  # what follows the first word is kubectl's, "--" too
    }
)
@click.argument("words", nargs=-1, metavar="ARGS...", type=click.UNPROCESSED)
def kubectl(words: tuple[str, ...]) -> None:
    """Run the kubectl on PATH against the cluster: the only one that runs, or NSK8S_CLUSTER.

    \b
    Examples:
      sudo nsk8s kubectl get pods -o wide
    """
    program = shutil.which("kubectl")
    if program is None:
        raise HostError(
            "kubectl is not on PATH",
            hint="apt install kubernetes-client, or see https://kubernetes.io/docs/tasks/tools/",
        )
    paths = _running(os.environ.get("NSK8S_CLUSTER"))
    _written(paths)
    os.execve(program, ["kubectl", *words], {**os.environ, "KUBECONFIG": os.fspath(paths.kubeconfig)})


def own_file() -> Path:
    """The user's kubeconfig, as kubectl finds it: $KUBECONFIG's first file, or ~/.kube/config."""
    named = [word for word in os.environ.get("KUBECONFIG", "").split(os.pathsep) if word]
    return Path(named[0]) if named else Path.home() / ".kube" / "config"


def forget(cluster: str) -> Path | None:
    """Take a cluster's entries out of the user's kubeconfig; the file, if they were there. A file that
    cannot be read has none."""
    file = own_file()
    try:
        if _entry(cluster).encode() not in file.read_bytes():
            return None
        with _replacing(file) as document:
            found = _drop(document, _entry(cluster))
    except (OSError, UserError):
        return None
    return file if found else None


def _running(name: str | None) -> ClusterPaths:
    """The cluster, with its control plane awake."""
    from nsk8s.cli.lifecycle import need_root
    from nsk8s.daemon import launch

    need_root()
    paths = launch.choose(name)
    launch.ensure(paths)
    return paths


def _written(paths: ClusterPaths) -> str:
    try:
        return paths.kubeconfig.read_text()
    except FileNotFoundError as error:
        raise ClusterGone(
            f"cluster {paths.cluster!r} has no kubeconfig yet", hint="nsk8s up makes it; is it still running?"
        ) from error


def _entry(cluster: str) -> str:
    return f"nsk8s-{cluster}"


def _drop(document: dict[str, Any], name: str) -> bool:
    """Take the entries called `name` out; whether there were any."""
    found = False
    for section in SECTIONS:
        entries = document.get(section) or []
        kept = [entry for entry in entries if not (isinstance(entry, dict) and entry.get("name") == name)]
        if len(kept) != len(entries):
            document[section] = kept
            found = True
    if document.get("current-context") == name:
        document["current-context"] = ""
        found = True
    return found


@contextmanager
def _replacing(file: Path) -> Iterator[dict[str, Any]]:
    """The content of a kubeconfig, to be changed in place: replaced at once when the block ends well,
    readable by its owner only, under the lock file that kubectl uses. Raises `UserError` and `HostError`."""
    import tempfile

    import yaml

    target = file.resolve()
    lock = target.with_name(target.name + ".lock")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError as error:
        raise HostError(
            f"{file} is being changed by somebody else", hint=f"if that cannot be: remove {lock}"
        ) from error
    except OSError as error:
        raise HostError(f"{file} cannot be written: {error.strerror}") from error
    try:
        before = target.read_text() if target.exists() else ""
        document = {"apiVersion": "v1", "kind": "Config", **_parsed(before, file)}
        yield document
        owner = (target if before else target.parent).stat()
        handle, new = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
        try:
            with open(handle, "w") as opened:
                opened.write(yaml.safe_dump(document, sort_keys=False))
                os.fchmod(handle, 0o600)
                os.fchown(handle, owner.st_uid, owner.st_gid)
                opened.flush()
                os.fsync(handle)
            os.replace(new, target)
        except BaseException:
            os.unlink(new)
            raise
    except OSError as error:
        raise HostError(f"{file} cannot be written: {error.strerror}") from error
    finally:
        lock.unlink(missing_ok=True)


def _parsed(text: str, file: Path) -> dict[str, Any]:
    """A kubeconfig's content, as kubectl reads it. Raises `UserError`."""
    from nsk8s.api import yamltext
    from nsk8s.errors import Problem

    problems: list[Problem] = []
    documents = [document.value for document in yamltext.read(text, os.fspath(file), problems)]
    found = documents[0] if len(documents) == 1 else None if documents else {}
    if problems or not isinstance(found, dict):
        why = str(problems[0]) if problems else "it is not one mapping"
        raise UserError(f"{file} is not a kubeconfig: {why}", hint="it was left as it is")
    for section in SECTIONS:
        if not isinstance(found.get(section), list | None):
            raise UserError(
                f"{file} is not a kubeconfig: {section} is not a list", hint="it was left as it is"
            )
    return found
