"""The process that predicts: takes instances out of the inbox, one at a time, and leaves their results there.

A process of its own: whatever a damaged file does to it, the listener goes on answering. It ends with the process that
started it.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleura.data.classify import no_radiograph
from pleura.data.radiograph import read_radiograph
from pleura.dicom.frontal import contradiction
from pleura.dicom.parse import read_header
from pleura.errors import InputError, OutputError, PleuraError
from pleura.inference.batch import check_prevalence
from pleura.inference.writers import objects_of
from pleura.malloc import give_memory_back
from pleura.serve.logs import log, log_error
from pleura.serve.pacs.holders import holding
from pleura.serve.pacs.inbox import DEAD, Inbox, Job
from pleura.serve.pacs.logs import begin_log

if TYPE_CHECKING:
    from pleura.inference.engines.choice import Wanted

_POLL_S, _FULL_S = 0.25, 10.0


@dataclass(frozen=True)
class Work:
    """What a worker does with each instance. Passed to another process."""

    folder: Path
    load: Callable[[], Any]
    """Returns the Predictor."""
    words: tuple[str, ...]
    """Of --write: the DICOM objects to make."""
    destinations: tuple[str, ...]
    any_radiograph: bool = False
    """Predict, too, what is no frontal chest radiograph by its header."""
    prevalence: float | None = None
    level: int = logging.INFO
    """Of the log."""


def loader(model: Path, tta: str | None) -> Callable[[], Any]:
    """Return what loads a model in another process, on the device, in the precision and by the engine of this one."""
    from pleura.inference.device import named_device
    from pleura.inference.engines.choice import Wanted
    from pleura.inference.precision import named_precision

    return functools.partial(_load, model, Wanted(tta, named_device(), named_precision(), Wanted().engine_name))


def _load(model: Path, wanted: Wanted) -> Any:
    from pleura.inference.predictor import Predictor

    return Predictor.load(model, wanted.tta, wanted.device, wanted.precision, wanted.engine)


READY, REFUSED, STOP = "ready", "refused", "stop"
"""Words between a worker and the process that started it."""


def run_worker(work: Work, connection: Connection) -> None:
    """Work until told to stop; the process ends at once where the one that started it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it, which says when to stop
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    begin_log(work.level)
    give_memory_back()
    try:
        predictor = work.load()
        check_prevalence(predictor, work.prevalence)
    except PleuraError as error:
        connection.send((REFUSED, str(error)))
        return
    connection.send((READY, identity_of(predictor)))
    stopping = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(connection, stopping), name="end", daemon=True).start()
    inbox = Inbox(work.folder)
    with holding(work.folder) as holder:
        while not stopping.is_set():
            try:
                inbox.release(holder, counts=False)  # what a full disk kept from being written down
                job = inbox.claim(holder)
                if job is None:
                    stopping.wait(_POLL_S)
                elif not work_on(work, predictor, inbox, holder, job):
                    inbox.release(holder, counts=False)
                    stopping.wait(_FULL_S)
            except sqlite3.Error as error:
                log_error("tables not written", error)
                stopping.wait(_FULL_S)
    inbox.close()


def identity_of(predictor: Any) -> str:
    """Return what results are by, in one line: name, version, weights and settings."""
    algorithm = predictor.algorithm
    return "; ".join((algorithm.name, algorithm.version, *algorithm.parameters()))


def _wait_for_the_end(connection: Connection, stopping: threading.Event) -> None:
    try:
        connection.recv()
    except (EOFError, OSError):
        os._exit(1)  # in the middle of whatever it does: the claim is free then
    stopping.set()


def work_on(work: Work, predictor: Any, inbox: Inbox, holder: str, job: Job) -> bool:
    """Predict one instance; whether that is settled, which it is not if the disk is full. Raises: sqlite3.Error."""
    try:
        reason = _not_for_the_model(job.path, work.any_radiograph)
        if reason is not None:
            kind = reason.partition(" is ")[0]  # the attribute, without what the header says there
            inbox.ended(job, holder, "passed_over", reason, kind)
            log("passed over", name=job.name, reason=kind)
            return True
        radiograph = read_radiograph(job.path)
        prediction = predictor.predict_radiographs([radiograph])[0].at_prevalence(work.prevalence)
        inbox.write_results(job, objects_of(prediction, work.words))
    except InputError as error:
        inbox.ended(job, holder, "dead", str(error))
        log("dead letter", logging.WARNING, name=job.name, reason=f"see {DEAD}/{job.name}.txt in the inbox")
    except (OutputError, OSError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        log_error("results not written", error, name=job.name, reason=getattr(cause, "strerror", None))
        return False
    except (PleuraError, MemoryError) as error:
        is_dead = inbox.failed(job, holder, f"cannot be predicted: {error}")
        log_error("not predicted", error, name=job.name, then="dead letter" if is_dead else "tried again")
    else:
        inbox.predicted(job, holder, work.destinations)
        log("predicted", name=job.name)
    return True


def _not_for_the_model(path: Path, any_radiograph: bool) -> str | None:
    """Why an instance is passed over, by its header; None where nothing says that it should be."""
    kind = no_radiograph(path)  # such as a picture of ours that comes back
    if kind is not None or any_radiograph:
        return kind
    header = read_header(path)
    return None if header is None else contradiction(header)
