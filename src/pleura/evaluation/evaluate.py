"""checkpoint + dataset -> scores with their floor and intervals, and a report that can be read and believed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pleura import __version__
from pleura.data.dataset import Dataset, Split
from pleura.data.folds import assign_folds
from pleura.data.geometry import SquareGeometry
from pleura.data.problems import Finding
from pleura.decision.objectives import Objective
from pleura.decision.search import Histograms
from pleura.decision.triplet import Triplet
from pleura.evaluation.checks import empty_predictor, other_prevalence, pooled_dice, saturated, shared_patients
from pleura.evaluation.metrics.bootstrap import Estimate, bootstrap
from pleura.evaluation.metrics.operating import proportions
from pleura.evaluation.metrics.siim import Outcomes, empty_floor
from pleura.evaluation.metrics.subgroups import Facts
from pleura.evaluation.nested import nested
from pleura.evaluation.report.document import Measured, account
from pleura.evaluation.report.figures import figures
from pleura.evaluation.report.page import Picture, Report, render
from pleura.evaluation.report.svg import svg
from pleura.evaluation.scoring import CaseNumbers, Looks, measure_cases, outcomes_by, patient_numbers
from pleura.evaluation.summary import against_empty
from pleura.files import refuse_unwritable, write_atomically, write_json
from pleura.inference.overlay import as_data_uri, overlay
from pleura.inference.predictor import Predictor
from pleura.models.default import DEFAULT, as_typed, is_default, keep_default, model_path
from pleura.models.identity import weights_hash
from pleura.models.seen import SeenRows

GALLERY, FIGURES = 24, "figures"
CROSS_FITS = 5


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model on one split."""

    split: str
    """In words."""
    triplet: Triplet
    estimates: dict[str, Estimate]
    """By the checkpoint's triplet."""
    pooled_dice: float
    """Of the pixels of all images together, by the same; no mean over images."""
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
    findings: list[Finding]
    """What the guards found, such as a flip."""


def evaluate(
    model: Path,
    data: Path,
    split: Split | None = None,
    tta: str | None = None,
    resamples: int = 1000,
    out: Path | None = None,
) -> Evaluation:
    """Score a checkpoint, or a run, on a dataset; write report.html, report.json and the figures of the report.

    split: val, the cases that the model was chosen on; train, those it learned from; all. By default val where the
    dataset holds any of them, all elsewhere. tta: none or flip, by default as the recipe says. out: the report's
    folder, beside the model by default.
    Raises: CheckpointError, InputError, OutputError.
    """
    model = model_path(model)
    predictor, dataset = Predictor.load(model, tta), Dataset(data)
    report = _report(model, out)
    known = SeenRows.of([checkpoint.seen for checkpoint in predictor.checkpoints], *dataset.names)
    split, positions = known.choose(split, dataset.folder, dataset.scored)
    looks = Looks(predictor.triplet, dataset.size_px, _spacings(dataset, positions))
    histograms, scores = measure_cases(predictor, dataset, positions, look=looks.add)
    patients = patient_numbers(dataset, positions)
    outcomes = outcomes_by(histograms, scores, predictor.triplet)
    estimates = bootstrap(outcomes.summary, patients, resamples) | _shares(outcomes)
    floor = empty_floor(outcomes.positive)
    in_sample = bool(known.val[positions].any()) and not predictor.triplet_is_given
    told = [empty_predictor(outcomes), saturated(histograms), looks.turned(), *_of_training(known, dataset, positions)]
    evaluation = Evaluation(
        split=known.in_words(split, positions) + _left_out(dataset, split),
        triplet=predictor.triplet,
        estimates=estimates,
        pooled_dice=pooled_dice(outcomes.dice, histograms.both_areas(predictor.triplet)),
        floor=floor,
        positives=int(outcomes.positive.sum()),
        negatives=int((~outcomes.positive).sum()),
        tuned=_tuned(histograms, patients),
        in_sample=in_sample,
        verdict=against_empty(outcomes, estimates, floor, in_sample),
        report=report,
        findings=[finding for finding in told if finding],
    )
    measured = Measured(
        outcomes,
        looks.cases,
        _facts(dataset, positions, looks.cases),
        patients,
        looks.unit,
        looks.tolerance,
        pixel_counts=looks.pixel_counts,
        calibrated=_calibrated(predictor, scores),
    )
    document = _document(evaluation, resamples, predictor, dataset, positions, measured)
    document |= _origin(known, dataset, positions, predictor)
    document["command"] = _command(model, data, split, tta, resamples)
    _write(report, document, _gallery(predictor, dataset, positions, outcomes))
    return evaluation


def _of_training(known: SeenRows, dataset: Dataset, positions: NDArray[np.int64]) -> list[Finding | None]:
    """Patients in training too, and a share of positives unlike training's, where training's cases are here."""
    rest = np.setdiff1d(positions, np.flatnonzero(known.train))
    if not known.train.any() or not rest.size:
        return []
    learned, rated = ([dataset.cases[row].patient for row in rows] for rows in (np.flatnonzero(known.train), rest))
    prevalence = float(dataset.positive[known.train].mean())
    return [shared_patients(learned, rated), other_prevalence(dataset.positive[rest], prevalence)]


def _left_out(dataset: Dataset, split: Split) -> str:
    count = 0 if split == "val" else int((~dataset.scored).sum())
    return f"; {count} that are always trained on are no truth, and left out" if count else ""


def _report(model: Path, out: Path | None) -> Path:
    """Where the report goes; refused before the work, not after it. Raises: OutputError."""
    if out is None:
        keep_default(model, "name a folder for its report with --out")
    folder = out or (model if model.is_dir() else model.parent)
    refuse_unwritable(folder)
    return folder / "report.html"


