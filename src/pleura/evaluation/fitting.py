"""The cases that a model is tuned and calibrated on; the fit of its calibration, and how good that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pleura.data.dataset import Dataset
from pleura.decision.calibration import (
    BINS,
    IMAGE_BINS,
    Calibration,
    Method,
    brier,
    conformal,
    ece,
    fit_scores,
    pixel_cases,
    pixel_counts,
    temperature,
)
from pleura.decision.search import Histograms
from pleura.errors import InputError
from pleura.evaluation.nested import FOLDS, nested_folds
from pleura.evaluation.scoring import CaseScores, measure_cases, patient_numbers
from pleura.inference.predictor import Predictor
from pleura.models.seen import case_key


@dataclass(frozen=True)
class Sample:
    """What is kept of the cases that something is fitted on: some kilobytes each, whatever the images' size."""

    histograms: Histograms
    scores: NDArray[np.float64]
    pixels: NDArray[np.int64]
    """(N, 128, 2) of `pixel_counts`."""
    patients: NDArray[np.int64]
    folds: NDArray[np.int64]
    """Of the nested estimate; they keep patients together."""
    keys: list[str]
    data_sha256: str

    @property
    def positive(self) -> NDArray[np.bool_]:
        """(N,) whether the true mask has any pixel."""
        return self.histograms.positive


def check_rates(alpha: float, confidence: float) -> None:
    """Refuse a miss rate or a confidence that is none. Raises: InputError unless both lie between 0 and 1."""
    for name, value in (("--alpha", alpha), ("--confidence", confidence)):
        if not 0 < value < 1:
            raise InputError(f"{name}: {value} is not between 0 and 1")


def measure(predictor: Predictor, dataset: Dataset, indices: NDArray[np.int64]) -> tuple[CaseScores, NDArray[np.int64]]:
    """Score some cases, and count their pixels (N, 128, 2) as `pixel_counts`, in one pass.

    Raises: CheckpointError if the probabilities are not finite, InputError for a damaged mask or another size.
    """
    counts: list[NDArray[np.int64]] = []
    scores = measure_cases(predictor, dataset, indices, on_batch=lambda *batch: counts.append(pixel_counts(*batch)))
    return scores, np.concatenate(counts)


def sample_of(
    dataset: Dataset,
    indices: NDArray[np.int64],
    cases: CaseScores,
    pixels: NDArray[np.int64],
) -> Sample:
    """Add the folds of the nested estimate. Raises: InputError if a class is missing or patients are too few."""
    patients = patient_numbers(dataset, indices)
    positive, count = cases.histograms.positive, len(np.unique(patients))
    if positive.all() or not positive.any():
        have = "positives" if positive.any() else "negatives"
        raise InputError(f"{dataset.folder}: these {len(positive)} cases are {have} alone; tuning needs both")
    if count < 2 * FOLDS:
        raise InputError(f"{dataset.folder}: {count} patients are too few to tune on; it takes {2 * FOLDS} at least")
    folds = nested_folds(cases.histograms, patients)
    keys = [case_key(dataset.cases[index].image_id) for index in indices]
    return Sample(cases.histograms, cases.scores, pixels, patients, folds, keys, dataset.data_hash)


def calibrate(sample: Sample, method: Method, alpha: float, confidence: float) -> dict[str, Any]:
    """Fit the calibration and return it as a header has it, with ECE and Brier before, after, and on held-out cases."""
    made = Calibration(
        temperature(sample.pixels),
        fit_scores(sample.scores, sample.positive, method),
        method,
        conformal(sample.scores, sample.positive, sample.patients, alpha, confidence),
    )
    return calibration_header(sample, made, alpha, confidence, lambda rows: fit_part(sample, rows, method))


def calibration_header(
    sample: Sample,
    made: Calibration,
    alpha: float,
    confidence: float,
    fit: Callable[[NDArray[np.int64]], Calibration],
) -> dict[str, Any]:
    """Return a calibration as a header has it, with its `quality`, for which `fit` makes one of some of the cases."""
    return {
        **made.header(),
        "prevalence": float(sample.positive.mean()),
        "cases": len(sample.scores),
        "asked": {"alpha": alpha, "confidence": confidence},
        "data_sha256": sample.data_sha256,
        "quality": quality(sample, made, fit),
    }


def fit_part(sample: Sample, rows: NDArray[np.int64], method: Method) -> Calibration:
    """The calibration of some of the cases, without a threshold for ruling out."""
    image = fit_scores(sample.scores[rows], sample.positive[rows], method)
    return Calibration(temperature(sample.pixels[rows]), image, method)


def quality(
    sample: Sample, made: Calibration, fit: Callable[[NDArray[np.int64]], Calibration]
) -> dict[str, dict[str, dict[str, float]]]:
    """ECE and Brier of images and of pixels: before, after, and held_out, where `fit` has not seen the patients."""
    positive, scores = sample.positive, sample.scores
    held_out, pixel_parts = np.zeros(len(positive)), []
    for fold in np.unique(sample.folds):
        inside, outside = sample.folds == fold, np.flatnonzero(sample.folds != fold)
        part = fit(outside)
        held_out[inside] = part.images(scores[inside])
        pixel_parts.append(pixel_cases(sample.pixels[inside], part.temperature))
    truth, predicted, weights = (np.concatenate([part[at] for part in pixel_parts]) for at in (0, 1, 2))

    def both(
        truth: NDArray[Any], predicted: NDArray[np.float64], weights: Any = None, bins: int = BINS
    ) -> dict[str, float]:
        return {"ece": ece(truth, predicted, weights, bins), "brier": brier(truth, predicted, weights)}

    return {
        "images": {
            "before": both(positive, scores, bins=IMAGE_BINS),
            "after": both(positive, made.images(scores), bins=IMAGE_BINS),
            "held_out": both(positive, held_out, bins=IMAGE_BINS),
        },
        "pixels": {
            "before": both(*pixel_cases(sample.pixels)),
            "after": both(*pixel_cases(sample.pixels, made.temperature)),
            "held_out": both(truth, predicted, weights),
        },
    }
