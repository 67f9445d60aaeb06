"""`pleura train --ray`: the training of one net by workers that share each batch, as torchrun's processes do.

Each worker runs `pleura.training.train.train`, and nothing else: where torchrun starts processes on one machine, a
cluster starts them on many. A worker that dies ends all of them, and new ones go on from the run's last state.
"""

from __future__ import annotations

import logging
import os
import queue
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pleura import __version__
from pleura.cluster.asked import as_named, device_of_workers, found, go_to, refuse_other_nodes
from pleura.cluster.connection import ClusterOptions, connected
from pleura.cluster.gang import Gang, Lines, WorkerDiedError, free_address
from pleura.cluster.pool import TRIES, Refusal
from pleura.config.recipe import Recipe
from pleura.data.dataset import Dataset
from pleura.errors import InputError, OutputError, PleuraError
from pleura.inference.device import pick_device, use_device
from pleura.malloc import keep_memory
from pleura.training.distributed import end_processes
from pleura.training.refusals import refuse_what_cannot_be_learned_or_scored, refuse_what_cannot_run
from pleura.training.run import STATE, Run
from pleura.training.train import train
from pleura.urls.kept import DATASET_FILES, MODEL_FILES

logger = logging.getLogger("pleura")

LINES_S = 1.0
"""How long a worker waits for something to be logged before it answers that there is nothing."""
UNLOCK_S = 60
"""How long a run's folder may still be locked after its workers were ended."""


@dataclass(frozen=True)
class TrainJob:
    """What is trained, on what, and where the run goes."""

    recipe: Recipe
    data: str
    out: str
    fold: int
    tensorboard: bool
    device: str | None
    """None: the GPU that Ray gives the worker."""
    level: int
    """Of the log."""

    @property
    def run(self) -> Run:
        """The folder of the run."""
        return Run(Path(self.out) / f"fold-{self.fold}")


@dataclass(frozen=True)
class Attempt:
    """How the workers begin, as `train` takes it."""

    resume: bool
    stage: str | None = None
    weights: str | None = None
    is_again: bool = False
    """Whether workers before these have died."""


@dataclass(frozen=True)
class NodeFacts:
    """What a worker has: of all workers the same, or they would not train one net."""

    pleura: str
    data_sha256: str


class TrainWorker:
    """One process of a training."""

    def __init__(self, job: TrainJob, folder: str) -> None:
        """folder: that the command runs in, and relative paths begin at."""
        self.job, self.folder = job, folder
        self.logged: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()

    def facts(self) -> NodeFacts | Refusal:
        """Open the dataset, and return what it is."""
        try:
            go_to(self.folder)
            return NodeFacts(__version__, Dataset(found(self.job.data, DATASET_FILES)).data_hash)
        except PleuraError as error:
            return Refusal.of(error)

    def address(self) -> tuple[str, int]:
        """Return the address of this machine in the cluster, and a port that is free."""
        return free_address()

    def lines(self, is_last: bool) -> Lines:
        """Return what was logged since the last call."""
        found = []
        with suppress(queue.Empty):
            if not is_last:
                found.append(self.logged.get(timeout=LINES_S))
            while True:
                found.append(self.logged.get_nowait())
        return found

    def do(self, environment: Mapping[str, str], attempt: Attempt) -> str | Refusal:
        """Train, and return the folder of the fold."""
        job = self.job
        os.environ.update(environment)
        train_on(job.device)
        log = logging.getLogger("pleura")
        log.setLevel(job.level)
        log.addHandler(_Queued(self.logged))
        try:
            dataset = Dataset(found(job.data, DATASET_FILES))
            if attempt.is_again:
                _wait_for_the_lock(job.run)
            weights = found(attempt.weights, MODEL_FILES) if attempt.weights else None
            done = train(
                job.recipe,
                dataset,
                Path(job.out),
                job.fold,
                attempt.resume,
                stage=attempt.stage,
                weights=weights,
                tensorboard=job.tensorboard,
            )
        except PleuraError as error:
            return Refusal.of(error)
        end_processes()
        return str(done)


def train_on(device: str | None) -> None:
    """Let this process train on a device; None: the GPU that Ray gives it. Raises: InputError as `pick_device`."""
    use_device(device or "auto")
    if pick_device().type == "cpu":
        keep_memory()


class _Queued(logging.Handler):
    """Keeps what is logged until the command asks for it."""

    def __init__(self, lines: queue.SimpleQueue[tuple[int, str]]) -> None:
        super().__init__()
        self.kept = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.kept.put((record.levelno, record.getMessage()))


def _wait_for_the_lock(run: Run) -> None:
    """Wait until a worker that was ended has let go of the run; `train` refuses if it has not."""
    for _ in range(UNLOCK_S):
        with suppress(OutputError), run.held():
            return
        time.sleep(1.0)


def train_on_cluster(
    recipe: Recipe,
    dataset: Dataset,
    out: Path,
    options: ClusterOptions,
    fold: int = 0,
    resume: bool = False,
    *,
    stage: str | None = None,
    weights: Path | None = None,
    tensorboard: bool = False,
    kind: type = TrainWorker,
) -> Path:
    """Do what `train` does by workers of a cluster that share each batch.

    If one of them dies, new ones go on from the last state of the run; it is given up when they have died three times
    without a new state. kind: of the workers.
    Returns: as `train`.
    Raises: as `train`; InputError for GPUs that cannot be trained on, if the cluster is not there or has no
    room, if nodes have another pleura or another dataset, or if its workers die; MissingExtraError.
    """
    if options.gpus not in (0, 1):
        raise InputError(
            f"--ray-gpus {options.gpus:g}: each worker trains on one whole GPU; take 1, and more --workers"
        )
    device = device_of_workers(options)
    job = TrainJob(recipe, as_named(dataset.folder), str(out), fold, tensorboard, device, logger.level)
    refuse_what_cannot_be_learned_or_scored(recipe, dataset, fold)
    job.run.state(resume, stage)
    attempt = Attempt(resume, stage, as_named(weights) if weights else None)
    began_with, deaths = _state_of(job.run), 0
    with connected(options) as count:
        refuse_what_cannot_run(recipe, count, stage, weights)
        while True:
            before = _state_of(job.run)
            try:
                with Gang(kind, (job, os.getcwd()), options, count) as gang:
                    seen = gang.facts()
                    refuse_other_nodes(seen.pleura, seen.data_sha256, dataset, options)
                    return Path(gang.run(attempt))
            except WorkerDiedError as error:
                now = _state_of(job.run)
                deaths = 1 if now != before else deaths + 1
                if deaths == TRIES:
                    raise InputError(
                        f"{job.run.folder}: its workers died {TRIES} times without a new state ({error}); if memory "
                        "runs out, take a smaller batch or more --workers; then add --resume"
                    ) from error
                logger.warning("a worker died (%s): new ones go on from the last state", error)
                attempt = Attempt(attempt.resume, attempt.stage, attempt.weights, is_again=True)
                if now != began_with:
                    attempt = Attempt(resume=True, is_again=True)


def _state_of(run: Run) -> tuple[int, int] | None:
    """What changes when a run saves its state; None: it has none."""
    try:
        found = (run.folder / STATE).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
