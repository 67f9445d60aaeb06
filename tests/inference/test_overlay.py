"""The outline of a mask on a picture: the line that scipy's erosion would give, without scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from pleura.inference.overlay import DISCLAIMER, FILL, PREDICTED_RGB, overlay


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=24), elements=st.integers(0, 1)))
def test_line_is_the_mask_without_its_erosion(mask: NDArray[np.uint8]):
    rows, columns = mask.shape
    pixels = np.asarray(overlay(np.zeros(mask.shape, np.float32), mask))[:rows, :columns]
    line = (mask == 1) & ~binary_erosion(mask)
    assert np.array_equal((pixels == PREDICTED_RGB).all(axis=2), line)


@pytest.mark.parametrize("side_px", [300, 800, 1200])
def test_line_is_as_thick_as_the_picture_is_large(side_px: int):
    mask = np.zeros((side_px, side_px), np.uint8)
    mask[side_px // 4 : -side_px // 4, side_px // 4 :] = 1  # up to the border, which gets a line too
    pixels = np.asarray(overlay(np.zeros(mask.shape, np.float32), mask, longest_px=side_px))[:side_px, :side_px]
    line = (mask == 1) & ~binary_erosion(mask, iterations=max(1, round(side_px / 400)))
    assert np.array_equal((pixels == PREDICTED_RGB).all(axis=2), line)
    assert (pixels[(mask == 1) & ~line, 0] == int(FILL * PREDICTED_RGB[0])).all()


def test_grey_picture_has_the_pixels_of_the_one_in_colour_and_is_taken_only_where_nothing_is_drawn():
    image = np.random.default_rng(0).random((60, 300), np.float32)
    empty, one = np.zeros(image.shape, np.uint8), np.zeros(image.shape, np.uint8)
    one[7, 9] = 1
    grey = overlay(image, empty, empty, caption="no pneumothorax found", may_be_grey=True)
    in_colour = np.asarray(overlay(image, empty, one, caption="no pneumothorax found", may_be_grey=True))
    assert (grey.mode, in_colour.ndim) == ("L", 3)
    different = (np.asarray(grey)[:, :, None] != in_colour).any(axis=2)
    assert list(zip(*np.nonzero(different), strict=True)) == [(7, 9)]
    assert overlay(image, empty, caption="no pneumothorax found").mode == "RGB"


def test_disclaimer_is_never_cut_however_narrow_the_picture_is(monkeypatch):
    from PIL import ImageDraw

    drawn = []
    write = ImageDraw.ImageDraw.text

    def noted(self, at, line, font, fill):
        drawn.append((line, at[0] + font.getlength(line), self.im.size[0]))
        write(self, at, line, font=font, fill=fill)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", noted)
    for width in (1, 30, 64, 200, 1024):
        drawn.clear()
        overlay(np.zeros((40, width), np.float32), np.zeros((40, width), np.uint8), caption="pneumothorax, right")
        assert " ".join(line for line, _, _ in drawn) == f"pneumothorax, right {DISCLAIMER}"
        assert all(end <= wide for _, end, wide in drawn)
