"""Grey values as stored and as shown, where a header contradicts itself, its pixels or arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid

from pleura.dicom.read import read_dicom
from pleura.errors import InputError

ROWS, COLUMNS = np.mgrid[:24, :16]
RAMP_8 = (ROWS * 10 + COLUMNS).astype(np.uint8)
RAMP_12 = (ROWS * 150 + COLUMNS * 20 + 100).astype(np.uint16)
SIGNED = (RAMP_12.astype(np.int32) - 2000).astype(np.int16)
SYNTAXES = [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.ImplicitVRLittleEndian]
LOSSLESS = [
    *SYNTAXES,
    uid.DeflatedExplicitVRLittleEndian,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.RLELossless,
]


def spread(values: np.ndarray) -> np.ndarray:
    exact = values.astype(np.float64)
    return (exact - exact.min()) / (exact.max() - exact.min())


def edited(path: Path, **attributes: object) -> Path:
    """Write a file again with other attributes and the same pixels."""
    dataset = pydicom.dcmread(path)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    return path


def reason(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_dicom(path)
    return str(caught.value)


# What is stored


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_overlay_in_the_high_bits_is_no_part_of_the_image_in_any_syntax(write_dicom, syntax):
    overlay = (COLUMNS % 2 * 0x8000).astype(np.uint16)
    path = edited(write_dicom(RAMP_12 | overlay, syntax=syntax), BitsStored=12, HighBit=11)
    np.testing.assert_allclose(read_dicom(path).image, spread(RAMP_12), atol=1e-6)


@pytest.mark.parametrize("syntax", [s for s in LOSSLESS if s != uid.JPEG2000Lossless], ids=lambda s: s.keyword)
def test_signed_values_may_be_stored_without_their_sign_extended(write_dicom, syntax):
    path = write_dicom((SIGNED & 0xFFF).astype(np.uint16), syntax=syntax)
    path = edited(path, BitsStored=12, HighBit=11, PixelRepresentation=1)
    np.testing.assert_allclose(read_dicom(path).image, spread(SIGNED), atol=1e-6)


# Padding, whose VR need not be that of the pixels


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("bits", "vr", "words"),
    [
        (16, "SS", (-2000, -1990)),
        (16, "US", (63536, 63546)),
        (12, "SS", (-2000, -1990)),
        (12, "US", (63536, 63546)),
        (12, "US", (2096, 2106)),
    ],
)
def test_padding_of_signed_pixels_is_found_whatever_its_vr(write_dicom, syntax, photometric, bits, vr, words):
    stored = np.clip(SIGNED, -1500, 1500).astype(np.int16)
    stored[:4] = np.linspace(-2000, -1990, 16)
    path = write_dicom(stored, syntax=syntax, BitsStored=bits, PhotometricInterpretation=photometric)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", vr, words[0])
    dataset.add_new("PixelPaddingRangeLimit", vr, words[1])
    dataset.save_as(path)
    image = read_dicom(path).image
    right = spread(stored[4:])
    assert (image[:4] == 0).all()
    np.testing.assert_allclose(image[4:], right if photometric == "MONOCHROME2" else 1 - right, atol=1e-6)


@pytest.mark.parametrize(("vr", "word"), [("US", 63536), ("SS", -2000), ("OW", b"\x30\xf8"), ("SL", -2000)])
def test_padding_of_unsigned_pixels_is_found_whatever_its_vr(write_dicom, vr, word):
    stored = RAMP_12 * 10
    stored[:4] = 63536
    path = write_dicom(stored)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", vr, word)
    dataset.save_as(path)
    image = read_dicom(path).image
    assert (image[:4] == 0).all()
    np.testing.assert_allclose(image[4:], spread(stored[4:]), atol=1e-6)


def test_padding_that_bits_stored_cannot_hold_is_no_pixel(write_dicom):
    image = read_dicom(write_dicom(RAMP_12, BitsStored=12, PixelPaddingValue=63536)).image
    np.testing.assert_allclose(image, spread(RAMP_12), atol=1e-6)


@pytest.mark.parametrize(("vr", "value"), [("UL", 100_000), ("DS", "1.5"), ("LO", "none")])
def test_padding_that_is_no_word_is_refused(write_dicom, vr, value):
    path = write_dicom(RAMP_12)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", vr, value)
    dataset.save_as(path)
    assert "PixelPaddingValue" in reason(path)


# Arithmetic


@pytest.mark.parametrize("stored", [RAMP_8, RAMP_12], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize(
    "attributes",
    [
        {"RescaleSlope": "1e308"},
        {"RescaleSlope": "-1e308", "RescaleIntercept": "1e308"},
        {"RescaleSlope": "1e308", "WindowCenter": "0", "WindowWidth": "1e308"},
        {"RescaleSlope": "1e304", "WindowCenter": "-1e308", "WindowWidth": "1"},
        {"RescaleIntercept": "1e308"},
        {"RescaleIntercept": "1e18"},
        {"RescaleSlope": "1e-300", "RescaleIntercept": "1"},
        {"WindowCenter": "100", "WindowWidth": "1e308"},
        {"WindowCenter": "1e308", "WindowWidth": "1e308", "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": "100", "WindowWidth": "1e12"},
    ],
)
def test_grey_values_lost_in_huge_numbers_are_refused(write_dicom, stored, attributes):
    message = reason(write_dicom(stored, **attributes))
    assert "\n" not in message
    assert "grey values" in message or "all pixels are equal" in message


@pytest.mark.parametrize("attributes", [{"RescaleSlope": "1e-300"}, {"RescaleSlope": "1e300"}])
def test_what_is_still_a_number_is_read(write_dicom, attributes):
    np.testing.assert_allclose(read_dicom(write_dicom(RAMP_12, **attributes)).image, spread(RAMP_12), atol=1e-6)


# Windows


@pytest.mark.parametrize(
    "window",
    [
        {"WindowWidth": 0},
        {"WindowWidth": "0.5"},
        {"WindowWidth": 0, "VOILUTFunction": "SIGMOID"},
        {"WindowWidth": 0, "VOILUTFunction": "LINEAR_EXACT"},
    ],
)
def test_window_that_shows_nothing_gives_way_to_the_full_range_with_a_note(write_dicom, window):
    radiograph = read_dicom(write_dicom(RAMP_12, WindowCenter=2048, **window))
    np.testing.assert_allclose(radiograph.image, spread(RAMP_12), atol=1e-6)
    (note,) = radiograph.notes
    assert note == f"Window Width is {window['WindowWidth']}, which shows nothing: " + (
        "the full range of its grey values is shown instead"
    )


def test_eight_bits_under_such_a_window_are_divided_by_255(write_dicom):
    radiograph = read_dicom(write_dicom(RAMP_8, WindowCenter=0, WindowWidth=0))
    np.testing.assert_array_equal(np.rint(radiograph.image * 255), RAMP_8)
    assert len(radiograph.notes) == 1


def test_window_that_is_used_gives_no_note(write_dicom):
    assert read_dicom(write_dicom(RAMP_12, WindowCenter=2048, WindowWidth=4096)).notes == ()
