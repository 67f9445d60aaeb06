"""The durable inbox: each instance that was answered for is worked on once in effect, whatever process is killed when.

An image is on the disk before the row that names it, and the row before the answer to its sender. Of what has ended the
row changes first, and its files go after that. So whatever moment a process dies at, the next one finds either a row
with its files, or files that no row names, which are removed.

The same bytes sent again are the same work, until an hour after the delivery. Other bytes under the same SOP Instance
UID, such as a corrected header, are new work that replaces the older: the results have the same UIDs, and those of the
newer are delivered last.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from pleura.errors import PleuraError
from pleura.files import sync_folder, write_atomically
from pleura.serve.pacs.database import Database, count
from pleura.serve.pacs.spool import INCOMING, Arrival

IMAGES, RESULTS, DEAD = "images", "results", "dead"
MAX_ATTEMPTS = 3
"""At predicting one instance that fails for reasons that are not the file's."""
MAX_DEATHS = 5
"""Attempts at predicting one instance after which a process that died with it was the last: more than MAX_ATTEMPTS,
because it may have been the power, or an operator."""
PASSED_OVER = "passed over: "
"""Before a kind, in the names of counts."""
OPEN = ("waiting", "predicting", "sending")
"""The states of instances that are still to be worked on."""
_CAP_S, _BASE_S = 15 * 60.0, 5.0


class InboxFullError(PleuraError):
    """There is no room for another instance; its sender keeps it and sends it again."""


class Taken(Enum):
    """What an instance is to an inbox."""

    NEW = "new"
    AGAIN = "again"
    """The same bytes are there already, or were lately."""
    CHANGED = "changed"
    """The same UID with other bytes: it replaces the older ones."""


@dataclass(frozen=True)
class Room:
    """How much an inbox takes."""

    files: int = 10_000
    """Not yet delivered."""
    bytes: int = 20 * 10**9
    """Of these."""
    free_bytes: int = 10**9
    """Left on the disk, so that there is room to predict and deliver what is there."""


@dataclass(frozen=True)
class Job:
    """An instance that a worker has claimed."""

    id: int
    name: str
    sop_instance_uid: str
    path: Path
    attempts: int
    """With this one."""


def delay_s(attempts: int) -> float:
    """How long to wait after the nth failure: twice as long each time, up to 15 minutes, less up to half by chance."""
    return min(_CAP_S, _BASE_S * 2.0 ** min(max(attempts, 1) - 1, 30)) * random.uniform(0.5, 1.0)


