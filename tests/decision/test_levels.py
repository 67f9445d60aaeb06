"""Probabilities as 8 bits: the decision rule finds the same pixels in them, whatever the thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pleura.decision.levels import levels_of, probabilities_of, refuse_unless_kept
from pleura.decision.triplet import LEVELS, NOTHING, REFERENCE_AREA_PX, Triplet
from pleura.errors import InputError

ON_THE_GRID = st.integers(0, LEVELS).map(lambda level: np.float32(level / LEVELS))
BELOW_THE_GRID = ON_THE_GRID.map(lambda value: np.nextafter(value, np.float32(0)))
PROBABILITIES = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.one_of(ON_THE_GRID, BELOW_THE_GRID, st.floats(0, 1, width=32)),
)
THRESHOLDS = st.integers(0, LEVELS - 1).map(lambda level: level / LEVELS)


@given(PROBABILITIES, THRESHOLDS, st.integers(0, REFERENCE_AREA_PX), THRESHOLDS, st.integers(1, 40))
def test_rule_finds_the_same_mask_in_levels_as_in_the_probabilities(probabilities, top, min_pixels, bottom, area_px):
    triplet, levels = Triplet(top, min_pixels, bottom), levels_of(probabilities)
    refuse_unless_kept(triplet)
    assert levels.dtype == np.uint8
    np.testing.assert_array_equal(
        triplet.apply(probabilities_of(levels), area_px), triplet.apply(probabilities, area_px)
    )


@given(PROBABILITIES)
def test_levels_round_down_by_less_than_one_step_and_come_back_as_they_were(probabilities):
    levels = levels_of(probabilities)
    lost = probabilities - probabilities_of(levels)
    assert (lost >= 0).all()
    assert (lost < 1 / LEVELS)[probabilities < 1].all()
    np.testing.assert_array_equal(levels_of(probabilities_of(levels)), levels)


@pytest.mark.parametrize("thresholds", [(1.0, 0.5), (1.0, 1.0), (0.5, 1.0)])
def test_threshold_of_one_is_refused_as_8_bits_do_not_keep_it(thresholds):
    top, bottom = thresholds
    with pytest.raises(InputError, match="do not tell 1 from 255/256"):
        refuse_unless_kept(Triplet(top, 1, bottom))


def test_rule_that_finds_nothing_is_kept_although_its_thresholds_are_one():
    refuse_unless_kept(NOTHING)
    certain = np.ones((2, 2), np.float32)
    assert not NOTHING.apply(certain, 4).any()
    assert not NOTHING.apply(probabilities_of(levels_of(certain)), 4).any()
