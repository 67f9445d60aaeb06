"""Sends results on: a thread for each destination, which goes on until all of them are there.

A destination that cannot be reached is left alone for a while, and what waits for it waits. One that refuses a result
is sent that result again later, and the others go on.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from typing import Protocol

from pleura.errors import PleuraError
from pleura.serve.logs import log, log_error
from pleura.serve.pacs.holders import holding
from pleura.serve.pacs.inbox import delay_s
from pleura.serve.pacs.outbox import Outbox, Parcel

AT_ONCE = 16
"""Parcels in one association or session: to open one costs more than to send a small object."""
_POLL_S = 0.25


class UnreachableError(PleuraError):
    """A destination did not answer, or not to us."""

    def __init__(self, reason: str, during: Parcel | None = None) -> None:
        """during: what was being sent, where the destination was there at first."""
        super().__init__(reason)
        self.during = during


class Destination(Protocol):
    """Where results are sent."""

    name: str

    def send(self, parcels: Sequence[Parcel]) -> Iterator[tuple[Parcel, str | None]]:
        """Send parcels in turn; yields each with why it was refused, or None. Raises: UnreachableError."""


class Delivery(threading.Thread):
    """Brings everything that is due to one destination."""

    def __init__(self, outbox: Outbox, destination: Destination) -> None:
        super().__init__(name=f"to {destination.name}", daemon=True)
        self.outbox, self.destination = outbox, destination
        self.failures = 0
        """In a row, of reaching the destination."""
        self.last_failure = ""
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Let it end after what it is sending."""
        self._stopping.set()

    def run(self) -> None:
        """Send until stopped."""
        pause_s = 0.0
        with holding(self.outbox.folder) as holder:
            while not self._stopping.wait(pause_s):
                try:
                    pause_s = self._round(holder)
                except sqlite3.Error as error:
                    log_error("tables not written", error)
                    pause_s = delay_s(1)

    def _round(self, holder: str) -> float:
        """Send what is due; returns how long to pause. Raises: sqlite3.Error."""
        self.outbox.release(holder)  # what a full disk kept from being written down
        name = self.destination.name
        parcels = self.outbox.claim(name, holder, AT_ONCE)
        if not parcels:
            return _POLL_S
        whole = [parcel for parcel in parcels if parcel.files]
        for parcel in parcels:
            if not parcel.files:
                self.outbox.lost(parcel, holder)
        try:
            for parcel, refusal in self.destination.send(whole) if whole else ():
                self._settle(parcel, holder, refusal)
                if self._stopping.is_set():
                    break
        except UnreachableError as error:
            if error.during is not None:  # it may be this very object that ends every association
                self._settle(error.during, holder, str(error))
            self.outbox.release(holder)
            return self._wait_for_it(str(error))
        if self.failures:
            log("reached again", to=name)
        self.failures, self.last_failure = 0, ""
        return 0.0

    def _settle(self, parcel: Parcel, holder: str, refusal: str | None) -> None:
        if refusal is None:
            self.outbox.delivered(parcel, holder)
            log("delivered", name=parcel.name, to=self.destination.name)
            return
        then = "given up" if self.outbox.refused(parcel, holder, refusal) else "tried again"
        log("refused", logging.WARNING, name=parcel.name, to=self.destination.name, reason=refusal, then=then)

    def _wait_for_it(self, reason: str) -> float:
        self.failures += 1
        pause_s = delay_s(self.failures)
        if reason != self.last_failure or self.failures % 10 == 0:
            log("not reached", logging.WARNING, to=self.destination.name, reason=reason, then="tried again")
        self.last_failure = reason
        late = self.outbox.give_up_late(self.destination.name, f"not reached: {reason}")
        if late:
            log("given up", logging.ERROR, to=self.destination.name, instances=late)
        return pause_s
