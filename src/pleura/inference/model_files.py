"""The files that a path names as one model: a checkpoint, the folds of a run, or the members of an ensemble."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pleura.decision.calibration import Calibration
from pleura.decision.triplet import Triplet
from pleura.errors import CheckpointError, PleuraError
from pleura.models.default import model_path
from pleura.models.seen import SeenCases

ENSEMBLE, ENSEMBLE_FORMAT = "ensemble.json", 1


@dataclass(frozen=True)
class ModelFiles:
    """The files that a path names as one model."""

    checkpoints: list[Path]
    weights: list[float]
    """Of each checkpoint in the mean; they add up to 1."""
    triplet: Triplet | None = None
    """The decision rule where it is given for all of them together."""
    described_by: tuple[Path, ...] = ()
    """Further files that decide the result, besides the checkpoints."""
    calibration: Mapping[str, Any] | None = None
    """Of all of them together, where it is given."""
    tuned_on: tuple[str, ...] = ()
    """`case_key` of the cases that `triplet` was tuned on, where it was."""

    @property
    def all(self) -> list[Path]:
        """Every file, in order; together they identify the model."""
        return [*self.described_by, *self.checkpoints]


def find_model(model: Path | str) -> ModelFiles:
    """Find the files of a model: one checkpoint, the best of each fold of a run, or those of an ensemble's members.

    `default` is the model that comes with pleura, and the text `./default` a path. Raises: CheckpointError if there are
    none, or an ensemble is not whole.
    """
    return _find(model_path(model))


def find_checkpoint(model: Path | str) -> Path:
    """Find the one checkpoint of a model. Raises: CheckpointError if there is none, or several, or an ensemble."""
    files = find_model(model)
    if files.described_by or len(files.checkpoints) > 1:
        raise CheckpointError(
            f"{model}: is several checkpoints, or an ensemble; name one checkpoint, such as {files.checkpoints[0]}"
        )
    return files.checkpoints[0]


def _find(path: Path) -> ModelFiles:
    if (path / ENSEMBLE).is_file():
        return _find_ensemble(path)
    checkpoints = [path]
    if path.is_dir():
        checkpoints = sorted(path.glob("fold-*/best.safetensors")) or sorted(path.glob("best.safetensors"))
        if not checkpoints:
            raise CheckpointError(f"{path}: holds no fold-*/best.safetensors; is it the --out of pleura train?")
    return ModelFiles(checkpoints, [1 / len(checkpoints)] * len(checkpoints))


def _find_ensemble(folder: Path) -> ModelFiles:
    file = folder / ENSEMBLE
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if document["format"] != ENSEMBLE_FORMAT:
            raise ValueError("it is of another version")
        members = [(folder / member["folder"], float(member["weight"])) for member in document["members"]]
        triplet = None if document["triplet"] is None else Triplet.of(document["triplet"])
        calibration, tuned_on = document.get("calibration"), SeenCases.of({"val": document.get("tuned_on", [])}).val
        if calibration is not None:
            Calibration.of(calibration)
        total = sum(weight for _, weight in members)
        if not all(0 < weight / total <= 1 for _, weight in members) or not 0 < total < np.inf:
            raise ValueError("it has members, and weights above 0")
    except (PleuraError, OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
        raise CheckpointError(f"{file}: is no description of an ensemble ({error!s:.200}); train it again") from error
    checkpoints, weights, folds = [], [], {}
    for member, weight in members:
        if not os.path.isdir(member):  # of a name that no file system has, Path.is_dir raises
            raise CheckpointError(
                f"{str(member)[:200]}: this member of the ensemble is missing; train it with --resume"
            )
        found = _find(member).checkpoints
        folds[member.name] = {checkpoint.parent.name for checkpoint in found}
        checkpoints += found
        weights += [weight / total / len(found)] * len(found)
    if len({frozenset(names) for names in folds.values()}) > 1:
        found_folds = "; ".join(f"{name}: {', '.join(sorted(names))}" for name, names in folds.items())
        raise CheckpointError(f"{folder}: its members have different folds ({found_folds}); train what is missing")
    return ModelFiles(checkpoints, weights, triplet, (file,), calibration, tuned_on)
