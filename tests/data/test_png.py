"""PNG files that are written: every reader finds the same pixels, and who wrote them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from pleura.data.png import png_bytes, read_png


@given(arrays(np.uint8, st.one_of(array_shapes(min_dims=2, max_dims=2), st.just((5, 4, 3)), st.just((1, 1, 3)))))
def test_pixels_come_back_as_they_were(pixels):
    picture = Image.open(io.BytesIO(png_bytes(pixels, "a writer")))
    assert picture.text == {"Software": "a writer"}
    assert picture.mode == ("L" if pixels.ndim == 2 else "RGB")
    np.testing.assert_array_equal(np.asarray(picture), pixels)


def test_our_own_reader_agrees_and_every_checksum_is_right(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(pixels, "a writer", {"Description": "half a µm"}))
    np.testing.assert_array_equal(read_png(path).samples, pixels)
    assert read_png(path).texts == {"Software": "a writer", "Description": "half a µm"}
    Image.open(path).verify()


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 4), np.uint8), np.zeros((4, 4), np.float32)],
)
def test_what_is_neither_grey_nor_rgb_of_8_bits_is_refused(pixels):
    with pytest.raises(ValueError, match="no pixels of a PNG"):
        png_bytes(pixels, "a writer")
