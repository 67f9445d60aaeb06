"""`pleura train --fold all`: every fold in turn or side by side, and the scores of all of them together.

Each case is scored by the model that did not train on it. The pooled scores come twice: by each fold's own triplet,
which was tuned on the very cases it is scored on, and by a triplet tuned on the other folds' cases, which was not.
Either way the epoch, or the average, of each fold was chosen on the cases that it is scored on: that optimism stays.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from pleura.config.recipe import Recipe
from pleura.data.dataset import Dataset
from pleura.errors import OutputError, PleuraError
from pleura.evaluation.metrics.bootstrap import Estimate, bootstrap
from pleura.evaluation.metrics.siim import CaseResults, empty_floor
from pleura.evaluation.scoring import CaseScores, measure_cases, patient_numbers
from pleura.files import write_csv, write_json
from pleura.inference.device import chosen_device
from pleura.inference.predictor import Predictor
from pleura.training.distributed import is_first_process
from pleura.training.refusals import refuse_what_cannot_be_learned_or_scored
from pleura.training.resuming import all_are_finished
from pleura.training.run import BEST, STATE
from pleura.training.targets import Teacher, refuse_leaks
from pleura.training.train import train
from pleura.training.validation import best_triplet
from pleura.urls.mirror import written_at
from pleura.urls.places import at_hand, is_there, write
from pleura.urls.url import Place

logger = logging.getLogger("pleura")

SUMMARY, CASES = "folds.json", "out-of-fold.csv"


@dataclass(frozen=True)
class FoldsSummary:
    """The scores of a recipe on each fold, and on all of them together."""

    folds: dict[int, dict[str, float]]
    """The metrics of each fold, by its own triplet."""
    floor: float
    """SIIM mean Dice of the empty predictor on all cases."""
    in_sample: dict[str, Estimate]
    """Pooled over all cases, by each fold's own triplet."""
    cross_fitted: dict[str, Estimate]
    """Pooled over all cases, each fold by a triplet tuned on the others."""
    file: Place

    def spread(self, metric: str) -> tuple[float, float]:
        """Return the mean and standard deviation of a metric over the folds that have it."""
        values = [metrics[metric] for metrics in self.folds.values() if np.isfinite(metrics[metric])]
        if not values:
            return float("nan"), float("nan")
        return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


TrainEach: TypeAlias = Callable[[Recipe, Dataset, Place, Sequence[int], bool], Mapping[int, str]]
"""A function of a recipe, a dataset, the run's folder, folds, and whether TensorBoard files are written: trains each
fold or goes on with it, and returns those that failed with the reason."""


def train_folds(
    recipe: Recipe,
    dataset: Dataset,
    out: Place,
    resume: bool = False,
    parallel: int = 1,
    tensorboard: bool = False,
    train_each: TrainEach | None = None,
) -> FoldsSummary:
    """Train a recipe on each fold of a dataset, and pool the scores of the models on the cases they did not see.

    parallel: folds at a time, each in a process of its own with a GPU of its own or a share of the cores.
    train_each: where else they are trained.
    Raises: what `train` raises; OutputError if `out` holds folds and `resume` is false; PleuraError that names the
    folds that failed, after the others are done.
    """
    folds = dataset.folds
    begun = [fold for fold in folds if is_there(out / f"fold-{fold}" / STATE)]
    if begun and not resume:
        raise OutputError(f"{out}: holds fold {begun[0]} already; add --resume to go on, or choose another --out")
    for fold in folds:  # before the first one trains, not when a later one begins
        refuse_what_cannot_be_learned_or_scored(recipe, dataset, fold)
    runs = [(out / f"fold-{fold}", recipe) for fold in folds]
    finished = all_are_finished(runs, resume, dataset.data_hash, dataset.folder)
    _refuse_leaking_teachers(recipe, dataset, folds)
    if train_each is not None and not finished:
        _refuse_failed(train_each(recipe, dataset, out, folds, tensorboard))
    elif parallel > 1 and not finished:
        _refuse_failed(_side_by_side(recipe, dataset, out, folds, parallel, tensorboard))
    else:
        for fold in folds:
            if is_first_process():
                logger.info("fold %d of %s", fold, ", ".join(map(str, folds)))
            train(recipe, dataset, out, fold, resume=True, tensorboard=tensorboard)
    return summarise(dataset, out, folds, recipe.stages[-1].select)


def _refuse_leaking_teachers(recipe: Recipe, dataset: Dataset, folds: list[int]) -> None:
    """Refuse a teacher before the first fold trains, not when a later one begins. Raises: InputError."""
    for path in sorted({stage.labels.teacher for stage in recipe.stages if stage.labels.teacher is not None}):
        seen = Teacher(path, torch.device("cpu")).seen
        for fold in folds:
            refuse_leaks(path, seen, dataset, fold, "take another teacher")


def _refuse_failed(failed: Mapping[int, str]) -> None:
    if failed:
        said = dict.fromkeys(failed[fold] for fold in sorted(failed))
        raise PleuraError(
            f"fold {', '.join(map(str, sorted(failed)))} failed: {'; '.join(said)}; the others are done: "
            "repair it and run the same command with --resume"
        )


