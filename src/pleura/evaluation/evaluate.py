"""checkpoint + dataset -> scores with their floor and intervals, and a report that can be read and believed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pleura import __version__
from pleura.data.dataset import Dataset, Split
from pleura.data.geometry import SquareGeometry
from pleura.data.problems import Finding
from pleura.decision.objectives import Objective
from pleura.decision.search import Histograms
from pleura.evaluation.checks import empty_predictor, other_prevalence, pooled_dice, saturated, shared_patients
from pleura.evaluation.metrics.bootstrap import Estimate, bootstrap
from pleura.evaluation.metrics.operating import proportions
from pleura.evaluation.metrics.siim import CaseResults, empty_floor
from pleura.evaluation.metrics.subgroups import Facts, subgroups
from pleura.evaluation.metrics.titles import OUTCOMES
from pleura.evaluation.nested import FOLDS, nested, nested_folds
from pleura.evaluation.passes import ModelFacts, OpenPasses, Passes, here
from pleura.evaluation.report.document import CaseRow, EvaluationReport, LabelSource, TunedHere
from pleura.evaluation.report.figures import figures
from pleura.evaluation.report.page import Picture, render
from pleura.evaluation.report.parts import (
    Measured,
    calibration_of,
    curves_of,
    decisions_of,
    prevalence_of,
    surface_of,
)
from pleura.evaluation.report.svg import svg
from pleura.evaluation.scoring import CaseNumbers, PixelMeasures, patient_numbers
from pleura.evaluation.summary import against_empty
from pleura.files import refuse_unwritable, write_atomically, write_json
from pleura.inference.model_files import find_model
from pleura.inference.precision import in_words
from pleura.models.default import DEFAULT, as_typed, is_default, keep_default, model_path
from pleura.models.seen import SeenRows

GALLERY, FIGURES = 24, "figures"


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model on one split, and the page that shows them."""

    report: EvaluationReport
    page: Path


def evaluate(
    model: Path,
    data: Path,
    split: Split | None = None,
    tta: str | None = None,
    resamples: int = 1000,
    out: Path | None = None,
    passes_by: OpenPasses = here,
) -> Evaluation:
    """Score a checkpoint, or a run, on a dataset; write report.html, report.json and the figures of the report.

    split: val, the cases that the model was chosen on; train, those it learned from; all. By default val where the
    dataset holds any of them, all elsewhere. tta: none or flip, by default as in the recipe. out: the report's
    folder, beside the model by default. passes_by: where the model runs; in this process by default.
    Raises: CheckpointError, InputError, OutputError.
    """
    model = model_path(model)
    find_model(model)  # a model that is none is refused before the data is looked at
    dataset = Dataset(data)
    with passes_by(model, tta, dataset) as passes:
        page = _page(model, out)
        report, indices, results = _scored(passes, model, dataset, split, tta, resamples)
        pictures = _gallery(passes, dataset, indices, results)
    _write(page, report, pictures)
    return Evaluation(report, page)


