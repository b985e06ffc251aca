"""The store's journal in SQLite: one row an object, one transaction a commit.

`synchronous=OFF` is enough: the objects must survive the control plane (kill -9 leaves the page cache
intact), not the machine, for a reboot ends the cluster anyway.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from nsk8s.api.types import Obj
from nsk8s.cluster.store import Change
from nsk8s.errors import HostError

SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
  resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, object BLOB NOT NULL,
  PRIMARY KEY (resource, namespace, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revision (value INTEGER NOT NULL);
"""


class SqliteJournal:
    """A `Journal` in a file. Raises `HostError` when the file cannot be used."""

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=OFF")
            self._db.executescript(SCHEMA)
        except sqlite3.Error as error:
            raise _unusable(path, error) from error
        self._path = path

    def load(self) -> tuple[int, Iterable[tuple[str, Obj]]]:
        """The last revision written, and every object."""
        decode = msgspec.json.Decoder(dict).decode
        try:
            row = self._db.execute("SELECT value FROM revision").fetchone()
            rows = self._db.execute("SELECT resource, object FROM objects").fetchall()
            return (row[0] if row else 0), [(resource, decode(blob)) for resource, blob in rows]
        except (sqlite3.Error, msgspec.DecodeError) as error:
            raise _unusable(self._path, error) from error

    def write(self, revision: int, changes: Sequence[Change], encoded: Callable[[Obj], bytes]) -> None:
        """Write the last state of every changed object in one transaction."""
        last = {change.key: change for change in changes}
        gone = [key for key, change in last.items() if change.type == "DELETED"]
        kept = [(*key, encoded(change.new)) for key, change in last.items() if change.type != "DELETED"]
        try:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", kept)
            self._db.executemany("DELETE FROM objects WHERE resource=? AND namespace=? AND name=?", gone)
            self._db.execute("DELETE FROM revision")
            self._db.execute("INSERT INTO revision VALUES (?)", (revision,))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise HostError(f"{self._path}: {error}", hint="is there room left? df /run") from error


def _unusable(path: Path, error: Exception) -> HostError:
    cluster = path.parent.name
    return HostError(
        f"the cluster's objects cannot be read from {path}: {error}",
        hint=f"its packets still flow; nsk8s down {cluster}, and nsk8s up FILE makes it anew",
    )
