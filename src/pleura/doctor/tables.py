"""csv files: folds that leak, masks that are damaged."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pleura.data import rle
from pleura.data.columns import POSITIVE, find_column, read_column
from pleura.data.folds import Leak, leak_report, patients_or_own, read_folds, read_patients
from pleura.data.ids import Names, identified, pair, without_aliases
from pleura.data.mask_checks import about_cells, exchanged
from pleura.data.mask_csv import damage, read_rows
from pleura.data.masks import open_masks
from pleura.doctor.examination import Against, Examination, some
from pleura.errors import InputError, RLEError
from pleura.evaluation.checks import other_prevalence
from pleura.files import read_csv

SIDE = rle.SIIM_SIDE_PX
MIN_POSITIVES, ASKEW = 30, 0.1
"""Where masks lie is checked from this many positives on. SIIM's lie high up: their mean row is at 0.28 of the height,
their mean column at 0.46 of the width; transposed it is the other way about."""


def header_of(path: Path) -> list[str]:
    """Return the names in the first line of a csv, without spaces around them. Raises: InputError if it is no text."""
    return [name.strip() for name in next(read_csv(path), (1, []))[1]]


def check_folds(folds_csv: Path, patients_csv: Path, masks_csv: Path | None = None) -> list[Leak]:
    """Return the leak of each fold of a csv (columns ImageId or fname, and fold or split).

    Positives come from a SIIM csv, or from the csv's own column `exist_labels` or `has_pneumothorax` (0, 1); without
    either none is counted.
    Raises: InputError for a missing file or column, or if no case has a known patient.
    """
    folds = read_folds(folds_csv)
    ids = list(folds)
    patients = Names((image_id, "") for image_id in ids).resolve(read_patients(patients_csv), patients_csv)
    if not any(image_id in patients for image_id in ids):
        raise InputError(f"{patients_csv}: knows the patient of none of the {len(ids)} cases in {folds_csv}")
    positive = _positives(folds_csv, ids, masks_csv)
    none = np.zeros(len(ids), dtype=bool)
    counted = (none if positive is None else positive).tolist()
    return leak_report([folds[image_id] for image_id in ids], patients_or_own(ids, patients), counted)


def _positives(folds_csv: Path, ids: list[str], masks_csv: Path | None) -> NDArray[np.bool_] | None:
    if masks_csv:
        masks = open_masks(masks_csv)
        name_of = {image_id: name for name, image_id in pair(masks.names, without_aliases(ids), masks_csv).items()}
        return np.array([not masks.known_empty(name_of.get(image_id, "")) for image_id in ids], dtype=bool)
    if find_column(header_of(folds_csv), POSITIVE) is None:
        return None
    column = read_column(folds_csv, POSITIVE)
    return np.array([column[image_id] == "1" for image_id in ids], dtype=bool)


def examine_folds(path: Path, against: Against) -> Examination:
    """Examine a csv of folds: leaks of patients, prevalences that differ between folds. Raises: InputError."""
    folds = read_folds(path)
    found = Examination("a csv of folds", [f"{len(folds)} cases in {len(set(folds.values()))} folds"])
    if len(set(folds.values())) < 2:
        found.error("all cases are in one fold", "make folds with pleura prepare --folds")
    if against.patients:
        leaks = check_folds(path, against.patients, against.masks)
        found.facts += map(str, leaks)
        if leaked := sum(leak.leaked for leak in leaks):
            found.error(
                f"patients leak across its folds: {leaked} of {len(folds)} images have their patient in another fold",
                "scores on these folds are too high; make new ones with pleura prepare --patients",
            )
    else:
        found.warn("whether patients leak across these folds is not known", "name who they are with --patients CSV")
    positive = _positives(path, list(folds), against.masks)
    if positive is not None:
        fold_of = np.array(list(folds.values()))
        for fold in np.unique(fold_of):
            if (fold_of != fold).any():
                inside = fold_of == fold
                if other := other_prevalence(positive[inside], float(positive[~inside].mean())):
                    found.warn(f"fold {fold}: {other.what}", other.way_out)
    return found


@dataclass
class _Scan:
    """A SIIM csv read row by row, so that one fault does not hide the others."""

    ids: dict[str, set[str]] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    absolute: int = 0
    duplicates: int = 0
    overlapping: list[str] = field(default_factory=list)
    centres: list[tuple[float, float]] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)
    """Of the image that each mask covers."""
    blank: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)

    def fault(self, kind: str, image_id: str) -> None:
        self.faults.setdefault(kind, []).append(image_id)


FAULTS = {
    "a run past the last pixel": "the masks were made on a larger grid than 1024 x 1024, or starts are absolute",
    "runs that overlap (a negative gap)": "gaps count from the end of the last run, and are never negative",
    "no run-length mask": "a mask is -1, or pairs of (gap, length) with lengths above 0",
    "both -1 and a mask": "delete one of the rows",
}


def examine_masks_csv(path: Path, against: Against) -> Examination:
    """Examine a csv of SIIM masks: damaged rows, missing ids, masks that lie the wrong way. Raises: InputError."""
    scan, found = _Scan(), Examination("a csv of SIIM masks")
    _scan_rows(path, scan, found)
    positives = sum(texts != {rle.EMPTY} for texts in scan.ids.values())
    found.facts.append(f"{len(scan.ids)} ids, {positives} of them with a mask")
    if not scan.ids:
        found.error("it has no rows", "was it written before the predictions were done?")
    for kind, ids in scan.faults.items():
        found.error(f"{len(ids)} rows have {kind}: {some(ids)}", FAULTS.get(kind, "correct these rows"))
    found.add(*about_cells(scan.blank, scan.cut), exchanged(scan.shares))
    if scan.absolute:
        found.error(
            f"{scan.absolute} masks fit the image only if their starts are absolute: Kaggle's other form",
            "SIIM's gaps count from the end of the last run; subtract the end of the run before from each start",
        )
    if scan.duplicates:
        found.note(f"{scan.duplicates} rows are there twice", "they count once; delete the copies")
    if scan.overlapping:
        found.note(
            f"the masks of {len(scan.overlapping)} ids overlap over their rows: {some(scan.overlapping)}",
            "the union is taken; adding them up gives values of 2",
        )
    if scan.ids and not positives:
        found.warn("every mask is empty", "if these are predictions: this is the empty predictor")
    _where_they_lie(scan, found)
    if against.images:
        _unannotated(path, scan, against.images, found)
    return found


def _scan_rows(path: Path, scan: _Scan, found: Examination) -> None:
    if any(name != name.strip() for name in next(read_csv(path, own=True), (1, []))[1]):
        found.note(
            "a name in its header begins with a space, as in the competition's own file",
            "read it with skipinitialspace, or by ' EncodedPixels'; pleura takes both",
        )
    for row in read_rows(path):
        if row.fault:
            scan.fault(f"a fault ({row.fault})", row.name or f"line {row.line}")
            continue
        if row.is_blank:
            scan.blank.append(row.name)
        if row.is_cut:
            scan.cut.append(row.name)
        _scan_row(row.name, row.runs, scan)
    for image_id, texts in scan.ids.items():
        if rle.EMPTY in texts and len(texts) > 1:
            scan.fault("both -1 and a mask", image_id)
        elif len(texts) > 1:
            _scan_union(image_id, texts, scan)


def _scan_row(image_id: str, text: str, scan: _Scan) -> None:
    texts = scan.ids.setdefault(image_id, set())
    if text in texts:
        scan.duplicates += 1
        return
    texts.add(text)
    if text == rle.EMPTY:
        return
    if not re.fullmatch(r"-?[0-9]{1,12}( +-?[0-9]{1,12})*", text) or len(text.split()) % 2:
        hint = damage(text)
        scan.fault(f"no run-length mask ({hint})" if hint else "no run-length mask", image_id)
        return
    numbers = np.array(text.split(), dtype=np.int64)
    gaps, lengths = numbers[::2], numbers[1::2]
    ends = numbers.cumsum()
    if (lengths < 1).any():
        scan.fault("no run-length mask", image_id)
    elif (gaps < 0).any():
        scan.fault("runs that overlap (a negative gap)", image_id)
    elif ends[-1] > SIDE**2:
        scan.fault("a run past the last pixel", image_id)
        # Starts that never fall behind the run before, and stay inside: the other form.
        inside = len(gaps) > 1 and gaps[-1] + lengths[-1] <= SIDE**2 + 1
        scan.absolute += bool(inside and (gaps[1:] >= gaps[:-1] + lengths[:-1]).all())
    else:
        scan.shares[image_id] = scan.shares.get(image_id, 0.0) + int(lengths.sum()) / SIDE**2
        middles = (ends[::2] + ends[1::2]) / 2
        columns, rows = np.divmod(middles, SIDE)
        scan.centres.append(tuple(np.average([rows, columns], axis=1, weights=lengths) / SIDE))


def _scan_union(image_id: str, texts: set[str], scan: _Scan) -> None:
    try:
        masks = [rle.decode(text) for text in texts]
    except RLEError:
        return  # a fault of its row already
    if sum(int(mask.sum()) for mask in masks) > int(np.any(masks, axis=0).sum()):
        scan.overlapping.append(image_id)


def _where_they_lie(scan: _Scan, found: Examination) -> None:
    if len(scan.centres) < MIN_POSITIVES:
        return
    row, column = np.mean(scan.centres, axis=0)
    where = f"the masks' mean row is at {row:.2f} of the height, their mean column at {column:.2f} of the width"
    if abs(column - 0.5) > abs(row - 0.5) + ASKEW:
        found.warn(
            f"{where}; a pneumothorax lies high up and on either side: are rows and columns swapped?",
            "runs go down the columns; hold it against its images: pleura prepare, then pleura doctor DATA",
        )
    elif row > 0.5 + ASKEW:
        found.warn(
            f"{where}; a pneumothorax mostly lies high up: are the masks upside down?",
            "hold it against its images: pleura prepare, then pleura doctor DATA",
        )


def _unannotated(path: Path, scan: _Scan, images: Path, found: Examination) -> None:
    there = {case.image_id: (case.relative,) for case in identified(images)}
    pairs = pair(without_aliases(scan.ids), there, path)
    if without := sorted(there.keys() - set(pairs.values())):
        found.warn(
            f"{len(without)} of {len(there)} images have no row: {some(without)}",
            "they are not negative, nobody has looked: leave them out (pleura prepare does)",
        )
    if missing := sorted(scan.ids.keys() - pairs.keys()):
        if len(missing) == len(scan.ids):
            raise InputError(
                f"{images}: holds none of the {len(missing)} ids of {path}; they are SOP Instance UIDs or file names"
            )
        found.note(f"{len(missing)} ids have no image: {some(missing)}", "are the images complete?")
