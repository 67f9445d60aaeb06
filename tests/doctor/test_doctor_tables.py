"""The doctor on csv files: folds that leak, damaged masks, predictions that are not what they seem."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pleura.data import rle
from pleura.doctor import Against, Examination, examine
from pleura.errors import InputError

SIDE = 1024


def words(found: Examination, severity: str = "") -> str:
    return "\n".join(finding.what for finding in found.sorted if finding.severity.startswith(severity))


def table(path: Path, header: str, rows: list[tuple[object, ...]]) -> Path:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def masks(n: int, seed: int = 0) -> list[np.ndarray]:
    """High up, on either side, as a pneumothorax; each somewhere else."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(n):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        row, column = rng.integers(80, 300), rng.integers(120, 250) + (number % 2) * 500
        mask[row : row + 200, column : column + 90] = 1
        found.append(mask)
    return found


def siim(path: Path, every: list[np.ndarray], negatives: int = 10) -> Path:
    rows = [(f"p{number}", rle.encode(mask)) for number, mask in enumerate(every)]
    return table(path, "ImageId,EncodedPixels", rows + [(f"n{number}", "-1") for number in range(negatives)])


def legacy_folds(folder: Path) -> tuple[Path, Path]:
    """As the legacy folds: by image, round robin, so that patients with several images leak."""
    ids = [(f"i{number}.png", number % 5, number % 7 == 0, number // 3) for number in range(300)]
    folds = table(folder / "folds.csv", "fname,fold,exist_labels", [(i, f, int(p)) for i, f, p, _ in ids])
    return folds, table(folder / "patients.csv", "ImageId,patient", [(i, who) for i, _, _, who in ids])


def test_the_leak_of_the_legacy_folds_is_an_error(tmp_path: Path) -> None:
    folds, patients = legacy_folds(tmp_path)
    found = examine(folds, Against(patients=patients))
    assert found.failed
    assert "300 of 300 images have their patient in another fold" in words(found, "error")
    assert "fold 0: 60 of 60 validation images (100.0 %)" in found.facts[1]


def test_folds_by_patient_have_no_error_and_unknown_patients_are_a_warning(tmp_path: Path) -> None:
    rows = [(f"i{n}", n // 30, n // 3) for n in range(90)]
    folds = table(tmp_path / "folds.csv", "ImageId,fold", [row[:2] for row in rows])
    patients = table(tmp_path / "patients.csv", "ImageId,patient", [(row[0], row[2]) for row in rows])
    assert examine(folds, Against(patients=patients)).findings == []
    assert "is not known" in words(examine(folds), "warning")


def test_a_fold_of_another_prevalence_is_a_warning(tmp_path: Path) -> None:
    rows = [(f"i{n}", int(n < 100), int(n < 80)) for n in range(600)]
    folds = table(tmp_path / "folds.csv", "ImageId,fold,has_pneumothorax", rows)
    assert "fold 1: 80.0 % of these 100 cases are positive, 0.0 %" in words(examine(folds), "warning")


def test_a_sound_csv_of_masks_has_no_findings(tmp_path: Path) -> None:
    found = examine(siim(tmp_path / "m.csv", masks(40)))
    assert (found.kind, found.findings) == ("a csv of SIIM masks", [])
    assert found.facts == ["50 ids, 40 of them with a mask"]


def test_every_fault_of_a_csv_is_found_at_once(tmp_path: Path) -> None:
    rows = [
        ("past", "1048570 20"),
        ("overlap", "100 5 -3 5"),
        ("odd", "100 5 3"),
        ("words", "100 x"),
        ("short", "100 0"),
        ("both", "-1"),
        ("both", "7 3"),
        ("none", ""),
        ("absolute", "400000 50 500000 50 700000 50"),
        ("twice", "5 5"),
        ("twice", "5 5"),
        ("union", "5 5"),
        ("union", "7 5"),
        ("", "7 5"),
    ]
    found = examine(table(tmp_path / "m.csv", "ImageId, EncodedPixels", rows))
    errors = words(found, "error")
    assert "2 rows have a run past the last pixel: past, absolute" in errors
    assert "1 rows have runs that overlap (a negative gap): overlap" in errors
    assert "3 rows have no run-length mask: odd, words, short" in errors
    assert "1 rows have both -1 and a mask: both" in errors
    assert "1 rows have a fault (a row needs an image id and runs): line 15" in errors
    assert "1 masks fit the image only if their starts are absolute" in errors
    notes = words(found, "note")
    assert "begins with a space" in notes
    assert "1 rows have no runs: each counts as the empty mask (none)" in notes
    assert "1 rows are there twice" in notes
    assert "the masks of 1 ids overlap over their rows: union" in notes


def test_transposed_and_upturned_masks_are_suspected_from_where_they_lie(tmp_path: Path) -> None:
    transposed = examine(siim(tmp_path / "t.csv", [mask.T for mask in masks(40)]))
    upturned = examine(siim(tmp_path / "u.csv", [mask[::-1] for mask in masks(40)]))
    assert "are rows and columns swapped?" in words(transposed, "warning")
    assert "upside down?" in words(upturned, "warning")


def test_images_that_nobody_annotated_are_found(phantoms: Path, tmp_path: Path) -> None:
    lines = (phantoms / "masks.csv").read_text().splitlines()
    dropped = lines[1].split(",")[0]
    kept = [line for line in lines if not line.startswith(dropped)]
    (tmp_path / "m.csv").write_text("\n".join([*kept, "nobody,-1"]) + "\n")
    found = examine(tmp_path / "m.csv", Against(images=phantoms / "dicom"))
    assert f"have no row: {dropped}" in words(found, "warning")
    assert "1 ids have no image: nobody" in words(found, "note")


def test_the_empty_submission_is_named_the_empty_predictor(tmp_path: Path) -> None:
    truth = siim(tmp_path / "truth.csv", masks(4), negatives=12)
    empty = table(tmp_path / "p.csv", "ImageId,EncodedPixels", [(f"p{n}", "-1") for n in range(4)]
                  + [(f"n{n}", "-1") for n in range(12)])  # fmt: skip
    found = examine(empty, Against(truth=truth))
    assert found.failed
    assert "equals the empty predictor" in words(found)
    assert "answering nothing has 0.750000" in found.facts[1]
    assert "every mask is empty" in words(examine(empty), "warning")


@pytest.mark.parametrize(
    ("change", "name"),
    [(np.transpose, "transposed"), (np.fliplr, "flipped left to right"), (np.flipud, "top to bottom")],
)
def test_turned_predictions_are_found_with_their_orientation(tmp_path: Path, change: object, name: str) -> None:
    truth = siim(tmp_path / "truth.csv", masks(8))
    turned = siim(tmp_path / "p.csv", [change(mask) for mask in masks(8)])  # type: ignore[operator]
    assert name in words(examine(turned, Against(truth=truth)), "error")
    assert examine(truth, Against(truth=truth)).findings == []


def test_missing_predictions_are_an_error_and_strange_ones_a_note(tmp_path: Path) -> None:
    truth = siim(tmp_path / "truth.csv", masks(5))
    part = table(tmp_path / "p.csv", "ImageId,EncodedPixels", [("p0", rle.encode(masks(5)[0])), ("q", "-1")])
    found = examine(part, Against(truth=truth))
    assert "14 of 15 ids have no prediction: p1, p2, p3 and 11 more" in words(found, "error")
    assert "1 predictions have no true mask: q" in words(found, "note")


def test_a_dataset_can_be_the_truth(dataset: Path, phantoms: Path, tmp_path: Path) -> None:
    found = examine(phantoms / "masks.csv", Against(truth=dataset))
    assert found.findings == []
    assert float(found.facts[1].split()[3].strip(";")) == pytest.approx(1, abs=0.02)


def test_files_that_are_missing_or_strange_are_refused_in_a_line(tmp_path: Path, dataset: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        examine(tmp_path / "nowhere")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00\xd8" * 20)
    with pytest.raises(InputError, match="cannot be read as a csv"):
        examine(tmp_path / "bytes.csv")
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match="nothing that pleura doctor examines"):
        examine(tmp_path / "empty")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="neither a dataset"):
        examine(tmp_path / "folder")
    truth = siim(tmp_path / "truth.csv", masks(1))
    shutil.copy(truth, tmp_path / "again.csv")
    with pytest.raises(InputError, match="predicts none of the"):
        examine(truth, Against(truth=dataset))
    with pytest.raises(InputError, match=r"no\.csv"):
        examine(truth, Against(truth=tmp_path / "no.csv"))
    folds = table(tmp_path / "folds.csv", "ImageId,fold", [("a", 0), ("b", 1)])
    with pytest.raises(InputError, match=r"no\.csv"):
        examine(folds, Against(patients=tmp_path / "no.csv"))
