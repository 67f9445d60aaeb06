"""Outlines of masks: closed lines along the edges of pixels, from which the very mask comes back."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from dicom_objects import f_shape
from hypothesis import given
from hypothesis import strategies as st

from pleura.dicom.gsps import MOST_POINTS, lines_of
from pleura.dicom.outline import outlines


def filled(lines: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """The mask that lines enclose by the even-odd rule: each vertical edge changes what is right of it."""
    crossed = np.zeros((shape[0], shape[1] + 1), dtype=np.int64)
    for line in lines:
        for (column, row), (next_column, next_row) in pairwise(line):
            assert (column == next_column) != (row == next_row), "a line that is neither upright nor level"
            if column == next_column:
                crossed[min(row, next_row) : max(row, next_row), column] += 1
    return (crossed.cumsum(axis=1)[:, :-1] % 2).astype(np.uint8)


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_mask_comes_back_from_its_outlines(rows, columns, data):
    bits = data.draw(st.lists(st.integers(0, 1), min_size=rows * columns, max_size=rows * columns))
    mask = np.array(bits, dtype=np.uint8).reshape(rows, columns)
    lines = outlines(mask)
    assert np.array_equal(filled(lines, mask.shape), mask)
    assert all(np.array_equal(line[0], line[-1]) and len(line) >= 5 for line in lines)


def test_line_has_corners_alone():
    (line,) = outlines(f_shape(60, 50))
    steps = np.diff(line, axis=0) != 0
    assert len(line) == 11  # an F has ten corners
    assert not (steps[:-1] == steps[1:]).all(axis=1).any()


def test_hole_has_a_line_and_pixels_that_touch_at_a_corner_have_one_each():
    ring = np.ones((3, 3), dtype=np.uint8)
    ring[1, 1] = 0
    assert len(outlines(ring)) == 2
    assert len(outlines(np.eye(3, dtype=np.uint8))) == 3
    assert outlines(np.zeros((3, 3), dtype=np.uint8)) == []


def test_long_line_comes_in_parts_that_an_element_can_hold():
    comb = np.zeros((3, 2 * MOST_POINTS), dtype=np.uint8)
    comb[0], comb[1, ::2] = 1, 1
    lines = lines_of(comb)
    assert len(lines) > 3
    assert all(2 <= len(line) <= MOST_POINTS for line in lines)
    assert all(np.array_equal(one[-1], other[0]) for one, other in pairwise(lines))
    assert np.array_equal(filled(lines, comb.shape), comb)
