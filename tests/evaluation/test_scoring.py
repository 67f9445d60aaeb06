"""Lesions, candidates and outlines of one case, drawn by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pleura.decision.search import Histograms
from pleura.decision.triplet import Triplet
from pleura.evaluation.metrics.siim import siim_dice
from pleura.evaluation.scoring import (
    REFERENCE_SIDE_PX,
    TOLERANCE_MM,
    TOLERANCE_PX,
    PixelMeasures,
    candidates,
    case_numbers,
)

SIDE = 64


def drawn(*boxes: tuple[slice, slice, float]) -> np.ndarray:
    image = np.zeros((SIDE, SIDE), dtype=np.float32)
    for rows, columns, value in boxes:
        image[rows, columns] = value
    return image


LESION = (slice(10, 20), slice(10, 20), 1.0)
MASK = drawn(LESION).astype(np.uint8)


def test_a_lesion_is_found_at_the_highest_probability_that_covers_a_tenth_of_it():
    assert candidates(drawn((slice(10, 12), slice(10, 20), 0.8)), MASK, 0.5).found_at == pytest.approx((0.8,))


def test_a_mark_that_covers_less_than_a_tenth_neither_finds_nor_alarms():
    found = candidates(drawn((slice(10, 13), slice(10, 13), 0.8)), MASK, 0.5)
    assert (found.found_at, found.false_at) == ((0.0,), ())


def test_two_small_marks_find_a_lesion_together_at_the_lower_confidence():
    marks = drawn((slice(10, 12), slice(10, 13), 0.9), (slice(17, 19), slice(10, 13), 0.6))
    assert candidates(marks, MASK, 0.5).found_at == pytest.approx((0.6,))


def test_a_mark_that_touches_no_lesion_is_a_false_alarm_with_its_confidence():
    found = candidates(drawn((slice(40, 45), slice(40, 45), 0.7), (slice(40, 41), slice(40, 41), 0.95)), MASK, 0.5)
    assert found.found_at == (0.0,)
    assert found.false_at == pytest.approx((0.95,))


def test_corners_that_touch_are_one_component():
    both = drawn((slice(0, 8), slice(0, 8), 1.0), (slice(8, 16), slice(8, 16), 1.0)).astype(np.uint8)
    assert len(candidates(both.astype(np.float32), both, 0.5).found_at) == 1


def test_dust_is_no_false_alarm():
    large = np.zeros((1024, 1024), dtype=np.float32)
    large[::8, ::8] = 0.9
    assert candidates(large, np.zeros((1024, 1024), dtype=np.uint8), 0.5).false_at == ()


def islands(mask):
    """Connected components, diagonals included, by walking."""
    left, count = {tuple(place) for place in np.argwhere(mask).tolist()}, 0
    while left:
        count, walk = count + 1, [left.pop()]
        while walk:
            row, column = walk.pop()
            near = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= near
            walk += near
    return count


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_every_lesion_is_counted_once_whatever_is_marked(seed, share, threshold):
    generator = np.random.default_rng(seed)
    mask = (generator.random((12, 12)) < share).astype(np.uint8)
    found = candidates(generator.random((12, 12)).astype(np.float32), mask, threshold)
    assert len(found.found_at) == islands(mask)
    assert all(at == 0 or at >= np.float32(threshold) for at in found.found_at)


def test_a_missed_positive_has_no_distance_and_a_surface_dice_of_zero():
    numbers = case_numbers(None, MASK, np.zeros_like(MASK), 0.5, (1, 1), 1.0)
    assert math.isnan(numbers.hd95)
    assert numbers.surface_dice == 0
    assert numbers.area_share == pytest.approx(100 / SIDE**2)
    assert numbers.side == "R"


def test_a_negative_has_neither():
    numbers = case_numbers(None, np.zeros_like(MASK), MASK, 0.5, (1, 1), 1.0)
    assert math.isnan(numbers.hd95)
    assert math.isnan(numbers.surface_dice)
    assert numbers.side is None


def shifted(spacings):
    measures = PixelMeasures(Triplet(0.5, 0, 0.5), SIDE, spacings)
    measures.add(drawn((slice(10, 20), slice(12, 22), 1.0))[None], MASK[None])
    return measures


def test_distances_are_in_mm_where_every_spacing_is_known_and_in_pixels_of_1024_elsewhere():
    known, unknown = shifted([(5.0, 5.0)]), shifted([None])
    assert (known.unit, known.tolerance) == ("mm", TOLERANCE_MM)
    assert known.cases[0].hd95 == pytest.approx(10)
    assert (unknown.unit, unknown.tolerance) == ("px", TOLERANCE_PX)
    assert unknown.cases[0].hd95 == pytest.approx(2 * REFERENCE_SIDE_PX / SIDE)


def test_the_pixels_of_every_batch_are_counted_and_forgotten():
    measures = PixelMeasures(Triplet(), SIDE, [None] * 4)
    for _ in range(2):
        measures.add(np.stack([drawn(LESION), drawn()]), np.stack([MASK, 0 * MASK]))
    assert measures.pixel_counts.sum() == 4 * SIDE**2
    assert measures.pixel_counts[:, 1].sum() == 2 * MASK.sum()
    assert len(measures.cases) == 4
    assert measures.turned() is None


def test_predictions_that_are_mirrored_are_told():
    measures = PixelMeasures(Triplet(), SIDE, [None] * 4)
    rows = np.stack([drawn((slice(8 + step, 20 + step), slice(4, 16), 1.0)) for step in (0, 9, 18, 27)])
    measures.add(rows[:, :, ::-1].copy(), rows.astype(np.uint8))
    assert "flipped left to right" in measures.turned().what


def test_parts_that_were_measured_apart_are_the_whole():
    spacings = [(0.1, 0.1 + 0.1 * row) for row in range(4)]
    rows = np.stack([drawn((slice(8 + step, 20 + step), slice(4, 16), 1.0)) for step in (0, 9, 18, 27)])
    masks = np.roll(rows, 3, axis=1).astype(np.uint8)
    whole, joined = (PixelMeasures(Triplet(), SIDE, spacings) for _ in range(2))
    whole.add(rows, masks)
    for start, stop in ((0, 3), (3, 6)):  # the last part is shorter
        part = joined.of_rows(start, stop)
        part.pixel_counts.flags.writeable = False  # as it is after a way through Ray
        part.add(rows[start:stop], masks[start:stop])
        joined.extend(part)
    assert joined.cases == whole.cases
    assert np.array_equal(joined.pixel_counts, whole.pixel_counts)
    assert joined.turned() == whole.turned()


@settings(max_examples=60)
@given(st.floats(0, 1), st.integers(0, 60_000), st.floats(0, 1), st.integers(0, 2**31))
def test_one_report_has_one_decision(top: float, pixels: int, bottom: float, seed: int):
    """Dice by the histograms; surface Dice, HD95 and orientation by the masks: found on the same cases, and as much."""
    generator, triplet = np.random.default_rng(seed), Triplet(top, pixels, bottom)
    beside = np.array([top, bottom, np.nextafter(top, 1), np.nextafter(bottom, 0), 0.0, 1.0], dtype=np.float32)
    probabilities = generator.choice(beside, (3, 16, 16)).astype(np.float32)
    masks = np.zeros((3, 16, 16), dtype=np.uint8)
    masks[:, 3:12, 4:9] = 1
    measures = PixelMeasures(triplet, 16, [None] * 3)
    measures.add(probabilities, masks)
    found, dice = Histograms.of(probabilities, masks).decided(triplet)
    written = np.stack([triplet.apply(each, 256) for each in probabilities])
    assert [math.isfinite(case.hd95) for case in measures.cases] == found.tolist()
    np.testing.assert_allclose(siim_dice(masks, written), dice)
