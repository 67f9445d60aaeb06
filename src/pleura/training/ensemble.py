"""Several recipes, trained one after the other, and the file that makes them one model: OUT/ensemble.json.

`Predictor.load(OUT)` is then the mean of the members' probabilities by weight, each member the mean of its folds.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from pleura import __version__
from pleura.config.bundled import load_members
from pleura.config.recipe import Ensemble
from pleura.data.dataset import Dataset
from pleura.decision.triplet import Triplet
from pleura.errors import OutputError
from pleura.files import as_json
from pleura.inference.model_files import ENSEMBLE, ENSEMBLE_FORMAT
from pleura.training.distributed import is_first_process
from pleura.training.resuming import all_are_finished
from pleura.training.train import train
from pleura.urls.places import read, write
from pleura.urls.url import Place

logger = logging.getLogger("pleura")


def train_ensemble(
    ensemble: Ensemble,
    overrides: Iterable[str],
    dataset: Dataset,
    out: Place,
    fold: int = 0,
    resume: bool = False,
    tensorboard: bool = False,
) -> Place:
    """Train each member into a folder of its name in `out`, and write ensemble.json once all of them are there.

    overrides: `dotted.key=value`, for every member. resume: go on; members that are finished are left as they are.
    Returns: `out`. Raises: ConfigError before any data is read; OutputError if `out` holds an ensemble of other
    members; and what `pleura.training.train.train` raises.
    """
    recipes = load_members(ensemble, overrides)
    described = _described(ensemble)
    _refuse_another(out / ENSEMBLE, described)
    runs = [(out / name / f"fold-{fold}", recipe) for name, recipe in recipes.items()]
    all_are_finished(runs, resume, dataset.data_hash, dataset.folder)
    for number, (name, recipe) in enumerate(recipes.items(), start=1):
        if is_first_process():
            logger.info("member %d of %d: %s", number, len(recipes), name)
        train(recipe, dataset, out / name, fold, resume, tensorboard=tensorboard)
    # Processes of one training share the folder; they end each member together.
    if is_first_process():
        write(out / ENSEMBLE, f"{as_json(described)}\n".encode())
    return out


def _described(ensemble: Ensemble) -> dict[str, Any]:
    members = [{"folder": member.name, "weight": member.weight} for member in ensemble.members]
    return {
        "format": ENSEMBLE_FORMAT,
        "name": ensemble.name,
        "members": members,
        "triplet": asdict(Triplet(**ensemble.triplet.model_dump())) if ensemble.triplet else None,
        "pleura": __version__,
    }


def _refuse_another(path: Place, described: dict[str, Any]) -> None:
    """Refuse to replace a file of other members, which nothing would find any more. Raises: OutputError."""
    try:
        before = [str(member["folder"]) for member in json.loads(read(path) or b"")["members"]]
    except (ValueError, LookupError, TypeError, RecursionError):
        return  # none, or damaged: it is about to be written anew
    if before != [member["folder"] for member in described["members"]]:
        raise OutputError(f"{path}: is of other members ({', '.join(before)}); choose another --out")
