"""`pleura listen`: receives radiographs, finds pneumothorax, and sends the results on, until it is told to stop.

This process receives and delivers; another one predicts. All that either knows is in the inbox folder, so that each may
die at any moment, and the next one goes on.
"""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pleura.errors import PleuraError, writing
from pleura.files import held
from pleura.serve.logs import log, log_error
from pleura.serve.pacs.delivery import Delivery, Destination
from pleura.serve.pacs.inbox import Inbox, Room
from pleura.serve.pacs.listener import Access, Listener
from pleura.serve.pacs.logs import begin_log
from pleura.serve.pacs.outbox import Outbox
from pleura.serve.pacs.status import StatusPage
from pleura.serve.pacs.upkeep import Kept, forget_other_settings, give_up_unnamed, open_counts, retry_dead, sweep, tidy
from pleura.serve.pacs.worker import Work
from pleura.serve.pacs.workers import Workers

_TICK_S, _SWEEP_S = 1.0, 60.0


@dataclass(frozen=True)
class ListenSettings:
    """All that `pleura listen` is told."""

    inbox: Path
    ae_title: str
    destinations: Sequence[Destination]
    load: Callable[[], Any]
    """Returns the Predictor, in the process that predicts. Passed to it."""
    host: str = "127.0.0.1"
    port: int = 11112
    words: tuple[str, ...] = ("seg", "sc", "sr")
    access: Access = field(default_factory=Access)
    room: Room = field(default_factory=Room)
    kept: Kept = field(default_factory=Kept)
    keep_s: float = 0.0
    """How long files are kept after their delivery."""
    give_up_s: float = 72 * 3600.0
    """How long a delivery is tried."""
    limit_s: float = 300.0
    """The longest that predicting one instance may take."""
    workers: int = 1
    take_all: bool = False
    any_radiograph: bool = False
    prevalence: float | None = None
    retry_dead: bool = False
    status_port: int | None = None
    """Of the status page, on loopback alone; None: there is none."""


def listen(settings: ListenSettings, ready: Callable[[int], None] = lambda _: None) -> None:
    """Listen until SIGTERM or Ctrl-C; what was taken by then is in the inbox, and is gone on with at the next start.

    ready: called with the port once it listens. Raises: OutputError where the inbox or an address cannot be had;
    CheckpointError, InputError where the model cannot be loaded.
    """
    with ExitStack() as stack:
        with writing(settings.inbox):
            settings.inbox.mkdir(mode=0o700, parents=True, exist_ok=True)
        stack.enter_context(held(settings.inbox, "listens with this inbox"))
        stopping = stack.enter_context(_told_to_stop())
        os.umask(0o077)  # all that is written is about patients
        begin_log(logging.getLogger("pleura").level)
        inbox = Inbox(settings.inbox, settings.room, settings.keep_s)
        stack.callback(inbox.close)
        _recover(settings, inbox)
        workers = stack.enter_context(_workers(settings))
        forget_other_settings(inbox, f"{workers.identity}; {', '.join(settings.words)}")
        stack.callback(_tidy, inbox)
        outbox = Outbox(settings.inbox, inbox.database, settings.words, settings.give_up_s)
        deliveries = [Delivery(outbox, destination) for destination in settings.destinations]
        for delivery in deliveries:
            delivery.start()
        stack.callback(_stop_deliveries, deliveries)
        listener = Listener(inbox, settings.ae_title, settings.access, settings.take_all)
        port = listener.start(settings.host, settings.port)
        stack.callback(listener.stop)
        if settings.status_port is not None:
            page = StatusPage(settings.status_port, lambda: _status(inbox, workers, deliveries, listener))
            stack.enter_context(page)
        names = [destination.name for destination in settings.destinations]
        log("listening", ae_title=settings.ae_title, host=settings.host, port=port, to=names, model=workers.name)
        ready(port)
        _go_on(settings, inbox, workers, deliveries, stopping)
    log("stopped")


def _recover(settings: ListenSettings, inbox: Inbox) -> None:
    """Bring an inbox in order that an earlier process left, however it ended."""
    if settings.retry_dead:
        log("dead letters are tried again", instances=retry_dead(inbox))
    given_up = give_up_unnamed(inbox, [destination.name for destination in settings.destinations])
    if given_up:
        log("given up", logging.WARNING, reason="the destination is not named any more", instances=given_up)
    sweep(inbox, settings.kept, starting=True)


@contextmanager
def _workers(settings: ListenSettings) -> Iterator[Workers]:
    work = Work(
        folder=settings.inbox,
        load=settings.load,
        words=settings.words,
        destinations=tuple(destination.name for destination in settings.destinations),
        any_radiograph=settings.any_radiograph,
        prevalence=settings.prevalence,
        level=logging.getLogger("pleura").level,
    )
    workers = Workers(work, settings.workers, settings.limit_s)
    try:
        workers.start()
        yield workers
    finally:
        workers.stop()


def _tidy(inbox: Inbox) -> None:
    try:
        tidy(inbox)
    except (sqlite3.Error, OSError, PleuraError) as error:
        log_error("inbox not tidied", error)


def _stop_deliveries(deliveries: Sequence[Delivery]) -> None:
    for delivery in deliveries:
        delivery.stop()
    ends = time.monotonic() + 30.0
    for delivery in deliveries:
        delivery.join(max(0.0, ends - time.monotonic()))


def _go_on(
    settings: ListenSettings,
    inbox: Inbox,
    workers: Workers,
    deliveries: Sequence[Delivery],
    stopping: threading.Event,
) -> None:
    """Keep everything going until told to stop."""
    next_sweep = time.monotonic() + _SWEEP_S
    while not stopping.wait(_TICK_S):
        _tidy(inbox)
        try:
            if workers.look_after(inbox) or time.monotonic() >= next_sweep:
                sweep(inbox, settings.kept)
                next_sweep = time.monotonic() + _SWEEP_S
        except (sqlite3.Error, OSError, PleuraError) as error:
            log_error("inbox not swept", error)
        ended = [delivery.name for delivery in deliveries if not delivery.is_alive()]
        if ended:
            raise PleuraError(
                f"the thread {ended[0]} came to an unexpected end: see the log; start pleura listen again"
            )


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    stopping = threading.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: stopping.set()) for number in signals]
    try:
        yield stopping
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _status(inbox: Inbox, workers: Workers, deliveries: Sequence[Delivery], listener: Listener) -> dict[str, Any]:
    """What the status page shows: counts, and nothing of a patient."""
    counts = open_counts(inbox)
    for delivery in deliveries:
        one = counts["to_deliver"].setdefault(delivery.destination.name, {"waiting": 0, "tried before": 0})
        one["is_reached"], one["last_failure"] = not delivery.failures, delivery.last_failure
    return {
        "ae_title": listener.ae_title,
        "model": workers.name,
        "workers": workers.alive,
        "associations": listener.associations,
        "is_full": listener.is_full(),
        **counts,
    }
