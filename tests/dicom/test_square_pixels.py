"""Pixels that are not square: what says so, what wins, and a picture with square ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pleura.dicom.read import read_dicom
from pleura.dicom.square_pixels import square_pixel_shape, with_square_pixels
from pleura.errors import InputError

ROWS, COLUMNS = np.mgrid[:128, :128]
DISC = (((ROWS - 63.5) ** 2 + (COLUMNS - 63.5) ** 2 < 40**2) * 200 + 50).astype(np.uint8)


def box(image: np.ndarray) -> tuple[int, int]:
    return int((image > 0.5).any(axis=1).sum()), int((image > 0.5).any(axis=0).sum())


@pytest.mark.parametrize(
    ("attributes", "aspect"),
    [
        ({"PixelSpacing": [0.4, 0.2]}, 2),
        ({"PixelSpacing": ["0.2", "0.4"]}, 0.5),
        ({"ImagerPixelSpacing": [0.4, 0.2]}, 2),
        ({"ImagerPixelSpacing": [0.4, 0.2], "EstimatedRadiographicMagnificationFactor": 1.1}, 2),
        ({"NominalScannedPixelSpacing": [0.4, 0.2]}, 2),
        ({"PixelAspectRatio": [2, 1]}, 2),
        ({"PixelAspectRatio": [3, 4]}, 0.75),
        ({"PixelAspectRatio": [300, 200]}, 1.5),
        ({"PixelSpacing": [400, 200]}, 2),
        ({"PixelSpacing": ["1e308", "0.1"], "PixelAspectRatio": [2, 1]}, 2),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.4, 0.2]}, 2),
        ({"PixelAspectRatio": [0, 1]}, 1),
        ({"PixelAspectRatio": [1, 1]}, 1),
        ({"PixelSpacing": [0.1400, 0.1413]}, 1),
        ({}, 1),
    ],
)
def test_shape_of_a_pixel_is_in_the_spacing_or_else_in_the_ratio(write_dicom, attributes, aspect):
    radiograph = read_dicom(write_dicom(DISC, **attributes))
    assert radiograph.pixel_aspect == pytest.approx(aspect)
    assert radiograph.shape == DISC.shape
    assert radiograph.image.shape == square_pixel_shape(*DISC.shape, aspect)
    assert radiograph.notes == ()


@pytest.mark.parametrize(
    ("attributes", "aspect", "loser", "winner"),
    [
        ({"PixelSpacing": [0.2, 0.2], "PixelAspectRatio": [2, 1]}, 1, "PixelAspectRatio", "PixelSpacing"),
        ({"PixelSpacing": [0.4, 0.2], "PixelAspectRatio": [1, 1]}, 2, "PixelAspectRatio", "PixelSpacing"),
        ({"PixelSpacing": [0.4, 0.2], "ImagerPixelSpacing": [0.2, 0.2]}, 2, "ImagerPixelSpacing", "PixelSpacing"),
    ],
)
def test_of_two_answers_the_calibrated_one_wins_with_a_note(write_dicom, attributes, aspect, loser, winner):
    radiograph = read_dicom(write_dicom(DISC, **attributes))
    assert radiograph.pixel_aspect == aspect
    assert radiograph.notes == (f"{loser} disagrees with {winner} on the shape of a pixel: {winner} is taken",)


@pytest.mark.parametrize("attributes", [{"PixelAspectRatio": [100, 1]}, {"PixelSpacing": [0.05, 5]}])
def test_pixels_of_an_impossible_shape_are_refused(write_dicom, attributes):
    with pytest.raises(InputError, match=r"times as high as wide by its Pixel\w+; export it again"):
        read_dicom(write_dicom(DISC, **attributes))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("by", ["spacing", "ratio"])
def test_disc_stays_a_disc(write_dicom, axis, by):
    pairs = DISC.reshape((64, 2, 128) if axis == 0 else (128, 64, 2))
    stored = pairs.mean(axis=axis + 1).astype(np.uint8)
    shape = [2, 1] if axis == 0 else [1, 2]
    said = {"PixelAspectRatio": shape} if by == "ratio" else {"PixelSpacing": [0.2 * one for one in shape]}
    radiograph = read_dicom(write_dicom(stored, **said))
    assert (radiograph.shape, radiograph.image.shape) == (stored.shape, (128, 128))
    assert box(radiograph.image) == box(DISC / 255)
    assert float(np.abs(radiograph.image - DISC / 255).mean()) < 0.01


@given(st.integers(1, 9000), st.integers(1, 9000), st.floats(0.1, 10))
def test_square_pixels_keep_the_field_of_view_and_stay_within_bounds(rows, columns, aspect):
    shape = square_pixel_shape(rows, columns, aspect)
    assert 1 <= max(shape) <= max(4096, rows, columns)
    if min(shape) > 20:
        assert shape[0] / shape[1] == pytest.approx(rows * aspect / columns, rel=0.06)
    assert square_pixel_shape(rows, columns, 1.0) == (rows, columns)


def test_square_pixels_are_passed_through_untouched():
    image = np.random.default_rng(0).random((8, 6), dtype=np.float32)
    assert with_square_pixels(image, 1.0) is image
