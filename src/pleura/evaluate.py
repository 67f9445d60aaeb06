"""checkpoint + dataset -> scores with their floor and intervals, and a report that can be read and believed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pleura import __version__
from pleura.data.dataset import Dataset, Split
from pleura.data.folds import assign_folds
from pleura.data.radiograph import SquareGeometry
from pleura.errors import InputError
from pleura.learn.checkpoint import case_key, write_atomically
from pleura.measure.bootstrap import Estimate, bootstrap, wilson
from pleura.measure.metrics import SIIM_PREVALENCE, Outcomes, empty_floor
from pleura.measure.overlay import as_data_uri, overlay
from pleura.measure.report import Picture, Report, render
from pleura.measure.triplet import Histograms, Triplet, prevalence_weights, search
from pleura.predict import Predictor, image_score
from pleura.progress import track

GALLERY = 12
CROSS_FITS = 5


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model on one split."""

    split: str
    """In words."""
    triplet: Triplet
    estimates: dict[str, Estimate]
    """By the checkpoint's triplet."""
    floor: float
    """SIIM mean Dice of the empty predictor on these cases."""
    positives: int
    negatives: int
    tuned: dict[str, Any]
    """The best triplet for these very cases, its score on them, and the honest estimate of tuning by cross-fitting."""
    in_sample: bool
    """Whether the checkpoint's triplet was tuned on these very cases."""
    verdict: str
    """One sentence for a person."""
    report: Path


def evaluate(
    model: Path,
    data: Path,
    split: Split | None = None,
    tta: str | None = None,
    resamples: int = 1000,
    out: Path | None = None,
) -> Evaluation:
    """Score a checkpoint, or a run, on a dataset; write report.html and report.json.

    split: val, the cases that the model was chosen on; train, those it learned from; all. By default val where the
    dataset holds any of them, all elsewhere. tta: none or flip, by default as the recipe says. out: the report's
    folder, beside the model by default.
    Raises: CheckpointError, InputError, OutputError.
    """
    report = (out or (model if model.is_dir() else model.parent)) / "report.html"
    _check_writable(report)
    predictor, dataset = Predictor.load(model, tta), Dataset(data)
    known = _Known.of(predictor, dataset)
    split, positions = known.choose(split, dataset.folder)
    histograms, scores = measure_cases(predictor, dataset, positions)
    patients = patient_numbers(dataset, positions)
    outcomes = outcomes_by(histograms, scores, predictor.triplet)
    estimates = bootstrap(outcomes.summary, patients, resamples) | _proportions(outcomes)
    floor = empty_floor(outcomes.positive)
    in_sample = bool(known.val[positions].any()) and not predictor.triplet_is_given
    evaluation = Evaluation(
        split=known.in_words(split, positions),
        triplet=predictor.triplet,
        estimates=estimates,
        floor=floor,
        positives=int(outcomes.positive.sum()),
        negatives=int((~outcomes.positive).sum()),
        tuned=_tuned(histograms, patients),
        in_sample=in_sample,
        verdict=verdict(outcomes, estimates, floor, in_sample),
        report=report,
    )
    _write(evaluation, resamples, predictor, dataset, positions, outcomes)
    return evaluation