class Inbox:
    """One process's view of an inbox folder."""

    def __init__(self, folder: Path, room: Room | None = None, keep_s: float = 0.0) -> None:
        """keep_s: how long the files of what has ended well are kept. Raises: OutputError."""
        self.folder, self.room, self.keep_s = folder, room or Room(), keep_s
        self.database = Database(folder)
        for name in (INCOMING, IMAGES, RESULTS, DEAD):
            (folder / name).mkdir(exist_ok=True, mode=0o700)

    def close(self) -> None:
        """Close the connection to its tables."""
        self.database.close()

    def check_room(self, more_bytes: int = 0) -> None:
        """Refuse what there is no room for. Raises: InboxFullError; OSError, sqlite3.Error."""
        if shutil.disk_usage(self.folder).free - more_bytes < self.room.free_bytes:
            raise InboxFullError("the disk of the inbox is full")
        marks = ", ".join("?" * len(OPEN))
        ((files, size),) = self.database.rows(
            f"SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM instances WHERE state IN ({marks})", *OPEN
        )
        if int(str(files)) >= self.room.files or int(str(size)) + more_bytes > self.room.bytes:
            raise InboxFullError("the inbox is full")

    def take(self, arrival: Arrival) -> Taken:
        """Take an instance that is whole on the disk; when this returns it is safe to answer its sender.

        Raises: InboxFullError; OSError, sqlite3.Error where it cannot be written. The sender still has it then.
        """
        if self._is(arrival) is Taken.AGAIN:
            return self._again(arrival)
        self.check_room(arrival.size_bytes)
        image = self.folder / IMAGES / f"{arrival.name}.dcm"
        os.replace(arrival.path, image)
        sync_folder(image.parent)
        now = time.time()
        # After an error of the commit a row may be there or not: its file stays, and goes later if no row names it.
        with self.database.transaction() as db:
            taken = self._is(arrival)
            if taken is not Taken.AGAIN:
                _replace_older(db, arrival.sop_instance_uid, now)
                db.execute(
                    "INSERT INTO instances (name, sop_instance_uid, sha256, bytes, sender, received_s, state, due_s)"
                    " VALUES (?, ?, ?, ?, ?, ?, 'waiting', ?)",
                    (
                        arrival.name,
                        arrival.sop_instance_uid,
                        arrival.sha256,
                        arrival.size_bytes,
                        arrival.sender,
                        now,
                        now,
                    ),
                )
                count(db, "received")
                count(db, "received changed", int(taken is Taken.CHANGED))
        if taken is Taken.AGAIN:  # another association was faster
            image.unlink(missing_ok=True)
            return self._again(arrival)
        return taken

    def _is(self, arrival: Arrival) -> Taken:
        """What an instance is beside the latest one of its UID. What was not predicted is new when it is sent again."""
        found = self.database.rows(
            "SELECT sha256, state FROM instances WHERE sop_instance_uid = ? ORDER BY id DESC LIMIT 1",
            arrival.sop_instance_uid,
        )
        if not found:
            return Taken.NEW
        sha256, state = found[0]
        if sha256 != arrival.sha256:
            return Taken.CHANGED
        return Taken.NEW if state in ("dead", "passed_over") else Taken.AGAIN

    def _again(self, arrival: Arrival) -> Taken:
        with suppress(OSError):
            arrival.path.unlink(missing_ok=True)
        self.count("received again")
        return Taken.AGAIN

    def count(self, *names: str) -> None:
        """Add one to counts that the status shows. Raises: sqlite3.Error."""
        with self.database.transaction() as db:
            for name in names:
                count(db, name)

    def claim(self, holder: str) -> Job | None:
        """Claim the instance that has waited longest, if any is due. Raises: sqlite3.Error."""
        now = time.time()
        with self.database.transaction() as db:
            found = db.execute(
                "SELECT id, name, sop_instance_uid, attempts FROM instances AS one WHERE state = 'waiting'"
                " AND due_s <= ? AND NOT EXISTS (SELECT 1 FROM instances AS other"
                " WHERE other.sop_instance_uid = one.sop_instance_uid AND other.id < one.id"
                " AND other.state IN ('predicting', 'sending')) ORDER BY due_s, id LIMIT 1",
                (now,),
            ).fetchone()
            if found is None:
                return None
            claimed = db.execute(
                "UPDATE instances SET state = 'predicting', holder = ?, claimed_s = ?, attempts = attempts + 1"
                " WHERE id = ? AND state = 'waiting'",
                (holder, now, found[0]),
            )
            if claimed.rowcount != 1:
                return None
        number, name, sop_instance_uid, attempts = found
        return Job(number, name, sop_instance_uid, self.folder / IMAGES / f"{name}.dcm", attempts + 1)

    def write_results(self, job: Job, results: Mapping[str, bytes]) -> None:
        """Write the objects of an instance, word -> file. Raises: OutputError."""
        folder = self.folder / RESULTS / job.name
        for word, content in results.items():
            write_atomically(folder / f"{word}.dcm", content)
        sync_folder(folder)
        sync_folder(folder.parent)

    def predicted(self, job: Job, holder: str, destinations: Sequence[str]) -> None:
        """Hand an instance whose results are written on to the deliveries. Raises: sqlite3.Error."""
        now = time.time()
        with self.database.transaction() as db:
            if not _still_mine(db, job, holder):
                return
            if _is_replaced(db, job.id):
                end(db, job.id, "replaced", None, now)
                return
            db.execute("UPDATE instances SET state = 'sending', holder = NULL WHERE id = ?", (job.id,))
            db.execute("DELETE FROM deliveries WHERE instance = ?", (job.id,))
            db.executemany(
                "INSERT INTO deliveries (instance, destination, state, since_s, due_s) VALUES (?, ?, 'waiting', ?, ?)",
                [(job.id, destination, now, now) for destination in destinations],
            )
            count(db, "predicted")

    def ended(self, job: Job, holder: str, state: str, reason: str, kind: str | None = None) -> None:
        """End an instance without results: `passed_over`, or `dead` with its reason. Raises: sqlite3.Error.

        kind: of what is passed over, counted by it; says nothing of a patient.
        """
        with self.database.transaction() as db:
            if not _still_mine(db, job, holder):
                return
            is_replaced = _is_replaced(db, job.id)
            end(db, job.id, "replaced" if is_replaced else state, reason, time.time())
            if kind is not None and not is_replaced:
                count(db, f"{PASSED_OVER}{kind}")

    def failed(self, job: Job, holder: str, reason: str) -> bool:
        """Try an instance again later, or let it be dead after the last attempt; whether that is so.

        Raises: sqlite3.Error.
        """
        if job.attempts >= MAX_ATTEMPTS:
            self.ended(job, holder, "dead", f"{reason} (in each of {job.attempts} attempts)")
            return True
        self.release(holder, due_s=time.time() + delay_s(job.attempts))
        return False

    def release(self, holder: str, due_s: float = 0.0, counts: bool = True) -> None:
        """Give back what a holder has claimed. counts: as an attempt. Raises: sqlite3.Error."""
        with self.database.transaction() as db:
            db.execute(
                "UPDATE instances SET state = 'waiting', holder = NULL, due_s = MAX(due_s, ?), attempts = attempts - ?"
                " WHERE holder = ? AND state = 'predicting'",
                (due_s, int(not counts), holder),
            )


