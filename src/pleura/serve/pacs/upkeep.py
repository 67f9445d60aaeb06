"""Upkeep of an inbox: what dead processes held is freed, and the files of what has ended go where they belong."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pleura.files import write_atomically
from pleura.serve.pacs.holders import forget_the_dead, is_alive
from pleura.serve.pacs.inbox import DEAD, IMAGES, MAX_DEATHS, OPEN, PASSED_OVER, RESULTS, Inbox, delay_s, end
from pleura.serve.pacs.outbox import finish, release_deliveries
from pleura.serve.pacs.spool import INCOMING

_REMEMBERED_S = 3600.0
_FORGOTTEN_S = 3600.0
"""Files that no row names are nobody's after so long: nothing takes longer to arrive."""
_LATEST_DUE_S = 3600.0


@dataclass(frozen=True)
class Kept:
    """How long what has ended is kept."""

    dead_s: float = 30 * 24 * 3600.0
    """Dead letters."""
    remembered_s: float = _REMEMBERED_S
    """What was sent, by UID and hash alone, so that the same sent again is not done again."""


def sweep(inbox: Inbox, kept: Kept, starting: bool = False) -> None:
    """Free what dead holders had claimed, tidy what has ended, and forget what is old.

    starting: nothing else uses the inbox yet. Raises: sqlite3.Error, OSError, OutputError.
    """
    _free(inbox)
    if starting:
        _unbury(inbox)
    tidy(inbox)
    _forget(inbox, kept)
    _remove_strays(inbox, 0.0 if starting else _FORGOTTEN_S)
    forget_the_dead(inbox.folder)


def _free(inbox: Inbox) -> None:
    now = time.time()
    claimed = inbox.database.rows(
        "SELECT holder FROM instances WHERE state = 'predicting'"
        " UNION SELECT holder FROM deliveries WHERE state = 'sending'"
    )
    for holder in [str(holder) for (holder,) in claimed if not is_alive(inbox.folder, str(holder))]:
        with inbox.database.transaction() as db:
            tried = db.execute(
                "SELECT id, attempts FROM instances WHERE state = 'predicting' AND holder = ?", (holder,)
            ).fetchall()
            for instance, attempts in tried:
                if attempts >= MAX_DEATHS:
                    end(db, instance, "dead", f"the process that predicted it died, {attempts} times", now)
                    continue
                # After a while, and others first: it may be what killed the process.
                db.execute(
                    "UPDATE instances SET state = 'waiting', holder = NULL, due_s = ? WHERE id = ?",
                    (now + delay_s(attempts), instance),
                )
            release_deliveries(db, holder, now)
    with inbox.database.transaction() as db:  # after a clock that was wrong
        for table in ("instances", "deliveries"):
            db.execute(
                f"UPDATE {table} SET due_s = ? WHERE due_s > ? AND state = 'waiting'", (now, now + _LATEST_DUE_S)
            )


def tidy(inbox: Inbox) -> None:
    """Bring the files of what has ended where they belong: dead letters into their folder, others away.

    Doing it twice does no harm. Raises: sqlite3.Error, OutputError, OSError.
    """
    ended = inbox.database.rows(
        "SELECT id, name, state, reason, sender, received_s FROM instances"
        " WHERE ended_s IS NOT NULL AND tidied = 0 AND (state = 'dead' OR ended_s <= ?)",
        time.time() - inbox.keep_s,
    )
    for number, name, state, reason, sender, received_s in ended:
        if state == "dead":
            _bury(inbox.folder, str(name), _letter(str(reason), str(sender), float(str(received_s))))
        else:
            (inbox.folder / IMAGES / f"{name}.dcm").unlink(missing_ok=True)
        shutil.rmtree(inbox.folder / RESULTS / str(name), ignore_errors=True)
        with inbox.database.transaction() as db:
            db.execute("UPDATE instances SET tidied = 1 WHERE id = ?", (number,))


def _bury(folder: Path, name: str, letter: str) -> None:
    write_atomically(folder / DEAD / f"{name}.txt", letter.encode())
    with suppress(FileNotFoundError):  # it is there already, or is what was missing
        os.replace(folder / IMAGES / f"{name}.dcm", folder / DEAD / f"{name}.dcm")


def _letter(reason: str, sender: str, received_s: float) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(received_s))
    return f"{' '.join(reason.split())}\nreceived {when} from {sender}\n"


def _forget(inbox: Inbox, kept: Kept) -> None:
    now = time.time()
    for (name,) in inbox.database.rows(
        "SELECT name FROM instances WHERE state = 'dead' AND tidied = 1 AND ended_s < ?", now - kept.dead_s
    ):
        for suffix in (".dcm", ".txt"):
            (inbox.folder / DEAD / f"{name}{suffix}").unlink(missing_ok=True)
        with inbox.database.transaction() as db:
            db.execute("DELETE FROM instances WHERE name = ?", (name,))
    with inbox.database.transaction() as db:
        db.execute(
            "DELETE FROM instances WHERE state != 'dead' AND tidied = 1 AND ended_s < ?", (now - kept.remembered_s,)
        )


