"""`pleura recalibrate`, the site kit: a model's triplet and calibration moved towards those of some local cases.

Fifty cases are few: the values that are best for them have the weight n / (n + 50), n being the smaller of the numbers
of positives and negatives, and the former values have the rest. Thresholds and the image score's numbers are averaged
as they are, the area and the temperature by their logarithms. Where the moved triplet is significantly worse on local
patients that it was not fitted on, the former triplet stays.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pleura import __version__
from pleura.data.dataset import Dataset
from pleura.decision.calibration import Calibration, Method, conformal
from pleura.decision.objectives import Objective
from pleura.decision.triplet import Triplet
from pleura.errors import CheckpointError, InputError, OutputError
from pleura.evaluation.bfloat16 import BothScores, precision_to_fit_in
from pleura.evaluation.fitting import Sample, calibration_header, check_rates, fit_part, measure, sample_of
from pleura.evaluation.metrics.bootstrap import Estimate, bootstrap
from pleura.evaluation.nested import nested
from pleura.files import hash_files
from pleura.inference.predictor import Predictor
from pleura.models.bfloat16 import Bfloat16Change
from pleura.models.checkpoint import load_checkpoint, update_header
from pleura.models.default import model_path
from pleura.models.seen import SeenRows

FORMER_COUNTS_AS = 50
"""The former values weigh as much as this many local cases of the rarer class."""


@dataclass(frozen=True)
class SiteSettings:
    """What `pleura recalibrate` was asked for, besides the files."""

    objective: Objective = field(default_factory=lambda: Objective(prevalence=None))
    alpha: float = 0.05
    confidence: float = 0.95
    resamples: int = 1000

    def __post_init__(self) -> None:
        """Raises: InputError for a number out of range."""
        check_rates(self.alpha, self.confidence)


@dataclass(frozen=True)
class Recalibrated:
    """What a site's cases have changed, and what to expect of it."""

    objective: Objective
    former: Triplet
    local: Triplet
    """The best for the local cases alone."""
    new: Triplet
    weight: float
    """Of the local cases."""
    gain: Estimate
    """Score by the moved triplet minus score by the former one, on local patients that it was not fitted on."""
    brier_gain: Estimate
    """By how much the Brier score of images falls, on the same patients."""
    calibration: dict[str, Any]
    cases: int
    positives: int
    doubt: str
    """Why these cases may not be new to the model; empty where its header lists all that it has seen."""
    bfloat16: Bfloat16Change | None
    """What bfloat16 changes by the new triplet; None where these cases were not scored in it."""
    out: Path


def local_weight(positive: NDArray[np.bool_]) -> float:
    """The weight of local cases, in [0, 1): n / (n + 50), n the number of the rarer class."""
    n = int(min(positive.sum(), (~positive).sum()))
    return n / (n + FORMER_COUNTS_AS)


def shrink_triplet(local: Triplet, former: Triplet, weight: float) -> Triplet:
    """Between the two, nearer to `local` the larger its weight; former, where either finds nothing on any image."""
    if local.finds_nothing or former.finds_nothing:
        return former

    def mean(ours: float, theirs: float) -> float:
        return weight * ours + (1 - weight) * theirs

    pixels = np.expm1(mean(np.log1p(local.min_pixels), np.log1p(former.min_pixels)))
    return Triplet(
        mean(local.top_threshold, former.top_threshold),
        round(float(pixels)),
        mean(local.bottom_threshold, former.bottom_threshold),
    )


def shrink_calibration(local: Calibration, former: Calibration, weight: float) -> Calibration:
    """Between the two, without a threshold for ruling out, which is about the local scores alone."""
    image = weight * np.array(local.image) + (1 - weight) * np.array(former.image)
    a, b, c = map(float, image)
    degree = local.temperature**weight * former.temperature ** (1 - weight)
    return Calibration(degree, (a, b, c), local.method)


