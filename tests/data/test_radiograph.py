"""Radiographs on disk: which are found, how pictures are read, and where an image sits on the square grid."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from pleura.data.geometry import SquareGeometry
from pleura.data.radiograph import read_radiograph
from pleura.errors import InputError

ROWS, COLUMNS = np.mgrid[:24, :16]
RAMP_8 = (ROWS * 10 + COLUMNS).astype(np.uint8)
sides = st.integers(1, 90)
geometries = st.builds(SquareGeometry, sides, sides, sides, st.sampled_from([1.0, 0.5, 2.0, 1.3, 0.12]))


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options) -> Path:
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def save_dicom(path: Path, stored: np.ndarray) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, "1.2.3"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_radiograph(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


# Reading


@pytest.mark.parametrize("name", ["a.dcm", "a.png", "1.2.840.5", "a"])
def test_dicom_is_told_by_its_content(tmp_path, name):
    radiograph = read_radiograph(save_dicom(tmp_path / name, RAMP_8))
    assert (radiograph.image_id, radiograph.sop_instance_uid) == ("1.2.3", "1.2.3")


def test_png_and_dicom_of_the_same_eight_bits_agree(tmp_path):
    picture = read_radiograph(save(tmp_path / "a.png", RAMP_8)).image
    np.testing.assert_array_equal(picture, read_radiograph(save_dicom(tmp_path / "a.dcm", RAMP_8)).image)


def test_png_named_dcm_is_read_as_png(tmp_path):
    radiograph = read_radiograph(save(tmp_path / "a.dcm", RAMP_8, format="PNG"))
    np.testing.assert_array_equal(np.rint(radiograph.image * 255), RAMP_8)
    assert (radiograph.image_id, radiograph.patient_id, radiograph.pixel_spacing_mm) == ("a", None, None)


def test_jpeg_is_read_as_eight_bits(tmp_path):
    image = read_radiograph(save(tmp_path / "a.jpg", RAMP_8, quality=98)).image
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, RAMP_8 / 255, atol=4 / 255)


@pytest.mark.parametrize(("highest", "full"), [(200, 255), (4000, 4095), (9000, 16383), (16384, 65535), (65535, 65535)])
def test_sixteen_bit_png_is_divided_by_the_full_range_that_holds_it(tmp_path, highest, full):
    stored = np.linspace(0, highest, 384).astype(np.uint16).reshape(24, 16)
    image = read_radiograph(save(tmp_path / "a.png", stored)).image
    np.testing.assert_allclose(image, stored / full, atol=1e-6)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_grey_picture_saved_in_colour_is_read_as_grey(tmp_path, mode):
    image = read_radiograph(save(tmp_path / "a.png", RAMP_8, mode)).image
    np.testing.assert_array_equal(np.rint(image * 255), RAMP_8)


def test_orientation_in_exif_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    image = read_radiograph(save(tmp_path / "a.png", RAMP_8, exif=exif)).image
    np.testing.assert_array_equal(np.rint(image * 255), np.rot90(RAMP_8, -1))


def test_colour_picture_is_refused(tmp_path):
    coloured = np.dstack([RAMP_8, RAMP_8, 255 - RAMP_8])
    assert "in colour" in refusal(save(tmp_path / "a.png", coloured))


def test_transparent_picture_is_refused(tmp_path):
    transparent = np.dstack([RAMP_8, RAMP_8, RAMP_8, RAMP_8])
    assert "transparent" in refusal(save(tmp_path / "a.png", transparent))


@pytest.mark.parametrize(("mode", "suffix"), [("1", "png"), ("CMYK", "jpg")])
def test_picture_of_another_kind_is_refused_by_its_mode(tmp_path, mode, suffix):
    assert f"mode {mode}" in refusal(save(tmp_path / f"a.{suffix}", RAMP_8, mode))


def test_constant_picture_is_refused(tmp_path):
    assert "all pixels are equal" in refusal(save(tmp_path / "a.png", np.full((9, 9), 3, np.uint8)))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_truncated_picture_is_refused(tmp_path, suffix, part):
    noise = np.random.default_rng(0).integers(0, 255, (99, 99), dtype=np.uint8)
    path = save(tmp_path / f"a.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    assert "damaged" in refusal(path)


@pytest.mark.parametrize(("rows", "columns"), [(2, 20001), (13000, 13000), (19000, 19000)])
def test_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, rows, columns):
    path = save(tmp_path / "a.png", RAMP_8)
    content = bytearray(path.read_bytes())
    content[16:24] = columns.to_bytes(4, "big") + rows.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    assert "pixels" in refusal(path)


def test_missing_file_is_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "absent.png")


def test_text_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    assert "not a DICOM file" in refusal(tmp_path / "a.png")


# The square grid


def test_image_of_the_size_is_passed_through_exactly():
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    geometry = SquareGeometry(16, 16, 16)
    np.testing.assert_array_equal(geometry.image_to_square(stored.astype(np.float32) / np.float32(255)), stored)


def test_tall_image_is_centred_between_black_borders():
    square = SquareGeometry(8, 4, 8).image_to_square(np.ones((8, 4), np.float32))
    np.testing.assert_array_equal(square, np.pad(np.full((8, 4), 255, np.uint8), ((0, 0), (2, 2))))


def test_wide_image_leaves_its_odd_row_at_the_bottom():
    geometry = SquareGeometry(5, 8, 8)
    assert geometry.inner == (slice(1, 6), slice(0, 8))


def test_reduction_averages_without_overshoot():
    checkerboard = (np.indices((64, 64)).sum(axis=0) % 2).astype(np.float32)
    np.testing.assert_allclose(SquareGeometry(64, 64, 16).image_to_square(checkerboard), 127.5, atol=1)


@given(geometries)
def test_shapes_are_exact_both_ways(geometry):
    shape, square = (geometry.rows, geometry.columns), (geometry.size_px, geometry.size_px)
    assert max(geometry.inner_shape) == geometry.size_px
    assert geometry.image_to_square(np.ones(geometry.image_shape, np.float32)).shape == square
    assert geometry.mask_to_square(np.ones(shape, np.uint8)).shape == square
    assert geometry.probabilities_to_original(np.ones(square, np.float32)).shape == shape


@pytest.mark.parametrize(
    ("aspect", "inner", "per_pixel", "whole_px"),
    [
        (1, (slice(16, 48), slice(0, 64)), (2, 2), 128 * 128),
        (2, (slice(0, 64), slice(0, 64)), (1, 2), 64 * 128),
        (4, (slice(0, 64), slice(16, 48)), (1, 4), 64 * 256),
        (0.5, (slice(24, 40), slice(0, 64)), (4, 2), 256 * 128),
    ],
)
def test_pixels_that_are_not_square_have_their_own_share_of_the_square(aspect, inner, per_pixel, whole_px):
    geometry = SquareGeometry(64, 128, 64, aspect)
    assert geometry.inner == inner
    assert geometry.pixels_per_square_pixel == pytest.approx(per_pixel)
    assert geometry.whole_area_px == whole_px


@given(geometries, st.randoms(use_true_random=False), st.floats(0, 1))
def test_masks_stay_binary_and_a_positive_stays_positive(geometry, random, density):
    rng = np.random.default_rng(random.randrange(2**32))
    mask = (rng.random((geometry.rows, geometry.columns)) < density).astype(np.uint8)
    square = geometry.mask_to_square(mask)
    assert square.dtype == np.uint8
    assert square.max() <= 1
    assert mask.any() == square.any()


@given(sides, st.randoms(use_true_random=False))
def test_where_sizes_agree_all_is_identity(size_px, random):
    rng = np.random.default_rng(random.randrange(2**32))
    geometry = SquareGeometry(size_px, size_px, size_px)
    mask, probabilities = rng.integers(0, 2, (size_px, size_px), np.uint8), rng.random((size_px, size_px), np.float32)
    np.testing.assert_array_equal(geometry.mask_to_square(mask), mask)
    np.testing.assert_array_equal(geometry.probabilities_to_original(probabilities), probabilities)


@settings(max_examples=200)
@given(st.integers(20, 200), st.integers(20, 200), st.integers(20, 200), st.data())
def test_rectangle_returns_to_its_place_within_a_pixel(rows, columns, size_px, data):
    geometry = SquareGeometry(rows, columns, size_px)
    coarse = max(1.0, max(rows / geometry.inner_shape[0], columns / geometry.inner_shape[1]))
    height, width = (
        (data.draw(st.integers(int(2 * coarse) + 1, side)) for side in (rows, columns))
        if (min(rows, columns) > 2 * coarse)
        else (rows, columns)
    )
    top, left = data.draw(st.integers(0, rows - height)), data.draw(st.integers(0, columns - width))
    mask = np.zeros((rows, columns), np.uint8)
    mask[top : top + height, left : left + width] = 1
    square = geometry.mask_to_square(mask).astype(np.float32)
    found = np.argwhere(geometry.probabilities_to_original(square) >= 0.5)
    wanted = np.array([[top, left], [top + height - 1, left + width - 1]])
    assert np.abs(np.stack([found.min(axis=0), found.max(axis=0)]) - wanted).max() <= coarse


@given(geometries, st.floats(0, 1, width=32))
def test_constant_probability_stays_constant(geometry, probability):
    square = np.full((geometry.size_px, geometry.size_px), probability, np.float32)
    assert np.ptp(geometry.probabilities_to_original(square)) == 0
    assert geometry.probabilities_to_original(square).flat[0] == np.float32(probability)


@pytest.mark.parametrize("factor", [2, 3])
def test_probabilities_are_aligned_at_pixel_edges(factor):
    ramp = np.tile(np.arange(32, dtype=np.float32) / 32, (32, 1))
    size = 32 * factor
    enlarged = SquareGeometry(size, size, 32).probabilities_to_original(ramp)
    centres = ((np.arange(size) + 0.5) / factor - 0.5) / 32
    np.testing.assert_allclose(enlarged[0, factor:-factor], centres[factor:-factor], atol=1e-5)


def test_mask_in_the_border_alone_is_empty_on_the_original():
    square = np.zeros((8, 8), np.float32)
    square[:, 0] = 1
    assert not SquareGeometry(8, 4, 8).probabilities_to_original(square).any()


def test_mask_of_another_shape_is_refused():
    with pytest.raises(InputError, match="mask is 4 x 8 pixels where 8 x 4"):
        SquareGeometry(8, 4, 8).mask_to_square(np.zeros((4, 8), np.uint8))


def test_image_without_pixels_is_refused():
    with pytest.raises(InputError, match="0 x 4"):
        SquareGeometry(0, 4, 8)
