"""Predicted masks against true ones: missing, empty or turned masks, and which Dice was reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pleura.data.ids import pair
from pleura.data.mask_checks import about_source, exchanged
from pleura.data.mask_grid import read_pair
from pleura.data.masks import open_masks
from pleura.doctor.examination import Against, Examination, some
from pleura.errors import InputError
from pleura.evaluation.checks import OrientationCheck, empty_predictor, pooled_dice, reported_dice
from pleura.evaluation.metrics.siim import CaseResults, siim_dice


def examine_predictions(path: Path, truth: Path, against: Against) -> Examination:
    """Compare predicted masks with true ones. Raises: InputError, for a damaged mask too."""
    guesses, cases = (open_masks(each, segments=against.segments) for each in (path, truth))
    found = Examination("predicted masks", [f"{len(guesses.masks)} predictions, {len(cases.masks)} true masks"])
    pairs = pair(guesses.names, cases.names, path)
    name_of = {image_id: name for name, image_id in pairs.items()}
    if not name_of:
        raise InputError(f"{path}: predicts none of the {len(cases.masks)} ids of {truth}; ids are file names")
    if missing := [image_id for image_id in cases.masks if image_id not in name_of]:
        found.error(
            f"{len(missing)} of {len(cases.masks)} ids have no prediction: {some(missing)}",
            "predict them all; leaving out images changes every mean",
        )
    if extra := [name for name in guesses.masks if name not in pairs]:
        found.note(f"{len(extra)} predictions have no true mask: {some(extra)}", "they are left out")
    check, rows, shares = OrientationCheck(), [], dict[str, float]()
    for image_id, name in name_of.items():
        mask, guess, _ = read_pair(cases.masks[image_id], guesses.masks[name], what=f"{path}: {name}")
        areas = [0 if each is None else int(each.mask.sum()) for each in (mask, guess)]
        pixels = max(each.mask.size for each in (mask, guess) if each is not None) if mask or guess else 1
        dice = float(not any(areas))
        if mask is not None and guess is not None:
            check.add(mask.mask[None], guess.mask[None])
            dice = float(siim_dice(mask.mask, guess.mask)[0])
        shares[image_id] = areas[1] / pixels
        rows.append((areas[0] > 0, areas[1] > 0, dice, sum(areas) / pixels))
    table = np.array(rows, dtype=np.float64)
    results = CaseResults(table[:, 0] > 0, table[:, 1] > 0, table[:, 2], table[:, 1])
    pooled = pooled_dice(table[:, 2], table[:, 3])
    found.facts.append(f"SIIM mean Dice {table[:, 2].mean():.6f}; answering nothing has {1 - table[:, 0].mean():.6f}")
    found.facts.append(f"pooled Dice of all pixels {pooled:.6f}: another number, and not SIIM's")
    found.add(*about_source(guesses), exchanged(shares))
    found.add(empty_predictor(results), check.finding())
    if against.reported is not None:
        found.add(reported_dice(against.reported, results, pooled))
    return found