def _side_by_side(
    recipe: Recipe, dataset: Dataset, out: Place, folds: list[int], parallel: int, tensorboard: bool
) -> dict[int, str]:
    """Train each fold in a process of its own, and return those that failed."""
    write(out / "recipe.yaml", yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False).encode())
    words = [sys.executable, "-m", "pleura", "train", str(out / "recipe.yaml"), "--data", str(dataset.folder)]
    device = chosen_device()
    words += ["--device", str(device)] if device is not None else []
    words += ["--out", str(out), "--resume", *(["--tensorboard"] if tensorboard else [])]
    waiting, free, failed = list(folds), list(range(parallel)), []
    running: dict[int, tuple[int, subprocess.Popen[bytes]]] = {}
    try:
        while waiting or running:
            while waiting and free:
                fold, place = waiting.pop(0), free.pop(0)
                command = [*words, "--fold", str(fold)]
                running[fold] = (place, subprocess.Popen(command, env=_environment(place, parallel)))
            for fold, (place, process) in list(running.items()):
                try:
                    code = process.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    continue
                del running[fold]
                free.append(place)
                failed += [fold] if code else []
    finally:
        for _, process in running.values():
            process.terminate()
            process.wait()
    return dict.fromkeys(failed, "see above")


def _environment(place: int, parallel: int) -> dict[str, str]:
    """Return an environment with a GPU for each process, or with a share of the cores where there are none."""
    if torch.cuda.is_available():
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = given.split(",") if given else [str(device) for device in range(torch.cuda.device_count())]
        return os.environ | {"CUDA_VISIBLE_DEVICES": devices[place % len(devices)]}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // parallel)), **os.environ}


def summarise(dataset: Dataset, out: Place, folds: list[int], select: str = "siim_dice") -> FoldsSummary:
    """Score every case by the model of its own fold, and write folds.json and out-of-fold.csv into `out`.

    select: the score that triplets are tuned for, as in the recipe.

    Raises: CheckpointError if a fold has no best.safetensors, OutputError.
    """
    indices, cases, own = [], [], []
    for fold in folds:
        with at_hand(out / f"fold-{fold}" / BEST) as best:
            predictor = Predictor.load(best)
        indices.append(dataset.indices("val", fold))
        cases.append(measure_cases(predictor, dataset, indices[-1]))
        own.append(cases[-1].by(predictor.triplet))
    fitted = []
    for index in range(len(folds)):
        others = CaseScores.join([part for other, part in enumerate(cases) if other != index]).histograms
        fitted.append(cases[index].by(best_triplet(others, select)))
    everyone = np.concatenate(indices)
    pooled = [_pooled(own), _pooled(fitted)]
    patients = patient_numbers(dataset, everyone)
    summary = FoldsSummary(
        {fold: results.summary() for fold, results in zip(folds, own, strict=True)},
        empty_floor(pooled[0].positive),
        bootstrap(pooled[0].summary, patients),
        bootstrap(pooled[1].summary, patients),
        out / SUMMARY,
    )
    if is_first_process():
        with written_at(out) as folder:
            _write(folder, summary, dataset, everyone, pooled[1])
    return summary


def _pooled(parts: list[CaseResults]) -> CaseResults:
    fields = ("positive", "predicted_positive", "dice", "scores")
    return CaseResults(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))


def _write(
    folder: Path, summary: FoldsSummary, dataset: Dataset, indices: NDArray[np.int64], results: CaseResults
) -> None:
    def plain(value: float) -> float | None:
        return round(value, 6) if np.isfinite(value) else None

    def estimates(found: dict[str, Estimate]) -> dict[str, list[float | None]]:
        return {name: [plain(each.value), plain(each.low), plain(each.high)] for name, each in found.items()}

    document: dict[str, Any] = {
        "note": "no case was trained on by the model that scores it; each model's epoch was chosen on these cases",
        "cases": len(indices),
        "positives": int(results.positive.sum()),
        "floor": plain(summary.floor),
        "folds": {
            fold: {name: plain(value) for name, value in metrics.items()} for fold, metrics in summary.folds.items()
        },
        "mean_and_sd_over_folds": {
            name: [plain(number) for number in summary.spread(name)] for name in next(iter(summary.folds.values()))
        },
        "pooled_by_triplets_tuned_on_these_cases": estimates(summary.in_sample),
        "pooled_by_triplets_tuned_on_the_other_folds": estimates(summary.cross_fitted),
        "data_sha256": dataset.data_hash,
    }
    write_json(folder / SUMMARY, document)
    rows: list[tuple[Any, ...]] = [("image_id", "fold", "positive", "called", "siim_dice", "score")]
    for row, index in enumerate(indices):
        case = dataset.cases[index]
        flags = (int(results.positive[row]), int(results.predicted_positive[row]))
        rows.append((case.image_id, case.fold, *flags, f"{results.dice[row]:.6f}", f"{results.scores[row]:.6f}"))
    write_csv(folder / CASES, rows)