def _calibrated(predictor: Predictor, scores: NDArray[np.float64]) -> dict[str, Any]:
    known = predictor.calibration
    return {"scores": known.images(scores), "temperature": known.temperature} if known else {}


def _shares(outcomes: Outcomes) -> dict[str, Estimate]:
    """Sensitivity and specificity with Wilson's interval: at 0 or 1 the bootstrap's has no width."""
    found = proportions(outcomes.positive, outcomes.called)
    return {name: found[name] for name in ("sensitivity", "specificity")}


def _tuned(histograms: Histograms, patients: NDArray[np.int64]) -> dict[str, Any]:
    """What tuning the triplet on these cases promises, and what it keeps: tuned on four parts, scored on the fifth."""
    objective = Objective()
    best = objective.search(histograms)
    found: dict[str, Any] = {"triplet": asdict(best.triplet), "in_sample": best.score, "cross_fitted": None}
    if len(np.unique(patients)) < 2 * CROSS_FITS:
        return found
    areas = histograms.counts[:, :, 1].sum(axis=1).tolist()
    folds = assign_folds([str(patient) for patient in patients], areas, CROSS_FITS, seed=0)
    honest = nested(histograms, patients, folds, objective).score
    return found | {"cross_fitted": honest.value, "cross_fitted_interval": [honest.low, honest.high]}


def _spacings(dataset: Dataset, positions: NDArray[np.int64]) -> list[tuple[float, float] | None]:
    """Of a pixel of the square image, in mm; None where the header did not say."""
    found: list[tuple[float, float] | None] = []
    for case in (dataset.cases[position] for position in positions):
        geometry = SquareGeometry(case.rows, case.columns, dataset.size_px, case.pixel_aspect)
        (rows, columns), spacing = geometry.pixels_per_square_pixel, case.pixel_spacing_mm
        found.append((spacing[0] * rows, spacing[1] * columns) if spacing else None)
    return found


def _facts(dataset: Dataset, positions: NDArray[np.int64], numbers: Sequence[CaseNumbers]) -> Facts:
    cases = [dataset.cases[position] for position in positions]
    return Facts(
        area_share=[each.area_share for each in numbers],
        side=[each.side for each in numbers],
        view=[case.view for case in cases],
        sex=[case.sex for case in cases],
        age=[case.age for case in cases],
    )


def _document(
    evaluation: Evaluation,
    resamples: int,
    predictor: Predictor,
    dataset: Dataset,
    positions: NDArray[np.int64],
    measured: Measured,
) -> dict[str, Any]:
    outcomes = measured.outcomes
    return {
        "pleura": __version__,
        "split": evaluation.split,
        "positives": evaluation.positives,
        "negatives": evaluation.negatives,
        "floor": evaluation.floor,
        "verdict": evaluation.verdict,
        "findings": [asdict(finding) for finding in evaluation.findings],
        "triplet": asdict(evaluation.triplet),
        "triplet_tuned_on_these_cases": evaluation.in_sample,
        "tuned": evaluation.tuned,
        "tta": predictor.tta,
        "resamples": resamples,
        "metrics": {name: asdict(estimate) for name, estimate in evaluation.estimates.items()},
        "pooled_dice": evaluation.pooled_dice,
        **account(measured, resamples),
        "data_sha256": dataset.data_hash,
        "checkpoint": predictor.checkpoints[0].provenance,
        "cases": [
            {
                "image_id": dataset.cases[position].image_id,
                "positive": bool(outcomes.positive[row]),
                "called": bool(outcomes.called[row]),
                "siim_dice": round(float(outcomes.dice[row]), 6),
                "score": round(float(outcomes.scores[row]), 6),
                "area_share": round(measured.cases[row].area_share, 6),
                "hd95": round(measured.cases[row].hd95, 3),
                "surface_dice": round(measured.cases[row].surface_dice, 6),
            }
            for row, position in enumerate(positions)
        ],
    }


def _origin(known: SeenRows, dataset: Dataset, positions: NDArray[np.int64], predictor: Predictor) -> dict[str, Any]:
    """Whose numbers these are: the tensors themselves, and where the masks of all cases came from."""
    parts = {"scored": positions, "train": np.flatnonzero(known.train), "val": np.flatnonzero(known.val)}
    counts = {}
    for part, rows in parts.items():
        counts[part] = dataset.by_source(rows)
    weights = [weights_hash(checkpoint.weights) for checkpoint in predictor.checkpoints]
    calibrations = [checkpoint.calibration for checkpoint in predictor.checkpoints]
    return {"weights_sha256": weights, "calibrations": calibrations, "label_sources": counts}


def _command(model: Path, data: Path, split: Split, tta: str | None, resamples: int) -> str:
    """The same again, by the names of model and dataset: folders of one machine are nobody else's business."""
    comes_with_pleura = is_default(model)
    name = DEFAULT if comes_with_pleura else as_typed(Path(model.name or model.resolve().name))
    words = ["pleura", "evaluate", name, "--data", data.name or data.resolve().name, "--split", split]
    out = ["--out", "report"] if comes_with_pleura else []  # beside that model nothing is written
    return shlex.join([*words, *(["--tta", tta] if tta else []), "--resamples", str(resamples), *out])


def _write(report: Path, document: dict[str, Any], pictures: dict[str, list[Picture]]) -> None:
    write_json(report.with_suffix(".json"), document)
    for name, chart in figures(document).items():
        write_atomically(report.parent / FIGURES / f"{name}.svg", svg(chart, alone=True).encode())
    write_atomically(report, render(Report(document, pictures)).encode())


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
