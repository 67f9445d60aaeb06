"""`pleura evaluate --ray`: the passes over the cases on a cluster; the command makes the report of them.

Workers read the dataset themselves and return numbers, 4 KB of a case, and small pictures: no pixel of a probability
passes through the command. Cases pass the net in the groups of one process, which are never divided.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pleura import __version__
from pleura.cluster.asked import Asked, as_named, found, go_to, refuse_other_nodes
from pleura.cluster.connection import ClusterOptions, connected
from pleura.cluster.pool import Lost, Pool, Refusal, Task
from pleura.data.dataset import Dataset, Split
from pleura.errors import InputError, PleuraError
from pleura.evaluation.evaluate import Evaluation, evaluate
from pleura.evaluation.passes import ModelFacts, Passes, draw_case
from pleura.evaluation.scoring import BATCH_SIZE, CaseScores, PixelMeasures, measure_group, refuse_other_size
from pleura.inference.predictor import Predictor
from pleura.progress import track
from pleura.urls.kept import DATASET_FILES


@dataclass(frozen=True)
class Facts:
    """What a worker has: of all workers the same, or their results would differ."""

    model: ModelFacts
    pleura: str
    data_sha256: str

    def __str__(self) -> str:
        return f"{self.model}, pleura {self.pleura}, data {self.data_sha256[:12]}"


@dataclass(frozen=True)
class Measure:
    """Cases to pass the net together and to be measured."""

    indices: NDArray[np.int64]
    pixels: PixelMeasures
    """Empty, with what it has to know of these cases."""


Measured: TypeAlias = tuple[CaseScores, PixelMeasures]


@dataclass(frozen=True)
class Draw:
    """A case to draw."""

    index: int


class EvaluateWorker:
    """One Predictor and the dataset in a process of its own."""

    def __init__(self, asked: Asked, data: str, folder: str) -> None:
        """folder: that the command runs in, and relative paths begin at."""
        self.asked, self.data, self.folder = asked, data, folder
        self.opened: tuple[Predictor, Dataset] | None = None
        self.passing = Lock()

    def facts(self) -> Facts | Refusal:
        """Load the model and open the dataset; return what they are."""
        try:
            go_to(self.folder)
            predictor, dataset = self.asked.load(), Dataset(found(self.data, DATASET_FILES))
        except PleuraError as error:
            return Refusal.of(error)
        self.opened = predictor, dataset
        return Facts(ModelFacts.of(predictor), __version__, dataset.data_hash)

    def do(self, work: Sequence[Measure | Draw]) -> list[Measured | str] | Refusal:
        """Measure or draw."""
        try:
            return [self._measure(each) if isinstance(each, Measure) else self._draw(each) for each in work]
        except PleuraError as error:
            return Refusal.of(error)

    def _measure(self, work: Measure) -> Measured:
        _, dataset = self._opened()
        return measure_group(self._probabilities, dataset, work.indices, work.pixels.add), work.pixels

    def _draw(self, work: Draw) -> str:
        predictor, dataset = self._opened()
        return draw_case(self._probabilities, predictor.triplet, dataset, work.index)

    def _probabilities(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        predictor, _ = self._opened()
        with self.passing:  # while the net runs on some cases, others are read or measured
            return predictor.probabilities(squares)

    def _opened(self) -> tuple[Predictor, Dataset]:
        if self.opened is None:
            raise PleuraError("facts() comes first")
        return self.opened


class PassesOnCluster:
    """The passes of an evaluation, by workers."""

    def __init__(self, pool: Pool) -> None:
        """Raises: PleuraError if no worker can start."""
        self.pool = pool
        self.found: Facts = pool.facts()

    @property
    def facts(self) -> ModelFacts:
        """The model."""
        return self.found.model

    def measure(self, dataset: Dataset, indices: NDArray[np.int64], pixels: PixelMeasures) -> CaseScores:
        """Score the cases, and add them to `pixels` in their order. Raises: as `measure_cases`, and `_answers`."""
        refuse_other_size(dataset, self.facts.prepared_px)
        starts = range(0, len(indices), BATCH_SIZE)
        work = (
            Measure(indices[start : start + BATCH_SIZE], pixels.of_rows(start, start + BATCH_SIZE)) for start in starts
        )
        scores: list[CaseScores] = []
        for part, measured in self._answers(dataset, work, "evaluate", len(starts)):
            scores.append(part)
            pixels.extend(measured)
        return CaseScores.join(scores)

    def draw(self, dataset: Dataset, indices: NDArray[np.int64]) -> Iterator[str]:
        """Yield a picture of each case, in order, as `draw_case`. Raises: as `_answers`."""
        return self._answers(dataset, (Draw(int(index)) for index in indices), "draw", len(indices))

    def _answers(self, dataset: Dataset, work: Iterable[Measure | Draw], title: str, total: int) -> Iterator[Any]:
        """Yield what workers find, in the order of the work.

        Raises: PleuraError that a worker returned; InputError for cases that kill workers: a score without them would
        be of other cases.
        """
        tasks = (Task(number, [each]) for number, each in enumerate(work))
        early: dict[int, Any] = {}
        number = 0
        for task, answer in track(self.pool.answers(tasks), title, total):
            if isinstance(answer, Lost):
                (each,) = task.cases
                indices = each.indices if isinstance(each, Measure) else [each.index]
                names = ", ".join(dataset.cases[int(index)].image_id for index in indices)
                raise InputError(f"{dataset.folder}: {names}: {answer.reason}; without them the score is another")
            early[task.number] = answer[0]
            while number in early:
                yield early.pop(number)
                number += 1


def evaluate_on_cluster(
    model: Path,
    data: Path,
    split: Split | None,
    tta: str | None,
    resamples: int,
    out: Path | None,
    options: ClusterOptions,
    kind: type = EvaluateWorker,
) -> Evaluation:
    """Do what `evaluate` does by the workers of a cluster: the same report.

    kind: of the workers.
    Raises: as `evaluate`; InputError for a GPU without --ray-gpus, if the cluster is not there or has no room, if its
    nodes would compute otherwise, do not see the model or see another dataset, or for cases that kill workers;
    MissingExtraError.
    """

    @contextmanager
    def on_cluster(model: Path, tta: str | None, dataset: Dataset) -> Iterator[Passes]:
        asked = Asked.of(model, tta, options)
        arguments = (asked, as_named(dataset.folder), os.getcwd())
        with connected(options) as count, Pool(kind, arguments, options, count) as pool:
            passes = PassesOnCluster(pool)
            refuse_other_nodes(passes.found.pleura, passes.found.data_sha256, dataset, options)
            yield passes

    return evaluate(model, data, split, tta, resamples, out, on_cluster)