def recalibrate(checkpoint: Path, data: Path, out: Path, settings: SiteSettings | None = None) -> Recalibrated:
    """Write a copy of a checkpoint with triplet and calibration moved towards local cases; the tensors are the same.

    data: a dataset of local cases that the model has not learned from.
    Raises: CheckpointError, InputError, OutputError if `out` is there already.
    """
    wanted, checkpoint = settings or SiteSettings(), model_path(checkpoint)
    if checkpoint.is_dir():
        raise CheckpointError(f"{checkpoint}: is a folder; name one checkpoint of it, such as fold-0/best.safetensors")
    if out.exists():
        raise OutputError(f"{out}: is there already; choose another --out")
    model, dataset = load_checkpoint(checkpoint), Dataset(data)
    seen = SeenRows.of([model.seen], *dataset.names)
    if learned := seen.learned(dataset.names[0]):
        raise InputError(f"{data}: the model has learned from {learned}, which say nothing of the site; leave them out")
    predictor, indices = Predictor([model], precision=precision_to_fit_in(model)), np.flatnonzero(dataset.scored)
    scores, pixels = measure(predictor, dataset, indices)
    sample = sample_of(dataset, indices, scores, pixels)
    both = BothScores.measured(model, scores, dataset, indices)
    former, old = predictor.triplet, predictor.calibration or Calibration()
    method: Method = "beta" if old.method == "beta" else "platt"
    made = _calibrated(sample, np.arange(len(indices)), old, method)
    made = replace(
        made, conformal=conformal(sample.scores, sample.positive, sample.patients, wanted.alpha, wanted.confidence)
    )
    local = wanted.objective.search(sample.histograms).triplet
    weight = local_weight(sample.positive)
    gain, brier_gain = _gains(sample, former, old, method, wanted)
    new = former if gain.high < 0 else shrink_triplet(local, former, weight)
    header = calibration_header(
        sample, made, wanted.alpha, wanted.confidence, lambda rows: _calibrated(sample, rows, old, method)
    )
    done = Recalibrated(
        wanted.objective,
        former,
        local,
        new,
        weight,
        gain,
        brier_gain,
        header,
        len(sample.scores),
        int(sample.positive.sum()),
        seen.doubt,
        both.change(replace(model, triplet=new), sample.data_sha256) if both else None,
        out,
    )
    _write(done, checkpoint, sample)
    return done


def _calibrated(sample: Sample, rows: NDArray[np.int64], former: Calibration, method: Method) -> Calibration:
    return shrink_calibration(fit_part(sample, rows, method), former, local_weight(sample.positive[rows]))


def _gains(
    sample: Sample, former: Triplet, old: Calibration, method: Method, settings: SiteSettings
) -> tuple[Estimate, Estimate]:
    """What the new triplet and calibration gain on patients that they were not fitted on."""
    histograms, positive, objective = sample.histograms, sample.positive, settings.objective

    def choose(rows: NDArray[np.int64]) -> Triplet:
        found = objective.search(histograms.take(rows)).triplet
        return shrink_triplet(found, former, local_weight(positive[rows]))

    honest = nested(histograms, sample.patients, sample.folds, objective, choose, resamples=1)
    predicted_positive, dice = histograms.decided(former)
    before, after = old.images(sample.scores), np.zeros(len(positive))
    for fold in np.unique(sample.folds):
        inside = sample.folds == fold
        part = _calibrated(sample, np.flatnonzero(~inside), old, method)
        after[inside] = part.images(sample.scores[inside])
    squared = (before - positive) ** 2 - (after - positive) ** 2

    def statistics(rows: NDArray[np.int64]) -> dict[str, float]:
        new = objective.score(positive[rows], honest.predicted_positive[rows], honest.dice[rows])
        return {
            "score": new - objective.score(positive[rows], predicted_positive[rows], dice[rows]),
            "brier": float(squared[rows].mean()),
        }

    found = bootstrap(statistics, sample.patients, settings.resamples)
    return found["score"], found["brier"]


def _write(done: Recalibrated, checkpoint: Path, sample: Sample) -> None:
    model = load_checkpoint(checkpoint)
    kept = {
        "from": hash_files(checkpoint),
        "objective": asdict(done.objective),
        "in_words": str(done.objective),
        "triplet_before": asdict(done.former),
        "triplet_local": asdict(done.local),
        "weight": done.weight,
        "gain": [done.gain.value, done.gain.low, done.gain.high],
        "brier_gain": [done.brier_gain.value, done.brier_gain.low, done.brier_gain.high],
        "cases": done.cases,
        "positives": done.positives,
        "data_sha256": sample.data_sha256,
        "pleura": __version__,
    }
    changes = {
        "triplet": done.new,
        "calibration": done.calibration,
        "bfloat16": done.bfloat16 or model.bfloat16,
        "scores": {**model.scores, "recalibrated": kept},
        "seen": model.seen.and_chosen_on(sample.keys),
    }
    update_header(checkpoint, changes, done.out)
