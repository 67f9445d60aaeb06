"""Radiographs whose pixels are not square, through prepare and predict, beside the same ones whose pixels are."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pleura.data import rle
from pleura.data.dataset import Dataset
from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.data.prepare import PrepareSettings, prepare
from pleura.data.radiograph import read_radiograph
from pleura.decision.triplet import Triplet
from pleura.evaluation.evaluate import _spacings
from pleura.inference.overlay import overlay
from pleura.inference.predictor import Predictor
from pleura.models.checkpoint import load_checkpoint

SIDE = 256
RULE = Triplet(0.5, 60_000, 0.5)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Phantoms, and the same with rows twice as high: half as many, each the mean of two, with their masks."""
    square, squeezed = tmp_path_factory.mktemp("square"), tmp_path_factory.mktemp("squeezed")
    for folder in (square, squeezed):
        write_phantom_dataset(folder, 4, 0, SIDE, 1.0, mask_size_px=SIDE)
    for number, path in enumerate(sorted((squeezed / "dicom").iterdir())):
        dataset = pydicom.dcmread(path)
        pixels = dataset.pixel_array.reshape(SIDE // 2, 2, SIDE).mean(axis=1).astype(dataset.pixel_array.dtype)
        dataset.Rows, dataset.PixelData = SIDE // 2, pixels.tobytes()
        spacing = float(dataset.ImagerPixelSpacing[0] if "PixelSpacing" not in dataset else dataset.PixelSpacing[0])
        dataset.PixelSpacing = [f"{2 * spacing:.6g}", f"{spacing:.6g}"]
        if number % 2:
            del dataset.PixelSpacing
            if "ImagerPixelSpacing" in dataset:
                del dataset.ImagerPixelSpacing
            dataset.PixelAspectRatio = [2, 1]
        elif "ImagerPixelSpacing" in dataset:
            dataset.ImagerPixelSpacing = dataset.PixelSpacing
        dataset.save_as(path)
    with (squeezed / "masks.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    halves = [(name, rle.encode(rle.decode(runs, (SIDE, SIDE))[::2])) for name, runs in rows[1:]]
    with (squeezed / "masks.csv").open("w", newline="") as file:
        csv.writer(file).writerows([rows[0], *halves])
    return square, squeezed


@pytest.fixture(scope="module")
def datasets(folders) -> list[Dataset]:
    return [
        prepare(
            PrepareSettings(folder / "dicom", (folder / "masks.csv",), folder / "out", 128, folds=2, rle_grid="image")
        ).dataset
        for folder in folders
    ]


def test_they_are_prepared_as_if_their_pixels_were_square(datasets):
    square, squeezed = datasets
    assert [case.image_id for case in square.cases] == [case.image_id for case in squeezed.cases]
    assert {(case.rows, case.columns, case.pixel_aspect) for case in square.cases} == {(256, 256, 1.0)}
    assert {(case.rows, case.columns, case.pixel_aspect) for case in squeezed.cases} == {(128, 256, 2.0)}
    for one, other in zip(square.images, squeezed.images, strict=True):
        assert np.abs(one.astype(float) - other).mean() < 2
    rows = np.arange(len(square))
    for one, other in zip(square.masks(rows), squeezed.masks(rows), strict=True):
        assert (one & other).sum() > 0.9 * (one | other).sum()


def test_distances_in_millimetres_are_those_of_the_square(datasets):
    square, squeezed = (_spacings(dataset, np.arange(len(dataset))) for dataset in datasets)
    pairs = [(one, other) for one, other in zip(square, squeezed, strict=True) if other is not None]
    assert pairs
    for one, other in pairs:
        assert other == pytest.approx(one, rel=1e-3)
        assert other[0] == pytest.approx(other[1])


def test_what_is_found_comes_back_on_the_grid_of_the_file(folders, run):
    checkpoint = load_checkpoint(run / "fold-0" / "best.safetensors")
    larger = replace(checkpoint.preprocessing, prepared_px=128)
    predictor = Predictor([replace(checkpoint, preprocessing=larger)], triplet=RULE)
    # In place of a net: a disc on the square that it sees.
    rows, columns = np.mgrid[:128, :128]
    disc = ((rows - 50) ** 2 + (columns - 70) ** 2 < 20**2).astype(np.float32)
    predictor.probabilities = lambda squares: np.stack([disc] * len(squares))
    paths = [sorted((folder / "dicom").iterdir())[0] for folder in folders]
    square, squeezed = (predictor.predict(path) for path in paths)
    assert square.predicted_mask.shape == (256, 256)
    assert squeezed.predicted_mask.shape == squeezed.probabilities.shape == (128, 256)
    there = squeezed.predicted_mask.repeat(2, axis=0)
    assert (there & square.predicted_mask).sum() > 0.97 * (there | square.predicted_mask).sum()
    assert squeezed.area_mm2 == pytest.approx(square.area_mm2, rel=0.02)
    # A rule of so many pixels means the same on both: it is a share of the square.
    assert squeezed.area_px == pytest.approx(square.area_px / 2, rel=0.02)
    drawn = [overlay(found.radiograph.image, found.predicted_mask) for found in (square, squeezed)]
    assert drawn[0].size == drawn[1].size
    red = [np.asarray(one)[..., 0].astype(int) - np.asarray(one)[..., 1] > 100 for one in drawn]
    assert (red[0] & red[1]).sum() > 0.5 * (red[0] | red[1]).sum()


def test_reading_gives_the_same_picture(folders):
    for one, other in zip(*(sorted((folder / "dicom").iterdir()) for folder in folders), strict=True):
        square, squeezed = read_radiograph(one), read_radiograph(other)
        assert (squeezed.shape, squeezed.image.shape) == ((128, 256), (256, 256))
        assert float(np.abs(square.image - squeezed.image).mean()) < 0.02