def _scored(
    passes: Passes, model: Path, dataset: Dataset, split: Split | None, tta: str | None, resamples: int
) -> tuple[EvaluationReport, NDArray[np.int64], CaseResults]:
    """Return the report, the cases that it is of, and their results."""
    about = passes.facts
    seen = SeenRows.of([header.seen for header in about.headers], *dataset.names)
    split, indices = seen.choose(split, dataset.folder, dataset.scored)
    pixels = PixelMeasures(about.triplet, dataset.size_px, _spacings(dataset, indices))
    scores = passes.measure(dataset, indices, pixels)
    histograms, results = scores.histograms, scores.by(about.triplet)
    patients = patient_numbers(dataset, indices)
    estimates = bootstrap(results.summary, patients, resamples) | _shares(results)
    floor = empty_floor(results.positive)
    in_sample = bool(seen.val[indices].any()) and not about.triplet_is_given
    found = [empty_predictor(results), saturated(histograms), pixels.turned(), *_of_training(seen, dataset, indices)]
    found += [Finding("warning", doubt, "export it again, or evaluate the checkpoint") for doubt in about.doubts]
    facts = _facts(dataset, indices, pixels.cases)
    measured = Measured(results, pixels.cases, facts, patients, pixels.unit, pixels.tolerance)
    report = EvaluationReport(
        pleura=__version__,
        split=seen.in_words(split, indices) + _left_out(dataset, split),
        positives=int(results.positive.sum()),
        negatives=int((~results.positive).sum()),
        floor=floor,
        summary=against_empty(results, estimates, floor, in_sample),
        findings=tuple(finding for finding in found if finding),
        triplet=about.triplet,
        triplet_tuned_on_these_cases=in_sample,
        tuned=_tuned(histograms, patients),
        tta=about.tta,
        resamples=resamples,
        metrics=estimates,
        pooled_dice=pooled_dice(results.dice, histograms.both_areas(about.triplet)),
        decisions=decisions_of(results),
        surface=surface_of(measured, resamples),
        subgroups=subgroups(facts, results, patients, resamples),
        prevalence=prevalence_of(results, patients),
        curves=curves_of(measured, resamples),
        calibration=calibration_of(results, pixels.pixel_counts, about.calibration),
        cases=_rows(dataset, indices, measured),
        **_origin(seen, dataset, indices, about),
        command=_command(model, dataset.folder, split, tta, about, resamples),
    )
    return report, indices, results


def _of_training(seen: SeenRows, dataset: Dataset, indices: NDArray[np.int64]) -> list[Finding | None]:
    """Patients in training too, and a share of positives unlike training's, where training's cases are here."""
    rest = np.setdiff1d(indices, np.flatnonzero(seen.train))
    if not seen.train.any() or not rest.size:
        return []
    learned, rated = ([dataset.cases[row].patient for row in rows] for rows in (np.flatnonzero(seen.train), rest))
    prevalence = float(dataset.positive[seen.train].mean())
    return [shared_patients(learned, rated), other_prevalence(dataset.positive[rest], prevalence)]


def _left_out(dataset: Dataset, split: Split) -> str:
    count = 0 if split == "val" else int((~dataset.scored).sum())
    return f"; {count} that are always trained on are no truth, and left out" if count else ""


def _page(model: Path, out: Path | None) -> Path:
    """Where the report goes; refused before the work, not after it. Raises: OutputError."""
    if out is None:
        keep_default(model, "name a folder for its report with --out")
    folder = out or (model if model.is_dir() else model.parent)
    refuse_unwritable(folder)
    return folder / "report.html"


def _shares(results: CaseResults) -> dict[str, Estimate]:
    """Return sensitivity and specificity with Wilson's interval: at 0 or 1 the bootstrap's has no width."""
    found = proportions(results.positive, results.predicted_positive)
    return {name: found[name] for name in ("sensitivity", "specificity")}


def _tuned(histograms: Histograms, patients: NDArray[np.int64]) -> TunedHere:
    """Tune the triplet on these cases, and on four parts of them to score it on the fifth, for each part."""
    objective = Objective()
    best = objective.search(histograms)
    if len(np.unique(patients)) < 2 * FOLDS:
        return TunedHere(triplet=best.triplet, in_sample=best.score, cross_fitted=None)
    honest = nested(histograms, patients, nested_folds(histograms, patients), objective).score
    return TunedHere(
        triplet=best.triplet,
        in_sample=best.score,
        cross_fitted=honest.value,
        cross_fitted_interval=(honest.low, honest.high),
    )


def _spacings(dataset: Dataset, indices: NDArray[np.int64]) -> list[tuple[float, float] | None]:
    """Return the size of a pixel of each square image in mm; None where its header has none."""
    found: list[tuple[float, float] | None] = []
    for case in (dataset.cases[index] for index in indices):
        geometry = SquareGeometry(case.rows, case.columns, dataset.size_px, case.pixel_aspect)
        (rows, columns), spacing = geometry.pixels_per_square_pixel, case.pixel_spacing_mm
        found.append((spacing[0] * rows, spacing[1] * columns) if spacing else None)
    return found


