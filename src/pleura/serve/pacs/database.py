"""The tables of an inbox: which instances and deliveries there are, and what has become of them. SQLite in WAL mode.

A commit is on the disk when it returns. Several processes open the same file, each with a connection of its own.
Source: https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html#pragma_synchronous.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pleura.errors import OutputError

FILE = "inbox.sqlite"
VERSION = 1
_BUSY_S = 30.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS instances (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,            -- of its files
    sop_instance_uid TEXT NOT NULL,
    sha256 TEXT NOT NULL,                 -- of transfer syntax and dataset
    bytes INTEGER NOT NULL,
    sender TEXT NOT NULL,                 -- the calling AE title
    received_s REAL NOT NULL,             -- since 1970, as all times
    state TEXT NOT NULL,                  -- waiting, predicting, sending; delivered, passed_over, replaced, dead
    holder TEXT,                          -- of the claim, while it is predicted
    claimed_s REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due_s REAL NOT NULL,
    reason TEXT,                          -- may quote the file: never logged
    ended_s REAL,
    tidied INTEGER NOT NULL DEFAULT 0     -- its files are where they belong after the end
);
CREATE INDEX IF NOT EXISTS instances_by_uid ON instances (sop_instance_uid, id);
CREATE INDEX IF NOT EXISTS instances_by_state ON instances (state, due_s);
CREATE INDEX IF NOT EXISTS instances_to_tidy ON instances (ended_s) WHERE tidied = 0;
CREATE TABLE IF NOT EXISTS deliveries (
    instance INTEGER NOT NULL REFERENCES instances ON DELETE CASCADE,
    destination TEXT NOT NULL,
    state TEXT NOT NULL,                  -- waiting, sending; delivered, replaced, dead
    holder TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    since_s REAL NOT NULL,
    due_s REAL NOT NULL,
    reason TEXT,
    PRIMARY KEY (instance, destination)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deliveries_by_state ON deliveries (destination, state, due_s);
CREATE TABLE IF NOT EXISTS counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settings (value TEXT NOT NULL);  -- what results are made with
"""


class Database:
    """One process's connection to the tables of an inbox; its threads take turns."""

    def __init__(self, folder: Path) -> None:
        """Open the tables, and make them where there are none.

        Raises: OutputError where the folder cannot be written, or they are of another version of pleura, or damaged.
        """
        path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise OutputError(f"{path}: was written by another version of pleura; empty that inbox with it first")
            if version == 0:
                self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        except (OSError, sqlite3.Error) as error:
            raise OutputError(
                f"{path}: cannot be opened ({error}); check the folder, or name another --inbox"
            ) from error
        self._turn = threading.RLock()

    def close(self) -> None:
        """Close the connection."""
        with self._turn:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection inside a transaction: all of it is on the disk then, or none. Raises: sqlite3.Error."""
        with self._turn, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """Return what a query finds. Raises: sqlite3.Error."""
        with self._turn:
            return self._db.execute(query, values).fetchall()


def count(db: sqlite3.Connection, name: str, by: int = 1) -> None:
    """Add to a count, inside a transaction."""
    db.execute(
        "INSERT INTO counts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value", (name, by)
    )
