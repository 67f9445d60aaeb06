"""`pleura predict --ray`: the parts of a batch on a cluster; the journal, the lock and the tables stay in the command.

Workers read the inputs and write the files of OUT themselves, so that no pixel passes through the command. Both have to
lie where every node sees them: in a folder that all share, or in a store of objects that each has credentials for.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np

from pleura import __version__
from pleura.cluster.asked import Asked, go_to
from pleura.cluster.connection import ClusterOptions, connected
from pleura.cluster.pool import Lost, Pool, Refusal, Task
from pleura.data.ids import Identified
from pleura.decision.calibration import Calibration
from pleura.decision.triplet import Triplet
from pleura.errors import InputError, OutputError, PleuraError, writing
from pleura.inference.batch import BatchResult, model_name, note_unsaid, predict_by
from pleura.inference.part import BatchSettings, Failed, parts, read_part, write_results
from pleura.inference.precision import Precision
from pleura.inference.predictor import Predictor
from pleura.inference.work import Work
from pleura.urls.store import exists
from pleura.urls.url import Url, place_of


@dataclass(frozen=True)
class Facts:
    """What a worker's model computes: of all workers the same, or their results would differ."""

    model_name: str
    pleura: str
    tta: str
    precision: str
    precisions: tuple[Precision, ...]
    engine: str
    triplet: Triplet
    calibration: Calibration | None
    prevalence: float | None
    doubts: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """What a worker found on one part, without what lies in files."""

    entries: list[dict[str, object]]
    failed: list[Failed]
    """In the order of `pleura predict` in one process: what could not be read, then what could not be written."""
    unsaid: int
    unseen: list[Path]
    """Files that are not there for the worker's machine."""


class PredictWorker:
    """One Predictor in a process of its own. Takes two parts at a time, of which one passes the net."""

    def __init__(self, asked: Asked, settings: BatchSettings, folder: str, sign: str) -> None:
        """folder: that the command runs in, and relative paths begin at. sign: a file that OUT has for now."""
        self.asked, self.settings, self.folder, self.sign = asked, settings, folder, sign
        self.predictor: Predictor | None = None
        self.passing = Lock()

    def facts(self) -> Facts | Refusal:
        """Load the model, and return what it computes."""
        try:
            go_to(self.folder)
            made, name = self.asked.load(), model_name(self.asked.path)
            for url in urls_of(self.settings):  # or each of its objects would be a problem
                exists(url)
        except PleuraError as error:
            return Refusal.of(error)
        self.predictor = made
        kinds = (made.tta, made.precision, tuple(made.precisions), made.engine, made.triplet)
        return Facts(name, __version__, *kinds, made.calibration, made.prevalence, tuple(made.doubts))

    def do(self, part: Sequence[Identified]) -> Done | Refusal:
        """Read, predict and write a part."""
        predictor, out = self.predictor, self.settings.out
        if predictor is None or (isinstance(out, Path) and not (out / self.sign).is_file()):
            return Refusal(
                "OutputError",
                f"{out}: a node of the cluster does not see it; take a folder that all nodes share, or --ray local",
            )
        try:
            read = read_part(predictor, self.settings, part)
            entries, failed = [], list(read.failed)
            if read.read:
                squares = np.stack([one.square for one in read.read])
                with self.passing:
                    found = predictor.probabilities(squares)
                for one, probabilities in zip(read.read, found, strict=True):
                    entry, problem = write_results(predictor, self.settings, one, probabilities)
                    entries += [] if entry is None else [entry]
                    failed += [] if problem is None else [problem]
        except PleuraError as error:
            return Refusal.of(error)
        unseen = [case.path for case in part if isinstance(case.path, Path) and not case.path.exists()]
        return Done(entries, failed, read.unsaid(self.settings), unseen)


def predict_on_cluster(
    model: Path, tta: str | None, settings: BatchSettings, options: ClusterOptions, kind: type = PredictWorker
) -> BatchResult:
    """Do what `predict_batch` does by the workers of a cluster: the same files, tables and refusals.

    kind: of the workers.
    Raises: as `predict_by`; InputError for a GPU without --ray-gpus, if the cluster is not there or has no room, or if
    its nodes would compute otherwise or do not see the model; OutputError if they do not see OUT; MissingExtraError.
    """
    for url in urls_of(settings):
        if url.scheme == "memory":
            raise InputError(f"{url}: memory is of one process, and workers have others; take another URL with --ray")
    asked = Asked.of(model, tta, options)
    sign = f".pleura-cluster-{uuid.uuid4().hex}"
    with connected(options) as count, Pool(kind, (asked, settings, os.getcwd(), sign), options, count) as pool:
        facts: Facts = pool.facts()
        if (facts.model_name, facts.pleura) != (settings.model_name, __version__):
            raise OutputError(
                f"--ray {options.address}: its nodes have pleura {facts.pleura} and another file as {model}; install "
                f"pleura {__version__} there, and keep the model where all nodes see it"
            )
        return predict_by(partial(_compute, pool, sign), facts, settings)


def urls_of(settings: BatchSettings) -> list[Url]:
    """Return the URLs of inputs and results."""
    places = (*map(place_of, settings.inputs), settings.out)
    return [place for place in places if isinstance(place, Url)]


def _compute(
    pool: Pool, sign: str, settings: BatchSettings, new: Sequence[Identified], work: Work
) -> Generator[None, None, None]:
    """Have every part done, and keep what workers found; problems come in the order of the parts at the end."""
    problems: list[tuple[int, list[Failed]]] = []
    unsaid = 0
    tasks = (Task(number, part) for number, part in enumerate(parts(new, settings.batch_size)))
    shared = settings.out / sign
    if isinstance(shared, Path):
        with writing(shared.parent):
            shared.touch()
    try:
        for task, answer in pool.answers(tasks):
            if isinstance(answer, Lost):
                answer = Done([], [(settings.disclosure.source(case), answer.reason) for case in task.cases], 0, [])
            if missing := next((path for path in answer.unseen if path.exists()), None):
                where = settings.out if settings.secret else missing
                raise InputError(
                    f"{where}: a node of the cluster does not see its inputs; take a folder that all nodes share"
                )
            for entry in answer.entries:
                work.journal.add(entry)
            problems.append((task.number, answer.failed))
            unsaid += answer.unsaid
            yield from (None for _ in task.cases)
    finally:
        if isinstance(shared, Path):
            with suppress(OSError):
                shared.unlink()
        for _, failed in sorted(problems, key=lambda each: each[0]):
            work.problems += failed
    note_unsaid(unsaid, work)
