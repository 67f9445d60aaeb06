"""csv files: folds that leak, SIIM masks that are damaged, predictions that are not what they seem."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pleura.data import rle
from pleura.data.dataset import CARD, Dataset
from pleura.data.folds import Leak, leak_report, patients_or_own, read_column, read_folds, read_patients
from pleura.data.ids import Names, identified
from pleura.data.labels import LabelSource
from pleura.doctor.examination import Against, Examination, some
from pleura.errors import InputError, RLEError, excerpt
from pleura.measure.guards import OrientationCheck, empty_predictor, other_prevalence
from pleura.measure.metrics import Outcomes, siim_dice

POSITIVE_COLUMNS = ("exist_labels", "has_pneumothorax")
SIDE = rle.SIIM_SIDE_PX
MIN_POSITIVES, ASKEW = 30, 0.1
"""Masks of so many positives or more say where they lie. SIIM's lie high up: their mean row is at 0.28 of the height,
their mean column at 0.46 of the width; transposed it is the other way about."""


def header_of(path: Path) -> list[str]:
    """The names in the first line of a csv, without spaces around them. Raises: InputError if it is no text."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [name.strip() for name in next(csv.reader(file), [])]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a csv ({getattr(error, 'strerror', None) or error})") from error


def check_folds(folds_csv: Path, patients_csv: Path, masks_csv: Path | None = None) -> list[Leak]:
    """The leak of each fold of a csv (columns ImageId or fname, and fold or split).

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
        runs = rle.read_csv(masks_csv)
        return np.array([runs.get(image_id, [rle.EMPTY]) != [rle.EMPTY] for image_id in ids], dtype=bool)
    if not set(POSITIVE_COLUMNS) & set(header_of(folds_csv)):
        return None
    column = read_column(folds_csv, POSITIVE_COLUMNS)
    return np.array([column[image_id] == "1" for image_id in ids], dtype=bool)


def folds_csv(path: Path, against: Against) -> Examination:
    """Folds: leaks of patients, and a mixture that differs from fold to fold. Raises: InputError."""
    folds = read_folds(path)
    found = Examination("a csv of folds", [f"{len(folds)} cases in {len(set(folds.values()))} folds"])
    if len(set(folds.values())) < 2:
        found.error("all cases are in one fold", "make folds with pleura prepare --folds")
    if against.patients:
        leaks = check_folds(path, against.patients, against.masks)
        found.told += map(str, leaks)
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

    def fault(self, kind: str, image_id: str) -> None:
        self.faults.setdefault(kind, []).append(image_id)


FAULTS = {
    "a run past the last pixel": "the masks were made on a larger grid than 1024 x 1024, or starts are absolute",
    "runs that overlap (a negative gap)": "gaps count from the end of the last run, and are never negative",
    "no run-length mask": "a mask is -1, or pairs of (gap, length) with lengths above 0",
    "both -1 and a mask": "delete one of the rows",
    "no id or no mask": "fill in the row, -1 for an empty mask; or delete it",
}


def siim_csv(path: Path, against: Against) -> Examination:
    """Masks in SIIM's form: each damaged row, missing ids, masks that lie the wrong way. Raises: InputError."""
    scan, found = _Scan(), Examination("a csv of SIIM masks")
    _scan_rows(path, scan, found)
    positives = sum(texts != {rle.EMPTY} for texts in scan.ids.values())
    found.told.append(f"{len(scan.ids)} ids, {positives} of them with a mask")
    if not scan.ids:
        found.error("it has no rows", "was it written before the predictions were done?")
    for kind, ids in scan.faults.items():
        found.error(f"{len(ids)} rows have {kind}: {some(ids)}", FAULTS[kind])
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
    csv.field_size_limit(2**24)  # see rle.read_csv
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or [])
            reader.fieldnames = [name.strip() for name in names]
            if "ImageId" not in reader.fieldnames:
                raise InputError(f"{path}: the column ImageId is missing (found: {excerpt(', '.join(names))})")
            if names != reader.fieldnames:
                found.note(
                    "a name in its header begins with a space, as in the competition's own file",
                    "read it with skipinitialspace, or by ' EncodedPixels'; pleura takes both",
                )
            for row in reader:
                _scan_row((row["ImageId"] or "").strip(), (row["EncodedPixels"] or "").strip(), scan)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a csv ({getattr(error, 'strerror', None) or error})") from error
    for image_id, texts in scan.ids.items():
        if rle.EMPTY in texts and len(texts) > 1:
            scan.fault("both -1 and a mask", image_id)
        elif len(texts) > 1:
            _scan_union(image_id, texts, scan)