@dataclass(frozen=True)
class _Known:
    """Which cases of a dataset a model has met: told by the cases themselves, so also after preparing them anew."""

    train: NDArray[np.bool_]
    val: NDArray[np.bool_]
    told: bool
    """Whether the model says what it has met: imported weights do not."""

    @classmethod
    def of(cls, predictor: Predictor, dataset: Dataset) -> _Known:
        keys = [case_key(case.image_id) for case in dataset.cases]
        met = {
            part: {key for checkpoint in predictor.checkpoints for key in checkpoint.seen.get(part, [])}
            for part in ("train", "val")
        }
        train, val = (np.array([key in met[part] for key in keys], dtype=bool) for part in ("train", "val"))
        return cls(train, val, all(any(checkpoint.seen.values()) for checkpoint in predictor.checkpoints))

    def choose(self, split: Split | None, folder: Path) -> tuple[Split, NDArray[np.int64]]:
        """The split, decided where it was not asked for, and its positions. Raises: InputError if it has no case."""
        if (self.train & self.val).any():
            raise InputError(
                f"{folder}: the run holds several folds, and each case was training data of some; evaluate the folds "
                "one at a time, fold-K/best.safetensors; their pooled scores are in folds.json after --fold all"
            )
        if split is None:
            split = "val" if self.val.any() else "all"
        chosen = {"val": self.val, "train": self.train, "all": np.ones_like(self.val)}[split]
        if not chosen.any():
            raise InputError(f"{folder}: holds none of the model's {split} cases; evaluate it with --split all")
        return split, np.flatnonzero(chosen)

    def in_words(self, split: Split, positions: NDArray[np.int64]) -> str:
        """What is evaluated, in words that give away what the model has met before."""
        if not self.told:
            return f"{len(positions)} cases, of which the model does not tell those that it has met before"
        count, learned, tuned = len(positions), int(self.train[positions].sum()), int(self.val[positions].sum())
        if learned:
            return f"{count} cases, {learned} of which the model has learned from: this estimates nothing"
        if tuned:
            rest = "" if tuned == count else f", {count - tuned} of them new to it"
            return f"{count} cases that the model was chosen on ({split}){rest}"
        return f"{count} cases that are new to the model"


def _check_writable(report: Path) -> None:
    """Before the work, not after it. Raises: OutputError."""
    probe = report.with_name(".pleura-report")
    write_atomically(probe, b"")
    probe.unlink()


def measure_cases(
    predictor: Predictor, dataset: Dataset, positions: NDArray[np.int64], batch_size: int = 8
) -> tuple[Histograms, NDArray[np.float64]]:
    """Histograms on the dataset's grid, and image scores; one pass, 4 KB a case whatever its size.

    Raises: CheckpointError if the probabilities are not finite, InputError for a damaged mask.
    """
    parts, scores = [], []
    groups = [positions[start : start + batch_size] for start in range(0, len(positions), batch_size)]
    for group in track(groups, "evaluate"):
        squares = predictor.probabilities(np.stack([dataset.images[position] for position in group]))
        geometry = SquareGeometry(dataset.size_px, dataset.size_px, squares.shape[-1])
        full = np.stack([geometry.probabilities_to_original(square) for square in squares])
        parts.append(Histograms.of(full, dataset.masks(group)))
        scores += [image_score(square) for square in squares]
    return Histograms.join(parts), np.array(scores)


def outcomes_by(histograms: Histograms, scores: NDArray[np.float64], triplet: Triplet) -> Outcomes:
    """What a triplet makes of each case."""
    called, dice = histograms.decided(triplet)
    return Outcomes(histograms.positive, called, dice, scores)


def _proportions(outcomes: Outcomes) -> dict[str, Estimate]:
    """Sensitivity or specificity where it is 0 or 1: there the bootstrap's interval has no width."""
    called, positive = outcomes.called, outcomes.positive
    counts = {"sensitivity": called[positive], "specificity": ~called[~positive]}
    return {name: wilson(int(hits.sum()), len(hits)) for name, hits in counts.items() if hits.all() or not hits.any()}


