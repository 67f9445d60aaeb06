"""The decision rule on pixels, and weights of prevalence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pleura.decision.search import Histograms
from pleura.decision.triplet import (
    LEVELS,
    REFERENCE_AREA_PX,
    SIIM_PREVALENCE,
    Triplet,
    prevalence_weights,
)
from pleura.errors import InputError

SIDE_PX = 8
AREA_PX = SIDE_PX**2


def test_an_image_is_empty_unless_enough_of_it_reaches_the_top():
    probabilities = np.array([[0.9, 0.75, 0.4], [0.25, 0.2, 0.1]], dtype=np.float32)
    rule = {area: Triplet(0.75, area, 0.25).apply(probabilities, REFERENCE_AREA_PX) for area in (0, 2, 3)}
    assert rule[2].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert rule[0].tolist() == rule[2].tolist()
    assert not rule[3].any()
    assert rule[2].dtype == np.uint8


def test_an_area_of_zero_still_asks_for_a_pixel_at_the_top():
    assert not Triplet(0.8, 0, 0.3).apply(np.full((4, 4), 0.5, dtype=np.float32), REFERENCE_AREA_PX).any()


def test_both_thresholds_are_reached_by_equality():
    at_the_edge = np.full((2, 2), 0.5, dtype=np.float32)
    assert Triplet(0.5, 4, 0.5).apply(at_the_edge, REFERENCE_AREA_PX).all()


def test_min_pixels_means_the_same_share_at_every_size():
    probabilities = np.zeros((512, 512), dtype=np.float32)
    probabilities.reshape(-1)[:250] = 0.9
    assert Triplet(0.8, 1000, 0.5).apply(probabilities, 512 * 512).sum() == 250
    assert not Triplet(0.8, 1001, 0.5).apply(probabilities, 512 * 512).any()
    assert not Triplet(0.8, 251, 0.5).apply(probabilities, REFERENCE_AREA_PX).any()


def test_a_cropped_image_is_judged_by_the_square_it_was_padded_to():
    probabilities = np.full((512, 256), 0.9, dtype=np.float32)
    needs_half = Triplet(0.8, REFERENCE_AREA_PX // 2, 0.5)
    assert needs_half.apply(probabilities, 512 * 512).all()
    assert not Triplet(0.8, REFERENCE_AREA_PX // 2 + 8, 0.5).apply(probabilities, 512 * 512).any()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (0.0, 0),
        (1e-300, 1),
        (0.0019, 1),
        (0.3, 77),
        (np.float32(0.5), 128),
        (0.9999, 255),
        (1.0, 256),
    ],
)
def test_a_threshold_lies_on_the_grid_and_does_not_become_none_or_certainty(given: float, wanted: int):
    rule = Triplet(given, 0, given)
    assert (rule.top_threshold, rule.bottom_threshold) == (wanted / LEVELS, wanted / LEVELS)
    assert Triplet(rule.top_threshold, 0, rule.bottom_threshold) == rule


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e-9, 1.0000001, "0.5", None, True, [0.5], 10**400])
@pytest.mark.parametrize("name", ["top_threshold", "bottom_threshold"])
def test_a_threshold_that_is_none_is_refused_by_its_name(name: str, value: object):
    with pytest.raises(InputError, match=f"{name} is a number within 0 and 1"):
        Triplet(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1, float("nan"), 2.5, 7.0, "7", None, True])
def test_an_area_that_is_none_is_refused_by_its_name(value: object):
    with pytest.raises(InputError, match="min_pixels is a whole number"):
        Triplet(min_pixels=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("document", [None, [], {}, "x", {"top_threshold": 0.5}, {**vars(Triplet()), "more": 1}])
def test_json_that_is_no_triplet_is_refused(document: object):
    with pytest.raises(InputError, match="a triplet has just top_threshold, min_pixels, bottom_threshold"):
        Triplet.of(document)


@pytest.mark.parametrize("area", [REFERENCE_AREA_PX + 1, 2_000_000, 10**400])
def test_all_rules_that_find_nothing_are_one(area: int):
    rule = Triplet(0.5, area, 0.5)
    assert rule.finds_nothing
    assert rule == Triplet(0.5, REFERENCE_AREA_PX + 1, 0.5)
    assert str(rule) == "finds nothing on any image"
    for side in (1, 7, 64, 1030):
        assert not rule.apply(np.ones((side, side), dtype=np.float32), side**2).any()


def test_a_rule_that_asks_for_the_whole_image_still_finds_something():
    rule = Triplet(1.0, REFERENCE_AREA_PX, 1.0)
    assert not rule.finds_nothing
    assert all(rule.apply(np.ones((side, side), dtype=np.float32), side**2).all() for side in (1, 7, 96, 1030))


def test_a_threshold_of_one_takes_what_is_certain_and_nothing_else():
    probabilities = np.array([[1.0, np.nextafter(np.float32(1), np.float32(0))]], dtype=np.float32)
    assert Triplet(1.0, 0, 1.0).apply(probabilities, 2).tolist() == [[1, 0]]
    found, dice = Histograms.of(probabilities[None], np.array([[[1, 0]]], dtype=np.uint8)).decided(Triplet(1.0, 0, 1.0))
    assert (found.tolist(), dice.tolist()) == ([True], [1.0])


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(1, 30), st.floats(0.05, 0.95))
def test_weights_make_up_the_prevalence(n_positives: int, n_negatives: int, prevalence: float):
    positive = np.array([True] * n_positives + [False] * n_negatives)
    weights = prevalence_weights(positive, prevalence)
    assert weights.sum() == pytest.approx(1)
    assert weights[positive].sum() == pytest.approx(prevalence)
    assert len(set(weights[positive])) == len(set(weights[~positive])) == 1


@pytest.mark.parametrize("positive", [np.ones(4, dtype=bool), np.zeros(4, dtype=bool)])
def test_weights_are_equal_where_a_class_is_missing(positive: np.ndarray):
    assert prevalence_weights(positive, SIIM_PREVALENCE).tolist() == [0.25] * 4
