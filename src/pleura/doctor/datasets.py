"""A dataset folder: leaks, copies across folds, black images, masks that lie the wrong way."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pleura.data.dataset import CASES, Case, Dataset, case_faults
from pleura.data.duplicates import THUMBNAIL_PX, near_duplicates, thumbnails
from pleura.data.folds import leaks_of
from pleura.data.geometry import SquareGeometry
from pleura.data.mask_checks import exchanged
from pleura.data.problems import Finding
from pleura.doctor.examination import Examination, some
from pleura.errors import InputError
from pleura.evaluation.checks import ORIENTATIONS, other_prevalence, turned
from pleura.files import read_records

BLACK_LEVEL, BLACK_SHARE = 8, 0.02
"""An image is nearly black if hardly a pixel (0.5 %) is above this of 255: what division by 255 once more leaves."""
SHOWN_FAULTS = 20
MIN_POSITIVES, MOST_POSITIVES = 12, 400
MIN_DARKER, MIN_ERRORS = 0.2, 4.0
"""In another orientation the masks have to lie on darker ground, by so many standard deviations of grey and so many
standard errors: a pneumothorax is air, and its neighbours are not."""
MIRRORED, PLAIN = 4, {1: 7, 2: 6, 3: 5}
"""A chest is nearly its own mirror image: the place of masks shows no flip from left to right, and cannot distinguish a
turned mask from a turned and mirrored one. PLAIN has the orientation to name, without the mirror."""


def examine_dataset(folder: Path) -> Examination:
    """Examine a dataset folder. Raises: InputError if it cannot be read."""
    if faults := case_faults(folder):
        found = Examination("a dataset", [f"{len(faults)} faults in {CASES}, for which the rest was not looked at"])
        for fault in faults[:SHOWN_FAULTS]:
            found.error(f"{CASES}, {fault}", "prepare it again from masks and labels that agree")
        return found
    dataset = Dataset(folder, check_hash=False)
    cases = dataset.cases
    shares = f"{int(dataset.positive.sum())} positive, {len(dataset.folds)} folds"
    found = Examination("a dataset", [f"{len(cases)} cases of {dataset.size_px} px, {shares}"])
    if always := int((~dataset.scored).sum()):
        found.facts.append(f"{always} of them are for training alone, and scored in no fold")
    _hash(dataset, found)
    found.add(exchanged(_covered(dataset)))
    _patients(dataset, found)
    _mixture(dataset, found)
    _left_out(folder, found)
    small = thumbnails(dataset.images)
    _black(dataset, found)
    _copies(dataset, small, found)
    found.add(_lungs(dataset, small))
    return found


def _hash(dataset: Dataset, found: Examination) -> None:
    try:
        dataset.check_hash(always=True)
    except InputError as error:
        what, _, way_out = str(error).partition("; ")
        found.error(what, way_out)


def _covered(dataset: Dataset) -> dict[str, float]:
    """image_id -> the share of the radiograph, without its black borders, that its mask covers."""
    shares = {}
    for case in dataset.cases:
        lengths = case.mask_rle.split()[1::2]
        if case.has_pneumothorax and all(map(str.isdigit, lengths)):
            inner = SquareGeometry(case.rows, case.columns, dataset.size_px, case.pixel_aspect).inner_shape
            shares[case.image_id] = sum(map(int, lengths)) / (inner[0] * inner[1])
    return shares


def _patients(dataset: Dataset, found: Examination) -> None:
    if leaked := [leak for leak in leaks_of(dataset.cases) if leak.leaked]:
        found.facts += map(str, leaked)
        found.error(
            f"patients leak across folds: {sum(leak.leaked for leak in leaked)} of {len(dataset)} images have their "
            "patient in another fold",
            "prepare it again with --patients and --folds N",
        )
    if unknown := sum(case.patient is None for case in dataset.cases):
        found.warn(
            f"the patient of {unknown} of {len(dataset)} cases is not known: each counts as one of its own",
            "prepare it with --patients CSV, or do not call its folds clean",
        )


def _mixture(dataset: Dataset, found: Examination) -> None:
    positive = dataset.positive[dataset.scored]
    folds = np.array([case.fold for case in dataset.cases])[dataset.scored]
    names = np.unique(folds)
    if without := [int(fold) for fold in names if not positive[folds == fold].any()]:
        every = len(without) == len(names)
        which = "no case has" if every else f"no case of fold {', '.join(map(str, without))} has"
        found.warn(
            f"{which} a pneumothorax: finding nothing has a SIIM Dice of 1 there, and train refuses it",
            "prepare it with the masks of positive cases" if every else "prepare it with fewer --folds",
        )
    for fold in names[: 1 if len(names) == 2 else None]:  # of two folds, one comparison is enough
        inside = folds == fold
        if not inside.all():
            other = other_prevalence(positive[inside], float(positive[~inside].mean()))
            if other:
                found.warn(f"fold {fold} against the others: {other.what}", other.way_out)


def _left_out(folder: Path, found: Examination) -> None:
    try:
        kinds = Counter(row["kind"] for row in read_records(folder / "problems.csv"))
    except (InputError, KeyError):
        return
    if kinds["unlabelled"]:
        found.warn(
            f"{kinds['unlabelled']} images had no annotation and were left out (problems.csv)",
            "that is right: they are not negatives; annotate them to use them",
        )
    if kinds["doubtful mask"]:
        found.warn(f"{kinds['doubtful mask']} masks were doubtful when they were read (problems.csv)", "see them there")
    if kinds["quarantined"]:
        found.warn(f"{kinds['quarantined']} files could not be used (problems.csv)", "see the reasons there")


def _black(dataset: Dataset, found: Examination) -> None:
    step = max(1, dataset.size_px // 128)
    # The 0.5 % brightest of a coarse grid: burnt-in letters are smaller than that.
    bright = [float(np.quantile(image[::step, ::step], 0.995)) for image in dataset.images]
    black = [case.image_id for case, level in zip(dataset.cases, bright, strict=True) if level < BLACK_LEVEL]
    if not black:
        return
    what = f"{len(black)} of {len(dataset)} images are nearly black (hardly a pixel above {BLACK_LEVEL} of 255)"
    way_out = "prepare them from the originals; scale to [0, 1] once"
    if len(black) > BLACK_SHARE * len(dataset):
        found.error(f"{what}: {some(black)}; were they divided by 255 twice?", way_out)
    else:
        found.warn(f"{what}: {some(black)}", "look at them: pleura predict --write overlay draws what it reads")


def _copies(dataset: Dataset, small: NDArray[np.float32], found: Examination) -> None:
    pairs = near_duplicates(small)
    cases = dataset.cases
    across = [(cases[a], cases[b]) for a, b in pairs.tolist() if cases[a].fold != cases[b].fold]
    if across:
        named = some(f"{a.image_id} ({_part(a)}) and {b.image_id} ({_part(b)})" for a, b in across)
        found.error(
            f"{len(across)} pairs of nearly equal images lie in different folds: {named}",
            "keep one of each pair, or give both the same patient in --patients, so that they share a fold",
        )
    if inside := len(pairs) - len(across):
        found.note(f"{inside} pairs of nearly equal images lie in the same fold", "they count twice, and leak nothing")


def _part(case: Case) -> str:
    return f"fold {case.fold}" if case.role is None else case.role


def _lungs(dataset: Dataset, small: NDArray[np.float32]) -> Finding | None:
    """Whether masks cover darker ground, in the mean image and in their own, when they are turned or transposed."""
    indices = np.flatnonzero(dataset.positive)
    if len(indices) < MIN_POSITIVES:
        return None
    indices = indices[np.linspace(0, len(indices) - 1, min(len(indices), MOST_POSITIVES)).astype(int)]
    mean = small.mean(axis=0)
    mean = mean / max(float(mean.std()), 1e-6)
    darkness = np.zeros((len(indices), len(ORIENTATIONS)))
    for row, index in enumerate(indices):
        mask = _shares(dataset.masks([index])[0])
        ground = mean + small[index] * THUMBNAIL_PX  # a thumbnail has the length 1
        darkness[row] = [-float((turned(mask, number) * ground).sum()) / 2 for number in range(len(ORIENTATIONS))]
    means = darkness.mean(axis=0)
    best = int(means.argmax())
    gain = darkness[:, best] - np.maximum(darkness[:, 0], darkness[:, MIRRORED])
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    if best in (0, MIRRORED) or gain.mean() < max(MIN_DARKER, MIN_ERRORS * error):
        return None
    return Finding(
        "error",
        f"masks lie outside the lungs: {ORIENTATIONS[PLAIN.get(best, best)]}, or so and mirrored, they would cover "
        f"darker ground (by {gain.mean():.2f} standard deviations of grey, over {len(gain)} positives)",
        "SIIM runs go down the columns, numpy's rows come first: turn the masks so, and prepare again",
    )


def _shares(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The mask at a thumbnail's size, as shares that add up to 1."""
    rows, columns = np.nonzero(mask)
    side = mask.shape[0]
    shares = np.zeros((THUMBNAIL_PX, THUMBNAIL_PX), dtype=np.float32)
    np.add.at(shares, (rows * THUMBNAIL_PX // side, columns * THUMBNAIL_PX // side), 1)
    return shares / max(float(shares.sum()), 1.0)
