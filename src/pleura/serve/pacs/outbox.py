"""Results on their way: one delivery for each instance and destination, tried until it succeeds or is given up."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from pleura.serve.pacs.database import Database, count
from pleura.serve.pacs.inbox import RESULTS, delay_s, end


@dataclass(frozen=True)
class Parcel:
    """The results of one instance for one destination, claimed for sending."""

    instance: int
    name: str
    destination: str
    files: tuple[Path, ...]
    """In the order to send them in: a report after what it refers to. None where they are gone."""
    attempts: int
    """Before this one."""
    since_s: float


class Outbox:
    """The deliveries of an inbox folder."""

    def __init__(self, folder: Path, database: Database, words: tuple[str, ...], give_up_s: float) -> None:
        """words: of the results, in the order to send them in. give_up_s: how long a delivery is tried."""
        self.folder, self.database, self.words, self.give_up_s = folder, database, words, give_up_s

    def claim(self, destination: str, holder: str, at_most: int) -> list[Parcel]:
        """Claim what is due for a destination, the longest due first. Raises: sqlite3.Error."""
        now = time.time()
        claimed = []
        with self.database.transaction() as db:
            due = db.execute(
                "SELECT d.instance, i.name, d.attempts, d.since_s FROM deliveries AS d JOIN instances AS i"
                " ON i.id = d.instance WHERE d.destination = ? AND d.state = 'waiting' AND d.due_s <= ?"
                " ORDER BY d.due_s, d.instance LIMIT ?",
                (destination, now, at_most),
            ).fetchall()
            for instance, name, attempts, since_s in due:
                changed = db.execute(
                    "UPDATE deliveries SET state = 'sending', holder = ?"
                    " WHERE instance = ? AND destination = ? AND state = 'waiting'",
                    (holder, instance, destination),
                )
                if changed.rowcount == 1:
                    claimed.append(Parcel(instance, name, destination, self._files(name), attempts, since_s))
        return claimed

    def _files(self, name: str) -> tuple[Path, ...]:
        folder = self.folder / RESULTS / name
        there = {file.stem: file for file in folder.glob("*.dcm")} if folder.is_dir() else {}
        ordered = [word for word in self.words if word in there]
        return tuple(there[word] for word in (*ordered, *sorted(there.keys() - {*ordered})))

    def delivered(self, parcel: Parcel, holder: str) -> None:
        """Let a delivery have succeeded. Raises: sqlite3.Error."""
        with self.database.transaction() as db:
            if self._settle(db, parcel, holder, "delivered", None):
                count(db, "deliveries")
                finish(db, parcel.instance, time.time())

    def refused(self, parcel: Parcel, holder: str, reason: str) -> bool:
        """Try a delivery again later, or give it up after so long a time; whether that is so. Raises: sqlite3.Error."""
        now = time.time()
        is_over = now - parcel.since_s > self.give_up_s
        with self.database.transaction() as db:
            state = "dead" if is_over else "waiting"
            if self._settle(db, parcel, holder, state, reason):
                count(db, "deliveries refused")
                db.execute(
                    "UPDATE deliveries SET attempts = attempts + 1, due_s = ? WHERE instance = ? AND destination = ?",
                    (now + delay_s(parcel.attempts + 1), parcel.instance, parcel.destination),
                )
                finish(db, parcel.instance, now)
        return is_over

    def give_up_late(self, destination: str, reason: str) -> int:
        """Give up what has waited too long for a destination that is not reached; how many. Raises: sqlite3.Error."""
        now = time.time()
        with self.database.transaction() as db:
            late = db.execute(
                "SELECT instance FROM deliveries WHERE destination = ? AND state = 'waiting' AND since_s < ?",
                (destination, now - self.give_up_s),
            ).fetchall()
            for (instance,) in late:
                db.execute(
                    "UPDATE deliveries SET state = 'dead', reason = ? WHERE instance = ? AND destination = ?",
                    (reason, instance, destination),
                )
                finish(db, instance, now)
        return len(late)

    def lost(self, parcel: Parcel, holder: str) -> None:
        """Let an instance be predicted again whose results are gone. Raises: sqlite3.Error."""
        with self.database.transaction() as db:
            if self._settle(db, parcel, holder, "waiting", None):
                db.execute("DELETE FROM deliveries WHERE instance = ? AND state != 'sending'", (parcel.instance,))
                db.execute(
                    "UPDATE instances SET state = 'waiting', due_s = ? WHERE id = ? AND state = 'sending'",
                    (time.time(), parcel.instance),
                )

    def release(self, holder: str) -> None:
        """Give back what a holder has claimed; it counts as no attempt. Raises: sqlite3.Error."""
        now = time.time()
        with self.database.transaction() as db:
            release_deliveries(db, holder, now)

    def _settle(self, db: sqlite3.Connection, parcel: Parcel, holder: str, state: str, reason: str | None) -> bool:
        changed = db.execute(
            "UPDATE deliveries SET state = ?, holder = NULL, reason = ?"
            " WHERE instance = ? AND destination = ? AND state = 'sending' AND holder = ?",
            (state, reason, parcel.instance, parcel.destination, holder),
        )
        return changed.rowcount == 1


def release_deliveries(db: sqlite3.Connection, holder: str, now: float) -> None:
    """Give back the deliveries that a holder has claimed, inside a transaction."""
    mine = db.execute("SELECT instance FROM deliveries WHERE holder = ? AND state = 'sending'", (holder,)).fetchall()
    db.execute(
        "UPDATE deliveries SET state = 'waiting', holder = NULL WHERE holder = ? AND state = 'sending'", (holder,)
    )
    for (instance,) in mine:
        finish(db, instance, now)


def finish(db: sqlite3.Connection, instance: int, now: float) -> None:
    """End an instance none of whose deliveries is left to do, inside a transaction.

    One that a newer instance has replaced is not tried again.
    """
    db.execute(
        "UPDATE deliveries SET state = 'replaced' WHERE instance = ? AND state = 'waiting' AND EXISTS"
        " (SELECT 1 FROM instances AS newer JOIN instances AS one ON newer.sop_instance_uid = one.sop_instance_uid"
        " WHERE one.id = ? AND newer.id > one.id)",
        (instance, instance),
    )
    states = dict(db.execute("SELECT destination, state FROM deliveries WHERE instance = ?", (instance,)).fetchall())
    ((now_state,),) = db.execute("SELECT state FROM instances WHERE id = ?", (instance,)).fetchall()
    if now_state != "sending" or {"waiting", "sending"} & {*states.values()}:
        return
    state = next((one for one in ("dead", "replaced") if one in states.values()), "delivered")
    reasons = db.execute(
        "SELECT destination, reason FROM deliveries WHERE instance = ? AND state = 'dead'", (instance,)
    ).fetchall()
    end(db, instance, state, "; ".join(f"not delivered to {where}: {why}" for where, why in reasons) or None, now)
