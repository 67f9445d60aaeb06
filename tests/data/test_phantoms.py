"""Phantoms: what they promise to every other test, and that no threshold can do what a net has to learn."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pleura.data import rle
from pleura.data.phantoms.anatomy import Pose
from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.data.phantoms.radiographs import make_phantom
from pleura.errors import InputError


@pytest.fixture(scope="module")
def positives():
    return [make_phantom([5, seed], size_px=128) for seed in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantom_dataset(folder, n_patients=6, seed=3, size_px=96)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def shown(dataset: pydicom.Dataset) -> np.ndarray:
    """The image in [0, 1], bright = dense, worked out by hand from the stored values."""
    values = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    if "WindowCenter" in dataset:
        centre, width = float(dataset.WindowCenter), float(dataset.WindowWidth)
        values = ((values - (centre - 0.5)) / (width - 1) + 0.5).clip(0, 1)
    else:
        values = values / (2**dataset.BitsStored - 1)
    return 1 - values if dataset.PhotometricInterpretation == "MONOCHROME1" else values


def test_image_is_float32_between_0_and_1_and_a_mask_is_binary(positives):
    for phantom in positives[:5]:
        assert phantom.image.shape == phantom.mask.shape == (128, 128)
        assert phantom.image.dtype == np.float32
        assert phantom.mask.dtype == np.uint8
        assert phantom.image.min() >= 0
        assert phantom.image.max() <= 1
        assert set(np.unique(phantom.mask)) == {0, 1}


def test_same_seed_gives_the_same_phantom_and_another_seed_another():
    first, again, other = make_phantom(7, 64), make_phantom(7, 64), make_phantom(8, 64)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.mask.tobytes() == again.mask.tobytes()
    assert first.image.tobytes() != other.image.tobytes()


def test_mask_is_empty_exactly_where_there_is_no_pneumothorax(positives):
    assert all(phantom.mask.any() and phantom.side in ("R", "L") for phantom in positives)
    negative = make_phantom(3, 64, has_pneumothorax=False)
    assert not negative.mask.any()
    assert negative.side is None


def test_mask_lies_on_the_named_side_and_the_patients_right_is_image_left(positives):
    assert {phantom.side for phantom in positives} == {"R", "L"}
    for phantom in positives:
        column = np.nonzero(phantom.mask)[1].mean()
        assert (column < 64) == (phantom.side == "R")


def test_pneumothorax_covers_between_one_and_ten_percent_of_the_picture(positives):
    shares = [phantom.mask.mean() for phantom in positives]
    assert min(shares) > 0.01
    assert max(shares) < 0.10


def test_another_size_shows_the_same_anatomy():
    small, large = make_phantom(11, 64), make_phantom(11, 256)
    reduced = large.mask.reshape(64, 4, 64, 4).mean((1, 3)) > 0.5
    assert 2 * (small.mask & reduced).sum() / (small.mask.sum() + reduced.sum()) > 0.85


def test_no_intensity_threshold_outlines_the_pneumothorax(positives):
    images = np.stack([np.rint(255 * phantom.image) for phantom in positives])
    masks = np.stack([phantom.mask for phantom in positives])
    best = 0.0
    for threshold in range(256):
        for predicted in (images <= threshold, images >= threshold):
            overlap = (predicted & (masks == 1)).sum((1, 2))
            best = max(best, float(np.mean(2 * overlap / (predicted.sum((1, 2)) + masks.sum((1, 2))))))
    assert best < 0.2


def test_rim_has_no_vessels_but_the_lung_does(monkeypatch):
    phantom = make_phantom(2, 256)
    monkeypatch.setattr("pleura.data.phantoms.radiographs.vessels", lambda *_: np.float32(0))
    difference = np.abs(phantom.image - make_phantom(2, 256).image)
    assert difference[phantom.mask == 1].mean() < 0.1 * difference[60:180, 40:220].mean()


def test_two_radiographs_of_one_patient_share_an_anatomy_that_two_patients_do_not(monkeypatch):
    pose = Pose(view="PA", angle=0.0, scale=1.1, shift=(0.0, 0.05), turn=0.0, breath=0.0)
    monkeypatch.setattr("pleura.data.phantoms.radiographs.draw_pose", lambda _: pose)
    first, second, stranger = (
        make_phantom(seed, 128, False, patient).image for seed, patient in ((0, 1), (1, 1), (2, 2))
    )
    alike, unlike = (np.corrcoef(first.ravel(), other.ravel())[0, 1] for other in (second, stranger))
    assert first.tobytes() != second.tobytes()
    assert alike > unlike


def test_two_radiographs_of_one_patient_differ_in_pose():
    assert make_phantom(0, 64, True, 1).mask.tobytes() != make_phantom(1, 64, True, 1).mask.tobytes()


@pytest.mark.parametrize("arguments", [{"seed": -1}, {"seed": 0, "size_px": 8}, {"seed": 0, "patient_seed": -3}])
def test_phantom_that_cannot_be_drawn_is_refused(arguments):
    with pytest.raises(InputError, match="a phantom needs"):
        make_phantom(**arguments)


def test_dicom_files_cover_both_photometric_interpretations_both_depths_and_both_modalities(folder):
    files = [pydicom.dcmread(path) for path in sorted((folder / "dicom").glob("*.dcm"))]
    mixes = {(file.PhotometricInterpretation, file.BitsStored) for file in files}
    assert mixes == {("MONOCHROME1", 8), ("MONOCHROME1", 12), ("MONOCHROME2", 8), ("MONOCHROME2", 12)}
    assert {file.Modality for file in files} == {"DX", "CR"}
    assert all(str(file.PatientName).startswith("Phantom^") for file in files)
    assert all(file.file_meta.MediaStorageSOPInstanceUID == file.SOPInstanceUID for file in files)


def test_dicom_files_read_back_to_the_image_within_half_a_level(folder):
    texts = [row["EncodedPixels"] for row in rows(folder / "masks.csv")]
    for number, row in enumerate(rows(folder / "patients.csv")):
        file = pydicom.dcmread(folder / "dicom" / f"{row['ImageId']}.dcm")
        owner = int(row["patient"].rsplit("-", 1)[1])
        phantom = make_phantom([3, number], 96, texts[number] != rle.EMPTY, patient_seed=3 * 100_003 + owner)
        levels = 255 if file.BitsStored == 8 else 3640
        assert np.abs(shown(file) - phantom.image).max() <= 0.5 / levels + 1e-6


def test_masks_of_the_csv_are_the_phantoms_masks_on_the_siim_grid(folder):
    by_id = {row["ImageId"]: row["EncodedPixels"] for row in rows(folder / "masks.csv")}
    assert set(by_id) == {path.stem for path in (folder / "dicom").glob("*.dcm")}
    masks = [rle.decode(text) for text in by_id.values() if text != rle.EMPTY]
    assert len(masks) == round(len(by_id) / 2)
    for mask in masks:
        assert mask.shape == (1024, 1024)
        assert 0.01 < mask.mean() < 0.10


def test_same_seed_writes_the_same_bytes_and_another_replaces_them(folder, tmp_path):
    write_phantom_dataset(tmp_path, n_patients=6, seed=3, size_px=96)
    assert content(tmp_path) == content(folder)
    (tmp_path / "dicom" / "mine.dcm").write_bytes(b"not ours")
    write_phantom_dataset(tmp_path, n_patients=2, seed=4, size_px=64)
    left = {path.stem for path in (tmp_path / "dicom").iterdir()}
    assert left == {row["ImageId"] for row in rows(tmp_path / "masks.csv")} | {"mine"}
