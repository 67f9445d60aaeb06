"""What an evaluation takes of a model: what it is, and what its passes over cases find; here or on other machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pleura.data.dataset import Dataset
from pleura.decision.calibration import Calibration
from pleura.decision.triplet import Triplet
from pleura.evaluation.scoring import CaseScores, PixelMeasures, measure_cases, on_grid
from pleura.inference.overlay import as_data_uri, overlay
from pleura.inference.precision import Precision
from pleura.inference.predictor import Predictor
from pleura.models.header import ModelHeader


@dataclass(frozen=True)
class ModelFacts:
    """What a report says of a model, and what it computes in."""

    headers: tuple[ModelHeader, ...]
    prepared_px: int
    triplet: Triplet
    triplet_is_given: bool
    calibration: Calibration | None
    tta: str
    precision: str
    precisions: tuple[Precision, ...]
    engine: str
    weights_sha256: tuple[str, ...]
    doubts: tuple[str, ...]

    @classmethod
    def of(cls, predictor: Predictor) -> ModelFacts:
        """Return those of a predictor."""
        return cls(
            headers=tuple(predictor.headers),
            prepared_px=predictor.prepared_px,
            triplet=predictor.triplet,
            triplet_is_given=predictor.triplet_is_given,
            calibration=predictor.calibration,
            tta=predictor.tta,
            precision=predictor.precision,
            precisions=tuple(predictor.precisions),
            engine=predictor.engine,
            weights_sha256=predictor.weights_sha256,
            doubts=tuple(predictor.doubts),
        )

    def __str__(self) -> str:
        weights = ", ".join(each[:12] for each in self.weights_sha256)
        return f"weights {weights} by {self.engine} in {self.precision}, tta {self.tta}"


class Passes(Protocol):
    """Where the passes of an evaluation are computed."""

    @property
    def facts(self) -> ModelFacts:
        """The model."""

    def measure(self, dataset: Dataset, indices: NDArray[np.int64], pixels: PixelMeasures) -> CaseScores:
        """Score the cases, and add them to `pixels` in their order. Raises: as `measure_cases`."""

    def draw(self, dataset: Dataset, indices: NDArray[np.int64]) -> Iterator[str]:
        """Yield a picture of each case, in order, as `draw_case`."""


OpenPasses: TypeAlias = Callable[[Path, str | None, Dataset], AbstractContextManager[Passes]]
"""A function of a model's path, tta and a dataset."""


class PassesHere:
    """The passes of a predictor in this process."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    @property
    def facts(self) -> ModelFacts:
        """The model."""
        return ModelFacts.of(self.predictor)

    def measure(self, dataset: Dataset, indices: NDArray[np.int64], pixels: PixelMeasures) -> CaseScores:
        """Score the cases, and add them to `pixels` in their order. Raises: as `measure_cases`."""
        return measure_cases(self.predictor, dataset, indices, on_batch=pixels.add)

    def draw(self, dataset: Dataset, indices: NDArray[np.int64]) -> Iterator[str]:
        """Yield a picture of each case, in order, as `draw_case`."""
        return (draw_case(self.predictor.probabilities, self.predictor.triplet, dataset, int(row)) for row in indices)


@contextmanager
def here(model: Path, tta: str | None, dataset: Dataset) -> Iterator[Passes]:
    """Load a model into this process. Raises: CheckpointError, InputError."""
    yield PassesHere(Predictor.load(model, tta))


def draw_case(
    probabilities: Callable[[NDArray[np.uint8]], NDArray[np.float32]], triplet: Triplet, dataset: Dataset, index: int
) -> str:
    """Return a case with its true and predicted outline, of at most 512 px, as a data URI.

    probabilities: as `Predictor.probabilities`.
    """
    square = probabilities(dataset.images[index][None])[0]
    full = on_grid(square[None], dataset.size_px)[0]
    image = dataset.images[index].astype(np.float32) / np.float32(255)
    drawn = overlay(image, triplet.apply(full, dataset.size_px**2), dataset.masks([index])[0], longest_px=512)
    return as_data_uri(drawn)