def end(db: sqlite3.Connection, instance: int, state: str, reason: str | None, now: float) -> None:
    """Let an instance have ended, inside a transaction."""
    db.execute(
        "UPDATE instances SET state = ?, reason = ?, holder = NULL, ended_s = ? WHERE id = ?",
        (state, reason, now, instance),
    )
    count(db, state.replace("_", " "))


def _still_mine(db: sqlite3.Connection, job: Job, holder: str) -> bool:
    """Whether a claim still holds: it was freed if this process seemed to be dead."""
    found = db.execute("SELECT holder, state FROM instances WHERE id = ?", (job.id,)).fetchone()
    return bool(found == (holder, "predicting"))


def _is_replaced(db: sqlite3.Connection, instance: int) -> bool:
    found = db.execute(
        "SELECT 1 FROM instances AS newer JOIN instances AS one ON newer.sop_instance_uid = one.sop_instance_uid"
        " WHERE one.id = ? AND newer.id > one.id LIMIT 1",
        (instance,),
    ).fetchone()
    return found is not None


def _replace_older(db: sqlite3.Connection, sop_instance_uid: str, now: float) -> None:
    """End what is under way of the older instances of a UID, but for what is claimed: that ends when it is let go."""
    db.execute(
        "UPDATE deliveries SET state = 'replaced' WHERE state = 'waiting' AND instance IN"
        " (SELECT id FROM instances WHERE sop_instance_uid = ?)",
        (sop_instance_uid,),
    )
    ends = db.execute(
        "SELECT id FROM instances WHERE sop_instance_uid = ? AND (state = 'waiting' OR (state = 'sending'"
        " AND NOT EXISTS (SELECT 1 FROM deliveries WHERE instance = instances.id AND state = 'sending')))",
        (sop_instance_uid,),
    ).fetchall()
    for (instance,) in ends:
        end(db, instance, "replaced", None, now)
