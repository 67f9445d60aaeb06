"""Connected components, against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from pleura.evaluation.metrics.components import components

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.booleans())


def same_as_scipy(mask: np.ndarray) -> None:
    found, count = components(mask)
    expected, expected_count = ndimage.label(mask, np.ones((3, 3), dtype=int))
    assert count == expected_count
    np.testing.assert_array_equal(found, expected)


@given(mask=masks)
def test_components_are_those_of_scipy_in_the_same_order(mask: np.ndarray):
    same_as_scipy(mask)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.4, 0.5, 0.9, 1.0])
def test_components_of_noise_are_those_of_scipy(share: float):
    same_as_scipy(np.random.default_rng(0).random((257, 400)) < share)


def test_a_spiral_and_a_comb_are_one_component_each():
    spiral = np.zeros((41, 41), dtype=bool)
    for ring in range(0, 20, 2):
        spiral[ring, ring : 41 - ring] = spiral[ring : 41 - ring, 40 - ring] = True
        spiral[40 - ring, ring : 41 - ring] = spiral[ring + 2 : 41 - ring, ring] = True
        spiral[ring + 2, ring : ring + 2] = True
    comb = np.zeros((50, 101), dtype=bool)
    comb[:, ::2], comb[-1] = True, True
    for mask in (spiral, comb, np.eye(30, dtype=bool)):
        same_as_scipy(mask)
        assert components(mask)[1] == 1
