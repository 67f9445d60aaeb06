"""`pleura train --fold all --ray`: each fold is a run of its own, and a worker trains one at a time.

A worker that dies is replaced, and another one goes on with its fold from the last state.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pleura import __version__
from pleura.cluster.asked import as_named, device_of_workers, found, go_to, refuse_other_nodes
from pleura.cluster.connection import ClusterOptions, connected
from pleura.cluster.pool import Lost, Pool, Refusal, Task
from pleura.cluster.train import NodeFacts, train_on
from pleura.config.recipe import Recipe
from pleura.data.dataset import Dataset
from pleura.errors import PleuraError, excerpt
from pleura.training.folds import FoldsSummary, train_folds
from pleura.training.train import train
from pleura.urls.kept import DATASET_FILES
from pleura.urls.url import Place, place_of

logger = logging.getLogger("pleura")

FAULTS: tuple[type[Exception], ...] = (PleuraError, RuntimeError, OSError, ValueError, ArithmeticError, MemoryError)
"""What ends one fold and no other; torch raises RuntimeError where a GPU's memory runs out."""


@dataclass(frozen=True)
class FoldsJob:
    """What is trained, on what, and where the runs go."""

    recipe: Recipe
    data: str
    out: str
    tensorboard: bool
    device: str | None
    """None: the GPU that Ray gives the worker."""


class FoldWorker:
    """Trains folds in a process of its own, one after the other."""

    def __init__(self, job: FoldsJob, folder: str) -> None:
        """folder: that the command runs in, and relative paths begin at."""
        self.job, self.folder = job, folder
        self.dataset: Dataset | None = None
        self.is_spoiled = False

    def facts(self) -> NodeFacts | Refusal:
        """Open the dataset, and return what it is."""
        try:
            go_to(self.folder)
            train_on(self.job.device)
            self.dataset = Dataset(found(self.job.data, DATASET_FILES))
        except PleuraError as error:
            return Refusal.of(error)
        return NodeFacts(__version__, self.dataset.data_hash)

    def do(self, folds: Sequence[int]) -> dict[int, str]:
        """Train folds, or go on with them; return those that failed with the reason. `facts` comes first.

        After a fault that is not pleura's own, such as one of CUDA, a process may fail at all that follows: it ends
        when it is to train again, and the fold goes to the worker that replaces it.
        """
        if self.is_spoiled:
            end_process()
        job, dataset = self.job, self.dataset
        failed: dict[int, str] = {}
        if dataset is None:
            return dict.fromkeys(folds, "the dataset was not opened")
        for fold in folds:
            try:
                train(
                    job.recipe,
                    dataset,
                    place_of(job.out, is_recorded=True),
                    fold,
                    resume=True,
                    tensorboard=job.tensorboard,
                )
            except FAULTS as error:
                self.is_spoiled |= not isinstance(error, PleuraError)
                failed[fold] = str(error) if isinstance(error, PleuraError) else excerpt(error)
        return failed


def end_process() -> None:
    """End this process at once, as a crash would."""
    os._exit(1)


def train_folds_on_cluster(
    recipe: Recipe,
    dataset: Dataset,
    out: Place,
    options: ClusterOptions,
    resume: bool = False,
    tensorboard: bool = False,
    kind: type = FoldWorker,
) -> FoldsSummary:
    """Do what `train_folds` does by workers of a cluster, of which each trains one fold at a time.

    kind: of the workers.
    Raises: as `train_folds`; InputError for a GPU without --ray-gpus, if the cluster is not there or has no room, or
    if nodes have another pleura or another dataset; MissingExtraError.
    """
    return train_folds(recipe, dataset, out, resume, 1, tensorboard, partial(_train_each, options, kind))


def _train_each(
    options: ClusterOptions,
    kind: type,
    recipe: Recipe,
    dataset: Dataset,
    out: Place,
    folds: Sequence[int],
    tensorboard: bool,
) -> Mapping[int, str]:
    job = FoldsJob(recipe, as_named(dataset.folder), as_named(out), tensorboard, device_of_workers(options))
    failed: dict[int, str] = {}
    with connected(options) as room:
        count = min(room, len(folds))
        with Pool(kind, (job, os.getcwd()), options, count, in_hand=1, task_s=float("inf")) as pool:
            seen: NodeFacts = pool.facts()
            refuse_other_nodes(seen.pleura, seen.data_sha256, dataset, options)
            logger.info("%d folds, %d at a time; each has its log in %s", len(folds), count, out / "fold-*" / "log.txt")
            for task, answer in pool.answers(Task(fold, [fold]) for fold in folds):
                reasons = {task.number: answer.reason} if isinstance(answer, Lost) else answer
                failed |= reasons
                logger.info("fold %d %s", task.number, f"failed: {reasons[task.number]}" if reasons else "is done")
    return failed
