"""Folds grouped by patient, and a report of the patients that folds of others split.

The 12,047 radiographs of SIIM-ACR show 6,171 patients: a split by image lets a net recognise the patient.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pleura.data.cases import ALWAYS_TRAIN, NO_FOLD
from pleura.data.columns import FOLD, PATIENT, read_column
from pleura.data.dataset import Case
from pleura.errors import InputError, excerpt

SIZE_QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Leak:
    """How many of a fold's validation images show a patient who is in training too."""

    fold: int
    images: int
    leaked: int
    positives: int
    leaked_positives: int

    def __str__(self) -> str:
        return (
            f"fold {self.fold}: {self.leaked} of {self.images} validation images ({_percent(self.leaked, self.images)})"
            f" and {self.leaked_positives} of {self.positives} positive ones "
            f"({_percent(self.leaked_positives, self.positives)}) have their patient in training too"
        )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "none to count"


def assign_folds(patients: Sequence[str], mask_areas: Sequence[int], n_folds: int, seed: int) -> NDArray[np.int64]:
    """Give each case a fold in 0..n_folds-1, all cases of a patient the same one.

    Stratified on presence and on the quartile of the mask's size among positives (mask_areas in px, 0 = negative).
    Raises: InputError if there are fewer patients than folds.
    """
    groups = np.unique(np.asarray(patients), return_inverse=True)[1]
    if n_folds < 2 or groups.max(initial=-1) + 1 < n_folds:
        raise InputError(
            f"{groups.max(initial=-1) + 1} patients cannot make {n_folds} folds; give --folds 2 or more, "
            "and at most one for each patient"
        )
    areas = np.asarray(mask_areas)
    strata = np.zeros(len(areas), dtype=np.int64)
    if (areas > 0).any():
        strata[areas > 0] = 1 + np.searchsorted(np.quantile(areas[areas > 0], SIZE_QUARTILES), areas[areas > 0])
    strata = _merge_small_strata(strata, n_folds)
    # The seed renumbers the patients: of those that are alike, it decides who comes first.
    renumbered = np.random.default_rng(seed).permutation(groups.max() + 1)[groups]
    return _fold_of_groups(strata, renumbered, n_folds)[renumbered]


def _fold_of_groups(strata: NDArray[np.int64], groups: NDArray[np.int64], n_folds: int) -> NDArray[np.int64]:
    """(G,) the fold of each group of cases, so that each fold has as much of every stratum as the others.

    strata, groups: (N,), both from 0 on without gaps. The groups that are least like the others come first, each into
    the fold where the strata are spread most evenly then, and of equal ones into the smallest.
    Source: StratifiedGroupKFold of scikit-learn, without its shuffle; the folds are the same.
    """
    of_group = np.zeros((groups.max() + 1, strata.max() + 1))
    np.add.at(of_group, (groups, strata), 1)
    totals, in_fold = of_group.sum(axis=0), np.zeros((n_folds, of_group.shape[1]))
    folds = np.zeros(len(of_group), dtype=np.int64)
    for group in np.argsort(-of_group.std(axis=1), kind="stable"):
        added = in_fold + np.eye(n_folds)[:, :, None] * of_group[group]  # (where it goes, fold, stratum)
        unevenness = (added / totals).std(axis=1).mean(axis=1)
        sizes, best = in_fold.sum(axis=1), 0
        for fold in range(1, n_folds):
            is_equal = np.isclose(unevenness[fold], unevenness[best])
            if unevenness[fold] < unevenness[best] or (is_equal and sizes[fold] < sizes[best]):
                best = fold
        folds[group] = best
        in_fold[best] += of_group[group]
    return folds


def _merge_small_strata(strata: NDArray[np.int64], n_folds: int) -> NDArray[np.int64]:
    """With few positives their size cannot be stratified on as well; presence still can, as far as it goes."""
    counts = np.bincount(strata)
    if (counts[1:] < n_folds).any():
        strata = np.minimum(strata, 1)
    if np.bincount(strata).min() < n_folds:
        strata = np.zeros_like(strata)
    return strata


def leak_report(folds: Sequence[int], patients: Sequence[str], positive: Sequence[bool]) -> list[Leak]:
    """Count for each fold the validation images, and the positive ones, whose patient is also in training."""
    fold_of, who, positives = np.asarray(folds), np.asarray(patients), np.asarray(positive, dtype=bool)
    report = []
    for fold in np.unique(fold_of):
        held_out = fold_of == fold
        leaked = held_out & np.isin(who, who[~held_out])
        counts = (held_out, leaked, held_out & positives, leaked & positives)
        report.append(Leak(int(fold), *(int(count.sum()) for count in counts)))
    return report


def leaks_of(cases: Sequence[Case]) -> list[Leak]:
    """Return the `leak_report` of a dataset; of what is always trained on, a fold leaves out its own patients."""
    cases = [case for case in cases if case.role is None]
    patients = [case.patient or case.image_id for case in cases]
    return leak_report([case.fold for case in cases], patients, [case.has_pneumothorax for case in cases])


def read_patients(path: Path) -> dict[str, str]:
    """Read image_id -> patient from a csv with a column `patient`, or the public map from SIIM to NIH ChestX-ray14.

    In the latter (columns Kaggle_ID, NIH_ID) the digits before the underscore are the patient.
    Raises: InputError as `read_column` does.
    """
    patients = read_column(path, PATIENT)
    nih = re.compile(r"(\d{8})_\d{3}(\.png)?")
    return {image_id: (match[1] if (match := nih.fullmatch(who)) else who) for image_id, who in patients.items()}


def read_folds(path: Path) -> dict[str, int]:
    """Read image_id -> fold from a csv with a column `fold` (whole numbers) or `split` (val = fold 0, train = 1).

    `always-train` in either column is `NO_FOLD`. Raises: InputError as `read_column` does, and for values of no form.
    """
    named = {"val": 0, "train": 1, ALWAYS_TRAIN: NO_FOLD}
    folds = {}
    for image_id, value in read_column(path, FOLD).items():
        if value not in named and not value.isdecimal():
            raise InputError(
                f"{path}: {excerpt(image_id)} has the fold {excerpt(value)!r}; folds are 0, 1, 2 ... or train and val, "
                f"or {ALWAYS_TRAIN}"
            )
        folds[image_id] = named[value] if value in named else int(value)
    return folds


def patients_or_own(image_ids: Sequence[str], patients: Mapping[str, str]) -> list[str]:
    """The patient of each case; a case without one is a patient of its own."""
    return [patients.get(image_id) or image_id for image_id in image_ids]
