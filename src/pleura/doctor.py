"""Finds what is wrong with what others hand you. So far: folds that leak patients."""

from __future__ import annotations

from pathlib import Path

from pleura.data import rle
from pleura.data.folds import Leak, leak_report, patients_or_own, read_column, read_folds, read_patients
from pleura.errors import InputError


def check_folds(folds_csv: Path, patients_csv: Path, masks_csv: Path | None = None) -> list[Leak]:
    """The leak of each fold of a csv (columns ImageId or fname, and fold).

    Positives come from a SIIM csv, or from the csv's own column `exist_labels` or `has_pneumothorax` (0, 1).
    Raises: InputError for a missing file or column, or if no case has a known patient.
    """
    folds, patients = read_folds(folds_csv), read_patients(patients_csv)
    ids = list(folds)
    if not any(image_id in patients for image_id in ids):
        raise InputError(f"{patients_csv}: knows the patient of none of the {len(ids)} cases in {folds_csv}")
    if masks_csv:
        runs = rle.read_csv(masks_csv)
        positive = [runs.get(image_id, [rle.EMPTY]) != [rle.EMPTY] for image_id in ids]
    else:
        column = read_column(folds_csv, ("exist_labels", "has_pneumothorax"))
        positive = [column[image_id] == "1" for image_id in ids]
    return leak_report([folds[image_id] for image_id in ids], patients_or_own(ids, patients), positive)
