"""What is wrong with a model by its header, and on a dataset: of a checkpoint, and of what is exported from one.

A sigmoid in the net shows in its probabilities alone, so that a dataset is needed to find it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pleura.data.dataset import Dataset
from pleura.data.duplicates import near_duplicates, thumbnails
from pleura.decision.triplet import REFERENCE_AREA_PX
from pleura.doctor.examination import Examination, some
from pleura.evaluation.checks import OrientationCheck, empty_predictor, other_prevalence, saturated, shared_patients
from pleura.evaluation.scoring import CaseScores, score_batch
from pleura.inference.predictor import Predictor
from pleura.models.header import ModelHeader
from pleura.models.seen import SeenRows

TRIED_CASES, BATCH = 32, 4
BIGGEST_SHARE = 0.16
"""The largest mask of SIIM-ACR covers 15.4 % of its image."""


def check_rule(header: ModelHeader, found: Examination) -> None:
    """Look for a decision rule that finds nothing, or next to nothing."""
    triplet = header.triplet
    way_out = "nothing beat the empty answer when it was tuned: train longer, and tune it anew"
    share = triplet.min_pixels / REFERENCE_AREA_PX
    if triplet.finds_nothing:
        found.error("its triplet finds nothing on any image: it is the empty predictor", way_out)
    elif share > BIGGEST_SHARE:
        found.warn(
            f"its triplet {triplet} asks for {100 * share:.0f} % of the image above the top threshold, more than any "
            "pneumothorax of SIIM-ACR covers",
            way_out,
        )


def check_scaling(header: ModelHeader, found: Examination) -> bool:
    """Compare the scaling in serving (`preprocessing`) with that in training (`model.input_scaling`).

    Returns whether they agree, as far as a header can say.
    """
    given = header.preprocessing
    mean, std = (np.atleast_1d(np.asarray(numbers, dtype=np.float64)) for numbers in (given.mean, given.std))
    if (std < 0.02).any():
        found.error(
            f"preprocessing.std is {std.min():g} for images in [0, 1]: it was divided by 255, and the images are too",
            "divide by 255 once; ImageNet's std is 0.229, 0.224, 0.225",
        )
    elif (np.abs(mean) > 1).any() or (std > 1).any():
        found.error(
            f"preprocessing has mean {mean.max():g} and std {std.max():g}, those of images in 0..255; images are in "
            "[0, 1] here, so that the net sees nearly one value",
            "divide both by 255",
        )
    elif header.model.input_scaling == "none" and (mean.any() or (std != 1).any()):
        found.error(
            f"trained on [0, 1] (model.input_scaling none), served with mean {mean.max():g} and std {std.max():g}",
            "set preprocessing to mean 0 and std 1, as it was trained",
        )
    else:
        return True
    return False


def check_past(header: ModelHeader, found: Examination) -> None:
    """Look for cases on both sides, cases that are listed nowhere, and scores of a model that learned nothing."""
    seen = header.seen
    if both := int(seen.in_both().sum()):
        found.error(
            f"{both} of {len(seen.val)} validation cases were training cases too",
            "its scores are too high; train again on folds of pleura prepare",
        )
    if doubt := seen.doubt():
        found.note(
            f"which cases it has learned from is not known: {doubt}",
            "no evaluation can show whether its scores are honest",
        )
    gain = header.scores.get("gain_over_empty")
    if isinstance(gain, int | float) and gain <= 0:
        found.warn(
            f"by its own scores it gains {gain:+.4f} over answering nothing",
            "train longer, or look at Dice on positives before using it",
        )


def check_on_data(
    path: Path, header: ModelHeader, data: Path | None, found: Examination, tta: str | None = None, runs: bool = True
) -> None:
    """Look for leaks into a dataset, and at the model's probabilities on it.

    tta: as `Predictor.load` takes it. runs: False for a model that cannot be run. Raises: CheckpointError, InputError.
    """
    if data is None:
        found.note("it was not run", "name a dataset with --data, to look at its probabilities and for leaks")
        return
    dataset, prepared = Dataset(data), header.preprocessing.prepared_px
    if prepared != dataset.size_px:
        found.warn(
            f"it was trained on images prepared at {prepared} px, this dataset has {dataset.size_px} px: another "
            "resampling in serving than in training, which evaluate, tune and compare refuse",
            f"prepare the data with --size {prepared}",
        )
    seen = SeenRows.of([header.seen], *dataset.names)
    train, val, new = seen.train, seen.val, ~(seen.train | seen.val)
    rest = f"; whether the rest is new to it is not known: {seen.doubt}" if seen.doubt else ""
    found.facts.append(
        f"of the dataset's {len(train)} cases it learned from {train.sum()}{seen.train_by_chance}, was chosen on "
        f"{val.sum()}{seen.val_by_chance}{rest}"
    )
    who = [case.patient for case in dataset.cases]
    learned = [who[row] for row in np.flatnonzero(train)]
    for rows, name in ((val, "those it was chosen on"), (new, "those that it does not list")):
        held_out = np.flatnonzero(rows)
        if not (train.any() and held_out.size):
            continue
        if leak := shared_patients(learned, [who[row] for row in held_out]):
            found.error(f"{name}: {leak.what}", leak.way_out)
        _copies(dataset, np.flatnonzero(train), held_out, name, found)
        if other := other_prevalence(dataset.positive[held_out], float(dataset.positive[train].mean())):
            found.warn(f"{name}: {other.what}", other.way_out)
    if runs:
        tried = np.flatnonzero(val) if val.any() else np.arange(len(dataset))
        _try(Predictor.load(path, tta), dataset, tried, found)


def _copies(
    dataset: Dataset, train: NDArray[np.int64], held_out: NDArray[np.int64], name: str, found: Examination
) -> None:
    rows = np.sort(np.concatenate([train, held_out]))
    of_train = np.isin(rows, train)
    pairs = [pair for pair in near_duplicates(thumbnails(dataset.images[rows])).tolist() if of_train[pair].sum() == 1]
    if pairs:
        first = some(" and ".join(dataset.cases[rows[side]].image_id for side in pair) for pair in pairs)
        found.error(
            f"{name}: {len(pairs)} are nearly equal to training images: {first}", "keep one of each, and train again"
        )


def _try(predictor: Predictor, dataset: Dataset, indices: NDArray[np.int64], found: Examination) -> None:
    """Run it on a few cases, half of them positive if there are enough, and check its probabilities."""
    check = OrientationCheck()
    halves = [indices[dataset.positive[indices] == wanted] for wanted in (True, False)]
    chosen = np.concatenate([half[np.unique(np.linspace(0, len(half) - 1, TRIED_CASES // 2).astype(int))]
                             for half in halves if len(half)])  # fmt: skip

    def on_batch(probabilities: NDArray[np.float32], masks: NDArray[np.uint8]) -> None:
        check.add(masks, np.stack([predictor.triplet.apply(each, dataset.size_px**2) for each in probabilities]))

    parts = []
    for start in range(0, len(chosen), BATCH):
        group = chosen[start : start + BATCH]
        squares = predictor.probabilities(np.stack([dataset.images[index] for index in group]))
        parts.append(score_batch(squares, dataset.masks(group), on_batch))
    cases = CaseScores.join(parts)
    results = cases.by(predictor.triplet)
    positives = int(results.positive.sum())
    found.facts.append(
        f"run on {len(chosen)} cases, {positives} of them positive: mean Dice {float(np.mean(results.dice)):.3f}"
    )
    found.add(saturated(cases.histograms), empty_predictor(results), check.finding())
