"""The processes that predict, kept going: one that dies is started again, one that takes too long is ended."""

from __future__ import annotations

import logging
import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from pleura.errors import CheckpointError
from pleura.serve.logs import log
from pleura.serve.pacs.inbox import Inbox, delay_s
from pleura.serve.pacs.worker import READY, STOP, Work, run_worker

_LOADS_WITHIN_S = 600.0
_STOPS_WITHIN_S = 60.0


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    is_ready: bool = False
    """Whether it has loaded the model."""


class Workers:
    """Some processes that do the same work."""

    def __init__(self, work: Work, count: int, limit_s: float) -> None:
        """limit_s: the longest that one instance may take."""
        self.work, self.count, self.limit_s = work, count, limit_s
        self.identity = ""
        """What results are by, in one line."""
        self._workers: list[_Worker] = []
        self._deaths, self._start_again_s = 0, 0.0

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.identity.partition(";")[0]

    @property
    def alive(self) -> int:
        """How many are there."""
        return sum(worker.process.is_alive() for worker in self._workers)

    def start(self) -> None:
        """Start them, and wait until the first has loaded the model. Raises: CheckpointError if it cannot."""
        self._workers = [self._new() for _ in range(self.count)]
        first = self._workers[0]
        if not first.connection.poll(_LOADS_WITHIN_S):
            raise CheckpointError(f"the model is not loaded after {_LOADS_WITHIN_S:.0f} s; look at the machine's load")
        try:
            word, said = first.connection.recv()
        except EOFError as error:
            raise CheckpointError("the process that loads the model died; look at the machine's memory") from error
        if word != READY:
            raise CheckpointError(said)
        self.identity, first.is_ready = said, True

    def look_after(self, inbox: Inbox) -> bool:
        """End what takes too long, and start what has died; whether one had, so that its claims are to be freed.

        Raises: sqlite3.Error.
        """
        self._end_the_slow(inbox)
        dead = [worker for worker in self._workers if not worker.process.is_alive()]
        for worker in self._workers:
            worker.is_ready = worker.is_ready or _says_ready(worker.connection)
        for worker in dead:
            worker.connection.close()
            self._workers.remove(worker)
            # One that cannot even load the model is not started again at once; what an image did to it is no reason.
            self._deaths = 0 if worker.is_ready else self._deaths + 1
            self._start_again_s = time.monotonic() + (delay_s(self._deaths) if self._deaths else 0.0)
            log("worker died", logging.ERROR, exit_code=worker.process.exitcode)
        if len(self._workers) < self.count and time.monotonic() >= self._start_again_s:
            self._workers.append(self._new())
        return bool(dead)

    def _end_the_slow(self, inbox: Inbox) -> None:
        """Kill the workers where one instance has taken too long: which of them has it is not known here."""
        slow = inbox.database.rows(
            "SELECT name FROM instances WHERE state = 'predicting' AND claimed_s < ?", time.time() - self.limit_s
        )
        for (name,) in slow:
            log("worker ended, as it took too long", logging.ERROR, name=name, limit_s=self.limit_s)
        if slow:
            for worker in self._workers:
                worker.process.kill()
                worker.process.join(10.0)

    def stop(self) -> None:
        """Let each finish what it does, for so long, and end them."""
        for worker in self._workers:
            try:
                worker.connection.send(STOP)
            except OSError:
                continue  # it has died
        ends = time.monotonic() + _STOPS_WITHIN_S
        for worker in self._workers:
            worker.process.join(max(0.1, ends - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join(10.0)
            worker.connection.close()

    def _new(self) -> _Worker:
        context = multiprocessing.get_context("spawn")  # neither threads nor connections of this process
        ours, theirs = context.Pipe()
        process = context.Process(target=run_worker, args=(self.work, theirs), name="predict")
        process.start()
        theirs.close()  # so that the other end is noticed
        return _Worker(process, ours)


def _says_ready(connection: Connection) -> bool:
    try:
        return connection.poll() and connection.recv()[0] == READY
    except (EOFError, OSError):
        return False