def _facts(dataset: Dataset, indices: NDArray[np.int64], numbers: Sequence[CaseNumbers]) -> Facts:
    cases = [dataset.cases[index] for index in indices]
    return Facts(
        area_share=[each.area_share for each in numbers],
        side=[each.side for each in numbers],
        view=[case.view for case in cases],
        sex=[case.sex for case in cases],
        age=[case.age for case in cases],
    )


def _rows(dataset: Dataset, indices: NDArray[np.int64], measured: Measured) -> tuple[CaseRow, ...]:
    results = measured.results
    return tuple(
        CaseRow(
            image_id=dataset.cases[index].image_id,
            positive=bool(results.positive[row]),
            predicted_positive=bool(results.predicted_positive[row]),
            siim_dice=round(float(results.dice[row]), 6),
            score=round(float(results.scores[row]), 6),
            area_share=round(numbers.area_share, 6),
            hd95=round(numbers.hd95, 3),
            surface_dice=round(numbers.surface_dice, 6),
        )
        for row, (index, numbers) in enumerate(zip(indices, measured.cases, strict=True))
    )


def _origin(seen: SeenRows, dataset: Dataset, indices: NDArray[np.int64], about: ModelFacts) -> dict[str, Any]:
    """Return the fields of the report on data, tensors, the origin of the masks, and what computed in what."""
    parts = {"scored": indices, "train": np.flatnonzero(seen.train), "val": np.flatnonzero(seen.val)}
    counts = {}
    for part, rows in parts.items():
        counts[part] = tuple(LabelSource(**row) for row in dataset.by_source(rows))
    return {
        "data_sha256": dataset.data_hash,
        "checkpoint": about.headers[0].provenance,
        "weights_sha256": about.weights_sha256,
        "precision": about.precision,
        "computed_in": in_words(about.precisions),
        "engine": about.engine,
        "calibrations": tuple(header.calibration for header in about.headers),
        "label_sources": counts,
    }


def _command(model: Path, data: Path, split: Split, tta: str | None, about: ModelFacts, resamples: int) -> str:
    """The same again, by the names of model and dataset: folders of one machine are nobody else's business.

    With the precision and the engine that it had, whatever was asked for: elsewhere `auto` may be others.
    """
    comes_with_pleura = is_default(model)
    name = DEFAULT if comes_with_pleura else as_typed(Path(model.name or model.resolve().name))
    words = ["pleura", "evaluate", name, "--data", data.name or data.resolve().name, "--split", split]
    out = ["--out", "report"] if comes_with_pleura else []  # beside that model nothing is written
    if tta:
        words += ["--tta", tta]
    if about.precision != "mixed":
        words += ["--precision", about.precision]
    if comes_with_pleura or about.engine != "torch":
        words += ["--engine", about.engine]
    return shlex.join([*words, "--resamples", str(resamples), *out])


def _write(page: Path, report: EvaluationReport, pictures: dict[str, list[Picture]]) -> None:
    write_json(page.with_suffix(".json"), report.to_json())
    for name, chart in figures(report).items():
        write_atomically(page.parent / FIGURES / f"{name}.svg", svg(chart, alone=True).encode())
    write_atomically(page, render(report, pictures).encode())


def _gallery(
    passes: Passes, dataset: Dataset, indices: NDArray[np.int64], results: CaseResults
) -> dict[str, list[Picture]]:
    """The worst cases, and typical ones: positives around the median."""
    order = np.lexsort((results.scores, results.dice))
    worst = order[:GALLERY]
    found = [row for row in order if results.positive[row] and row not in set(worst.tolist())]
    middle = max(0, len(found) // 2 - GALLERY // 2)
    chosen = {"The worst": worst.tolist(), "Typical positives": found[middle : middle + GALLERY]}
    drawn = passes.draw(dataset, indices[[row for rows in chosen.values() for row in rows]])
    return {
        title: [Picture(next(drawn), _caption(results, row), dataset.cases[indices[row]].image_id) for row in rows]
        for title, rows in chosen.items()
    }


def _caption(results: CaseResults, row: int) -> str:
    outcome = OUTCOMES[bool(results.positive[row]), bool(results.predicted_positive[row])]
    return f"{outcome}, Dice {results.dice[row]:.2f}, score {results.scores[row]:.2f}"