def patient_numbers(dataset: Dataset, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for the patient of each case; one whose patient is not known counts as a patient."""
    names = [dataset.cases[position].patient or dataset.cases[position].image_id for position in positions]
    return np.asarray(np.unique(names, return_inverse=True)[1], dtype=np.int64)


def _tuned(histograms: Histograms, patients: NDArray[np.int64]) -> dict[str, Any]:
    """What tuning the triplet on these cases promises, and what it keeps: tuned on four parts, scored on the fifth."""
    weights = prevalence_weights(histograms.positive, SIIM_PREVALENCE)
    best = search(histograms, weights)
    found: dict[str, Any] = {"triplet": asdict(best.triplet), "in_sample": best.score, "cross_fitted": None}
    if len(np.unique(patients)) < 2 * CROSS_FITS:
        return found
    areas = histograms.counts[:, :, 1].sum(axis=1).tolist()
    folds = assign_folds([str(patient) for patient in patients], areas, CROSS_FITS, seed=0)
    dice = np.zeros(len(histograms))
    for fold in range(CROSS_FITS):
        inside, outside = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        chosen = search(histograms.take(outside), weights[outside]).triplet
        dice[inside] = histograms.take(inside).decided(chosen)[1]
    found["cross_fitted"] = float(dice @ weights)
    return found


def verdict(outcomes: Outcomes, estimates: dict[str, Estimate], floor: float, in_sample: bool) -> str:
    """Say in words how a model stands to the empty predictor, by the interval of the difference."""
    if not outcomes.called.any():
        return (
            "This is the empty predictor: it finds nothing on any image, and its SIIM Dice is the share of negatives."
        )
    dice, gain = estimates["siim_dice"].value, estimates["gain_over_empty"]
    caveat = " That is by a rule tuned on these very cases." if in_sample else ""
    if gain.low > 0:
        return f"It beats the empty predictor: SIIM Dice {dice:.4f}, the empty predictor has {floor:.4f}.{caveat}"
    if gain.high < 0:
        return f"It is worse than the empty predictor: SIIM Dice {dice:.4f}, answering nothing has {floor:.4f}."
    return (
        f"Its SIIM Dice of {dice:.4f} cannot be told from the empty predictor's {floor:.4f}: the difference is "
        f"{gain.value:+.4f} (95 % {gain.low:+.4f} to {gain.high:+.4f})."
    )


def _write(
    evaluation: Evaluation,
    resamples: int,
    predictor: Predictor,
    dataset: Dataset,
    positions: NDArray[np.int64],
    outcomes: Outcomes,
) -> None:
    document = {
        "pleura": __version__,
        "split": evaluation.split,
        "positives": evaluation.positives,
        "negatives": evaluation.negatives,
        "floor": evaluation.floor,
        "verdict": evaluation.verdict,
        "triplet": asdict(evaluation.triplet),
        "triplet_tuned_on_these_cases": evaluation.in_sample,
        "tuned": evaluation.tuned,
        "tta": predictor.tta,
        "resamples": resamples,
        "metrics": {name: asdict(estimate) for name, estimate in evaluation.estimates.items()},
        "data_sha256": dataset.data_hash,
        "checkpoint": predictor.checkpoints[0].provenance,
        "cases": [
            {
                "image_id": dataset.cases[position].image_id,
                "positive": bool(outcomes.positive[row]),
                "called": bool(outcomes.called[row]),
                "siim_dice": round(float(outcomes.dice[row]), 6),
                "score": round(float(outcomes.scores[row]), 6),
            }
            for row, position in enumerate(positions)
        ],
    }
    text = json.dumps(_without_nan(document), indent=1)
    write_atomically(evaluation.report.with_suffix(".json"), text.encode())
    pictures = _gallery(predictor, dataset, positions, outcomes)
    write_atomically(evaluation.report, render(Report(document, pictures)).encode())


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: what could not be measured becomes null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _gallery(
    predictor: Predictor, dataset: Dataset, positions: NDArray[np.int64], outcomes: Outcomes
) -> dict[str, list[Picture]]:
    """The worst cases, and typical ones: positives around the median."""
    order = np.lexsort((outcomes.scores, outcomes.dice))
    worst = order[:GALLERY]
    found = [row for row in order if outcomes.positive[row] and row not in set(worst.tolist())]
    middle = max(0, len(found) // 2 - GALLERY // 2)
    chosen = {"The worst": worst.tolist(), "Typical positives": found[middle : middle + GALLERY]}
    return {
        title: [_picture(predictor, dataset, int(positions[row]), outcomes, row) for row in rows]
        for title, rows in chosen.items()
    }


def _picture(predictor: Predictor, dataset: Dataset, position: int, outcomes: Outcomes, row: int) -> Picture:
    square = predictor.probabilities(dataset.images[position][None])[0]
    full = SquareGeometry(dataset.size_px, dataset.size_px, square.shape[0]).probabilities_to_original(square)
    image = dataset.images[position].astype(np.float32) / np.float32(255)
    mask = dataset.masks([position])[0]
    drawn = overlay(image, predictor.triplet.apply(full, dataset.size_px**2), mask, longest_px=512)
    positive, called = bool(outcomes.positive[row]), bool(outcomes.called[row])
    outcome = ("found" if called else "missed") if positive else ("false alarm" if called else "rightly empty")
    caption = f"{outcome}, Dice {outcomes.dice[row]:.2f}, score {outcomes.scores[row]:.2f}"
    return Picture(as_data_uri(drawn), caption, dataset.cases[position].image_id)