def _remove_strays(inbox: Inbox, older_than_s: float) -> None:
    """Remove files that no row names: of an instance that was never answered for."""
    before = time.time() - older_than_s
    names = {str(name) for (name,) in inbox.database.rows("SELECT name FROM instances WHERE tidied = 0")}
    for folder in (INCOMING, IMAGES, RESULTS):
        for path in list((inbox.folder / folder).iterdir()):
            with suppress(FileNotFoundError):
                if path.name.removesuffix(".dcm") in names or path.stat().st_mtime > before:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


def give_up_unnamed(inbox: Inbox, destinations: Collection[str]) -> int:
    """Give up deliveries to destinations that are not named any more; how many. Raises: sqlite3.Error."""
    now = time.time()
    open_ones = inbox.database.rows("SELECT instance, destination FROM deliveries WHERE state = 'waiting'")
    unnamed = [(instance, destination) for instance, destination in open_ones if destination not in destinations]
    for instance, destination in unnamed:
        with inbox.database.transaction() as db:
            db.execute(
                "UPDATE deliveries SET state = 'dead', reason = 'the destination is not named any more'"
                " WHERE instance = ? AND destination = ?",
                (instance, destination),
            )
            finish(db, int(str(instance)), now)
    return len(unnamed)


def retry_dead(inbox: Inbox) -> int:
    """Let dead letters be tried again from the beginning; how many. Raises: sqlite3.Error, OSError."""
    letters = [file.stem for file in (inbox.folder / DEAD).glob("*.dcm")]
    with inbox.database.transaction() as db:
        tried = sum(
            db.execute(
                "UPDATE instances SET state = 'waiting', reason = NULL, ended_s = NULL, tidied = 0, attempts = 0,"
                " due_s = ? WHERE name = ? AND state = 'dead' AND tidied = 1",
                (time.time(), name),
            ).rowcount
            for name in letters
        )
    _unbury(inbox)
    return tried


def _unbury(inbox: Inbox) -> None:
    """Bring the images of dead letters back that are to be worked on again."""
    marks = ", ".join("?" * len(OPEN))
    names = {
        str(name) for (name,) in inbox.database.rows(f"SELECT name FROM instances WHERE state IN ({marks})", *OPEN)
    }
    for file in list((inbox.folder / DEAD).glob("*.dcm")):
        if file.stem in names:
            os.replace(file, inbox.folder / IMAGES / file.name)
            file.with_suffix(".txt").unlink(missing_ok=True)


def forget_other_settings(inbox: Inbox, settings: str) -> None:
    """Forget what was delivered with other settings: sent again, it is done again. Raises: sqlite3.Error."""
    with inbox.database.transaction() as db:
        if db.execute("SELECT value FROM settings").fetchall() != [(settings,)]:
            db.execute("DELETE FROM instances WHERE state IN ('delivered', 'replaced') AND tidied = 1")
            db.execute("DELETE FROM settings")
            db.execute("INSERT INTO settings VALUES (?)", (settings,))


def open_counts(inbox: Inbox) -> dict[str, Any]:
    """Return how many instances and deliveries are in which state, and what was counted. Raises: sqlite3.Error."""
    states = {
        str(state): int(str(number))
        for state, number in inbox.database.rows("SELECT state, COUNT(*) FROM instances GROUP BY state")
    }
    waiting = inbox.database.rows(
        "SELECT destination, COUNT(*), SUM(attempts > 0) FROM deliveries WHERE state IN ('waiting', 'sending')"
        " GROUP BY destination"
    )
    ((oldest,),) = inbox.database.rows(
        f"SELECT MIN(received_s) FROM instances WHERE state IN ({', '.join('?' * len(OPEN))})", *OPEN
    )
    rows = inbox.database.rows("SELECT name, value FROM counts ORDER BY name")
    counted = {str(name): int(str(value)) for name, value in rows}
    kinds = {name: value for name, value in counted.items() if name.startswith(PASSED_OVER)}
    return {
        "now": {state: states.get(state, 0) for state in (*OPEN, "dead")},
        "oldest_s": None if oldest is None else round(max(0.0, time.time() - float(str(oldest))), 1),
        "to_deliver": {
            str(where): {"waiting": int(str(number)), "tried before": int(str(tried))}
            for where, number, tried in waiting
        },
        "so_far": {name: value for name, value in counted.items() if name not in kinds},
        "passed_over": {name.removeprefix(PASSED_OVER): value for name, value in kinds.items()},
    }
