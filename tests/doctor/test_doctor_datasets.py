"""The doctor on dataset folders: each fault is put into a copy of a sound one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from places import sealed

from pleura.data import rle
from pleura.data.dataset import CASES, IMAGES, Case, Dataset, write_cases
from pleura.doctor import Examination, examine
from pleura.errors import InputError


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More phantoms than the shared dataset has: where masks lie is a mean over positives."""
    from pleura.data.phantoms.dicom_files import write_phantom_dataset
    from pleura.data.prepare import PrepareSettings, prepare

    folder = tmp_path_factory.mktemp("many")
    write_phantom_dataset(folder, n_patients=40, seed=8, size_px=96)
    masks = (folder / "masks.csv",)
    prepare(PrepareSettings(folder / "dicom", masks, folder / "data", size_px=64, folds=3, workers=1))
    return folder / "data"


def changed(
    source: Path,
    folder: Path,
    images: Callable[[np.ndarray], np.ndarray] | None = None,
    cases: Callable[[list[Case]], list[Case]] | None = None,
) -> Path:
    """A copy of a dataset in which images or cases are others."""
    shutil.copytree(source, folder)
    if images:
        np.save(folder / IMAGES, images(np.load(source / IMAGES)))
    if cases:
        write_cases(folder / CASES, cases(Dataset(source).cases))
    return sealed(folder)


def with_masks(cases: list[Case], change: Callable[[np.ndarray], np.ndarray]) -> list[Case]:
    shape = (64, 64)
    return [replace(case, mask_rle=rle.encode(change(rle.decode(case.mask_rle, shape)))) for case in cases]


def errors(found: Examination) -> str:
    return "\n".join(finding.what for finding in found.sorted if finding.severity == "error")


def test_a_sound_dataset_has_no_error(dataset: Path, many: Path) -> None:
    assert errors(examine(dataset)) == errors(examine(many)) == ""
    assert examine(dataset).kind == "a dataset"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (np.transpose, "transposed, or so and mirrored"),
        (np.flipud, "flipped top to bottom, or so and mirrored"),
        (np.rot90, "transposed, or so and mirrored"),
    ],
)
def test_masks_that_are_turned_lie_outside_the_lungs(
    many: Path, tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], name: str
) -> None:
    found = errors(examine(changed(many, tmp_path / "d", cases=lambda cases: with_masks(cases, change))))
    assert "masks lie outside the lungs" in found
    assert name in found


def test_images_divided_by_255_twice_are_nearly_black(dataset: Path, tmp_path: Path) -> None:
    black = changed(dataset, tmp_path / "d", images=lambda images: (images / 255.0).astype(np.uint8))
    assert "nearly black" in errors(examine(black))
    assert "divided by 255 twice?" in errors(examine(black))


def test_one_black_image_among_many_is_a_warning(many: Path, tmp_path: Path) -> None:
    def blacken(images: np.ndarray) -> np.ndarray:
        images[0] //= 255
        return images

    found = examine(changed(many, tmp_path / "d", images=blacken))
    assert errors(found) == ""
    assert "1 of" in next(finding.what for finding in found.findings if "nearly black" in finding.what)


def test_nearly_equal_images_in_two_folds_are_found(dataset: Path, tmp_path: Path) -> None:
    cases = Dataset(dataset).cases
    first = next(row for row, case in enumerate(cases) if case.fold == 0)
    other = next(row for row, case in enumerate(cases) if case.fold == 1)

    def copy(images: np.ndarray) -> np.ndarray:
        images[other] = (20 + 0.8 * images[first]).astype(np.uint8)
        return images

    found = errors(examine(changed(dataset, tmp_path / "d", images=copy)))
    assert "1 pairs of nearly equal images lie in different folds" in found
    assert cases[first].image_id in found
    assert cases[other].image_id in found


def test_patients_in_two_folds_are_found(dataset: Path, tmp_path: Path) -> None:
    def one_patient(cases: list[Case]) -> list[Case]:
        return [replace(case, patient="the one") for case in cases]

    found = examine(changed(dataset, tmp_path / "d", cases=one_patient))
    assert "patients leak across folds: 37 of 37" in errors(found)
    assert any(line.startswith("fold 2: ") for line in found.facts)


def test_cases_that_contradict_themselves_and_damaged_masks_are_found(dataset: Path, tmp_path: Path) -> None:
    def wrong(cases: list[Case]) -> list[Case]:
        first = replace(cases[0], has_pneumothorax=not cases[0].has_pneumothorax)
        return [first, replace(cases[1], image_id=first.image_id), replace(cases[2], mask_rle="1 9999"), *cases[3:]]

    found = errors(examine(changed(dataset, tmp_path / "d", cases=wrong)))
    assert "cases.csv, line 2: has_pneumothorax is " in found
    assert f"cases.csv, line 3: the image_id {Dataset(dataset).cases[0].image_id!r} is in line 2 too" in found
    assert "cases.csv, line 4: the mask of " in found
    assert "past the 64 x 64 mask" in found


def test_bytes_that_are_not_the_ones_prepared_are_an_error_and_the_rest_is_looked_at(
    dataset: Path, tmp_path: Path
) -> None:
    folder = changed(dataset, tmp_path / "d")
    Dataset(folder)
    with (folder / IMAGES).open("r+b") as file:
        file.seek(5000)
        file.write(bytes(1000))
    found = examine(folder)
    assert "images.npy or cases.csv is not as it was prepared" in errors(found)
    assert any("if the change is yours" in finding.way_out for finding in found.findings)
    assert "37 cases of 64 px" in found.facts[0]


def test_images_without_annotation_are_a_warning(dataset: Path, tmp_path: Path) -> None:
    folder = changed(dataset, tmp_path / "d")
    (folder / "problems.csv").write_text("kind,image_id,file,reason\nunlabelled,a,a.dcm,left out\n")
    assert any("1 images had no annotation" in finding.what for finding in examine(folder).findings)


def test_unknown_patients_are_a_warning(dataset: Path, tmp_path: Path) -> None:
    found = examine(changed(dataset, tmp_path / "d", cases=lambda cases: [replace(cases[0], patient=None), *cases[1:]]))
    assert "the patient of 1 of 37 cases is not known" in found.sorted[0].what


def test_a_damaged_dataset_is_refused_in_a_line(dataset: Path, tmp_path: Path) -> None:
    folder = changed(dataset, tmp_path / "d")
    (folder / IMAGES).write_bytes(b"")
    with pytest.raises(InputError, match=r"cannot be read as an array of numpy"):
        examine(folder)