def _scan_row(image_id: str, text: str, scan: _Scan) -> None:
    if not image_id or not text:
        scan.fault("no id or no mask", image_id or "no id")
        return
    image_id = rle.strip_suffix(image_id)
    texts = scan.ids.setdefault(image_id, set())
    if text in texts:
        scan.duplicates += 1
        return
    texts.add(text)
    if text == rle.EMPTY:
        return
    if not re.fullmatch(r"-?[0-9]{1,12}( +-?[0-9]{1,12})*", text) or len(text.split()) % 2:
        scan.fault("no run-length mask", image_id)
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
        middles = (ends[::2] + ends[1::2]) / 2
        columns, rows = np.divmod(middles, SIDE)
        scan.centres.append(tuple(np.average([rows, columns], axis=1, weights=lengths) / SIDE))


def _scan_union(image_id: str, texts: set[str], scan: _Scan) -> None:
    try:
        masks = [rle.decode(text) for text in texts]
    except RLEError:
        return  # told already
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
    cases = identified(images)
    there, names = {case.image_id for case in cases}, Names((case.image_id, case.relative) for case in cases)
    rows = names.resolve(dict.fromkeys(scan.ids), path).keys()
    if without := sorted(there - rows):
        found.warn(
            f"{len(without)} of {len(there)} images have no row: {some(without)}",
            "they are not negative, nobody has looked: leave them out (pleura prepare does)",
        )
    if missing := sorted(rows - there):
        if len(missing) == len(rows):
            raise InputError(
                f"{images}: holds none of the {len(missing)} ids of {path}; they are SOP Instance UIDs or file names"
            )
        found.note(f"{len(missing)} ids have no image: {some(missing)}", "are the images complete?")


def predictions_csv(path: Path, truth: Path) -> Examination:
    """Predicted masks held against true ones. Raises: InputError, RLEError for a damaged mask."""
    predicted = {key: tuple(runs) for key, runs in rle.read_csv(path).items()}
    cases = _truth(truth)
    found = Examination("predictions in SIIM's form", [f"{len(predicted)} predictions, {len(cases)} true masks"])
    shared = [image_id for image_id in cases if image_id in predicted]
    if not shared:
        raise InputError(f"{path}: predicts none of the {len(cases)} ids of {truth}; ids are file names")
    if missing := [image_id for image_id in cases if image_id not in predicted]:
        found.error(
            f"{len(missing)} of {len(cases)} ids have no prediction: {some(missing)}",
            "predict them all; leaving out images changes every mean",
        )
    if extra := [image_id for image_id in predicted if image_id not in cases]:
        found.note(f"{len(extra)} predictions have no true mask: {some(extra)}", "they are left out")
    check, rows = OrientationCheck(), []
    for image_id in shared:
        source, shape, side = cases[image_id]
        empty = [set(runs) == {rle.EMPTY} for runs in (source.runs, predicted[image_id])]
        if any(empty):  # most cases of a competition: nothing to compare
            rows.append((not empty[0], not empty[1], float(all(empty))))
            continue
        # Predictions are on SIIM's grid for a square image, on its own for another; the truth may be a dataset's.
        grid = "siim" if shape[0] == shape[1] else "image"
        mask = source.mask((side, side), side, "image") if source.name == CARD else rle.decode_union(source.runs)
        guess = LabelSource(str(path), predicted[image_id]).mask(shape, side, grid)
        check.add(mask[None], guess[None])
        rows.append((bool(mask.any()), bool(guess.any()), float(siim_dice(mask, guess)[0])))
    table = np.array(rows, dtype=np.float64)
    outcomes = Outcomes(table[:, 0] > 0, table[:, 1] > 0, table[:, 2], table[:, 1])
    found.told.append(f"SIIM mean Dice {table[:, 2].mean():.6f}; answering nothing has {1 - table[:, 0].mean():.6f}")
    found.add(empty_predictor(outcomes), check.finding())
    return found


def _truth(path: Path) -> dict[str, tuple[LabelSource, tuple[int, int], int]]:
    """image_id -> true mask, shape of the image, side of the grid that the mask is on."""
    if not path.is_dir():
        runs = rle.read_csv(path)
        return {key: (LabelSource(str(path), tuple(texts)), (SIDE, SIDE), SIDE) for key, texts in runs.items()}
    dataset = Dataset(path)
    return {
        case.image_id: (LabelSource(CARD, (case.mask_rle,)), (case.rows, case.columns), dataset.size_px)
        for case in dataset.cases
        if case.role is None
    }
