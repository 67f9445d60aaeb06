"""What an inbox goes through, from a sender's bytes to an archive, in a process that ends at a given write.

It imports no reader and no net, so that it starts fast. An archive is a folder here: a result sent twice is one file.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pleura.serve.pacs.database import Database
from pleura.serve.pacs.holders import holding
from pleura.serve.pacs.inbox import Inbox, Room
from pleura.serve.pacs.outbox import Outbox
from pleura.serve.pacs.spool import INCOMING, Beginning, Spool
from pleura.serve.pacs.upkeep import Kept, sweep, tidy

READABLE, UNREADABLE, CHANGED = "1.2.1", "1.2.2", "1.2.3"
ARRIVALS = ((READABLE, b"one"), (UNREADABLE, b"broken"), (CHANGED, b"before"), (CHANGED, b"after"))
"""In turn, by SOP Instance UID."""
WORDS = ("seg", "sc", "sr")


def open_inbox(folder: Path) -> Inbox:
    return Inbox(folder / "inbox", Room(free_bytes=0))


def arrive(inbox: Inbox, sop_instance_uid: str, content: bytes) -> Any:
    """What a listener does with one instance before it answers."""
    spool = Spool(inbox.folder / INCOMING, lambda: Beginning(b"head", "1.2.840"), 10**6)
    try:
        spool.write(content)
        return inbox.take(spool.finish(sop_instance_uid, "MODALITY"))
    finally:
        spool.close()


def work(inbox: Inbox, archive: Path) -> None:
    """Predict all that waits, and send it to the archive."""
    outbox = Outbox(inbox.folder, inbox.database, WORDS, 3600.0)
    with holding(inbox.folder) as holder:
        while (job := inbox.claim(holder)) is not None:
            content = job.path.read_bytes()
            if content.endswith(b"broken"):
                inbox.ended(job, holder, "dead", "it is broken")
                continue
            inbox.write_results(job, {word: content + word.encode() for word in WORDS})
            inbox.predicted(job, holder, ["archive"])
            for parcel in outbox.claim("archive", holder, 10):
                for file in parcel.files:
                    (archive / f"{job.sop_instance_uid}.{file.stem}").write_bytes(file.read_bytes())
                outbox.delivered(parcel, holder)
    tidy(inbox)


def run(folder: Path, answered: Callable[[int], bool], answer: Callable[[int], None]) -> None:
    """Go on where an earlier process ended. What was not answered is sent again."""
    inbox = open_inbox(folder)
    sweep(inbox, Kept(), starting=True)
    for number, (sop_instance_uid, content) in enumerate(ARRIVALS):
        if not answered(number):
            arrive(inbox, sop_instance_uid, content)
            answer(number)
            if number != 2:  # the changed one comes while the older one waits
                work(inbox, folder / "archive")
    work(inbox, folder / "archive")
    inbox.close()


def main() -> None:
    """Run, and die at the nth write. Without a number, print how many writes there are."""
    folder, last = Path(sys.argv[1]), int(sys.argv[2])
    done = 0

    def step(*_: object) -> None:
        nonlocal done
        if done == last:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1

    for name in ("replace", "fsync", "unlink", "rmdir"):
        call = getattr(os, name)
        setattr(os, name, lambda *given, call=call, **named: (step(), call(*given, **named))[1])
    connect = sqlite3.connect

    def traced(*given: Any, **named: Any) -> sqlite3.Connection:
        connection = connect(*given, **named)
        connection.set_trace_callback(lambda statement: step() if not statement.startswith("SELECT") else None)
        return connection

    sqlite3.connect = traced  # type: ignore[assignment]
    run(
        folder,
        lambda number: (folder / f"answered-{number}").exists(),
        lambda number: (folder / f"answered-{number}").touch(),
    )
    sys.stdout.write(str(done))


assert Database  # is imported before connections are traced
