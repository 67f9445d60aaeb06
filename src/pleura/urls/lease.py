"""One writer for what lies below a URL, as far as a store can say: an object that its writer keeps renewing.

What holds: of two processes that begin at once one is refused, where the store can create an object on condition that
it is not there; where it ignores that, both read back who has it, and the later one wins. The lease of a process that
died is taken over after `LEASE_S` without a sign of it; on the same machine at once, where a real lock says that it is
dead. What no store can promise: a process that was stopped for longer than that and wakes may still write the objects
that it is at, which have the same content as those of who took over. Before a line of the journal it looks at the
lease; stopped between that look and its write, it may write even such a line.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from contextlib import suppress
from types import TracebackType

from pleura.errors import InputError, OutputError, PleuraError, StoreError
from pleura.urls.store import AbsentError, create, delete, get, put
from pleura.urls.url import Url

NAME = ".lock"
RENEW_S, LEASE_S = 10.0, 30.0
_MOST_BYTES = 1000


def _now() -> float:
    """Seconds, those too that this machine slept for, where its system counts them."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class Lease:
    """The right to write below a URL. Inside `with`."""

    def __init__(self, out: Url, owner: str, what: str) -> None:
        """owner: differs from that of every process that may live. what: ends the refusal "another process ..."."""
        self.out, self.owner, self.what = out, owner, what
        self._object = out / NAME
        self._count = 0
        self._renewed = _now()
        self.is_lost = False
        """Whether another process has it, as far as was seen."""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Lease:
        """Raises: OutputError if another process has it, StoreError."""
        self._take()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()
        with suppress(PleuraError):  # it runs out
            if self._read()[0] == self.owner:
                delete(self._object)

    def check(self) -> None:
        """Raises: OutputError if another process may have it by now."""
        if self.is_lost or _now() - self._renewed > LEASE_S:
            raise OutputError(
                f"{self.out}: another process {self.what}, or this one could not renew its lease for {LEASE_S:g} s; "
                "run the same command again to go on"
            )

    def _take(self) -> None:
        if not create(self._object, self._content()):
            before = self._read()
            if not before[0] and create(self._object, self._content()):  # the one of before has just gone
                before = self._read()
            if before[0] not in ("", self.owner):
                waits = f"{self.out}: waiting for {LEASE_S:g} s to see whether another process still writes there"
                logging.getLogger("pleura").info(waits)
                self._watch(before)
            put(self._object, self._content())
        if self._read()[0] != self.owner:
            self._refuse()
        self._renewed = _now()

    def _watch(self, before: tuple[str, int]) -> None:
        ends = _now() + LEASE_S
        while _now() < ends:
            time.sleep(min(1.0, LEASE_S / 10))
            now = self._read()
            if not now[0]:
                return
            if now != before:
                self._refuse()

    def _refuse(self) -> None:
        raise OutputError(
            f"{self.out}: another process {self.what}; wait for it or stop it, or if there is none "
            f"remove {self._object}"
        )

    def _content(self) -> bytes:
        return json.dumps({"owner": self.owner, "renewed": self._count}).encode()

    def _read(self) -> tuple[str, int]:
        """The owner, and how often it has renewed; ("", 0) where there is none. Raises: StoreError."""
        try:
            said = json.loads(get(self._object, _MOST_BYTES))
            return str(said["owner"]), int(said["renewed"])
        except AbsentError:
            return "", 0
        except InputError as error:  # whose it is cannot be known
            raise StoreError(str(error)) from None
        except (ValueError, KeyError, TypeError):
            return "?", 0

    def _renew(self) -> None:
        while not self._end.wait(RENEW_S):
            with suppress(PleuraError):  # `check` sees that it has not been renewed for long
                began = _now()
                if self._read()[0] != self.owner:
                    self.is_lost = True
                    return
                self._count += 1
                put(self._object, self._content())
                self._renewed = began
