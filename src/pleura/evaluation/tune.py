"""`pleura tune`: the best triplet for a model's validation cases, and what is left of it on other patients.

A model of several folds is tuned out of fold: each case by the checkpoints that did not train on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pleura import __version__
from pleura.data.dataset import Dataset
from pleura.decision.calibration import Method
from pleura.decision.objectives import Objective
from pleura.decision.triplet import Triplet
from pleura.errors import InputError, OutputError
from pleura.evaluation.bfloat16 import BothScores, precision_to_fit_in
from pleura.evaluation.fitting import Sample, calibrate, check_rates, measure, sample_of
from pleura.evaluation.metrics.bootstrap import Estimate
from pleura.evaluation.nested import Spread, landscape, nested, spread
from pleura.evaluation.report.landscape import landscape_png
from pleura.evaluation.scoring import CaseScores
from pleura.files import write_atomically, write_json
from pleura.inference.model_files import ModelFiles, find_checkpoint, find_model
from pleura.inference.predictor import Predictor
from pleura.models.bfloat16 import Bfloat16Change
from pleura.models.checkpoint import Checkpoint, load_checkpoint, update_header
from pleura.models.default import keep_default, model_path
from pleura.models.seen import SeenRows
from pleura.progress import track

Part: TypeAlias = Literal["val", "all"]


@dataclass(frozen=True)
class TuneSettings:
    """What `pleura tune` was asked for, besides the model and the data."""

    objective: Objective = field(default_factory=Objective)
    split: Part = "val"
    method: Method = "platt"
    alpha: float = 0.05
    """The miss rate that the threshold for ruling out is to stay below."""
    confidence: float = 0.95
    resamples: int = 50

    def __post_init__(self) -> None:
        """Raises: InputError for a number out of range."""
        check_rates(self.alpha, self.confidence)


@dataclass(frozen=True)
class Tuned:
    """What tuning found, and what to think of it."""

    objective: Objective
    old: Triplet
    new: Triplet
    old_score: float
    """Of the triplet that the model had, on these cases."""
    in_sample: float
    nested: Estimate
    """Of triplets tuned on other patients: what to expect."""
    specificity: float
    """Of the same."""
    spread: Spread
    calibration: dict[str, Any]
    cases: int
    positives: int
    doubt: str
    """Why these cases, or patients, may not be new to the model; empty where its header lists all that it has seen."""
    bfloat16: dict[int, Bfloat16Change]
    """By the number of a checkpoint what bfloat16 changes in it, where it was scored in that too."""
    written: list[Path]

    @property
    def optimism(self) -> float:
        """By how much the score in sample flatters."""
        return self.in_sample - self.nested.value


def tune(model: Path, data: Path, settings: TuneSettings | None = None, out: Path | None = None) -> Tuned:
    """Find the best triplet and the calibration for a model, and write them into it, with what bfloat16 changes.

    model: what is written is the header of a checkpoint, those of the best checkpoints of a run, or an ensemble's
    ensemble.json. Beside it, tune.json has all of the numbers and the score around the optimum, and tune.png a picture;
    with `out` they are named after it, STEM.tune.json.
    split `val`: the cases that the model was chosen on. `all`: each case of the dataset; from then on they count as
    cases that it was chosen on. out: a file for a tuned copy; the checkpoint then stays as it is.
    Raises: CheckpointError, InputError, OutputError; into the model that comes with pleura nothing is written.
    """
    wanted, model = settings or TuneSettings(), model_path(model)
    beside = _beside(model, out)
    _check_out(model, out, beside)
    files, dataset = find_model(model), Dataset(data)
    checkpoints = [load_checkpoint(file) for file in files.checkpoints]
    old = Predictor.load(model).triplet
    groups = _groups(files, checkpoints, dataset, wanted.split)
    sample, both = _sample(files, checkpoints, groups, dataset)
    histograms, objective = sample.histograms, wanted.objective
    found = objective.search(histograms)
    honest = nested(histograms, sample.patients, sample.folds, objective)
    predicted_positive, dice = histograms.decided(old)
    tuned = Tuned(
        objective=objective,
        old=old,
        new=found.triplet,
        old_score=objective.score(sample.positive, predicted_positive, dice),
        in_sample=found.score,
        nested=honest.score,
        specificity=float(1 - honest.predicted_positive[~sample.positive].mean()),
        spread=spread(histograms, sample.patients, objective, track(range(wanted.resamples), "resample")),
        calibration=calibrate(sample, wanted.method, wanted.alpha, wanted.confidence),
        cases=len(histograms),
        positives=int(sample.positive.sum()),
        doubt=SeenRows.of([checkpoint.seen for checkpoint in checkpoints], *dataset.names).doubt,
        bfloat16=_changes(both, checkpoints, found.triplet, sample),
        written=[*([out] if out else files.described_by or files.checkpoints), beside, beside.with_suffix(".png")],
    )
    _write(tuned, files, checkpoints, sample, wanted, out)
    around = landscape(histograms, objective, tuned.new)
    document = record(tuned, sample) | {
        "calibration": tuned.calibration,
        "resampled_triplets": [asdict(triplet) for triplet in tuned.spread.triplets],
        "score_by_top_and_bottom": _plain(around.thresholds[::4, ::4]),
        "score_by_top_and_min_pixels": _plain(around.areas[::4]),
        "min_pixels": around.min_pixels.tolist(),
    }
    write_json(beside, document)
    picture = landscape_png(around, tuned.new, tuned.spread.triplets, objective.name)
    write_atomically(beside.with_suffix(".png"), picture)
    return tuned


def _beside(model: Path, out: Path | None) -> Path:
    """Where the numbers go: a copy may lie in the folder of another model, whose tune.json is not to be replaced."""
    if out:
        return out.with_name(f"{out.stem}.tune.json")
    return (model if model.is_dir() else model.parent) / "tune.json"


def _check_out(model: Path, out: Path | None, beside: Path) -> None:
    if out is None:
        keep_default(model, "name a file for a tuned copy with --out")
        return
    find_checkpoint(model)
    for file in (out, beside, beside.with_suffix(".png")):
        if file.exists():
            raise OutputError(f"{file}: is there already; choose another --out")


def record(tuned: Tuned, sample: Sample) -> dict[str, Any]:
    """What a header keeps of a tuning."""
    return {
        "objective": asdict(tuned.objective),
        "in_words": str(tuned.objective),
        "triplet": asdict(tuned.new),
        "triplet_before": asdict(tuned.old),
        "score_before": tuned.old_score,
        "in_sample": tuned.in_sample,
        "nested": [tuned.nested.value, tuned.nested.low, tuned.nested.high],
        "nested_specificity": tuned.specificity,
        "optimism": tuned.optimism,
        "cases": tuned.cases,
        "positives": tuned.positives,
        "data_sha256": sample.data_sha256,
        "pleura": __version__,
    }


def _groups(
    files: ModelFiles, checkpoints: Sequence[Checkpoint], dataset: Dataset, split: Part
) -> list[tuple[list[int], NDArray[np.int64]]]:
    """Which checkpoints answer for which cases. Raises: InputError where that would be for cases they learned from."""
    ids = [case.image_id for case in dataset.cases]
    if split == "all":
        if learned := SeenRows.of([checkpoint.seen for checkpoint in checkpoints], ids).learned(ids):
            raise InputError(
                f"{dataset.folder}: the model has learned from {learned}; a rule tuned on them would be for cases that "
                "it was trained on; leave them out, or use --split val"
            )
        return [(list(range(len(checkpoints))), np.flatnonzero(dataset.scored))]
    together: dict[frozenset[str], list[int]] = {}
    for number, checkpoint in enumerate(checkpoints):
        together.setdefault(frozenset(checkpoint.seen.val), []).append(number)
    groups = []
    for members in together.values():
        seen = SeenRows.of([checkpoints[number].seen for number in members], ids)
        there = seen.val & dataset.scored
        if not there.any():
            raise InputError(
                f"{dataset.folder}: holds none of the cases that {files.checkpoints[members[0]]} was chosen on; "
                "tune on all of it with --split all"
            )
        if (there & seen.train).any():
            raise InputError(f"{dataset.folder}: the model learned from some of the cases that it was chosen on")
        groups.append((members, np.flatnonzero(there)))
    taken = np.concatenate([indices for _, indices in groups])
    if len(np.unique(taken)) < len(taken):
        raise InputError(f"{dataset.folder}: folds of the model share validation cases; tune one checkpoint at a time")
    return groups


def _sample(
    files: ModelFiles,
    checkpoints: Sequence[Checkpoint],
    groups: Sequence[tuple[list[int], NDArray[np.int64]]],
    dataset: Dataset,
) -> tuple[Sample, dict[int, BothScores]]:
    """Return all cases, and by number of checkpoint those that were scored in bfloat16 too."""
    parts: list[tuple[tuple[CaseScores, NDArray[np.int64]], NDArray[np.int64]]] = []
    both: dict[int, BothScores] = {}
    for members, indices in groups:
        weights, together = [files.weights[number] for number in members], [checkpoints[number] for number in members]
        predictor = Predictor(together, weights=weights, precision=precision_to_fit_in(together[0]))
        part = measure(predictor, dataset, indices)
        parts.append((part, indices))
        # Of each checkpoint by itself. An ensemble's own rule is in no member's header, and neither would this be.
        if len(members) == 1 and not files.described_by:
            pair = BothScores.measured(together[0], part[0], dataset, indices)
            both |= {members[0]: pair} if pair else {}
    indices = np.concatenate([part[1] for part in parts])
    scores = CaseScores.join([part[0][0] for part in parts])
    return sample_of(dataset, indices, scores, np.concatenate([part[0][1] for part in parts])), both


def _changes(
    both: Mapping[int, BothScores], checkpoints: Sequence[Checkpoint], new: Triplet, sample: Sample
) -> dict[int, Bfloat16Change]:
    pairs = {
        number: pair.change(replace(checkpoints[number], triplet=new), sample.data_sha256)
        for number, pair in both.items()
    }
    return {number: change for number, change in pairs.items() if change}


def _write(
    tuned: Tuned,
    files: ModelFiles,
    checkpoints: Sequence[Checkpoint],
    sample: Sample,
    settings: TuneSettings,
    out: Path | None,
) -> None:
    kept = record(tuned, sample) | {"split": settings.split}
    if files.described_by:
        file = files.described_by[0]
        document = json.loads(file.read_text(encoding="utf-8"))
        changes = {"triplet": asdict(tuned.new), "calibration": tuned.calibration, "tuned": kept}
        document |= changes | {"tuned_on": sorted(sample.keys)}
        write_json(file, document, end="\n")
        return
    for number, (path, checkpoint) in enumerate(zip(files.checkpoints, checkpoints, strict=True)):
        update_header(
            path,
            {
                "triplet": tuned.new,
                "calibration": tuned.calibration,
                "bfloat16": tuned.bfloat16.get(number, checkpoint.bfloat16),
                "scores": {**checkpoint.scores, "tuned": kept},
                "seen": checkpoint.seen.and_chosen_on(sample.keys) if settings.split == "all" else checkpoint.seen,
            },
            out,
        )


def _plain(grid: NDArray[np.float64]) -> list[list[float | None]]:
    return [[round(float(value), 6) if np.isfinite(value) else None for value in row] for row in grid]
