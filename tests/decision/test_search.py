"""The decision rule on histograms, and a search that finds what trying everything finds."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pleura.decision.search import Histograms, search
from pleura.decision.triplet import LEVELS, REFERENCE_AREA_PX, Triplet, prevalence_weights
from pleura.evaluation.metrics.siim import siim_dice

SIDE_PX = 8
AREA_PX = SIDE_PX**2


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a few levels and masks of a few images, some of which are empty."""
    n = draw(st.integers(3, 6))
    levels = draw(st.lists(st.integers(0, 254), min_size=2, max_size=5, unique=True))
    seed = draw(st.integers(0, 2**31))
    generator = np.random.default_rng(seed)
    masks = (generator.random((n, SIDE_PX, SIDE_PX)) < generator.choice([0.0, 0.1, 0.4], (n, 1, 1))).astype(np.uint8)
    informed = generator.random(masks.shape) + draw(st.floats(0, 1)) * masks + generator.random((n, 1, 1))
    chosen = np.digitize(informed, np.quantile(informed, np.linspace(0, 1, len(levels) + 1)[1:-1]))
    return (np.sort(levels)[chosen] / LEVELS).astype(np.float32), masks


def best_by_trying_everything(probabilities: np.ndarray, masks: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The highest mean Dice over all levels that occur, as top and as bottom, and all areas."""
    levels = np.unique(probabilities)
    nothing = siim_dice(masks, np.zeros_like(masks))
    best = float(np.average(nothing, weights=weights))
    for bottom in levels:
        dice = siim_dice(masks, probabilities >= bottom)
        for top in levels[levels >= bottom]:
            areas = (probabilities >= top).sum(axis=(1, 2))
            for needed in np.unique(areas[areas > 0]):
                score = np.average(np.where(areas >= needed, dice, nothing), weights=weights)
                best = max(best, float(score))
    return best


def apply_all(triplet: Triplet, probabilities: np.ndarray) -> np.ndarray:
    return np.stack([triplet.apply(image, image.size) for image in probabilities])


# Any float, and those around which rules differ: the ends, the grid, and what lies just beside it.
thresholds = (
    st.floats(0, 1)
    | st.integers(0, LEVELS).map(lambda level: level / LEVELS)
    | st.integers(0, LEVELS - 1).map(lambda level: float(np.nextafter(level / LEVELS, 1)))
    | st.sampled_from([0.0, 5e-324, 0.0019, 0.001953125, 0.998, 0.99999, float(np.nextafter(1, 0)), 1.0])
)
triplets = st.builds(Triplet, thresholds, st.integers(0, REFERENCE_AREA_PX + 2) | st.integers(0, 200_000), thresholds)
# Whole levels as well as what lies between them, 0 and 1 included.
probability_maps = hnp.arrays(
    np.float32, (3, 4, 5), elements=st.floats(0, 1, width=32) | st.sampled_from([0.0, 0.5, 1.0])
)
mask_stacks = hnp.arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 1))


# --- histograms


@settings(max_examples=50)
@given(probability_maps, mask_stacks)
def test_histograms_know_area_and_dice_at_every_threshold(probabilities: np.ndarray, masks: np.ndarray):
    histograms = Histograms.of(probabilities, masks)
    assert histograms.area_px == 20
    assert histograms.positive.tolist() == masks.any(axis=(1, 2)).tolist()
    for level in (0, 1, 64, 128, 255, 256):
        reached = probabilities >= level / LEVELS
        assert histograms.areas()[:, level].tolist() == reached.sum(axis=(1, 2)).tolist()
        np.testing.assert_allclose(histograms.dice()[:, level], siim_dice(masks, reached))


@settings(max_examples=300)
@given(probability_maps, mask_stacks, triplets)
def test_the_rule_on_histograms_is_the_rule_on_pixels(probabilities: np.ndarray, masks: np.ndarray, triplet: Triplet):
    called, dice = Histograms.of(probabilities, masks).decided(triplet)
    predicted = apply_all(triplet, probabilities)
    assert called.tolist() == predicted.any(axis=(1, 2)).tolist()
    np.testing.assert_allclose(dice, siim_dice(masks, predicted))


def test_histograms_join_and_part_as_their_images_do():
    generator = np.random.default_rng(0)
    probabilities = generator.random((5, 4, 4), dtype=np.float32)
    masks = generator.integers(0, 2, (5, 4, 4), dtype=np.uint8)
    whole = Histograms.of(probabilities, masks)
    joined = Histograms.join([Histograms.of(probabilities[:2], masks[:2]), Histograms.of(probabilities[2:], masks[2:])])
    assert np.array_equal(joined.counts, whole.counts)
    assert len(joined) == 5
    assert np.array_equal(
        whole.take(np.array([3, 3])).counts, Histograms.of(probabilities[[3, 3]], masks[[3, 3]]).counts
    )


@settings(max_examples=150)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2**31),
    st.lists(thresholds, min_size=4, max_size=4),
    st.integers(0, 1600),
    st.integers(-1, 1),
)
def test_the_scored_mask_is_the_written_one_at_every_size_and_at_the_edge_of_the_area(
    rows: int, columns: int, seed: int, levels: list[float], pixels: int, beside: int
):
    """min_pixels just at, above and below what so many pixels of this size are worth."""
    generator = np.random.default_rng(seed)
    probabilities = generator.choice(np.array(levels), (2, rows, columns)).astype(np.float32)
    masks = generator.integers(0, 2, probabilities.shape, dtype=np.uint8)
    area = max(0, -(-pixels * REFERENCE_AREA_PX // (rows * columns)) + beside)
    triplet = Triplet(levels[0], area, levels[1])
    found, dice = Histograms.of(probabilities, masks).decided(triplet)
    written = np.stack([triplet.apply(image, image.size) for image in probabilities])
    assert found.tolist() == written.any(axis=(1, 2)).tolist()
    np.testing.assert_allclose(dice, siim_dice(masks, written))


@settings(max_examples=50)
@given(st.integers(1, 60), st.integers(0, 2**31))
def test_the_score_of_a_search_is_that_of_its_triplet_at_every_size(side: int, seed: int):
    generator = np.random.default_rng(seed)
    probabilities = generator.random((4, side, side), dtype=np.float32)
    masks = (generator.random((4, side, side)) < np.array([0, 0, 0.3, 0.7])[:, None, None]).astype(np.uint8)
    found = search(Histograms.of(probabilities, masks))
    assert siim_dice(masks, apply_all(found.triplet, probabilities)).mean() == pytest.approx(found.score)


# --- the search


@settings(max_examples=50)
@given(predictions())
def test_the_search_finds_what_trying_everything_finds(case: tuple[np.ndarray, np.ndarray]):
    found = search(Histograms.of(*case))
    assert found.score == pytest.approx(best_by_trying_everything(*case), abs=1e-9)


@settings(max_examples=50)
@given(predictions(), st.integers(0, 999))
def test_the_weighted_search_finds_what_trying_everything_finds(case: tuple[np.ndarray, np.ndarray], seed: int):
    weights = np.random.default_rng(seed).uniform(0.1, 5, len(case[0]))
    found = search(Histograms.of(*case), weights)
    assert found.score == pytest.approx(best_by_trying_everything(*case, weights), abs=1e-9)


@settings(max_examples=50)
@given(predictions())
def test_the_triplet_found_has_the_score_of_the_search(case: tuple[np.ndarray, np.ndarray]):
    probabilities, masks = case
    found = search(Histograms.of(probabilities, masks))
    assert siim_dice(masks, apply_all(found.triplet, probabilities)).mean() == pytest.approx(found.score)
    assert Histograms.of(probabilities, masks).decided(found.triplet)[1].mean() == pytest.approx(found.score)


@settings(max_examples=40)
@given(predictions())
def test_no_published_rule_beats_the_search(case: tuple[np.ndarray, np.ndarray]):
    histograms = Histograms.of(*case)
    tops = ((0.75, 1000), (0.75, 2000), (0.6, 2000), (0.6, 3000))  # those that the winner of SIIM-ACR tried
    published = [Triplet(top, area, bottom) for top, area in tops for bottom in (0.3, 0.4)]
    best = max(histograms.decided(rule)[1].mean() for rule in published)
    assert search(histograms).score >= best - 1e-9


@settings(max_examples=40)
@given(predictions())
def test_the_bottom_found_is_not_above_the_top(case: tuple[np.ndarray, np.ndarray]):
    found = search(Histograms.of(*case)).triplet
    assert 0 <= found.bottom_threshold <= found.top_threshold <= 1
    assert 0 <= found.min_pixels <= REFERENCE_AREA_PX + 1  # one more: nothing is ever called


def test_a_false_positive_of_the_smaller_area_is_kept_out():
    probabilities, masks = np.zeros((2, SIDE_PX, SIDE_PX), dtype=np.float32), np.zeros((2, SIDE_PX, SIDE_PX), np.uint8)
    probabilities[0, :4, :4], masks[0, :4, :4] = 0.75, 1
    probabilities[1, :2, :2] = 0.75
    found = search(Histograms.of(probabilities, masks))
    assert found.score == 1.0
    scale = REFERENCE_AREA_PX / AREA_PX
    assert 4 * scale < found.triplet.min_pixels <= 16 * scale


def test_search_returns_the_empty_predictor_where_nothing_is_better():
    probabilities, masks = np.zeros((3, SIDE_PX, SIDE_PX), dtype=np.float32), np.zeros((3, SIDE_PX, SIDE_PX), np.uint8)
    masks[0, 0, 0], probabilities[1:, 4:] = 1, 0.5
    found = search(Histograms.of(probabilities, masks))
    assert found.score == pytest.approx(2 / 3)
    assert not apply_all(found.triplet, probabilities).any()


def test_the_empty_predictor_is_empty_even_where_every_probability_is_1():
    probabilities, masks = np.ones((2, SIDE_PX, SIDE_PX), dtype=np.float32), np.zeros((2, SIDE_PX, SIDE_PX), np.uint8)
    found = search(Histograms.of(probabilities, masks))
    assert found.score == 1.0
    assert not apply_all(found.triplet, probabilities).any()


def test_the_score_of_a_search_is_that_of_its_triplet_on_images_larger_than_the_reference():
    counts = np.zeros((2, LEVELS + 1, 2), dtype=np.int64)
    counts[:, 0, 0] = 4 * REFERENCE_AREA_PX
    counts[0, 200, 1], counts[1, 200, 0] = 6, 5
    counts[:, 0, 0] -= (6, 5)
    found = search(Histograms(counts))
    assert Histograms(counts).decided(found.triplet)[1].mean() == pytest.approx(found.score)


def test_one_image_can_be_searched():
    probabilities = np.full((1, 4, 4), 0.5, dtype=np.float32)
    assert search(Histograms.of(probabilities, np.ones((1, 4, 4), dtype=np.uint8))).score == 1.0
    assert search(Histograms.of(probabilities, np.zeros((1, 4, 4), dtype=np.uint8))).score == 1.0


def test_the_prevalence_can_change_the_rule_that_is_best():
    masks = np.zeros((4, SIDE_PX, SIDE_PX), dtype=np.uint8)
    masks[:2, :4] = 1
    probabilities = np.full((4, SIDE_PX, SIDE_PX), 0.25, dtype=np.float32)
    probabilities[:, :4] = np.array([0.75, 0.5, 0.5, 0.25])[:, None, None]
    histograms = Histograms.of(probabilities, masks)
    rules = [search(histograms, prevalence_weights(histograms.positive, share)).triplet for share in (0.05, 0.95)]
    assert [int(histograms.decided(rule)[0].sum()) for rule in rules] == [1, 3]


def test_every_combination_of_a_coarse_grid_is_at_most_the_optimum():
    generator = np.random.default_rng(5)
    probabilities = generator.random((6, SIDE_PX, SIDE_PX), dtype=np.float32)
    masks = (probabilities + generator.normal(0, 0.3, probabilities.shape) > 0.9).astype(np.uint8)
    histograms = Histograms.of(probabilities, masks)
    grid = product((0.25, 0.5, 0.75), (0, 1000, 100_000, 400_000), (0.125, 0.5, 0.875))
    scores = [histograms.decided(Triplet(top, area, bottom))[1].mean() for top, area, bottom in grid if bottom <= top]
    assert search(histograms).score >= max(scores)
